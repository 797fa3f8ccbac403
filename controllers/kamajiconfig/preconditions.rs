//! What has to hold before a machine gets bootstrap data, in the order in which conditions report it. Pure.
//!
//! The order is that of the Cluster API contract for bootstrap providers
//! (<https://cluster-api.sigs.k8s.io/developer/providers/contracts/bootstrap-config>): owner, Cluster infrastructure,
//! control plane, version.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kamaji_api::{
    bootstrap::{ClientApproval, KamajiConfig, KamajiConfigSpec, NameSource, NodeRegistration},
    conditions::Reason,
    labels::capi,
};
use kube::ResourceExt as _;
use semver::Version;

use super::{
    bootstrapdata::inputs, names, observe::Observed, owner::Owner, preset, settings::Settings, status,
    validate,
};
use crate::{
    capi::{cluster::Cluster, machine::Machine, owner as owners},
    k8s::{problem::Problem, version as k8s_version},
};

/// The preconditions of bootstrap data, checked once.
pub struct Preconditions {
    /// What is wrong with the spec, also in view of the versions of owner and control plane.
    pub problems: Vec<Problem>,
    /// The owner's version, or the first precondition that is not met.
    pub met: Result<Version, Problem>,
}

impl Preconditions {
    /// Checks them all. `problems` are those of the spec alone, `hosts` those of the API server.
    pub fn check(
        (config, settings): (&KamajiConfig, &Settings),
        mut problems: Vec<Problem>,
        owner: &Owner<Arc<Machine>>,
        (cluster_name, observed): (&str, &Observed),
        hosts: &[String],
    ) -> Self {
        if let Err(problem) = worker(owner) {
            return Self {
                problems,
                met: Err(problem),
            };
        }
        problems.extend(preset::problems(
            settings.preset,
            &config.spec,
            &settings.registration,
        ));
        let version = version(owner);
        if let Ok(version) = &version {
            problems.extend(validate::version(&config.spec, owner_name(owner), version));
            let control_plane = observed
                .control_plane
                .as_ref()
                .and_then(|known| known.status.as_ref()?.version.clone())
                .and_then(|text| k8s_version::parse(&text));
            problems.extend(
                control_plane
                    .and_then(|control_plane| validate::skew(owner_name(owner), version, &control_plane)),
            );
        }
        let invalid = problems
            .first()
            .map(|first| Problem::on_change(first.reason, status::messages(&problems)));
        let rest = || -> Result<Version, Problem> {
            let version = version?;
            cluster(cluster_name, observed.cluster.as_deref())?;
            node_name(&settings.registration, owner, hosts)?;
            Ok(version)
        };
        Self {
            met: invalid.map_or_else(rest, Err),
            problems,
        }
    }
}

/// The owner of the config.
///
/// # Errors
/// When another kind owns it, or it has no owner yet.
pub fn owner(config: &KamajiConfig) -> Result<Owner<&OwnerReference>, Problem> {
    if let Some(machine) = owners::of_kind(config, "Machine") {
        return Ok(Owner::Machine(machine));
    }
    if let Some(pool) = owners::of_kind(config, "MachinePool") {
        return Err(Problem::on_change(
            Reason::OwnerNotSupported,
            format!(
                "MachinePool {} owns the KamajiConfig, and MachinePools are not supported yet: use a MachineDeployment",
                pool.name
            ),
        ));
    }
    Err(Problem::on_change(
        Reason::WaitingForOwner,
        "waiting for Cluster API to set a Machine as owner",
    ))
}

/// The owner can use a config of this kind.
fn worker(owner: &Owner<Arc<Machine>>) -> Result<(), Problem> {
    let machine = match owner {
        Owner::Machine(machine) => machine,
        Owner::Pool(pool) => match *pool {},
    };
    if machine.labels().contains_key(capi::CONTROL_PLANE) {
        return Err(Problem::on_change(
            Reason::ControlPlaneMachineNotSupported,
            format!(
                "Machine {} has the label {} of control plane machines, but the control plane runs in pods of a \
                 KamajiControlPlane: use a KamajiConfig for worker machines only",
                machine.name_any(),
                capi::CONTROL_PLANE
            ),
        ));
    }
    Ok(())
}

/// Name of the owner.
fn owner_name(owner: &Owner<Arc<Machine>>) -> &str {
    match owner {
        Owner::Machine(machine) => machine.metadata.name.as_deref().unwrap_or_default(),
        Owner::Pool(pool) => match *pool {},
    }
}

/// Only this provider approves certificate requests so far. With another approver it would have to learn the node's name
/// in another way, and the automatic one would approve any name for any machine of the workload cluster.
pub fn approver(spec: &KamajiConfigSpec) -> Option<Problem> {
    let client = match spec.csr_approval.client {
        ClientApproval::Bound => return None,
        ClientApproval::ControllerManager => "ControllerManager",
        ClientApproval::External => "External",
    };
    Some(Problem::on_change(
        Reason::FieldNotSupported,
        format!("spec.csrApproval.client={client} is not supported yet; use Bound, or remove the field"),
    ))
}

/// The node's certificate request will not be denied for its name. `hosts` are those of the API server.
fn node_name(
    registration: &NodeRegistration,
    owner: &Owner<Arc<Machine>>,
    hosts: &[String],
) -> Result<(), Problem> {
    if inputs::name_source(registration, owner) != NameSource::MachineName {
        return Ok(());
    }
    let name = match owner {
        Owner::Machine(machine) => machine.name_any(),
        Owner::Pool(pool) => match *pool {},
    };
    let why = if hosts.contains(&name) {
        "that is the name of the API server"
    } else if let Some(why) = names::unfit_for_node(&name) {
        why
    } else {
        return Ok(());
    };
    Err(Problem::on_change(
        Reason::NodeNameInvalid,
        format!(
            "Machine {name} gives its name to the node, but {why}: delete the Machine and name the next one differently \
             (machineNaming of its MachineDeployment), or set spec.nodeRegistration.nameSource: Hostname"
        ),
    ))
}

