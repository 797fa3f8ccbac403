//! Bad input, in the lab: what the API does not refuse becomes a condition with a reason, a message that names
//! object, field and fix, and nothing is lost. What the API itself refuses is in `api.rs`.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use e2e::lab::{
    access::Lab,
    clusters::{QUICKSTART, VERSION},
    tenants::Scope,
    until::until,
};
use k8s_openapi::api::core::v1::Secret;
use kamaji_api::{bootstrap::KamajiConfig, datastore::DataStore};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_mins(2);

/// Waits for a condition with this reason on any type, and returns its message.
async fn message<K>(api: &Api<K>, name: &str, reason: &str) -> Result<String>
where
    K: Resource + Clone + DeserializeOwned + serde::Serialize + std::fmt::Debug,
{
    until(&format!("reason {reason} on {name}"), PATIENCE, async || {
        let object = serde_json::to_value(api.get(name).await?)?;
        let conditions = object
            .pointer("/status/conditions")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        match conditions.iter().find(|c| c["reason"] == reason) {
            Some(found) => Ok(found["message"].as_str().map(str::to_owned)),
            None => bail!("{}", Value::from(conditions)),
        }
    })
    .await
}

fn names(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "«{part}» is missing in: {message}");
    }
}

#[tokio::test]
async fn a_tenant_says_which_field_is_wrong_and_what_to_do() -> Result<()> {
    let lab = Lab::open().await?;
    let scope = Scope::open(&lab, "refusals").await?;
    let node_port = |network: Value| json!({ "controlPlane": { "service": { "serviceType": "NodePort" } }, "networkProfile": network });
    let cases = [
        (
            "nowhere",
            json!({ "dataStore": "nowhere" }),
            "DataStoreNotFound",
            ["nowhere", "spec.dataStore"],
        ),
        (
            "noaddress",
            node_port(json!({ "port": 30443 })),
            "AddressRequired",
            ["address", "NodePort"],
        ),
        (
            "outofrange",
            node_port(json!({ "address": "10.88.0.1", "port": 6443 })),
            "PortNotAllocatable",
            ["6443", "port"],
        ),
        (
            "nobalancer",
            json!({ "controlPlane": { "service": { "serviceType": "LoadBalancer" } } }),
            "WaitingForLoadBalancer",
            ["nobalancer", "load balancer"],
        ),
        (
            "konnectivity",
            json!({ "addons": { "konnectivity": {} } }),
            "FieldNotSupported",
            ["spec.addons.konnectivity", ""],
        ),
    ];
    for (name, changes, _, _) in &cases {
        scope
            .create(name, VERSION, changes.clone())
            .await
            .with_context(|| (*name).to_owned())?;
    }
    for (name, _, reason, parts) in &cases {
        names(&message(&scope.tenants(), name, reason).await?, parts);
    }
    scope.close().await
}

#[tokio::test]
async fn another_tenants_schema_is_refused_and_stays_whole() -> Result<()> {
    let lab = Lab::open().await?;
    let schema = QUICKSTART.schema(&lab).await?;
    let keys = e2e::lab::datastore::count(&lab, &schema).await?;
    let scope = Scope::open(&lab, "thief").await?;
    scope
        .create(
            "thief",
            VERSION,
            json!({ "dataStoreSchema": schema, "dataStoreUsername": "thief" }),
        )
        .await?;
    let said = message(&scope.tenants(), "thief", "SchemaOwnedByAnother").await?;
    names(&said, &["dataStoreSchema", "quickstart"]);
    scope.close().await?;
    assert_eq!(
        e2e::lab::datastore::count(&lab, &schema).await?,
        keys,
        "keys of the owner"
    );
    Ok(())
}

#[tokio::test]
async fn a_ca_whose_key_does_not_match_is_named_and_not_touched() -> Result<()> {
    let lab = Lab::open().await?;
    let scope = Scope::open(&lab, "foreign-ca").await?;
    let (one, _) = authority()?;
    let (_, two) = authority()?;
    let secret: Secret = serde_json::from_value(json!({
        "metadata": { "name": "mismatch-ca" },
        "type": "Opaque",
        "stringData": { "tls.crt": one, "tls.key": two, "ca.crt": one, "ca.key": two },
    }))?;
    let secrets = Api::<Secret>::namespaced(lab.management.clone(), &scope.name);
    let before = secrets.create(&PostParams::default(), &secret).await?;
    scope.create("mismatch", VERSION, json!({})).await?;
    let said = message(&scope.tenants(), "mismatch", "CertificateAuthorityKeyMismatch").await?;
    names(&said, &["mismatch-ca", "key"]);
    assert_eq!(secrets.get("mismatch-ca").await?.data, before.data);
    scope.close().await
}

fn authority() -> Result<(String, String)> {
    let key = rcgen::KeyPair::generate()?;
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new())?;
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

