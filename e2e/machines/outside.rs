//! Networks outside of the lab: which name, range and outer address one has. Pure.
//!
//! The machines of such a network stand behind a NAT of their own. They open connections to the lab, as to the endpoint
//! of their API server, and nothing of the lab opens one to them or their pods. Everything about a network is keyed by
//! its name, so two of them may have the same addresses.

use std::net::Ipv4Addr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{addresses::Network, addresses::next_address, wire::OutsideOrder};

/// Longest name of a network: it is the name of a directory, and people type it.
pub const NAME_MAX: usize = 32;
/// Longest prefix of a network: its gateway, machines and their replacements need addresses.
const PREFIX_MAX: u8 = 28;
/// Shortest prefix: the largest private range.
const PREFIX_MIN: u8 = 8;

/// A network of machines behind a NAT.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outside {
    /// Name, and key of everything that belongs to it.
    pub name: String,
    /// Addresses of its machines; the first is the gateway's.
    pub range: Network,
    /// Address on the lab's bridge that all its connections come from.
    pub uplink: Ipv4Addr,
}

impl Outside {
    /// Address of the network's gateway for its machines.
    pub fn gateway(&self) -> Ipv4Addr {
        self.range.address(1)
    }

    /// Name of the host's end of the link to the network, at most 15 characters.
    pub fn link(&self) -> String {
        let mut hash = HEXLOWER.encode(&Sha256::digest(&self.name));
        hash.truncate(12);
        format!("vn-{hash}")
    }
}

/// The network that a machine asks for: a known one, or a new one with the next free outer address.
///
/// # Errors
/// In one sentence with the field to change: the name or the range cannot be used, or the network has another range.
pub fn choose(
    order: &OutsideOrder,
    known: &[Outside],
    lab: Network,
    uplinks: Network,
    last: Option<Ipv4Addr>,
) -> Result<Outside, String> {
    let name = checked_name(&order.name)?;
    let range = checked_range(&order.cidr, lab)?;
    if let Some(found) = known.iter().find(|network| network.name == name) {
        return if found.range == range {
            Ok(found.clone())
        } else {
            Err(format!(
                "network {name:?} has machines in {}, not in {range}; set spec.networkCIDR to its range, or spec.network to another name",
                found.range
            ))
        };
    }
    let taken: Vec<Ipv4Addr> = known.iter().map(|network| network.uplink).collect();
    let uplink = next_address(uplinks, last, &taken)
        .ok_or_else(|| format!("{uplinks} has no address left for network {name:?}"))?;
    Ok(Outside {
        name: name.to_owned(),
        range,
        uplink,
    })
}

fn checked_name(name: &str) -> Result<&str, String> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let valid = (1..=NAME_MAX).contains(&name.len())
        && name.chars().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-');
    valid.then_some(name).ok_or_else(|| {
        format!(
            "spec.network {name:?} is no name of a network: at most {NAME_MAX} lowercase letters, digits and dashes, no dash at the ends"
        )
    })
}

fn checked_range(text: &str, lab: Network) -> Result<Network, String> {
    let range = Network::parse(text).map_err(|fault| format!("spec.networkCIDR: {fault}"))?;
    if !(PREFIX_MIN..=PREFIX_MAX).contains(&range.prefix()) {
        return Err(format!(
            "spec.networkCIDR {range} must have a prefix of {PREFIX_MIN} to {PREFIX_MAX} bits"
        ));
    }
    if range.overlaps(&lab) {
        return Err(format!(
            "spec.networkCIDR {range} overlaps the lab's own network {lab}, which its machines must reach"
        ));
    }
    Ok(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Network {
        Network::parse(text).unwrap()
    }

    fn chosen(name: &str, cidr: &str, known: &[Outside]) -> Result<Outside, String> {
        let order = OutsideOrder {
            name: name.to_owned(),
            cidr: cidr.to_owned(),
        };
        let last = known.last().map(|network| network.uplink);
        choose(&order, known, net("10.88.0.0/16"), net("10.88.32.0/24"), last)
    }

    #[test]
    fn two_networks_may_have_the_same_range_and_differ_in_all_else() {
        let first = chosen("outside", "192.168.0.0/24", &[]).unwrap();
        let second = chosen("other", "192.168.0.0/24", std::slice::from_ref(&first)).unwrap();
        assert_eq!(first.range, second.range);
        assert_eq!(first.gateway(), second.gateway());
        assert_ne!(first.uplink, second.uplink);
        assert_ne!(first.link(), second.link());
        assert!(first.link().len() <= 15, "{}", first.link());
    }

    #[test]
    fn the_machines_of_one_name_share_one_network() {
        let first = chosen("outside", "192.168.0.0/24", &[]).unwrap();
        let again = chosen("outside", "192.168.0.0/24", std::slice::from_ref(&first)).unwrap();
        assert_eq!(first, again);
        let fault = chosen("outside", "192.168.1.0/24", &[first]).unwrap_err();
        assert!(
            fault.contains("192.168.0.0/24") && fault.contains("spec.networkCIDR"),
            "{fault}"
        );
    }

    #[test]
    fn a_name_is_safe_as_a_directory() {
        let longest = "n".repeat(NAME_MAX);
        for name in ["a", "edge-1", &longest] {
            assert!(chosen(name, "192.168.0.0/24", &[]).is_ok(), "{name}");
        }
        let longer = "n".repeat(NAME_MAX + 1);
        for name in ["", "..", "a/b", "A", "-a", "a-", "a b", &longer] {
            let fault = chosen(name, "192.168.0.0/24", &[]).unwrap_err();
            assert!(fault.contains("spec.network"), "{name}: {fault}");
        }
    }

    #[test]
    fn a_range_that_cannot_work_names_the_field() {
        for cidr in [
            "192.168.0.1/24",
            "10.88.64.0/24",
            "10.0.0.0/8",
            "192.168.0.0/29",
            "0.0.0.0/0",
            "x",
        ] {
            let fault = chosen("outside", cidr, &[]).unwrap_err();
            assert!(fault.contains("spec.networkCIDR"), "{cidr}: {fault}");
        }
    }

    #[test]
    fn the_pool_of_outer_addresses_has_an_end() {
        let known = Outside {
            name: "a".to_owned(),
            range: net("192.168.0.0/24"),
            uplink: Ipv4Addr::new(10, 88, 32, 1),
        };
        let order = OutsideOrder {
            name: "b".to_owned(),
            cidr: "192.168.0.0/24".to_owned(),
        };
        let pool = net("10.88.32.0/31");
        let fault = choose(&order, &[known], net("10.88.0.0/16"), pool, None).unwrap_err();
        assert!(fault.contains("no address left"), "{fault}");
    }
}
