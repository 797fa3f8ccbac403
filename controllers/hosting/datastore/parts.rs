//! What the objects of a managed etcd share: ports, host names and the Secrets of key material. Pure.

use kamaji_api::labels::namespace;

use super::validate::Managed;
use crate::pki::spec::{AltNames, Content, Leaf, Renewal, SecretSpec, Signer, Usage};

/// Port of clients.
pub(super) const CLIENT: i32 = 2379;
/// Port of peers. With one member it is on loopback.
pub(super) const PEER: i32 = 2380;
/// Key of how a member without data starts.
pub(super) const CLUSTER_STATE: &str = "initial-cluster-state";
/// Name of the volume, and prefix of the claim's name.
pub(super) const VOLUME: &str = "data";

/// `host:port` of each member.
pub fn endpoints(managed: &Managed) -> Vec<String> {
    (0..managed.spec.replicas)
        .map(|member| format!("{}:{CLIENT}", host(&managed.name, member)))
        .collect()
}

/// DNS name of a member.
pub(super) fn host(name: &str, member: i32) -> String {
    format!("{name}-{member}.{name}.{}.svc", namespace::DATASTORES)
}

/// Name of the PersistentVolumeClaim of the first member.
pub fn claim_name(name: &str) -> String {
    format!("{VOLUME}-{name}-0")
}

/// Secret of how a member without data starts; it holds no key material.
pub(super) fn start(name: &str) -> String {
    format!("{name}-etcd-start")
}

/// Secret of the CA.
pub fn ca(name: &str) -> SecretSpec {
    SecretSpec {
        name: format!("{name}-etcd-ca"),
        component: "etcd-ca",
        secret_type: "Opaque",
        renewal: Renewal::LastThird,
        content: Content::Ca {
            common_name: format!("{name} etcd"),
            names: AltNames::default(),
            keys: vec![("ca.crt".to_owned(), "ca.key".to_owned())],
        },
    }
}

/// Secret of the members: one certificate for client and peer connections, as server and as client. Members trust exactly
/// this certificate of each other.
pub fn server(name: &str) -> SecretSpec {
    let mut names = AltNames::default();
    let service = format!("{name}.{}.svc", namespace::DATASTORES);
    for host in ["localhost", "127.0.0.1", "::1", &service, &format!("*.{service}")] {
        names.add(host);
    }
    certificate(
        name,
        "etcd-server",
        Leaf {
            common_name: service,
            organization: None,
            usages: vec![Usage::Server, Usage::Client],
            names,
        },
    )
}

/// Secret of the admin: the user `root` of etcd.
pub fn admin(name: &str) -> SecretSpec {
    certificate(name, "etcd-root", Leaf::client("root"))
}

fn certificate(name: &str, component: &'static str, leaf: Leaf) -> SecretSpec {
    SecretSpec {
        name: format!("{name}-{component}"),
        component,
        secret_type: "Opaque",
        renewal: Renewal::LastThird,
        content: Content::Certificate {
            signer: Signer::Datastore,
            leaf,
            bundle_key: Some("ca.crt".to_owned()),
            certificate_key: "tls.crt".to_owned(),
            private_key: "tls.key".to_owned(),
        },
    }
}
