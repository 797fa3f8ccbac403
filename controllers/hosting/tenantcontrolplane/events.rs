//! Which changes of a tenant's status are told by a Warning event: what turned bad, and is no part of a healthy life.

use kamaji_api::conditions::{Reason, TenantControlPlaneCondition as On};
use kamaji_api::tenantcontrolplane::TenantControlPlaneStatus;

use crate::k8s::conditions;

/// Reasons of waits that are part of a healthy life: told by condition, not by event.
const EXPECTED: [Reason; 14] = [
    Reason::Pending,
    Reason::WaitingForService,
    Reason::WaitingForPods,
    Reason::WaitingForCertificates,
    Reason::WaitingForPodsDeletion,
    Reason::WaitingForObjectsDeletion,
    Reason::Waking,
    Reason::Sleeping,
    Reason::DataStoreNotReady,
    Reason::Provisioning,
    Reason::Upgrading,
    Reason::RollingOut,
    Reason::Deleting,
    Reason::NotRollingOut,
];

/// What has to be told by a Warning: conditions that turned bad, or bad for another reason. `Ready` only sums up.
pub fn worsened(
    old: Option<&TenantControlPlaneStatus>,
    new: &TenantControlPlaneStatus,
) -> Vec<(String, String)> {
    let served = old
        .and_then(|old| conditions::get(&old.conditions, On::Available.as_str()))
        .is_some_and(|available| available.status == "True");
    let mut told: Vec<(String, String)> = Vec::new();
    for condition in &new.conditions {
        let negative = kamaji_api::conditions::is_negative(&condition.type_);
        let bad = condition.status == if negative { "True" } else { "False" };
        // Its first pods have only begun to listen.
        let begins = !served && condition.reason == Reason::APIServerUnreachable.as_str();
        let expected = begins
            || EXPECTED.iter().any(|reason| reason.as_str() == condition.reason)
            || [On::Ready.as_str(), On::Paused.as_str()].contains(&condition.type_.as_str());
        if !bad || expected {
            continue;
        }
        let before = old.and_then(|old| conditions::get(&old.conditions, &condition.type_));
        let known = before.is_some_and(|b| b.status == condition.status && b.reason == condition.reason);
        let entry = (condition.reason.clone(), condition.message.clone());
        if !known && !told.contains(&entry) {
            told.push(entry);
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::k8s::conditions::Verdict;

    fn status(verdicts: impl IntoIterator<Item = Verdict>) -> TenantControlPlaneStatus {
        let mut status = TenantControlPlaneStatus::default();
        for verdict in verdicts {
            conditions::set(&mut status.conditions, verdict, None, Timestamp::UNIX_EPOCH);
        }
        status
    }

    fn bad(on: On, reason: Reason) -> Verdict {
        Verdict::no(on.as_str(), reason, "why")
    }

    fn reasons(old: Option<&TenantControlPlaneStatus>, new: &TenantControlPlaneStatus) -> Vec<String> {
        worsened(old, new).into_iter().map(|(reason, _)| reason).collect()
    }

    #[test]
    fn what_turned_bad_is_told_once_and_what_belongs_to_a_start_is_not() {
        let none = Vec::<String>::new();
        let starting = status([
            bad(On::Available, Reason::APIServerUnreachable),
            bad(On::DeploymentReady, Reason::WaitingForPods),
        ]);
        assert_eq!(reasons(None, &starting), none);
        let lost = status([bad(On::DataStoreReady, Reason::DataMissing)]);
        assert_eq!(reasons(None, &lost), ["DataMissing"]);
        assert_eq!(reasons(Some(&lost), &lost), none, "it is known");
        let serving = status([Verdict::yes(On::Available.as_str(), Reason::Available, "")]);
        assert_eq!(reasons(Some(&serving), &starting), ["APIServerUnreachable"]);
    }
}
