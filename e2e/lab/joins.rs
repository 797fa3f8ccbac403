//! How long the steps of one join take. Machines in containers have the clock of this host, so what systemd noted in them and
//! what this process saw at the API server of the workload cluster are on one scale. Times in objects of the API server are
//! whole seconds, which is too coarse.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use k8s_openapi::{
    api::{certificates::v1::CertificateSigningRequest, core::v1::Node},
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api, Client, ResourceExt as _,
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::Value;
use tokio_util::task::AbortOnDropHandle;

use super::machine::Inside;

/// The signer of the client certificates of kubelets.
const SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";

/// What is asked about a unit.
const TIMES: &[&str] = &[
    "--property=ExecMainStartTimestampMonotonic",
    "--property=ActiveEnterTimestampMonotonic",
    "--property=NRestarts",
];

/// When things happened on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnMachine {
    /// Systemd started as its first process.
    pub init: Timestamp,
    /// The unit that joins the cluster started.
    pub unit: Timestamp,
    /// The kubelet started.
    pub kubelet: Timestamp,
    /// The unit that joins the cluster was done.
    pub done: Timestamp,
}

/// When things were seen in the workload cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InCluster {
    /// The request of the kubelet for its certificate.
    pub asked: Timestamp,
    /// Its approval.
    pub approved: Timestamp,
    /// The certificate.
    pub signed: Timestamp,
    /// The Node.
    pub registered: Timestamp,
    /// Its provider ID.
    pub provider_id: Option<Timestamp>,
}

/// The steps of a join, in the order of the columns of a table.
pub const STEPS: [&str; 8] = [
    "boot and cloud-init",
    "join script",
    "kubelet starts",
    "approval",
    "signature",
    "registration",
    "provider ID",
    "end of the script",
];

/// How long one join took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Join {
    /// The steps, as [`STEPS`] names them. The last two come after the Node is registered.
    pub steps: [Duration; STEPS.len()],
    /// From the start of systemd to the registered Node.
    pub total: Duration,
}

impl Join {
    /// The steps of one join. A step that ended before the one before it took no time.
    pub fn of(machine: OnMachine, cluster: InCluster) -> Self {
        let between = |from: Timestamp, to: Timestamp| {
            let time: SignedDuration = to.duration_since(from);
            Duration::try_from(time).unwrap_or_default()
        };
        Self {
            steps: [
                between(machine.init, machine.unit),
                between(machine.unit, machine.kubelet),
                between(machine.kubelet, cluster.asked),
                between(cluster.asked, cluster.approved),
                between(cluster.approved, cluster.signed),
                between(cluster.signed, cluster.registered),
                cluster
                    .provider_id
                    .map_or(Duration::ZERO, |written| between(cluster.registered, written)),
                between(cluster.registered, machine.done),
            ],
            total: between(machine.init, cluster.registered),
        }
    }

    /// The part of whoever joins the machine: all that neither the boot, the kubelet, the signing controller nor, because the
    /// unit starts after it, the container runtime does.
    pub fn overhead(&self) -> Duration {
        let [_, script, _, approval, _, _, provider_id, _] = self.steps;
        script + approval + provider_id
    }
}

