//! Grants the provider `get` on the one Secret that a Machine names as its bootstrap data, until the machine is
//! booted, and on the one of a MachinePool as long as it exists.
//!
//! Does not read Secrets. Its account needs the permission only because RBAC lets nobody grant what he does not have.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::StreamExt as _;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::{
    Client, Resource, ResourceExt as _,
    api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams},
    core::NamespaceResourceScope,
    runtime::{
        controller::{Action, Controller},
        watcher,
    },
};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tracing::info;

use super::{
    capi,
    names::{GRANTS, NAMESPACE, PROVIDER, grant, pool_grant},
};
use crate::run;

struct Context {
    client: Client,
    /// The grant that was applied for a Machine, by UID: a Machine changes far more often than its grant.
    done: Mutex<HashMap<String, Wanted>>,
}

/// Runs until `stop`.
pub async fn serve(client: Client, stop: impl Future<Output = ()> + Send + Sync + 'static) {
    let context = Arc::new(Context {
        client: client.clone(),
        done: Mutex::default(),
    });
    let stop = futures::FutureExt::shared(stop);
    let follow = |resource: ApiResource, kind: &'static str| {
        let owners: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        Controller::new_with(owners, watcher::Config::default(), resource)
            .graceful_shutdown_on(stop.clone())
            .run(
                reconcile,
                |_, _, _| Action::requeue(Duration::from_secs(5)),
                context.clone(),
            )
            .for_each(async move |outcome| run::report(kind, outcome))
    };
    futures::future::join(
        follow(capi::machines(), "Machine"),
        follow(capi::machine_pools(), "MachinePool"),
    )
    .await;
}

async fn reconcile(machine: Arc<DynamicObject>, context: Arc<Context>) -> Result<Action, kube::Error> {
    let uid = machine.uid().unwrap_or_default();
    let wanted = wanted(&machine);
    if context.done.lock().await.get(&uid) == Some(&wanted) {
        return Ok(Action::await_change());
    }
    let client = &context.client;
    let namespace = machine.namespace().unwrap_or_default();
    let name = name(&machine);
    match &wanted {
        Wanted::Nothing => {}
        Wanted::Granted(secret) => {
            let (role, binding) = objects(&machine, secret);
            apply::<Role>(client, &namespace, &name, role).await?;
            apply::<RoleBinding>(client, &namespace, &name, binding).await?;
            info!(machine = machine.name_any(), secret, "granted");
        }
        Wanted::Withdrawn => {
            remove::<RoleBinding>(client, &namespace, &name).await?;
            remove::<Role>(client, &namespace, &name).await?;
        }
    }
    let mut done = context.done.lock().await;
    if machine.metadata.deletion_timestamp.is_some() {
        done.remove(&uid);
    } else {
        done.insert(uid, wanted);
    }
    Ok(Action::await_change())
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Nothing,
    Granted(String),
    Withdrawn,
}

/// The desired grant of/// What a Machine calls for. A provisioned one has been booted; a deleted one's grant is
/// The desired grant of/// garbage collected.
fn wanted(machine: &DynamicObject) -> Wanted {
    if is_pool(machine) {
        let secret = capi::local_machine_pool(machine).and_then(|_| capi::pool_data_secret(machine));
        return secret.map_or(Wanted::Nothing, |secret| Wanted::Granted(secret.to_owned()));
    }
    if capi::local_machine(machine).is_none() || machine.metadata.deletion_timestamp.is_some() {
        return Wanted::Nothing;
    }
    if capi::infrastructure_provisioned(machine) {
        return Wanted::Withdrawn;
    }
    capi::data_secret(machine).map_or(Wanted::Nothing, |secret| Wanted::Granted(secret.to_owned()))
}

fn is_pool(owner: &DynamicObject) -> bool {
    owner
        .types
        .as_ref()
        .is_some_and(|types| types.kind == "MachinePool")
}

