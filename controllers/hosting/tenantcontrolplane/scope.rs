//! One reconcile of a tenant whose spec is valid: what every step from the Service on gets.

use k8s_openapi::jiff::Timestamp;
use kamaji_api::{
    conditions::{Reason, TenantControlPlaneCondition as On},
    tenantcontrolplane::TenantControlPlane,
};

use super::{context::Context, validate::Valid};
use crate::k8s::{conditions, key::RootKey};

/// See the module.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// State of the controller.
    pub context: &'a Context,
    /// The TenantControlPlane. It carries the finalizer and the names of schema and user.
    pub tenant: &'a TenantControlPlane,
    /// Its spec.
    pub valid: &'a Valid,
    /// When the reconcile began.
    pub now: Timestamp,
}

impl Scope<'_> {
    /// Namespace and name.
    pub fn key(&self) -> RootKey {
        RootKey::of(self.tenant)
    }

    /// The status reports this condition as `True`, from an earlier reconcile.
    pub fn reports(&self, on: On) -> bool {
        let status = self.tenant.status.as_ref();
        status.is_some_and(|status| conditions::is_true(&status.conditions, on.as_str()))
    }

    /// The status reports that the datastore lost the data of the tenant.
    pub fn misses_data(&self) -> bool {
        let status = self.tenant.status.as_ref();
        let on = On::DataStoreReady.as_str();
        let found = status.and_then(|status| conditions::get(&status.conditions, on));
        let lost = [Reason::DataLost, Reason::DataMissing].map(Reason::as_str);
        found.is_some_and(|found| lost.contains(&found.reason.as_str()))
    }
}
