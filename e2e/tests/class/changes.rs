//! Each change of a topology is rolled out once, and only where it has to be.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use e2e::lab::{
    access::Lab,
    cleanup::afterwards,
    clusters::{Cluster, nodes},
    topology::{
        PATIENCE, classes, clusters, edit, made, names, objects, set_variable, set_workers_variable, settled,
        workers,
    },
    until::until,
};
use k8s_openapi::{api::core::v1::Node, jiff::Timestamp};
use kube::{
    Api, ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{WORKERS, cluster};

/// Kubernetes label that Cluster API brings from the topology to the Node.
const SYNCED: &str = "node.cluster.x-k8s.io/team";

#[tokio::test]
async fn contract_34_a_changed_variable_is_one_rollout_and_changed_metadata_is_none() -> Result<()> {
    let lab = Lab::open().await?;
    let cluster = cluster(&lab).await?;
    afterwards(Box::pin(rolled_out(&lab, &cluster)), async || {
        edit(&lab, &cluster, |spec| {
            workers(spec)["metadata"]["labels"] = json!({});
        })
        .await
    })
    .await
}

async fn rolled_out(lab: &Lab, cluster: &Cluster) -> Result<()> {
    let before = made(lab, cluster).await?;
    let node = worker(lab, cluster).await?;
    // Another value than that of an earlier run.
    let site = format!("site-{:06x}", rand::random::<u32>() & 0x00ff_ffff);
    edit(lab, cluster, |spec| {
        set_workers_variable(spec, "nodeLabels", json!({ "site": site }));
    })
    .await?;
    let replaced = until("a new node with the label", PATIENCE, async || {
        let new = worker(lab, cluster).await?;
        ensure!(new.labels().get("site") == Some(&site), "{:?}", new.labels());
        Ok(Some(new))
    })
    .await?;
    settled(lab, cluster, WORKERS).await?;
    ensure!(replaced.name_any() != node.name_any(), "the same node");
    let after = made(lab, cluster).await?;
    let new = |kind: &str| -> Vec<String> {
        let old = names(&before, kind);
        names(&after, kind)
            .into_iter()
            .filter(|name| !old.contains(name))
            .collect()
    };
    assert_eq!(
        new("KamajiConfigTemplate").len(),
        1,
        "new templates: {:?}",
        new("KamajiConfigTemplate")
    );
    assert_eq!(new("LocalMachineTemplate"), [""; 0], "new templates");
    assert_eq!(
        new("MachineSet").len(),
        1,
        "new MachineSets: {:?}",
        new("MachineSet")
    );
    assert_eq!(hosted(&before), hosted(&after), "the control plane");

    edit(lab, cluster, |spec| {
        workers(spec)["metadata"]["labels"] = json!({ SYNCED: "a" });
    })
    .await?;
    until("the label on the same node", PATIENCE, async || {
        let same = worker(lab, cluster).await?;
        ensure!(
            same.labels().get(SYNCED).map(String::as_str) == Some("a"),
            "{:?}",
            same.labels()
        );
        ensure!(same.uid() == replaced.uid(), "another node");
        Ok(Some(()))
    })
    .await?;
    settled(lab, cluster, WORKERS).await?;
    let relabelled = made(lab, cluster).await?;
    for kind in ["KamajiConfigTemplate", "LocalMachineTemplate", "MachineSet"] {
        // Those that were replaced go meanwhile.
        let known = names(&after, kind);
        let now = names(&relabelled, kind);
        assert!(
            now.iter().all(|name| known.contains(name)),
            "{kind}: {known:?} {now:?}"
        );
    }
    Ok(())
}

/// Generations of the control plane and its pods.
fn hosted(made: &BTreeMap<String, i64>) -> Vec<(&String, &i64)> {
    let kinds = ["KamajiControlPlane", "TenantControlPlane", "Deployment"];
    made.iter()
        .filter(|(key, _)| kinds.contains(&key.split(' ').next().unwrap_or_default()))
        .collect()
}

/// The Node of the only Machine that is not being replaced.
async fn worker(lab: &Lab, cluster: &Cluster) -> Result<Node> {
    let mut nodes = nodes(&cluster.client(lab).await?).await?;
    nodes.sort_by_key(|node| node.metadata.creation_timestamp.clone());
    nodes.pop().context("no node")
}

#[tokio::test]
async fn contract_33_settings_for_machines_are_taken_and_rollout_after_restarts_the_control_plane()
-> Result<()> {
    let lab = Lab::open().await?;
    let cluster = cluster(&lab).await?;
    let before = pods(&lab, &cluster).await?;
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let set = async {
        edit(&lab, &cluster, |spec| {
            let control_plane = &mut spec["topology"]["controlPlane"];
            control_plane["deletion"] =
                json!({ "nodeDrainTimeoutSeconds": 10, "nodeDeletionTimeoutSeconds": 10 });
            control_plane["readinessGates"] = json!([{ "conditionType": "example.org/Ready" }]);
            control_plane["taints"] =
                json!([{ "key": "a", "effect": "NoSchedule", "propagation": "Always" }]);
            control_plane["rollout"] = json!({ "after": now });
        })
        .await?;
        until("other pods of the control plane", PATIENCE, async || {
            let after = pods(&lab, &cluster).await?;
            ensure!(
                after.iter().all(|uid| !before.contains(uid)) && after.len() == before.len(),
                "{after:?}"
            );
            Ok(Some(()))
        })
        .await?;
        settled(&lab, &cluster, WORKERS).await?;
        let spec = serde_json::to_value(cluster.control_planes(&lab).get(&cluster.name).await?.spec)?;
        let machines = &spec["machineTemplate"]["spec"];
        assert_eq!(machines["deletion"]["nodeDrainTimeoutSeconds"], 10);
        assert_eq!(
            machines["readinessGates"][0]["conditionType"],
            "example.org/Ready"
        );
        assert_eq!(machines["taints"][0]["key"], "a");

        let restarted = pods(&lab, &cluster).await?;
        only_replicas(&lab, &cluster).await?;
        assert_eq!(
            restarted,
            pods(&lab, &cluster).await?,
            "restarted by the end of the settings"
        );
        Ok(())
    };
    afterwards(Box::pin(set), async || only_replicas(&lab, &cluster).await).await
}

/// Takes all but the replicas out of the topology's control plane.
async fn only_replicas(lab: &Lab, cluster: &Cluster) -> Result<()> {
    edit(lab, cluster, |spec| {
        if let Some(control_plane) = spec["topology"]["controlPlane"].as_object_mut() {
            control_plane.retain(|field, _| field == "replicas");
        }
    })
    .await?;
    settled(lab, cluster, WORKERS).await
}

/// UIDs of the control plane's pods.
async fn pods(lab: &Lab, cluster: &Cluster) -> Result<Vec<String>> {
    let pods = cluster.control_plane_pods(lab).await?;
    Ok(pods.iter().filter_map(kube::ResourceExt::uid).collect())
}

#[tokio::test]
async fn contract_39_templates_are_edited_in_place_and_by_the_dry_run_of_a_topology() -> Result<()> {
    let lab = Lab::open().await?;
    let cluster = cluster(&lab).await?;
    let made = made(&lab, &cluster).await?;
    let templates = [
        (
            "controlplane.cluster.x-k8s.io",
            "v1alpha2",
            "KamajiControlPlaneTemplate",
            "kamajicontrolplanetemplates",
        ),
        (
            "bootstrap.cluster.x-k8s.io",
            "v1alpha1",
            "KamajiConfigTemplate",
            "kamajiconfigtemplates",
        ),
        (
            "infrastructure.cluster.x-k8s.io",
            "v1alpha1",
            "LocalClusterTemplate",
            "localclustertemplates",
        ),
        (
            "infrastructure.cluster.x-k8s.io",
            "v1alpha1",
            "LocalMachineTemplate",
            "localmachinetemplates",
        ),
    ];
    let changes = [
        json!({ "registry": "registry.example.org" }),
        json!({ "joinTimeout": "7m", "nodeRegistration": { "taints": [{ "key": "a", "effect": "NoExecute" }] } }),
        json!({ "podCIDR": "10.9.0.0/16" }),
        json!({ "image": "another" }),
    ];
    let class = classes(&lab, &cluster).get("kamaji-local").await?;
    for (kind, change) in templates.into_iter().zip(changes) {
        let api = objects(&lab.management, &cluster.namespace, kind);
        let in_class = api.list(&kube::api::ListParams::default()).await?.items;
        let in_class = in_class.iter().map(kube::ResourceExt::name_any);
        let of_class = in_class.filter(|name| class.data.to_string().contains(&format!("\"{name}\"")));
        let mut tried = 0;
        for name in of_class.chain(names(&made, kind.2)) {
            dry_run(&api, &name, kind, &change)
                .await
                .with_context(|| format!("{} {name}", kind.2))?;
            tried += 1;
        }
        assert!(tried > 0, "no {}", kind.2);
    }

    // The template of the class is edited for good, and the control plane follows.
    let template = objects(&lab.management, &cluster.namespace, templates[0]);
    let deployment =
        |value: Value| Patch::Merge(json!({ "spec": { "template": { "spec": { "deployment": value } } } }));
    let edited = async {
        let patch =
            deployment(json!({ "additionalMetadata": { "labels": { "example.org/edited": "yes" } } }));
        template
            .patch("kamaji-local", &PatchParams::default(), &patch)
            .await?;
        edit_arrived(&lab, &cluster, true).await
    };
    afterwards(Box::pin(edited), async || {
        // The whole object: Cluster API cannot apply one that became empty.
        template
            .patch("kamaji-local", &PatchParams::default(), &deployment(Value::Null))
            .await?;
        edit_arrived(&lab, &cluster, false).await
    })
    .await
}

/// Waits until the control plane has the label of the edited template, or no longer has it. Cluster API does not watch the
/// templates of a class: it looks at them when something else makes it reconcile the Cluster. And the conditions of the
/// Cluster are about its own spec, so they stay true until then.
async fn edit_arrived(lab: &Lab, cluster: &Cluster, edited: bool) -> Result<()> {
    let look = json!({ "metadata": { "annotations": { "example.org/edited": edited.to_string() } } });
    clusters(lab, cluster)
        .patch(&cluster.name, &PatchParams::default(), &Patch::Merge(look))
        .await?;
    until("the edit to reach the control plane", PATIENCE, async || {
        let spec = cluster.control_planes(lab).get(&cluster.name).await?.spec;
        let labels = &spec.deployment.additional_metadata.labels;
        ensure!(labels.contains_key("example.org/edited") == edited, "{labels:?}");
        Ok(Some(()))
    })
    .await?;
    settled(lab, cluster, WORKERS).await
}

/// Applies a change of the template's spec as the topology controller tries it: without effect, and with its annotation.
async fn dry_run(
    api: &Api<DynamicObject>,
    name: &str,
    (group, version, kind, _): (&str, &str, &str, &str),
    change: &Value,
) -> Result<()> {
    let object = json!({
        "apiVersion": format!("{group}/{version}"), "kind": kind,
        "metadata": { "name": name, "annotations": { "topology.cluster.x-k8s.io/dry-run": "" } },
        "spec": { "template": { "spec": change } },
    });
    let how = PatchParams {
        dry_run: true,
        ..PatchParams::apply("capi-topology").force()
    };
    let applied = api.patch(name, &how, &Patch::Apply(object)).await?;
    let (field, value) = change
        .as_object()
        .into_iter()
        .flatten()
        .next()
        .context("no change")?;
    ensure!(
        &applied.data["spec"]["template"]["spec"][field] == value,
        "{}",
        applied.data["spec"]
    );
    Ok(())
}

#[tokio::test]
async fn a_variable_of_the_control_plane_reaches_its_pods_and_no_worker() -> Result<()> {
    let lab = Lab::open().await?;
    let cluster = cluster(&lab).await?;
    let before = made(&lab, &cluster).await?;
    let tier = format!("tier-{:06x}", rand::random::<u32>() & 0x00ff_ffff);
    edit(&lab, &cluster, |spec| {
        set_variable(spec, "controlPlaneLabels", json!({ "tier": tier }));
    })
    .await?;
    until(
        "the label on every pod of the control plane",
        PATIENCE,
        async || {
            let pods = cluster.control_plane_pods(&lab).await?;
            ensure!(
                !pods.is_empty() && pods.iter().all(|pod| pod.labels().get("tier") == Some(&tier)),
                "not yet"
            );
            Ok(Some(()))
        },
    )
    .await?;
    settled(&lab, &cluster, WORKERS).await?;
    let after = made(&lab, &cluster).await?;
    for kind in ["KamajiConfigTemplate", "LocalMachineTemplate", "MachineSet"] {
        assert_eq!(names(&before, kind), names(&after, kind));
    }
    edit(&lab, &cluster, |spec| {
        set_variable(spec, "controlPlaneLabels", json!({}));
    })
    .await?;
    until("the label to go again", PATIENCE, async || {
        let pods = cluster.control_plane_pods(&lab).await?;
        ensure!(
            pods.iter().all(|pod| !pod.labels().contains_key("tier")),
            "not yet"
        );
        Ok(Some(()))
    })
    .await?;
    settled(&lab, &cluster, WORKERS).await
}
