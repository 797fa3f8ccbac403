//! Tests of [`super`]: certificates as Go clients verify them, and their life.

use super::{
    super::{
        material::{CLUSTER_CA_KEYS, FRONT_PROXY_CA_KEYS, Found, certificates},
        policy::{self, Decision, Input},
        spec::{self, Tenant, component},
    },
    *,
};

fn now() -> Timestamp {
    "2026-11-21T04:00:00Z".parse().unwrap()
}

fn specs() -> Vec<SecretSpec> {
    spec::tenant(&Tenant {
        namespace: "demo".to_owned(),
        name: "alpha".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        service_addresses: vec!["10.96.0.1".parse().unwrap()],
        hosts: vec!["192.0.2.7".to_owned()],
        port: 6443,
        endpoint: "alpha.example.com:6443".to_owned(),
        datastore_user: Some("demo_alpha_0a1b2c3d".to_owned()),
        ..Tenant::default()
    })
}

/// All Secrets of a tenant, issued together.
fn issue_all() -> Vec<(SecretSpec, Material)> {
    let specs = specs();
    let find = |component: &str| specs.iter().find(|spec| spec.component == component).unwrap();
    let make = |spec: &SecretSpec| secret(spec, Signers::default(), now()).unwrap();
    let (ca, front) = (make(find(component::CA)), make(find(component::FRONT_PROXY_CA)));
    let cluster = Ca::read("demo/alpha-ca", CLUSTER_CA_KEYS, &ca.to_data()).unwrap();
    let proxy = Ca::read("demo/front", FRONT_PROXY_CA_KEYS, &front.to_data()).unwrap();
    let etcd = kubeadm_ca();
    let signers = Signers {
        cluster: Some(&cluster),
        front_proxy: Some(&proxy),
        datastore: Some(&etcd),
    };
    specs
        .iter()
        .map(|spec| match spec.component {
            component::CA => (spec.clone(), ca.clone()),
            component::FRONT_PROXY_CA => (spec.clone(), front.clone()),
            _ => (spec.clone(), secret(spec, signers, now()).unwrap()),
        })
        .collect()
}

/// A kubeadm-style CA: RSA, PKCS#1.
fn kubeadm_ca() -> Ca {
    let found = |bytes| Found {
        location: "here".to_owned(),
        bytes,
    };
    Ca::from_pem(
        &found(include_bytes!("../testdata/rsa-ca.crt")),
        &found(include_bytes!("../testdata/rsa-pkcs1.key")),
        None,
    )
    .unwrap()
}

fn of<'a>(all: &'a [(SecretSpec, Material)], component: &str) -> &'a Material {
    &all.iter()
        .find(|(spec, _)| spec.component == component)
        .unwrap()
        .1
}

/// Runs assertions on a parsed certificate.
fn inspect(pem: &[u8], look: impl FnOnce(&X509Certificate<'_>)) {
    let der = certificates(&Found {
        location: "here".to_owned(),
        bytes: pem,
    })
    .unwrap()
    .remove(0);
    look(&X509Certificate::from_der(&der).unwrap().1);
}

#[test]
fn the_api_server_certificate_passes_the_checks_of_go_clients() {
    let all = issue_all();
    let root = of(&all, component::CA).data["ca.crt"].expose().to_vec();
    inspect(
        of(&all, component::API_SERVER).data["apiserver.crt"].expose(),
        |leaf| {
            inspect(&root, |root| {
                leaf.verify_signature(Some(root.public_key())).unwrap();
                assert!(root.is_ca());
                assert_eq!(leaf.issuer().as_raw(), root.subject().as_raw());
                assert!(root.validity().time_to_expiration().is_some());
            });
            let usage = leaf.extended_key_usage().unwrap().unwrap().value;
            assert!(usage.server_auth && !usage.client_auth && !usage.code_signing);
            let names = &leaf
                .subject_alternative_name()
                .unwrap()
                .unwrap()
                .value
                .general_names;
            let shown: Vec<String> = names.iter().map(ToString::to_string).collect();
            for name in [
                "kubernetes.default.svc.cluster.local",
                "alpha.demo.svc",
                "alpha.example.com",
            ] {
                assert!(
                    shown.iter().any(|text| text.contains(name)),
                    "{name} in {shown:?}"
                );
            }
            assert!(!leaf.is_ca());
            let (start, end) = (
                leaf.validity().not_before.timestamp(),
                leaf.validity().not_after.timestamp(),
            );
            assert_eq!(start, now().as_second() - 300, "backdated for clocks that lag");
            assert_eq!(end - now().as_second(), 365 * 86_400);
        },
    );
}

#[test]
fn the_datastore_certificate_is_a_client_without_a_group() {
    let all = issue_all();
    let material = of(&all, component::DATASTORE);
    assert_eq!(
        material.data["ca.crt"].expose(),
        kubeadm_ca().bundle_pem().as_bytes()
    );
    inspect(material.data["server.crt"].expose(), |leaf| {
        assert_eq!(leaf.subject().to_string(), "CN=demo_alpha_0a1b2c3d");
        let usage = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth && !usage.code_signing);
    });
}

