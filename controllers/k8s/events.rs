//! Events for people: one for a transition, none for a retry.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

/// A change that is worth an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// A Warning, else a Normal Event.
    pub warning: bool,
    /// CamelCase reason.
    pub reason: String,
    /// For people. No secrets.
    pub message: String,
}

/// Publishes Events as one controller. A lost Event is no error: the condition reports the same.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
}

impl Events {
    /// Events reported by `controller` in the pod `instance`.
    pub fn new(client: Client, controller: &str, instance: Option<String>) -> Self {
        Self {
            recorder: Recorder::new(
                client,
                Reporter {
                    controller: controller.to_owned(),
                    instance,
                },
            ),
        }
    }

    /// A warning about `object`: `reason` is that of the condition, `note` its message. No secrets in it.
    pub async fn warn<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, note: &str) {
        self.publish(object, EventType::Warning, reason, note).await;
    }

    /// A Normal Event about `object`.
    pub async fn note<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, note: &str) {
        self.publish(object, EventType::Normal, reason, note).await;
    }

    /// Publishes `event` about `object`.
    pub async fn emit<K: Resource<DynamicType = ()>>(&self, object: &K, event: &Transition) {
        let type_ = if event.warning {
            EventType::Warning
        } else {
            EventType::Normal
        };
        self.publish(object, type_, &event.reason, &event.message).await;
    }

    async fn publish<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        type_: EventType,
        reason: &str,
        note: &str,
    ) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note.chars().take(1000).collect()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        let reference: ObjectReference = object.object_ref(&());
        if let Err(error) = self.recorder.publish(&event, &reference).await {
            tracing::debug!(%error, reason, "event was not published");
        }
    }
}
