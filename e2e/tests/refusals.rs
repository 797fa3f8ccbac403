//! Invalid input in the lab. What the API server does not reject becomes a condition with a reason and a message that
//! names
//! the object, the field and the fix, and nothing is lost. `tests/api` covers what the API server rejects.

use anyhow::{Context as _, Result, ensure};
use e2e::{
    csr,
    infra::capi,
    lab::{
        access::{HOST, Lab, client, value, with_token},
        cleanup::{afterwards, gone},
        clusters::{Cluster, QUICKSTART, VERSION, nodes},
        conditions::{PATIENCE, contains_all, message},
        datastore,
        tenants::Scope,
        until::until,
        webhook::{self, Asked},
    },
};
use k8s_openapi::api::{
    certificates::v1::CertificateSigningRequest,
    core::v1::{ConfigMap, Namespace, Secret},
};
use kamaji_api::{bootstrap::KamajiConfig, conditions::FIELD_NOT_SUPPORTED, labels};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

#[tokio::test]
async fn a_tenant_says_which_field_is_wrong_and_what_to_do_and_comes_up_when_that_is_done() -> Result<()> {
    let lab = Lab::open().await?;
    Scope::run(&lab, "refusals", refused).await
}

async fn refused(scope: &Scope) -> Result<()> {
    let node_port = |network: Value| json!({ "controlPlane": { "service": { "serviceType": "NodePort" } }, "networkProfile": network });
    let cases: [(&str, Value, &str, &[&str]); 5] = [
        (
            "nowhere",
            json!({ "dataStore": "nowhere" }),
            "DataStoreNotFound",
            &["DataStore nowhere does not exist; create it, or name another in spec.dataStore"],
        ),
        (
            "noaddress",
            node_port(json!({ "port": 30044 })),
            "AddressRequired",
            &[
                "spec.networkProfile.address is required with serviceType NodePort; set it to an address that reaches \
               the nodes",
            ],
        ),
        (
            "outofrange",
            node_port(json!({ "address": HOST, "port": 6443 })),
            "PortNotAllocatable",
            &[
                "spec.networkProfile.port: 6443 cannot be allocated; set a free port, with serviceType NodePort one in \
                 the node port range",
                "The range of valid ports is 30000-32767",
            ],
        ),
        (
            "nobalancer",
            json!({ "controlPlane": { "service": { "serviceType": "LoadBalancer" } } }),
            "WaitingForLoadBalancer",
            &[
                "Service nobalancer of type LoadBalancer has no address yet; the management cluster needs a load \
               balancer controller, or set spec.networkProfile.address",
            ],
        ),
        (
            "withouteffect",
            json!({ "writePermissions": { "blockCreation": true } }),
            "FieldNotSupported",
            &[
                "set but has no effect in this version: spec.writePermissions; remove it to clear this condition",
            ],
        ),
    ];
    for (name, changes, _, _) in &cases {
        scope
            .create(name, VERSION, changes.clone())
            .await
            .with_context(|| (*name).to_owned())?;
    }
    for (name, _, reason, sentences) in &cases {
        contains_all(&message(&scope.tenants(), name, reason).await?, sentences);
    }

    // Below the ports that the API server allocates by itself.
    let free = json!({ "spec": { "networkProfile": { "port": 30043 } } });
    corrected(scope, "outofrange", free).await?;
    message(&scope.tenants(), "outofrange", "EndpointReady").await?;
    corrected(scope, "nowhere", json!({ "spec": { "dataStore": "default" } })).await?;
    let address = json!({ "spec": { "networkProfile": { "address": HOST } } });
    corrected(scope, "noaddress", address.clone()).await?;
    corrected(scope, "nobalancer", address).await?;
    corrected(
        scope,
        "withouteffect",
        json!({ "spec": { "writePermissions": null } }),
    )
    .await?;
    until("the condition of the field to go", PATIENCE, async || {
        let tenant = scope.tenants().get("withouteffect").await?;
        let conditions = tenant.status.map(|status| status.conditions).unwrap_or_default();
        let raised = conditions.iter().find(|c| c.type_ == FIELD_NOT_SUPPORTED);
        ensure!(raised.is_none(), "{raised:?}");
        Ok(Some(()))
    })
    .await
}

/// After the fix that the message names, the tenant becomes ready.
async fn corrected(scope: &Scope, name: &str, change: Value) -> Result<()> {
    let patch = Patch::Merge(change);
    scope
        .tenants()
        .patch(name, &PatchParams::default(), &patch)
        .await?;
    scope.reaches(name, "Ready", VERSION).await?;
    Ok(())
}

