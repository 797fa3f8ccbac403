//! Selects the address and the pod range of a new machine. Pure arithmetic over those in use.
//!
//! Addresses are assigned in turn, so that a new machine does not inherit state that neighbours cached for a machine
//! that was just removed (ARP, connection tracking).

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// Prefix length of a machine's pod range.
pub const MACHINE_PREFIX: u8 = 24;

/// An IPv4 network in CIDR notation, with its host bits cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    base: u32,
    prefix: u8,
}

impl Network {
    /// The network of `prefix` bits that holds `address`.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = prefix.min(32);
        Self {
            base: u32::from(address) & mask(prefix),
            prefix,
        }
    }

    /// Parses `a.b.c.d/n`; the address must be the network's own.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fault = || format!("{text:?} is not an IPv4 range like 10.244.0.0/16");
        let (address, prefix) = text.split_once('/').ok_or_else(fault)?;
        let address: Ipv4Addr = address.parse().map_err(|_| fault())?;
        let prefix: u8 = prefix.parse().map_err(|_| fault())?;
        if prefix > 32 {
            return Err(fault());
        }
        let network = Self::new(address, prefix);
        if network.base == u32::from(address) {
            Ok(network)
        } else {
            Err(format!("{text:?} has host bits set; the range is {network}"))
        }
    }

    /// First address: the network itself.
    pub fn base(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.base)
    }

    /// Prefix length.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether the two ranges share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        let shorter = mask(self.prefix.min(other.prefix));
        self.base & shorter == other.base & shorter
    }

    /// Number of addresses.
    fn size(self) -> u64 {
        1 << (32 - u32::from(self.prefix))
    }

    /// The `n`th address of the range, counted round its end.
    pub(super) fn address(self, n: u64) -> Ipv4Addr {
        let offset = u32::try_from(n % self.size()).unwrap_or_default();
        Ipv4Addr::from(self.base | offset)
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base(), self.prefix)
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

/// The next free address after `last`, never the first or the last of the pool.
pub fn next_address(pool: Network, last: Option<Ipv4Addr>, taken: &[Ipv4Addr]) -> Option<Ipv4Addr> {
    let size = pool.size();
    let start = last.map_or(0, |last| u64::from(u32::from(last).wrapping_sub(pool.base)));
    (1..=size)
        .map(|step| (start + step) % size)
        .filter(|offset| *offset != 0 && *offset != size - 1)
        .map(|offset| pool.address(offset))
        .find(|address| !taken.contains(address))
}

/// The lowest free machine range of a cluster's pod range.
pub fn next_range(cluster: Network, taken: &[Network]) -> Option<Network> {
    let count = 1u64 << u32::from(MACHINE_PREFIX.checked_sub(cluster.prefix)?);
    (0..count)
        .map(|n| {
            Network::new(
                cluster.address(n << (32 - u32::from(MACHINE_PREFIX))),
                MACHINE_PREFIX,
            )
        })
        .find(|range| !taken.iter().any(|other| other.overlaps(range)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Network {
        Network::parse(text).unwrap()
    }

    #[test]
    fn a_range_with_host_bits_is_refused_with_the_right_one() {
        assert!(
            Network::parse("10.244.0.1/16")
                .unwrap_err()
                .contains("10.244.0.0/16")
        );
        assert!(Network::parse("10.244.0.0").is_err());
        assert!(Network::parse("10.244.0.0/33").is_err());
        assert_eq!(net("0.0.0.0/0").size(), 1 << 32);
    }

    #[test]
    fn overlap_is_symmetric_and_knows_nesting() {
        assert!(net("10.244.0.0/16").overlaps(&net("10.244.7.0/24")));
        assert!(net("10.244.7.0/24").overlaps(&net("10.244.0.0/16")));
        assert!(!net("10.244.0.0/16").overlaps(&net("10.245.0.0/16")));
    }

    #[test]
    fn addresses_go_in_turn_and_skip_what_is_taken() {
        let pool = net("10.88.200.0/30");
        let first = next_address(pool, None, &[]).unwrap();
        assert_eq!(first, Ipv4Addr::new(10, 88, 200, 1));
        let second = next_address(pool, Some(first), &[]).unwrap();
        assert_eq!(second, Ipv4Addr::new(10, 88, 200, 2));
        assert_eq!(next_address(pool, Some(second), &[second]), Some(first));
        assert_eq!(next_address(pool, Some(second), &[first, second]), None);
    }

    #[test]
    fn each_machine_gets_a_range_of_its_own() {
        let cluster = net("10.244.0.0/23");
        let first = next_range(cluster, &[]).unwrap();
        assert_eq!(first, net("10.244.0.0/24"));
        let second = next_range(cluster, &[first]).unwrap();
        assert_eq!(second, net("10.244.1.0/24"));
        assert_eq!(next_range(cluster, &[first, second]), None);
        assert_eq!(next_range(net("10.244.0.0/25"), &[]), None);
    }
}
