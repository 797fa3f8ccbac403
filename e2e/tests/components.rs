//! The manifests in `config/` on a real API server: every object is accepted unchanged, and the RBAC rules allow what
//! the
//! controllers need and nothing else.

use std::{fs, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use capi_kamaji::{
    runtime::{leader::Candidate, peers::refuse_beside},
    settings::RoleName,
};
use e2e::{
    apiserver::{Options, TestApiServer},
    objects,
};
use k8s_openapi::{
    api::{
        authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
        coordination::v1::Lease,
        core::v1::Secret,
        rbac::v1::ClusterRole,
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kamaji_api::labels::namespace;
use kube::{
    Client, ResourceExt as _,
    api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    config::Config,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const CONTROL_PLANE: &str =
    "system:serviceaccount:capi-kamaji-control-plane-system:capi-kamaji-control-plane";
const BOOTSTRAP: &str = "system:serviceaccount:capi-kamaji-bootstrap-system:capi-kamaji-bootstrap";
const KUBEADM: &str = "system:serviceaccount:capi-kubeadm-bootstrap-system:capi-kubeadm-bootstrap-manager";

/// Who, verb, group/resource, name, namespace; empty where it is left open.
type Attempt = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

const ALLOWED: &[Attempt] = &[
    (
        CONTROL_PLANE,
        "patch",
        "controlplane.cluster.x-k8s.io/kamajicontrolplanes/status",
        "",
        "x",
    ),
    (
        CONTROL_PLANE,
        "create",
        "kamaji.clastix.io/tenantcontrolplanes",
        "",
        "x",
    ),
    (CONTROL_PLANE, "create", "kamaji.clastix.io/datastores", "", ""),
    (CONTROL_PLANE, "create", "/namespaces", namespace::DATASTORES, ""),
    (CONTROL_PLANE, "get", "/namespaces", "kube-system", ""),
    (CONTROL_PLANE, "patch", "/configmaps", "", "x"),
    (
        CONTROL_PLANE,
        "get",
        "apiextensions.k8s.io/customresourcedefinitions",
        "x",
        "",
    ),
    (
        CONTROL_PLANE,
        "get",
        "infrastructure.cluster.x-k8s.io/awsclusters",
        "x",
        "x",
    ),
    (
        CONTROL_PLANE,
        "patch",
        "infrastructure.cluster.x-k8s.io/awsclusters",
        "x",
        "x",
    ),
    (
        CONTROL_PLANE,
        "get",
        "infrastructure.cluster.x-k8s.io/metal3clusters",
        "x",
        "x",
    ),
    (
        CONTROL_PLANE,
        "patch",
        "infrastructure.cluster.x-k8s.io/kubevirtclusters/status",
        "x",
        "x",
    ),
    (
        CONTROL_PLANE,
        "patch",
        "vmware.infrastructure.cluster.x-k8s.io/vsphereclusters",
        "x",
        "x",
    ),
    (
        CONTROL_PLANE,
        "list",
        "coordination.k8s.io/leases",
        "kamaji.clastix.io",
        "",
    ),
    (
        CONTROL_PLANE,
        "patch",
        "coordination.k8s.io/leases",
        "capi-kamaji-hosting",
        namespace::CONTROL_PLANE,
    ),
    (BOOTSTRAP, "watch", "cluster.x-k8s.io/machines", "", ""),
    (BOOTSTRAP, "watch", "cluster.x-k8s.io/machinepools", "", ""),
    (BOOTSTRAP, "create", "/secrets", "", "x"),
    // Of a data Secret that a restore from a backup stripped of its owner.
    (BOOTSTRAP, "patch", "/secrets", "", "x"),
    (
        BOOTSTRAP,
        "patch",
        "coordination.k8s.io/leases",
        "capi-kamaji-bootstrap",
        namespace::BOOTSTRAP,
    ),
    (
        KUBEADM,
        "get",
        "controlplane.cluster.x-k8s.io/kamajicontrolplanes",
        "x",
        "x",
    ),
];

const DENIED: &[Attempt] = &[
    (CONTROL_PLANE, "create", "/namespaces", "another", ""),
    (
        CONTROL_PLANE,
        "list",
        "apiextensions.k8s.io/customresourcedefinitions",
        "",
        "",
    ),
    (
        CONTROL_PLANE,
        "patch",
        "apiextensions.k8s.io/customresourcedefinitions",
        "x",
        "",
    ),
    (
        CONTROL_PLANE,
        "create",
        "infrastructure.cluster.x-k8s.io/awsclusters",
        "",
        "x",
    ),
    (
        CONTROL_PLANE,
        "list",
        "infrastructure.cluster.x-k8s.io/awsclusters",
        "",
        "",
    ),
    (
        CONTROL_PLANE,
        "update",
        "infrastructure.cluster.x-k8s.io/awsclusters",
        "x",
        "x",
    ),
    (
        CONTROL_PLANE,
        "delete",
        "infrastructure.cluster.x-k8s.io/awsclusters",
        "x",
        "x",
    ),
    (
        CONTROL_PLANE,
        "patch",
        "infrastructure.cluster.x-k8s.io/awsclusters/status",
        "x",
        "x",
    ),
    (
        CONTROL_PLANE,
        "patch",
        "infrastructure.cluster.x-k8s.io/metal3clusters",
        "x",
        "x",
    ),
    (
        CONTROL_PLANE,
        "patch",
        "infrastructure.cluster.x-k8s.io/awsclusterstaticidentities",
        "x",
        "",
    ),
    (
        CONTROL_PLANE,
        "patch",
        "infrastructure.cluster.x-k8s.io/awsmachinetemplates",
        "x",
        "x",
    ),
    (
        CONTROL_PLANE,
        "get",
        "infrastructure.cluster.x-k8s.io/harvesterclusters",
        "x",
        "x",
    ),
    (
        BOOTSTRAP,
        "get",
        "infrastructure.cluster.x-k8s.io/awsclusters",
        "x",
        "x",
    ),
    (CONTROL_PLANE, "delete", "/namespaces", namespace::DATASTORES, ""),
    (CONTROL_PLANE, "patch", "cluster.x-k8s.io/clusters", "", "x"),
    (
        CONTROL_PLANE,
        "get",
        "bootstrap.cluster.x-k8s.io/kamajiconfigs",
        "",
        "x",
    ),
    (CONTROL_PLANE, "list", "coordination.k8s.io/leases", "", ""),
    (
        CONTROL_PLANE,
        "patch",
        "coordination.k8s.io/leases",
        "kamaji.clastix.io",
        "kamaji-system",
    ),
    (CONTROL_PLANE, "create", "/pods", "", "x"),
    (CONTROL_PLANE, "delete", "apps/statefulsets", "", "x"),
    (CONTROL_PLANE, "get", "cluster.x-k8s.io/clusters", "", "x"),
    (BOOTSTRAP, "update", "/secrets", "", "x"),
    (BOOTSTRAP, "delete", "/secrets", "", "x"),
    (
        CONTROL_PLANE,
        "escalate",
        "rbac.authorization.k8s.io/clusterroles",
        "",
        "",
    ),
    (BOOTSTRAP, "get", "kamaji.clastix.io/tenantcontrolplanes", "", "x"),
    (
        BOOTSTRAP,
        "patch",
        "controlplane.cluster.x-k8s.io/kamajicontrolplanes",
        "",
        "x",
    ),
    (BOOTSTRAP, "create", "apps/deployments", "", "x"),
    (
        BOOTSTRAP,
        "patch",
        "coordination.k8s.io/leases",
        "capi-kamaji-hosting",
        namespace::CONTROL_PLANE,
    ),
    (
        KUBEADM,
        "list",
        "controlplane.cluster.x-k8s.io/kamajicontrolplanes",
        "",
        "x",
    ),
];

/// A server with the components, which requires permissions on an owner to block its deletion.
async fn installed() -> Result<Option<Arc<TestApiServer>>> {
    let options = Options {
        emulated_version: Some("1.33"),
        arguments: vec!["--enable-admission-plugins=OwnerReferencesPermissionEnforcement".to_owned()],
        ..Options::default()
    };
    let Some(server) = TestApiServer::shared(&options).await? else {
        return Ok(None);
    };
    let client = server.client()?;
    for object in sources()? {
        apply(&client, &object)
            .await
            .with_context(|| format!("{} {}", object["kind"], object["metadata"]["name"]))?;
    }
    aggregate(&client).await?;
    Ok(Some(server))
}

/// What kube-controller-manager does: adds the rules of labelled roles to those that aggregate them.
async fn aggregate(client: &Client) -> Result<()> {
    let roles: Api<ClusterRole> = Api::all(client.clone());
    let all = roles.list(&ListParams::default()).await?.items;
    for role in all.iter().filter(|role| {
        role.metadata
            .name
            .as_deref()
            .is_some_and(|name| name.contains("infra-endpoint"))
    }) {
        let aggregation = role.aggregation_rule.as_ref().context("no aggregationRule")?;
        let selector = aggregation
            .cluster_role_selectors
            .iter()
            .flatten()
            .find_map(|selector| selector.match_labels.as_ref());
        let selector = selector.context("no selector")?;
        let selected = all.iter().filter(|other| {
            selector
                .iter()
                .all(|(key, value)| other.labels().get(key) == Some(value))
        });
        let sum: Vec<_> = selected.flat_map(|other| other.rules.iter().flatten()).collect();
        ensure!(sum.len() > 20, "{} rules", sum.len());
        let params = PatchParams::default();
        roles
            .patch(&role.name_any(), &params, &Patch::Merge(json!({ "rules": sum })))
            .await?;
    }
    Ok(())
}

/// Objects of `config/manager` and `config/rbac`; namespaces come first.
fn sources() -> Result<Vec<Value>> {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    let mut all = Vec::new();
    for folder in ["manager", "rbac"] {
        for provider in ["control-plane", "bootstrap"] {
            let text = fs::read_to_string(config.join(folder).join(format!("{provider}.yaml")))?;
            all.extend(objects::documents(&text)?);
        }
    }
    Ok(all)
}

async fn apply(client: &Client, object: &Value) -> kube::Result<DynamicObject> {
    objects::apply(client, object, "clusterctl", false).await
}

/// Whether `user` may do `verb` on `group/resource`, with this name and namespace if they are not empty.
async fn may(
    client: &Client,
    user: &str,
    verb: &str,
    resource: &str,
    name: &str,
    within: &str,
) -> Result<bool> {
    let (group, resource) = resource.split_once('/').context("group/resource")?;
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(user.to_owned()),
            resource_attributes: Some(ResourceAttributes {
                verb: said(verb),
                group: said(group),
                resource: said(resource),
                subresource: said(subresource),
                name: said(name),
                namespace: said(within),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let answer = Api::<SubjectAccessReview>::all(client.clone())
        .create(&PostParams::default(), &review)
        .await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

#[tokio::test]
async fn every_object_is_taken_as_it_is_written() -> Result<()> {
    let Some(server) = installed().await? else {
        return Ok(());
    };
    // A second time changes nothing: defaults of the server are not fought over.
    let client = server.client()?;
    for object in sources()? {
        let first = apply(&client, &object).await?;
        let second = apply(&client, &object).await?;
        assert_eq!(first.resource_version(), second.resource_version(), "{object}");
    }
    Ok(())
}

#[tokio::test]
async fn rights_reach_as_far_as_they_must_and_no_farther() -> Result<()> {
    let Some(server) = installed().await? else {
        return Ok(());
    };
    let client = server.client()?;
    for &(user, verb, resource, name, within) in ALLOWED {
        assert!(
            may(&client, user, verb, resource, name, within).await?,
            "{user} must {verb} {resource} {name}"
        );
    }
    for &(user, verb, resource, name, within) in DENIED {
        assert!(
            !may(&client, user, verb, resource, name, within).await?,
            "{user} may {verb} {resource} {name}"
        );
    }
    Ok(())
}

/// A client that acts as one of the ServiceAccounts.
fn acting_as(server: &TestApiServer, user: &str) -> Result<Client> {
    let mut config: Config = server.config()?;
    config.auth_info.impersonate = Some(user.to_owned());
    Ok(Client::try_from(config)?)
}

#[tokio::test]
async fn contract_27_children_that_block_their_owners_deletion_can_be_made() -> Result<()> {
    let Some(server) = installed().await? else {
        return Ok(());
    };
    server.namespace("owners").await?;
    let child = |owner: (&str, &str), name: &str| -> Result<Secret> {
        Ok(serde_json::from_value(json!({
            "metadata": {
                "name": name,
                "ownerReferences": [{
                    "apiVersion": owner.0, "kind": owner.1, "name": "x",
                    "uid": "00000000-0000-0000-0000-000000000001", "controller": true, "blockOwnerDeletion": true,
                }],
            },
        }))?)
    };
    let control_plane = ("controlplane.cluster.x-k8s.io/v1alpha2", "KamajiControlPlane");
    let tenant = ("kamaji.clastix.io/v1alpha1", "TenantControlPlane");
    let config = ("bootstrap.cluster.x-k8s.io/v1alpha1", "KamajiConfig");
    for (number, user, owner, made) in [
        (0, CONTROL_PLANE, control_plane, true),
        (1, CONTROL_PLANE, tenant, true),
        (2, BOOTSTRAP, config, true),
        (3, BOOTSTRAP, tenant, false),
        (4, CONTROL_PLANE, config, false),
    ] {
        let secrets: Api<Secret> = Api::namespaced(acting_as(&server, user)?, "owners");
        let name = format!("child-{number}");
        let answer = secrets
            .create(&PostParams::default(), &child(owner, &name)?)
            .await;
        assert_eq!(answer.is_ok(), made, "{user} under {}: {answer:?}", owner.1);
    }
    Ok(())
}

#[tokio::test]
async fn a_lease_is_taken_given_back_and_taken_over_with_these_rights() -> Result<()> {
    let Some(server) = installed().await? else {
        return Ok(());
    };
    let client = acting_as(&server, CONTROL_PLANE)?;
    let candidate = |identity: &str| {
        Candidate::new(
            client.clone(),
            namespace::CONTROL_PLANE,
            "capi-kamaji-hosting",
            identity,
        )
    };
    let stop = CancellationToken::new();
    for identity in ["first", "second"] {
        let held = candidate(identity).acquire(&stop).await?.context("stopped")?;
        let next = candidate("next");
        let wait = tokio::time::timeout(Duration::from_secs(1), next.acquire(&stop));
        assert!(wait.await.is_err(), "{identity} holds it");
        // Beyond the first renewal.
        let work = async {
            tokio::time::sleep(Duration::from_secs(11)).await;
            Ok(())
        };
        held.during(work).await?;
    }
    let elsewhere = Candidate::new(client.clone(), "nowhere", "capi-kamaji-hosting", "lost");
    let Err(error) = elsewhere.acquire(&stop).await else {
        anyhow::bail!("a lease in no namespace");
    };
    assert!(error.to_string().contains("--lease-namespace"), "{error:#}");
    Ok(())
}

#[tokio::test]
async fn a_peer_that_holds_its_lease_in_any_namespace_is_refused_until_it_stops() -> Result<()> {
    let Some(server) = installed().await? else {
        return Ok(());
    };
    server.namespace("elsewhere").await?;
    let leases = Api::<Lease>::namespaced(server.client()?, "elsewhere");
    let client = acting_as(&server, CONTROL_PLANE)?;
    for (role, name, untouched) in [
        (RoleName::Hosting, "kamaji.clastix.io", RoleName::ControlPlane),
        (
            RoleName::ControlPlane,
            "kamaji.controlplane.cluster.x-k8s.io",
            RoleName::Hosting,
        ),
    ] {
        refuse_beside(role, &client).await?;
        let lease: Lease = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": {
                "holderIdentity": "operator-0", "leaseDurationSeconds": 3600,
                "renewTime": MicroTime(Timestamp::now()),
            },
        }))?;
        leases.create(&PostParams::default(), &lease).await?;
        let refusal = refuse_beside(role, &client).await.err().context("not refused")?;
        let said = refusal.to_string();
        for part in [
            &format!("lease elsewhere/{name} is held by operator-0"),
            "stop it (scale its Deployment to 0)",
        ] {
            assert!(said.contains(part), "«{part}» is missing in: {said}");
        }
        // Only who would fight with it is refused.
        for other in [untouched, RoleName::Bootstrap] {
            refuse_beside(other, &client).await?;
        }
        let given_back = Patch::Merge(json!({ "spec": { "holderIdentity": "" } }));
        leases.patch(name, &PatchParams::default(), &given_back).await?;
        refuse_beside(role, &client).await?;
    }
    Ok(())
}
