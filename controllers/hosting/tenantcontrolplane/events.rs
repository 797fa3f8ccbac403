//! Decides which transitions of a TenantControlPlane's conditions emit a Warning Event: conditions that become
//! unhealthy for a reason that is not part of normal start-up or rollout. Pure.

use kamaji_api::conditions::{Reason, TenantControlPlaneCondition as On};

use crate::k8s::report::{Except, Rule, When};

/// The table. `Ready` and `Paused` are not in it: `Ready` summarises the other conditions, and a pause is the user's
/// own act.
pub const RULES: [Rule; 1] = [Rule {
    conditions: &[
        On::SpecValid.as_str(),
        On::DataStoreReady.as_str(),
        On::EndpointReady.as_str(),
        On::CertificatesAvailable.as_str(),
        On::KubeconfigsAvailable.as_str(),
        On::FormerEndpointsServed.as_str(),
        On::DeploymentReady.as_str(),
        On::Available.as_str(),
        On::TenantRBACReady.as_str(),
        On::AddonsReady.as_str(),
        On::TunnelReady.as_str(),
        On::RollingOut.as_str(),
        On::Deleting.as_str(),
        On::FieldNotSupported.as_str(),
    ],
    when: When::Unhealthy,
    except: &[
        Except::Reasons(&[
            Reason::Pending,
            Reason::WaitingForService,
            Reason::EndpointMoving,
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
        ]),
        // The first pods do not listen yet.
        Except::StartUp {
            until: On::Available.as_str(),
            reason: Reason::APIServerUnreachable,
        },
    ],
}];

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

    use super::*;
    use crate::k8s::{
        conditions::{self, Verdict},
        report::transitions,
    };

    fn status(verdicts: impl IntoIterator<Item = Verdict>) -> Vec<Condition> {
        let mut list = Vec::new();
        for verdict in verdicts {
            conditions::set(&mut list, verdict, None, Timestamp::UNIX_EPOCH);
        }
        list
    }

    fn bad(on: On, reason: Reason) -> Verdict {
        Verdict::no(on.as_str(), reason, "why")
    }

    fn reasons(old: &[Condition], new: &[Condition]) -> Vec<String> {
        let events = transitions(old, new, &RULES).into_iter();
        events.map(|event| event.reason).collect()
    }

    #[test]
    fn an_unhealthy_condition_emits_one_event_and_a_normal_start_none() {
        let none = Vec::<String>::new();
        let starting = status([
            bad(On::Available, Reason::APIServerUnreachable),
            bad(On::DeploymentReady, Reason::WaitingForPods),
        ]);
        assert_eq!(reasons(&[], &starting), none);
        let lost = status([bad(On::DataStoreReady, Reason::DataMissing)]);
        assert_eq!(reasons(&[], &lost), ["DataMissing"]);
        assert_eq!(reasons(&lost, &lost), none, "it was reported before");
        let serving = status([Verdict::yes(On::Available.as_str(), Reason::Available, "")]);
        assert_eq!(reasons(&serving, &starting), ["APIServerUnreachable"]);
    }
}
