//! `LocalMachinePool`: keeps as many instances as its MachinePool has replicas, each under a name of its own. With
//! `spec.machines` each instance is a `LocalMachine`, for which Cluster API makes a Machine; without it the host is asked here.
//!
//! An instance that stops or is lost is replaced by one of another name.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use k8s_openapi::jiff::Timestamp;
use kube::{
    Client, Resource as _, ResourceExt as _,
    api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
    runtime::{
        controller::{Action, Controller},
        reflector::ObjectRef,
        watcher,
    },
};
use rand::Rng as _;
use serde_json::{Value, json};
use tracing::info;

use super::{
    api::{
        GROUP, Initialization, LocalMachine, LocalMachinePool, LocalMachinePoolStatus, PoolInstance, VERSION,
    },
    capi,
    conditions::{Verdict, set},
    local_machine::{pod_cidr, user_data},
    names::{CLUSTER_NAME_LABEL, DATA_ANNOTATION, FIELD_MANAGER, FINALIZER, POOL_NAME_LABEL, provider_id},
    pool_plan::{Step, next},
};
use crate::{
    machines::{
        client::{HostClient, HostError},
        wire::Order,
    },
    run,
};

/// How often the host is asked whether the instances still run.
const LOOK: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);
/// Characters of a name that differ between instances.
const SUFFIX: usize = 5;

struct Context {
    client: Client,
    host: HostClient,
}

/// Runs until `stop`.
pub async fn serve(client: Client, host: HostClient, stop: impl Future<Output = ()> + Send + Sync + 'static) {
    let pools = Api::all_with(client.clone(), &capi::machine_pools());
    Controller::new(
        Api::<LocalMachinePool>::all(client.clone()),
        watcher::Config::default(),
    )
    .watches_with(
        pools,
        capi::machine_pools(),
        watcher::Config::default(),
        |pool: DynamicObject| {
            let namespace = pool.namespace().unwrap_or_default();
            capi::local_machine_pool(&pool).map(|name| ObjectRef::new(name).within(&namespace))
        },
    )
    .graceful_shutdown_on(stop)
    .run(
        reconcile,
        |_, _, _| Action::requeue(RETRY),
        Arc::new(Context { client, host }),
    )
    .for_each(async |outcome| run::report("LocalMachinePool", outcome))
    .await;
}

async fn reconcile(object: Arc<LocalMachinePool>, context: Arc<Context>) -> Result<Action, kube::Error> {
    if object.meta().deletion_timestamp.is_some() {
        return context.delete(&object).await;
    }
    let Some((pool, cluster)) = context.owners(&object).await? else {
        return Ok(Action::await_change());
    };
    if capi::paused(&cluster, &*object) {
        return Ok(Action::requeue(LOOK));
    }
    if !object.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        let mut finalizers = object.finalizers().to_vec();
        finalizers.push(FINALIZER.to_owned());
        context.set_finalizers(&object, finalizers).await?;
        return Ok(Action::await_change());
    }
    let Some(range) = pod_cidr(&context.client, &namespace(&object), &cluster).await? else {
        return context.wait(&object, "WaitingForClusterInfrastructure").await;
    };
    let Some(data) = capi::pool_data_secret(&pool).map(ToOwned::to_owned) else {
        return context.wait(&object, "WaitingForBootstrapData").await;
    };
    let mut instances = context.look(&object).await?;
    let step = next(&instances, capi::pool_replicas(&pool), &data);
    match &step {
        Step::Nothing => {}
        Step::Add => {
            let name = format!("{}-{}", object.name_any(), suffix());
            info!(instance = name, data, "adds an instance");
            instances.push(PoolInstance {
                name,
                data: data.clone(),
                ..PoolInstance::default()
            });
        }
        Step::Remove(name) => {
            info!(instance = name, "removes an instance");
            // Cluster API deletes the Node when the provider ID is gone.
            instances.retain(|instance| instance.name != *name);
            context.publish(&object, &instances, "Provisioned").await?;
            context.remove(&object, name).await?;
        }
    }
    // Written before it is booted: the next reconcile goes on with the same name.
    context.publish(&object, &instances, "Provisioned").await?;
    let mut all = true;
    for instance in &mut instances {
        if instance.address.is_none() {
            all &= context.boot(&object, (&pool, &cluster), &range, instance).await?;
        }
    }
    context.publish(&object, &instances, "Provisioned").await?;
    Ok(Action::requeue(if all && step == Step::Nothing {
        LOOK
    } else {
        RETRY
    }))
}

impl Context {
    /// The instances that the status has, as the host knows them now.
    async fn look(&self, object: &LocalMachinePool) -> Result<Vec<PoolInstance>, kube::Error> {
        let known = object.status.as_ref().map(|status| status.instances.clone());
        let mut known = known.unwrap_or_default();
        for instance in known.iter_mut().filter(|instance| instance.address.is_some()) {
            // An error says nothing about the instance.
            if let Ok(found) = self.host.get(&namespace(object), &instance.name).await {
                instance.dead = found.is_none_or(|machine| !machine.running);
            }
        }
        Ok(known)
    }

