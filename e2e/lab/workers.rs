//! Workers beside those of the cluster's template: MachineDeployments of other versions, images and bootstrap data.

use anyhow::Result;
use kube::api::{DynamicObject, PostParams};
use serde_json::{Value, json};

use super::{access::Lab, clusters::Cluster};
use crate::infra::{api, capi};

/// The bootstrap data of a cluster's own workers, from its KamajiConfigTemplate.
pub fn own_bootstrap(cluster: &Cluster) -> Value {
    json!({"configRef": {
        "apiGroup": "bootstrap.cluster.x-k8s.io", "kind": "KamajiConfigTemplate", "name": cluster.workers(),
    }})
}

/// Creates a MachineDeployment with this `spec.bootstrap` and LocalMachineTemplate.
///
/// # Errors
/// When the API server refuses it.
pub async fn add(
    lab: &Lab,
    cluster: &Cluster,
    (name, replicas): (&str, u32),
    version: &str,
    (bootstrap, infrastructure): (Value, &str),
) -> Result<()> {
    let object = json!({
        "apiVersion": format!("{}/v1beta2", capi::GROUP),
        "kind": "MachineDeployment",
        "metadata": {
            "name": name,
            "namespace": cluster.namespace,
            // Cluster API itself makes no machine of a version that is too old or too new.
            "annotations": {"machineset.cluster.x-k8s.io/skip-preflight-checks": "All"},
        },
        "spec": {
            "clusterName": cluster.name,
            "replicas": replicas,
            "selector": {"matchLabels": {}},
            "template": {"spec": {
                "clusterName": cluster.name,
                "version": version,
                "bootstrap": bootstrap,
                "infrastructureRef": {
                    "apiGroup": api::GROUP, "kind": "LocalMachineTemplate", "name": infrastructure,
                },
            }},
        },
    });
    let object: DynamicObject = serde_json::from_value(object)?;
    let deployments = cluster.machine_deployments(lab);
    deployments.create(&PostParams::default(), &object).await?;
    Ok(())
}

/// The Machines of a MachineDeployment that are not being deleted.
///
/// # Errors
/// When they cannot be listed.
pub async fn machines(lab: &Lab, cluster: &Cluster, name: &str) -> Result<Vec<DynamicObject>> {
    let mut machines = cluster.machines(lab).await?;
    machines.retain(|machine| {
        let labels = machine.metadata.labels.as_ref();
        let of = labels.and_then(|labels| labels.get("cluster.x-k8s.io/deployment-name"));
        of.map(String::as_str) == Some(name) && machine.metadata.deletion_timestamp.is_none()
    });
    Ok(machines)
}
