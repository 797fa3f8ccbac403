//! What the infrastructure reports of the machines of a MachinePool. Some providers have a Machine for each instance, with
//! its addresses and provider ID; all have a list of provider IDs, which end with the name of the instance on many. Pure.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use crate::capi::{machine::Machine, machine_pool::MachinePool};

/// Types of addresses that are names.
const NAMES: [&str; 3] = ["Hostname", "InternalDNS", "ExternalDNS"];

/// One Machine of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance<'a> {
    /// Its name, which is that of its infrastructure object.
    pub name: &'a str,
    /// It is being deleted.
    pub deleting: bool,
    /// Its node, once Cluster API set `status.nodeRef`.
    pub node_ref: Option<&'a str>,
    /// Host names in its `status.addresses`.
    pub host_names: Vec<&'a str>,
    /// The infrastructure has created it, so that no other addresses are to be expected.
    pub provisioned: bool,
    /// Identity of the machine in its infrastructure; empty until the infrastructure provider reports it.
    pub provider_id: &'a str,
}

impl<'a> Instance<'a> {
    /// What is known of a Machine.
    pub fn of(machine: &'a Machine) -> Self {
        let status = machine.status.as_ref();
        let addresses = status.into_iter().flat_map(|status| &status.addresses);
        Self {
            name: machine.metadata.name.as_deref().unwrap_or_default(),
            deleting: machine.metadata.deletion_timestamp.is_some(),
            node_ref: machine.node(),
            host_names: addresses
                .filter(|address| NAMES.contains(&address.type_.as_str()))
                .map(|address| address.address.as_str())
                .collect(),
            provisioned: status.is_some_and(|status| status.initialization.infrastructure_provisioned),
            provider_id: &machine.spec.provider_id,
        }
    }

    /// A node of any name may be this machine's: it exists, and the infrastructure reports no names of it.
    pub fn is_anonymous(&self) -> bool {
        self.provisioned && self.host_names.is_empty() && !self.deleting && self.node_ref.is_none()
    }
}

/// The Machines of a pool, found by the names that their nodes may have.
#[derive(Debug, Default)]
pub struct Instances<'a> {
    all: Vec<Instance<'a>>,
    /// By their names, and by their host names in lower case, with and without a domain.
    by_name: HashMap<String, Vec<usize>>,
    by_node: HashMap<&'a str, usize>,
}

impl<'a> Instances<'a> {
    /// What is known of these Machines.
    pub fn of(machines: &'a [Arc<Machine>]) -> Self {
        machines.iter().map(|machine| Instance::of(machine)).collect()
    }

    /// There are none: not every infrastructure provider makes them.
    pub const fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Those whose node may have this name, by their own name or their addresses.
    pub fn named(&self, node: &str) -> impl Iterator<Item = &Instance<'a>> {
        let known = self.by_name.get(node).into_iter().flatten();
        known.filter_map(|at| self.all.get(*at))
    }

    /// The one that Cluster API found this node for.
    pub fn with_node(&self, node: &str) -> Option<&Instance<'a>> {
        self.all.get(*self.by_node.get(node)?)
    }

    /// How many there are whose node may have any name.
    pub fn anonymous(&self) -> usize {
        self.all.iter().filter(|instance| instance.is_anonymous()).count()
    }
}

impl<'a> FromIterator<Instance<'a>> for Instances<'a> {
    fn from_iter<I: IntoIterator<Item = Instance<'a>>>(all: I) -> Self {
        let mut instances = Self::default();
        for (at, instance) in all.into_iter().enumerate() {
            let hosts = instance.host_names.iter().flat_map(|name| {
                let name = name.trim_end_matches('.').to_ascii_lowercase();
                let first = name.split('.').next().map(ToOwned::to_owned);
                first.into_iter().chain([name])
            });
            let names: BTreeSet<String> = hosts.chain([instance.name.to_owned()]).collect();
            for name in names {
                instances.by_name.entry(name).or_default().push(at);
            }
            if let Some(node) = instance.node_ref {
                instances.by_node.insert(node, at);
            }
            instances.all.push(instance);
        }
        instances
    }
}

/// The provider ID of the machine with this node: that of the Machine with that name or address, else the one of the pool's
/// list that ends with the name of the node. `None` if there is none, or more than one.
pub fn provider_id<'a>(pool: &'a MachinePool, instances: &Instances<'a>, node: &str) -> Option<&'a str> {
    let mut named = instances.named(node);
    let only = named.next().filter(|_| named.next().is_none());
    if let Some(machine) = instances.with_node(node).or(only) {
        return Some(machine.provider_id).filter(|id| !id.is_empty());
    }
    let mut fitting = pool
        .spec
        .provider_id_list
        .iter()
        .filter(|id| fits(last_of(id), node));
    fitting
        .next()
        .filter(|_| fitting.next().is_none())
        .map(String::as_str)
}

