//! Trust roots that change: a user's CA that is renewed or replaced, and roots that somebody wants to edit.

use k8s_openapi::jiff::Timestamp;
use kamaji_api::{
    conditions::TenantControlPlaneCondition as On,
    labels::{capi, ours},
};
use serde_json::{Value, json};

use super::{DEPLOYMENT, ROOTS, TENANT, World, checksum, some_rounds, writes};
use crate::{
    pki::{
        issue::{self, Issued},
        spec::AltNames,
    },
    testing::path,
};

fn encode(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn made() -> Issued {
    issue::ca("corp", &AltNames::default(), Timestamp::now()).unwrap()
}

/// The certificate of `ca`, renewed with the same key.
fn renewed(ca: &Issued) -> String {
    let key = rcgen::KeyPair::from_pem(ca.key_pem.expose()).unwrap();
    let mut request = rcgen::CertificateParams::default();
    request.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    request
        .distinguished_name
        .push(rcgen::DnType::CommonName, "corp renewed");
    request.self_signed(&key).unwrap().pem()
}

/// Puts a CA into `alpha-ca`, with the label of a Cluster.
fn provide(world: &World, certificate: &str, key: &str) {
    world.api.edit(
        &path::secret("alpha-ca"),
        &json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": "alpha-ca", "namespace": "demo", "labels": { capi::CLUSTER_NAME: "alpha" } },
            "data": { "tls.crt": encode(certificate), "tls.key": encode(key) },
        }),
    );
}

impl World {
    /// Names and certificates of the copies that there are, and whether the pods mount them.
    fn copies(&self) -> Vec<(Value, bool)> {
        let body = self.api.get(DEPLOYMENT).unwrap().to_string();
        let copies = self
            .api
            .objects()
            .into_iter()
            .filter(|object| object["metadata"]["labels"]["kamaji.clastix.io/component"] == "ca-copy");
        copies
            .map(|copy| {
                assert_eq!(copy["immutable"], true);
                let mounted = body.contains(&copy["metadata"]["name"].to_string());
                (copy["data"]["tls.crt"].clone(), mounted)
            })
            .collect()
    }

    fn leaf(&self) -> Value {
        let leaf = path::secret("alpha-api-server-certificate");
        self.api.get(&leaf).unwrap()["data"].clone()
    }
}

#[tokio::test]
async fn a_users_ca_with_another_key_is_noticed_at_once_and_not_taken_unasked() {
    let mut world = World::new().await;
    let (first, other) = (made(), made());
    provide(&world, &first.cert_pem, first.key_pem.expose());
    world.settle().await;
    world.assert_ready();
    let hash = checksum(&world, "alpha-ca");
    let runs = |world: &World| [world.leaf(), world.api.get(DEPLOYMENT).unwrap()["spec"].clone()];
    let before = runs(&world);
    let used = [(json!(encode(&first.cert_pem)), true)];
    assert_eq!(world.copies(), used);

    provide(&world, &other.cert_pem, other.key_pem.expose());
    some_rounds(&world).await;
    for lost in [false, true] {
        let (status, reason, message) = world.condition(On::CertificatesAvailable);
        assert_eq!(
            (status.as_str(), reason.as_str()),
            ("False", "CertificateAuthorityLost")
        );
        assert!(
            message.starts_with("Secret demo/alpha-ca was replaced by a CA with another key")
                && message.contains(&format!("{}={hash}", ours::ACCEPT_NEW_IDENTITY)),
            "{message}"
        );
        assert_eq!(runs(&world), before, "without its status: {lost}");
        assert_eq!(world.copies(), used, "what the pods read");
        // Nor after a restart, from a backup without the status of the certificates.
        world
            .api
            .edit(TENANT, &json!({ "status": { "certificates": null } }));
        world.restart().await;
        some_rounds(&world).await;
    }

    let accept = json!({ "metadata": { "annotations": { ours::ACCEPT_NEW_IDENTITY: hash } } });
    world.api.edit(TENANT, &accept);
    world.settle().await;
    world.assert_ready();
    assert_ne!(world.leaf(), before[0]);
    assert_eq!(world.copies(), [(json!(encode(&other.cert_pem)), true)]);
    // The next one is reported again.
    provide(&world, &first.cert_pem, first.key_pem.expose());
    some_rounds(&world).await;
    assert_eq!(
        world.condition(On::CertificatesAvailable).1,
        "CertificateAuthorityLost"
    );
}

#[tokio::test]
async fn a_users_ca_that_is_renewed_with_the_same_key_is_taken_at_once() {
    let world = World::new().await;
    let ca = made();
    provide(&world, &ca.cert_pem, ca.key_pem.expose());
    world.settle().await;
    world.assert_ready();
    let (leaf, hash) = (world.leaf(), checksum(&world, "alpha-ca"));
    let certificate = renewed(&ca);
    provide(&world, &certificate, ca.key_pem.expose());
    world.settle().await;
    world.assert_ready();
    assert_ne!(world.leaf(), leaf, "signed by the renewed certificate");
    assert_ne!(checksum(&world, "alpha-ca"), hash);
    let secret = world.api.get(&path::secret("alpha-ca")).unwrap();
    assert_eq!(secret["data"]["tls.crt"], encode(&certificate));
    assert_eq!(secret.get("immutable"), None, "it is the user's");
}

#[tokio::test]
async fn the_trust_roots_that_the_engine_makes_are_immutable_those_of_earlier_versions_too() {
    let mut world = World::new().await;
    world.settle().await;
    let roots = |world: &World| ROOTS.map(|root| world.api.get(&path::secret(root)).unwrap());
    let made = roots(&world);
    assert_eq!(
        made.each_ref().map(|root| root["immutable"].clone()),
        [true; 3].map(Value::from)
    );
    assert_eq!(
        world
            .api
            .get(&path::secret("alpha-api-server-certificate"))
            .unwrap()
            .get("immutable"),
        None,
        "what is renewed"
    );
    for root in ROOTS {
        world.api.edit(&path::secret(root), &json!({ "immutable": null }));
    }
    let earlier = json!({ "metadata": { "annotations": { ours::IDENTITY: null } } });
    world.api.edit(TENANT, &earlier);
    world.restart().await;
    world.settle().await;
    world.assert_ready();
    for (before, after) in made.iter().zip(roots(&world)) {
        assert_eq!(after["immutable"], true);
        assert_eq!(after["data"], before["data"]);
    }
    world.api.requests();
    world.restart().await;
    world.settle().await;
    let requests = world.api.requests();
    assert_eq!(writes(&requests), Vec::<&String>::new(), "{requests:#?}");
}

#[tokio::test]
async fn a_tenant_that_lost_status_and_keys_gets_no_second_identity() {
    let mut world = World::new().await;
    world.settle().await;
    for root in ROOTS {
        world.api.delete(&path::secret(root));
    }
    world.api.edit(TENANT, &json!({ "status": null }));
    world.restart().await;
    some_rounds(&world).await;
    let (_, reason, message) = world.condition(On::CertificatesAvailable);
    assert_eq!(reason, "CertificateAuthorityLost", "{message}");
    for root in ROOTS {
        assert_eq!(world.api.get(&path::secret(root)), None, "{root}");
    }
}
