//! Names that the provider defines, and names of other projects that it uses.

/// Namespace of the provider.
pub const NAMESPACE: &str = "infra-local-system";
/// `ServiceAccount` of the provider.
pub const PROVIDER: &str = "infra-local-provider";
/// `ServiceAccount` that grants the provider access to single Secrets.
pub const GRANTS: &str = "infra-local-grants";
/// Name by which clusterctl knows the provider, beside its type.
pub const CLUSTERCTL: &str = "local";
/// Finalizer of `LocalMachine` and `LocalMachinePool`: machines exist on the host.
pub const FINALIZER: &str = "localmachine.infrastructure.cluster.x-k8s.io";
/// Field manager of the provider's patches.
pub const FIELD_MANAGER: &str = "infra-local";
/// Cluster API's label with the cluster's name.
pub const CLUSTER_NAME_LABEL: &str = "cluster.x-k8s.io/cluster-name";
/// Cluster API's label with the name of a MachinePool.
pub const POOL_NAME_LABEL: &str = "cluster.x-k8s.io/pool-name";
/// Annotation of a `LocalMachine` of a pool: the Secret that it boots from. Its Machine names none.
pub const DATA_ANNOTATION: &str = "infra-local/bootstrap-data";
/// Cluster API's annotation that pauses one object.
pub const PAUSED_ANNOTATION: &str = "cluster.x-k8s.io/paused";
/// Range of a network that names none.
pub const DEFAULT_NETWORK_CIDR: &str = "192.168.0.0/24";

/// The machine's identity for cloud providers; unique on the management cluster.
pub fn provider_id(namespace: &str, name: &str) -> String {
    format!("local://{namespace}/{name}")
}

/// Role and binding for the bootstrap data of one MachinePool. No Machine has such a name for its own.
pub fn pool_grant(pool: &str) -> String {
    format!("{pool}.pool-bootstrap-data")
}

/// Role and binding for the bootstrap data of one Machine.
pub fn grant(machine: &str) -> String {
    format!("{machine}-bootstrap-data")
}
