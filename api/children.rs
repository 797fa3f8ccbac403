//! The kinds of Kubernetes that the hosting engine's objects are made of, in one table: what is watched of each, and
//! what the engine may do with it.
//!
//! Everything that has to know each of them is generated from the table: the watches, the rows of the index, the RBAC
//! rules, and the watches of the convergence tests. A new kind is one line here. One of which more than the metadata is
//! read (`full`) also needs facts (`Observed` in `controllers/k8s/child.rs`), without which it does not compile.

/// Calls the macro `$then` with the table. A line is the type, `metadata` or `full`, and a set of verbs of
/// [`crate::rbac::verbs`].
#[macro_export]
macro_rules! child_kinds {
    ($then:ident) => {
        $then! {
            // Key material of tenants and DataStores. Secrets that DataStores and users refer to are read by name.
            k8s_openapi::api::core::v1::Secret: metadata, CHILD;
            // Configuration that hosted components read.
            k8s_openapi::api::core::v1::ConfigMap: metadata, CHILD;
            k8s_openapi::api::core::v1::Service: full, CHILD;
            k8s_openapi::api::apps::v1::Deployment: full, CHILD;
            // Members of managed DataStores.
            k8s_openapi::api::apps::v1::StatefulSet: full, MEMBER;
            k8s_openapi::api::networking::v1::NetworkPolicy: metadata, CHILD;
            k8s_openapi::api::policy::v1::PodDisruptionBudget: metadata, CHILD;
            // Claims of managed DataStores, which their StatefulSets create: whether they are bound, and their owners.
            k8s_openapi::api::core::v1::PersistentVolumeClaim: full, ADOPTED;
            // The reason why pods of control planes and members do not become ready.
            k8s_openapi::api::core::v1::Pod: full, FOLLOW;
        }
    };
}
