//! The rights of our ServiceAccounts against the audit log of the lab: every right that is granted was used by some test
//! before, or is listed here with the reason why none does, and no request was refused for lack of one. It is the last suite
//! of the gate; alone, in a lab that is new, it has little to go by.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use e2e::lab::{
    access::Lab,
    audit::{Mark, OURS, Request},
};
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use kube::{Api, ResourceExt as _, api::ListParams};

/// A right of a ServiceAccount.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    /// Name of the ServiceAccount.
    account: String,
    verb: String,
    group: String,
    /// Plural, with subresource.
    resource: String,
    /// Namespace; all if empty.
    namespace: String,
    /// Name of the object; any if empty.
    name: String,
}

impl Right {
    /// This right, granted, is the one that the request needed.
    fn serves(&self, needed: &Self) -> bool {
        let scope = |granted: &str, needed: &str| granted.is_empty() || granted == needed;
        self.account == needed.account
            && self.verb == needed.verb
            && self.group == needed.group
            && self.resource == needed.resource
            && scope(&self.namespace, &needed.namespace)
            && scope(&self.name, &needed.name)
    }
}

/// A right that no test uses: account, verbs, resources, and why it is granted.
type Excuse = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
    &'static str,
);

const CONTROL_PLANE: &str = "capi-kamaji-control-plane";
const BOOTSTRAP: &str = "capi-kamaji-bootstrap";

const EXCUSES: &[Excuse] = &[
    (
        CONTROL_PLANE,
        &["get"],
        &[
            "configmaps",
            "services",
            "deployments",
            "statefulsets",
            "networkpolicies",
            "poddisruptionbudgets",
            "tenantcontrolplanes",
        ],
        "an object that has the name of ours and is not ours is read, to report its owner",
    ),
    (
        BOOTSTRAP,
        &["get"],
        &["configmaps"],
        "files of a KamajiConfig come from ConfigMaps",
    ),
    (
        BOOTSTRAP,
        &["patch"],
        &["secrets"],
        "data Secrets that a restore from a backup stripped of their owner get it again",
    ),
    (
        CONTROL_PLANE,
        &["patch"],
        &["events"],
        "an event that is repeated is counted on the first one",
    ),
    (
        BOOTSTRAP,
        &["patch"],
        &["events"],
        "an event that is repeated is counted on the first one",
    ),
];

/// The right that a request needed.
fn needed(request: &Request) -> Option<Right> {
    let object = request.object_ref.clone()?;
    let account = request.user.username.rsplit(':').next()?.to_owned();
    let resource = match object.subresource.as_str() {
        "" => object.resource,
        subresource => format!("{}/{subresource}", object.resource),
    };
    Some(Right {
        account,
        verb: request.verb.clone(),
        group: object.api_group,
        resource,
        namespace: object.namespace,
        name: object.name,
    })
}

/// The right to create that a request needed: server-side apply of an object that does not exist asks for it.
fn created(request: &Request) -> Option<Right> {
    let made = request
        .response_status
        .as_ref()
        .is_some_and(|status| status.code == 201);
    let right = needed(request)?;
    (made && right.verb == "patch").then(|| Right {
        verb: "create".to_owned(),
        ..right
    })
}

/// The rights of a rule.
fn expand(account: &str, namespace: &str, rule: &PolicyRule) -> Vec<Right> {
    let any = [String::new()];
    let names = rule.resource_names.as_deref().filter(|names| !names.is_empty());
    let mut rights = Vec::new();
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            for verb in &rule.verbs {
                for name in names.unwrap_or(&any) {
                    rights.push(Right {
                        account: account.to_owned(),
                        verb: verb.clone(),
                        group: group.clone(),
                        resource: resource.clone(),
                        namespace: namespace.to_owned(),
                        name: name.clone(),
                    });
                }
            }
        }
    }
    rights
}

/// The excuse is about the right.
fn excuses((account, verbs, resources, _): &Excuse, right: &Right) -> bool {
    *account == right.account
        && verbs.contains(&right.verb.as_str())
        && resources.contains(&right.resource.as_str())
}

/// Rights that were not used, and that nothing excuses.
fn unused(granted: &BTreeSet<Right>, used: &BTreeSet<Right>) -> Vec<Right> {
    let is_used = |right: &Right| used.iter().any(|used| right.serves(used));
    let is_excused = |right: &Right| {
        let Right {
            verb,
            group,
            resource,
            ..
        } = right;
        // The admission plugin OwnerReferencesPermissionEnforcement asks for it.
        let owner = verb == "update" && resource.ends_with("/finalizers");
        // Infrastructure clusters of providers that the lab does not have. The suite `api` hands the endpoint over to each
        // of them with these rights alone.
        let provider =
            group.ends_with("infrastructure.cluster.x-k8s.io") && matches!(verb.as_str(), "get" | "patch");
        owner || provider || EXCUSES.iter().any(|excuse| excuses(excuse, right))
    };
    granted
        .iter()
        .filter(|right| !is_used(right) && !is_excused(right))
        .cloned()
        .collect()
}

