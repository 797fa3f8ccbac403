//! RBAC rules of the role `hosting`: TenantControlPlane and DataStore, and the objects that run them. Pure data;
//! `cargo xtask components` writes them to `config/rbac`.

use kamaji_api::{
    labels::namespace,
    rbac::{
        EVENTS, Grant, PEER_LEASES,
        Verb::{Create, Get, List, Patch, Update, Watch},
        grant,
        group::{APPS, CORE, KAMAJI},
        verbs::{CHILD, FOLLOW, PART, ROOT},
    },
};

/// Rules in the management cluster.
pub const RULES: &[Grant] = &[
    grant(KAMAJI, &["tenantcontrolplanes"], ROOT),
    // `--default-datastore=managed` creates the DataStore `default`.
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
    // Key material of tenants and DataStores. Secrets that DataStores and users refer to are read by name.
    grant(CORE, &["secrets"], CHILD),
    grant(CORE, &["services"], CHILD),
    grant(APPS, &["deployments"], CHILD),
    // Members of managed DataStores.
    grant(APPS, &["statefulsets"], &[Get, List, Watch, Create, Patch]),
    grant("networking.k8s.io", &["networkpolicies"], CHILD),
    grant("policy", &["poddisruptionbudgets"], CHILD),
    // Claims of managed DataStores, which their StatefulSets create: whether they are bound, and their owner references.
    grant(CORE, &["persistentvolumeclaims"], &[List, Watch, Patch]),
    // The reason why pods of control planes and members do not become ready.
    grant(CORE, &["pods"], FOLLOW),
    grant("storage.k8s.io", &["storageclasses"], &[List]),
    Grant {
        group: CORE,
        resources: &["namespaces"],
        names: &[namespace::DATASTORES],
        verbs: &[Create, Patch],
    },
    // Its UID identifies the management cluster in the ownership mark of a DataStore.
    Grant {
        group: CORE,
        resources: &["namespaces"],
        names: &["kube-system"],
        verbs: &[Get],
    },
    EVENTS,
    PEER_LEASES,
];
