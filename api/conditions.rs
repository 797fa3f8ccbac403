//! Condition types and reasons of TenantControlPlane, DataStore, KamajiControlPlane and KamajiConfig.
//! Owns the names and their polarity; when a condition is set is decided by the controllers.
//! Source: contract.md 1.5, bootstrap.md 3.2, DESIGN 2.12 and 7.
//!
//! Rules that hold for all of them:
//! - a reason matches [`REASON_PATTERN`]: Cluster API mirrors reasons into the Cluster, whose schema refuses the
//!   rest together with the whole status patch (contract.md, rule 9);
//! - a type marked *negative* is healthy while `False`; every other one is healthy while `True`;
//! - [`FIELD_NOT_SUPPORTED`] is present only while it is `True`, so a healthy object shows no noise.

use crate::named::named;

/// What a reason must look like (`metav1.Condition.reason`).
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

/// Type of the condition that names accepted fields without effect; the same on every kind. Negative, and absent
/// while no such field is set. Its reason is [`Reason::FieldNotSupported`], its message lists the field paths.
pub const FIELD_NOT_SUPPORTED: &str = "FieldNotSupported";

named! {
    /// Condition types of TenantControlPlane.
    pub enum TenantControlPlaneCondition {
        /// Summary: valid, datastore set up, certificates there, API answering.
        Ready,
        /// An authenticated request through the Service (or the endpoint, where no Service is reachable) answered.
        Available,
        /// The spec was checked against other objects and against the running version.
        SpecValid,
        /// A DataStore is chosen, reachable, and holds this tenant's user, role, prefix and ownership mark.
        DataStoreReady,
        /// CA, leaf certificates and keys are there, verify, and are not close to their end.
        CertificatesAvailable,
        /// The kubeconfig Secrets are there and match CA and endpoint.
        KubeconfigsAvailable,
        /// The Service has the address that tenants and nodes are told.
        EndpointReady,
        /// The Deployment runs what was asked for.
        DeploymentReady,
        /// The rights of nodes and admins inside the tenant were applied and read back.
        TenantRBACReady,
        /// CoreDNS and kube-proxy inside the tenant are as asked for.
        AddonsReady,
        /// Negative: pods or version differ from the spec and are being replaced.
        RollingOut,
        /// Negative: reconciliation is paused by annotation.
        Paused,
        /// Negative: deletion is under way; the reason names the step.
        Deleting,
        /// Negative: see [`FIELD_NOT_SUPPORTED`].
        FieldNotSupported,
    }
}

named! {
    /// Condition types of DataStore.
    pub enum DataStoreCondition {
        /// Summary: valid and answering.
        Ready,
        /// Kamaji's own: the referenced Secrets exist and parse.
        Validation = "kamaji.clastix.io/DataStoreValidation",
        /// Kamaji's own: False while a TenantControlPlane uses it.
        AllowedDeletion = "kamaji.clastix.io/DataStoreAllowedDeletion",
        /// The store answered an authenticated request.
        Reachable,
        /// Managed stores only: CA and certificates of its members are there.
        CertificatesAvailable,
        /// Managed stores only: the members run on bound volumes and form a quorum.
        MembersReady,
        /// Negative: reconciliation is paused by annotation.
        Paused,
        /// Negative: deletion is under way; the reason names the step.
        Deleting,
        /// Negative: see [`FIELD_NOT_SUPPORTED`].
        FieldNotSupported,
    }
}

named! {
    /// Condition types of KamajiControlPlane. The first eight are read by Cluster API or its tools.
    pub enum KamajiControlPlaneCondition {
        /// Feeds `ControlPlaneAvailable` of the Cluster: health as seen through the API, not a latch.
        Available,
        /// Negative: pods or versions differ from the spec.
        RollingOut,
        /// Negative: fewer replicas than asked for.
        ScalingUp,
        /// Negative: more replicas than asked for.
        ScalingDown,
        /// Negative: the Cluster or the object is paused.
        Paused,
        /// Negative: deletion is under way; the reason names the step.
        Deleting,
        /// The cluster's CA and kubeconfig Secrets are there and not close to their end.
        CertificatesAvailable,
        /// Summary, kept for tools of the v1beta1 contract.
        Ready,
        /// The spec was checked against other objects and against the running version.
        SpecValid,
        /// The Go provider's: the TenantControlPlane was applied.
        TenantControlPlaneCreated,
        /// The Go provider's: the TenantControlPlane has an address.
        TenantControlPlaneAddressReady,
        /// The Go provider's: `spec.controlPlaneEndpoint` is written.
        ControlPlaneEndpointPatched,
        /// The Go provider's: the infrastructure cluster got the endpoint, where it wants one.
        InfrastructureClusterPatched,
        /// The Go provider's: initialized in the sense of the contract.
        KamajiControlPlaneIsInitialized,
        /// The Go provider's: the TenantControlPlane is ready.
        KamajiControlPlaneIsReady,
        /// The Go provider's: `<cluster>-ca` and `<cluster>-kubeconfig` are there.
        KubeadmResourcesCreated,
        /// The Go provider's: the external management cluster of `externalClusterReference` is reachable.
        FoundExternalReferenceClient,
        /// Negative: see [`FIELD_NOT_SUPPORTED`].
        FieldNotSupported,
    }
}

