//! MachinePools: many machines with one config.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::bootstrap::{CLUSTER, NS, World, budget, refused, text, token_secret, until};
use k8s_openapi::api::{
    certificates::v1::CertificateSigningRequest,
    core::v1::{Node, Secret},
};
use kamaji_api::bootstrap::KamajiConfig;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams},
};
use serde_json::json;

const SOON: Duration = Duration::from_secs(20);
/// Machines of the pool whose joins are measured.
const MANY: u32 = 50;
/// Most writes to the management cluster for each: its claim, its Node, and the same again.
const MOST_WRITES: f64 = 4.0;
/// Most requests to the workload cluster for each: its Node, the answer, the token in each reconcile, and the same again.
const MOST_REQUESTS: f64 = 8.0;

async fn approved(world: &World, client: &Client, node: &str) -> Result<()> {
    let request = world.ask(client, node).await?;
    let answer = world
        .answer(&request, SOON)
        .await
        .with_context(|| node.to_owned())?;
    ensure!(answer.0 == "Approved", "{node}: {answer:?}");
    Ok(())
}

async fn denied(world: &World, client: &Client, node: &str, reason: &str) -> Result<()> {
    let request = world.ask(client, node).await?;
    let answer = world
        .answer(&request, SOON)
        .await
        .with_context(|| node.to_owned())?;
    ensure!(
        answer == ("Denied".to_owned(), reason.to_owned()),
        "{node}: {answer:?}"
    );
    Ok(())
}

/// Names of the Nodes that joined, by the status.
async fn joined(world: &World, pool: &str) -> Result<Vec<String>> {
    let nodes = world.status_of(pool).await?.nodes.into_iter();
    Ok(nodes.filter(|node| node.joined).map(|node| node.name).collect())
}