/// A path without images. The lab's nodes take images of every registry from the lab's own.
const NOWHERE: &str = "registry.k8s.io/nowhere";

#[tokio::test]
async fn an_image_that_cannot_be_pulled_is_named_with_its_container() -> Result<()> {
    let lab = Lab::open().await?;
    Scope::run(&lab, "image", async |scope| {
        let from = |registry: &str| json!({ "controlPlane": { "deployment": { "registrySettings": { "registry": registry } } } });
        scope
            .create("image", VERSION, from(NOWHERE))
            .await?;
        let said = message(&scope.tenants(), "image", "PodsFailing").await?;
        // The message may name any of the containers.
        let sentence = |name: &str| {
            format!(
                "container {name}: the image {NOWHERE}/{name}:{VERSION} cannot be pulled; check that it exists \
                 and that the nodes may pull it"
            )
        };
        let containers = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];
        ensure!(
            containers.iter().any(|name| said.contains(&sentence(name))),
            "{said}"
        );
        corrected(scope, "image", json!({ "spec": from("registry.k8s.io") })).await
    })
    .await
}

#[tokio::test]
async fn another_tenants_schema_is_refused_and_stays_whole() -> Result<()> {
    let lab = Lab::open().await?;
    let schema = QUICKSTART.schema(&lab).await?;
    let keys = datastore::count(&lab, &schema).await?;
    ensure!(keys > 0, "the owner has no keys");
    let system = Api::<Namespace>::all(lab.management.clone());
    let cluster = system.get("kube-system").await?.metadata.uid.context("no UID")?;
    Scope::run(&lab, "thief", async |scope| {
        let names = json!({ "dataStoreSchema": schema, "dataStoreUsername": "thief" });
        scope.create("thief", VERSION, names).await?;
        let said = message(&scope.tenants(), "thief", "SchemaOwnedByAnother").await?;
        let sentence = format!(
            "spec.dataStoreSchema: schema {schema:?} belongs to default/quickstart of management cluster {cluster}; "
        );
        contains_all(&said, &[&sentence, "another name, or ", " the field", " which generates one"]);
        Ok(())
    })
    .await?;
    // After the thief's deletion too.
    assert_eq!(datastore::count(&lab, &schema).await?, keys, "keys of the owner");
    Ok(())
}

#[tokio::test]
async fn a_ca_whose_key_does_not_match_is_named_and_not_touched() -> Result<()> {
    let lab = Lab::open().await?;
    Scope::run(&lab, "foreign-ca", async |scope| mismatch(&lab, scope).await).await
}

async fn mismatch(lab: &Lab, scope: &Scope) -> Result<()> {
    let (one, key) = ca()?;
    let (_, two) = ca()?;
    let secret: Secret = serde_json::from_value(json!({
        "metadata": { "name": "mismatch-ca" },
        "type": "Opaque",
        "stringData": { "tls.crt": one, "tls.key": two, "ca.crt": one, "ca.key": two },
    }))?;
    let secrets = Api::<Secret>::namespaced(lab.management.clone(), &scope.name);
    let before = secrets.create(&PostParams::default(), &secret).await?;
    scope.create("mismatch", VERSION, json!({})).await?;
    let said = message(&scope.tenants(), "mismatch", "CertificateAuthorityKeyMismatch").await?;
    let place = format!("Secret {}/mismatch-ca, key", scope.name);
    let sentence = format!(
        "{place} \"tls.key\" does not belong to the certificate in {place} \"tls.crt\": put a matching pair there"
    );
    contains_all(&said, &[&sentence]);
    // Not by assert_eq: that would print the keys.
    ensure!(
        secrets.get("mismatch-ca").await?.data == before.data,
        "the Secret was changed"
    );
    let pair = json!({ "stringData": { "tls.key": key, "ca.key": key } });
    secrets
        .patch("mismatch-ca", &PatchParams::default(), &Patch::Merge(pair))
        .await?;
    scope.reaches("mismatch", "Ready", VERSION).await?;
    Ok(())
}

fn ca() -> Result<(String, String)> {
    let key = rcgen::KeyPair::generate()?;
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new())?;
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn machines(lab: &Lab) -> Api<DynamicObject> {
    Api::namespaced_with(lab.management.clone(), &QUICKSTART.namespace, &capi::machines())
}

