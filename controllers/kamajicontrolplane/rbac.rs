//! RBAC rules of the role `control-plane`: KamajiControlPlane, and the TenantControlPlane and Secrets of each. Pure data;
//! `cargo xtask components` writes them to `config/rbac`.

use kamaji_api::rbac::{
    EVENTS, Grant, PEER_LEASES,
    Verb::{Get, Patch, Update},
    grant,
    group::{CAPI, CONTROL_PLANE, CORE, DEFINITIONS, KAMAJI},
    verbs::{CHILD, FOLLOW, ROOT},
};

/// Rules in the management cluster.
pub const RULES: &[Grant] = &[
    grant(CONTROL_PLANE, &["kamajicontrolplanes"], ROOT),
    grant(CONTROL_PLANE, &["kamajicontrolplanes/status"], &[Patch]),
    grant(CONTROL_PLANE, &["kamajicontrolplanes/finalizers"], &[Update]),
    grant(KAMAJI, &["tenantcontrolplanes"], CHILD),
    // A control plane is deleted after its Machines.
    grant(CAPI, &["clusters", "machines", "machinepools"], FOLLOW),
    // `<cluster>-kubeconfig` and `<cluster>-ca`. The admin kubeconfig and a CA of the user are read.
    grant(CORE, &["secrets"], CHILD),
    // Which contract an infrastructure kind follows. The right to its objects comes by aggregation.
    grant(DEFINITIONS, &["customresourcedefinitions"], &[Get]),
    EVENTS,
    PEER_LEASES,
];
