//! The endpoint goes from a hosted control plane to the object of an infrastructure provider and on to the Cluster, with Cluster
//! API's core provider and a provider of each behaviour: one that waits for the endpoint, one that does not, one that takes an
//! endpoint of its own, and one that leaves the object to whoever manages it. Needs a lab (`hack/quickstart`).

mod provider;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::{
    infra::capi,
    lab::{
        access::Lab,
        audit::{self, Mark, OURS},
        cleanup::afterwards,
        clusters::{Cluster, VERSION},
        tenants::PATIENCE,
        until::until,
    },
};
use kube::{Api, api::DynamicObject};
use serde_json::{Value, json};

use provider::{Behaviour, Provider};

/// Most requests to the management API for one Cluster whose endpoint is handed over.
const BUDGET: usize = 60;

#[tokio::test]
async fn the_endpoint_reaches_providers_of_each_behaviour_and_a_foreign_one_is_kept() -> Result<()> {
    let lab = Lab::open().await?;
    let provider = Provider::install(&lab).await?;
    let test = async {
        for behaviour in [Behaviour::Waits, Behaviour::DoesNotWait, Behaviour::Managed] {
            let cluster = Cluster::new("default", &format!("endpoint-{}", behaviour.name()));
            let test = handed_over(&lab, &provider, &cluster, behaviour);
            afterwards(Box::pin(test), async || cluster.delete(&lab).await).await?;
        }
        let cluster = Cluster::new("default", "endpoint-own");
        let test = kept(&lab, &provider, &cluster);
        afterwards(Box::pin(test), async || cluster.delete(&lab).await).await
    };
    afterwards(Box::pin(test), async || provider.remove(&lab).await).await
}

/// Object, Cluster and control plane have the same endpoint, the infrastructure is provisioned, and the control plane answers.
async fn handed_over(lab: &Lab, provider: &Provider, cluster: &Cluster, behaviour: Behaviour) -> Result<()> {
    audit::rest(lab, Duration::from_secs(3), PATIENCE).await?;
    let mark = Mark::now(lab).await?;
    cluster.apply(lab, &manifest(cluster, behaviour)?).await?;
    let playing = provider.play(lab);
    let arrives = async {
        cluster
            .condition(lab, "InfrastructureClusterPatched", "True")
            .await?;
        cluster.condition(lab, "Ready", "True").await?;
        let what = format!("the endpoint of {}", cluster.name);
        until(&what, PATIENCE, async || {
            let object = provider.object(lab, &cluster.name).await?;
            let of_object = object.data["spec"]["controlPlaneEndpoint"].clone();
            let (of_cluster, conditions) = of_cluster(lab, cluster).await?;
            ensure!(
                of_object["host"].is_string() && of_object == of_cluster,
                "object: {of_object}, Cluster: {of_cluster}"
            );
            let is_up = conditions
                .iter()
                .any(|known| known["type"] == "InfrastructureReady" && known["status"] == "True");
            ensure!(is_up, "{conditions:?}");
            Ok(Some(()))
        })
        .await?;
        audit::rest(lab, Duration::from_secs(5), PATIENCE).await
    };
    tokio::select! {
        ended = playing => ended?,
        there = arrives => there?,
    }
    let requests = mark.requests(&OURS).await?;
    audit::within(&requests, BUDGET)?;
    let to_object: Vec<_> = requests
        .iter()
        .filter(|request| {
            let object = request.object_ref.as_ref();
            object.is_some_and(|object| object.resource == provider::PLURAL)
        })
        .map(|request| request.verb.as_str())
        .collect();
    eprintln!(
        "{}: {} requests (budget: {BUDGET}), of these to the object of the infrastructure: {to_object:?}",
        behaviour.name(),
        requests.len()
    );
    Ok(())
}

/// An endpoint that the provider took by itself is the Cluster's, as one that a user sets beforehand, and a condition says that
/// nobody answers there.
async fn kept(lab: &Lab, provider: &Provider, cluster: &Cluster) -> Result<()> {
    cluster
        .apply(lab, &manifest(cluster, Behaviour::TakesItsOwn)?)
        .await?;
    let playing = provider.play(lab);
    let reported = until(
        "a condition that names the foreign endpoint",
        PATIENCE,
        async || {
            let object = cluster.control_planes(lab).get(&cluster.name).await?;
            let conditions = object.status.map(|status| status.conditions).unwrap_or_default();
            let named = conditions
                .iter()
                .find(|known| known.status != "True" && known.message.contains(provider::OWN_HOST));
            let named = named.with_context(|| format!("{conditions:?}"))?;
            eprintln!(
                "{} is {}, {}: {}",
                named.type_, named.status, named.reason, named.message
            );
            Ok(Some(()))
        },
    );
    tokio::select! {
        ended = playing => ended?,
        found = reported => found?,
    }
    let object = provider.object(lab, &cluster.name).await?;
    let host = &object.data["spec"]["controlPlaneEndpoint"]["host"];
    ensure!(host == provider::OWN_HOST, "it was replaced by {host}");
    Ok(())
}

/// The endpoint of the Cluster, and its conditions.
async fn of_cluster(lab: &Lab, cluster: &Cluster) -> Result<(Value, Vec<Value>)> {
    let clusters: Api<DynamicObject> =
        Api::namespaced_with(lab.management.clone(), &cluster.namespace, &capi::clusters());
    let object = clusters.get(&cluster.name).await?;
    let conditions = object.data["status"]["conditions"].as_array().cloned();
    Ok((
        object.data["spec"]["controlPlaneEndpoint"].clone(),
        conditions.unwrap_or_default(),
    ))
}

/// A Cluster without workers.
fn manifest(cluster: &Cluster, behaviour: Behaviour) -> Result<String> {
    let metadata = json!({ "name": cluster.name, "namespace": cluster.namespace });
    let reference =
        |group: &str, kind: &str| json!({ "apiGroup": group, "kind": kind, "name": cluster.name });
    let mut of_object = metadata.clone();
    of_object["annotations"] = behaviour.annotations();
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "metadata": metadata,
            "spec": {
                "clusterNetwork": {
                    "pods": { "cidrBlocks": ["10.244.0.0/16"] }, "services": { "cidrBlocks": ["10.96.0.0/16"] },
                },
                "controlPlaneRef": reference("controlplane.cluster.x-k8s.io", "KamajiControlPlane"),
                "infrastructureRef": reference(provider::GROUP, provider::KIND),
            },
        },
        {
            "apiVersion": format!("{}/{}", provider::GROUP, provider::VERSION), "kind": provider::KIND,
            "metadata": of_object, "spec": {},
        },
        {
            "apiVersion": "controlplane.cluster.x-k8s.io/v1alpha2", "kind": "KamajiControlPlane", "metadata": metadata,
            "spec": {
                "version": VERSION, "replicas": 1, "dataStoreName": "default",
                "network": { "serviceType": "ClusterIP" },
            },
        },
    ] });
    Ok(serde_json::to_string(&list)?)
}
