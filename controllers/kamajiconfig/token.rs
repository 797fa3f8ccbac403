//! A bootstrap token: its value, its Secret in the workload cluster and its lifetime. Pure: entropy and time are
//! arguments. Nothing but [`Token::expose`] shows the secret part.
//!
//! Format and Secret: <https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/>.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp,
};
use kamaji_api::{
    bootstrap::TokenSettings,
    labels::{capi, field_manager, ours},
};
use zeroize::Zeroizing;

use super::owner::Owner;

/// Type of the token's Secret.
pub const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
/// Namespace of the token's Secret in the workload cluster.
pub const NAMESPACE: &str = "kube-system";
const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// A bootstrap token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    id: String,
    secret: Zeroizing<String>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({}.[redacted])", self.id)
    }
}

impl Token {
    /// Generates one. `fill` fills its argument from a cryptographic source. Bytes that would make some characters
    /// likelier than others are replaced.
    pub fn generate(mut fill: impl FnMut(&mut [u8])) -> Self {
        let mut text = |length: usize| {
            let mut part = Zeroizing::new(String::with_capacity(length));
            let mut bytes = Zeroizing::new([0_u8; 32]);
            while part.len() < length {
                fill(bytes.as_mut_slice());
                for byte in bytes.iter().filter(|byte| **byte < 252) {
                    if part.len() < length {
                        part.push(char::from(ALPHABET[usize::from(byte % 36)]));
                    }
                }
            }
            part
        };
        let id = text(6).to_string();
        Self { id, secret: text(16) }
    }

    /// Reads `id.secret`.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.trim().split_once('.')?;
        let fits = |part: &str, length: usize| {
            part.len() == length && part.bytes().all(|byte| ALPHABET.contains(&byte))
        };
        (fits(id, 6) && fits(secret, 16)).then(|| Self {
            id: id.to_owned(),
            secret: Zeroizing::new(secret.to_owned()),
        })
    }

    /// The public part.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// `id.secret`.
    pub fn expose(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{}.{}", self.id, self.secret.as_str()))
    }

    /// The Secret that makes it valid in the workload cluster until `expiration`.
    pub fn to_secret(&self, holder: &Holder<'_>, expiration: Timestamp) -> Secret {
        let data: [(&str, String); 6] = [
            ("token-id", self.id.clone()),
            ("token-secret", self.secret.to_string()),
            ("expiration", rfc3339(expiration)),
            ("usage-bootstrap-authentication", "true".to_owned()),
            ("auth-extra-groups", ours::NODE_BOOTSTRAP_GROUP.to_owned()),
            ("description", holder.description()),
        ];
        Secret {
            metadata: ObjectMeta {
                name: Some(secret_name(&self.id)),
                namespace: Some(NAMESPACE.to_owned()),
                labels: Some(holder.labels()),
                ..ObjectMeta::default()
            },
            type_: Some(SECRET_TYPE.to_owned()),
            data: Some(
                data.map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes())))
                    .into(),
            ),
            ..Secret::default()
        }
    }
}

/// Whose token it is. Becomes the labels and the description of its Secret.
pub struct Holder<'a> {
    /// UID of the KamajiConfig.
    pub uid: &'a str,
    /// Namespace of the KamajiConfig and its owner.
    pub namespace: &'a str,
    /// Name of the owner.
    pub owner: Owner<&'a str>,
    /// Name of the Cluster.
    pub cluster: &'a str,
    /// UID of the Cluster.
    pub cluster_uid: &'a str,
}

impl Holder<'_> {
    fn description(&self) -> String {
        match &self.owner {
            Owner::Machine(name) => format!("Machine {}/{name}", self.namespace),
            Owner::Pool(name) => format!("MachinePool {}/{name}", self.namespace),
        }
    }

    fn labels(&self) -> BTreeMap<String, String> {
        [
            (ours::MANAGED_BY, field_manager::BOOTSTRAP),
            (ours::OWNER_UID, self.uid),
            (ours::CLUSTER_UID, self.cluster_uid),
            (capi::CLUSTER_NAME, self.cluster),
        ]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
    }
}

/// When the token of a Machine expires, when it is extended, and when it no longer is. Times are whole seconds.
#[derive(Clone, Copy, Debug)]
pub struct Lifetime {
    ttl: i64,
    longest: i64,
}

impl Lifetime {
    /// The lifetime in `spec.auth.token`. By default it expires after 15 minutes and is extended for at most a day, until
    /// the machine joins.
    pub fn of(settings: &TokenSettings) -> Self {
        Self {
            ttl: seconds(settings.ttl, 15 * 60),
            longest: seconds(settings.max_lifetime, 24 * 3600),
        }
    }

    /// When a token that is created or extended at `now` expires: never after its longest lifetime.
    pub fn end(&self, created: Timestamp, now: Timestamp) -> Timestamp {
        let end = (now.as_second() + self.ttl).min(created.as_second() + self.longest);
        Timestamp::from_second(end).unwrap_or(now)
    }

