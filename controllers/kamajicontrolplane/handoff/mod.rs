//! Hands the endpoint to the infrastructure object of the Cluster, whatever its kind: many providers wait for it there
//! before they make anything else. Nothing here waits for the infrastructure in turn, or both would wait for ever.
//!
//! The object is not watched, so that the right to read and patch the kind is enough. It is asked when there is an endpoint
//! to hand over, and again, ever more seldom, while it does not have it. Once the infrastructure is provisioned and the Cluster
//! has its endpoint, the condition `InfrastructureClusterPatched` is what is known: a new process asks nothing.
//!
//! [`decide`] has the steps for one object, [`question`] decides whether to ask, [`memory`] holds what was asked.
//!
//! [`decide`]: crate::capi::infrastructure::decide

mod memory;
mod observe;
mod question;
mod target;

use std::time::{Duration, Instant};

use kamaji_api::conditions::{KamajiControlPlaneCondition as Own, Reason};

use super::{Context, observe::Observed};
use crate::{
    capi::cluster::Cluster,
    k8s::{conditions::Verdict, key::RootKey, problem::Problem},
};

pub use memory::Memory;
pub use target::{Given, Infrastructure, Target};

use question::Question;

/// How far the hand-off is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handoff {
    /// Nothing new: what was reported before stays. After this time it is asked again.
    Known(Option<Duration>),
    /// Nothing is left to do; why.
    Settled(Reason, String),
    /// The object does not have the endpoint; why, and when it is asked again.
    Open(Problem, Option<Duration>),
}

impl Default for Handoff {
    fn default() -> Self {
        Self::Known(None)
    }
}

impl Handoff {
    /// When it is asked again; `None` where a watched change ends the wait, or nothing is left to do.
    pub fn again(&self) -> Option<Duration> {
        match self {
            Self::Known(again) | Self::Open(_, again) => *again,
            Self::Settled(..) => None,
        }
    }

    /// The condition; `None` where there is nothing new to report.
    pub fn verdict(&self) -> Option<Verdict> {
        let condition = Own::InfrastructureClusterPatched.as_str();
        match self {
            Self::Known(_) => None,
            Self::Settled(reason, message) => Some(Verdict::yes(condition, *reason, message.clone())),
            Self::Open(problem, _) => Some(Verdict::no(condition, problem.reason, problem.message.clone())),
        }
    }
}

/// Hands the endpoint over, where that is due. It fails for no other part of the control plane: a problem is reported by its
/// condition and tried again by itself.
pub async fn hand_off(context: &Context, observed: &Observed, cluster: &Cluster) -> Handoff {
    let (key, now) = (RootKey::of(&*observed.control_plane), Instant::now());
    // The endpoint may have been published in this reconcile.
    let newest = context.control_planes.get(&key);
    let control_plane = newest.as_deref().unwrap_or(&observed.control_plane);
    let known = context.handoffs.get(&key);
    let asked = match question::question(
        control_plane,
        cluster,
        known.as_ref(),
        context.infrastructure.is_skipped,
        now,
    ) {
        Question::Answered(handoff) => {
            if cluster.infrastructure_is_missing() {
                context.handoffs.forget(&key);
            }
            return handoff;
        }
        Question::Later(asked, wait) => {
            context.handoffs.keep(&key, asked, Some(wait), now);
            return Handoff::Known(Some(wait));
        }
        Question::Ask(asked) => asked,
    };
    let again = known
        .filter(|known| known.asked == asked)
        .and_then(|known| known.wait);
    let target = Target {
        namespace: &key.namespace,
        reference: &asked.reference,
        endpoint: &asked.endpoint,
        of_cluster: cluster.endpoint(),
    };
    match context.infrastructure.hand_over(target, again.is_some()).await {
        Ok(given) => {
            let (reason, message) = given.reported();
            context.handoffs.keep(&key, asked, None, now);
            Handoff::Settled(reason, message)
        }
        Err(problem) => {
            let wait = question::next_wait(cluster, again);
            context.handoffs.keep(&key, asked, Some(wait), now);
            Handoff::Open(problem, Some(wait))
        }
    }
}
