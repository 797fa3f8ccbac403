//! `LocalMachine`: waits for the cluster and the bootstrap data, lets the host boot the machine, reports the result.
//!
//! A machine is booted once. One that stops or is lost is reported, and Cluster API's remediation replaces it.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::StreamExt as _;
use k8s_openapi::{api::core::v1::Secret, jiff::Timestamp};
use kube::{
    Client, Resource as _, ResourceExt as _,
    api::{Api, DynamicObject, Patch, PatchParams},
    runtime::{
        controller::{Action, Controller},
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use serde_json::json;
use tracing::info;

use super::{
    api::{LocalCluster, LocalMachine},
    capi, machine_status,
    machine_status::{Stage, status},
    names::{FIELD_MANAGER, FINALIZER, provider_id},
};
use crate::{
    machines::{
        client::{HostClient, HostError},
        wire::Order,
    },
    run,
};

/// How often the host is asked whether a booted machine still runs; no request to the API server.
const LOOK: Duration = Duration::from_mins(1);
const RETRY: Duration = Duration::from_secs(5);
/// RBAC takes a moment to observe a Role that was just created.
const GRANT_RETRY: Duration = Duration::from_secs(1);

struct Context {
    client: Client,
    host: HostClient,
}

/// Runs until `stop`.
pub async fn serve(client: Client, host: HostClient, stop: impl Future<Output = ()> + Send + Sync + 'static) {
    let machines = Api::all_with(client.clone(), &capi::machines());
    let clusters = Api::all_with(client.clone(), &capi::clusters());
    let controller = Controller::new(
        Api::<LocalMachine>::all(client.clone()),
        watcher::Config::default(),
    );
    let store = controller.store();
    controller
        .watches_with(
            machines,
            capi::machines(),
            watcher::Config::default(),
            |machine: DynamicObject| {
                let namespace = machine.namespace().unwrap_or_default();
                capi::local_machine(&machine).map(|name| ObjectRef::new(name).within(&namespace))
            },
        )
        .watches_with(
            clusters,
            capi::clusters(),
            watcher::Config::default(),
            move |cluster: DynamicObject| members(&store, &cluster),
        )
        .graceful_shutdown_on(stop)
        .run(
            reconcile,
            |_, _, _| Action::requeue(RETRY),
            Arc::new(Context { client, host }),
        )
        .for_each(async |outcome| run::report("LocalMachine", outcome))
        .await;
}

/// The cluster's machines.
fn members(store: &Store<LocalMachine>, cluster: &DynamicObject) -> Vec<ObjectRef<LocalMachine>> {
    let (namespace, name) = (cluster.namespace(), cluster.name_any());
    let state = store.state();
    state
        .iter()
        .filter(|machine| machine.namespace() == namespace && capi::cluster_name(&***machine) == Some(&*name))
        .map(|machine| ObjectRef::from_obj(&**machine))
        .collect()
}

async fn reconcile(object: Arc<LocalMachine>, context: Arc<Context>) -> Result<Action, kube::Error> {
    let deleting = object.meta().deletion_timestamp.is_some();
    let (stage, action) = if deleting {
        delete(&object, &context).await?
    } else {
        advance(&object, &context).await?
    };
    if let Some(stage) = stage {
        let before = object.status.clone().unwrap_or_default();
        let after = status(&object, &stage, Timestamp::now());
        if after != before {
            let patch = Patch::Merge(json!({"status": after}));
            context
                .api(&object)
                .patch_status(&object.name_any(), &params(), &patch)
                .await?;
        }
    }
    Ok(action)
}

/// Reconciles as far as possible. Returns the stage that was reached.
async fn advance(object: &LocalMachine, context: &Context) -> Result<(Option<Stage>, Action), kube::Error> {
    let wait = |stage| Ok((Some(stage), Action::await_change()));
    let Some((machine, cluster)) = context.owners(object).await? else {
        return wait(Stage::WaitingForOwner);
    };
    if capi::paused(&cluster, object) {
        return wait(Stage::Paused);
    }
    if !object.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        let mut finalizers = object.finalizers().to_vec();
        finalizers.push(FINALIZER.to_owned());
        context.set_finalizers(object, finalizers).await?;
        // The patch comes back as an event.
        return Ok((None, Action::await_change()));
    }
    if machine_status::provisioned(object) {
        return Ok(
            match context.host.get(&namespace(object), &object.name_any()).await {
                Ok(Some(machine)) => (Some(Stage::Booted(machine)), Action::requeue(LOOK)),
                Ok(None) => (Some(Stage::Lost), Action::requeue(LOOK)),
                Err(error) => (
                    Some(Stage::HostUnavailable(error.to_string())),
                    Action::requeue(RETRY),
                ),
            },
        );
    }
    let Some(pod_cidr) = context.pod_cidr(object, &cluster).await? else {
        return wait(Stage::WaitingForClusterInfrastructure);
    };
    let Some(secret) = capi::data_secret(&machine) else {
        return wait(Stage::WaitingForBootstrapData);
    };
    let user_data = match context.user_data(object, secret).await? {
        Ok(user_data) => user_data,
        Err(stage @ Stage::WaitingForGrant(_)) => return Ok((Some(stage), Action::requeue(GRANT_RETRY))),
        Err(stage) => return Ok((Some(stage), Action::requeue(RETRY))),
    };
    let order = Order {
        hostname: machine.name_any(),
        image: object.spec.image.clone(),
        version: capi::version(&machine).map(str::to_owned),
        cluster_pod_cidr: pod_cidr,
        network: object.spec.outside(),
        clock_offset_seconds: object.spec.clock_offset_seconds.unwrap_or_default(),
        user_data,
    };
    match context
        .host
        .ensure(&namespace(object), &object.name_any(), &order)
        .await
    {
        Ok(booted) => {
            info!(
                machine = object.name_any(),
                id = booted.id,
                address = booted.address,
                "booted"
            );
            let id = provider_id(&namespace(object), &object.name_any());
            if object.spec.provider_id.as_ref() != Some(&id) {
                let patch = Patch::Merge(json!({"spec": {"providerID": id}}));
                context
                    .api(object)
                    .patch(&object.name_any(), &params(), &patch)
                    .await?;
            }
            Ok((Some(Stage::Booted(booted)), Action::requeue(LOOK)))
        }
        Err(HostError::Refused(message)) => wait(Stage::Refused(message)),
        Err(HostError::Unavailable(message)) => {
            Ok((Some(Stage::HostUnavailable(message)), Action::requeue(RETRY)))
        }
    }
}

/// Removes the machine from the host, then the finalizer from the object.
async fn delete(object: &LocalMachine, context: &Context) -> Result<(Option<Stage>, Action), kube::Error> {
    if !object.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        return Ok((None, Action::await_change()));
    }
    if let Some((_, cluster)) = context.owners(object).await?
        && capi::paused(&cluster, object)
    {
        return Ok((Some(Stage::Paused), Action::await_change()));
    }
    if let Err(error) = context.host.remove(&namespace(object), &object.name_any()).await {
        return Ok((
            Some(Stage::DeletionFailed(error.to_string())),
            Action::requeue(RETRY),
        ));
    }
    info!(machine = object.name_any(), "removed");
    let rest = object
        .finalizers()
        .iter()
        .filter(|finalizer| *finalizer != FINALIZER)
        .cloned()
        .collect();
    context.set_finalizers(object, rest).await?;
    Ok((None, Action::await_change()))
}

