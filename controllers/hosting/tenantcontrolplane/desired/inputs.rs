//! What the Deployment of a tenant is rendered from. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use kamaji_api::tenantcontrolplane::TenantControlPlane;

use crate::hosting::tenantcontrolplane::{component::CaKeys, validate::Valid};

/// Schema and user of a tenant in its DataStore, as kube-apiserver needs them.
#[derive(Clone, Copy, Debug)]
pub struct Storage<'a> {
    /// Name of the DataStore.
    pub store: &'a str,
    /// Schema: the key prefix in etcd, without slashes.
    pub schema: &'a str,
    /// `host:port` of each member.
    pub endpoints: &'a [String],
}

/// Inputs of [`super::deployment::render`].
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// The TenantControlPlane.
    pub tenant: &'a TenantControlPlane,
    /// Its validated spec.
    pub valid: &'a Valid,
    /// Schema and user in the DataStore.
    pub storage: Storage<'a>,
    /// Address behind the `kubernetes` Service of the workload cluster.
    pub advertise: Option<IpAddr>,
    /// The Secret with the CA that the pods mount.
    pub ca_secret: &'a str,
    /// Which keys it has.
    pub ca_keys: CaKeys,
    /// Digest of the data of each Secret, by component.
    pub hashes: &'a BTreeMap<&'static str, String>,
    /// Digest of the Secret `<tcp>-datastore-config`.
    pub config_hash: &'a str,
}
