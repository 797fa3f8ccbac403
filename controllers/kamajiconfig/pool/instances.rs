//! What the infrastructure reports of the machines of a MachinePool. Some providers have a Machine for each instance, with
//! its addresses and provider ID; all have a list of provider IDs, which end with the name of the instance on many. Pure.

use std::sync::Arc;

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

    /// The node is this machine's, by its name or its addresses.
    pub fn is_named(&self, node: &str) -> bool {
        let fits = |name: &&str| {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            name == node || name.split('.').next() == Some(node)
        };
        self.name == node || self.host_names.iter().any(fits)
    }

    /// A node of any name may be this machine's: it exists, and the infrastructure reports no names of it.
    pub fn is_anonymous(&self) -> bool {
        self.provisioned && self.host_names.is_empty() && !self.deleting && self.node_ref.is_none()
    }
}

/// What is known of these Machines.
pub fn of(machines: &[Arc<Machine>]) -> Vec<Instance<'_>> {
    machines.iter().map(|machine| Instance::of(machine)).collect()
}

/// The provider ID of the machine with this node: that of the Machine with that name or address, else the one of the pool's
/// list that ends with the name of the node. `None` if there is none, or more than one.
pub fn provider_id<'a>(pool: &'a MachinePool, instances: &[Instance<'a>], node: &str) -> Option<&'a str> {
    let bound = instances.iter().find(|instance| instance.node_ref == Some(node));
    let mut named = instances.iter().filter(|instance| instance.is_named(node));
    let machine = bound.or_else(|| named.next().filter(|_| named.next().is_none()));
    if let Some(machine) = machine {
        return Some(machine.provider_id).filter(|id| !id.is_empty());
    }
    let ends = |id: &&String| {
        let last = id.rsplit(['/', ':']).next().unwrap_or_default();
        last == node || node.split('.').next() == Some(last)
    };
    let mut fitting = pool.spec.provider_id_list.iter().filter(ends);
    fitting
        .next()
        .filter(|_| fitting.next().is_none())
        .map(String::as_str)
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
        let instance = Instance::of(&machine);
        for name in ["p-1", "host-1", "host-1.example.com"] {
            assert!(instance.is_named(name), "{name}");
        }
        for name in ["p-2", "192.0.2.1", "example", "host"] {
            assert!(!instance.is_named(name), "{name}");
        }
        assert!(!instance.is_anonymous());
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
        let instances: Vec<_> = machines.iter().map(Instance::of).collect();
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
            assert_eq!(provider_id(&pool, &[], node), expected, "{node}");
        }
    }
}
