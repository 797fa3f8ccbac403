//! Where the CA bundle of an object is, and the change that sets it. Pure.

use serde_json::{Value, json};

/// Merge patch that puts `bundle` (base64) in every client configuration of the object; none if it is there.
pub fn patch(object: &Value, bundle: &str) -> Option<Value> {
    let mut patch = json!({});
    if let Some(webhooks) = object["webhooks"]
        .as_array()
        .filter(|list| list.iter().any(|it| lacks(it, bundle)))
    {
        // A merge patch knows lists only as a whole.
        let mut webhooks = webhooks.clone();
        for webhook in &mut webhooks {
            webhook["clientConfig"]["caBundle"] = json!(bundle);
        }
        patch["webhooks"] = json!(webhooks);
    }
    let conversion = &object["spec"]["conversion"];
    if conversion["strategy"] == "Webhook" && lacks(&conversion["webhook"], bundle) {
        patch["spec"]["conversion"]["webhook"]["clientConfig"]["caBundle"] = json!(bundle);
    }
    (patch != json!({})).then_some(patch)
}

fn lacks(webhook: &Value, bundle: &str) -> bool {
    webhook["clientConfig"]["caBundle"] != bundle
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_webhook_gets_the_bundle_once_and_keeps_the_rest() {
        let mut object = json!({"webhooks": [
            {"name": "a", "clientConfig": {"service": {"name": "s"}}},
            {"name": "b", "clientConfig": {"service": {"name": "s"}, "caBundle": "old"}},
        ]});
        let patch = super::patch(&object, "new").unwrap();
        for index in 0..2 {
            assert_eq!(
                patch["webhooks"][index]["clientConfig"],
                json!({"service": {"name": "s"}, "caBundle": "new"})
            );
        }
        object["webhooks"] = patch["webhooks"].clone();
        assert_eq!(super::patch(&object, "new"), None);
    }

    #[test]
    fn a_definition_without_conversion_webhook_is_left_alone() {
        assert_eq!(
            patch(&json!({"spec": {"conversion": {"strategy": "None"}}}), "new"),
            None
        );
        let crd = json!({"spec": {"conversion": {"strategy": "Webhook", "webhook": {"clientConfig": {}}}}});
        let patch = patch(&crd, "new").unwrap();
        assert_eq!(
            patch["spec"]["conversion"]["webhook"]["clientConfig"]["caBundle"],
            "new"
        );
    }
}
