//! What has to hold before a machine gets bootstrap data, in the order in which conditions report it. Pure.
//!
//! The order is that of the Cluster API contract for bootstrap providers
//! (<https://cluster-api.sigs.k8s.io/developer/providers/contracts/bootstrap-config>): owner, Cluster infrastructure,
//! control plane, version.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kamaji_api::{
    bootstrap::{ClientApproval, KamajiConfig, KamajiConfigSpec, NameSource, NodeRegistration},
    conditions::Reason,
    labels::capi,
};
use kube::ResourceExt as _;
use semver::Version;

use super::{
    bootstrapdata::inputs,
    names,
    observe::Observed,
    owner::{Owner, OwnerObject},
    preset,
    settings::Settings,
    status, validate,
};
use crate::{
    capi::{cluster::Cluster, owner as owners},
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
        owner: &OwnerObject,
        (cluster_name, observed): (&str, &Observed),
        hosts: &[String],
    ) -> Self {
        if let Err(problem) = worker(owner) {
            return Self {
                problems,
                met: Err(problem),
            };
        }
        problems.extend(shared_name(&settings.registration, owner));
        problems.extend(preset::problems(
            settings.preset,
            &config.spec,
            &settings.registration,
        ));
        let version = version(owner);
        let whose = version_field(owner);
        if let Ok(version) = &version {
            problems.extend(validate::version(&config.spec, &whose, version));
            let control_plane = observed
                .control_plane
                .as_ref()
                .and_then(|known| known.status.as_ref()?.version.clone())
                .and_then(|text| k8s_version::parse(&text));
            problems.extend(
                control_plane.and_then(|control_plane| validate::skew(&whose, version, &control_plane)),
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
/// When it has no owner yet.
pub fn owner(config: &KamajiConfig) -> Result<Owner<&OwnerReference>, Problem> {
    if let Some(machine) = owners::of_kind(config, "Machine") {
        return Ok(Owner::Machine(machine));
    }
    if let Some(pool) = owners::of_kind(config, "MachinePool") {
        return Ok(Owner::Pool(pool));
    }
    Err(Problem::on_change(
        Reason::WaitingForOwner,
        "waiting for Cluster API to set a Machine or a MachinePool as owner",
    ))
}

/// The owner can use a config of this kind.
fn worker(owner: &OwnerObject) -> Result<(), Problem> {
    let machine = match owner {
        Owner::Machine(machine) => machine,
        // There are no pools of control plane machines.
        Owner::Pool(_) => return Ok(()),
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

/// The machines of a pool have the same data, so it cannot name one of them.
fn shared_name(registration: &NodeRegistration, owner: &OwnerObject) -> Option<Problem> {
    let shared = matches!(owner, Owner::Pool(_));
    (shared && registration.name_source == Some(NameSource::MachineName)).then(|| {
        Problem::on_change(
            Reason::InvalidSpec,
            format!(
                "nodeRegistration.nameSource: MachineName is not possible for {}, whose machines share the bootstrap data: \
                 remove it, or use Hostname or Template",
                owner.name()
            ),
        )
    })
}

/// The field with the owner's version, for people.
fn version_field(owner: &OwnerObject) -> String {
    match owner.name() {
        name @ Owner::Machine(_) => format!("spec.version of {name}"),
        name @ Owner::Pool(_) => format!("spec.template.spec.version of {name}"),
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
fn node_name(registration: &NodeRegistration, owner: &OwnerObject, hosts: &[String]) -> Result<(), Problem> {
    if inputs::name_source(registration, owner) != NameSource::MachineName {
        return Ok(());
    }
    let name = match owner {
        Owner::Machine(machine) => machine.name_any(),
        Owner::Pool(_) => return Ok(()),
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
fn version(owner: &OwnerObject) -> Result<Version, Problem> {
    let (text, hint) = match owner {
        Owner::Machine(machine) => (machine.spec.version.as_str(), " in the MachineDeployment"),
        Owner::Pool(pool) => (pool.spec.template.spec.version.as_str(), ""),
    };
    let whose = version_field(owner);
    if text.is_empty() {
        return Err(Problem::on_change(
            Reason::WaitingForVersion,
            format!("{whose} is empty; set it{hint}"),
        ));
    }
    k8s_version::parse(text).ok_or_else(|| {
        Problem::on_change(
            Reason::InvalidVersion,
            format!("{whose} is {text:?}, which is not a semantic version; write it like v1.36.3"),
        )
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::{
        capi::machine::Machine,
        kamajiconfig::target::{hosts, target, tests::ready},
    };

    fn config(value: Value) -> KamajiConfig {
        KamajiConfig {
            spec: serde_json::from_value(value).unwrap(),
            ..KamajiConfig::default()
        }
    }

    fn machine(name: &str) -> OwnerObject {
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