/// Our ServiceAccounts among subjects.
fn ours(subjects: &[Subject]) -> impl Iterator<Item = &str> {
    subjects.iter().filter_map(|subject| {
        let namespace = subject.namespace.as_deref()?;
        (subject.kind == "ServiceAccount" && OURS.contains(&namespace)).then_some(subject.name.as_str())
    })
}

/// What all roles that are bound to our ServiceAccounts grant.
async fn granted(lab: &Lab) -> Result<BTreeSet<Right>> {
    let all = ListParams::default();
    let cluster_roles = Api::<ClusterRole>::all(lab.management.clone()).list(&all).await?;
    let namespaced = Api::<Role>::all(lab.management.clone()).list(&all).await?;
    let cluster_roles: BTreeMap<_, _> = cluster_roles
        .into_iter()
        .map(|role| (role.name_any(), role.rules.unwrap_or_default()))
        .collect();
    let namespaced: BTreeMap<_, _> = namespaced
        .into_iter()
        .map(|role| {
            (
                (role.namespace().unwrap_or_default(), role.name_any()),
                role.rules.unwrap_or_default(),
            )
        })
        .collect();
    let granted_by = |role: &RoleRef, namespace: &str| {
        if role.kind == "ClusterRole" {
            cluster_roles.get(&role.name)
        } else {
            namespaced.get(&(namespace.to_owned(), role.name.clone()))
        }
    };
    let mut granted = BTreeSet::new();
    let mut add = |subjects: &[Subject], role: &RoleRef, namespace: &str| {
        for account in ours(subjects) {
            let rules = granted_by(role, namespace).into_iter().flatten();
            granted.extend(rules.flat_map(|rule| expand(account, namespace, rule)));
        }
    };
    for binding in Api::<ClusterRoleBinding>::all(lab.management.clone())
        .list(&all)
        .await?
    {
        add(&binding.subjects.unwrap_or_default(), &binding.role_ref, "");
    }
    for binding in Api::<RoleBinding>::all(lab.management.clone()).list(&all).await? {
        let namespace = binding.namespace().unwrap_or_default();
        add(
            &binding.subjects.unwrap_or_default(),
            &binding.role_ref,
            &namespace,
        );
    }
    Ok(granted)
}

#[tokio::test]
async fn every_right_is_used_and_none_was_missing() -> Result<()> {
    let lab = Lab::open().await?;
    let requests = Mark::start(&lab).all_requests(&OURS).await?;
    let granted = granted(&lab).await?;
    let used = requests.iter().filter_map(needed);
    let used: BTreeSet<Right> = used.chain(requests.iter().filter_map(created)).collect();
    for excuse in EXCUSES {
        let is_granted = granted.iter().any(|right| excuses(excuse, right));
        ensure!(
            is_granted,
            "nothing is granted any more that this excuses: {excuse:?}"
        );
    }
    let wide: Vec<_> = granted
        .iter()
        .filter(|right| {
            [&right.verb, &right.group, &right.resource]
                .iter()
                .any(|part| part.contains('*'))
        })
        .collect();
    ensure!(wide.is_empty(), "rights with a wildcard: {wide:#?}");
    let missing: Vec<_> = requests
        .iter()
        .filter(|request| request.is_forbidden())
        .map(|request| format!("{} {} by {}", request.verb, request.uri, request.user.username))
        .collect();
    ensure!(missing.is_empty(), "refused for lack of a right: {missing:#?}");
    let unused = unused(&granted, &used);
    eprintln!(
        "{} rights are granted, {} different requests were seen, {} rights are unused without a reason",
        granted.len(),
        used.len(),
        unused.len()
    );
    ensure!(unused.is_empty(), "granted and never used: {unused:#?}");
    Ok(())
}

#[test]
fn a_right_that_nothing_uses_is_found() {
    let right = |verb: &str, resource: &str, name: &str| Right {
        account: BOOTSTRAP.to_owned(),
        verb: verb.to_owned(),
        group: String::new(),
        resource: resource.to_owned(),
        namespace: String::new(),
        name: name.to_owned(),
    };
    let granted = BTreeSet::from([
        right("get", "secrets", ""),
        right("delete", "secrets", ""),
        right("get", "configmaps", ""),
        right("get", "namespaces", "kube-system"),
    ]);
    let used = BTreeSet::from([
        right("get", "secrets", "a"),
        right("get", "namespaces", "default"),
    ]);
    assert_eq!(
        unused(&granted, &used),
        [
            right("delete", "secrets", ""),
            right("get", "namespaces", "kube-system")
        ]
    );
}
