//! Memory of the process that is shipped, under a hostile tenant and a hostile user of a namespace, and what another tenant
//! feels of it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use capi_kamaji::{
    pki::kubeconfig::Kubeconfig,
    tenant::{self, Server, kubelets},
};
use e2e::{
    apiserver::{Options, TestApiServer},
    bootstrap::{NS, World, answer, bearer, budget, node, text, until},
};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    large::{Large, info},
    provider::Provider,
    silent::{measure, percentile},
};

/// Nodes of the tenant, and the bytes of each.
const NODES: usize = 1000;
const NODE: usize = 1_000_000;
/// Nodes that change while they are watched: some grow to what etcd accepts, some get many empty strings, which take more
/// memory than any other text once they are decoded.
const CHANGING: usize = 20;
const LARGEST: usize = 1_400_000;
const STRINGS: usize = 400_000;
/// Bindings of the tenant, and the subjects of each: more than a megabyte.
const BINDINGS: usize = 500;
const SUBJECTS: usize = 9000;
/// Files of each config, each from its own Secret, which has as much as one may have.
const FILES: usize = 200;
const MIB: usize = 1 << 20;
/// Configs with such files.
const CONFIGS: usize = 8;
/// Largest memory of the process.
const MOST: usize = 100 * MIB;
/// The name of the hostile tenant.
const HOSTILE: &str = "hostile";
/// Machines of another tenant, one after the other, and the seconds until one has its data.
const BESIDE: usize = 20;
const BUDGET: u64 = 2;
/// Time for a gigabyte of Nodes, in a program that is not optimized.
const LONG: Duration = Duration::from_mins(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_tenant_and_a_hostile_user_leave_the_process_small_and_other_tenants_alone() -> Result<()> {
    let _turn = super::turn().await;
    let Some(world) = World::start("memory").await? else {
        return Ok(());
    };
    let options = Options {
        arguments: world.tenant_arguments(),
        // Its admin does not keep to the two gibibytes that are the default.
        etcd_arguments: vec![format!("--quota-backend-bytes={}", 8_u64 << 30)],
        ..Options::default()
    };
    let Some(hostile) = TestApiServer::start(&options).await? else {
        return Ok(());
    };
    world.tenant(HOSTILE, &hostile).await?;
    let admin = hostile.client()?;
    Large::nodes(NODE).create(&admin, "n", NODES).await?;
    Large::bindings(SUBJECTS).create(&admin, "b", BINDINGS).await?;
    Large::secrets(MIB).create(&world.admin, "large", FILES).await?;

    let (provider, began) = (Provider::start(&world)?, Instant::now());
    world.machine_of(HOSTILE, "m", json!({})).await?;
    let token = world.token("m").await.with_context(|| provider.log())?;
    let files: Vec<Value> = (0..FILES)
        .map(|at| json!({"path": format!("/etc/f{at}"), "contentFrom": {"secret": {"name": format!("large{at}"), "key": "k"}}}))
        .collect();
    for number in 0..CONFIGS {
        world
            .machine(&format!("files{number}"), json!({"files": files}))
            .await?;
    }
    let nodes: Api<Node> = Api::all(admin.clone());
    let (changed, beside) = tokio::join!(change(&nodes), measure(&world, BESIDE));
    changed?;
    let beside = beside.with_context(|| provider.log())?;
    for number in 0..CONFIGS {
        world
            .condition(&format!("files{number}"), "DataSecretAvailable", "TooLarge")
            .await?;
    }
    let other = world.token("beside0").await?;
    join(&world, (&world.server, &world.admin), "beside0", &other)
        .await
        .with_context(|| provider.log())?;
    // Whoever sees this Node has seen the others.
    join(&world, (&hostile, &admin), "m", &token)
        .await
        .with_context(|| provider.log())?;
    let seen = began.elapsed();
    ensure!(
        targets(&world).await? > 0,
        "no kubelet is found among large Nodes"
    );

    let (most, limit) = (provider.largest()?, budget(BUDGET));
    println!(
        "bootstrap provider beside {NODES} Nodes of {NODE} bytes, {CHANGING} that change to {LARGEST} bytes or {STRINGS} empty \
         strings, {BINDINGS} bindings with {SUBJECTS} subjects and {CONFIGS} configs with {FILES} files of 1 MiB, each from its \
         own Secret: {} MiB at most, without mapped files; the budget is 100 MiB. Its new Node was seen after {seen:?}. \
         Machines of another tenant had their data after {:?} (median), {:?} (p99); the budget is {BUDGET} s, the most that \
         passes {limit:?}",
        most / MIB,
        percentile(&beside, 50),
        percentile(&beside, 99),
    );
    ensure!(most <= MOST, "{} MiB", most / MIB);
    ensure!(percentile(&beside, 99) < limit, "{beside:?}");
    Ok(())
}

/// Changes Nodes while they are watched.
async fn change(nodes: &Api<Node>) -> Result<()> {
    for number in 0..CHANGING {
        let status = if number % 2 == 0 {
            json!({"nodeInfo": info(&"x".repeat(LARGEST - NODE / 2))})
        } else {
            json!({"nodeInfo": info(""), "volumesInUse": vec![""; STRINGS]})
        };
        let patch = json!({"status": status});
        nodes
            .patch_status(
                &format!("n{number}"),
                &PatchParams::default(),
                &Patch::Merge(&patch),
            )
            .await?;
    }
    Ok(())
}

/// What a machine does with its token, until its config reports that it joined.
async fn join(
    world: &World,
    (server, admin): (&TestApiServer, &Client),
    name: &str,
    token: &str,
) -> Result<()> {
    let request = world.ask(&bearer(server, token)?, name).await?;
    let (type_, reason) = answer(admin, &request, Duration::from_mins(2)).await?;
    ensure!(type_ == "Approved", "{type_} {reason}");
    node(admin, name).await?;
    until(&format!("{name} joined"), LONG, async || {
        let status = world.config(name).await?.status.unwrap_or_default();
        let mut conditions = status.conditions.iter();
        Ok(conditions
            .any(|condition| condition.type_ == "NodeJoined" && condition.status == "True")
            .then_some(()))
    })
    .await
}

/// How many kubelets the hosting engine finds to ask, among the Nodes of the hostile tenant.
async fn targets(world: &World) -> Result<usize> {
    let secret = world.secret(NS, &format!("{HOSTILE}-kamaji-bootstrap")).await?;
    let kubeconfig = text(&secret.context("no kubeconfig")?, "value");
    let kubeconfig = Kubeconfig::parse(kubeconfig.as_bytes())?;
    let address = kubeconfig.server.trim_start_matches("https://");
    let connection = tenant::connect(&kubeconfig, Server::Service(address))?;
    Ok(kubelets::targets(&connection).await?.targets.len())
}
