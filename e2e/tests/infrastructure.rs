//! The local infrastructure provider boots machines from what the product generated, and can read nothing else of it.
//! Needs a lab with a cluster (`hack/quickstart`); only reads it.

use std::collections::BTreeSet;

use anyhow::Result;
use e2e::{
    infra::{capi, names},
    lab::{access::Lab, audit::Mark, clusters::QUICKSTART},
};
use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    core::v1::Secret,
};
use kube::{
    Client, ResourceExt as _,
    api::{Api, DynamicObject, ListParams, PostParams},
};

fn account(name: &str) -> String {
    format!("system:serviceaccount:{}:{name}", names::NAMESPACE)
}

async fn allowed(
    client: &Client,
    account: &str,
    verb: &str,
    group: &str,
    resource: &str,
    name: &str,
) -> Result<bool> {
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(account.to_owned()),
            resource_attributes: Some(ResourceAttributes {
                verb: Some(verb.to_owned()),
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                namespace: Some(QUICKSTART.namespace.clone()),
                name: (!name.is_empty()).then(|| name.to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let answer = Api::all(client.clone())
        .create(&PostParams::default(), &review)
        .await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

#[tokio::test]
async fn the_provider_cannot_read_what_bootstrap_data_is_made_from() -> Result<()> {
    let lab = Lab::open().await?;
    let provider = account(names::PROVIDER);
    let kubeconfig = format!("{}-kubeconfig", QUICKSTART.name);
    let ca = format!("{}-ca", QUICKSTART.name);
    for (verb, group, resource, name) in [
        ("get", "bootstrap.cluster.x-k8s.io", "kamajiconfigs", ""),
        ("list", "bootstrap.cluster.x-k8s.io", "kamajiconfigs", ""),
        ("get", "kamaji.clastix.io", "tenantcontrolplanes", ""),
        ("get", "kamaji.clastix.io", "datastores", ""),
        ("get", "controlplane.cluster.x-k8s.io", "kamajicontrolplanes", ""),
        ("get", "", "secrets", &kubeconfig),
        ("get", "", "secrets", &ca),
        ("get", "", "secrets", ""),
        ("list", "", "secrets", ""),
        ("watch", "", "secrets", ""),
        ("create", "", "pods", ""),
        ("create", "rbac.authorization.k8s.io", "rolebindings", ""),
        ("impersonate", "", "serviceaccounts", ""),
    ] {
        let answer = allowed(&lab.management, &provider, verb, group, resource, name).await?;
        assert!(!answer, "{provider} may {verb} {resource} {name}");
    }
    assert!(
        allowed(
            &lab.management,
            &provider,
            "patch",
            "infrastructure.cluster.x-k8s.io",
            "localmachines",
            ""
        )
        .await?
    );
    Ok(())
}

#[tokio::test]
async fn the_provider_has_read_bootstrap_secrets_alone_and_its_right_ended_with_the_boot() -> Result<()> {
    let lab = Lab::open().await?;
    let machines: Api<DynamicObject> = Api::all_with(lab.management.clone(), &capi::machines());
    let machines = machines.list(&ListParams::default()).await?.items;
    let data: BTreeSet<String> = machines
        .iter()
        .filter_map(capi::data_secret)
        .map(str::to_owned)
        .collect();
    assert!(!data.is_empty(), "no Machine has bootstrap data");

    let provider = account(names::PROVIDER);
    let mut read = BTreeSet::new();
    for request in Mark::start(&lab).requests(&[names::NAMESPACE]).await? {
        let Some(object) = request.object_ref.filter(|object| object.resource == "secrets") else {
            continue;
        };
        assert_eq!(
            request.user.username, provider,
            "{} asked for Secret {}",
            request.user.username, object.name
        );
        assert_eq!(request.verb, "get", "of Secrets in {}", object.namespace);
        if request.response_status.is_some_and(|status| status.code == 200) {
            read.insert((object.namespace, object.name));
        }
    }
    assert!(
        !read.is_empty(),
        "the audit log shows no bootstrap Secret being read"
    );
    for (namespace, name) in read.into_iter().filter(|(_, name)| !data.contains(name)) {
        // Data of a Machine that is gone went with it; whatever is still there was none.
        let found = Api::<Secret>::namespaced(lab.management.clone(), &namespace)
            .get_opt(&name)
            .await?;
        assert!(found.is_none(), "{provider} has read Secret {namespace}/{name}");
    }
    let booted: Vec<_> = machines
        .iter()
        .filter(|machine| capi::infrastructure_provisioned(machine))
        .collect();
    assert!(!booted.is_empty(), "no Machine has booted");
    for machine in booted {
        let secret = capi::data_secret(machine).unwrap_or_default();
        let still = allowed(&lab.management, &provider, "get", "", "secrets", secret).await?;
        assert!(
            !still,
            "the right to read the data of {} has outlived its boot",
            machine.name_any()
        );
    }
    Ok(())
}
