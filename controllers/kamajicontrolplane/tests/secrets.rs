//! The Secrets of the contract, and a CA that a user provides.

use kamaji_api::labels::{capi, kamaji, ours};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::world::{CONTROL_PLANE, TENANT, World};
use crate::{
    kamajicontrolplane::{example, reconcile::reconcile},
    pki::{issue, kubeconfig::Kubeconfig, spec::AltNames},
    runtime::driver::Outcome,
    settings::Hosting,
    testing::path,
};

#[tokio::test]
async fn contract_09_the_kubeconfig_has_the_form_that_cluster_api_expects() {
    let mut world = World::new();
    world.settle().await;
    let secret = world.secret("alpha-kubeconfig").unwrap();
    assert_eq!(secret.type_.as_deref(), Some(capi::SECRET_TYPE));
    assert_eq!(secret.labels()[capi::CLUSTER_NAME], "alpha");
    let owner = &secret.owner_references()[0];
    assert_eq!(
        (owner.kind.as_str(), owner.controller),
        ("KamajiControlPlane", Some(true))
    );
    let read = Kubeconfig::parse(&secret.data.unwrap()["value"].0).unwrap();
    assert_eq!(read.context(), "alpha-admin@alpha");
    assert_eq!(read.server, "https://192.0.2.1:6443");
    let bootstrap = world.secret("alpha-kamaji-bootstrap").unwrap();
    let read = Kubeconfig::parse(&bootstrap.data.unwrap()["value"].0).unwrap();
    assert_eq!(
        (read.user.as_str(), read.cluster.as_str()),
        ("kamaji-bootstrap:controller", "alpha")
    );
}

#[tokio::test]
async fn contract_24_a_renewed_admin_certificate_is_copied_and_a_users_kubeconfig_is_kept() {
    let mut world = World::new();
    world.settle().await;
    world.api.delete(&path::secret("alpha-admin-kubeconfig"));
    world.api.requests();
    world.settle().await;
    assert!(world.api.requests().is_empty(), "the content is the same");
    world.api.edit(
        &path::secret("alpha-admin-kubeconfig"),
        &json!({"metadata": {"annotations": {ours::CONTENT_HASH: "renewed"}}}),
    );
    world.settle().await;
    let wrote = format!("PATCH {}", path::secret("alpha-kubeconfig"));
    assert!(world.api.requests().contains(&wrote));

    for label in [json!({capi::CLUSTER_NAME: "alpha"}), json!({})] {
        let mut world = World::new();
        world.api.edit(
            &path::secret("alpha-kubeconfig"),
            &json!({
                "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": {"value": "bWluZQ=="},
                "metadata": {"name": "alpha-kubeconfig", "namespace": "demo", "labels": label},
            }),
        );
        world.settle().await;
        assert!(world.initialized());
        let secret = world.secret("alpha-kubeconfig").unwrap();
        assert_eq!(secret.data.unwrap()["value"].0, b"mine");
    }
}

/// Creates `beta-ca` as a user does: certificate and key, without a label.
fn create_user_ca(world: &World, key_of_another: bool) -> Value {
    let make = |name: &str| issue::ca(name, &AltNames::default(), example::now()).unwrap();
    let (one, two) = (make("one"), make("two"));
    let key = if key_of_another { &two } else { &one };
    let bytes = |text: &str| json!(k8s_openapi::ByteString(text.as_bytes().to_vec()));
    let data = json!({"tls.crt": bytes(&one.cert_pem), "tls.key": bytes(key.key_pem.expose())});
    world.api.edit(
        &path::secret("beta-ca"),
        &json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"name": "beta-ca", "namespace": "demo"}, "data": data,
        }),
    );
    data
}

