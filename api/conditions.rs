//! Condition types and reasons of TenantControlPlane, DataStore, KamajiControlPlane and KamajiConfig.
//! Owns the names, their meaning and their polarity; the controllers decide when a condition is set. The page
//! `docs/src/reference/conditions.md` lists what is declared here.
//!
//! Rules for all of them:
//! - a reason matches [`REASON_PATTERN`]: Cluster API copies reasons into the Cluster, and the schema of the Cluster
//!   rejects the whole status patch when one reason does not match;
//! - a condition type with *negative* polarity is healthy while `False`; every other type is healthy while `True`
//!   ([`is_negative`]);
//! - [`FIELD_NOT_SUPPORTED`] is present only while it is `True`, so that healthy objects do not list it.

use crate::named::named;

/// Pattern of `reason` in `metav1.Condition`.
pub const REASON_PATTERN: &str = "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$";

/// Whether a text matches [`REASON_PATTERN`] and is no longer than a reason may be.
pub fn is_reason(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let inner = |c: char| word(c) || c == ',' || c == ':';
    text.len() <= 1024
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.ends_with(word)
        && text.chars().all(inner)
}

/// Type of the condition that lists fields which are set but have no effect; the same on every kind. Negative polarity,
/// and absent while no such field is set. Its reason is [`Reason::FieldNotSupported`], its message lists the paths.
pub const FIELD_NOT_SUPPORTED: &str = "FieldNotSupported";

named! {
    /// Condition types of TenantControlPlane.
    pub enum TenantControlPlaneCondition {
        /// Summary: the spec is valid, the DataStore is set up, the certificates exist and the API server answers.
        Ready,
        /// The tenant's API server answered an authenticated request through its Service, or through the endpoint
        /// where no Service is reachable.
        Available,
        /// The spec passed the checks that need other objects or the running version.
        SpecValid,
        /// A DataStore is selected and reachable, and holds the user, role, prefix and ownership mark of this tenant.
        DataStoreReady,
        /// The CAs, certificates and keys exist, verify, and do not expire soon.
        CertificatesAvailable,
        /// The kubeconfig Secrets exist and match the CA and the endpoint.
        KubeconfigsAvailable,
        /// The Service has the address that clients and nodes use.
        EndpointReady,
        /// Only after the endpoint moved: nodes that use a former endpoint still reach this control plane there.
        FormerEndpointsServed,
        /// Every pod of the Deployment is ready and matches the spec.
        DeploymentReady,
        /// The RBAC rules of nodes and admins were applied to the tenant's API server and read back.
        TenantRBACReady,
        /// CoreDNS and kube-proxy in the workload cluster match the spec.
        AddonsReady,
        /// The API servers reach the kubelets of the nodes, as logs, exec and webhooks need it. Not part of `Ready`, and
        /// reported once it was tried.
        TunnelReady,
        /// Negative: pods or version differ from the spec and are being replaced.
        RollingOut,
        /// Negative: reconciliation is paused by an annotation.
        Paused,
        /// Negative: deletion is in progress; the reason names the step.
        Deleting,
        /// Negative: see [`FIELD_NOT_SUPPORTED`].
        FieldNotSupported,
    }
}

named! {
    /// Condition types of DataStore.
    pub enum DataStoreCondition {
        /// Summary: the spec is valid and the DataStore answers.
        Ready,
        /// Defined by Kamaji: the referenced Secrets exist and can be parsed.
        Validation = "kamaji.clastix.io/DataStoreValidation",
        /// Defined by Kamaji: `False` while a TenantControlPlane uses the DataStore.
        AllowedDeletion = "kamaji.clastix.io/DataStoreAllowedDeletion",
        /// The DataStore answered an authenticated request.
        Reachable,
        /// The version of etcd keeps tenants apart, or is accepted by annotation, and serves their watches. Tenants that are
        /// set up run on while it is `False`; the reason says whether new ones are set up.
        VersionSafe,
        /// etcd takes writes and uses less than four fifths of its quota, which all tenants share.
        SpaceAvailable,
        /// Only with `spec.managed`: the CA and the certificates of the members exist.
        CertificatesAvailable,
        /// Only with `spec.managed`: the members run on bound volumes and form a quorum.
        MembersReady,
        /// Negative: reconciliation is paused by an annotation.
        Paused,
        /// Negative: deletion is in progress; the reason names the step.
        Deleting,
        /// Negative: see [`FIELD_NOT_SUPPORTED`].
        FieldNotSupported,
    }
}

