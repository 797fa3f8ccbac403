//! Delay of the configs of a workload cluster beside one that accepts connections and never answers.

use std::{
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use e2e::bootstrap::{CLUSTER, World, budget, until};
use futures::{StreamExt as _, stream};
use serde_json::json;

/// Machines of the silent workload cluster.
const SILENT: usize = 200;
/// Machines of the other one, one after the other.
const MEASURED: usize = 100;
/// Seconds until a machine has its data.
const BUDGET: u64 = 2;

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_machines_of_a_silent_workload_cluster_do_not_delay_those_of_another() -> Result<()> {
    let _turn = super::turn().await;
    let Some(world) = World::start("silent").await? else {
        return Ok(());
    };
    let _controller = world.run()?;
    world.cluster("silent", &black_hole()?).await?;
    let created = stream::iter(0..SILENT)
        .map(|number| {
            let world = &world;
            async move { world.machine_of("silent", &format!("s{number}"), json!({})).await }
        })
        .buffer_unordered(8)
        .collect::<Vec<Result<()>>>();
    let (created, times) = tokio::join!(created, measure(&world, MEASURED));
    created.into_iter().collect::<Result<()>>()?;
    let times = times?;
    world
        .condition("s0", "DataSecretAvailable", "TenantUnreachable")
        .await?;
    let (p99, most) = (percentile(&times, 99), budget(BUDGET));
    println!(
        "data of a machine beside {SILENT} machines of a workload cluster that never answers: p99 {p99:?}, median {:?}; the \
         budget is {BUDGET} s, the most that passes {most:?}",
        percentile(&times, 50),
    );
    assert!(p99 < most, "{times:?}");
    Ok(())
}

/// Times from the creation of a config until its data is there, sorted.
pub async fn measure(world: &World, machines: usize) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for number in 0..machines {
        let name = format!("beside{number}");
        world.machine_of(CLUSTER, &name, json!({})).await?;
        let created = Instant::now();
        until(&format!("data of {name}"), Duration::from_mins(2), async || {
            let status = world.config(&name).await?.status;
            Ok(status.and_then(|status| status.initialization))
        })
        .await?;
        times.push(created.elapsed());
    }
    times.sort();
    Ok(times)
}

/// The time within which so many percent of the times are.
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

/// URL of a listener that accepts connections and never answers.
fn black_hole() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("https://{}", listener.local_addr()?);
    thread::spawn(move || {
        let _kept: Vec<_> = listener.incoming().collect();
    });
    Ok(url)
}
