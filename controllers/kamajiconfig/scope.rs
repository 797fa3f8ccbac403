//! What one reconcile works on: a KamajiConfig with its owner and its Cluster. Created once for each reconcile. Pure.

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
    owner::{Owner, OwnerObject},
    pool::claims,
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
    pub owner: OwnerObject,
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
        let owner = observed.owner.clone().ok_or_else(|| missing(owner))?;
        let cluster_name = observed.cluster_name.clone().ok_or_else(|| {
            let message = format!("waiting for spec.clusterName of {}", owner.name());
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
            Owner::Pool(pool) => Some(&pool.spec.template.spec.infrastructure_ref),
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
            Owner::Pool(pool) => pool.metadata.deletion_timestamp.is_some(),
        }
    }

    /// Name that the node of a Machine will have, or has. Those of a MachinePool are in `status.nodes`.
    pub fn node_name(&self) -> Option<String> {
        match &self.owner {
            Owner::Machine(machine) => self.node_name_of(self.config, machine),
            Owner::Pool(_) => None,
        }
    }

    /// Name that the node of its Machine will have, or has, by what `config` claimed.
    pub fn node_name_of(&self, config: &KamajiConfig, machine: &Machine) -> Option<String> {
        node_name(config, &self.settings.registration, machine)
    }

    /// How many machines join with the same token.
    pub fn sharers(&self) -> usize {
        match &self.owner {
            Owner::Machine(_) => 1,
            Owner::Pool(pool) => claims::budget(pool).max(1),
        }
    }

    /// Lifetime of the token of a Machine.
    pub fn lifetime(&self) -> Lifetime {
        Lifetime::of(&self.config.spec.auth.token)
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

    /// Name of the owner.
    pub fn owner_name(&self) -> Owner<&str> {
        self.owner.name()
    }
}

fn missing(owner: Owner<&OwnerReference>) -> Problem {
    let name = |reference: &&OwnerReference| reference.name.clone();
    let message = match owner.map(name, name) {
        Owner::Machine(name) => format!("waiting for Machine {name}, which owns the KamajiConfig"),
        Owner::Pool(name) => format!("waiting for MachinePool {name}, which owns the KamajiConfig"),
    };
    Problem::on_change(Reason::WaitingForOwner, message)
}

/// Name that the node of `machine` will have, or has: the one that `config` claimed, else the one that Cluster API found,
/// else the one that is known before the machine boots.
fn node_name(config: &KamajiConfig, registration: &NodeRegistration, machine: &Machine) -> Option<String> {
    let claim = config
        .status
        .as_ref()
        .and_then(|status| status.node.as_ref()?.name.clone());
    let source = name_source(registration, &Owner::<_>::Machine(machine));
    claim
        .or_else(|| machine.node().map(ToOwned::to_owned))
        .or_else(|| (source == NameSource::MachineName).then(|| machine.name_any()))
}
