//! What the machines of this host have, and what a new one gets. Pure.

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::{
    addresses::{Network, next_address, next_range},
    outside::{self, Outside},
    record::Record,
    wire::Order,
};

/// Ranges that the host gives from.
#[derive(Clone, Copy, Debug)]
pub struct Ranges {
    /// The network of the lab's bridge.
    pub lab: Network,
    /// Addresses on it for machines.
    pub machines: Network,
    /// Addresses on it for the NAT of networks outside.
    pub uplinks: Network,
}

/// What a machine gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lot {
    /// The network outside that it is in; none is the lab's bridge.
    pub network: Option<Outside>,
    /// Its address there.
    pub address: Ipv4Addr,
    /// Range of its pods.
    pub pod_cidr: Network,
}

/// The machines by id, and the last addresses that were given: the next is another one.
#[derive(Default)]
pub struct Ledger {
    /// The machines by id.
    pub machines: BTreeMap<String, Record>,
    last: BTreeMap<Option<String>, Ipv4Addr>,
    last_uplink: Option<Ipv4Addr>,
}

impl Ledger {
    /// Adds a machine that was recorded.
    pub fn add(&mut self, record: Record) {
        let network = record.network.as_ref();
        self.last_uplink = network.map(|network| network.uplink).or(self.last_uplink);
        self.last.insert(name_of(network), record.address);
        self.machines.insert(record.id.clone(), record);
    }

    /// Removes a machine. A network that ends with it begins anew: nothing that remembers its addresses is left.
    pub fn remove(&mut self, id: &str) {
        let Some(record) = self.machines.remove(id) else {
            return;
        };
        if record.network.is_some() && !self.has_neighbour(&record) {
            self.last.remove(&name_of(record.network.as_ref()));
        }
    }

    /// Whether another machine is in the network of this one.
    pub fn has_neighbour(&self, record: &Record) -> bool {
        let mut machines = self.machines.values();
        machines.any(|other| other.id != record.id && other.network == record.network)
    }

    /// What a new machine gets: nothing while all addresses are in use. Machines of other networks do not count, whatever
    /// addresses and pods they have.
    ///
    /// # Errors
    /// In one sentence, when the order is wrong and stays wrong.
    pub fn allot(&self, order: &Order, ranges: Ranges) -> Result<Option<Lot>, String> {
        let cluster = Network::parse(&order.cluster_pod_cidr)?;
        if cluster.overlaps(&ranges.lab) {
            let lab = ranges.lab;
            return Err(format!(
                "pod range {cluster} overlaps the machines' network {lab}"
            ));
        }
        let asked = order.network.as_ref();
        let network = asked
            .map(|asked| {
                outside::choose(
                    asked,
                    &self.networks(),
                    ranges.lab,
                    ranges.uplinks,
                    self.last_uplink,
                )
            })
            .transpose()?;
        let (pool, mut addresses) = match &network {
            Some(network) => (network.range, vec![network.gateway()]),
            None => (ranges.machines, Vec::new()),
        };
        if cluster.overlaps(&pool) {
            return Err(format!(
                "pod range {cluster} overlaps the machines' network {pool}"
            ));
        }
        let name = name_of(network.as_ref());
        let machines = self.machines.values();
        let neighbours: Vec<&Record> = machines
            .filter(|record| name_of(record.network.as_ref()) == name)
            .collect();
        addresses.extend(neighbours.iter().map(|record| record.address));
        let taken: Vec<Network> = neighbours.iter().map(|record| record.pod_cidr).collect();
        let pod_cidr = next_range(cluster, &taken)
            .ok_or_else(|| format!("pod range {cluster} has no /24 left for another machine"))?;
        let address = next_address(pool, self.last.get(&name).copied(), &addresses);
        Ok(address.map(|address| Lot {
            network,
            address,
            pod_cidr,
        }))
    }

    /// The networks that have machines.
    fn networks(&self) -> Vec<Outside> {
        let machines = self.machines.values();
        let named = machines.filter_map(|record| record.network.as_ref());
        let by_name: BTreeMap<&str, &Outside> = named.map(|network| (&*network.name, network)).collect();
        by_name.into_values().cloned().collect()
    }
}

fn name_of(network: Option<&Outside>) -> Option<String> {
    network.map(|network| network.name.clone())
}

