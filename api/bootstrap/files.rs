//! `files` and `users` of a machine. The fields are those of KubeadmConfig, so that existing manifests can be reused.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{is_default, listed};
use crate::schema::{Rule, cel};

/// Paths that the provider writes, or that report the result of the join. A path that ends with a slash covers
/// everything below it. Drop-in directories of the kubelet are included: a drop-in would override what
/// `kubelet.config` may not change.
pub const RESERVED_PATHS: &[&str] = &[
    "/etc/kamaji/",
    "/etc/kubernetes/bootstrap-kubelet.conf",
    "/etc/kubernetes/kubelet.conf",
    "/etc/kubernetes/kubelet.conf.d/",
    "/etc/kubernetes/pki/ca.crt",
    "/etc/modules-load.d/kamaji.conf",
    "/etc/sysctl.d/90-kamaji.conf",
    "/etc/systemd/system/kamaji-join.service",
    "/etc/systemd/system/kubelet.service",
    "/etc/systemd/system/kubelet.service.d/90-kamaji.conf",
    "/run/cluster-api/",
    "/var/lib/kamaji/",
    "/var/lib/kubelet/config.yaml",
    "/var/lib/kubelet/pki/",
];

/// The entry of [`RESERVED_PATHS`] that covers `path`.
pub fn reserved_path(path: &str) -> Option<&'static str> {
    RESERVED_PATHS
        .iter()
        .copied()
        .find(|reserved| match reserved.strip_suffix('/') {
            Some(folder) => path == folder || path.starts_with(reserved),
            None => path == *reserved,
        })
}

/// Rules of a path.
fn path_rules() -> Value {
    let one_of = listed(RESERVED_PATHS.iter().map(|path| path.trim_end_matches('/')));
    let below: Vec<_> = RESERVED_PATHS
        .iter()
        .filter(|path| path.ends_with('/'))
        .map(|folder| format!(" && !self.startsWith('{folder}')"))
        .collect();
    cel(&[
        (
            "self.matches('^/[^/]') && !self.matches('/[.]{1,2}(/|$)|//|/$')",
            "files[].path must be an absolute path of a file, without empty, '.' or '..' segments",
        ),
        (
            &format!("!(self in {one_of}){}", below.concat()),
            "the provider writes files[].path itself; use another path, or the field for it (kubelet.config, os)",
        ),
    ])
}

/// A file has exactly one content.
const FILE_RULES: &[Rule] = &[(
    "has(self.content) != has(self.contentFrom)",
    "files[] needs exactly one of content and contentFrom",
)];

/// A source is exactly one object.
const SOURCE_RULES: &[Rule] = &[(
    "has(self.secret) != has(self.configMap)",
    "files[].contentFrom needs exactly one of secret and configMap",
)];

/// A user has one password.
const USER_RULES: &[Rule] = &[(
    "!(has(self.passwd) && has(self.passwdFrom))",
    "users[] needs at most one of passwd and passwdFrom",
)];

/// A file that is written on first boot. Set exactly one of `content` and `contentFrom`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline, extend("x-kubernetes-validations" = cel(FILE_RULES)))]
pub struct File {
    /// Absolute path. It is unique in the list and not a path that the provider writes itself.
    #[schemars(length(min = 1, max = 512), extend("x-kubernetes-validations" = path_rules()))]
    pub path: String,
    /// Owner as `user:group`. Defaults to `root:root`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 256),
        regex(pattern = "^[A-Za-z0-9_.-]+(:[A-Za-z0-9_.-]+)?$")
    )]
    pub owner: Option<String>,
    /// Octal mode such as `0640`. Defaults to `0644`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^0?[0-7]{3,4}$"))]
    pub permissions: Option<String>,
    /// Encoding of the content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Encoding>,
    /// Append to an existing file instead of replacing it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub append: bool,
    /// Write the file late, after users are created and file systems are mounted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub defer: bool,
    /// Inline content, at most 10240 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 10240))]
    pub content: Option<String>,
    /// Source of the content in the same namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_from: Option<ContentSource>,
    /// Whether the content is plain text or a template.
    #[serde(default, skip_serializing_if = "is_default")]
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
    /// The value as cloud-init spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Base64 => "base64",
            Self::Gzip => "gzip",
            Self::GzipBase64 => "gzip+base64",
        }
    }
}

/// Whether the content of a file is plain text or a template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ContentFormat {
    /// Plain text that is not evaluated.
    #[default]
    Raw,
    /// A Jinja template that cloud-init evaluates on the machine.
    Jinja,
}

/// A key of a Secret or of a ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline, extend("x-kubernetes-validations" = cel(SOURCE_RULES)))]
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
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key of the object.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
    /// Continue without the file if the object or the key does not exist.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// A user that is created on first boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline, extend("x-kubernetes-validations" = cel(USER_RULES)))]
pub struct User {
    /// Name of the user.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Comment of the account, usually the full name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub gecos: Option<String>,
    /// Additional groups, separated by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub groups: Option<String>,
    /// Home directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub home_dir: Option<String>,
    /// Whether the account is inactive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inactive: Option<bool>,
    /// Login shell.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub shell: Option<String>,
    /// Hash of the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub passwd: Option<String>,
    /// Secret with the hash of the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passwd_from: Option<PasswdSource>,
    /// Primary group.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub primary_group: Option<String>,
    /// Whether password login is disabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock_password: Option<bool>,
    /// Sudo rule of the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub sudo: Option<String>,
    /// Public SSH keys of the user.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 2048)))]
    pub ssh_authorized_keys: Vec<String>,
}

/// Secret with the hash of a password.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct PasswdSource {
    /// The Secret and its key.
    pub secret: KeySelector,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bootstrap_34_the_rule_names_every_reserved_path() {
        let rules = path_rules();
        let rule = rules[1]["rule"].as_str().unwrap();
        for path in RESERVED_PATHS {
            let exact = format!("'{}'", path.trim_end_matches('/'));
            assert!(rule.contains(&exact), "{path}");
            let below = format!("startsWith('{path}')");
            assert_eq!(rule.contains(&below), path.ends_with('/'), "{path}");
        }
    }

    #[test]
    fn bootstrap_34_folders_are_reserved_with_what_is_below() {
        for path in [
            "/var/lib/kubelet/pki",
            "/var/lib/kubelet/pki/kubelet-client-current.pem",
            "/etc/kubernetes/kubelet.conf",
            "/etc/kubernetes/kubelet.conf.d/30-mine.conf",
            "/etc/systemd/system/kubelet.service",
        ] {
            assert!(reserved_path(path).is_some(), "{path}");
        }
        for path in [
            "/var/lib/kubelet/pki-mine",
            "/etc/systemd/system/kubelet.service.d/10-mine.conf",
        ] {
            assert_eq!(reserved_path(path), None, "{path}");
        }
    }
}
