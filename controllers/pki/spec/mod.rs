//! Descriptions of Secrets of key material: what they are called and what they contain. Values only: [`super::issue`]
//! issues them. `tenant` lists those of a tenant.

use std::{collections::BTreeSet, net::IpAddr};

use data_encoding::HEXLOWER;
use kamaji_api::labels::kamaji::{LIFECYCLE_KUBECONFIG, LIFECYCLE_X509};
use serde::Serialize;
use sha2::{Digest, Sha256};

mod tenant;
#[cfg(test)]
mod tests;

pub use self::tenant::{
    ADMINS_GROUP, BOOTSTRAP_USER, KONNECTIVITY_USER, Tenant, admin_name, bootstrap, bootstrap_name, ca,
    ca_name, component, datastore, datastore_name, front_proxy_ca_name, konnectivity, konnectivity_name,
    service_account_name, tenant,
};
use super::material::{CLUSTER_CA_KEYS, CaKeys, FRONT_PROXY_CA_KEYS};

/// The CA that signs a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, strum::Display)]
pub enum Signer {
    /// The tenant's CA, `<tcp>-ca`.
    Cluster,
    /// The tenant's front proxy CA.
    FrontProxy,
    /// The datastore's CA.
    Datastore,
}

impl Signer {
    /// Value of the component label of the Secret that holds the CA; `None` for a CA outside the tenant.
    pub fn component(self) -> Option<&'static str> {
        match self {
            Self::Cluster => Some(component::CA),
            Self::FrontProxy => Some(component::FRONT_PROXY_CA),
            Self::Datastore => None,
        }
    }
}

/// What a certificate may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Usage {
    /// TLS client.
    Client,
    /// TLS server.
    Server,
}

/// When a certificate is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Renewal {
    /// When half of its lifetime is over: for certificates that users copy, so that copies can be replaced in time.
    HalfLife,
    /// When two thirds of its lifetime are over.
    LastThird,
}

/// Subject alternative names of a server certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AltNames {
    /// DNS names, wildcards included.
    pub dns: BTreeSet<String>,
    /// Addresses.
    pub ip: BTreeSet<IpAddr>,
}

impl AltNames {
    /// Adds a host, which is an address (bracketed or not) or a name. Empty text adds nothing.
    pub fn add(&mut self, host: &str) {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse() {
            self.ip.insert(address);
        } else if !host.is_empty() {
            self.dns.insert(host.to_ascii_lowercase());
        }
    }
}

/// A certificate of a client or a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Leaf {
    /// Common name: the user, for clients.
    pub common_name: String,
    /// Organization: the group, for clients.
    pub organization: Option<String>,
    /// Extended key usages.
    pub usages: Vec<Usage>,
    /// Subject alternative names.
    pub names: AltNames,
}

impl Leaf {
    /// A client certificate for the user `common_name`.
    pub fn client(common_name: impl Into<String>) -> Self {
        Self {
            common_name: common_name.into(),
            organization: None,
            usages: vec![Usage::Client],
            names: AltNames::default(),
        }
    }

    /// The same user in a group.
    #[must_use]
    pub fn in_group(mut self, group: &str) -> Self {
        self.organization = Some(group.to_owned());
        self
    }
}

/// One kubeconfig of a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KubeconfigFile {
    /// Key in the Secret.
    pub key: String,
    /// `https://host:port` of the API server.
    pub server: String,
}

/// One client certificate and the kubeconfigs that contain it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KubeconfigIdentity {
    /// The client certificate.
    pub leaf: Leaf,
    /// Name of the user entry.
    pub user: String,
    /// The kubeconfigs.
    pub files: Vec<KubeconfigFile>,
}

/// What a Secret of key material contains. The names of variants and fields are part of
/// [`SecretSpec::inputs_hash`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Content {
    /// A CA of its own. The serialised name is part of [`SecretSpec::inputs_hash`] and must not change.
    #[serde(rename = "Authority")]
    Ca {
        /// Common name.
        common_name: String,
        /// Subject alternative names; kubeadm sets one on its cluster CA.
        names: AltNames,
        /// Keys of the Secret under which the pair is stored: (certificate, private key).
        keys: Vec<(String, String)>,
    },
    /// A key pair without a certificate: the ServiceAccount pair.
    KeyPair {
        /// Key of the public half.
        public: String,
        /// Key of the private half.
        private: String,
    },
    /// A certificate and its key.
    Certificate {
        /// The CA that signs a certificate.
        signer: Signer,
        /// The certificate.
        leaf: Leaf,
        /// Key of the CA's trust bundle, if the Secret contains it.
        bundle_key: Option<String>,
        /// Key of the certificate.
        certificate_key: String,
        /// Key of the private key.
        private_key: String,
    },
    /// Kubeconfigs with embedded client certificates.
    Kubeconfigs {
        /// Name of the cluster entry.
        cluster: String,
        /// The users.
        identities: Vec<KubeconfigIdentity>,
    },
}

/// A Secret of key material.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSpec {
    /// Name of the Secret.
    pub name: String,
    /// Value of the label `kamaji.clastix.io/component`.
    pub component: &'static str,
    /// Type of the Secret.
    pub secret_type: &'static str,
    /// When its certificates are renewed.
    pub renewal: Renewal,
    /// What it contains.
    pub content: Content,
}

impl SecretSpec {
    /// The CA that signs its certificates; `None` for CAs and key pairs.
    pub fn signer(&self) -> Option<Signer> {
        match &self.content {
            Content::Ca { .. } | Content::KeyPair { .. } => None,
            Content::Certificate { signer, .. } => Some(*signer),
            Content::Kubeconfigs { .. } => Some(Signer::Cluster),
        }
    }

    /// The keys under which [`super::material::Ca::read`] finds the CA; `None` for a Secret without one.
    pub fn ca_keys(&self) -> Option<CaKeys> {
        match (&self.content, self.component) {
            (Content::Ca { .. }, component::FRONT_PROXY_CA) => Some(FRONT_PROXY_CA_KEYS),
            (Content::Ca { .. }, _) => Some(CLUSTER_CA_KEYS),
            _ => None,
        }
    }

    /// Value of the label `kamaji.clastix.io/certificate_lifecycle_controller`.
    pub fn lifecycle(&self) -> Option<&'static str> {
        match &self.content {
            Content::Ca { .. } | Content::Certificate { .. } => Some(LIFECYCLE_X509),
            Content::Kubeconfigs { .. } => Some(LIFECYCLE_KUBECONFIG),
            Content::KeyPair { .. } => None,
        }
    }

    /// Digest of everything the Secret should contain, without entropy and time: 32 hexadecimal digits.
    pub fn inputs_hash(&self) -> String {
        // Plain structs of strings always serialise. If they did not, the constant digest would only cause a renewal.
        let inputs = serde_json::to_vec(&("v1", &self.content)).unwrap_or_default();
        let mut digest = HEXLOWER.encode(&Sha256::digest(inputs));
        digest.truncate(32);
        digest
    }
}
