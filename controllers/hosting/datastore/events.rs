//! Which transitions of a DataStore's conditions are Events. Pure.

use kamaji_api::conditions::{DataStoreCondition as On, Reason};

use crate::k8s::report::{Except, Rule, When};

const READY: &[&str] = &[
    On::Ready.as_str(),
    On::VersionSafe.as_str(),
    On::SpaceAvailable.as_str(),
];

/// Not ready is a Warning, with each new reason, and so are a version that is not safe and a quota that is nearly used up.
const RULES: [Rule; 1] = [Rule {
    conditions: READY,
    when: When::Unhealthy,
    except: &[],
}];

/// The same after the DataStore was ready once.
const STARTING: [Rule; 1] = [Rule {
    conditions: READY,
    when: When::Unhealthy,
    except: &[
        starting(Reason::Pending),
        starting(Reason::WaitingForMembers),
        starting(Reason::StorageUnavailable),
    ],
}];

const fn starting(reason: Reason) -> Except {
    Except::StartUp {
        until: On::Ready.as_str(),
        reason,
    }
}

/// The rules for a DataStore. `starting`: it is not ready for a reason that is part of normal start-up, which is no
/// Event before it was ready.
pub fn rules(starting: bool) -> &'static [Rule] {
    if starting { &STARTING } else { &RULES }
}