named! {
    /// Condition types of KamajiConfig.
    pub enum KamajiConfigCondition {
        /// Mirrored into `BootstrapConfigReady` of the Machine: data there and no failure reported by the node.
        Ready,
        /// The bootstrap Secret is written.
        DataSecretAvailable,
        /// The tenant's CA is there to be handed to the node.
        CertificatesAvailable,
        /// The spec was checked: labels, paths, kubelet settings, owner.
        SpecValid,
        /// The token in the Secret is alive in the tenant.
        BootstrapTokenValid,
        /// NodeRestriction and the rest of bootstrap.md 1.7 hold in the tenant.
        TenantHardened,
        /// No binding in the tenant lets bootstrap identities be approved automatically.
        CSRApprovalStrict,
        /// The node registered with the name this config claimed.
        NodeJoined,
        /// The node's serving certificate is as `csrApproval.serving` asks.
        ServingCertificate,
        /// The node reports the version of its Machine.
        KubeletVersionMatch,
        /// `spec.providerID` of the Node is written or not ours to write.
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
        /// Healthy: `Available`.
        Available,
        /// `Available` is False without a better name.
        NotAvailable,
        /// `Available` cannot be told.
        AvailableUnknown,
        /// Healthy: `Ready`.
        Ready,
        /// `Ready` is False because another condition is; the message names it.
        NotReady,
        /// Pods are being replaced.
        RollingOut,
        /// Nothing to replace.
        NotRollingOut,
        /// Fewer replicas than asked for.
        ScalingUp,
        /// Not scaling up.
        NotScalingUp,
        /// More replicas than asked for.
        ScalingDown,
        /// Not scaling down.
        NotScalingDown,
        /// Reconciliation is paused.
        Paused,
        /// Reconciliation is not paused.
        NotPaused,
        /// Not being deleted.
        NotDeleting,
        /// Deletion started.
        Deleting,
        /// Deletion ended.
        DeletionCompleted,
        /// An unexpected error; the message carries it.
        InternalError,
        /// The request to the Kubernetes API was refused: a right is missing.
        Forbidden,

        // --- general ------------------------------------------------------------------------------------------
        /// The check passed.
        Valid,
        /// The object exists.
        Created,
        /// The value was written.
        Patched,
        /// It does not apply to this object.
        NotApplicable,
        /// The process only started and has not looked yet.
        Pending,
        /// A field is accepted and does nothing yet; the message names each.
        FieldNotSupported,
        /// A field breaks a rule that the API could not check; the message names field and fix.
        InvalidSpec,
        /// An object of that name belongs to another owner and is left alone.
        OwnedByAnother,
        /// Another engine holds its lease and may own this object.
        PeerEngineActive,

        // --- version ------------------------------------------------------------------------------------------
        /// Not a semantic version.
        InvalidVersion,
        /// More than one minor above the running version.
        VersionStepTooLarge,
        /// Below the running version.
        VersionDowngrade,
        /// Outside the supported range.
        VersionNotSupported,
        /// Kubelet and control plane are too far apart.
        VersionSkew,

        // --- datastore ----------------------------------------------------------------------------------------
        /// The user and prefix of the tenant are in place.
        DataStoreReady,
        /// No DataStore is named and there is no default.
        DataStoreNotSelected,
        /// The named DataStore does not exist.
        DataStoreNotFound,
        /// The DataStore exists and is not ready.
        DataStoreNotReady,
        /// The store does not answer.
        DataStoreUnreachable,
        /// The store refused our credentials.
        DataStoreUnauthorized,
        /// The store does not check who asks, so tenants would not be separated.
        DataStoreAuthenticationDisabled,
        /// The driver is not supported yet.
        DriverNotSupported,
        /// The DataStore is being deleted.
        DataStoreDeleting,
        /// A reserved schema or user name.
        ReservedName,
        /// The prefix carries the ownership mark of another tenant.
        SchemaOwnedByAnother,
        /// The user or role exists and is not this tenant's.
        UserOwnedByAnother,
        /// The datastore knows nothing of a tenant that was set up: it is not the one that holds the data, or lost it.
        DataMissing,
        /// Moving to another DataStore is not possible here.
        MigrationNotSupported,
        /// A referenced Secret or key is missing.
        SecretNotFound,
        /// The credentials do not parse or do not belong together.
        CredentialsInvalid,
        /// Kamaji's own: not checked yet.
        MissingCondition,
        /// Kamaji's own: user or password is missing.
        BasicAuthValidationFailed,
        /// Kamaji's own: a certificate or key is missing.
        TLSConfigurationValidationFailed,
        /// Kamaji's own: checked.
        DataStoreIsValid,
        /// Kamaji's own: a tenant uses it.
        DataStoreStillUsed,
        /// Kamaji's own: no tenant uses it.
        DataStoreUnused,
        /// A claim cannot be bound; the message names it.
        StorageUnavailable,
        /// The store does not answer yet.
        WaitingForMembers,
        /// Members run and form a quorum.
        MembersReady,
        /// The store answered.
        Reachable,

        // --- certificates -------------------------------------------------------------------------------------
        /// Everything needed is there.
        CertificatesAvailable,
        /// Something is being made.
        WaitingForCertificates,
        /// The given CA does not parse.
        CertificateAuthorityInvalid,
        /// The given CA's key belongs to another certificate.
        CertificateAuthorityKeyMismatch,
        /// The given CA is not the one that the tenant uses.
        CertificateAuthorityDiffers,
        /// The given CA ends soon.
        CertificateAuthorityExpiring,
        /// A CA has ended, and something has to be signed by it; the message names the Secret.
        CertificateAuthorityExpired,
        /// A CA or key pair that the tenant was built with is gone or was changed; no other one is made unasked.
        CertificateAuthorityLost,
        /// A certificate ends soon.
        CertificateExpiring,
        /// The CA was replaced and everything below it follows.
        CertificateAuthorityRotating,

        // --- endpoint -----------------------------------------------------------------------------------------
        /// The endpoint is known.
        EndpointReady,
        /// The Service has no cluster address yet.
        WaitingForService,
        /// The load balancer has given no address yet.
        WaitingForLoadBalancer,
        /// NodePort wants `network.serviceAddress` (`networkProfile.address`).
        AddressRequired,
        /// The address is not an IP address.
        AddressInvalid,
        /// The port is outside the range of node ports, or taken.
        PortNotAllocatable,
        /// The Service was refused; the message carries why.
        ServiceRejected,
        /// The address changed after it was published.
        EndpointChanged,
        /// Waiting for the endpoint of the Cluster.
        WaitingForEndpoint,

        // --- workload -----------------------------------------------------------------------------------------
        /// Replicas are zero: asleep on purpose.
        Sleeping,
        /// Replicas grew from zero; pods start.
        Waking,
        /// Pods start.
        WaitingForPods,
        /// A container fails again and again; the message names it.
        PodsFailing,
        /// The pods could not be created; the message carries why.
        PodsRejected,
        /// The Deployment runs as asked.
        DeploymentReady,
        /// The first roll-out is under way.
        Provisioning,
        /// A new version is being rolled out.
        Upgrading,
        /// Data moves to another store.
        Migrating,
        /// Writes are refused on purpose.
        WriteLimited,
        /// The API does not answer.
        APIServerUnreachable,
        /// The API answers and is not healthy.
        APIServerUnhealthy,

        // --- inside the tenant --------------------------------------------------------------------------------
        /// Rights inside the tenant are as they should be.
        TenantRBACReady,
        /// Rights inside the tenant could not be applied or read back.
        TenantRBACFailed,
        /// Add-ons are as asked.
        AddonsReady,
        /// An add-on could not be applied; the message names it.
        AddonsFailed,
        /// No kubeconfig yet.
        WaitingForKubeconfig,
        /// Kubeconfigs are there.
        KubeconfigsAvailable,

        // --- deletion -----------------------------------------------------------------------------------------
        /// Machines of the cluster still exist; the API keeps serving.
        WaitingForWorkersDeletion,
        /// The TenantControlPlane still exists.
        WaitingForTenantControlPlaneDeletion,
        /// Pods of the tenant still run.
        WaitingForPodsDeletion,
        /// Keys, role and user of the tenant are being removed.
        DeletingData,
        /// The store cannot be reached, so the data cannot be removed.
        WaitingForDataStore,
        /// Objects of the tenant still exist.
        WaitingForObjectsDeletion,
        /// The data was given up by annotation.
        DataAbandoned,
        /// Tenants still use the store.
        WaitingForTenantsDeletion,

        // --- Cluster API --------------------------------------------------------------------------------------
        /// No owner yet.
        WaitingForOwner,
        /// The Cluster does not exist (yet).
        WaitingForCluster,
        /// The infrastructure is not provisioned yet.
        WaitingForInfrastructure,
        /// The TenantControlPlane is not there or not ready yet.
        WaitingForTenantControlPlane,
        /// The control plane is not initialized yet.
        WaitingForControlPlaneInitialized,
        /// Initialized.
        Initialized,
        /// An owner of a kind we do not serve.
        OwnerNotSupported,
        /// A control-plane Machine cannot use this config: the control plane runs as pods.
        ControlPlaneMachineNotSupported,
        /// The infrastructure cluster does not want the endpoint from us.
        InfrastructureClusterNotPatched,

        // --- bootstrap ----------------------------------------------------------------------------------------
        /// The data Secret is written.
        DataSecretAvailable,
        /// The data is larger than the infrastructure takes.
        TooLarge,
        /// A user file wants a path that is ours.
        ReservedPath,
        /// A label the kubelet may not set.
        LabelNotAllowed,
        /// A kubelet setting that would open the node.
        ProtectedSetting,
        /// A referenced Secret or ConfigMap, or its key, is missing.
        ReferenceNotFound,
        /// The Secret's name is taken by another owner.
        SecretNameTaken,
        /// The Machine has no version.
        WaitingForVersion,
        /// The spec changed after the data was written; it applies to new machines only.
        SpecChangedAfterRender,
        /// The token is alive.
        TokenValid,
        /// The token reached the end of its maximum life before the machine joined.
        MaxLifetime,
        /// The token was removed because the machine joined.
        TokenRemoved,
        /// The tenant could not be asked.
        TenantUnreachable,
        /// NodeRestriction is on.
        NodeRestrictionVerified,
        /// Nothing proves that NodeRestriction is on.
        NodeRestrictionUnverified,
        /// No automatic approval was found.
        Strict,
        /// A binding approves bootstrap identities automatically.
        AutoApprovalBound,
        /// The node joined.
        NodeJoined,
        /// No certificate request was seen yet.
        WaitingForNode,
        /// A Node of that name exists already.
        NodeExists,
        /// The node is of another version.
        KubeletVersionMismatch,
        /// The node is of the version of its Machine.
        KubeletVersionMatch,
        /// The node lacks a program.
        ComponentMissing,
        /// A download's sum is wrong.
        ChecksumMismatch,
        /// The container runtime does not answer.
        RuntimeUnavailable,
        /// The node does not trust the API's certificate.
        CertificateUntrusted,
        /// The node's clock is off.
        ClockSkew,
        /// The node's name is not acceptable.
        NodeNameInvalid,
        /// A command before join failed.
        PreJoinFailed,
        /// A command after join failed.
        PostJoinFailed,
        /// Join took too long.
        JoinTimeout,
        /// The machine reports no addresses.
        NoMachineAddresses,
        /// The node signs its own serving certificate.
        SelfSigned,
        /// The Machine has no provider id yet.
        WaitingForProviderID,
        /// The provider id is written.
        ProviderIDSet,
        /// The provider id of the Node is not the Machine's.
        ProviderIDMismatch,

        // --- certificate requests -----------------------------------------------------------------------------
        /// Approved: token, config, Machine and name belong together.
        KamajiTokenBound,
        /// Approved: every address belongs to the Machine.
        KamajiAddressesVerified,
        /// Denied: not the request a kubelet makes.
        MalformedRequest,
        /// Denied: the token belongs to no config.
        UnknownToken,
        /// Denied: the name is not the Machine's.
        NameMismatch,
        /// Denied: the Machine is going or has another node.
        MachineNotEligible,
        /// Denied: another config claimed the name.
        NameClaimed,
        /// Denied: too many approvals for one config.
        TooMany,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn contract_rule_9_every_reason_passes_the_cluster_schema() {
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