named! {
    /// Condition types of KamajiControlPlane. Cluster API and its tools read the first eight.
    pub enum KamajiControlPlaneCondition {
        /// The source of `ControlPlaneAvailable` on the Cluster: the current health of the API server. It does not
        /// latch.
        Available,
        /// Negative: pods or version differ from the spec and are being replaced.
        RollingOut,
        /// The API servers reach the kubelets of the nodes, as logs, exec and webhooks need it. Not part of `Ready`, and
        /// reported once it was tried.
        TunnelReady,
        /// Negative: fewer replicas run than desired.
        ScalingUp,
        /// Negative: more replicas run than desired.
        ScalingDown,
        /// Negative: the Cluster or the object is paused.
        Paused,
        /// Negative: deletion is in progress; the reason names the step.
        Deleting,
        /// The CA and kubeconfig Secrets of the Cluster exist and do not expire soon.
        CertificatesAvailable,
        /// Summary, for tools that follow the v1beta1 contract of Cluster API.
        Ready,
        /// The spec passed the checks that need other objects or the running version.
        SpecValid,
        /// Defined by the Go provider: the TenantControlPlane was applied.
        TenantControlPlaneCreated,
        /// Defined by the Go provider: the TenantControlPlane has an address.
        TenantControlPlaneAddressReady,
        /// Defined by the Go provider: `spec.controlPlaneEndpoint` is set.
        ControlPlaneEndpointPatched,
        /// Only after the endpoint moved: nodes that use a former endpoint still reach this control plane there.
        FormerEndpointsServed,
        /// This control plane answers at the published endpoint. Only where that is not the address of its own Service.
        EndpointReachable,
        /// Defined by the Go provider: the infrastructure cluster has the endpoint, where it takes one. Not part of `Ready`.
        InfrastructureClusterPatched,
        /// Defined by the Go provider: the control plane is initialized as Cluster API's contract defines it.
        KamajiControlPlaneIsInitialized,
        /// Defined by the Go provider: the TenantControlPlane is ready.
        KamajiControlPlaneIsReady,
        /// Defined by the Go provider: the Secrets `<cluster>-ca` and `<cluster>-kubeconfig` exist.
        KubeadmResourcesCreated,
        /// Defined by the Go provider: the management cluster in `externalClusterReference` is reachable.
        FoundExternalReferenceClient,
        /// Negative: see [`FIELD_NOT_SUPPORTED`].
        FieldNotSupported,
    }
}

named! {
    /// Condition types of KamajiConfig.
    pub enum KamajiConfigCondition {
        /// Copied into `BootstrapConfigReady` of the Machine: the bootstrap data exists and the node reported no
        /// failure.
        Ready,
        /// The bootstrap data Secret exists.
        DataSecretAvailable,
        /// The CA that the node must trust exists.
        CertificatesAvailable,
        /// The spec passed the checks of labels, paths, kubelet settings and owner.
        SpecValid,
        /// The token in the bootstrap data Secret is valid in the workload cluster.
        BootstrapTokenValid,
        /// NodeRestriction and the other protections that node identities rely on are active in the workload cluster.
        TenantHardened,
        /// No binding in the workload cluster approves the requests of bootstrap identities automatically.
        CSRApprovalStrict,
        /// The Node registered under the name that this config reserved.
        NodeJoined,
        /// The serving certificate of the node matches `csrApproval.serving`.
        ServingCertificate,
        /// The node reports the version of its Machine.
        KubeletVersionMatch,
        /// `spec.providerID` of the Node is set, or is set by another component.
        ProviderIDSet,
        /// Negative: the Cluster or the object is paused.
        Paused,
        /// Negative: see [`FIELD_NOT_SUPPORTED`].
        FieldNotSupported,
    }
}