#[test]
fn kubeconfigs_contain_their_identity_and_server() {
    let all = issue_all();
    let admin = of(&all, component::ADMIN);
    let read = |key: &str| Kubeconfig::parse(admin.data[key].expose()).unwrap();
    assert_eq!(read("admin.conf").server, "https://alpha.example.com:6443");
    assert_eq!(read("super-admin.svc").server, "https://alpha.demo.svc:6443");
    assert_eq!(
        read("admin.conf").certificate_pem,
        read("admin.svc").certificate_pem
    );
    inspect(read("admin.conf").certificate_pem.as_bytes(), |leaf| {
        assert_eq!(
            leaf.subject().to_string(),
            "CN=kubernetes-admin, O=kubeadm:cluster-admins"
        );
    });
    let scheduler =
        Kubeconfig::parse(of(&all, component::SCHEDULER).data["scheduler.conf"].expose()).unwrap();
    assert_eq!(scheduler.server, "https://127.0.0.1:6443");
    assert_eq!(scheduler.user, "system:kube-scheduler");
}

#[test]
fn the_service_account_pair_is_rsa_and_a_pair() {
    let all = issue_all();
    let data = of(&all, component::SERVICE_ACCOUNT).data.clone();
    let found = |key: &str| (key.to_owned(), data[key].expose().to_vec());
    let (public, private) = (found("sa.pub"), found("sa.key"));
    let as_found = |pair: &'static str, bytes| Found {
        location: pair.to_owned(),
        bytes,
    };
    assert!(
        crate::pki::material::is_pair(&as_found("sa.pub", &public.1), &as_found("sa.key", &private.1))
            .unwrap()
    );
    let pair = crate::pki::material::private_key(&as_found("sa.key", &private.1)).unwrap();
    assert_eq!(pair.algorithm(), &PKCS_RSA_SHA256);
}

#[test]
fn a_secret_that_was_just_issued_is_kept() {
    let all = issue_all();
    let cluster = of(&all, component::CA).annotations[on::CA_FINGERPRINT].clone();
    for (spec, material) in &all {
        let ca = match spec.signer() {
            Some(Signer::Datastore) => kubeadm_ca().fingerprint().to_owned(),
            Some(Signer::FrontProxy) => {
                of(&all, component::FRONT_PROXY_CA).annotations[on::CA_FINGERPRINT].clone()
            }
            _ => cluster.clone(),
        };
        let decision = policy::decide(Input {
            spec,
            tenant: "demo/alpha",
            observed: Some(&material.annotations),
            ca: Some(&ca),
            now: now(),
        });
        assert!(
            matches!(decision, Decision::Keep { .. }),
            "{}: {decision:?}",
            spec.name
        );
    }
}

#[test]
fn a_certificate_never_outlives_its_ca() {
    let by = kubeadm_ca();
    let late = by
        .not_after()
        .checked_sub(SignedDuration::from_hours(24))
        .unwrap();
    let issued = leaf(&Leaf::client("someone"), &by, late).unwrap();
    assert_eq!(issued.not_after, by.not_after());
    let over = by
        .not_after()
        .checked_add(SignedDuration::from_hours(24))
        .unwrap();
    assert!(matches!(
        leaf(&Leaf::client("someone"), &by, over),
        Err(Error::CaExpired(_))
    ));
}

#[test]
fn under_a_ca_that_expires_soon_a_certificate_is_issued_once() {
    let by = kubeadm_ca();
    let spec = spec::datastore("alpha", "someone");
    let at = |seconds: i64| {
        let before = SignedDuration::from_secs(seconds);
        by.not_after().checked_sub(before).unwrap()
    };
    // From nine hours down to the last minute.
    for left in [9 * 3600, 3600, 60] {
        let signers = Signers {
            datastore: Some(&by),
            ..Signers::default()
        };
        let made = secret(&spec, signers, at(left)).unwrap();
        let ask = |seconds: i64| {
            policy::decide(Input {
                spec: &spec,
                tenant: "demo/alpha",
                observed: Some(&made.annotations),
                ca: Some(by.fingerprint()),
                now: at(seconds),
            })
        };
        for later in [left, left / 2, 1] {
            assert_eq!(
                ask(later),
                Decision::Keep {
                    renew_at: Some(by.not_after())
                },
                "{later} s before the end, made {left} s before it"
            );
        }
        assert_eq!(ask(0), Decision::Issue(policy::Reason::Expiring), "it is over");
    }
}

#[test]
fn a_ca_whose_subject_cannot_be_an_issuer_is_refused() {
    let found = |bytes| Found {
        location: "here".to_owned(),
        bytes,
    };
    let by = Ca::from_pem(
        &found(include_bytes!("../testdata/ec-two-units-ca.crt")),
        &found(include_bytes!("../testdata/ec-sec1.key")),
        None,
    )
    .unwrap();
    assert!(matches!(
        leaf(&Leaf::client("someone"), &by, by.not_before()),
        Err(Error::IssuerName)
    ));
}

#[test]
fn no_key_is_printed() {
    for (_, material) in issue_all() {
        assert!(!format!("{material:?}").contains("PRIVATE"));
    }
}

#[test]
fn the_content_hash_depends_on_the_boundaries_of_keys_and_values() {
    let of = |list: &[(&'static str, &'static [u8])]| content_hash(list.iter().copied());
    assert_ne!(of(&[("a", b"bc")]), of(&[("ab", b"c")]));
    assert_ne!(of(&[("a", b"b"), ("c", b"")]), of(&[("a", b""), ("c", b"b")]));
}