/// The one in the middle; of an even number, the later of the two.
pub fn median(times: impl IntoIterator<Item = Duration>) -> Duration {
    let mut times: Vec<_> = times.into_iter().collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Asks a machine when it joined; `None` until `unit`, a oneshot unit that remains, is done.
///
/// # Errors
/// When the machine does not run or does not answer, or its kubelet started more than once.
pub async fn on_machine(inside: &Inside, unit: &str) -> Result<Option<OnMachine>> {
    let last = ["journalctl", "--lines=1", "--output=json", "--no-pager"];
    let offset = offset(&inside.run(&last).await?).context("no time in the journal")?;
    let show = async |what: &[&str]| {
        let command = [&["systemctl", "show"], what].concat();
        anyhow::Ok(properties(&inside.run(&command).await?))
    };
    let manager = show(&["--property=UserspaceTimestampMonotonic"]).await?;
    let joining = show(&[&[unit], TIMES].concat()).await?;
    let kubelet = show(&[&["kubelet.service"], TIMES].concat()).await?;
    ensure!(
        kubelet.get("NRestarts").is_none_or(|&restarts| restarts == 0),
        "the kubelet started more than once: {kubelet:?}"
    );
    let time = |properties: &BTreeMap<String, i64>, name: &str| {
        let since_boot = *properties.get(name).filter(|&&time| time != 0)?;
        Timestamp::from_microsecond(since_boot + offset).ok()
    };
    let started = "ExecMainStartTimestampMonotonic";
    Ok((|| {
        Some(OnMachine {
            init: time(&manager, "UserspaceTimestampMonotonic")?,
            unit: time(&joining, started)?,
            kubelet: time(&kubelet, started)?,
            done: time(&joining, "ActiveEnterTimestampMonotonic")?,
        })
    })())
}

/// The time of day less the time since the boot, in microseconds, of an entry of a journal in JSON.
fn offset(entry: &str) -> Option<i64> {
    let entry: Value = serde_json::from_str(entry.lines().next()?).ok()?;
    let number = |name: &str| entry[name].as_str()?.parse::<i64>().ok();
    Some(number("__REALTIME_TIMESTAMP")? - number("__MONOTONIC_TIMESTAMP")?)
}

/// The properties with numbers that `systemctl show` prints.
fn properties(shown: &str) -> BTreeMap<String, i64> {
    shown
        .lines()
        .filter_map(|line| {
            let (name, value) = line.split_once('=')?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect()
}

/// A request for a certificate.
#[derive(Clone, Debug)]
struct Request {
    name: String,
    asked: Timestamp,
    approved: Option<Timestamp>,
    signed: Option<Timestamp>,
}

/// A Node.
#[derive(Clone, Copy, Debug)]
struct Registered {
    at: Timestamp,
    provider_id: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct Seen {
    requests: Vec<Request>,
    nodes: BTreeMap<String, Registered>,
}

impl Seen {
    fn request(&mut self, csr: &CertificateSigningRequest, now: Timestamp) {
        if csr.spec.signer_name != SIGNER {
            return;
        }
        let name = csr.name_any();
        let index = self.requests.iter().position(|request| request.name == name);
        let index = index.unwrap_or_else(|| {
            self.requests.push(Request {
                name,
                asked: now,
                approved: None,
                signed: None,
            });
            self.requests.len() - 1
        });
        let status = csr.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_ref());
        let is_approved = conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Approved"));
        let is_signed = status.is_some_and(|status| status.certificate.is_some());
        let request = &mut self.requests[index];
        if is_approved {
            request.approved.get_or_insert(now);
        }
        if is_signed {
            request.signed.get_or_insert(now);
        }
    }

    fn node(&mut self, node: &Node, now: Timestamp) {
        let seen = self.nodes.entry(node.name_any()).or_insert(Registered {
            at: now,
            provider_id: None,
        });
        if node.spec.as_ref().is_some_and(|spec| spec.provider_id.is_some()) {
            seen.provider_id.get_or_insert(now);
        }
    }

    fn join_of(&self, node: &str) -> Option<InCluster> {
        let registered = self.nodes.get(node)?;
        // Machines join one after the other: it is the last that was signed before.
        let request = self
            .requests
            .iter()
            .rfind(|request| request.signed.is_some_and(|signed| signed <= registered.at))?;
        Some(InCluster {
            asked: request.asked,
            approved: request.approved?,
            signed: request.signed?,
            registered: registered.at,
            provider_id: registered.provider_id,
        })
    }
}

/// Notes when certificate requests and Nodes of a workload cluster were first seen in each state, until it is dropped.
pub struct Sightings {
    seen: Arc<Mutex<Seen>>,
    _watches: [AbortOnDropHandle<()>; 2],
}

impl Sightings {
    /// Begins to watch.
    pub fn of(tenant: &Client) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (of_requests, of_nodes) = (seen.clone(), seen.clone());
        let requests = watcher(
            Api::<CertificateSigningRequest>::all(tenant.clone()),
            watcher::Config::default(),
        )
        .default_backoff()
        .applied_objects()
        .for_each(move |csr| {
            if let Ok(csr) = &csr {
                lock(&of_requests).request(csr, Timestamp::now());
            }
            std::future::ready(())
        });
        let nodes = watcher(Api::<Node>::all(tenant.clone()), watcher::Config::default())
            .default_backoff()
            .applied_objects()
            .for_each(move |node| {
                if let Ok(node) = &node {
                    lock(&of_nodes).node(node, Timestamp::now());
                }
                std::future::ready(())
            });
        Self {
            seen,
            _watches: [
                AbortOnDropHandle::new(tokio::spawn(requests)),
                AbortOnDropHandle::new(tokio::spawn(nodes)),
            ],
        }
    }

    /// How the machine of `node` joined; `None` while its Node or its request was not seen.
    pub fn join_of(&self, node: &str) -> Option<InCluster> {
        lock(&self.seen).join_of(node)
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_700_000_000_000 + millis).unwrap()
    }

    fn millis(times: &[Duration]) -> Vec<u128> {
        times.iter().map(Duration::as_millis).collect()
    }

    fn csr(name: &str, signer: &str, status: &Value) -> CertificateSigningRequest {
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"request": "", "signerName": signer},
            "status": status,
        }))
        .unwrap()
    }

    fn node(name: &str, provider_id: Option<&str>) -> Node {
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"providerID": provider_id}}))
            .unwrap()
    }

    #[test]
    fn the_overhead_is_what_neither_the_machine_nor_the_kubelet_does() {
        let machine = OnMachine {
            init: at(0),
            unit: at(5000),
            kubelet: at(5400),
            done: at(9900),
        };
        let mut cluster = InCluster {
            asked: at(7000),
            approved: at(7030),
            signed: at(7130),
            registered: at(9000),
            provider_id: Some(at(9007)),
        };
        let join = Join::of(machine, cluster);
        assert_eq!(millis(&join.steps), [5000, 400, 1600, 30, 100, 1870, 7, 900]);
        assert_eq!(millis(&[join.total, join.overhead()]), [9000, 437]);
        cluster.provider_id = None;
        cluster.asked = at(5399);
        let join = Join::of(machine, cluster);
        assert_eq!(millis(&join.steps[2..4]), [0, 1631]);
        assert_eq!(join.steps[6], Duration::ZERO);
    }

    #[test]
    fn a_join_is_made_of_the_first_sight_of_each_state() {
        let mut seen = Seen::default();
        let approved = json!({"conditions": [{"type": "Approved", "status": "True"}]});
        let signed = json!({"conditions": [{"type": "Approved", "status": "True"}], "certificate": "YQ=="});
        seen.request(&csr("old", SIGNER, &signed), at(0));
        seen.request(&csr("serving", "kubernetes.io/kubelet-serving", &signed), at(5));
        seen.request(&csr("new", SIGNER, &json!({})), at(10));
        seen.request(&csr("new", SIGNER, &approved), at(20));
        seen.request(&csr("new", SIGNER, &signed), at(30));
        seen.request(&csr("new", SIGNER, &signed), at(31));
        assert_eq!(seen.join_of("n"), None);
        seen.node(&node("n", None), at(40));
        seen.node(&node("n", Some("local://a/b")), at(50));
        seen.node(&node("n", Some("local://a/b")), at(60));
        seen.request(&csr("next", SIGNER, &signed), at(70));
        let join = InCluster {
            asked: at(10),
            approved: at(20),
            signed: at(30),
            registered: at(40),
            provider_id: Some(at(50)),
        };
        assert_eq!(seen.join_of("n"), Some(join));
    }

    #[test]
    fn times_since_the_boot_become_times_of_day() {
        let entry =
            r#"{"__REALTIME_TIMESTAMP":"1700000000000100","__MONOTONIC_TIMESTAMP":"100","MESSAGE":"x"}"#;
        assert_eq!(offset(entry), Some(1_700_000_000_000_000));
        assert_eq!(offset("-- No entries --"), None);
        let shown = properties("NRestarts=0\nExecMainStartTimestampMonotonic=4211\nId=kubelet.service\n");
        assert_eq!(shown.len(), 2);
        assert_eq!(shown["ExecMainStartTimestampMonotonic"], 4211);
    }

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        let of = |times: &[u64]| median(times.iter().copied().map(Duration::from_millis)).as_millis();
        assert_eq!(of(&[9, 1, 5]), 5);
        assert_eq!(of(&[4, 3, 2, 1]), 3);
        assert_eq!(of(&[]), 0);
    }
}