    /// Lets the instance boot, and fills in its address. `false` while it has none.
    async fn boot(
        &self,
        object: &LocalMachinePool,
        (pool, cluster): (&DynamicObject, &DynamicObject),
        range: &str,
        instance: &mut PoolInstance,
    ) -> Result<bool, kube::Error> {
        if object.spec.machines {
            self.apply_machine(object, cluster, instance).await?;
            let found = self.host.get(&namespace(object), &instance.name).await;
            instance.address = found.ok().flatten().map(|machine| machine.address);
            return Ok(instance.address.is_some());
        }
        let Ok(user_data) = user_data(&self.client, &namespace(object), &instance.data).await? else {
            // The right to read it comes a moment later.
            return Ok(false);
        };
        let order = Order {
            hostname: instance.name.clone(),
            image: object.spec.template.image.clone(),
            version: capi::pool_version(pool).map(str::to_owned),
            cluster_pod_cidr: range.to_owned(),
            network: object.spec.template.outside(),
            clock_offset_seconds: object.spec.template.clock_offset_seconds.unwrap_or_default(),
            user_data,
        };
        match self.host.ensure(&namespace(object), &instance.name, &order).await {
            Ok(machine) => instance.address = Some(machine.address),
            Err(HostError::Refused(message) | HostError::Unavailable(message)) => {
                info!(instance = instance.name, message, "is not booted");
            }
        }
        Ok(instance.address.is_some())
    }

    /// The `LocalMachine` of an instance. Cluster API makes a Machine for it, which becomes its controller.
    async fn apply_machine(
        &self,
        object: &LocalMachinePool,
        cluster: &DynamicObject,
        instance: &PoolInstance,
    ) -> Result<(), kube::Error> {
        let labels = json!({
            (CLUSTER_NAME_LABEL): cluster.name_any(),
            (POOL_NAME_LABEL): capi::owner(object, "MachinePool"),
        });
        let machine = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "LocalMachine",
            "metadata": {
                "name": instance.name, "namespace": object.namespace(), "labels": labels,
                "annotations": {(DATA_ANNOTATION): instance.data},
                "ownerReferences": [{
                    "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "LocalMachinePool",
                    "name": object.name_any(), "uid": object.uid(),
                }],
            },
            "spec": object.spec.template,
        });
        let api: Api<LocalMachine> = Api::namespaced(self.client.clone(), &namespace(object));
        api.patch(
            &instance.name,
            &PatchParams::apply(FIELD_MANAGER).force(),
            &Patch::Apply(machine),
        )
        .await?;
        Ok(())
    }

    /// Removes an instance: with Machines by deleting the Machine, which drains it.
    async fn remove(&self, object: &LocalMachinePool, name: &str) -> Result<(), kube::Error> {
        if object.spec.machines {
            let machines: Api<DynamicObject> =
                Api::namespaced_with(self.client.clone(), &namespace(object), &capi::machines());
            let own: Api<LocalMachine> = Api::namespaced(self.client.clone(), &namespace(object));
            if !deleted(&machines, name).await? {
                deleted(&own, name).await?;
            }
        } else if let Err(error) = self.host.remove(&namespace(object), name).await {
            info!(instance = name, %error, "is not removed, tries again");
        }
        Ok(())
    }

    async fn delete(&self, object: &LocalMachinePool) -> Result<Action, kube::Error> {
        if !object.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
            return Ok(Action::await_change());
        }
        let instances = object.status.as_ref().map(|status| status.instances.clone());
        for instance in instances.into_iter().flatten() {
            self.remove(object, &instance.name).await?;
            if let Ok(Some(_)) | Err(_) = self.host.get(&namespace(object), &instance.name).await {
                return Ok(Action::requeue(RETRY));
            }
        }
        if object.spec.machines {
            let own: Api<LocalMachine> = Api::namespaced(self.client.clone(), &namespace(object));
            let of_pool = format!(
                "{POOL_NAME_LABEL}={}",
                capi::owner(object, "MachinePool").unwrap_or_default()
            );
            if !own
                .list(&ListParams::default().labels(&of_pool))
                .await?
                .items
                .is_empty()
            {
                return Ok(Action::requeue(RETRY));
            }
        }
        let rest = object
            .finalizers()
            .iter()
            .filter(|finalizer| *finalizer != FINALIZER);
        self.set_finalizers(object, rest.cloned().collect()).await?;
        Ok(Action::await_change())
    }

    /// MachinePool and Cluster of the object, once Cluster API has linked them.
    async fn owners(
        &self,
        object: &LocalMachinePool,
    ) -> Result<Option<(DynamicObject, DynamicObject)>, kube::Error> {
        let (Some(pool), Some(cluster)) = (capi::owner(object, "MachinePool"), capi::cluster_name(object))
        else {
            return Ok(None);
        };
        let api = |resource| -> Api<DynamicObject> {
            Api::namespaced_with(self.client.clone(), &namespace(object), &resource)
        };
        let pool = api(capi::machine_pools()).get_opt(pool).await?;
        Ok(pool.zip(api(capi::clusters()).get_opt(cluster).await?))
    }

    async fn wait(&self, object: &LocalMachinePool, reason: &'static str) -> Result<Action, kube::Error> {
        let known = object.status.as_ref().map(|status| status.instances.clone());
        self.publish(object, &known.unwrap_or_default(), reason).await?;
        Ok(Action::requeue(RETRY))
    }

    /// Writes what changed of the status and of the list of provider IDs.
    async fn publish(
        &self,
        object: &LocalMachinePool,
        instances: &[PoolInstance],
        reason: &'static str,
    ) -> Result<(), kube::Error> {
        let api: Api<LocalMachinePool> = Api::namespaced(self.client.clone(), &namespace(object));
        let Some(now) = api.get_opt(&object.name_any()).await? else {
            return Ok(());
        };
        let ids: Vec<_> = instances
            .iter()
            .filter(|instance| instance.address.is_some())
            .map(|instance| provider_id(&namespace(object), &instance.name))
            .collect();
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        if now.spec.provider_id_list != ids {
            let patch = Patch::Merge(json!({"spec": {"providerIDList": ids}}));
            api.patch(&object.name_any(), &params, &patch).await?;
        }
        let after = status(&now, instances, reason, Timestamp::now());
        if now.status.as_ref() != Some(&after) {
            let patch: Patch<Value> = Patch::Merge(json!({"status": after}));
            api.patch_status(&object.name_any(), &params, &patch).await?;
        }
        Ok(())
    }

    async fn set_finalizers(&self, object: &LocalMachinePool, list: Vec<String>) -> Result<(), kube::Error> {
        let api: Api<LocalMachinePool> = Api::namespaced(self.client.clone(), &namespace(object));
        let patch = Patch::Merge(json!({
            "metadata": {"resourceVersion": object.meta().resource_version, "finalizers": list},
        }));
        match api
            .patch_metadata(&object.name_any(), &PatchParams::default(), &patch)
            .await
        {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(|_| ()),
        }
    }
}

