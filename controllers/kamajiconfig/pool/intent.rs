//! The name of a pool's data Secret. It follows what the user wants: infrastructure providers replace the instances of a pool
//! when the name changes, and not when the content does. A new token, another content of a referenced Secret, and a new
//! release of this provider change the content alone. Pure.

use kamaji_api::bootstrap::{Auth, CsrApproval, KamajiConfigSpec, PoolSecretName};
use kamaji_api::metadata::AdditionalMetadata;
use semver::Version;
use serde_json::json;

use crate::{k8s::digest, kamajiconfig::bootstrapdata::inputs::Target};

/// Characters of the digest in the name.
const DIGITS: usize = 8;
/// Longest name of a Secret.
const LONGEST: usize = 253;

/// Digest of what the user wants of the machines: spec, version, CA, endpoint and network.
pub fn digest(spec: &KamajiConfigSpec, version: &Version, target: &Target) -> String {
    digest::of(&json!({
        "spec": of_machines(spec),
        "version": version.to_string(),
        "host": target.host,
        "port": target.port,
        "tlsServerName": target.tls_server_name,
        "ca": target.ca_pem,
        "dns": target.cluster_dns,
        "domain": target.cluster_domain,
    }))
}

/// The spec without what concerns this provider alone and changes nothing on a machine.
fn of_machines(spec: &KamajiConfigSpec) -> KamajiConfigSpec {
    KamajiConfigSpec {
        auth: Auth::default(),
        csr_approval: CsrApproval::default(),
        pool_secret_name: PoolSecretName::default(),
        secret_metadata: AdditionalMetadata::default(),
        ..spec.clone()
    }
}

/// Name of the Secret for this intent.
pub fn secret_name(config: &str, naming: PoolSecretName, intent: &str) -> String {
    match naming {
        PoolSecretName::Fixed => config.to_owned(),
        PoolSecretName::ByIntent => {
            let suffix = intent.get(..DIGITS).unwrap_or(intent);
            let most = LONGEST - DIGITS - 1;
            let prefix = config.get(..most).unwrap_or(config).trim_end_matches(['-', '.']);
            format!("{prefix}-{suffix}")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn of(spec: Value, version: &str, target: &Target) -> String {
        let spec = serde_json::from_value(spec).unwrap();
        digest(&spec, &version.parse().unwrap(), target)
    }

    #[test]
    fn bootstrap_10_the_name_follows_spec_version_ca_and_endpoint_of_the_machines() {
        let target = Target {
            host: "192.0.2.1".to_owned(),
            port: 6443,
            ca_pem: "one".to_owned(),
            ..Target::default()
        };
        let before = of(json!({}), "1.36.3", &target);
        let same = json!({
            "auth": {"token": {"poolTTL": "2h"}}, "csrApproval": {"nodeNamePattern": "p-.*"}, "poolSecretName": "Fixed",
            "secretMetadata": {"labels": {"a": "b"}},
        });
        assert_eq!(of(same, "1.36.3", &target), before);
        let other_ca = Target {
            ca_pem: "two".to_owned(),
            ..target.clone()
        };
        let other_host = Target {
            host: "192.0.2.2".to_owned(),
            ..target.clone()
        };
        for other in [
            of(json!({"kubelet": {"config": {"maxPods": 50}}}), "1.36.3", &target),
            of(json!({}), "1.36.4", &target),
            of(json!({}), "1.36.3", &other_ca),
            of(json!({}), "1.36.3", &other_host),
        ] {
            assert_ne!(other, before);
        }
    }

    /// Another value here replaces the machines of every pool when this release is installed.
    #[test]
    fn the_digest_of_an_intent_is_that_of_earlier_releases() {
        let spec =
            json!({"nodeRegistration": {"labels": {"a": "b"}}, "files": [{"path": "/a", "content": "x"}]});
        let target = Target {
            host: "h".to_owned(),
            port: 1,
            ..Target::default()
        };
        assert_eq!(of(spec, "1.36.3", &target), "72e19f23da10df732c30c71a06b7b77f");
    }

    #[test]
    fn a_name_is_valid_however_long_that_of_the_config_is() {
        assert_eq!(
            secret_name("p", PoolSecretName::ByIntent, "0123456789abcdef"),
            "p-01234567"
        );
        assert_eq!(secret_name("p", PoolSecretName::Fixed, "0123456789abcdef"), "p");
        let long = format!("{}.{}", vec!["a".repeat(60); 4].join("."), "b".repeat(9));
        for length in 240..=long.len() {
            let name = secret_name(
                long[..length].trim_end_matches('.'),
                PoolSecretName::ByIntent,
                "0123456789abcdef",
            );
            let prefix = name.strip_suffix("-01234567").unwrap();
            assert!(
                name.len() <= 253 && prefix.ends_with(char::is_alphanumeric),
                "{name}"
            );
        }
    }
}
