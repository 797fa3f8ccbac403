//! The hand-off of the endpoint with the definitions of the infrastructure providers, on a real API server: versions, schemas
//! that drop fields, ownership of fields, and admission rules as the providers have them in their webhooks. The definitions
//! are third-party data in the folder that `PROVIDER_CRDS` names.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use capi_kamaji::{
    capi::{
        cluster::Reference,
        contract::{self, InfrastructureKind},
        quirks,
    },
    kamajicontrolplane::handoff::{Infrastructure, Target},
};
use e2e::{apiserver::TestApiServer, lab::until::until, provider_definitions};
use k8s_openapi::{
    api::{
        admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
        rbac::v1::{ClusterRole, ClusterRoleBinding},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kamaji_api::{conditions::Reason, controlplane::Endpoint, labels::capi};
use kube::{
    Client, ResourceExt as _,
    api::{Api, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{manifests::merged, server};

const USUAL: &str = "infrastructure.cluster.x-k8s.io";
const SUPERVISOR: &str = "vmware.infrastructure.cluster.x-k8s.io";
/// A user of the API server with no rights but to read definitions.
const NOBODY: &str = "nobody";

/// How an object gets its endpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// It is written.
    Set,
    /// Its user writes it.
    Verify,
    /// It is written, and that the object is provisioned.
    Managed,
}

/// A kind, its least spec, what its users set for a hosted control plane, and what happens then.
type Row = (&'static str, Value, Value, How);

fn rows() -> Vec<Row> {
    let managed = || json!({"metadata": {"annotations": {capi::MANAGED_BY: "kamaji"}}});
    let preset = || json!({"spec": {"controlPlaneEndpoint": wanted()}});
    let none = || json!({});
    vec![
        (
            "VSphereCluster",
            json!({"server": "vcenter.example.org"}),
            none(),
            How::Set,
        ),
        ("Metal3Cluster", json!({}), preset(), How::Verify),
        (
            "OpenStackCluster",
            json!({"identityRef": {"name": "a", "cloudName": "a"}}),
            json!({"spec": {"disableAPIServerFloatingIP": true}}),
            How::Set,
        ),
        (
            "ProxmoxCluster",
            json!({
                "dnsServers": ["192.0.2.53"],
                "ipv4Config": {"addresses": ["192.0.2.64/27"], "gateway": "192.0.2.1", "prefix": 24},
            }),
            json!({"spec": {"externalManagedControlPlane": true}}),
            How::Set,
        ),
        ("KubevirtCluster", json!({}), managed(), How::Managed),
        (
            "HetznerCluster",
            json!({
                "controlPlaneRegions": [], "sshKeys": {},
                "hetznerSecretRef": {"name": "a", "key": {"hcloudToken": "a"}},
            }),
            json!({"spec": {"controlPlaneLoadBalancer": {"enabled": false}}}),
            How::Set,
        ),
        ("NutanixCluster", json!({}), none(), How::Set),
        (
            "AWSCluster",
            json!({}),
            json!({"spec": {"controlPlaneLoadBalancer": {"loadBalancerType": "disabled"}}}),
            How::Set,
        ),
        (
            "AzureCluster",
            json!({"location": "a"}),
            json!({"spec": {"controlPlaneEnabled": false}}),
            How::Set,
        ),
        (
            "GCPCluster",
            json!({"project": "a", "region": "a"}),
            managed(),
            How::Managed,
        ),
        ("TinkerbellCluster", json!({}), none(), How::Set),
        (
            "PacketCluster",
            json!({"projectID": "a", "vipManager": "CPEM"}),
            managed(),
            How::Managed,
        ),
        (
            "IonosCloudCluster",
            json!({"credentialsRef": {"name": "a"}}),
            none(),
            How::Set,
        ),
        (
            "MetalStackCluster",
            json!({"projectID": "a", "partition": "a"}),
            preset(),
            How::Verify,
        ),
        (
            "CloudStackCluster",
            json!({
                "controlPlaneEndpoint": {"host": "", "port": 0},
                "failureDomains": [{
                    "name": "a", "acsEndpoint": {"name": "a", "namespace": "a"},
                    "zone": {"name": "a", "network": {"name": "a"}},
                }],
            }),
            none(),
            How::Set,
        ),
        (
            "OscCluster",
            json!({}),
            json!({"spec": {"network": {"disable": ["loadbalancer"]}}}),
            How::Set,
        ),
        (
            "DevCluster",
            json!({"backend": {"docker": {}}}),
            managed(),
            How::Managed,
        ),
        ("RemoteCluster", json!({}), none(), How::Set),
    ]
}

fn wanted() -> Endpoint {
    Endpoint {
        host: "192.0.2.1".to_owned(),
        port: 40000,
    }
}

/// The definitions of infrastructure clusters; none without the folder.
fn definitions() -> Result<Option<Vec<CustomResourceDefinition>>> {
    let Some(mut all) = provider_definitions::all()? else {
        return Ok(None);
    };
    all.retain(|definition| definition.spec.names.kind.ends_with("Cluster"));
    ensure!(all.len() == rows().len(), "{} definitions", all.len());
    Ok(Some(all))
}

/// The definition of vSphere with Supervisor, from the provider's Go module, with the labels that its kustomization adds.
fn supervisor() -> Result<Option<CustomResourceDefinition>> {
    let cache = std::env::var_os("GOMODCACHE").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join("go/pkg/mod"));
    let Some(modules) = cache.or(home).map(|cache| cache.join("sigs.k8s.io")) else {
        return Ok(None);
    };
    let file = format!("config/supervisor/crd/bases/{SUPERVISOR}_vsphereclusters.yaml");
    for module in std::fs::read_dir(modules).into_iter().flatten() {
        let module = module?.path();
        let is_it = module
            .to_string_lossy()
            .contains("/cluster-api-provider-vsphere@");
        if is_it && let Ok(text) = std::fs::read_to_string(module.join(&file)) {
            let mut definition: CustomResourceDefinition = serde_yaml::from_str(&text)?;
            let labels = definition.metadata.labels.get_or_insert_default();
            let served = definition.spec.versions.iter().filter(|version| version.served);
            for version in served {
                labels.insert(format!("cluster.x-k8s.io/{}", version.name), version.name.clone());
            }
            return Ok(Some(definition));
        }
    }
    Ok(None)
}

/// The API server with everything in place.
struct Place {
    server: Arc<TestApiServer>,
    client: Client,
    infrastructure: Infrastructure,
    definitions: Vec<CustomResourceDefinition>,
}

impl Place {
    async fn new() -> Result<Option<Self>> {
        let Some(definitions) = definitions()? else {
            return Ok(None);
        };
        let Some(server) = server().await? else {
            return Ok(None);
        };
        for definition in &definitions {
            server.install(definition).await?;
        }
        let client = server.client()?;
        let infrastructure = Infrastructure::new(client.clone(), quirks::embedded()?, false);
        Ok(Some(Self {
            server,
            client,
            infrastructure,
            definitions,
        }))
    }

    fn kind(&self, kind: &str) -> Result<InfrastructureKind> {
        let found = self
            .definitions
            .iter()
            .find(|known| known.spec.names.kind == kind);
        Ok(contract::read(found.with_context(|| kind.to_owned())?)?)
    }

    fn api(&self, kind: &str) -> Result<Api<DynamicObject>> {
        Ok(Api::namespaced_with(
            self.client.clone(),
            "default",
            &self.kind(kind)?.resource,
        ))
    }

    async fn create(&self, kind: &str, name: &str, spec: &Value, over: Value) -> Result<DynamicObject> {
        let resource = self.kind(kind)?.resource;
        let object = json!({
            "apiVersion": resource.api_version, "kind": kind, "metadata": {"name": name}, "spec": spec,
        });
        let params = PostParams {
            field_manager: Some("its-user".to_owned()),
            ..PostParams::default()
        };
        let object = serde_json::from_value(merged(object, over))?;
        self.api(kind)?
            .create(&params, &object)
            .await
            .with_context(|| format!("{kind} {name}"))
    }

    /// Hands [`wanted`] over. Returns the condition's reason and message.
    async fn hand_over(&self, kind: &str, name: &str) -> (Reason, String) {
        self.hand_over_by(&self.infrastructure, kind, name).await
    }

    async fn hand_over_by(&self, by: &Infrastructure, kind: &str, name: &str) -> (Reason, String) {
        let reference = Reference {
            api_group: USUAL.to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
        };
        let target = Target {
            namespace: "default",
            reference: &reference,
            endpoint: &wanted(),
            of_cluster: None,
        };
        match by.hand_over(target, false).await {
            Ok(given) => given.reported(),
            Err(problem) => (problem.reason, problem.message),
        }
    }
}

/// What a field manager owns of an object, status aside.
fn owned<'a>(object: &'a DynamicObject, manager: &str) -> Vec<&'a Value> {
    let entries = object.managed_fields().iter();
    let own =
        entries.filter(|entry| entry.manager.as_deref() == Some(manager) && entry.subresource.is_none());
    own.filter_map(|entry| entry.fields_v1.as_ref().map(|fields| &fields.0))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn contract_31_each_known_kind_gets_the_endpoint_in_the_version_of_its_contract() -> Result<()> {
    let Some(place) = Place::new().await? else {
        return Ok(());
    };
    let mut table = Vec::new();
    for (kind, spec, hosted, how) in rows() {
        let (reason, message) = {
            place.create(kind, "plain", &spec, json!({})).await?;
            place.hand_over(kind, "plain").await
        };
        let is_plain = hosted == json!({});
        let expected = match how {
            _ if is_plain => Reason::Patched,
            How::Verify => Reason::EndpointMustBePreset,
            How::Set | How::Managed => Reason::HostedModeNotConfigured,
        };
        assert_eq!(reason, expected, "{kind}: {message}");
        let plain = place.api(kind)?.get("plain").await?;
        let nothing = owned(&plain, "kamaji-endpoint").is_empty();
        assert_eq!(nothing, !is_plain, "{kind} was written although it is not set up");

        place.create(kind, "hosted", &spec, hosted).await?;
        let (reason, message) = place.hand_over(kind, "hosted").await;
        assert_eq!(reason, Reason::Patched, "{kind}: {message}");
        let object = place.api(kind)?.get("hosted").await?;
        assert_eq!(
            object.data["spec"]["controlPlaneEndpoint"],
            json!(wanted()),
            "{kind}"
        );
        let endpoint = json!({"f:spec": {"f:controlPlaneEndpoint": {"f:host": {}, "f:port": {}}}});
        let expected = if how == How::Verify {
            vec![]
        } else {
            vec![&endpoint]
        };
        assert_eq!(
            owned(&object, "kamaji-endpoint"),
            expected,
            "{kind}: no other field"
        );
        let known = place.kind(kind)?;
        let path = known.contract.provisioned();
        let provisioned = path.iter().try_fold(&object.data, |at, name| at.get(*name));
        assert_eq!(
            provisioned == Some(&json!(true)),
            how == How::Managed,
            "{kind}: {path:?}"
        );

        // The same again writes nothing.
        assert_eq!(place.hand_over(kind, "hosted").await.0, Reason::Patched);
        let again = place.api(kind)?.get("hosted").await?;
        assert_eq!(again.resource_version(), object.resource_version(), "{kind}");
        table.push(format!("{kind} {}: {message}", known.resource.api_version));
    }
    println!("{}", table.join("\n"));
    println!("not tested, for want of a schema: HarvesterCluster, MaasCluster, ByoCluster");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_groups_have_a_kind_of_the_same_name_and_each_its_own_version() -> Result<()> {
    let Some(place) = Place::new().await? else {
        return Ok(());
    };
    let Some(definition) = supervisor()? else {
        println!("not tested, for want of a schema: VSphereCluster of {SUPERVISOR}");
        return Ok(());
    };
    let definition = provider_definitions::stored_as_read(definition)?;
    place.server.install(&definition).await?;
    let resource = contract::read(&definition)?.resource;
    let api: Api<DynamicObject> = Api::namespaced_with(place.client.clone(), "default", &resource);
    let object = json!({
        "apiVersion": resource.api_version, "kind": "VSphereCluster", "metadata": {"name": "of-supervisor"},
        "spec": {"network": {"nsxVPC": {"createSubnetSet": true}}},
    });
    api.create(&PostParams::default(), &serde_json::from_value(object)?)
        .await?;
    let reference = Reference {
        api_group: SUPERVISOR.to_owned(),
        kind: "VSphereCluster".to_owned(),
        name: "of-supervisor".to_owned(),
    };
    let target = Target {
        namespace: "default",
        reference: &reference,
        endpoint: &wanted(),
        of_cluster: None,
    };
    place.infrastructure.hand_over(target, false).await?;
    let stored = api.get("of-supervisor").await?;
    assert_eq!(stored.data["spec"]["controlPlaneEndpoint"], json!(wanted()));
    Ok(())
}

/// Admission rules that providers have in webhooks: name, plural, expression, message.
const RULES: [(&str, &str, &str, &str); 3] = [
    (
        "metal3-host",
        "metal3clusters",
        "has(object.spec.controlPlaneEndpoint) && object.spec.controlPlaneEndpoint.host != ''",
        "spec.controlPlaneEndpoint.host is required",
    ),
    (
        "aws-immutable",
        "awsclusters",
        "oldObject == null || !has(oldObject.spec.controlPlaneEndpoint) || !has(oldObject.spec.controlPlaneEndpoint.host) || \
         oldObject.spec.controlPlaneEndpoint == object.spec.controlPlaneEndpoint",
        "spec.controlPlaneEndpoint is immutable",
    ),
    (
        "remote-names",
        "remoteclusters",
        "object.metadata.name != 'refusing' || !has(object.spec.controlPlaneEndpoint)",
        "this cluster wants a name for its endpoint",
    ),
];

async fn install_rules(client: &Client) -> Result<()> {
    for (name, plural, expression, message) in RULES {
        let policy: ValidatingAdmissionPolicy = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": [USUAL], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": [plural],
                }]},
                "validations": [{"expression": expression, "message": message}],
            },
        }))?;
        let binding: ValidatingAdmissionPolicyBinding = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "policyName": name, "validationActions": ["Deny"],
                "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "admitted"}}},
            },
        }))?;
        let params = PostParams::default();
        Api::all(client.clone()).create(&params, &policy).await?;
        Api::all(client.clone()).create(&params, &binding).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_refuses_is_quoted_and_what_it_keeps_is_left() -> Result<()> {
    let Some(place) = Place::new().await? else {
        return Ok(());
    };
    place.server.namespace("admitted").await?;
    install_rules(&place.client).await?;
    let api = |kind: &str| -> Result<Api<DynamicObject>> {
        Ok(Api::namespaced_with(
            place.client.clone(),
            "admitted",
            &place.kind(kind)?.resource,
        ))
    };
    let object = |kind: &str, name: &str, spec: Value| -> Result<DynamicObject> {
        let api_version = place.kind(kind)?.resource.api_version;
        Ok(serde_json::from_value(
            json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": spec}),
        )?)
    };
    // A policy counts from a moment on; this one refuses any creation without a host.
    let trial = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let (metal3, empty) = (
        api("Metal3Cluster")?,
        object("Metal3Cluster", "empty", json!({}))?,
    );
    until(
        "the policies to count",
        std::time::Duration::from_mins(1),
        async || {
            let refused = metal3
                .create(&trial, &empty)
                .await
                .err()
                .map(|error| error.to_string());
            Ok(refused
                .filter(|words| words.contains("host is required"))
                .map(|_| ()))
        },
    )
    .await?;
    let hand_over = async |kind: &str, name: &str, endpoint: &Endpoint| {
        let reference = Reference {
            api_group: USUAL.to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
        };
        let target = Target {
            namespace: "admitted",
            reference: &reference,
            endpoint,
            of_cluster: None,
        };
        match place.infrastructure.hand_over(target, false).await {
            Ok(given) => given.reported(),
            Err(problem) => (problem.reason, problem.message),
        }
    };

    let remote = api("RemoteCluster")?;
    let params = PostParams::default();
    remote
        .create(&params, &object("RemoteCluster", "refusing", json!({}))?)
        .await?;
    let (reason, message) = until("the refusal", std::time::Duration::from_mins(1), async || {
        let (reason, message) = hand_over("RemoteCluster", "refusing", &wanted()).await;
        Ok((reason == Reason::EndpointRejected).then_some((reason, message)))
    })
    .await?;
    assert_eq!(reason, Reason::EndpointRejected);
    assert!(
        message.contains("this cluster wants a name for its endpoint"),
        "{message}"
    );

    let disabled = json!({"controlPlaneLoadBalancer": {"loadBalancerType": "disabled"}});
    api("AWSCluster")?
        .create(&params, &object("AWSCluster", "kept", disabled)?)
        .await?;
    assert_eq!(
        hand_over("AWSCluster", "kept", &wanted()).await.0,
        Reason::Patched
    );
    let mut moved = wanted();
    moved.port = 6443;
    let (reason, message) = hand_over("AWSCluster", "kept", &moved).await;
    assert_eq!(reason, Reason::EndpointConflict);
    assert!(
        message.contains("has the endpoint 192.0.2.1:40000, set by kamaji-endpoint"),
        "{message}"
    );
    assert!(message.contains("it cannot be changed"), "{message}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_of_somebody_else_is_kept_with_his_name_in_the_condition() -> Result<()> {
    let Some(place) = Place::new().await? else {
        return Ok(());
    };
    let theirs = json!({"spec": {"controlPlaneEndpoint": {"host": "198.51.100.9", "port": 443}}});
    place
        .create("RemoteCluster", "theirs", &json!({}), theirs)
        .await?;
    let (reason, message) = place.hand_over("RemoteCluster", "theirs").await;
    assert_eq!(reason, Reason::EndpointConflict);
    assert!(message.contains("198.51.100.9:443, set by its-user"), "{message}");

    // After ours, by an apply that takes it over.
    place
        .create("RemoteCluster", "taken", &json!({}), json!({}))
        .await?;
    assert_eq!(place.hand_over("RemoteCluster", "taken").await.0, Reason::Patched);
    let api_version = place.kind("RemoteCluster")?.resource.api_version;
    let over = json!({
        "apiVersion": api_version, "kind": "RemoteCluster", "metadata": {"name": "taken"},
        "spec": {"controlPlaneEndpoint": {"host": "198.51.100.9", "port": 443}},
    });
    let params = PatchParams::apply("a-pipeline").force();
    place
        .api("RemoteCluster")?
        .patch("taken", &params, &Patch::Apply(&over))
        .await?;
    let (reason, message) = place.hand_over("RemoteCluster", "taken").await;
    assert_eq!(reason, Reason::EndpointConflict);
    assert!(message.contains("set by a-pipeline"), "{message}");

    // A port alone, as a webhook sets it, is no endpoint; ours follows the control plane.
    let port = json!({"spec": {"controlPlaneEndpoint": {"port": 6443}}});
    place.create("RemoteCluster", "port", &json!({}), port).await?;
    assert_eq!(place.hand_over("RemoteCluster", "port").await.0, Reason::Patched);
    let stored = place.api("RemoteCluster")?.get("port").await?;
    assert_eq!(stored.data["spec"]["controlPlaneEndpoint"], json!(wanted()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clusterrole_in_the_message_is_the_right_that_was_missing() -> Result<()> {
    let Some(place) = Place::new().await? else {
        return Ok(());
    };
    let mut config = place.server.config()?;
    config.auth_info.impersonate = Some(NOBODY.to_owned());
    let nobody = Infrastructure::new(Client::try_from(config)?, quirks::embedded()?, false);
    let roles: Api<ClusterRole> = Api::all(place.client.clone());
    let bindings: Api<ClusterRoleBinding> = Api::all(place.client.clone());
    let bind = async |role: Value| -> Result<()> {
        let role: ClusterRole = serde_json::from_value(role)?;
        let name = role.name_any();
        roles.create(&PostParams::default(), &role).await?;
        let binding = serde_json::from_value(json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": NOBODY}],
        }))?;
        bindings.create(&PostParams::default(), &binding).await?;
        Ok(())
    };
    let managed = json!({"metadata": {"annotations": {capi::MANAGED_BY: "kamaji"}}});
    place
        .create(
            "DevCluster",
            "guarded",
            &json!({"backend": {"docker": {}}}),
            managed,
        )
        .await?;
    let (reason, message) = place.hand_over_by(&nobody, "DevCluster", "guarded").await;
    assert_eq!(reason, Reason::Forbidden);
    assert!(message.contains("customresourcedefinitions"), "{message}");
    bind(json!({"metadata": {"name": "reads-definitions"}, "rules": [{
        "apiGroups": ["apiextensions.k8s.io"], "resources": ["customresourcedefinitions"], "verbs": ["get"],
    }]}))
    .await?;
    // What is known about a missing definition is kept for a moment.
    let message = until(
        "the definition to be read",
        std::time::Duration::from_mins(1),
        async || {
            let (_, message) = place.hand_over_by(&nobody, "DevCluster", "guarded").await;
            Ok(message.contains("may not get devclusters").then_some(message))
        },
    )
    .await?;
    let (_, role) = message.split_once("need: ").context("no role")?;
    bind(serde_json::from_str(role)?).await?;
    until(
        "the right to count",
        std::time::Duration::from_mins(1),
        async || {
            let (reason, _) = place.hand_over_by(&nobody, "DevCluster", "guarded").await;
            Ok((reason == Reason::Patched).then_some(()))
        },
    )
    .await?;
    let object = place.api("DevCluster")?.get("guarded").await?;
    assert_eq!(object.data["status"]["initialization"]["provisioned"], true);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_does_not_exist_is_not_made() -> Result<()> {
    let Some(place) = Place::new().await? else {
        return Ok(());
    };
    assert_eq!(
        place.hand_over("NutanixCluster", "missing").await.0,
        Reason::WaitingForInfrastructure
    );
    assert!(place.api("NutanixCluster")?.get_opt("missing").await?.is_none());
    assert_eq!(
        place.hand_over("HarvesterCluster", "any").await.0,
        Reason::InfrastructureClusterNotPatched
    );
    assert_eq!(
        place.hand_over("ThatCluster", "any").await.0,
        Reason::InfrastructureNotInstalled
    );
    Ok(())
}