/// The desired status. Core reads `status.ready` of pools, whatever the contract.
fn status(
    object: &LocalMachinePool,
    instances: &[PoolInstance],
    reason: &'static str,
    now: Timestamp,
) -> LocalMachinePoolStatus {
    let mut status = object.status.clone().unwrap_or_default();
    let ready = reason == "Provisioned";
    status.ready |= ready;
    if ready {
        status.initialization = Initialization {
            provisioned: Some(true),
        };
    }
    status.instances = instances.to_vec();
    let booted = instances
        .iter()
        .filter(|instance| instance.address.is_some())
        .count();
    status.replicas = i32::try_from(booted).unwrap_or(i32::MAX);
    status.infrastructure_machine_kind = object.spec.machines.then(|| "LocalMachine".to_owned());
    let verdict = if ready {
        Verdict::holds(reason)
    } else {
        Verdict::fails(reason, "")
    };
    set(
        &mut status.conditions,
        "Ready",
        &verdict,
        object.meta().generation,
        now,
    );
    status
}

/// Deletes an object. `false` if there was none.
async fn deleted<K>(api: &Api<K>, name: &str) -> Result<bool, kube::Error>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    match api.delete(name, &DeleteParams::default()).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(error),
    }
}

fn suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut random = rand::rng();
    (0..SUFFIX)
        .map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())]))
        .collect()
}

fn namespace(object: &LocalMachinePool) -> String {
    object.namespace().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(name: &str, address: Option<&str>) -> PoolInstance {
        PoolInstance {
            name: name.to_owned(),
            address: address.map(ToOwned::to_owned),
            ..PoolInstance::default()
        }
    }

    #[test]
    fn replicas_are_instances_that_were_booted_and_ready_stays() {
        let mut object = LocalMachinePool::default();
        object.spec.machines = true;
        let now = Timestamp::from_second(1).unwrap();
        let waiting = status(&object, &[], "WaitingForBootstrapData", now);
        assert!(!waiting.ready && waiting.initialization.provisioned.is_none());
        let list = [instance("a", Some("10.0.0.1")), instance("b", None)];
        let done = status(&object, &list, "Provisioned", now);
        assert_eq!(
            (done.ready, done.replicas, done.initialization.provisioned),
            (true, 1, Some(true))
        );
        assert_eq!(done.infrastructure_machine_kind.as_deref(), Some("LocalMachine"));
        object.status = Some(done);
        assert!(status(&object, &list, "WaitingForBootstrapData", now).ready);
    }

    #[test]
    fn no_two_instances_have_the_same_name() {
        let names: std::collections::BTreeSet<_> = (0..100).map(|_| suffix()).collect();
        assert!(names.len() > 98 && names.iter().all(|name| name.len() == SUFFIX));
    }
}