/// Name of Role and binding.
fn name(owner: &DynamicObject) -> String {
    if is_pool(owner) {
        pool_grant(&owner.name_any())
    } else {
        grant(&owner.name_any())
    }
}

/// Role and binding, owned by the Machine or MachinePool.
fn objects(machine: &DynamicObject, secret: &str) -> (Value, Value) {
    let name = name(machine);
    let metadata = json!({
        "name": name,
        "namespace": machine.namespace(),
        "ownerReferences": [{
            "apiVersion": capi::machines().api_version,
            "kind": if is_pool(machine) { "MachinePool" } else { "Machine" },
            "name": machine.name_any(),
            "uid": machine.metadata.uid,
        }],
    });
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": metadata,
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": [secret], "verbs": ["get"]}],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": PROVIDER, "namespace": NAMESPACE}],
    });
    (role, binding)
}

async fn apply<K>(client: &Client, namespace: &str, name: &str, object: Value) -> Result<(), kube::Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + std::fmt::Debug,
    K: serde::de::DeserializeOwned + serde::Serialize,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    api.patch(name, &PatchParams::apply(GRANTS).force(), &Patch::Apply(object))
        .await
        .map(|_| ())
}

async fn remove<K>(client: &Client, namespace: &str, name: &str) -> Result<(), kube::Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + std::fmt::Debug,
    K: serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    match api.delete(name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(infra: &str, secret: Option<&str>, provisioned: bool) -> DynamicObject {
        DynamicObject::new("worker", &capi::machines()).within("team").data(json!({
            "spec": {
                "bootstrap": {"dataSecretName": secret},
                "infrastructureRef": {"apiGroup": super::super::api::GROUP, "kind": infra, "name": "worker"},
            },
            "status": {"initialization": {"infrastructureProvisioned": provisioned}},
        }))
    }

    #[test]
    fn only_a_local_machine_with_data_that_is_not_booted_needs_a_grant() {
        assert_eq!(wanted(&machine("LocalMachine", None, false)), Wanted::Nothing);
        assert_eq!(
            wanted(&machine("LocalMachine", Some("s"), false)),
            Wanted::Granted("s".to_owned())
        );
        assert_eq!(
            wanted(&machine("LocalMachine", Some("s"), true)),
            Wanted::Withdrawn
        );
        assert_eq!(
            wanted(&machine("OtherMachine", Some("s"), false)),
            Wanted::Nothing
        );
    }

    #[test]
    fn a_pool_keeps_its_grant_as_long_as_it_exists() {
        let pool = |infra: &str| {
            DynamicObject::new("workers", &capi::machine_pools()).within("team").data(json!({
                "spec": {"template": {"spec": {
                    "bootstrap": {"dataSecretName": "s"},
                    "infrastructureRef": {"apiGroup": super::super::api::GROUP, "kind": infra, "name": "workers"},
                }}},
                "status": {"initialization": {"infrastructureProvisioned": true}},
            }))
        };
        assert_eq!(wanted(&pool("LocalMachinePool")), Wanted::Granted("s".to_owned()));
        assert_eq!(wanted(&pool("OtherMachinePool")), Wanted::Nothing);
        let (role, _) = objects(&pool("LocalMachinePool"), "s");
        assert_eq!(role["metadata"]["name"], "workers.pool-bootstrap-data");
        assert_eq!(role["metadata"]["ownerReferences"][0]["kind"], "MachinePool");
    }

    #[test]
    fn a_grant_is_get_on_one_secret_for_the_provider_alone() {
        let (role, binding) = objects(&machine("LocalMachine", Some("s"), false), "s");
        assert_eq!(
            role["rules"],
            json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["s"], "verbs": ["get"]}])
        );
        assert_eq!(binding["subjects"][0]["name"], PROVIDER);
        assert_eq!(role["metadata"]["ownerReferences"][0]["kind"], "Machine");
        assert_eq!(role["metadata"]["namespace"], "team");
    }
}