#[tokio::test]
async fn a_users_ca_under_the_name_of_the_cluster_is_used_and_never_lost() {
    let mut world = World::of("beta", Hosting::Embedded);
    let given = create_user_ca(&world, false);
    world.settle().await;
    assert!(world.initialized(), "{:#?}", world.status());
    let users = world.api.get(&path::secret("beta-ca")).unwrap();
    assert_eq!(
        users["metadata"]["labels"][capi::CLUSTER_NAME],
        "beta",
        "Cluster API finds it"
    );
    assert_eq!((&users["data"], &users["type"]), (&given, &json!("Opaque")));
    assert_eq!(world.api.get(&path::secret("alpha-ca")).unwrap()["data"], given);
    world.api.requests();
    world.restart();
    world.settle().await;
    assert_eq!(world.api.requests(), [format!("GET {}", path::secret("beta-ca"))]);

    // Somebody deletes the copy, and it is created again before the engine generates another CA.
    world.engine = false;
    world.api.delete(&path::secret("alpha-ca"));
    world.settle().await;
    assert_eq!(world.api.get(&path::secret("alpha-ca")).unwrap()["data"], given);

    let other = create_user_ca(&world, false);
    assert_ne!(other, given);
    world.settle().await;
    assert_eq!(
        world.condition("CertificatesAvailable").1,
        "CertificateAuthorityDiffers"
    );
    assert_eq!(world.condition("Ready").0, "False");
    assert_eq!(
        world.api.get(&path::secret("alpha-ca")).unwrap()["data"],
        given,
        "nodes trust this one"
    );
    world.api.edit(&path::secret("beta-ca"), &json!({"data": given}));
    world.settle().await;
    assert_eq!(world.condition("CertificatesAvailable").0, "True");

    world.api.delete(CONTROL_PLANE);
    world.settle().await;
    let left: Vec<_> = world
        .api
        .objects()
        .iter()
        .map(|object| object["metadata"]["name"].clone())
        .collect();
    assert_eq!(left, ["beta-ca", "beta"], "the user's CA and the Cluster");
}

#[tokio::test]
async fn a_users_ca_that_cannot_be_used_is_read_again() {
    let mut world = World::of("beta", Hosting::Embedded);
    create_user_ca(&world, true);
    world.settle().await;
    assert!(world.api.get(TENANT).is_none());
    assert_eq!(
        world.condition("CertificatesAvailable").1,
        "CertificateAuthorityKeyMismatch"
    );
    let again = reconcile(&world.context, &path::key("alpha")).await;
    assert_eq!(
        again.unwrap(),
        Outcome::Waiting,
        "no watch selects a Secret without a label"
    );
    create_user_ca(&world, false);
    world.context.queue.add(path::key("alpha"));
    world.settle().await;
    assert!(world.initialized());
}

#[tokio::test]
async fn with_upstream_kamaji_no_ca_is_copied_and_no_bootstrap_kubeconfig_is_needed() {
    let mut world = World::of("beta", Hosting::External);
    let mut bare = World::of("alpha", Hosting::External);
    bare.settle().await;
    assert_eq!(bare.condition("Ready").0, "True", "{:#?}", bare.status());
    assert!(bare.secret("alpha-kamaji-bootstrap").is_none());

    create_user_ca(&world, false);
    world.api.edit(
        &path::secret("beta-ca"),
        &json!({"metadata": {"labels": {capi::CLUSTER_NAME: "beta"}}}),
    );
    world.engine = false;
    world.settle().await;
    assert!(world.api.get(TENANT).is_some() && world.secret("alpha-ca").is_none());
}

#[tokio::test]
async fn a_missing_key_of_the_kubeconfig_secret_is_reported() {
    let mut world = World::new();
    world.api.edit(
        CONTROL_PLANE,
        &json!({"metadata": {"annotations": {kamaji::KUBECONFIG_SECRET_KEY: "nope.conf"}}}),
    );
    world.settle().await;
    assert!(!world.initialized());
    let (_, reason, message) = world.condition("KubeadmResourcesCreated");
    assert_eq!(reason, "InvalidSpec");
    assert!(message.contains("it has admin.conf"), "{message}");
}
