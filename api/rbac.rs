//! RBAC rules as data: what a controller declares beside its code, and `cargo xtask components` writes to `config/rbac`.
//! Owns the form of a rule and the sets of verbs that controllers use; each controller owns its rules.
//!
//! Server-side apply that creates an object requires `create` in addition to `patch`. Owner references with
//! `blockOwnerDeletion` require `update` on the `finalizers` of the owner if the admission plugin
//! `OwnerReferencesPermissionEnforcement` is enabled. Children are watched by label, so every applied kind has `list`
//! and `watch`; `get` is only granted where content is read live. No rule allows `escalate`, `bind` or `impersonate`,
//! and none has a wildcard.

/// Verb of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Read one.
    Get,
    /// Read many.
    List,
    /// Follow changes.
    Watch,
    /// Create one, by POST or by apply.
    Create,
    /// Change one, by apply or merge.
    Patch,
    /// Replace one; on `finalizers`, the permission to be an owner that blocks deletion.
    Update,
    /// Delete one.
    Delete,
}

impl Verb {
    /// The verb as RBAC spells it.
    pub const fn as_str(self) -> &'static str {
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

/// A rule: verbs on kinds of one group.
#[derive(Clone, Copy, Debug)]
pub struct Grant {
    /// API group.
    pub group: &'static str,
    /// Plural names, with subresource.
    pub resources: &'static [&'static str],
    /// Names of the objects; any object if empty.
    pub names: &'static [&'static str],
    /// Allowed verbs.
    pub verbs: &'static [Verb],
}

/// A rule for objects of any name.
pub const fn grant(group: &'static str, resources: &'static [&'static str], verbs: &'static [Verb]) -> Grant {
    Grant {
        group,
        resources,
        names: &[],
        verbs,
    }
}

/// Groups of the kinds that controllers use.
pub mod group {
    /// Core kinds.
    pub const CORE: &str = "";
    /// Workloads.
    pub const APPS: &str = "apps";
    /// Cluster API.
    pub const CAPI: &str = crate::labels::capi::GROUP;
    /// KamajiControlPlanes.
    pub const CONTROL_PLANE: &str = "controlplane.cluster.x-k8s.io";
    /// KamajiConfigs.
    pub const BOOTSTRAP: &str = "bootstrap.cluster.x-k8s.io";
    /// TenantControlPlanes and DataStores.
    pub const KAMAJI: &str = crate::labels::kamaji::GROUP;
    /// Leases.
    pub const COORDINATION: &str = "coordination.k8s.io";
    /// Events.
    pub const EVENTS: &str = "events.k8s.io";
    /// Definitions of kinds.
    pub const DEFINITIONS: &str = "apiextensions.k8s.io";
}

/// Sets of verbs that controllers use.
pub mod verbs {
    use super::Verb::{self, Create, Delete, Get, List, Patch, Watch};

    /// Watch objects that others own.
    pub const FOLLOW: &[Verb] = &[List, Watch];
    /// Watch the controller's own kind, and write finalizers and annotations.
    pub const ROOT: &[Verb] = &[List, Watch, Patch];
    /// Create and watch objects that are garbage-collected with their owner.
    pub const PART: &[Verb] = &[List, Watch, Create, Patch];
    /// Create, watch and delete. An object with one of our names but without our label is read, to report its owner.
    pub const CHILD: &[Verb] = &[Get, List, Watch, Create, Patch, Delete];
    /// Create, watch and read; deleted with its owner.
    pub const MEMBER: &[Verb] = &[Get, List, Watch, Create, Patch];
    /// Watch what others create, and become its owner.
    pub const ADOPTED: &[Verb] = &[List, Watch, Patch];
}

/// Events about the controller's objects.
pub const EVENTS: Grant = grant(group::EVENTS, &["events"], &[Verb::Create, Verb::Patch]);

/// A Go engine that holds its Lease, in any namespace, prevents the start. A list by name is a request for that name.
pub const PEER_LEASES: Grant = Grant {
    group: group::COORDINATION,
    resources: &["leases"],
    names: &[
        crate::labels::kamaji::LEASE,
        "kamaji.controlplane.cluster.x-k8s.io",
    ],
    verbs: &[Verb::List],
};