    /// Seconds until it has to be extended, which is when less than two thirds of `ttl` are left. Zero or less is now.
    pub fn due_in(&self, expiration: Timestamp, now: Timestamp) -> i64 {
        expiration.as_second() - self.ttl * 2 / 3 - now.as_second()
    }

    /// Its longest lifetime is over: it is not extended any more.
    pub fn is_over(&self, created: Timestamp, now: Timestamp) -> bool {
        now.as_second() >= created.as_second() + self.longest
    }

    /// It expires at the end of its longest lifetime, so that extending it changes nothing.
    pub fn is_last(&self, created: Timestamp, expiration: Timestamp) -> bool {
        expiration.as_second() >= created.as_second() + self.longest
    }
}

/// A setting in whole seconds, or its default.
pub fn seconds(setting: Option<kube::core::Duration>, default: i64) -> i64 {
    setting.map_or(default, |value| {
        i64::try_from(std::time::Duration::from(value).as_secs()).unwrap_or(default)
    })
}

/// Name of the Secret of the token with this id.
pub fn secret_name(id: &str) -> String {
    format!("bootstrap-token-{id}")
}

/// Token ID in a bootstrap user name (`system:bootstrap:<id>`).
pub fn id_of_user(user: &str) -> Option<&str> {
    user.strip_prefix("system:bootstrap:").filter(|id| is_id(id))
}

/// Whether this is the public part of a token.
pub fn is_id(text: &str) -> bool {
    text.len() == 6 && text.bytes().all(|byte| ALPHABET.contains(&byte))
}

/// A time in whole seconds and UTC, as API servers write it.
pub fn rfc3339(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second())
        .unwrap_or(time)
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bootstrap_11_alphabet_and_lengths_and_no_favourite_character() {
        let mut counts = BTreeMap::new();
        let mut state = 1_u64;
        for _ in 0..2000 {
            let token = Token::generate(|bytes| {
                for byte in bytes {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    *byte = (state >> 56) as u8;
                }
            });
            assert_eq!(Token::parse(&token.expose()), Some(token.clone()));
            for character in token.expose().chars().filter(|c| *c != '.') {
                *counts.entry(character).or_insert(0_u32) += 1;
            }
        }
        assert_eq!(counts.len(), 36);
        // 44,000 characters, 1,222 each: modulo without rejection would give four of them 17 % more.
        assert!(
            counts.values().all(|count| (1050..1400).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn bytes_that_favour_some_characters_are_replaced() {
        let mut first = true;
        let token = Token::generate(|bytes| {
            bytes.fill(if std::mem::take(&mut first) { 252 } else { 35 });
        });
        assert_eq!(token.id(), "zzzzzz");
    }

    #[test]
    fn bootstrap_11_the_secret_authenticates_and_does_not_sign() {
        let token = Token::parse("abcdef.0123456789abcdef").unwrap();
        let holder = Holder {
            uid: "u",
            namespace: "ns",
            owner: Owner::Machine("m"),
            cluster: "c",
            cluster_uid: "cu",
        };
        let secret = token.to_secret(&holder, "2026-01-02T03:04:05.678Z".parse().unwrap());
        let data = secret.data.unwrap();
        let text = |key: &str| String::from_utf8(data[key].0.clone()).unwrap();
        assert_eq!(secret.metadata.name.as_deref(), Some("bootstrap-token-abcdef"));
        assert_eq!(text("expiration"), "2026-01-02T03:04:05Z");
        assert_eq!(text("usage-bootstrap-authentication"), "true");
        assert_eq!(text("auth-extra-groups"), "system:bootstrappers:kamaji:nodes");
        assert!(!data.contains_key("usage-bootstrap-signing"));
        let labels = secret.metadata.labels.unwrap();
        assert_eq!(labels["capi-kamaji.io/owner-uid"], "u");
        assert_eq!(labels["capi-kamaji.io/cluster-uid"], "cu");
        assert!(!format!("{token:?}").contains("0123456789abcdef"));
    }

    #[test]
    fn only_well_formed_users_have_an_id() {
        assert_eq!(id_of_user("system:bootstrap:abc123"), Some("abc123"));
        for user in [
            "system:bootstrap:ABC123",
            "system:bootstrap:abc12",
            "system:bootstrap:abc1234",
            "admin",
            "",
        ] {
            assert_eq!(id_of_user(user), None, "{user}");
        }
        assert_eq!(Token::parse("abcdef.0123"), None);
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn bootstrap_12_a_token_is_extended_below_two_thirds_until_its_longest_life() {
        let lifetime = Lifetime {
            ttl: 900,
            longest: 3600,
        };
        let end = lifetime.end(at(0), at(0));
        assert_eq!(end, at(900));
        assert_eq!(lifetime.due_in(end, at(0)), 300);
        assert!(lifetime.due_in(end, at(300)) <= 0);
        assert_eq!(lifetime.end(at(0), at(3000)), at(3600));
        assert!(lifetime.is_last(at(0), at(3600)) && !lifetime.is_last(at(0), at(3599)));
        assert!(!lifetime.is_over(at(0), at(3599)) && lifetime.is_over(at(0), at(3600)));
    }
}
