//! The entry of a Secret in the status. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kamaji_api::tenantcontrolplane::SecretStatus;

/// `old`, while it is about the same Secret with the same data; else a new one, of `now`.
pub fn entry(old: Option<SecretStatus>, secret: &str, checksum: Option<&String>, now: &Time) -> SecretStatus {
    let same =
        |old: &SecretStatus| old.checksum.as_ref() == checksum && old.secret_name.as_deref() == Some(secret);
    old.filter(same).unwrap_or_else(|| SecretStatus {
        secret_name: Some(secret.to_owned()),
        checksum: checksum.cloned(),
        last_update: Some(now.clone()),
    })
}
