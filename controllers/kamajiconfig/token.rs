//! A bootstrap token: drawing one, reading one back, and its Secret in the tenant (bootstrap.md 2.1–2.2). Pure:
//! entropy and time are arguments. The secret part is shown by nothing but [`Token::expose`].

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp,
};
use kamaji_api::labels::{capi, ours};
use zeroize::Zeroizing;

/// Type of the token's Secret.
pub const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
/// Namespace of the token's Secret in the tenant.
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
    /// Draws one. `fill` fills its argument from a cryptographic source. Bytes that would make some characters
    /// likelier than others are drawn again.
    pub fn draw(mut fill: impl FnMut(&mut [u8])) -> Self {
        let mut text = |length: usize| {
            let mut drawn = Zeroizing::new(String::with_capacity(length));
            let mut bytes = Zeroizing::new([0_u8; 32]);
            while drawn.len() < length {
                fill(bytes.as_mut_slice());
                for byte in bytes.iter().filter(|byte| **byte < 252) {
                    if drawn.len() < length {
                        drawn.push(char::from(ALPHABET[usize::from(byte % 36)]));
                    }
                }
            }
            drawn
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

    /// The Secret that makes it valid in the tenant.
    pub fn to_secret(&self, owner: &Owner<'_>, expiration: Timestamp) -> Secret {
        let data: [(&str, String); 6] = [
            ("token-id", self.id.clone()),
            ("token-secret", self.secret.to_string()),
            ("expiration", rfc3339(expiration)),
            ("usage-bootstrap-authentication", "true".to_owned()),
            ("auth-extra-groups", ours::NODE_BOOTSTRAP_GROUP.to_owned()),
            (
                "description",
                format!("Machine {}/{}", owner.namespace, owner.machine),
            ),
        ];
        Secret {
            metadata: ObjectMeta {
                name: Some(secret_name(&self.id)),
                namespace: Some(NAMESPACE.to_owned()),
                labels: Some(owner.labels()),
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

/// Whose token it is; becomes labels of its Secret.
pub struct Owner<'a> {
    /// UID of the KamajiConfig.
    pub uid: &'a str,
    /// Namespace of KamajiConfig and Machine.
    pub namespace: &'a str,
    /// Name of the Machine.
    pub machine: &'a str,
    /// Name of the Cluster.
    pub cluster: &'a str,
    /// UID of the Cluster.
    pub cluster_uid: &'a str,
}

impl Owner<'_> {
    fn labels(&self) -> BTreeMap<String, String> {
        [
            (ours::MANAGED_BY, kamaji_api::labels::field_manager::BOOTSTRAP),
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

/// Name of the Secret of the token with this id.
pub fn secret_name(id: &str) -> String {
    format!("bootstrap-token-{id}")
}

/// The id of the token whose bearer a user name names.
pub fn id_of_user(user: &str) -> Option<&str> {
    user.strip_prefix("system:bootstrap:").filter(|id| is_id(id))
}

/// Whether this is the public part of a token.
pub fn is_id(text: &str) -> bool {
    text.len() == 6 && text.bytes().all(|byte| ALPHABET.contains(&byte))
}

/// Whole seconds, UTC, as the API servers write them.
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
            let token = Token::draw(|bytes| {
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
    fn bytes_at_the_edge_are_drawn_again() {
        let mut first = true;
        let token = Token::draw(|bytes| {
            bytes.fill(if std::mem::take(&mut first) { 252 } else { 35 });
        });
        assert_eq!(token.id(), "zzzzzz");
    }

    #[test]
    fn bootstrap_11_the_secret_authenticates_and_does_not_sign() {
        let token = Token::parse("abcdef.0123456789abcdef").unwrap();
        let owner = Owner {
            uid: "u",
            namespace: "ns",
            machine: "m",
            cluster: "c",
            cluster_uid: "cu",
        };
        let secret = token.to_secret(&owner, "2026-01-02T03:04:05.678Z".parse().unwrap());
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
}
