//! Waits for conditions and checks their messages.

use std::{fmt::Debug, time::Duration};

use anyhow::{Result, bail};
use kube::{Api, Resource};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::until::until;

/// Time until a condition is reported.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// Waits for a condition with this reason on any type, and returns its message.
///
/// # Errors
/// When the time is over, with the last conditions.
pub async fn message<K>(api: &Api<K>, name: &str, reason: &str) -> Result<String>
where
    K: Resource + Clone + DeserializeOwned + Serialize + Debug,
{
    until(&format!("reason {reason} on {name}"), PATIENCE, async || {
        let object = serde_json::to_value(api.get(name).await?)?;
        let conditions = object
            .pointer("/status/conditions")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        match conditions.iter().find(|c| c["reason"] == reason) {
            Some(found) => Ok(found["message"].as_str().map(str::to_owned)),
            None => bail!("{}", Value::from(conditions)),
        }
    })
    .await
}

/// Asserts that the message contains each of these sentences.
///
/// # Panics
/// When it does not.
pub fn contains_all(message: &str, sentences: &[&str]) {
    for sentence in sentences {
        assert!(
            message.contains(sentence),
            "«{sentence}» is missing in: {message}"
        );
    }
}
