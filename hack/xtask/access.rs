//! What each role may do in the management cluster: one table a role, and nothing that its code does not need.
//! Owns rights alone; how they become objects is `components`.
//!
//! Rules behind the tables. Server-side apply that makes an object needs `create` beside `patch`. Owner references
//! with `blockOwnerDeletion` need `update` on the owner's `finalizers` (`OwnerReferencesPermissionEnforcement`).
//! Children are watched by label, so `list` and `watch` belong to every kind that is applied; `get` only where content
//! is read live. Nobody escalates, binds or impersonates, and no rule has a wildcard.
//! Source: contract.md 1.8 and 4.2, infra.md 2c, DESIGN 2.4 and 2.10.

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Read one.
    Get,
    /// Read many.
    List,
    /// Follow changes.
    Watch,
    /// Make one, by POST or by apply.
    Create,
    /// Change one, by apply or merge.
    Patch,
    /// Replace one; on `finalizers` the right to be named as an owner that blocks deletion.
    Update,
    /// Remove one.
    Delete,
}

impl Verb {
    /// Kubernetes' word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Patch => "patch",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

use Verb::{Create, Delete, Get, List, Patch, Update, Watch};

/// Verbs on some kinds of one group.
#[derive(Debug)]
pub struct Grant {
    /// API group.
    pub group: &'static str,
    /// Plural names, with subresource.
    pub resources: &'static [&'static str],
    /// Only objects of these names; any when empty.
    pub names: &'static [&'static str],
    /// What may be done.
    pub verbs: &'static [Verb],
}

