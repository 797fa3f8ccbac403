//! Parses and checks the output of `clusterctl describe cluster --show-conditions all`.

use serde_json::Value;

/// The conditions of an object that are not `True`, as text for an error.
pub fn not_true(object: &Value) -> String {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let lines: Vec<_> = conditions
        .into_iter()
        .flatten()
        .filter(|c| c["status"] != "True")
        .map(|c| format!("{}={} {} {}", c["type"], c["status"], c["reason"], c["message"]))
        .collect();
    lines.join("; ")
}

/// A condition as `clusterctl describe` shows it.
#[derive(Debug, PartialEq, Eq)]
pub struct Shown {
    /// Kind and name of the object.
    pub object: String,
    /// Condition type.
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
}

impl Shown {
    /// Healthy by its polarity.
    pub fn is_good(&self) -> bool {
        const NEGATIVE: [&str; 8] = [
            "Paused",
            "Deleting",
            "RollingOut",
            "ScalingUp",
            "ScalingDown",
            "Remediating",
            "Updating",
            "FieldNotSupported",
        ];
        let wanted = if NEGATIVE.contains(&self.type_.as_str()) {
            "False"
        } else {
            "True"
        };
        self.status == wanted
    }
}

/// Reads `clusterctl describe --show-conditions all`: objects («Kind namespace/name»), below each its conditions
/// («Type Status Reason …»).
pub fn read(printed: &str) -> Vec<Shown> {
    let mut object = String::new();
    let mut shown = Vec::new();
    for line in printed.lines() {
        let words: Vec<_> = line
            .split(|c: char| c.is_whitespace() || "│├└─".contains(c))
            .filter(|word| !word.is_empty())
            .collect();
        match words[..] {
            ["*", ..] => {}
            [type_, status @ ("True" | "False" | "Unknown"), ..] => shown.push(Shown {
                object: object.clone(),
                type_: type_.to_owned(),
                status: status.to_owned(),
            }),
            [kind, name, ..] | [_, "-", kind, name, ..] if name.contains('/') => {
                object = format!("{kind} {}", name.trim_end_matches(','));
            }
            _ => {}
        }
    }
    shown
}

/// What the row of the control plane shows: version, then replicas, and how many are available, ready and up to date.
pub fn control_plane(printed: &str) -> Option<Vec<&str>> {
    let row = printed.lines().find_map(|line| {
        let row = line.trim_start_matches(|c: char| c.is_whitespace() || "│├└─".contains(c));
        let row = row.strip_prefix("ControlPlane - ").unwrap_or(row);
        row.strip_prefix("KamajiControlPlane ")
    })?;
    // The name, then what is asked for.
    Some(row.split_whitespace().skip(1).take(5).collect())
}

/// The conditions that are missing: of how many objects of a kind, and which.
pub fn missing(shown: &[Shown], workers: usize) -> Vec<String> {
    let all: [(&str, usize, &[&str]); 6] = [
        (
            "Cluster",
            1,
            &[
                "Available",
                "RemoteConnectionProbe",
                "InfrastructureReady",
                "ControlPlaneInitialized",
                "ControlPlaneAvailable",
                "WorkersAvailable",
                "WorkerMachinesReady",
                "WorkerMachinesUpToDate",
                "Deleting",
            ],
        ),
        (
            "KamajiControlPlane",
            1,
            &[
                "Available",
                "Ready",
                "SpecValid",
                "CertificatesAvailable",
                "TenantControlPlaneCreated",
                "ControlPlaneEndpointPatched",
                "KamajiControlPlaneIsInitialized",
                "TunnelReady",
                "RollingOut",
                "ScalingUp",
                "ScalingDown",
                "Paused",
            ],
        ),
        (
            "MachineDeployment",
            1,
            &["Available", "MachinesReady", "MachinesUpToDate", "RollingOut"],
        ),
        (
            "Machine",
            workers,
            &[
                "Available",
                "Ready",
                "UpToDate",
                "BootstrapConfigReady",
                "InfrastructureReady",
                "NodeReady",
                "NodeHealthy",
            ],
        ),
        (
            "KamajiConfig",
            workers,
            &[
                "Ready",
                "DataSecretAvailable",
                "BootstrapTokenValid",
                "NodeJoined",
                "Paused",
            ],
        ),
        ("LocalMachine", workers, &["Ready", "Paused"]),
    ];
    let mut missing = Vec::new();
    for (kind, count, types) in all {
        for type_ in types {
            let of_kind = |c: &&Shown| c.object.split(' ').next() == Some(kind) && c.type_ == *type_;
            let found = shown.iter().filter(of_kind).count();
            if found != count {
                missing.push(format!("{type_} of {kind}: {found} of {count}"));
            }
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_of_the_control_plane_has_version_and_counters() {
        let printed = "Cluster default/a            3/3   3  3  3\n\
                       │  ├─Available  False  NotAvailable  * ControlPlaneAvailable: KamajiControlPlane default/a waits\n\
                       ├─ControlPlane - KamajiControlPlane default/a, v1.36.3   2/2   2   1   2   True   Available\n";
        assert_eq!(
            control_plane(printed),
            Some(vec!["v1.36.3", "2/2", "2", "1", "2"])
        );
        assert_eq!(control_plane("Cluster default/a"), None);
    }

    #[test]
    fn conditions_are_read_and_judged_by_their_polarity() {
        let printed = "\
    NAME                                              REPLICAS  AVAILABLE  READY  UP TO DATE  STATUS   REASON        SINCE  MESSAGE\n\
    Cluster default/quickstart                        3/3       3          3      3\n\
    │           ├─Available                                                                   True     Available     5m\n\
    │           ├─TopologyReconciled                                                          False    Failed        5m\n\
    │           ├─Deleting                                                                    False    NotDeleting   5m\n\
    │           └─Paused                                                                      True     Paused        5m\n\
    ├─ControlPlane - KamajiControlPlane default/quickstart, v1.36.3  1/1\n\
    └─Workers\n\
      └─MachineDeployment default/quickstart-md-0, v1.36.3           2/2  2  2  2\n\
        │           └─Available                                                               Unknown  Odd           5m     * says\n\
        │                                                                                                                   True story\n\
        ├─Machine default/quickstart-md-0-abc, v1.36.3               1    1  1  1\n\
        │             ├─Updating                                                              False    NotUpdating   5m\n\
        │             └─NodeHealthy                                                           True     NodeHealthy   5m\n";
        let shown = read(printed);
        let bad: Vec<_> = shown
            .iter()
            .filter(|c| !c.is_good())
            .map(|c| format!("{} {}", c.object, c.type_))
            .collect();
        assert_eq!(
            bad,
            [
                "Cluster default/quickstart TopologyReconciled",
                "Cluster default/quickstart Paused",
                "MachineDeployment default/quickstart-md-0 Available",
            ]
        );
        let missing = missing(&shown, 2);
        assert!(
            missing.contains(&"NodeHealthy of Machine: 1 of 2".to_owned()),
            "{missing:#?}"
        );
        assert!(!missing.contains(&"Available of Cluster: 0 of 1".to_owned()));
    }
}
