//! Which transitions of a KamajiControlPlane's conditions are Events. Pure.

use kamaji_api::conditions::{KamajiControlPlaneCondition as Own, Reason};

use crate::k8s::report::{Except, Rule, When};

/// A Warning is for what somebody has to act on. Waiting for what comes by itself is no Event.
pub const RULES: [Rule; 4] = [
    Rule {
        conditions: &[
            Own::SpecValid.as_str(),
            Own::TenantControlPlaneCreated.as_str(),
            Own::CertificatesAvailable.as_str(),
            Own::ControlPlaneEndpointPatched.as_str(),
            Own::EndpointReachable.as_str(),
            Own::TunnelReady.as_str(),
            Own::FormerEndpointsServed.as_str(),
            Own::FieldNotSupported.as_str(),
        ],
        when: When::Unhealthy,
        except: &[Except::Waits, Except::Reasons(&[Reason::Pending])],
    },
    Rule {
        conditions: &[Own::InfrastructureClusterPatched.as_str()],
        when: When::Unhealthy,
        except: &[
            Except::Waits,
            Except::Reasons(&[Reason::Paused, Reason::Deleting]),
        ],
    },
    Rule {
        conditions: &[Own::InfrastructureClusterPatched.as_str()],
        when: When::Because(Reason::ManagedByIgnored),
        except: &[],
    },
    Rule {
        conditions: &[Own::KamajiControlPlaneIsInitialized.as_str()],
        when: When::Healthy {
            reason: Reason::Initialized,
            message: "the API server answers; kubeconfig and endpoint are published",
        },
        except: &[],
    },
];
