//! What a pass saw of a tenant, step by step: what its status is made from.

use std::sync::Arc;

use kamaji_api::conditions::Reason;

use super::certificates::Certificates;
use super::endpoint::Endpoint;
use super::problem::Problem;
use super::storage::Names;
use super::validate::Valid;
use crate::hosting::datastore::driver::Access;
use crate::k8s::row::Row;

/// The tenant's place in the datastore, made.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Name of the DataStore.
    pub store: String,
    /// Names in it.
    pub names: Names,
    /// `host:port` of each member.
    pub endpoints: Vec<String>,
    /// What the set-up was made for.
    pub digest: String,
    /// The open datastore, where it was asked in this pass.
    pub access: Option<Arc<Access>>,
}

/// What was seen inside the tenant.
#[derive(Clone, Debug)]
pub struct Inside {
    /// Digest of what was applied there.
    pub digest: String,
    /// The API answered an authenticated request.
    pub answered: Result<(), Problem>,
    /// The rights are in place and were read back.
    pub rights: Result<(), Problem>,
    /// Add-ons are as asked.
    pub addons: Result<(), Problem>,
}

/// What was seen of a tenant in one pass. `None` is «was not reached».
#[derive(Debug, Default)]
pub struct Observed {
    /// Paused by annotation.
    pub paused: bool,
    /// Deletion is under way: reason and what is waited for.
    pub deleting: Option<(Reason, String)>,
    /// Message of `FieldNotSupported`.
    pub unsupported: Option<String>,
    /// The spec.
    pub valid: Option<Result<Valid, Problem>>,
    /// Names in the datastore.
    pub names: Option<Names>,
    /// The datastore.
    pub store: Option<Result<(), Problem>>,
    /// The place there was removed.
    pub torn_down: bool,
    /// The place there.
    pub placed: Option<Placed>,
    /// The endpoint.
    pub endpoint: Option<Result<Endpoint, Problem>>,
    /// Key material.
    pub certificates: Option<Result<Certificates, Problem>>,
    /// Deployment and what protects it.
    pub deployment: Option<Result<(), Problem>>,
    /// Version that the Deployment was rendered for.
    pub rendered: Option<String>,
    /// The tenant's own API.
    pub inside: Option<Inside>,
}

impl Observed {
    /// Notes how a step of the datastore went.
    pub fn note_store<T>(&mut self, result: Result<T, Problem>) -> Result<T, Problem> {
        self.store = Some(result.as_ref().map(|_| ()).map_err(Clone::clone));
        result
    }
}

/// Rows as they stand at the end of the pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rows<'a> {
    /// The Deployment.
    pub deployment: Option<&'a Row>,
    /// The Service.
    pub service: Option<&'a Row>,
    /// What keeps a pod from running.
    pub trouble: Option<&'a str>,
}
