//! The status of a `LocalMachine`, computed from the stage that its reconcile reached. Pure.

use k8s_openapi::jiff::Timestamp;
use kube::Resource as _;

use super::{
    api::{Initialization, LocalMachine, LocalMachineStatus, MachineAddress},
    capi,
    conditions::{Verdict, set},
};
use crate::machines::wire::Machine;

/// The stage that a machine reached, or what it waits for.
#[derive(Clone, Debug)]
pub enum Stage {
    /// The Cluster or the object is paused.
    Paused,
    /// Cluster API has not linked the object to a Machine and Cluster that exist.
    WaitingForOwner,
    /// The `LocalCluster` is not provisioned.
    WaitingForClusterInfrastructure,
    /// The Machine names no bootstrap Secret.
    WaitingForBootstrapData,
    /// Read access to the named Secret is not granted yet.
    WaitingForGrant(String),
    /// The bootstrap Secret is missing or of no use.
    BootstrapDataInvalid(String),
    /// The host rejected the order.
    Refused(String),
    /// The host does not answer.
    HostUnavailable(String),
    /// The host booted it; the value contains whether it still runs.
    Booted(Machine),
    /// It was booted, and the host no longer knows it.
    Lost,
    /// The host failed to remove it.
    DeletionFailed(String),
}

/// Whether the machine was provisioned before.
pub fn provisioned(object: &LocalMachine) -> bool {
    object
        .status
        .as_ref()
        .is_some_and(|status| status.initialization.provisioned == Some(true))
}

/// The desired status of the object.
pub fn status(object: &LocalMachine, stage: &Stage, now: Timestamp) -> LocalMachineStatus {
    let mut status = object.status.clone().unwrap_or_default();
    let generation = object.meta().generation;
    let paused = match stage {
        Stage::Paused => Verdict::holds("Paused"),
        _ => Verdict::fails("NotPaused", ""),
    };
    set(&mut status.conditions, "Paused", &paused, generation, now);
    if let Stage::Booted(machine) = stage {
        let hostname = capi::owner(object, "Machine").unwrap_or_default();
        status.initialization = Initialization {
            provisioned: Some(true),
        };
        status.addresses = vec![
            address("InternalIP", &machine.address),
            address("Hostname", hostname),
        ];
        status.pod_cidr = Some(machine.pod_cidr.clone());
        status.host_id = Some(machine.id.clone());
        status.user_data_sha256 = Some(machine.user_data_sha256.clone());
    }
    if let Some(ready) = ready(stage) {
        set(&mut status.conditions, "Ready", &ready, generation, now);
    }
    status
}

fn address(kind: &str, address: &str) -> MachineAddress {
    MachineAddress {
        kind: kind.to_owned(),
        address: address.to_owned(),
    }
}

/// `None` while paused: the current state is not known.
fn ready(stage: &Stage) -> Option<Verdict> {
    let fails = |reason, message: &str| Some(Verdict::fails(reason, message));
    match stage {
        Stage::Paused => None,
        Stage::WaitingForOwner => fails(
            "WaitingForOwner",
            "waiting for Cluster API to set an owner reference to a Machine of a Cluster",
        ),
        Stage::WaitingForClusterInfrastructure => fails(
            "WaitingForClusterInfrastructure",
            "waiting for the LocalCluster to be provisioned",
        ),
        Stage::WaitingForBootstrapData => fails(
            "WaitingForBootstrapData",
            "waiting for spec.bootstrap.dataSecretName of the Machine",
        ),
        Stage::WaitingForGrant(secret) => fails(
            "WaitingForGrant",
            &format!("waiting for permission to read Secret {secret}"),
        ),
        Stage::BootstrapDataInvalid(message) => fails("BootstrapDataInvalid", message),
        Stage::Refused(message) => fails("Refused", message),
        Stage::HostUnavailable(message) => fails("MachineHostUnavailable", message),
        Stage::Booted(machine) if machine.running => Some(Verdict::holds("Running")),
        Stage::Booted(_) => fails(
            "MachineStopped",
            "PID 1 of the machine has exited; delete the Machine to replace it",
        ),
        Stage::Lost => fails(
            "MachineLost",
            "the machine host has no such machine any more; delete the Machine to replace it",
        ),
        Stage::DeletionFailed(message) => fails("DeletionFailed", message),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    use super::*;

    fn object() -> LocalMachine {
        let mut object = LocalMachine::default();
        object.metadata.owner_references = Some(vec![OwnerReference {
            api_version: "cluster.x-k8s.io/v1beta2".to_owned(),
            kind: "Machine".to_owned(),
            name: "quickstart-md-0-x".to_owned(),
            ..OwnerReference::default()
        }]);
        object
    }

    fn machine(running: bool) -> Machine {
        Machine {
            id: "m1".to_owned(),
            address: "10.88.200.1".to_owned(),
            pod_cidr: "10.244.0.0/24".to_owned(),
            user_data_sha256: "ab".to_owned(),
            running,
            pid: 1,
        }
    }

    fn reason(status: &LocalMachineStatus, kind: &str) -> (String, String) {
        let found = status
            .conditions
            .iter()
            .find(|condition| condition.type_ == kind)
            .unwrap();
        (found.status.clone(), found.reason.clone())
    }

    #[test]
    fn a_booted_machine_reports_what_the_contract_asks_for() {
        let status = status(&object(), &Stage::Booted(machine(true)), Timestamp::UNIX_EPOCH);
        assert_eq!(status.initialization.provisioned, Some(true));
        assert_eq!(status.addresses[0], address("InternalIP", "10.88.200.1"));
        assert_eq!(status.addresses[1], address("Hostname", "quickstart-md-0-x"));
        assert_eq!(
            reason(&status, "Ready"),
            ("True".to_owned(), "Running".to_owned())
        );
    }

    #[test]
    fn the_latch_holds_when_the_machine_stops_or_is_lost() {
        let mut object = object();
        object.status = Some(status(
            &object,
            &Stage::Booted(machine(true)),
            Timestamp::UNIX_EPOCH,
        ));
        for stage in [
            Stage::Booted(machine(false)),
            Stage::Lost,
            Stage::HostUnavailable("x".to_owned()),
        ] {
            let status = status(&object, &stage, Timestamp::UNIX_EPOCH);
            assert_eq!(status.initialization.provisioned, Some(true));
            assert_eq!(status.addresses.len(), 2);
            assert_eq!(reason(&status, "Ready").0, "False");
        }
    }

    #[test]
    fn the_same_stage_twice_changes_nothing() {
        let mut object = object();
        object.status = Some(status(
            &object,
            &Stage::Booted(machine(true)),
            Timestamp::UNIX_EPOCH,
        ));
        let again = status(
            &object,
            &Stage::Booted(machine(true)),
            Timestamp::from_second(99).unwrap(),
        );
        assert_eq!(object.status, Some(again));
    }

    #[test]
    fn pause_keeps_what_was_said_before() {
        let mut object = object();
        object.status = Some(status(
            &object,
            &Stage::WaitingForBootstrapData,
            Timestamp::UNIX_EPOCH,
        ));
        let paused = status(&object, &Stage::Paused, Timestamp::UNIX_EPOCH);
        assert_eq!(reason(&paused, "Paused").0, "True");
        assert_eq!(reason(&paused, "Ready").1, "WaitingForBootstrapData");
    }
}
