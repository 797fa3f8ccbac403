//! Probe settings of the hosted components. Only timings can be set; the engine decides what is probed.
//! A setting for one component takes precedence over the setting for all components.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Timings of one probe. A field that is omitted keeps the value of the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct ProbeSpec {
    /// Seconds between the start of the container and the first probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub initial_delay_seconds: Option<i32>,
    /// Seconds after which a probe times out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub timeout_seconds: Option<i32>,
    /// Seconds between two probes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub period_seconds: Option<i32>,
    /// Consecutive successes after a failure until the probe counts as passed; 1 for liveness and startup.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub success_threshold: Option<i32>,
    /// Consecutive failures until the probe counts as failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub failure_threshold: Option<i32>,
}

impl ProbeSpec {
    /// `self`, with the fields that `over` sets taking precedence.
    #[must_use]
    pub fn overlaid(&self, over: &Self) -> Self {
        Self {
            initial_delay_seconds: over.initial_delay_seconds.or(self.initial_delay_seconds),
            timeout_seconds: over.timeout_seconds.or(self.timeout_seconds),
            period_seconds: over.period_seconds.or(self.period_seconds),
            success_threshold: over.success_threshold.or(self.success_threshold),
            failure_threshold: over.failure_threshold.or(self.failure_threshold),
        }
    }
}

/// The three probes of a component.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct ProbeSet {
    /// The container is restarted when this probe fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub liveness: Option<ProbeSpec>,
    /// The pod is removed from the Service when this probe fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness: Option<ProbeSpec>,
    /// The other probes start after this probe has passed once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup: Option<ProbeSpec>,
}

/// Probes of all components, and of each component.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct ControlPlaneProbes {
    /// Liveness probe of all components.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub liveness: Option<ProbeSpec>,
    /// Readiness probe of all components.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness: Option<ProbeSpec>,
    /// Startup probe of all components.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup: Option<ProbeSpec>,
    /// Probes of kube-apiserver only; they take precedence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_server: Option<ProbeSet>,
    /// Probes of kube-controller-manager only; they take precedence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller_manager: Option<ProbeSet>,
    /// Probes of kube-scheduler only; they take precedence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<ProbeSet>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_wins_over_the_setting_for_all() {
        let all = ProbeSpec {
            period_seconds: Some(5),
            failure_threshold: Some(3),
            ..Default::default()
        };
        let one = ProbeSpec {
            failure_threshold: Some(9),
            ..Default::default()
        };
        let merged = all.overlaid(&one);
        assert_eq!(
            (merged.period_seconds, merged.failure_threshold),
            (Some(5), Some(9))
        );
    }
}