fn configs(lab: &Lab) -> Api<KamajiConfig> {
    Api::namespaced(lab.management.clone(), &QUICKSTART.namespace)
}

/// A Machine whose infrastructure never comes, and its KamajiConfig.
async fn machine(lab: &Lab, name: &str, labels: Value) -> Result<()> {
    let config: KamajiConfig = serde_json::from_value(json!({
        "apiVersion": "bootstrap.cluster.x-k8s.io/v1alpha1", "kind": "KamajiConfig",
        "metadata": { "name": name }, "spec": {},
    }))?;
    configs(lab).create(&PostParams::default(), &config).await?;
    let mut all = json!({ labels::capi::CLUSTER_NAME: QUICKSTART.name });
    if let (Some(all), Some(more)) = (all.as_object_mut(), labels.as_object()) {
        all.extend(more.clone());
    }
    let machine: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine",
        "metadata": { "name": name, "labels": all },
        "spec": {
            "clusterName": QUICKSTART.name,
            "version": VERSION,
            "bootstrap": { "configRef": { "apiGroup": "bootstrap.cluster.x-k8s.io", "kind": "KamajiConfig", "name": name } },
            "infrastructureRef": { "apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "LocalMachine", "name": "absent" },
        },
    }))?;
    machines(lab).create(&PostParams::default(), &machine).await?;
    Ok(())
}

/// Removes them, as far as they are there; the Machine's own deletion would wait for infrastructure that never was.
async fn unmake(lab: &Lab, name: &str) -> Result<()> {
    let machines = machines(lab);
    absent_is_fine(machines.delete(name, &DeleteParams::default()).await)?;
    let none = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    absent_is_fine(machines.patch(name, &PatchParams::default(), &none).await)?;
    gone(&machines, name, PATIENCE).await?;
    gone(&configs(lab), name, PATIENCE).await
}

fn absent_is_fine<T>(result: kube::Result<T>) -> Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}

#[tokio::test]
async fn contract_55_a_control_plane_machine_is_refused() -> Result<()> {
    let lab = Lab::open().await?;
    let name = "e2e-master";
    let test = async {
        machine(&lab, name, json!({ labels::capi::CONTROL_PLANE: "" })).await?;
        let said = message(&configs(&lab), name, "ControlPlaneMachineNotSupported").await?;
        contains_all(
            &said,
            &[
                "Machine e2e-master has the label cluster.x-k8s.io/control-plane of control plane machines, but the control \
                 plane runs in pods of a KamajiControlPlane: use a KamajiConfig for worker machines only",
            ],
        );
        Ok(())
    };
    afterwards(test, async || unmake(&lab, name).await).await
}

#[tokio::test]
async fn contract_50_a_data_secret_of_somebody_else_is_not_touched() -> Result<()> {
    let lab = Lab::open().await?;
    let secrets = Api::<Secret>::namespaced(lab.management.clone(), &QUICKSTART.namespace);
    let name = "e2e-taken";
    let theirs: Secret = serde_json::from_value(json!({
        "metadata": {
            "name": name,
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "ConfigMap", "name": "kube-root-ca.crt", "controller": true,
                "uid": uid_of_a_config_map(&lab).await?,
            }],
        },
        "stringData": { "value": "theirs" },
    }))?;
    let test = async {
        let before = secrets.create(&PostParams::default(), &theirs).await?;
        machine(&lab, name, json!({})).await?;
        let said = message(&configs(&lab), name, "SecretNameTaken").await?;
        contains_all(
            &said,
            &[
                "Secret e2e-taken is controlled by ConfigMap kube-root-ca.crt and is not changed: delete it, or delete the \
                 Machine to get one with another name",
            ],
        );
        assert_eq!(secrets.get(name).await?.data, before.data);
        Ok(())
    };
    afterwards(test, async || {
        unmake(&lab, name).await?;
        gone(&secrets, name, PATIENCE).await
    })
    .await
}

async fn uid_of_a_config_map(lab: &Lab) -> Result<String> {
    let maps = Api::<ConfigMap>::namespaced(lab.management.clone(), &QUICKSTART.namespace);
    maps.get("kube-root-ca.crt").await?.metadata.uid.context("no UID")
}

