//! The local infrastructure provider: Cluster API's infrastructure contract over the machine host.
//!
//! Two programs with two identities, both from the image of `infra-local`:
//!
//! *//! * `provider` watches `LocalCluster`, `LocalMachine` and `LocalMachinePool`, reads one bootstrap Secret per machine or pool, hands it to
//! *//! the
//!   machine host and reports addresses and providerID. Its `ServiceAccount` has no rule for Secrets, Roles,
//!   `KamajiConfig`, `TenantControlPlane` or kubeconfigs.
//! * `grants` gives the provider `get` on exactly the Secret that a Machine names as its bootstrap data, by a Role
//!   with that one resource name, owned by the Machine, and takes it back once the machine is provisioned. RBAC
//!   lets nobody grant more than he has, so its own account may `get` Secrets; it never does (the audit log
//!   proves it), and it neither connects to the host nor boots anything.
//!
//! Names of bootstrap Secrets are random, so no rule written in advance can be this narrow; `get` on all Secrets
//! would have included `<cluster>-kubeconfig`.

pub mod api;
pub mod capi;
pub mod components;
pub mod conditions;
pub mod grants;
pub mod local_cluster;
pub mod local_machine;
pub mod local_machine_pool;
pub mod machine_status;
pub mod names;
pub mod pool_plan;
