//! Admission plugins of a tenant's API server that the API accepts, and Kamaji's default list. NodeRestriction is not in
//! the default list: the engine enables it separately, so that a list without it does not expose nodes to each other.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Name of an admission plugin, as `--enable-admission-plugins` expects it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[expect(missing_docs, reason = "the names are Kubernetes' own and documented there")]
pub enum AdmissionPlugin {
    AlwaysAdmit,
    AlwaysDeny,
    AlwaysPullImages,
    CertificateApproval,
    CertificateSigning,
    CertificateSubjectRestriction,
    DefaultIngressClass,
    DefaultStorageClass,
    DefaultTolerationSeconds,
    DenyEscalatingExec,
    DenyExecOnPrivileged,
    DenyServiceExternalIPs,
    EventRateLimit,
    ExtendedResourceToleration,
    ImagePolicyWebhook,
    LimitPodHardAntiAffinityTopology,
    LimitRanger,
    MutatingAdmissionWebhook,
    NamespaceAutoProvision,
    NamespaceExists,
    NamespaceLifecycle,
    NodeRestriction,
    OwnerReferencesPermissionEnforcement,
    PersistentVolumeClaimResize,
    PersistentVolumeLabel,
    PodNodeSelector,
    PodSecurity,
    PodSecurityPolicy,
    PodTolerationRestriction,
    Priority,
    ResourceQuota,
    RuntimeClass,
    SecurityContextDeny,
    ServiceAccount,
    StorageObjectInUseProtection,
    TaintNodesByCondition,
    ValidatingAdmissionWebhook,
}

impl AdmissionPlugin {
    /// The name as the flag expects it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AlwaysAdmit => "AlwaysAdmit",
            Self::AlwaysDeny => "AlwaysDeny",
            Self::AlwaysPullImages => "AlwaysPullImages",
            Self::CertificateApproval => "CertificateApproval",
            Self::CertificateSigning => "CertificateSigning",
            Self::CertificateSubjectRestriction => "CertificateSubjectRestriction",
            Self::DefaultIngressClass => "DefaultIngressClass",
            Self::DefaultStorageClass => "DefaultStorageClass",
            Self::DefaultTolerationSeconds => "DefaultTolerationSeconds",
            Self::DenyEscalatingExec => "DenyEscalatingExec",
            Self::DenyExecOnPrivileged => "DenyExecOnPrivileged",
            Self::DenyServiceExternalIPs => "DenyServiceExternalIPs",
            Self::EventRateLimit => "EventRateLimit",
            Self::ExtendedResourceToleration => "ExtendedResourceToleration",
            Self::ImagePolicyWebhook => "ImagePolicyWebhook",
            Self::LimitPodHardAntiAffinityTopology => "LimitPodHardAntiAffinityTopology",
            Self::LimitRanger => "LimitRanger",
            Self::MutatingAdmissionWebhook => "MutatingAdmissionWebhook",
            Self::NamespaceAutoProvision => "NamespaceAutoProvision",
            Self::NamespaceExists => "NamespaceExists",
            Self::NamespaceLifecycle => "NamespaceLifecycle",
            Self::NodeRestriction => "NodeRestriction",
            Self::OwnerReferencesPermissionEnforcement => "OwnerReferencesPermissionEnforcement",
            Self::PersistentVolumeClaimResize => "PersistentVolumeClaimResize",
            Self::PersistentVolumeLabel => "PersistentVolumeLabel",
            Self::PodNodeSelector => "PodNodeSelector",
            Self::PodSecurity => "PodSecurity",
            Self::PodSecurityPolicy => "PodSecurityPolicy",
            Self::PodTolerationRestriction => "PodTolerationRestriction",
            Self::Priority => "Priority",
            Self::ResourceQuota => "ResourceQuota",
            Self::RuntimeClass => "RuntimeClass",
            Self::SecurityContextDeny => "SecurityContextDeny",
            Self::ServiceAccount => "ServiceAccount",
            Self::StorageObjectInUseProtection => "StorageObjectInUseProtection",
            Self::TaintNodesByCondition => "TaintNodesByCondition",
            Self::ValidatingAdmissionWebhook => "ValidatingAdmissionWebhook",
        }
    }

    /// Kamaji's default list, in its order.
    pub fn defaults() -> Vec<Self> {
        DEFAULTS.to_vec()
    }
}

/// Kamaji's default list, in its order.
pub const DEFAULTS: &[AdmissionPlugin] = &[
    AdmissionPlugin::CertificateApproval,
    AdmissionPlugin::CertificateSigning,
    AdmissionPlugin::CertificateSubjectRestriction,
    AdmissionPlugin::DefaultIngressClass,
    AdmissionPlugin::DefaultStorageClass,
    AdmissionPlugin::DefaultTolerationSeconds,
    AdmissionPlugin::LimitRanger,
    AdmissionPlugin::MutatingAdmissionWebhook,
    AdmissionPlugin::NamespaceLifecycle,
    AdmissionPlugin::PersistentVolumeClaimResize,
    AdmissionPlugin::Priority,
    AdmissionPlugin::ResourceQuota,
    AdmissionPlugin::RuntimeClass,
    AdmissionPlugin::ServiceAccount,
    AdmissionPlugin::StorageObjectInUseProtection,
    AdmissionPlugin::TaintNodesByCondition,
    AdmissionPlugin::ValidatingAdmissionWebhook,
];