/// The Cluster exists, its infrastructure is provisioned and its control plane initialized.
///
/// # Errors
/// What is missing.
pub fn cluster<'a>(name: &str, cluster: Option<&'a Cluster>) -> Result<&'a Cluster, Problem> {
    let Some(cluster) = cluster else {
        return Err(Problem::on_change(
            Reason::WaitingForCluster,
            format!("waiting for Cluster {name}, which does not exist"),
        ));
    };
    if !cluster.infrastructure_provisioned() {
        return Err(Problem::on_change(
            Reason::WaitingForInfrastructure,
            format!("waiting for the infrastructure of Cluster {name} to be provisioned"),
        ));
    }
    if !cluster.control_plane_initialized() {
        return Err(Problem::on_change(
            Reason::WaitingForControlPlaneInitialized,
            format!("waiting for the control plane of Cluster {name} to be initialized"),
        ));
    }
    Ok(cluster)
}

/// The Kubernetes version of the owner.
fn version(owner: &Owner<Arc<Machine>>) -> Result<Version, Problem> {
    let machine = match owner {
        Owner::Machine(machine) => machine,
        Owner::Pool(pool) => match *pool {},
    };
    let text = machine.spec.version.as_str();
    if text.is_empty() {
        return Err(Problem::on_change(
            Reason::WaitingForVersion,
            format!(
                "spec.version of Machine {} is empty; set it in the MachineDeployment",
                machine.name_any()
            ),
        ));
    }
    k8s_version::parse(text).ok_or_else(|| {
        Problem::on_change(
            Reason::InvalidVersion,
            format!(
                "spec.version {text:?} of Machine {} is not a semantic version; write it like v1.36.3",
                machine.name_any()
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kamajiconfig::target::{hosts, target, tests::ready};

    fn config(value: Value) -> KamajiConfig {
        KamajiConfig {
            spec: serde_json::from_value(value).unwrap(),
            ..KamajiConfig::default()
        }
    }

    fn machine(name: &str) -> Owner<Arc<Machine>> {
        let mut machine = Machine::default();
        machine.metadata.name = Some(name.to_owned());
        Owner::Machine(Arc::new(machine))
    }

    #[test]
    fn contract_40_each_unmet_precondition_has_its_own_reason() {
        let mut reasons = vec![cluster("c", None).unwrap_err().reason];
        let mut now = Cluster::default();
        reasons.push(cluster("c", Some(&now)).unwrap_err().reason);
        now = ready();
        now.status
            .as_mut()
            .unwrap()
            .initialization
            .control_plane_initialized = false;
        reasons.push(cluster("c", Some(&now)).unwrap_err().reason);
        now = ready();
        assert!(cluster("c", Some(&now)).is_ok());
        now.spec.control_plane_endpoint = None;
        reasons.push(
            target(&KamajiConfig::default(), &now, None, String::new())
                .unwrap_err()
                .reason,
        );
        reasons.push(owner(&KamajiConfig::default()).unwrap_err().reason);
        reasons.push(version(&machine("m")).unwrap_err().reason);
        let unique: std::collections::BTreeSet<_> = reasons.iter().collect();
        assert_eq!(unique.len(), reasons.len());
    }

    #[test]
    fn contract_55_a_control_plane_machine_is_refused() {
        assert!(worker(&machine("m")).is_ok());
        let mut labelled = Machine::default();
        labelled.metadata.labels = Some([(capi::CONTROL_PLANE.to_owned(), String::new())].into());
        assert_eq!(
            worker(&Owner::Machine(Arc::new(labelled))).unwrap_err().reason,
            Reason::ControlPlaneMachineNotSupported
        );
    }

    #[test]
    fn another_approver_is_not_supported() {
        assert_eq!(approver(&KamajiConfig::default().spec), None);
        for client in ["ControllerManager", "External"] {
            let config = config(json!({"csrApproval": {"client": client}}));
            let problem = approver(&config.spec).unwrap();
            assert_eq!(problem.reason, Reason::FieldNotSupported);
            assert!(
                problem
                    .message
                    .contains(&format!("spec.csrApproval.client={client}"))
            );
        }
    }

    #[test]
    fn a_machine_whose_request_would_be_denied_for_its_name_gets_no_data() {
        let hosts = hosts(&KamajiConfig::default(), Some(&ready()), None);
        let of = |name: &str| node_name(&NodeRegistration::default(), &machine(name), &hosts);
        assert_eq!(of("kubernetes-workers-1"), Ok(()));
        assert_eq!(of(&format!("a.{}", "b".repeat(61))), Ok(()));
        let problem = of(&format!("a.{}", "b".repeat(62))).unwrap_err();
        assert_eq!(problem.reason, Reason::NodeNameInvalid);
        assert!(
            problem.message.contains("at most 63 characters"),
            "{}",
            problem.message
        );
        for name in ["kubernetes", "kubernetes.default", "localhost", "10.0.0.1"] {
            let problem = of(name).unwrap_err();
            assert_eq!(problem.reason, Reason::NodeNameInvalid);
            assert!(
                problem.message.contains(&format!("Machine {name} ")),
                "{}",
                problem.message
            );
        }
        let by_host = config(json!({"nodeRegistration": {"nameSource": "Hostname"}}));
        let by_host = &by_host.spec.node_registration;
        assert_eq!(node_name(by_host, &machine("kubernetes"), &hosts), Ok(()));
    }
}
