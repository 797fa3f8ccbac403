//! News for people: which change of a status is worth an event. Pure.

use kamaji_api::{
    conditions::{KamajiControlPlaneCondition as Own, Reason},
    controlplane::KamajiControlPlaneStatus,
};

use crate::k8s::conditions;

/// What became true or wrong with a status (DESIGN 2.12).
pub struct News {
    /// A warning, or a piece of good news.
    pub warning: bool,
    /// Reason of the condition.
    pub reason: String,
    /// Its message.
    pub note: String,
}

/// Conditions whose trouble is worth an event: it needs somebody to act.
const TELLING: [Own; 5] = [
    Own::SpecValid,
    Own::TenantControlPlaneCreated,
    Own::CertificatesAvailable,
    Own::ControlPlaneEndpointPatched,
    Own::FieldNotSupported,
];

/// What changed between two statuses. Waiting for something that comes by itself is no news.
pub fn news(old: Option<&KamajiControlPlaneStatus>, new: &KamajiControlPlaneStatus) -> Vec<News> {
    let before = old.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let mut list: Vec<_> = new
        .conditions
        .iter()
        .filter(|condition| {
            TELLING.iter().any(|own| own.as_str() == condition.type_)
                && (condition.status == "True") == kamaji_api::conditions::is_negative(&condition.type_)
                && !condition.reason.starts_with("WaitingFor")
                && condition.reason != Reason::Pending.as_str()
                && conditions::get(before, &condition.type_)
                    .is_none_or(|known| known.reason != condition.reason)
        })
        .map(|condition| News {
            warning: true,
            reason: condition.reason.clone(),
            note: condition.message.clone(),
        })
        .collect();
    let initialized = |status: &KamajiControlPlaneStatus| {
        status
            .initialization
            .as_ref()
            .is_some_and(|known| known.control_plane_initialized == Some(true))
    };
    if initialized(new) && !old.is_some_and(initialized) {
        list.push(News {
            warning: false,
            reason: Reason::Initialized.into(),
            note: "the API answers, kubeconfig and endpoint are published".to_owned(),
        });
    }
    list
}
