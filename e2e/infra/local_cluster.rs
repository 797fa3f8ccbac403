//! `LocalCluster`: selects the pod range of a cluster. The bridge always exists, so the cluster is provisioned at
//! once.
//!
//! It has no endpoint of its own: machines get that of the Cluster.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use k8s_openapi::jiff::Timestamp;
use kube::{
    Client, Resource as _, ResourceExt as _,
    api::{Api, DynamicObject, Patch, PatchParams},
    runtime::{
        controller::{Action, Controller},
        reflector::ObjectRef,
        watcher,
    },
};
use serde_json::json;

use super::{
    api::{Initialization, LocalCluster, LocalClusterStatus},
    capi,
    conditions::{Verdict, set},
    names::FIELD_MANAGER,
};
use crate::{
    machines::addresses::{MACHINE_PREFIX, Network},
    run,
};

/// Runs until `stop`.
pub async fn serve(client: Client, stop: impl Future<Output = ()> + Send + Sync + 'static) {
    let clusters = Api::all_with(client.clone(), &capi::clusters());
    Controller::new(
        Api::<LocalCluster>::all(client.clone()),
        watcher::Config::default(),
    )
    .watches_with(
        clusters,
        capi::clusters(),
        watcher::Config::default(),
        |cluster: DynamicObject| {
            let namespace = cluster.namespace().unwrap_or_default();
            capi::local_cluster(&cluster).map(|name| ObjectRef::new(name).within(&namespace))
        },
    )
    .graceful_shutdown_on(stop)
    .run(
        reconcile,
        |_, _, _| Action::requeue(Duration::from_secs(5)),
        Arc::new(client),
    )
    .for_each(async |outcome| run::report("LocalCluster", outcome))
    .await;
}

async fn reconcile(object: Arc<LocalCluster>, client: Arc<Client>) -> Result<Action, kube::Error> {
    let namespace = object.namespace().unwrap_or_default();
    let Some(owner) = capi::owner(&*object, "Cluster") else {
        return Ok(Action::await_change());
    };
    let clusters: Api<DynamicObject> = Api::namespaced_with((*client).clone(), &namespace, &capi::clusters());
    let Some(cluster) = clusters.get_opt(owner).await? else {
        return Ok(Action::await_change());
    };
    let before = object.status.clone().unwrap_or_default();
    let after = status(&object, &cluster, Timestamp::now());
    if after != before {
        let api: Api<LocalCluster> = Api::namespaced((*client).clone(), &namespace);
        let patch = Patch::Merge(json!({"status": after}));
        api.patch_status(
            &object.name_any(),
            &PatchParams {
                field_manager: Some(FIELD_MANAGER.to_owned()),
                ..PatchParams::default()
            },
            &patch,
        )
        .await?;
    }
    Ok(Action::await_change())
}

/// The desired status of the object. While it is paused, only `Paused` changes.
fn status(object: &LocalCluster, cluster: &DynamicObject, now: Timestamp) -> LocalClusterStatus {
    let mut status = object.status.clone().unwrap_or_default();
    let generation = object.meta().generation;
    if capi::paused(cluster, object) {
        set(
            &mut status.conditions,
            "Paused",
            &Verdict::holds("Paused"),
            generation,
            now,
        );
        return status;
    }
    set(
        &mut status.conditions,
        "Paused",
        &Verdict::fails("NotPaused", ""),
        generation,
        now,
    );
    let wanted = object
        .spec
        .pod_cidr
        .as_deref()
        .or_else(|| capi::pod_cidr(cluster));
    let ready = match range(wanted) {
        Ok(range) => {
            status.pod_cidr = Some(range.to_string());
            status.initialization = Initialization {
                provisioned: Some(true),
            };
            Verdict::holds("Provisioned")
        }
        Err(message) => Verdict::fails("PodCIDRInvalid", message),
    };
    set(&mut status.conditions, "Ready", &ready, generation, now);
    status
}

fn range(wanted: Option<&str>) -> Result<Network, String> {
    let text = wanted.ok_or(
        "no pod range: set spec.podCIDR of the LocalCluster or spec.clusterNetwork.pods.cidrBlocks of the Cluster",
    )?;
    let range = Network::parse(text)?;
    if range.prefix() > MACHINE_PREFIX {
        return Err(format!("{range} holds no /{MACHINE_PREFIX} for a machine"));
    }
    Ok(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(spec: &serde_json::Value) -> DynamicObject {
        DynamicObject::new("c", &capi::clusters()).data(json!({"spec": spec}))
    }

    fn object(pod_cidr: Option<&str>) -> LocalCluster {
        let mut object = LocalCluster::default();
        object.spec.pod_cidr = pod_cidr.map(str::to_owned);
        object
    }

    fn ready(status: &LocalClusterStatus) -> (&str, &str) {
        let ready = status
            .conditions
            .iter()
            .find(|condition| condition.type_ == "Ready")
            .unwrap();
        (&ready.status, &ready.message)
    }

    #[test]
    fn the_range_is_its_own_or_the_clusters() {
        let network = json!({"clusterNetwork": {"pods": {"cidrBlocks": ["10.245.0.0/16"]}}});
        let own = status(
            &object(Some("10.244.0.0/16")),
            &cluster(&network),
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(own.pod_cidr.as_deref(), Some("10.244.0.0/16"));
        let inherited = status(&object(None), &cluster(&network), Timestamp::UNIX_EPOCH);
        assert_eq!(inherited.pod_cidr.as_deref(), Some("10.245.0.0/16"));
        assert_eq!(inherited.initialization.provisioned, Some(true));
        assert_eq!(ready(&inherited).0, "True");
    }

    #[test]
    fn a_wrong_range_names_field_and_fix() {
        for (cidr, text) in [
            (None, "spec.podCIDR"),
            (Some("10.1.2.3/16"), "10.1.0.0/16"),
            (Some("10.1.2.0/25"), "/24"),
        ] {
            let status = status(&object(cidr), &cluster(&json!({})), Timestamp::UNIX_EPOCH);
            assert_eq!(status.initialization.provisioned, None);
            assert!(ready(&status).1.contains(text), "{:?}", ready(&status));
        }
    }

    #[test]
    fn a_paused_cluster_is_left_alone() {
        let status = status(
            &object(Some("10.244.0.0/16")),
            &cluster(&json!({"paused": true})),
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(status.initialization.provisioned, None);
        assert_eq!(
            (status.conditions.len(), &*status.conditions[0].reason),
            (1, "Paused")
        );
    }
}