impl Context {
    fn api(&self, object: &LocalMachine) -> Api<LocalMachine> {
        Api::namespaced(self.client.clone(), &namespace(object))
    }

    /// Machine and Cluster of the object, once Cluster API has linked them.
    async fn owners(
        &self,
        object: &LocalMachine,
    ) -> Result<Option<(DynamicObject, DynamicObject)>, kube::Error> {
        let namespace = namespace(object);
        let (Some(machine), Some(cluster)) = (capi::owner(object, "Machine"), capi::cluster_name(object))
        else {
            return Ok(None);
        };
        let machines: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &namespace, &capi::machines());
        let clusters: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &namespace, &capi::clusters());
        Ok(machines
            .get_opt(machine)
            .await?
            .zip(clusters.get_opt(cluster).await?))
    }

    /// The cluster's pod range, once its infrastructure is provisioned.
    async fn pod_cidr(
        &self,
        object: &LocalMachine,
        cluster: &DynamicObject,
    ) -> Result<Option<String>, kube::Error> {
        if !capi::infrastructure_provisioned(cluster) {
            return Ok(None);
        }
        let Some(name) = capi::local_cluster(cluster) else {
            return Ok(None);
        };
        let api: Api<LocalCluster> = Api::namespaced(self.client.clone(), &namespace(object));
        Ok(api
            .get_opt(name)
            .await?
            .and_then(|found| found.status)
            .and_then(|status| status.pod_cidr))
    }

    /// The Secret's `value` in the form that the host expects: the exact bytes, base64.
    async fn user_data(
        &self,
        object: &LocalMachine,
        name: &str,
    ) -> Result<Result<String, Stage>, kube::Error> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &namespace(object));
        let secret = match api.get_opt(name).await {
            Ok(Some(secret)) => secret,
            Ok(None) => {
                return Ok(Err(Stage::BootstrapDataInvalid(format!(
                    "Secret {name} does not exist"
                ))));
            }
            Err(kube::Error::Api(status)) if status.code == 403 => {
                return Ok(Err(Stage::WaitingForGrant(name.to_owned())));
            }
            Err(error) => return Err(error),
        };
        let data = secret.data.unwrap_or_default();
        let format = data
            .get("format")
            .map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
        Ok(match (format.as_deref(), data.get("value")) {
            (None | Some("" | "cloud-config"), Some(value)) => Ok(STANDARD.encode(&value.0)),
            (None | Some("" | "cloud-config"), None) => Err(Stage::BootstrapDataInvalid(format!(
                "Secret {name} has no key \"value\""
            ))),
            (Some(format), _) => Err(Stage::BootstrapDataInvalid(format!(
                "Secret {name} has format {format:?}; machines here know cloud-config alone"
            ))),
        })
    }

    async fn set_finalizers(&self, object: &LocalMachine, list: Vec<String>) -> Result<(), kube::Error> {
        let patch = Patch::Merge(json!({
            "metadata": {"resourceVersion": object.meta().resource_version, "finalizers": list},
        }));
        match self
            .api(object)
            .patch_metadata(&object.name_any(), &params(), &patch)
            .await
        {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(|_| ()),
        }
    }
}

fn namespace(object: &LocalMachine) -> String {
    object.namespace().unwrap_or_default()
}

fn params() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}
