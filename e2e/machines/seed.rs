//! Files that are added to the root filesystem of a machine before it boots: the `NoCloud` seed, name resolution, container
//! network.
//!
//! Pure: returns a list of files. User-data is passed through unchanged. The container network is part of the image and not
//! of the bootstrap data, so it is written here.

use std::{borrow::Cow, net::Ipv4Addr};

use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::addresses::Network;

/// One file of the overlay.
#[derive(Clone, PartialEq, Eq)]
pub struct Overlay {
    /// Path below the machine's root, without the leading slash.
    pub path: Cow<'static, str>,
    /// Permission bits.
    pub mode: u32,
    /// Content.
    pub content: Vec<u8>,
}

/// What distinguishes one machine from another.
#[derive(Clone, Copy)]
pub struct Identity<'a> {
    /// Name on the host.
    pub id: &'a str,
    /// Host name.
    pub hostname: &'a str,
    /// Name of its network interface.
    pub interface: &'a str,
    /// Address and prefix length of the bridge's network.
    pub address: (Ipv4Addr, u8),
    /// The bridge's address on the host.
    pub gateway: Ipv4Addr,
    /// Name server of the machine; never loopback, since pods inherit it.
    pub nameserver: Ipv4Addr,
    /// Pod range of the machine.
    pub pod_cidr: Network,
    /// Registry that answers for all others.
    pub mirror: Option<&'a str>,
}

/// A short name, unique by namespace and name: it must fit an interface name with a three letter prefix.
pub fn machine_id(namespace: &str, name: &str) -> String {
    let mut text = format!(
        "m{}",
        HEXLOWER.encode(&Sha256::digest(format!("{namespace}/{name}")))
    );
    text.truncate(12);
    text
}

/// sha256 of `bytes` in hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

/// Every file laid over the root of one machine.
pub fn overlay(identity: Identity<'_>, user_data: &[u8]) -> Vec<Overlay> {
    let file = |path: &'static str, mode, content: Vec<u8>| Overlay {
        path: path.into(),
        mode,
        content,
    };
    let mut files = vec![
        file("var/lib/cloud/seed/nocloud/user-data", 0o600, user_data.to_vec()),
        file(
            "var/lib/cloud/seed/nocloud/meta-data",
            0o644,
            lines(&meta_data(identity)),
        ),
        file(
            "var/lib/cloud/seed/nocloud/network-config",
            0o644,
            lines(&network_config(identity)),
        ),
        Overlay {
            path: format!(
                "etc/systemd/network/10-cloud-init-{}.network.d/lab.conf",
                identity.interface
            )
            .into(),
            mode: 0o644,
            content: NO_IPV6.to_vec(),
        },
        file("etc/cni/net.d/10-bridge.conflist", 0o644, lines(&cni(identity))),
        file(
            "etc/resolv.conf",
            0o644,
            format!("nameserver {}\n", identity.nameserver).into_bytes(),
        ),
        file("etc/machine-id", 0o444, machine_os_id(identity).into_bytes()),
    ];
    if let Some(mirror) = identity.mirror {
        files.push(file(
            "etc/containerd/certs.d/_default/hosts.toml",
            0o644,
            hosts_toml(mirror),
        ));
    }
    files
}

/// Every registry is looked for at the mirror: machines reach no other.
fn hosts_toml(mirror: &str) -> Vec<u8> {
    let mirror = Value::from(mirror);
    format!("server = {mirror}\n\n[host.{mirror}]\n  capabilities = [\"pull\", \"resolve\"]\n").into_bytes()
}

/// Nobody answers router solicitations on the bridge: waiting for one costs every boot 14 seconds.
const NO_IPV6: &[u8] = b"[Network]\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n";

/// JSON is YAML, and the serialiser quotes for us.
fn lines(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

fn meta_data(identity: Identity<'_>) -> Value {
    json!({"instance-id": identity.id, "local-hostname": identity.hostname})
}

fn machine_os_id(identity: Identity<'_>) -> String {
    let mut text = sha256_hex(format!("machine-id {}", identity.id).as_bytes());
    text.truncate(32);
    text + "\n"
}

/// A static address: without it cloud-init falls back to DHCP and waits for an answer that never comes.
fn network_config(identity: Identity<'_>) -> Value {
    let (address, prefix) = identity.address;
    json!({
        "version": 2,
        "ethernets": {identity.interface: {
            "addresses": [format!("{address}/{prefix}")],
            "accept-ra": false,
            "gateway4": identity.gateway,
            "nameservers": {"addresses": [identity.nameserver]},
        }},
    })
}

/// Pods keep their addresses beyond the machine: the host routes each machine's range to it.
fn cni(identity: Identity<'_>) -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "lab",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "pods0",
                "isGateway": true,
                "ipMasq": false,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": identity.pod_cidr}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity<'static> {
        Identity {
            id: "m0123456789a",
            hostname: "quickstart-md-0-abcde",
            interface: "host0",
            address: (Ipv4Addr::new(10, 88, 200, 1), 16),
            gateway: Ipv4Addr::new(10, 88, 0, 1),
            nameserver: Ipv4Addr::new(10, 88, 0, 1),
            pod_cidr: Network::parse("10.244.3.0/24").unwrap(),
            mirror: Some("http://10.88.0.1:5000"),
        }
    }

    fn content(path: &str, user_data: &[u8]) -> Vec<u8> {
        overlay(identity(), user_data)
            .into_iter()
            .find(|file| file.path.ends_with(path))
            .unwrap()
            .content
    }

    #[test]
    fn user_data_passes_byte_for_byte() {
        let data = b"## template: jinja\n#cloud-config\n\xff\x00 {{ not ours }}";
        assert_eq!(content("user-data", data), data);
    }

    #[test]
    fn the_seed_is_yaml_that_names_the_machine_and_its_address() {
        let meta: Value = serde_yaml::from_slice(&content("meta-data", b"")).unwrap();
        assert_eq!(meta["local-hostname"], "quickstart-md-0-abcde");
        let network: Value = serde_yaml::from_slice(&content("network-config", b"")).unwrap();
        assert_eq!(network["ethernets"]["host0"]["addresses"][0], "10.88.200.1/16");
        assert_eq!(network["ethernets"]["host0"]["gateway4"], "10.88.0.1");
    }

    #[test]
    fn pods_live_in_the_machine_range() {
        let cni: Value = serde_json::from_slice(&content("conflist", b"")).unwrap();
        assert_eq!(
            cni["plugins"][0]["ipam"]["ranges"][0][0]["subnet"],
            "10.244.3.0/24"
        );
    }

    #[test]
    fn images_come_from_the_mirror() {
        let hosts = String::from_utf8(content("hosts.toml", b"")).unwrap();
        assert!(hosts.contains("[host.\"http://10.88.0.1:5000\"]"), "{hosts}");
    }

    #[test]
    fn ids_are_stable_differ_by_namespace_and_fit_an_interface_name() {
        assert_eq!(machine_id("a", "b"), machine_id("a", "b"));
        assert_ne!(machine_id("a-b", "c"), machine_id("a", "b-c"));
        assert!(machine_id("a", "b").len() + "vb-".len() <= 15);
        assert_eq!(content("machine-id", b"").len(), 33);
    }
}
