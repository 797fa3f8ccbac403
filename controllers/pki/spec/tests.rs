//! Tests of [`super`]: names, keys, subjects and hashes of the Secrets of a tenant.

use super::*;

pub(crate) fn example() -> Tenant {
    Tenant {
        namespace: "demo".to_owned(),
        name: "alpha".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        service_addresses: vec!["10.96.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        hosts: vec!["192.0.2.7".to_owned(), "[2001:db8::7]".to_owned()],
        extra_sans: vec!["API.example.org".to_owned(), "*.example.org".to_owned()],
        port: 6443,
        endpoint: "alpha.example.com:6443".to_owned(),
        datastore_user: Some("demo_alpha_0a1b2c3d".to_owned()),
    }
}

fn find(component: &str) -> SecretSpec {
    tenant(&example())
        .into_iter()
        .find(|spec| spec.component == component)
        .unwrap()
}

#[test]
fn names_and_keys_of_secrets_are_those_of_kamaji() {
    let listing: Vec<String> = tenant(&example())
        .iter()
        .map(|spec| {
            let keys: Vec<String> = match &spec.content {
                Content::Ca { keys, .. } => keys.iter().map(|(cert, key)| format!("{cert} {key}")).collect(),
                Content::KeyPair { public, private } => vec![public.clone(), private.clone()],
                Content::Certificate {
                    bundle_key,
                    certificate_key,
                    private_key,
                    ..
                } => bundle_key
                    .iter()
                    .chain([certificate_key, private_key])
                    .cloned()
                    .collect(),
                Content::Kubeconfigs { identities, .. } => identities
                    .iter()
                    .flat_map(|identity| identity.files.iter().map(|file| file.key.clone()))
                    .collect(),
            };
            format!("{}: {}", spec.name, keys.join(" "))
        })
        .collect();
    assert_eq!(
        listing,
        [
            "alpha-ca: ca.crt ca.key tls.crt tls.key",
            "alpha-front-proxy-ca-certificate: front-proxy-ca.crt front-proxy-ca.key",
            "alpha-sa-certificate: sa.pub sa.key",
            "alpha-api-server-certificate: apiserver.crt apiserver.key",
            "alpha-api-server-kubelet-client-certificate: apiserver-kubelet-client.crt apiserver-kubelet-client.key",
            "alpha-front-proxy-client-certificate: front-proxy-client.crt front-proxy-client.key",
            "alpha-admin-kubeconfig: admin.conf admin.svc super-admin.conf super-admin.svc",
            "alpha-controller-manager-kubeconfig: controller-manager.conf",
            "alpha-scheduler-kubeconfig: scheduler.conf",
            "alpha-datastore-certificate: ca.crt server.crt server.key",
        ]
    );
}

#[test]
fn the_api_server_certificate_covers_every_name_of_the_api_server() {
    let Content::Certificate { leaf, .. } = find(component::API_SERVER).content else {
        panic!("not a certificate");
    };
    for name in [
        "kubernetes.default.svc.cluster.local",
        "alpha.demo.svc",
        "alpha.example.com",
        "api.example.org",
        "*.example.org",
        "localhost",
    ] {
        assert!(leaf.names.dns.contains(name), "{name}");
    }
    for address in [
        "10.96.0.1",
        "fd00::1",
        "192.0.2.7",
        "2001:db8::7",
        "127.0.0.1",
        "::1",
    ] {
        assert!(leaf.names.ip.contains(&address.parse().unwrap()), "{address}");
    }
    assert_eq!(leaf.usages, [Usage::Server]);
}

#[test]
fn only_the_break_glass_kubeconfig_is_in_system_masters() {
    for spec in tenant(&example()) {
        let text = serde_json::to_string(&spec.content).unwrap();
        assert_eq!(
            text.contains("system:masters"),
            spec.component == component::ADMIN,
            "{}",
            spec.name
        );
    }
    let text = serde_json::to_string(&bootstrap("alpha", "https://alpha:6443").content).unwrap();
    assert!(!text.contains("system:masters") && !text.contains(ADMINS_GROUP));
}

#[test]
fn the_inputs_hash_changes_with_the_set_of_names_and_not_with_their_order() {
    let before = find(component::API_SERVER);
    assert_eq!(before.inputs_hash(), find(component::API_SERVER).inputs_hash());
    let mut changed = example();
    changed.hosts.reverse();
    let same = tenant(&changed)
        .into_iter()
        .find(|s| s.name == before.name)
        .unwrap();
    assert_eq!(same.inputs_hash(), before.inputs_hash(), "order does not matter");
    changed.hosts.push("192.0.2.8".to_owned());
    let other = tenant(&changed)
        .into_iter()
        .find(|s| s.name == before.name)
        .unwrap();
    assert_ne!(other.inputs_hash(), before.inputs_hash());
}

#[test]
fn the_konnectivity_server_is_a_client_in_no_group() {
    let made = konnectivity("alpha");
    assert_eq!(made.renewal, Renewal::LastThird);
    let Content::Certificate { signer, leaf, .. } = made.content else {
        panic!("{:?}", made.content);
    };
    assert_eq!(signer, Signer::Cluster);
    assert_eq!(leaf, Leaf::client("system:konnectivity-server"));
    assert_eq!((leaf.organization, leaf.usages), (None, vec![Usage::Client]));
}
