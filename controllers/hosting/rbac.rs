//! RBAC rules of the role `hosting`: TenantControlPlane and DataStore, and the objects that run them. Pure data;
//! `cargo xtask components` writes them to `config/rbac`.

use k8s_openapi::Resource;
use kamaji_api::{
    labels::namespace,
    rbac::{
        EVENTS, Grant, PEER_LEASES,
        Verb::{Create, Get, List, Patch, Update},
        grant,
        group::{CORE, KAMAJI},
        verbs::{self, PART, ROOT},
    },
};

macro_rules! rules {
    ($($kind:path: $how:ident, $verbs:ident;)*) => {
        /// Rules in the management cluster; those of the objects that the engine makes are in the table of
        /// [`kamaji_api::children`].
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
            $(grant(
                <$kind as Resource>::GROUP,
                &[<$kind as Resource>::URL_PATH_SEGMENT],
                verbs::$verbs,
            ),)*
    grant("storage.k8s.io", &["storageclasses"], &[List]),
    // Each API server of a tenant is asked at its pod whether it reaches the nodes.
    grant("discovery.k8s.io", &["endpointslices"], &[List]),
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
    };
}

kamaji_api::child_kinds!(rules);