#[tokio::test]
async fn a_control_plane_tells_what_its_tenant_was_refused_in_fields_of_its_own() -> Result<()> {
    let lab = Lab::open().await?;
    let cluster = Cluster::new("default", "e2e-refused");
    let test = async {
        cluster
            .create_with(&lab, 0, &[("KAMAJI_DATASTORE", "nowhere")])
            .await?;
        let control_planes = cluster.control_planes(&lab);
        let patch = async |spec: Value| {
            let patch = Patch::Merge(json!({ "spec": spec }));
            control_planes
                .patch(&cluster.name, &PatchParams::default(), &patch)
                .await
        };
        patch(json!({ "kubelet": { "cgroupfs": "cgroupfs" } })).await?;
        let reported = async |reason: &str| message(&control_planes, &cluster.name, reason).await;
        contains_all(
            &reported("DataStoreNotFound").await?,
            &["DataStore nowhere does not exist; create it, or name another in spec.dataStoreName"],
        );
        contains_all(
            &reported("FieldNotSupported").await?,
            &["spec.kubelet.cgroupfs=cgroupfs; remove it to clear this condition"],
        );
        patch(json!({ "dataStoreName": "default", "kubelet": { "cgroupfs": "systemd" } })).await?;
        cluster.condition(&lab, "Available", "True").await
    };
    afterwards(Box::pin(test), async || cluster.delete(&lab).await).await
}

#[tokio::test]
async fn a_control_plane_tells_what_a_policy_engine_refuses_and_comes_up_when_it_no_longer_does() -> Result<()>
{
    let lab = Lab::open().await?;
    let cluster = Cluster::new("default", "e2e-policy");
    let tenants = Asked {
        group: "kamaji.clastix.io",
        resource: "tenantcontrolplanes",
        namespace: &cluster.namespace,
        name: &cluster.name,
    };
    let test = Scope::run(&lab, "policy", async |scope| {
        webhook::while_refused(&lab.management, &scope.name, &tenants, async || {
            cluster.create(&lab, 0).await?;
            let message = message(&cluster.control_planes(&lab), &cluster.name, "InvalidSpec").await?;
            let denied = r#"admission webhook "refuses.e2e.test" denied the request: this webhook denies all requests"#;
            contains_all(&message, &[denied]);
            let tenant = cluster.tenant(&lab).await;
            ensure!(tenant.is_err(), "it exists");
            Ok(())
        })
        .await?;
        cluster.condition(&lab, "Available", "True").await
    });
    afterwards(Box::pin(test), async || cluster.delete(&lab).await).await
}

#[tokio::test]
async fn bootstrap_19_a_token_that_asks_for_another_machines_name_is_denied() -> Result<()> {
    let lab = Lab::open().await?;
    let name = "e2e-hostile";
    let test = async {
        machine(&lab, name, json!({})).await?;
        let secrets = Api::<Secret>::namespaced(lab.management.clone(), &QUICKSTART.namespace);
        let token = until("the data of the machine", PATIENCE, async || {
            Ok(secrets
                .get_opt(name)
                .await?
                .and_then(|secret| value(&secret, "token")))
        })
        .await?;
        let kubeconfig = lab.kubeconfig(&QUICKSTART.namespace, &QUICKSTART.name).await?;
        let hostile = client(with_token(&kubeconfig, &String::from_utf8(token)?)?).await?;
        let victim = nodes(&QUICKSTART.client(&lab).await?).await?;
        let victim = victim.first().context("no node")?.name_any();
        for (asked, answer) in [
            (victim.as_str(), "Denied NameMismatch"),
            (name, "Approved KamajiTokenBound"),
        ] {
            let request = csr::request(
                &format!("system:node:{asked}"),
                "system:nodes",
                &csr::KUBELET_USAGES,
            )?;
            let requests = Api::<CertificateSigningRequest>::all(hostile.clone());
            let made = requests
                .create(&PostParams::default(), &request)
                .await?
                .name_any();
            let answers = Api::<CertificateSigningRequest>::all(QUICKSTART.client(&lab).await?);
            let said = until(&format!("an answer to {made}"), PATIENCE, async || {
                let status = answers.get(&made).await?.status.unwrap_or_default();
                let first = status.conditions.unwrap_or_default().into_iter().next();
                Ok(first.map(|c| format!("{} {}", c.type_, c.reason.unwrap_or_default())))
            })
            .await?;
            assert_eq!(said, answer, "for {asked}");
            answers.delete(&made, &DeleteParams::default()).await?;
        }
        Ok(())
    };
    afterwards(Box::pin(test), async || unmake(&lab, name).await).await
}
