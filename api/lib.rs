//! Types, conditions, reasons and contract constants of capi-kamaji: no client, no I/O.
//!
//! - [`tenantcontrolplane`], [`datastore`]: kamaji.clastix.io/v1alpha1, the hosting engine's API
//! - [`controlplane`]: controlplane.cluster.x-k8s.io/v1alpha2, the control plane provider's API
//! - [`bootstrap`]: bootstrap.cluster.x-k8s.io/v1alpha1, the bootstrap provider's API
//! - [`conditions`], [`labels`]: every name that other programs look up
//! - [`unsupported`]: fields that are accepted but have no effect yet
//! - [`rbac`]: the form of RBAC rules, which each controller declares
//! - [`quirks`]: what is special about the infrastructure kinds of known providers
//! - [`presets`]: what is special about the machines of known infrastructures
//! - [`kubelets`]: which fields and feature gates the kubelets of each minor version know
//! - [`children`]: the kinds of Kubernetes that the engine makes, with what it may do with each
//! - [`schema`]: schemas and rules that several types share
//! - [`crd`]: the custom resource definitions

#![expect(
    clippy::duplicated_attributes,
    reason = "printer columns of one kind repeat their type"
)]

mod named;

pub mod addons;
pub mod admission;
pub mod bootstrap;
pub mod children;
pub mod conditions;
pub mod controlplane;
pub mod crd;
pub mod datastore;
pub mod gateway;
pub mod kubelet;
pub mod kubelets;
pub mod labels;
pub mod metadata;
pub mod pod;
pub mod presets;
pub mod probes;
pub mod quirks;
pub mod rbac;
pub mod schema;
pub mod service;
pub mod tenantcontrolplane;
pub mod unsupported;
