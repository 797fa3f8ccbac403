//! Hands an endpoint over to one infrastructure object: reads it, decides, writes, and looks at what was stored.

use kamaji_api::{
    conditions::Reason,
    controlplane::Endpoint,
    labels::{capi, field_manager},
    quirks::{Mode, Quirks},
};
use kube::{Client, api::DynamicObject};

use super::observe::{self, Kinds};
use crate::{
    capi::{
        cluster::Reference,
        contract::InfrastructureKind,
        infrastructure::{self, Decision, Manager, Wanted, missing_right, text},
    },
    k8s::{
        apply::foreign,
        error::{ApiError, Class},
        key::RootKey,
        problem::Problem,
        report::Known,
    },
};

/// How often an object is read again in a row because somebody else wrote it at the same time.
const TRIES: u32 = 3;

/// The way to infrastructure objects, and what is known about their kinds.
pub struct Infrastructure {
    client: Client,
    quirks: Quirks,
    kinds: Kinds,
    /// Nothing is handed over.
    pub is_skipped: bool,
}

/// One object, and the endpoint that it is to have.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Namespace of object and Cluster.
    pub namespace: &'a str,
    /// The object.
    pub reference: &'a Reference,
    /// The endpoint of the control plane.
    pub endpoint: &'a Endpoint,
    /// The endpoint that the Cluster has.
    pub of_cluster: Option<&'a Endpoint>,
}

/// How a hand-over ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// The kind takes no endpoint.
    Nothing {
        /// The kind.
        kind: String,
    },
    /// The object has the endpoint.
    Endpoint {
        /// The object, as `Kind name`.
        what: String,
        /// The endpoint, as `host:port`.
        endpoint: String,
        /// What was decided about it.
        decision: Decision,
    },
}

impl Given {
    /// Reason and message of the condition.
    pub fn reported(&self) -> (Reason, String) {
        let (what, endpoint, decision) = match self {
            Self::Nothing { kind } => {
                let message = format!(
                    "{kind} has no spec.controlPlaneEndpoint; it takes the endpoint from the Cluster"
                );
                return (Reason::NotApplicable, message);
            }
            Self::Endpoint {
                what,
                endpoint,
                decision,
            } => (what, endpoint, decision),
        };
        let (key, has) = (capi::MANAGED_BY, format!("{what} has the endpoint {endpoint}"));
        match decision.manager {
            Manager::Provider | Manager::Ours => (Reason::Patched, has),
            Manager::ProviderUnaware => {
                let message = format!("{has}; remove its annotation {key}, which its provider does not know");
                (Reason::ManagedByIgnored, message)
            }
            Manager::Another => {
                let message =
                    format!("{has}; whoever its annotation {key} names has to report it as provisioned");
                (Reason::Patched, message)
            }
        }
    }
}

impl Infrastructure {
    /// Nothing is known about any kind but its quirks.
    pub fn new(client: Client, quirks: Quirks, is_skipped: bool) -> Self {
        Self {
            client,
            quirks,
            kinds: Kinds::default(),
            is_skipped,
        }
    }

    /// Hands the endpoint over. `again`: it failed before.
    ///
    /// # Errors
    /// Why the object does not have the endpoint, and who has to do what.
    pub async fn hand_over(&self, target: Target<'_>, again: bool) -> Result<Given, Problem> {
        let reference = target.reference;
        let quirk = self.quirks.of(&reference.api_group, &reference.kind);
        if quirk.mode == Mode::Unsupported {
            return Err(Problem::unwatched(
                Reason::InfrastructureClusterNotPatched,
                format!(
                    "{} keeps an endpoint of its own, which leads to no control plane that runs elsewhere; use another \
                     infrastructure for this Cluster",
                    reference.text()
                ),
            ));
        }
        let kind = observe::kind(&self.client, &self.kinds, reference, again).await?;
        if !kind.takes_endpoint {
            let kind = reference.kind.clone();
            return Ok(Given::Nothing { kind });
        }
        let wanted = Wanted {
            endpoint: target.endpoint,
            of_cluster: target.of_cluster,
        };
        for _ in 0..TRIES {
            let object = observe::object(&self.client, &kind, target.namespace, reference).await?;
            let decision = infrastructure::decide(&kind, &quirk, &object, wanted)?;
            match self.write(&kind, object, target, decision).await {
                Ok(()) => {
                    return Ok(Given::Endpoint {
                        what: reference.text(),
                        endpoint: text(target.endpoint),
                        decision,
                    });
                }
                Err(Some(problem)) => return Err(problem),
                Err(None) => {}
            }
        }
        let what = reference.text();
        let message = format!("{what} was written by somebody else each time that it was given the endpoint");
        Err(Problem::unwatched(Reason::InternalError, message))
    }

    /// Writes what was decided. `Err(None)`: the object is another one, or another version of it, by now.
    async fn write(
        &self,
        kind: &InfrastructureKind,
        mut object: DynamicObject,
        target: Target<'_>,
        decision: Decision,
    ) -> Known {
        let key = RootKey::new(target.namespace, target.reference.name.as_str());
        let (client, resource, manager) = (&self.client, &kind.resource, field_manager::ENDPOINT);
        let refused = |error: ApiError| refused(kind, target.reference, &error);
        if decision.endpoint {
            let body = infrastructure::with_endpoint(kind, &object, target.endpoint);
            object = foreign::apply_fields(client, resource, &key, manager, &body)
                .await
                .map_err(refused)?;
            infrastructure::took(&object, target.endpoint)?;
        }
        if decision.provisioned {
            let body = infrastructure::with_provisioned(kind, &object);
            object = foreign::merge_status(client, resource, &key, manager, &body)
                .await
                .map_err(refused)?;
            infrastructure::took_provisioned(kind, &object)?;
        }
        Ok(())
    }
}

/// What a refused write means; `None` where it has to be looked at again.
fn refused(kind: &InfrastructureKind, reference: &Reference, error: &ApiError) -> Option<Problem> {
    let words = error.to_string();
    if error.is_not_found() {
        return None;
    }
    let (reason, message) = match error.class() {
        Class::Conflict => return None,
        Class::Transient | Class::Foreign => (Reason::InternalError, words),
        Class::Denied | Class::Invalid => {
            if let Some(problem) = missing_right(kind, "patch", &words) {
                return Some(problem);
            }
            (
                Reason::EndpointRejected,
                format!("{} does not take the endpoint: {words}", reference.text()),
            )
        }
    };
    Some(Problem::unwatched(reason, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_condition_tells_what_is_left_to_whom() {
        let reported = |decision| {
            let given = Given::Endpoint {
                what: "ThatCluster a".into(),
                endpoint: "192.0.2.1:6443".into(),
                decision,
            };
            given.reported()
        };
        let nothing = Decision::default();
        let plain = (
            Reason::Patched,
            "ThatCluster a has the endpoint 192.0.2.1:6443".to_owned(),
        );
        assert_eq!(reported(nothing), plain);
        let (reason, message) = reported(Decision {
            manager: Manager::Another,
            ..nothing
        });
        assert_eq!(reason, Reason::Patched);
        assert!(message.ends_with("has to report it as provisioned"), "{message}");
        let (reason, message) = reported(Decision {
            manager: Manager::ProviderUnaware,
            ..nothing
        });
        assert_eq!(reason, Reason::ManagedByIgnored);
        assert!(message.contains("remove its annotation"), "{message}");
    }
}
