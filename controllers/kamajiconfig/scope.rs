//! What one reconcile works on: a KamajiConfig with its owner and its Cluster. Created once for each reconcile. Pure.

use std::sync::Arc;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::OwnerReference, jiff::Timestamp};
use kamaji_api::{
    bootstrap::{KamajiConfig, NameSource, NodeRegistration},
    conditions::Reason,
};
use kube::ResourceExt as _;
use semver::Version;

use super::{
    Context,
    bootstrapdata::inputs::name_source,
    observe::Observed,
    owner::Owner,
    preconditions::Preconditions,
    settings::Settings,
    status::{self, Progress},
    target,
    token::{Holder, Lifetime},
};
use crate::{
    capi::machine::Machine,
    k8s::{key::RootKey, problem::Problem},
};

/// A KamajiConfig whose owner exists, with everything that a reconcile knows about it.
pub struct Scope<'a> {
    /// The process.
    pub context: &'a Context,
    /// Key of the config.
    pub key: &'a RootKey,
    /// The config, as it was when the reconcile began.
    pub config: &'a KamajiConfig,
    /// Its owner.
    pub owner: Owner<Arc<Machine>>,
    /// The settings of its machine.
    pub settings: Settings,
    /// Key of its Cluster.
    pub cluster: RootKey,
    /// The objects around it.
    pub observed: &'a Observed,
    /// The preconditions of bootstrap data, checked.
    preconditions: Preconditions,
    /// Host names of the API server, in lower case.
    pub hosts: Vec<String>,
    /// The status reported before that the bootstrap data exists.
    pub announced: bool,
    /// The time when the reconcile began.
    pub now: Timestamp,
}

impl<'a> Scope<'a> {
    /// Creates the scope. `problems` are those of the spec.
    ///
    /// # Errors
    /// When the owner does not exist yet.
    pub fn new(
        context: &'a Context,
        (key, config): (&'a RootKey, &'a KamajiConfig),
        owner: Owner<&OwnerReference>,
        observed: &'a Observed,
        problems: Vec<Problem>,
        now: Timestamp,
    ) -> Result<Self, Problem> {
        let owner = match owner {
            Owner::Machine(reference) => {
                let machine = observed.machine.clone().ok_or_else(|| missing(reference))?;
                Owner::Machine(machine)
            }
            Owner::Pool(pool) => match pool {},
        };
        let cluster_name = observed.cluster_name.clone().ok_or_else(|| {
            let message = "waiting for a Machine with spec.clusterName";
            Problem::on_change(Reason::WaitingForOwner, message)
        })?;
        let cluster = RootKey::new(key.namespace.clone(), cluster_name);
        let hosts = target::hosts(
            config,
            observed.cluster.as_deref(),
            observed.control_plane.as_deref(),
        );
        let infrastructure = match &owner {
            Owner::Machine(machine) => Some(&machine.spec.infrastructure_ref),
            Owner::Pool(pool) => match *pool {},
        };
        let topology = observed
            .cluster
            .as_ref()
            .is_some_and(|cluster| cluster.spec.topology.is_some());
        let settings = Settings::of(&config.spec, infrastructure, topology).rendered(observed.name_source);
        let preconditions = Preconditions::check(
            (config, &settings),
            problems,
            &owner,
            (&cluster.name, observed),
            &hosts,
        );
        Ok(Self {
            context,
            key,
            config,
            owner,
            settings,
            cluster,
            observed,
            preconditions,
            hosts,
            announced: status::is_announced(config),
            now,
        })
    }

    /// The owner's version, if the preconditions of bootstrap data are met. Reports what is wrong with the spec.
    ///
    /// # Errors
    /// The first precondition that is not met.
    pub fn version(&self, progress: &mut Progress) -> Result<&Version, Problem> {
        progress.problems = Some(self.preconditions.problems.clone());
        self.preconditions.met.as_ref().map_err(Clone::clone)
    }

    /// The owner is being deleted.
    pub fn is_owner_deleting(&self) -> bool {
        match &self.owner {
            Owner::Machine(machine) => machine.metadata.deletion_timestamp.is_some(),
            Owner::Pool(pool) => match *pool {},
        }
    }

    /// Name that the node will have, or has.
    pub fn node_name(&self) -> Option<String> {
        match &self.owner {
            Owner::Machine(machine) => self.node_name_of(self.config, machine),
            Owner::Pool(pool) => match *pool {},
        }
    }

    /// Name that the node of its Machine will have, or has, by what `config` claimed.
    pub fn node_name_of(&self, config: &KamajiConfig, machine: &Machine) -> Option<String> {
        node_name(config, &self.settings.registration, machine)
    }

    /// Lifetime of its token.
    pub fn lifetime(&self) -> Lifetime {
        Lifetime::of(&self.config.spec.auth.token, &self.owner)
    }

    /// Whose its token is, in the workload cluster of a Cluster with this UID.
    pub fn holder<'b>(&'b self, cluster_uid: &'b str) -> Holder<'b> {
        Holder {
            uid: self.config.metadata.uid.as_deref().unwrap_or_default(),
            namespace: &self.key.namespace,
            owner: self.owner_name(),
            cluster: &self.cluster.name,
            cluster_uid,
        }
    }

    /// The owner; of a Machine, its name.
    pub fn owner_name(&self) -> Owner<&str> {
        self.owner
            .map(|machine| machine.metadata.name.as_deref().unwrap_or_default())
    }
}

fn missing(machine: &OwnerReference) -> Problem {
    let message = format!(
        "waiting for Machine {}, which owns the KamajiConfig",
        machine.name
    );
    Problem::on_change(Reason::WaitingForOwner, message)
}

/// Name that the node of `machine` will have, or has: the one that `config` claimed, else the one that Cluster API found,
/// else the one that is known before the machine boots.
fn node_name(config: &KamajiConfig, registration: &NodeRegistration, machine: &Machine) -> Option<String> {
    let claim = config
        .status
        .as_ref()
        .and_then(|status| status.node.as_ref()?.name.clone());
    let source = name_source(registration, &Owner::Machine(machine));
    claim
        .or_else(|| machine.node().map(ToOwned::to_owned))
        .or_else(|| (source == NameSource::MachineName).then(|| machine.name_any()))
}