#[cfg(test)]
mod tests {
    use super::{super::wire::OutsideOrder, *};

    fn net(text: &str) -> Network {
        Network::parse(text).unwrap()
    }

    fn ranges() -> Ranges {
        Ranges {
            lab: net("10.88.0.0/16"),
            machines: net("10.88.64.0/18"),
            uplinks: net("10.88.32.0/24"),
        }
    }

    fn order(network: Option<&str>, pods: &str) -> Order {
        Order {
            hostname: "a".to_owned(),
            image: None,
            version: None,
            cluster_pod_cidr: pods.to_owned(),
            network: network.map(|name| OutsideOrder {
                name: name.to_owned(),
                cidr: "192.168.0.0/28".to_owned(),
            }),
            clock_offset_seconds: 0,
            user_data: String::new(),
        }
    }

    /// Gives `id` what it asks for.
    fn join(ledger: &mut Ledger, id: &str, network: Option<&str>) -> Lot {
        let lot = ledger
            .allot(&order(network, "10.244.0.0/16"), ranges())
            .unwrap()
            .unwrap();
        ledger.add(Record {
            id: id.to_owned(),
            namespace: "default".to_owned(),
            name: id.to_owned(),
            network: lot.network.clone(),
            address: lot.address,
            pod_cidr: lot.pod_cidr,
            user_data_sha256: String::new(),
            is_virtual: false,
            supervisor: None,
            init: None,
        });
        lot
    }

    #[test]
    fn machines_of_one_network_differ_and_those_of_two_may_be_equal() {
        let mut ledger = Ledger::default();
        let bridge = join(&mut ledger, "a", None);
        let left = join(&mut ledger, "b", Some("left"));
        let right = join(&mut ledger, "c", Some("right"));
        let second = join(&mut ledger, "d", Some("left"));
        assert_eq!(bridge.address, Ipv4Addr::new(10, 88, 64, 1));
        assert_eq!(
            left.address,
            Ipv4Addr::new(192, 168, 0, 2),
            "the first is the gateway's"
        );
        assert_eq!((left.address, left.pod_cidr), (right.address, right.pod_cidr));
        assert_eq!(left.pod_cidr, bridge.pod_cidr);
        assert_ne!(left.network, right.network);
        assert_eq!(left.network, second.network);
        assert_eq!(second.address, Ipv4Addr::new(192, 168, 0, 3));
        assert_eq!(second.pod_cidr, net("10.244.1.0/24"));
    }

    #[test]
    fn a_network_ends_with_its_last_machine_and_the_next_has_another_outer_address() {
        let mut ledger = Ledger::default();
        join(&mut ledger, "a", Some("left"));
        join(&mut ledger, "b", Some("left"));
        let gone = ledger.machines["a"].clone();
        assert!(ledger.has_neighbour(&gone));
        ledger.remove("a");
        let last = ledger.machines["b"].clone();
        assert!(!ledger.has_neighbour(&last));
        ledger.remove("b");
        let again = join(&mut ledger, "c", Some("left"));
        assert_ne!(again.network, last.network);
        assert_eq!(again.address, last.address.min(gone.address), "it begins anew");
    }

    #[test]
    fn a_full_network_has_room_again_later() {
        let mut ledger = Ledger::default();
        for number in 0..13 {
            join(&mut ledger, &format!("m{number}"), Some("left"));
        }
        let ask = order(Some("left"), "10.244.0.0/16");
        assert_eq!(ledger.allot(&ask, ranges()), Ok(None));
        ledger.remove("m5");
        assert!(ledger.allot(&ask, ranges()).unwrap().is_some());
    }

    #[test]
    fn pods_that_overlap_machines_are_refused() {
        let ledger = Ledger::default();
        for (network, pods) in [
            (None, "10.88.0.0/17"),
            (Some("left"), "10.88.0.0/17"),
            (Some("left"), "192.168.0.0/16"),
        ] {
            let fault = ledger.allot(&order(network, pods), ranges()).unwrap_err();
            assert!(fault.contains("overlaps"), "{fault}");
        }
        assert!(
            ledger
                .allot(&order(None, "192.168.0.0/16"), ranges())
                .unwrap()
                .is_some()
        );
    }
}
