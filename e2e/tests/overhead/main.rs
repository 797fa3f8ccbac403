//! How long machines take from their first process to a registered Node, beside machines of the same image that join by
//! kubeadm. Needs the lab, with the tools of `hack/test overhead`; makes a cluster of its own. Prints the table of the book.

mod kubeadm;

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::{
    infra::{api, capi},
    lab::{
        access::Lab,
        cleanup::{afterwards, gone},
        clusters::{Cluster, VERSION},
        joins::{Join, STEPS, Sightings, median, on_machine},
        machine::Inside,
        until::until,
        workers,
    },
};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DynamicObject, PostParams},
};
use serde_json::{Value, json};

/// Joins of each kind.
const JOINS: usize = 10;
/// The part of a join that is the provider's: the budget, and how much longer it may take on a busy machine.
const BUDGET: Duration = Duration::from_secs(1);
const BUSY: u32 = 3;
/// Time for a machine to boot and to join on a busy machine.
const PATIENCE: Duration = Duration::from_mins(5);

/// How machines join.
struct Kind {
    /// Name for people.
    title: &'static str,
    /// Name of the MachineDeployment.
    deployment: &'static str,
    /// The unit that joins.
    unit: &'static str,
    /// The provider writes the provider ID of the Node.
    provider_id: bool,
}

const OWN: Kind = Kind {
    title: "KamajiConfig",
    deployment: "overhead-own",
    unit: "kamaji-join.service",
    provider_id: true,
};
const KUBEADM: Kind = Kind {
    title: "kubeadm join",
    deployment: "overhead-kubeadm",
    unit: kubeadm::UNIT,
    provider_id: false,
};

#[tokio::test]
async fn the_providers_part_of_a_join_keeps_to_its_budget_beside_joins_by_kubeadm() -> Result<()> {
    let lab = Lab::open().await?;
    let cluster = Cluster::new("default", "overhead");
    afterwards(Box::pin(compare(&lab, &cluster)), async || {
        cluster.delete(&lab).await
    })
    .await
}

async fn compare(lab: &Lab, cluster: &Cluster) -> Result<()> {
    cluster
        .create_with(lab, 0, &[("POD_CIDR", "10.249.0.0/16")])
        .await?;
    let tenant = until("the API server", PATIENCE, async || {
        let tenant = cluster.client(lab).await?;
        tenant.apiserver_version().await?;
        Ok(Some(tenant))
    })
    .await?;
    let template = image_with_kubeadm(lab, cluster).await?;
    let of_kubeadm = kubeadm::publish(lab, cluster, &tenant).await?;
    for (kind, bootstrap) in [(&OWN, workers::own_bootstrap(cluster)), (&KUBEADM, of_kubeadm)] {
        let with = (bootstrap, template.as_str());
        workers::add(lab, cluster, (kind.deployment, 0), VERSION, with).await?;
    }

    let sightings = Sightings::of(&tenant);
    let (mut own, mut by_kubeadm) = (Vec::new(), Vec::new());
    // In turn, so that both have the same neighbours on this machine.
    for number in 1..=JOINS {
        for (kind, joins) in [(&OWN, &mut own), (&KUBEADM, &mut by_kubeadm)] {
            let join = join(lab, cluster, &tenant, &sightings, kind).await;
            let join = join.with_context(|| format!("{}, number {number}", kind.title))?;
            eprintln!(
                "{} {number}: {:.2?} in all, {:.2?} of its own: {:.2?}",
                kind.title,
                join.total,
                join.overhead(),
                join.steps
            );
            joins.push(join);
        }
    }
    eprintln!("{}", table(&[(OWN.title, &own), (KUBEADM.title, &by_kubeadm)]));
    let overhead = median(own.iter().map(Join::overhead));
    ensure!(
        overhead < BUDGET * BUSY,
        "in the middle of {JOINS} joins {overhead:.2?} were the provider's; the budget is {BUDGET:?}, {BUSY} times as much on a \
         busy machine"
    );
    Ok(())
}

