//! `files` and `users` of a machine. Source: bootstrap.md 3.1; members as KubeadmConfig has them, so that
//! manifests can be carried over.

use super::is_default;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A file written on first boot. Exactly one of `content` and `contentFrom` is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct File {
    /// Absolute path, unique in the list, not one of the provider's own.
    pub path: String,
    /// `user:group`; `root:root` when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Octal mode such as `0640`; `0644` when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions: Option<String>,
    /// Encoding of the content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Encoding>,
    /// Append to an existing file.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub append: bool,
    /// Write late, after users were made and file systems mounted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub defer: bool,
    /// The content, at most 10240 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Where the content is, in the same namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_from: Option<ContentSource>,
    /// Whether the content is text or an expression.
    #[serde(skip_serializing_if = "is_default")]
    pub content_format: ContentFormat,
}

/// Encoding of a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[expect(missing_docs, reason = "the names are cloud-init's")]
pub enum Encoding {
    #[serde(rename = "base64")]
    Base64,
    #[serde(rename = "gzip")]
    Gzip,
    #[serde(rename = "gzip+base64")]
    GzipBase64,
}

impl Encoding {
    /// The name as cloud-init spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Base64 => "base64",
            Self::Gzip => "gzip",
            Self::GzipBase64 => "gzip+base64",
        }
    }
}

/// Whether a file's content is text or an expression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ContentFormat {
    /// Text, never evaluated.
    #[default]
    Raw,
    /// Evaluated by cloud-init on the machine.
    Jinja,
}

/// A key of a Secret or of a ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct ContentSource {
    /// A Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<KeySelector>,
    /// A ConfigMap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_map: Option<KeySelector>,
}

/// A key of an object in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct KeySelector {
    /// Name of the object.
    pub name: String,
    /// Key of the object.
    pub key: String,
    /// Go on without the file where object or key is missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// A user made on first boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct User {
    /// Name.
    pub name: String,
    /// Comment, usually the full name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gecos: Option<String>,
    /// Further groups, with commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<String>,
    /// Home directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub home_dir: Option<String>,
    /// Make the account inactive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inactive: Option<bool>,
    /// Login shell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// Hash of the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passwd: Option<String>,
    /// Secret with the hash of the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passwd_from: Option<PasswdSource>,
    /// Primary group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary_group: Option<String>,
    /// Refuse the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock_password: Option<bool>,
    /// Rule of sudo.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sudo: Option<String>,
    /// Public keys for SSH.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh_authorized_keys: Vec<String>,
}

/// Secret with the hash of a password.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct PasswdSource {
    /// The Secret and its key.
    pub secret: KeySelector,
}