/// The names in the provider IDs of a pool, where those of its Nodes that `joined` are all among them: then the next ones are
/// as well. `None` where the IDs tell no names, or nothing has joined yet.
pub fn names_in_ids<'a, 'b>(
    pool: &'a MachinePool,
    joined: impl Iterator<Item = &'b str>,
) -> Option<HashSet<&'a str>> {
    let names: HashSet<_> = pool.spec.provider_id_list.iter().map(|id| last_of(id)).collect();
    let mut joined = joined.peekable();
    joined.peek()?;
    joined.all(|node| is_among(&names, node)).then_some(names)
}

/// The node has one of these names, with or without a domain.
pub fn is_among(names: &HashSet<&str>, node: &str) -> bool {
    names.contains(node) || node.split('.').next().is_some_and(|first| names.contains(first))
}

/// The end of a provider ID: on many infrastructures the name of the instance.
fn last_of(id: &str) -> &str {
    id.rsplit(['/', ':']).next().unwrap_or_default()
}

fn fits(last: &str, node: &str) -> bool {
    last == node || node.split('.').next() == Some(last)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn machine(name: &str, spec: &Value, status: &Value) -> Machine {
        serde_json::from_value(json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine", "metadata": {"name": name, "namespace": "ns"},
            "spec": spec, "status": status,
        }))
        .unwrap()
    }

    fn pool(ids: &[&str]) -> MachinePool {
        let mut pool = MachinePool::default();
        pool.spec.provider_id_list = ids.iter().map(|id| (*id).to_owned()).collect();
        pool
    }

    #[test]
    fn a_machine_is_known_by_its_name_and_its_addresses() {
        let machine = machine(
            "p-1",
            &json!({}),
            &json!({"addresses": [
                {"type": "InternalDNS", "address": "Host-1.example.com."}, {"type": "InternalIP", "address": "192.0.2.1"},
            ], "initialization": {"infrastructureProvisioned": true}}),
        );
        let instances = Instances::from_iter([Instance::of(&machine)]);
        for name in ["p-1", "host-1", "host-1.example.com"] {
            assert_eq!(instances.named(name).count(), 1, "{name}");
        }
        for name in ["p-2", "192.0.2.1", "example", "host"] {
            assert_eq!(instances.named(name).count(), 0, "{name}");
        }
        assert_eq!(instances.anonymous(), 0);
    }

    #[test]
    fn a_machine_without_names_is_anonymous_once_it_exists_and_until_it_has_a_node() {
        let of = |status: Value| Instance::of(&machine("p", &json!({}), &status)).is_anonymous();
        assert!(!of(json!({})), "its addresses may come");
        assert!(of(json!({"initialization": {"infrastructureProvisioned": true}})));
        assert!(!of(
            json!({"initialization": {"infrastructureProvisioned": true}, "nodeRef": {"name": "n"}})
        ));
    }

    #[test]
    fn the_provider_id_is_that_of_the_machine_else_the_one_that_ends_with_the_name() {
        let machines = [machine(
            "p-1",
            &json!({"providerID": "local://ns/p-1"}),
            &json!({}),
        )];
        let instances: Instances<'_> = machines.iter().map(Instance::of).collect();
        let none = pool(&[]);
        assert_eq!(provider_id(&none, &instances, "p-1"), Some("local://ns/p-1"));
        assert_eq!(provider_id(&none, &instances, "p-2"), None);
        for (ids, node, expected) in [
            (
                &["gce://project/zone/p-1", "gce://project/zone/p-2"][..],
                "p-2",
                Some("gce://project/zone/p-2"),
            ),
            (&["docker:////p-1"], "p-1", Some("docker:////p-1")),
            (
                &["gce://project/zone/p-1"],
                "p-1.c.project.internal",
                Some("gce://project/zone/p-1"),
            ),
            (&["aws:///zone/i-0123"], "ip-10-0-0-1", None),
            (&["gce://project/a/p-1", "gce://project/b/p-1"], "p-1", None),
        ] {
            let pool = pool(ids);
            assert_eq!(
                provider_id(&pool, &Instances::default(), node),
                expected,
                "{node}"
            );
        }
    }

    #[test]
    fn provider_ids_tell_names_where_those_of_all_nodes_end_with_them() {
        let gce = pool(&["gce://project/zone/p-1", "gce://project/zone/p-2"]);
        let names = names_in_ids(&gce, ["p-1.c.project.internal"].into_iter()).unwrap();
        assert!(is_among(&names, "p-2") && is_among(&names, "p-1.c.project.internal"));
        assert!(!is_among(&names, "p-3"));
        assert_eq!(names_in_ids(&gce, std::iter::empty()), None, "nobody knows yet");
        let aws = pool(&["aws:///zone/i-1", "aws:///zone/i-2"]);
        // One Node that takes the name of an ID does not make the others strangers.
        assert_eq!(names_in_ids(&aws, ["ip-10-0-0-1", "i-2"].into_iter()), None);
    }
}