/// Creates a LocalMachineTemplate whose image has kubeadm too. Machines of both kinds boot it.
async fn image_with_kubeadm(lab: &Lab, cluster: &Cluster) -> Result<String> {
    let name = format!("{}-kubeadm", cluster.name);
    let template = json!({
        "metadata": {"name": name, "namespace": cluster.namespace},
        "spec": {"template": {"spec": {"image": kubeadm::IMAGE}}},
    });
    let templates: Api<api::LocalMachineTemplate> =
        Api::namespaced(lab.management.clone(), &cluster.namespace);
    gone(&templates, &name, PATIENCE).await?;
    templates
        .create(&PostParams::default(), &serde_json::from_value(template)?)
        .await?;
    Ok(name)
}

/// Boots one machine, waits until it has joined, and removes it.
async fn join(
    lab: &Lab,
    cluster: &Cluster,
    tenant: &Client,
    sightings: &Sightings,
    kind: &Kind,
) -> Result<Join> {
    cluster.scale_deployment(lab, kind.deployment, 1).await?;
    let machine = until("a Machine", PATIENCE, async || {
        let machines = workers::machines(lab, cluster, kind.deployment).await?;
        Ok(machines.into_iter().next())
    })
    .await?;
    let measured = measure(cluster, sightings, kind, &machine).await;
    cluster.scale_deployment(lab, kind.deployment, 0).await?;
    let name = machine.name_any();
    until("the Machine to be gone", PATIENCE, async || {
        let machines = cluster.machines(lab).await?;
        let is_left = machines.iter().any(|machine| machine.name_any() == name);
        Ok((!is_left).then_some(()))
    })
    .await?;
    // Cluster API knows no Node of a Machine without a provider ID.
    gone(&Api::<Node>::all(tenant.clone()), &name, PATIENCE).await?;
    measured
}

/// Waits until the machine has joined. Looks at the machine itself only once there is a Node, to disturb nothing.
async fn measure(
    cluster: &Cluster,
    sightings: &Sightings,
    kind: &Kind,
    machine: &DynamicObject,
) -> Result<Join> {
    let name = machine.name_any();
    let in_cluster = until(&format!("Node {name}"), PATIENCE, async || {
        let join = sightings.join_of(&name);
        Ok(join.filter(|join| !kind.provider_id || join.provider_id.is_some()))
    })
    .await;
    let host_name = capi::local_machine(machine).context("no LocalMachine")?;
    let inside = Inside::of(&cluster.namespace, host_name).await?;
    let in_cluster = match in_cluster {
        Ok(in_cluster) => in_cluster,
        Err(error) => {
            let log = inside
                .run(&[
                    "journalctl",
                    "--no-pager",
                    "-n",
                    "60",
                    "-u",
                    kind.unit,
                    "-u",
                    "kubelet",
                ])
                .await?;
            bail!("{error:#}\n{log}");
        }
    };
    let on_machine = until("the end of the join", PATIENCE, async || {
        on_machine(&inside, kind.unit).await
    })
    .await?;
    Ok(Join::of(on_machine, in_cluster))
}

/// The table of the book: the step in the middle of all joins, in seconds.
fn table(kinds: &[(&str, &[Join])]) -> String {
    let row = |title: &str, of: &dyn Fn(&Join) -> Duration| {
        let cells = kinds.iter().map(|(_, joins)| {
            let times: Vec<_> = joins.iter().map(of).collect();
            let longest = times.iter().max().copied().unwrap_or_default();
            let middle = median(times.iter().copied());
            format!(" {:.2} ({:.2}) |", middle.as_secs_f64(), longest.as_secs_f64())
        });
        format!("| {title} |{}\n", cells.collect::<String>())
    };
    let titles = kinds.iter().map(|(title, _)| format!(" {title} |"));
    let mut rows = vec![
        format!("| |{}\n", titles.collect::<String>()),
        format!("|---|{}\n", "---|".repeat(kinds.len())),
    ];
    for (number, step) in STEPS.iter().enumerate() {
        rows.push(row(step, &|join| join.steps[number]));
    }
    rows.push(row("first process to Node", &|join| join.total));
    rows.push(row("script, approval and provider ID", &Join::overhead));
    rows.concat()
}

/// `spec.bootstrap` of Machines whose data is in a Secret.
fn data_in(secret: &str) -> Value {
    json!({ "dataSecretName": secret })
}
