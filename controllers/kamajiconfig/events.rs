//! Which transition of which condition of a KamajiConfig is an Event. Pure.

use kamaji_api::conditions::{KamajiConfigCondition, Reason};

use crate::k8s::report::{Except, Rule, When};

const READY: &[&str] = &[KamajiConfigCondition::Ready.as_str()];
const TOKEN: &[&str] = &[KamajiConfigCondition::BootstrapTokenValid.as_str()];

/// The table.
pub const RULES: &[Rule] = &[
    Rule {
        conditions: READY,
        when: When::Healthy {
            reason: Reason::DataSecretAvailable,
            message: "the bootstrap data is ready",
        },
        except: &[],
    },
    Rule {
        conditions: READY,
        when: When::NotHealthy,
        except: &[Except::Waits],
    },
    Rule {
        conditions: TOKEN,
        when: When::NotHealthy,
        except: &[],
    },
];
