//! Switches that a user sets by annotation of the TenantControlPlane. Pure.

use kamaji_api::{labels::ours, tenantcontrolplane::TenantControlPlane};
use kube::ResourceExt;

use crate::k8s::conditions::quoted;

/// A switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// See [`ours::NODE_RESTRICTION`].
    NodeRestriction,
    /// See [`ours::NETWORK_POLICY`].
    NetworkPolicy,
    /// See [`ours::VERIFY_KUBELETS`].
    VerifyKubelets,
}

impl Switch {
    const ALL: [Self; 3] = [Self::NodeRestriction, Self::NetworkPolicy, Self::VerifyKubelets];

    /// The annotation, and its only value that has an effect: the opposite of the default.
    fn annotation(self) -> (&'static str, &'static str) {
        match self {
            Self::NodeRestriction => (ours::NODE_RESTRICTION, ours::DISABLED),
            Self::NetworkPolicy => (ours::NETWORK_POLICY, ours::DISABLED),
            Self::VerifyKubelets => (ours::VERIFY_KUBELETS, ours::ENABLED),
        }
    }

    /// Whether the annotation switches it away from its default.
    pub fn is_set(self, tenant: &TenantControlPlane) -> bool {
        let (key, value) = self.annotation();
        tenant.annotations().get(key).is_some_and(|given| given == value)
    }

    /// Describes each annotation whose value is neither `enabled` nor `disabled`.
    pub fn unknown(tenant: &TenantControlPlane) -> impl Iterator<Item = String> {
        Self::ALL.into_iter().filter_map(|switch| {
            let (key, _) = switch.annotation();
            let given = tenant.annotations().get(key)?;
            let known = [ours::ENABLED, ours::DISABLED].contains(&given.as_str());
            (!known).then(|| {
                let given = quoted(given);
                format!(
                    "annotation {key} ({given:?} is neither {} nor {})",
                    ours::ENABLED,
                    ours::DISABLED
                )
            })
        })
    }
}