const fn grant(group: &'static str, resources: &'static [&'static str], verbs: &'static [Verb]) -> Grant {
    Grant {
        group,
        resources,
        names: &[],
        verbs,
    }
}

const CORE: &str = "";
const APPS: &str = "apps";
const CAPI: &str = kamaji_api::labels::capi::GROUP;
const CONTROL_PLANE: &str = "controlplane.cluster.x-k8s.io";
const BOOTSTRAP: &str = "bootstrap.cluster.x-k8s.io";
const KAMAJI: &str = kamaji_api::labels::kamaji::GROUP;
const COORDINATION: &str = "coordination.k8s.io";

/// Follow: the watch brings the whole object.
const FOLLOW: &[Verb] = &[List, Watch];
/// Follow, and write the finalizer or an annotation.
const ROOT: &[Verb] = &[List, Watch, Patch];
/// Make and follow; it goes with its owner.
const PART: &[Verb] = &[List, Watch, Create, Patch];
/// Make, follow and remove. What has one of our names without our label is read: whose it is.
const CHILD: &[Verb] = &[Get, List, Watch, Create, Patch, Delete];

/// The role `control-plane`: KamajiControlPlane → TenantControlPlane and back.
pub const CONTROL_PLANE_ROLE: &[Grant] = &[
    grant(CONTROL_PLANE, &["kamajicontrolplanes"], ROOT),
    grant(CONTROL_PLANE, &["kamajicontrolplanes/status"], &[Patch]),
    grant(CONTROL_PLANE, &["kamajicontrolplanes/finalizers"], &[Update]),
    grant(KAMAJI, &["tenantcontrolplanes"], CHILD),
    // Machines and pools: a control plane outlives its workers.
    grant(CAPI, &["clusters", "machines", "machinepools"], FOLLOW),
    // `<cluster>-kubeconfig` and `<cluster>-ca`; the admin kubeconfig and a user's CA are read.
    grant(CORE, &["secrets"], CHILD),
    grant("events.k8s.io", &["events"], &[Create, Patch]),
    PEERS,
];

/// The role `hosting`: TenantControlPlane and DataStore → what runs.
pub const HOSTING_ROLE: &[Grant] = &[
    grant(KAMAJI, &["tenantcontrolplanes"], ROOT),
    // The DataStore `default` is made where `--default-datastore=managed` asks for it.
    grant(KAMAJI, &["datastores"], PART),
    grant(
        KAMAJI,
        &["tenantcontrolplanes/status", "datastores/status"],
        &[Patch],
    ),
    grant(
        KAMAJI,
        &["tenantcontrolplanes/finalizers", "datastores/finalizers"],
        &[Update],
    ),
    // Key material of tenants and stores; what DataStores and users refer to is read by name.
    grant(CORE, &["secrets"], CHILD),
    grant(CORE, &["services"], CHILD),
    grant(APPS, &["deployments"], CHILD),
    // Members of managed DataStores.
    grant(APPS, &["statefulsets"], &[Get, List, Watch, Create, Patch]),
    grant("networking.k8s.io", &["networkpolicies"], CHILD),
    grant("policy", &["poddisruptionbudgets"], CHILD),
    // Claims of managed DataStores, which their StatefulSets make: whether they are bound, and who owns them.
    grant(CORE, &["persistentvolumeclaims"], &[List, Watch, Patch]),
    // Why the pods of control planes and members do not come up.
    grant(CORE, &["pods"], FOLLOW),
    grant("storage.k8s.io", &["storageclasses"], &[List]),
    Grant {
        group: CORE,
        resources: &["namespaces"],
        names: &[kamaji_api::labels::namespace::DATASTORES],
        verbs: &[Create, Patch],
    },
    // Its UID tells management clusters apart in a store's ownership mark.
    Grant {
        group: CORE,
        resources: &["namespaces"],
        names: &["kube-system"],
        verbs: &[Get],
    },
    grant("events.k8s.io", &["events"], &[Create, Patch]),
    PEERS,
];

/// The role `bootstrap`: KamajiConfig → bootstrap data, and the admission of nodes.
pub const BOOTSTRAP_ROLE: &[Grant] = &[
    grant(BOOTSTRAP, &["kamajiconfigs"], ROOT),
    grant(BOOTSTRAP, &["kamajiconfigs/status"], &[Patch]),
    grant(BOOTSTRAP, &["kamajiconfigs/finalizers"], &[Update]),
    grant(CAPI, &["clusters", "machines"], FOLLOW),
    // Versions and the address for workers.
    grant(CONTROL_PLANE, &["kamajicontrolplanes"], FOLLOW),
    // Data Secrets are made once and never changed; staged files and the identity in the tenant, which the control
    // plane side makes, are read.
    grant(CORE, &["secrets"], &[Get, List, Watch, Create]),
    grant(CORE, &["configmaps"], &[Get]),
    grant("events.k8s.io", &["events"], &[Create, Patch]),
];

/// For Cluster API's kubeadm bootstrap provider: it reads the control plane of the workers it prepares.
pub const KUBEADM_READS: &[Grant] = &[grant(CONTROL_PLANE, &["kamajicontrolplanes"], &[Get])];

/// A held lease of a Go engine, in whatever namespace, forbids the start. A list by name is a request for that name.
const PEERS: Grant = Grant {
    group: COORDINATION,
    resources: &["leases"],
    names: &[
        kamaji_api::labels::kamaji::LEASE,
        "kamaji.controlplane.cluster.x-k8s.io",
    ],
    verbs: &[List],
};

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = &'static Grant> {
        [CONTROL_PLANE_ROLE, HOSTING_ROLE, BOOTSTRAP_ROLE, KUBEADM_READS]
            .into_iter()
            .flatten()
    }

    #[test]
    fn no_rule_has_a_wildcard_or_lets_rights_grow() {
        for grant in all() {
            assert!(!grant.group.contains('*'), "{grant:?}");
            assert!(!grant.resources.iter().any(|r| r.contains('*')), "{grant:?}");
            assert!(grant.group != "rbac.authorization.k8s.io", "{grant:?}");
        }
    }

    #[test]
    fn contract_27_every_kind_that_owns_children_lets_its_role_update_finalizers() {
        for (role, owners) in [
            (CONTROL_PLANE_ROLE, &["kamajicontrolplanes"][..]),
            (HOSTING_ROLE, &["tenantcontrolplanes", "datastores"]),
            (BOOTSTRAP_ROLE, &["kamajiconfigs"]),
        ] {
            for owner in owners {
                let name = format!("{owner}/finalizers");
                let may =
                    |grant: &Grant| grant.resources.contains(&name.as_str()) && grant.verbs.contains(&Update);
                assert!(role.iter().any(may), "{name}");
            }
        }
    }

    #[test]
    fn roles_cannot_touch_what_belongs_to_another() {
        let may = |role: &[Grant], resource: &str| {
            role.iter().any(|g| {
                g.resources.contains(&resource) && g.verbs.iter().any(|v| ![Get, List, Watch].contains(v))
            })
        };
        assert!(!may(BOOTSTRAP_ROLE, "tenantcontrolplanes"));
        assert!(!may(BOOTSTRAP_ROLE, "kamajicontrolplanes"));
        assert!(!may(HOSTING_ROLE, "kamajicontrolplanes"));
        assert!(!may(CONTROL_PLANE_ROLE, "deployments"));
        for watched in ["clusters", "machines", "machinepools", "pods", "storageclasses"] {
            assert!(!all().any(|g| may(std::slice::from_ref(g), watched)), "{watched}");
        }
    }

    #[test]
    fn what_is_applied_may_be_created() {
        for grant in all().filter(|g| g.verbs.contains(&Delete) && g.verbs.contains(&Patch)) {
            assert!(grant.verbs.contains(&Create), "{grant:?}");
        }
    }
}
