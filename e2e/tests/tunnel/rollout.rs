//! A change of an image or a flag of konnectivity replaces the pods of two API servers once, and no request fails.

use anyhow::{Result, ensure};
use e2e::lab::{
    access::Lab,
    clusters::VERSION,
    prober::Prober,
    tenants::{PATIENCE, Scope},
    until::until,
};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::Pod,
};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

#[tokio::test]
async fn a_change_of_image_or_flag_is_one_rollout_without_a_failed_request() -> Result<()> {
    let lab = Lab::open().await?;
    Scope::run(&lab, "rollout", async |scope| rolled(&lab, scope).await).await
}

async fn rolled(lab: &Lab, scope: &Scope) -> Result<()> {
    let name = "rollout";
    let two = json!({
        "controlPlane": { "deployment": { "replicas": 2 } },
        "addons": { "konnectivity": {} },
    });
    scope.create(name, VERSION, two).await?;
    scope.reaches(name, "Ready", VERSION).await?;
    let prober = Prober::start(scope.admin(name).await?);
    let changes = [
        (
            "image",
            json!({ "addons": { "konnectivity": { "server": { "version": "v0.34.0" } } } }),
        ),
        (
            "flag",
            json!({ "addons": { "konnectivity": { "server": { "extraArgs": ["--v=1"] } } } }),
        ),
        (
            "flag of the API server",
            json!({ "controlPlane": { "deployment": { "extraArgs": { "apiServer": ["--v=1"] } } } }),
        ),
    ];
    for (what, spec) in changes {
        let before = revisions(lab, scope, name).await?;
        prober.report("before");
        rolls(lab, scope, name, spec).await?;
        let after = revisions(lab, scope, name).await?;
        let seen = prober.report(what);
        ensure!(after == before + 1, "{what}: {before} revisions, then {after}");
        ensure!(seen.failed == 0, "{what}: {:?}", seen.errors);
    }
    Ok(())
}

/// Changes the spec, and waits until both pods are new ones and no other is left.
async fn rolls(lab: &Lab, scope: &Scope, name: &str, spec: Value) -> Result<()> {
    let changed = scope
        .tenants()
        .patch(
            name,
            &PatchParams::default(),
            &Patch::Merge(json!({ "spec": spec })),
        )
        .await?;
    let deployments = Api::<Deployment>::namespaced(lab.management.clone(), &scope.name);
    until("both pods to be replaced", PATIENCE, async || {
        let tenant = scope.tenants().get(name).await?;
        let observed = tenant
            .status
            .as_ref()
            .and_then(|status| status.observed_generation);
        ensure!(observed == changed.metadata.generation, "generation {observed:?}");
        let deployment = deployments.get(name).await?;
        let status = deployment.status.unwrap_or_default();
        ensure!(
            status.observed_generation == deployment.metadata.generation,
            "not observed"
        );
        let counts = (
            status.replicas,
            status.updated_replicas,
            status.available_replicas,
        );
        ensure!(counts == (Some(2), Some(2), Some(2)), "{counts:?}");
        let pods = Api::<Pod>::namespaced(lab.management.clone(), &scope.name);
        let of = ListParams::default().labels(&format!("kamaji.clastix.io/name={name}"));
        // A former pod that ends still serves.
        let left = pods.list(&of).await?.items.len();
        ensure!(left == 2, "{left} pods");
        Ok(Some(()))
    })
    .await
}

async fn revisions(lab: &Lab, scope: &Scope, name: &str) -> Result<usize> {
    let sets = Api::<ReplicaSet>::namespaced(lab.management.clone(), &scope.name);
    let sets = sets.list(&ListParams::default()).await?.items;
    Ok(sets
        .iter()
        .filter(|set| set.owner_references().iter().any(|owner| owner.name == name))
        .count())
}
