//! Reports on an object that does not decode: an Event, and a condition beside whatever else its status holds.
//!
//! Nothing of the object but its metadata is known, so the condition is applied with a field manager of its own: what
//! the controller wrote stays, in whatever form. When the object decodes again, the controller's own verdict replaces
//! the condition.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp};
use kamaji_api::conditions::Reason;
use kube::{Client, Resource, api::PartialObjectMetaExt as _};
use serde_json::json;

use super::{conditions::cut, error::ApiError, events::Events, status};

/// Where the reports of one role go.
#[derive(Clone)]
pub struct Reporter {
    /// Client of the management cluster.
    pub client: Client,
    /// Events of the role.
    pub events: Events,
    /// Field manager of the role; the condition gets one derived from it.
    pub field_manager: &'static str,
}

impl Reporter {
    /// Emits a Warning Event about the `K` of which `meta` alone is known, then applies `condition` as `False` with
    /// reason [`Reason::NotDecodable`] and `message`.
    ///
    /// # Errors
    /// What the API server answered to the condition; an object that is gone by now is fine.
    pub async fn report<K: Resource<DynamicType = ()>>(
        &self,
        meta: &ObjectMeta,
        condition: &'static str,
        message: &str,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let about = meta.clone().into_response_partial::<K>();
        self.events
            .warn(&about, Reason::NotDecodable.as_str(), message)
            .await;
        let condition = json!({
            "type": condition,
            "status": "False",
            "reason": Reason::NotDecodable.as_str(),
            "message": cut(message.to_owned(), 1024),
            "observedGeneration": meta.generation.unwrap_or_default(),
            "lastTransitionTime": Timestamp::from_second(now.as_second()).unwrap_or(now).to_string(),
        });
        let manager = format!("{}-decoding", self.field_manager);
        status::apply_condition::<K>(&self.client, meta, &condition, &manager).await
    }
}