#[tokio::test]
async fn a_datastore_says_why_it_is_not_ready() -> Result<()> {
    let lab = Lab::open().await?;
    let stores = Api::<DataStore>::all(lab.management.clone());
    let secret = |certificate: &str, key: &str| {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        json!({ "certificate": { "content": STANDARD.encode(certificate) }, "privateKey": { "content": STANDARD.encode(key) } })
    };
    let (certificate, key) = authority()?;
    let pair = secret(&certificate, &key);
    let cases = [
        (
            "e2e-unreachable",
            json!({
                "driver": "etcd",
                "endpoints": ["10.88.0.1:1"],
                "tlsConfig": { "certificateAuthority": pair, "clientCertificate": pair },
            }),
            "DataStoreUnreachable",
            ["10.88.0.1:1", ""],
        ),
        (
            "e2e-classless",
            json!({ "managed": { "replicas": 1, "storage": { "size": "1Gi", "className": "no-such-class" } } }),
            "StorageUnavailable",
            ["e2e-classless", "no-such-class"],
        ),
    ];
    for (name, spec, _, _) in &cases {
        let store: DataStore = serde_json::from_value(json!({
            "apiVersion": "kamaji.clastix.io/v1alpha1", "kind": "DataStore",
            "metadata": { "name": name }, "spec": spec,
        }))?;
        stores
            .create(&PostParams::default(), &store)
            .await
            .with_context(|| (*name).to_owned())?;
    }
    for (name, _, reason, parts) in &cases {
        names(&message(&stores, name, reason).await?, parts);
        gone(&stores, name).await?;
    }
    Ok(())
}

async fn gone<K>(api: &Api<K>, name: &str) -> Result<()>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    // Its owner may have taken it along already.
    match api.delete(name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        other => drop(other?),
    }
    until(&format!("{name} to be gone"), PATIENCE, async || {
        Ok(api.get_opt(name).await?.is_none().then_some(()))
    })
    .await
}

fn machines(client: &Client) -> Api<DynamicObject> {
    let gvk = GroupVersionKind::gvk("cluster.x-k8s.io", "v1beta2", "Machine");
    Api::namespaced_with(
        client.clone(),
        "default",
        &ApiResource::from_gvk_with_plural(&gvk, "machines"),
    )
}

/// A Machine whose infrastructure never comes, and its KamajiConfig.
async fn machine(lab: &Lab, name: &str, labels: Value) -> Result<()> {
    let config: KamajiConfig = serde_json::from_value(json!({
        "apiVersion": "bootstrap.cluster.x-k8s.io/v1alpha1", "kind": "KamajiConfig",
        "metadata": { "name": name }, "spec": {},
    }))?;
    let configs = Api::<KamajiConfig>::namespaced(lab.management.clone(), "default");
    configs.create(&PostParams::default(), &config).await?;
    let mut all = json!({ "cluster.x-k8s.io/cluster-name": "quickstart" });
    if let (Some(all), Some(more)) = (all.as_object_mut(), labels.as_object()) {
        all.extend(more.clone());
    }
    let machine: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine",
        "metadata": { "name": name, "labels": all },
        "spec": {
            "clusterName": "quickstart",
            "version": VERSION,
            "bootstrap": { "configRef": { "apiGroup": "bootstrap.cluster.x-k8s.io", "kind": "KamajiConfig", "name": name } },
            "infrastructureRef": { "apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "LocalMachine", "name": "absent" },
        },
    }))?;
    machines(&lab.management)
        .create(&PostParams::default(), &machine)
        .await?;
    Ok(())
}

/// Removes them; the Machine's own deletion would wait for infrastructure that never was.
async fn unmake(lab: &Lab, name: &str) -> Result<()> {
    let machines = machines(&lab.management);
    machines.delete(name, &DeleteParams::default()).await?;
    let none = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    if machines.get_opt(name).await?.is_some() {
        machines.patch(name, &PatchParams::default(), &none).await?;
    }
    let configs = Api::<KamajiConfig>::namespaced(lab.management.clone(), "default");
    if configs.get_opt(name).await?.is_some() {
        gone(&configs, name).await?;
    }
    Ok(())
}

#[tokio::test]
async fn contract_55_a_control_plane_machine_is_refused() -> Result<()> {
    let lab = Lab::open().await?;
    machine(
        &lab,
        "e2e-master",
        json!({ "cluster.x-k8s.io/control-plane": "" }),
    )
    .await?;
    let configs = Api::<KamajiConfig>::namespaced(lab.management.clone(), "default");
    let said = message(&configs, "e2e-master", "ControlPlaneMachineNotSupported").await?;
    names(&said, &["e2e-master", "KamajiControlPlane"]);
    unmake(&lab, "e2e-master").await
}

#[tokio::test]
async fn contract_50_a_data_secret_of_somebody_else_is_not_touched() -> Result<()> {
    let lab = Lab::open().await?;
    let secrets = Api::<Secret>::namespaced(lab.management.clone(), "default");
    let theirs: Secret = serde_json::from_value(json!({
        "metadata": {
            "name": "e2e-taken",
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "ConfigMap", "name": "kube-root-ca.crt", "controller": true,
                "uid": uid_of_a_config_map(&lab).await?,
            }],
        },
        "stringData": { "value": "theirs" },
    }))?;
    let before = secrets.create(&PostParams::default(), &theirs).await?;
    machine(&lab, "e2e-taken", json!({})).await?;
    let configs = Api::<KamajiConfig>::namespaced(lab.management.clone(), "default");
    let said = message(&configs, "e2e-taken", "SecretNameTaken").await?;
    names(&said, &["e2e-taken", "ConfigMap"]);
    assert_eq!(secrets.get("e2e-taken").await?.data, before.data);
    unmake(&lab, "e2e-taken").await?;
    secrets.delete("e2e-taken", &DeleteParams::default()).await?;
    Ok(())
}

async fn uid_of_a_config_map(lab: &Lab) -> Result<String> {
    use k8s_openapi::api::core::v1::ConfigMap;
    let maps = Api::<ConfigMap>::namespaced(lab.management.clone(), "default");
    maps.get("kube-root-ca.crt").await?.metadata.uid.context("no UID")
}
