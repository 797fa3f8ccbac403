//! RBAC rules of the role `bootstrap`: KamajiConfig, and the bootstrap data Secret of each. Pure data;
//! `cargo xtask components` writes them to `config/rbac`.

use kamaji_api::rbac::{
    EVENTS, Grant,
    Verb::{Create, Get, List, Patch, Update, Watch},
    grant,
    group::{BOOTSTRAP, CAPI, CONTROL_PLANE, CORE},
    verbs::FOLLOW,
};

/// Rules in the management cluster.
pub const RULES: &[Grant] = &[
    grant(BOOTSTRAP, &["kamajiconfigs"], FOLLOW),
    grant(BOOTSTRAP, &["kamajiconfigs/status"], &[Patch]),
    grant(BOOTSTRAP, &["kamajiconfigs/finalizers"], &[Update]),
    grant(CAPI, &["clusters", "machines", "machinepools"], FOLLOW),
    // Versions, and the endpoint for workers.
    grant(CONTROL_PLANE, &["kamajicontrolplanes"], FOLLOW),
    // The data of a Machine is written once, that of a MachinePool when its token is replaced. Their owner is set again after a restore from a backup, without
    // which they outlive their Machine. Who may create and read every Secret gains no power by that: it can have a token
    // of any ServiceAccount made. Referenced files and the kubeconfig that the control plane provider creates are read.
    grant(CORE, &["secrets"], &[Get, List, Watch, Create, Patch]),
    grant(CORE, &["configmaps"], &[Get]),
    EVENTS,
];