/// Condition types that are healthy while `False`, on every kind.
pub const NEGATIVE_POLARITY: &[&str] = &[
    "RollingOut",
    "ScalingUp",
    "ScalingDown",
    "Paused",
    "Deleting",
    FIELD_NOT_SUPPORTED,
];

/// Whether a condition type is healthy while `False`.
pub fn is_negative(condition_type: &str) -> bool {
    NEGATIVE_POLARITY.contains(&condition_type)
}

named! {
    /// Every reason of every condition, event and certificate request of this project.
    pub enum Reason {
        // --- standard pairs of Cluster API -------------------------------------------------------------------
        /// The API server answers and is healthy.
        Available,
        /// The API server is not available, and no more specific reason is known.
        NotAvailable,
        /// Availability is not known. This version does not set it.
        AvailableUnknown,
        /// Every part that the summary covers is healthy.
        Ready,
        /// Another condition is not healthy; the message names it.
        NotReady,
        /// Pods are being replaced.
        RollingOut,
        /// All pods match the spec.
        NotRollingOut,
        /// Fewer replicas run than desired.
        ScalingUp,
        /// No replicas are being added.
        NotScalingUp,
        /// More replicas run than desired.
        ScalingDown,
        /// No replicas are being removed.
        NotScalingDown,
        /// Reconciliation is paused: the Cluster sets `spec.paused`, or the object carries a pause annotation.
        Paused,
        /// Reconciliation is not paused.
        NotPaused,
        /// The object is not being deleted.
        NotDeleting,
        /// Deletion started.
        Deleting,
        /// Deletion is complete. This version does not set it.
        DeletionCompleted,
        /// An unexpected error occurred; the message contains it. The controller retries.
        InternalError,
        /// The Kubernetes API rejected a request: an RBAC permission is missing.
        Forbidden,

        // --- general ------------------------------------------------------------------------------------------
        /// The spec passed every check.
        Valid,
        /// The object exists.
        Created,
        /// The value is set.
        Patched,
        /// The condition does not apply to this object.
        NotApplicable,
        /// The controller has not checked this part yet.
        Pending,
        /// Fields are set that have no effect in this version; the message lists them.
        FieldNotSupported,
        /// A field violates a rule that the API server cannot check; the message names the field and the fix.
        InvalidSpec,
        /// A field asks for a power that this installation does not give to authors; the message names field and flag.
        NotAllowed,
        /// The object does not decode in this version; the message names the path and what is expected there. Nothing is
        /// done for the object until it decodes.
        NotDecodable,
        /// An object of the desired name exists and has another owner. It is not changed.
        OwnedByAnother,
        /// Another hosting engine holds its Lease and may own this object. This version does not set it.
        PeerEngineActive,

        // --- version ------------------------------------------------------------------------------------------
        /// The version is not a semantic version.
        InvalidVersion,
        /// The version is more than one minor above the running version.
        VersionStepTooLarge,
        /// The version is below the running version.
        VersionDowngrade,
        /// The version is outside the supported range.
        VersionNotSupported,
        /// The versions of kubelet and control plane are further apart than Kubernetes supports.
        VersionSkew,

        // --- datastore ----------------------------------------------------------------------------------------
        /// The user and prefix of the tenant exist in the DataStore.
        DataStoreReady,
        /// No DataStore is named, and there is no default DataStore.
        DataStoreNotSelected,
        /// The named DataStore does not exist.
        DataStoreNotFound,
        /// The DataStore exists but is not ready.
        DataStoreNotReady,
        /// The DataStore does not answer.
        DataStoreUnreachable,
        /// The DataStore is busy with other tenants; this one has its turn after them.
        DataStoreBusy,
        /// The DataStore rejected the credentials.
        DataStoreUnauthorized,
        /// The DataStore does not authenticate its clients, so tenants are not isolated from each other.
        DataStoreAuthenticationDisabled,
        /// The version of the DataStore keeps tenants apart.
        DataStoreVersionSafe,
        /// The version of the DataStore does not keep tenants apart: no new tenant is set up in it.
        DataStoreVersionUnsafe,
        /// The version of the DataStore does not keep tenants apart, and an annotation accepts that.
        DataStoreVersionAccepted,
        /// The DataStore refuses its status to the certificates of tenants, so watches of their API servers fail.
        DataStoreStatusRefused,
        /// The DataStore has room for more data.
        SpaceAvailable,
        /// The DataStore uses more than four fifths of its quota. At its end no tenant in it can write.
        DataStoreFilling,
        /// The DataStore uses its whole quota and takes no writes.
        DataStoreFull,
        /// This version does not support the driver.
        DriverNotSupported,
        /// The DataStore is being deleted.
        DataStoreDeleting,
        /// The schema or user name is reserved.
        ReservedName,
        /// The prefix carries the ownership mark of another tenant.
        SchemaOwnedByAnother,
        /// The user or role exists and belongs to another tenant.
        UserOwnedByAnother,
        /// The DataStore has no record of a tenant that was set up in it: it is not the one that holds the data, or
        /// it lost the data.
        DataMissing,
        /// The datastore is not the one that the DataStore was set up on, or it lost its data. Nothing is set up in it.
        DataLost,
        /// The tenant cannot be moved to another DataStore in this version.
        MigrationNotSupported,
        /// A referenced Secret, or a key of it, does not exist.
        SecretNotFound,
        /// The credentials cannot be parsed, or certificate and key do not match.
        CredentialsInvalid,
        /// Defined by Kamaji: not checked yet.
        MissingCondition,
        /// Defined by Kamaji: the user or the password is missing. This version does not set it.
        BasicAuthValidationFailed,
        /// Defined by Kamaji: a certificate or key is missing or cannot be parsed.
        TLSConfigurationValidationFailed,
        /// Defined by Kamaji: the spec and the referenced Secrets are valid.
        DataStoreIsValid,
        /// Defined by Kamaji: a TenantControlPlane uses the DataStore.
        DataStoreStillUsed,
        /// Defined by Kamaji: no TenantControlPlane uses the DataStore.
        DataStoreUnused,
        /// A PersistentVolumeClaim cannot be bound; the message names it.
        StorageUnavailable,
        /// The members of the managed etcd do not answer yet.
        WaitingForMembers,
        /// The members of the managed etcd run and form a quorum.
        MembersReady,
        /// The DataStore answered an authenticated request.
        Reachable,

        // --- certificates -------------------------------------------------------------------------------------
        /// All certificates and keys exist.
        CertificatesAvailable,
        /// A certificate or key does not exist yet.
        WaitingForCertificates,
        /// The CA provided by the user cannot be parsed.
        CertificateAuthorityInvalid,
        /// The key of the CA provided by the user belongs to another certificate.
        CertificateAuthorityKeyMismatch,
        /// The CA provided by the user is not the CA that the tenant uses.
        CertificateAuthorityDiffers,
        /// The CA expires soon. This version does not set it.
        CertificateAuthorityExpiring,
        /// The CA has expired, so no certificate can be issued; the message names the Secret.
        CertificateAuthorityExpired,
        /// The Secret of a CA or of the ServiceAccount key pair was deleted or modified. No replacement is generated,
        /// because that would lock out every node.
        CertificateAuthorityLost,
        /// A certificate expires soon. This version does not set it.
        CertificateExpiring,
        /// The CA was replaced, and the certificates that it issues are being replaced.
        CertificateAuthorityRotating,

        // --- endpoint -----------------------------------------------------------------------------------------
        /// The endpoint is known.
        EndpointReady,
        /// The Service has no cluster IP yet.
        WaitingForService,
        /// The load balancer has no address yet.
        WaitingForLoadBalancer,
        /// Service type NodePort requires `network.serviceAddress` (`networkProfile.address` of a
        /// TenantControlPlane).
        AddressRequired,
        /// The address is not an IP address.
        AddressInvalid,
        /// The port is outside the node port range, or another Service uses it.
        PortNotAllocatable,
        /// Two ports of the control plane are equal.
        PortConflict,
        /// The API server rejected the Service; the message contains its answer.
        ServiceRejected,
        /// The spec, or the Service, asks for another endpoint than the published one, which stays until an annotation
        /// permits the move.
        EndpointChanged,
        /// The endpoint moves; the published one stays until every pod serves the new one.
        EndpointMoving,
        /// The endpoint moved, and the Cluster still has the former one, which Cluster API does not change.
        EndpointMoved,
        /// The former endpoints lead to this control plane.
        FormerEndpointsServed,
        /// Whether the former endpoints lead to this control plane cannot be seen from here.
        FormerEndpointsUnverified,
        /// A former endpoint does not lead to this control plane any more: nodes that use it are cut off.
        NodesCutOff,
        /// The Cluster has no control plane endpoint yet.
        WaitingForEndpoint,
        /// Another server than this control plane answers at the published endpoint.
        EndpointMismatch,
        /// Nobody answers at the published endpoint when the management cluster asks.
        EndpointNotAnswering,

        // --- workload -----------------------------------------------------------------------------------------
        /// The desired number of replicas is 0: the control plane sleeps.
        Sleeping,
        /// The desired number of replicas was raised from 0; pods start.
        Waking,
        /// Pods start or are being replaced.
        WaitingForPods,
        /// A container fails repeatedly; the message names it.
        PodsFailing,
        /// The pods could not be created; the message contains the answer of the API server.
        PodsRejected,
        /// Every pod of the Deployment is ready and matches the spec.
        DeploymentReady,
        /// The first rollout is in progress.
        Provisioning,
        /// A new version is being rolled out.
        Upgrading,
        /// The data moves to another DataStore.
        Migrating,
        /// Writes are rejected because of `writePermissions`.
        WriteLimited,
        /// The tenant's API server does not answer.
        APIServerUnreachable,
        /// The tenant's API server answers and reports that it is not healthy.
        APIServerUnhealthy,

        // --- workload cluster --------------------------------------------------------------------------------
        /// The RBAC rules in the workload cluster match the desired ones.
        TenantRBACReady,
        /// The RBAC rules in the workload cluster could not be applied or read back.
        TenantRBACFailed,
        /// The add-ons match the spec.
        AddonsReady,
        /// An add-on could not be applied; the message names it.
        AddonsFailed,
        /// Every API server that was asked reaches the kubelets that were asked; the message names them.
        NodesReachable,
        /// The API servers reach the kubelets that were asked, and konnectivity agents do not run; the message names one.
        AgentsNotRunning,
        /// An API server does not reach the kubelet of a Ready node; the message names both.
        NodesNotReachable,
        /// Whether the nodes can be reached could not be tried; the message says why.
        ProbeFailed,
        /// No node is Ready, so whether nodes can be reached is not known.
        NoReadyNodes,
        /// The kubeconfig Secret does not exist yet.
        WaitingForKubeconfig,
        /// The kubeconfig Secrets exist and match the CA and the endpoint.
        KubeconfigsAvailable,

        // --- deletion -----------------------------------------------------------------------------------------
        /// Machines of the Cluster still exist. The control plane serves until they are gone.
        WaitingForWorkersDeletion,
        /// The TenantControlPlane still exists.
        WaitingForTenantControlPlaneDeletion,
        /// Pods of the control plane still run.
        WaitingForPodsDeletion,
        /// The keys, role and user of the tenant are being removed. This version does not set it.
        DeletingData,
        /// The data cannot be removed because the DataStore is not reachable.
        WaitingForDataStore,
        /// Objects of the tenant still exist in the management cluster.
        WaitingForObjectsDeletion,
        /// The data was left in the DataStore because of an annotation. This version does not set it.
        DataAbandoned,
        /// TenantControlPlanes still use the DataStore.
        WaitingForTenantsDeletion,

        // --- Cluster API --------------------------------------------------------------------------------------
        /// The object has no owner yet.
        WaitingForOwner,
        /// The Cluster does not exist yet.
        WaitingForCluster,
        /// The infrastructure of the Cluster is not provisioned yet.
        WaitingForInfrastructure,
        /// The TenantControlPlane does not exist yet or is not ready.
        WaitingForTenantControlPlane,
        /// The control plane is not initialized yet.
        WaitingForControlPlaneInitialized,
        /// The control plane is initialized.
        Initialized,
        /// The owner is of a kind that this version does not support. This version does not set it.
        OwnerNotSupported,
        /// A control plane Machine owns the config. The control plane runs as pods and has no Machines.
        ControlPlaneMachineNotSupported,
        /// The infrastructure keeps an endpoint of its own and takes none from a control plane.
        InfrastructureClusterNotPatched,
        /// The kind of the infrastructure cluster is not installed.
        InfrastructureNotInstalled,
        /// The definition of the infrastructure cluster names no version that follows a contract of Cluster API.
        NoContractLabel,
        /// The infrastructure cluster is not set up for a control plane that it does not host; the message names the field.
        HostedModeNotConfigured,
        /// The infrastructure cluster needs its endpoint before it is created; the message has the endpoint.
        EndpointMustBePreset,
        /// The infrastructure cluster has another endpoint, set by somebody else.
        EndpointConflict,
        /// The API server accepted the endpoint for the infrastructure cluster and stored something else.
        WriteHadNoEffect,
        /// A webhook, a policy or the schema refuses the endpoint for the infrastructure cluster; the message quotes it.
        EndpointRejected,
        /// The infrastructure cluster has the endpoint; its annotation `cluster.x-k8s.io/managed-by` is one that its
        /// provider does not know.
        ManagedByIgnored,

        // --- bootstrap ----------------------------------------------------------------------------------------
        /// The bootstrap data Secret exists.
        DataSecretAvailable,
        /// The bootstrap data exceeds the size that infrastructure providers accept.
        TooLarge,
        /// An event: the bootstrap data is near the size that the infrastructure takes at most, or may be above it.
        UserDataNearLimit,
        /// An event: the configuration of the kubelet has a field that the kubelet of this version does not know, and ignores.
        UnknownKubeletField,
        /// A file uses a path that the bootstrap provider writes itself.
        ReservedPath,
        /// The kubelet is not allowed to set this label on its own Node.
        LabelNotAllowed,
        /// A kubelet setting would weaken the protection of the node.
        ProtectedSetting,
        /// A referenced Secret or ConfigMap, or a key of it, does not exist.
        ReferenceNotFound,
        /// A Secret with the name of the bootstrap data Secret exists and has another owner.
        SecretNameTaken,
        /// The Machine has no version.
        WaitingForVersion,
        /// The spec changed after the bootstrap data was generated. The change applies to new Machines only.
        SpecChangedAfterRender,
        /// The token is valid.
        TokenValid,
        /// The token reached `auth.token.maxLifetime` before the machine joined.
        MaxLifetime,
        /// The token was deleted because the machine joined.
        TokenRemoved,
        /// The token was deleted because its bearer asked for what it may not have, or reported without end.
        TokenAbused,
        /// The tenant's API server does not answer.
        TenantUnreachable,
        /// An object in the workload cluster is too large to be read; the message names its kind.
        ObjectTooLarge,
        /// NodeRestriction is active. This version does not set it.
        NodeRestrictionVerified,
        /// It could not be verified that NodeRestriction is active. This version does not set it.
        NodeRestrictionUnverified,
        /// No binding that approves requests automatically was found.
        Strict,
        /// A binding in the workload cluster approves the requests of bootstrap identities automatically.
        AutoApprovalBound,
        /// The Node joined.
        NodeJoined,
        /// The machine has not requested its certificate yet.
        WaitingForNode,
        /// A Node of that name already exists.
        NodeExists,
        /// The version of the node differs from the version of its Machine.
        KubeletVersionMismatch,
        /// The version of the node is the version of its Machine.
        KubeletVersionMatch,
        /// Reported by the machine: a required program is missing.
        ComponentMissing,
        /// Reported by the machine: the checksum of a download is wrong.
        ChecksumMismatch,
        /// Reported by the machine: the container runtime does not answer.
        RuntimeUnavailable,
        /// Reported by the machine: the certificate of the API server is not trusted.
        CertificateUntrusted,
        /// Reported by the machine: its clock is wrong.
        ClockSkew,
        /// Reported by the machine: its node name is not valid.
        NodeNameInvalid,
        /// Reported by the machine: the metadata of its instance gives no value for a label.
        NodeLabelInvalid,
        /// Reported by the machine: a command of `preJoinCommands` failed.
        PreJoinFailed,
        /// A command of `postJoinCommands` failed. The machine writes it to its console and journal.
        PostJoinFailed,
        /// Reported by the machine: it did not become a Node within `joinTimeout`.
        JoinTimeout,
        /// The Machine reports no addresses. This version does not set it.
        NoMachineAddresses,
        /// The node signs its own serving certificate. This version does not set it.
        SelfSigned,
        /// The Machine has no provider ID yet.
        WaitingForProviderID,
        /// The provider ID of the Node is set.
        ProviderIDSet,
        /// The provider ID of the Node differs from the provider ID of the Machine.
        ProviderIDMismatch,

        // --- certificate requests -----------------------------------------------------------------------------
        /// Approved: the token, the config, the Machine and the requested name belong together.
        KamajiTokenBound,
        /// Approved: every requested address belongs to the Machine. This version does not set it.
        KamajiAddressesVerified,
        /// Denied: a kubelet does not send such a request.
        MalformedRequest,
        /// Denied: the token does not belong to a KamajiConfig.
        UnknownToken,
        /// Denied: the requested name is not the name of the Machine's node.
        NameMismatch,
        /// Denied: the Machine is being deleted or already has another Node.
        MachineNotEligible,
        /// Denied: another KamajiConfig reserved the name.
        NameClaimed,
        /// Denied: too many requests of this KamajiConfig were approved a short time ago.
        TooMany,
        /// The request waits: the MachinePool has as many Nodes as it may have.
        PoolFull,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_passes_the_cluster_schema() {
        for reason in Reason::ALL {
            assert!(is_reason(reason.as_str()), "{reason}");
        }
        assert!(!is_reason("Not-Ready") && !is_reason("1st") && !is_reason("Ends:") && !is_reason(""));
    }

    #[test]
    fn condition_types_are_qualified_names_and_unique() {
        fn check(names: Vec<&'static str>) {
            let unique: BTreeSet<_> = names.iter().collect();
            assert_eq!(unique.len(), names.len());
            for name in names {
                let bare = name.rsplit('/').next().unwrap_or_default();
                assert!(
                    bare.len() <= 63 && bare.chars().all(|c| c.is_ascii_alphanumeric()),
                    "{name}"
                );
            }
        }
        check(
            TenantControlPlaneCondition::ALL
                .iter()
                .map(|c| c.as_str())
                .collect(),
        );
        check(DataStoreCondition::ALL.iter().map(|c| c.as_str()).collect());
        check(
            KamajiControlPlaneCondition::ALL
                .iter()
                .map(|c| c.as_str())
                .collect(),
        );
        check(KamajiConfigCondition::ALL.iter().map(|c| c.as_str()).collect());
    }

    #[test]
    fn no_more_conditions_than_the_list_takes() {
        assert!(KamajiControlPlaneCondition::ALL.len() <= 32);
        assert!(KamajiConfigCondition::ALL.len() <= 32);
    }

    #[test]
    fn negative_types_are_those_clusterctl_knows_and_ours() {
        assert!(is_negative("Paused") && is_negative("RollingOut") && is_negative("FieldNotSupported"));
        assert!(!is_negative("Available"));
    }
}