/// The bootstrap tokens of this provider.
async fn tokens(world: &World) -> Result<usize> {
    let tokens: Api<Secret> = Api::namespaced(world.admin.clone(), "kube-system");
    let ours = ListParams::default().labels("capi-kamaji.io/managed-by=kamaji-bootstrap");
    Ok(tokens.list(&ours).await?.items.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn contract_46_47_a_pool_grows_its_token_is_replaced_and_the_former_one_joins() -> Result<()> {
    let Some(world) = World::start("pools").await? else {
        return Ok(());
    };
    let controller = world.run()?;
    world.pool("p", 1, json!({})).await?;
    let (name, first) = world.pool_token("p", None).await?;
    let one = world.bearer(&first)?;
    approved(&world, &one, "a").await?;
    world.node("a").await?;
    world.condition("p", "NodeJoined", "NodeJoined").await?;

    // 15: another token under the same name, and nothing else changes.
    let data = text(&world.secret(NS, &name).await?.context("no data")?, "value");
    world.age_token("p").await?;
    let (same, second) = world.pool_token("p", Some(&first)).await?;
    ensure!(same == name, "the Secret is {same} and was {name}");
    let after = text(&world.secret(NS, &name).await?.context("no data")?, "value");
    ensure!(
        after == data.replace(&first, &second),
        "more than the token has changed"
    );
    ensure!(tokens(&world).await? == 2);
    world.change_pool("p", json!({"replicas": 3})).await?;
    approved(&world, &one, "b").await?;
    world.node("b").await?;
    let two = world.bearer(&second)?;
    approved(&world, &two, "c").await?;
    world.node("c").await?;
    until("three Nodes", SOON, async || {
        Ok((joined(&world, "p").await? == ["a", "b", "c"]).then_some(()))
    })
    .await?;
    world.condition("p", "NodeJoined", "NodeJoined").await?;

    // Another process knows both.
    controller.cancel();
    let _again = world.run()?;
    approved(&world, &one, "d").await?;

    // 47: a token that somebody deletes is replaced.
    let secrets: Api<Secret> = Api::namespaced(world.admin.clone(), "kube-system");
    secrets
        .delete(&token_secret(&second), &DeleteParams::default())
        .await?;
    let (same, third) = world.pool_token("p", Some(&second)).await?;
    ensure!(
        same == name && tokens(&world).await? == 2,
        "{} tokens",
        tokens(&world).await?
    );

    // 10: another intent is another Secret, with the same token; the one before stays.
    let template = json!({"template": {"spec": {"version": "v1.36.4"}}});
    world.change_pool("p", template).await?;
    let other = until("another Secret", SOON, async || {
        let now = world.status_of("p").await?.data_secret_name;
        Ok(now.filter(|now| *now != name))
    })
    .await?;
    let secret = world.secret(NS, &other).await?.context("no data")?;
    ensure!(text(&secret, "token") == third && world.secret(NS, &name).await?.is_some());

    // The provider IDs are those that end with the names.
    let ids = ["a", "b", "c"].map(|node| format!("local://{NS}/{node}"));
    world.change_pool("p", json!({"providerIDList": ids})).await?;
    let nodes: Api<Node> = Api::all(world.admin.clone());
    until("the provider ids", SOON, async || {
        let id = nodes.get("c").await?.spec.and_then(|spec| spec.provider_id);
        Ok((id.as_deref() == Some("local://team/c")).then_some(()))
    })
    .await?;

    // Cluster API deletes the Nodes of instances that are gone, and the next instance has another name. These IDs end with the
    // names of the Nodes, so the name is one of theirs.
    nodes.delete("c", &DeleteParams::default()).await?;
    until("the Node is gone from the status", SOON, async || {
        let known = joined(&world, "p").await?;
        Ok((!known.contains(&"c".to_owned())).then_some(()))
    })
    .await?;
    let next = world.ask(&world.bearer(&third)?, "c2").await?;
    let message = world.condition("p", "NodeJoined", "NameMismatch").await?;
    ensure!(message.contains("the requested name c2"), "{message}");
    let ids = ["a", "b", "c2"].map(|node| format!("local://{NS}/{node}"));
    world.change_pool("p", json!({"providerIDList": ids})).await?;
    ensure!(world.answer(&next, SOON).await?.0 == "Approved");

    // The pool goes while a machine joins.
    let late = world.bearer(&third)?;
    world
        .api("cluster.x-k8s.io/v1beta2", "MachinePool")
        .delete("p", &DeleteParams::default())
        .await?;
    let configs: Api<KamajiConfig> = Api::namespaced(world.admin.clone(), NS);
    configs.delete("p", &DeleteParams::default()).await?;
    until("the tokens are gone", Duration::from_secs(10), async || {
        Ok((tokens(&world).await? == 0).then_some(()))
    })
    .await?;
    until("the token is refused", SOON, async || {
        Ok(
            refused(Api::<Node>::all(late.clone()).list(&ListParams::default()).await)?
                .starts_with("401")
                .then_some(()),
        )
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn bootstrap_18_to_23_who_has_the_token_of_a_pool_gets_no_name_of_others_and_no_more_nodes_than_it_has()
-> Result<()> {
    let Some(world) = World::start("pool-attack").await? else {
        return Ok(());
    };
    world.node("existing").await?;
    world.node("p-1").await?;
    let _controller = world.run()?;
    world.machine("p-1000", json!({})).await?;
    let machine = world.bearer(&world.token("p-1000").await?)?;
    let pattern = json!({"csrApproval": {"nodeNamePattern": "p-[0-9]+"}});
    world.pool("p", 2, pattern.clone()).await?;
    world.pool("q", 2, pattern).await?;
    world.pool("none", 0, json!({})).await?;
    let (_, token) = world.pool_token("p", None).await?;
    let (p, q) = (
        world.bearer(&token)?,
        world.bearer(&world.pool_token("q", None).await?.1)?,
    );

    // Outside the pattern, and within it but of a Machine that has not asked yet.
    for name in ["existing", "p-1.evil.example.com"] {
        denied(&world, &p, name, "NameMismatch").await?;
    }
    denied(&world, &p, "p-1000", "NameClaimed").await?;
    approved(&world, &machine, "p-1000").await?;
    // A Node of that name exists: it may be about to be deleted.
    let in_use = world.ask(&p, "p-1").await?;
    let message = world.condition("p", "NodeJoined", "NodeExists").await?;
    ensure!(message.contains("Node p-1 exists already"), "{message}");
    // Two pools with one pattern: a name goes to one of them.
    approved(&world, &q, "p-2").await?;
    denied(&world, &p, "p-2", "NameClaimed").await?;
    approved(&world, &p, "p-3").await?;
    // Not what a kubelet sends.
    let usages = ["digital signature", "client auth"];
    let odd = world
        .ask_as(&p, "system:node:p-4", "system:masters", &usages)
        .await?;
    ensure!(world.answer(&odd, SOON).await?.1 == "MalformedRequest");
    let requests: Api<CertificateSigningRequest> = Api::all(world.admin.clone());
    let open = async |name: &str| -> Result<bool> {
        let status = requests.get(name).await?.status.unwrap_or_default();
        Ok(status.conditions.is_none_or(|list| list.is_empty()))
    };
    ensure!(open(&in_use).await?);

    // No replicas: nobody.
    let none = world.bearer(&world.pool_token("none", None).await?.1)?;
    let waits = world.ask(&none, "n-1").await?;

    // A hundred names: as many as the pool may have. Names outside the pattern: another token.
    for number in 100..200 {
        world.ask(&p, &format!("p-{number}")).await?;
    }
    for number in 0..30 {
        if world.ask(&p, &format!("stranger-{number}")).await.is_err() {
            break;
        }
    }
    let (_, next) = world.pool_token("p", Some(&token)).await?;
    let tokens: Api<Secret> = Api::namespaced(world.admin.clone(), "kube-system");
    ensure!(tokens.get_opt(&token_secret(&token)).await?.is_none());
    until(
        "the abused token is refused",
        Duration::from_secs(15),
        async || {
            Ok(
                refused(Api::<Node>::all(p.clone()).list(&ListParams::default()).await)?
                    .starts_with("401")
                    .then_some(()),
            )
        },
    )
    .await?;
    let mut names = BTreeSet::new();
    for request in requests.list(&ListParams::default()).await?.items {
        let status = request.status.unwrap_or_default();
        let approved = status
            .conditions
            .iter()
            .flatten()
            .find(|condition| condition.type_ == "Approved");
        if let Some(message) = approved.and_then(|condition| condition.message.as_deref())
            && message.contains(&format!("KamajiConfig {NS}/p "))
        {
            names.insert(message.rsplit(' ').next().unwrap_or_default().to_owned());
        }
    }
    println!("names approved for the pool: {names:?}");
    ensure!(names.len() <= 3, "2 replicas and one more: {names:?}");
    // The pool goes on: with room, a machine joins with the token of now.
    world.change_pool("p", json!({"replicas": 5})).await?;
    approved(&world, &world.bearer(&next)?, "p-300").await?;
    // All these requests came after that of the pool without replicas, which was looked at and waits until there is one.
    ensure!(open(&waits).await?, "a pool without replicas has a Node");
    world.change_pool("none", json!({"replicas": 1})).await?;
    ensure!(world.answer(&waits, SOON).await?.0 == "Approved");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_infrastructure_has_machines_for_a_pool_its_names_are_theirs() -> Result<()> {
    let Some(world) = World::start("pool-machines").await? else {
        return Ok(());
    };
    let _controller = world.run()?;
    world.pool("p", 2, json!({})).await?;
    let owner = world
        .api("cluster.x-k8s.io/v1beta2", "MachinePool")
        .get("p")
        .await?;
    let machine = async |name: &str| -> Result<()> {
        world
            .apply(&json!({
                "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine",
                "metadata": {
                    "name": name, "namespace": NS,
                    "labels": {"cluster.x-k8s.io/cluster-name": CLUSTER, "cluster.x-k8s.io/pool-name": "p"},
                    "ownerReferences": [{
                        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachinePool", "name": "p",
                        "uid": owner.metadata.uid, "controller": true,
                    }],
                },
                "spec": {
                    "clusterName": CLUSTER, "bootstrap": {"dataSecretName": ""}, "providerID": format!("local://{NS}/{name}"),
                    "infrastructureRef": {"apiGroup": "x.io", "kind": "X", "name": name},
                },
            }))
            .await?;
        let host = json!([{"type": "Hostname", "address": name}]);
        let status = json!({"addresses": host, "initialization": {"infrastructureProvisioned": true}});
        world.status("Machine", name, &status).await
    };
    machine("p-x7k2p").await?;
    let client = world.bearer(&world.pool_token("p", None).await?.1)?;
    approved(&world, &client, "p-x7k2p").await?;
    world.node("p-x7k2p").await?;
    let waits = world.ask(&client, "p-other").await?;
    let message = world.condition("p", "NodeJoined", "NameMismatch").await?;
    ensure!(message.contains("no Machine of the MachinePool"), "{message}");
    machine("p-other").await?;
    ensure!(world.answer(&waits, SOON).await?.0 == "Approved");
    let nodes: Api<Node> = Api::all(world.admin.clone());
    until("the provider id of the Machine", SOON, async || {
        let id = nodes.get("p-x7k2p").await?.spec.and_then(|spec| spec.provider_id);
        Ok((id.as_deref() == Some("local://team/p-x7k2p")).then_some(()))
    })
    .await
}

/// Makes a Node for each of these requests once it has its certificate. Returns after how long each was approved. One list does
/// for all: fifty machines that look for themselves keep the API server busy.
async fn join(world: &World, mut open: BTreeMap<String, (String, Instant)>) -> Result<Vec<Duration>> {
    let requests: Api<CertificateSigningRequest> = Api::all(world.admin.clone());
    let (deadline, mut times) = (Instant::now() + Duration::from_mins(2), BTreeMap::new());
    while !open.is_empty() {
        ensure!(
            Instant::now() < deadline,
            "no certificate for {:?} after two minutes, {} were approved",
            open.keys(),
            times.len()
        );
        for request in requests.list(&ListParams::default()).await?.items {
            let name = request.name_any();
            let Some((node, asked)) = open.get(&name) else {
                continue;
            };
            let status = request.status.unwrap_or_default();
            if let Some(first) = status.conditions.iter().flatten().next() {
                ensure!(first.type_ == "Approved", "{node}: {first:?}");
                times.entry(name.clone()).or_insert_with(|| asked.elapsed());
            }
            if status.certificate.is_some() {
                world.node(node).await?;
                open.remove(&name);
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(times.into_values().collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_machines_of_a_pool_join_at_once() -> Result<()> {
    let Some(world) = World::start("pool-many").await? else {
        return Ok(());
    };
    let _controller = world.run()?;
    world.pool("p", MANY, json!({})).await?;
    world.pool("q", 1, json!({})).await?;
    let (_, token) = world.pool_token("p", None).await?;
    world.pool_token("q", None).await?;
    let (before, sent) = (world.writes()?.len(), world.asked()?);
    let began = Instant::now();
    let asks = (0..MANY).map(async |number| -> Result<(String, (String, Instant))> {
        let (client, node) = (world.bearer(&token)?, format!("n-{number:02}"));
        let asked = Instant::now();
        Ok((world.ask(&client, &node).await?, (node, asked)))
    });
    let open = futures::future::try_join_all(asks).await?;
    let mut times = join(&world, open.into_iter().collect()).await?;
    until("all are in the status", budget(30), async || {
        Ok((joined(&world, "p").await?.len() == MANY as usize).then_some(()))
    })
    .await?;
    times.sort();
    let writes = world.writes()?.split_off(before);
    let (conflicts, asked) = (
        writes.iter().filter(|write| write.conflict).count(),
        world.asked()? - sent,
    );
    let each = |requests: usize| -> Result<f64> { Ok(f64::from(u32::try_from(requests)?) / f64::from(MANY)) };
    let (to_management, to_tenant) = (each(writes.len())?, each(asked)?);
    println!(
        "{MANY} machines joined after {:?}: approved after {:?} (median), {:?} (longest); {to_management:.1} writes to the \
         management cluster a Node, {conflicts} conflicts in all; {to_tenant:.1} requests to the workload cluster a Node; {} \
         token(s)",
        began.elapsed(),
        times[times.len() / 2],
        times[times.len() - 1],
        tokens(&world).await?,
    );
    ensure!(to_management <= MOST_WRITES, "{to_management} writes a Node");
    ensure!(to_tenant <= MOST_REQUESTS, "{to_tenant} requests a Node");
    // A quarter more, and then nobody until a Node is gone.
    let client = world.bearer(&token)?;
    for number in 0..13 {
        let request = world.ask(&client, &format!("more-{number}")).await?;
        ensure!(world.answer(&request, Duration::from_mins(1)).await?.0 == "Approved");
    }
    let beyond = world.ask(&client, "beyond").await?;
    // A request that comes later is answered, so this one was looked at.
    let other = world.bearer(&world.pool_token("q", None).await?.1)?;
    approved(&world, &other, "q-1").await?;
    if world.answer(&beyond, Duration::from_secs(1)).await.is_ok() {
        bail!("a Node beyond the budget was answered");
    }
    let nodes: Api<Node> = Api::all(world.admin.clone());
    nodes.delete("n-00", &DeleteParams::default()).await?;
    ensure!(world.answer(&beyond, budget(20)).await?.0 == "Approved");
    Ok(())
}
