//! Kubeconfig text, written and read through serde. Certificates are always embedded; exec plugins and references to
//! files are neither written nor accepted.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::material::PrivateKeyPem;

/// Why a kubeconfig cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not YAML of the expected form.
    #[error("not a kubeconfig: {0}")]
    Malformed(String),
    /// An entry is missing or not embedded.
    #[error("the kubeconfig has no embedded {0}")]
    Lacks(&'static str),
    /// It cannot be serialised.
    #[error("the kubeconfig cannot be serialised: {0}")]
    Unwritable(String),
}

/// One cluster, one user, one context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubeconfig {
    /// Name of the cluster entry.
    pub cluster: String,
    /// Name of the user entry.
    pub user: String,
    /// `https://host:port`.
    pub server: String,
    /// Trust bundle for the server's certificate, PEM.
    pub ca_pem: String,
    /// The client's certificate, PEM.
    pub certificate_pem: String,
    /// The client's key, PEM.
    pub key_pem: PrivateKeyPem,
}

impl Kubeconfig {
    /// The same identity with the names of the Secret `<cluster>-kubeconfig` and the server that Cluster API connects to.
    /// Source: <https://cluster-api.sigs.k8s.io/developer/providers/contracts/control-plane>, kubeconfig management.
    #[must_use]
    pub fn for_cluster_api(mut self, cluster: &str, server: &str) -> Self {
        cluster.clone_into(&mut self.cluster);
        self.user = format!("{cluster}-admin");
        server.clone_into(&mut self.server);
        self
    }

    /// Name of the context.
    pub fn context(&self) -> String {
        format!("{}@{}", self.user, self.cluster)
    }

    /// The YAML text.
    pub fn to_yaml(&self) -> Result<Zeroizing<String>, Error> {
        let document = Document {
            api_version: "v1".to_owned(),
            kind: "Config".to_owned(),
            clusters: vec![Named {
                name: self.cluster.clone(),
                cluster: Some(Cluster {
                    server: self.server.clone(),
                    certificate_authority_data: Some(BASE64.encode(&self.ca_pem)),
                }),
                ..Named::default()
            }],
            contexts: vec![Named {
                name: self.context(),
                context: Some(Context {
                    cluster: self.cluster.clone(),
                    user: self.user.clone(),
                }),
                ..Named::default()
            }],
            current_context: self.context(),
            users: vec![Named {
                name: self.user.clone(),
                user: Some(User {
                    client_certificate_data: Some(BASE64.encode(&self.certificate_pem)),
                    client_key_data: Some(Zeroizing::new(BASE64.encode(self.key_pem.expose()))),
                }),
                ..Named::default()
            }],
        };
        serde_yaml::to_string(&document)
            .map(Zeroizing::new)
            .map_err(|error| Error::Unwritable(error.to_string()))
    }

    /// Reads the current context of a kubeconfig.
    pub fn parse(yaml: &[u8]) -> Result<Self, Error> {
        let document: Document =
            serde_yaml::from_slice(yaml).map_err(|error| Error::Malformed(shape_of(&error)))?;
        let context = entry(&document.contexts, &document.current_context)
            .and_then(|named| named.context.as_ref())
            .ok_or(Error::Lacks("current context"))?;
        let cluster = entry(&document.clusters, &context.cluster)
            .and_then(|named| named.cluster.as_ref())
            .ok_or(Error::Lacks("cluster of the current context"))?;
        let user = entry(&document.users, &context.user)
            .and_then(|named| named.user.as_ref())
            .ok_or(Error::Lacks("user of the current context"))?;
        Ok(Self {
            cluster: context.cluster.clone(),
            user: context.user.clone(),
            server: cluster.server.clone(),
            ca_pem: text(
                cluster.certificate_authority_data.as_deref(),
                "certificate authority",
            )?,
            certificate_pem: text(user.client_certificate_data.as_deref(), "client certificate")?,
            key_pem: PrivateKeyPem::new(text(
                user.client_key_data.as_ref().map(|key| key.as_str()),
                "client key",
            )?),
        })
    }
}

fn entry<'a>(list: &'a [Named], name: &str) -> Option<&'a Named> {
    list.iter().find(|named| named.name == name)
}

fn text(encoded: Option<&str>, what: &'static str) -> Result<String, Error> {
    let bytes = BASE64
        .decode(encoded.ok_or(Error::Lacks(what))?)
        .map_err(|_| Error::Lacks(what))?;
    String::from_utf8(bytes).map_err(|_| Error::Lacks(what))
}

/// Where the text is malformed, without quoting it: it may contain a key.
fn shape_of(error: &serde_yaml::Error) -> String {
    error.location().map_or_else(
        || "unexpected structure".to_owned(),
        |at| format!("unexpected structure at line {}", at.line()),
    )
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    api_version: String,
    kind: String,
    #[serde(default)]
    clusters: Vec<Named>,
    #[serde(default)]
    contexts: Vec<Named>,
    #[serde(rename = "current-context", default)]
    current_context: String,
    #[serde(default)]
    users: Vec<Named>,
}

#[derive(Default, Serialize, Deserialize)]
struct Named {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cluster: Option<Cluster>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    context: Option<Context>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<User>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate_authority_data: Option<String>,
    server: String,
}

#[derive(Serialize, Deserialize)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_certificate_data: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "wiped")]
    client_key_data: Option<Zeroizing<String>>,
}

mod wiped {
    use serde::{Deserialize, Deserializer, Serializer};
    use zeroize::Zeroizing;

    #[expect(clippy::ref_option, reason = "the signature that serde requires")]
    pub(super) fn serialize<S: Serializer>(
        value: &Option<Zeroizing<String>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(text) => serializer.serialize_str(text),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Zeroizing<String>>, D::Error> {
        Ok(Option::<String>::deserialize(deserializer)?.map(Zeroizing::new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Kubeconfig {
        Kubeconfig {
            cluster: "alpha".to_owned(),
            user: "kubernetes-admin".to_owned(),
            server: "https://192.0.2.7:6443".to_owned(),
            ca_pem: "CA".to_owned(),
            certificate_pem: "CERT".to_owned(),
            key_pem: PrivateKeyPem::new("KEY".to_owned()),
        }
    }

    #[test]
    fn the_text_is_a_kubeconfig_with_embedded_certificates() {
        insta::assert_snapshot!(example().to_yaml().unwrap().as_str(), @r"
        apiVersion: v1
        kind: Config
        clusters:
        - name: alpha
          cluster:
            certificate-authority-data: Q0E=
            server: https://192.0.2.7:6443
        contexts:
        - name: kubernetes-admin@alpha
          context:
            cluster: alpha
            user: kubernetes-admin
        current-context: kubernetes-admin@alpha
        users:
        - name: kubernetes-admin
          user:
            client-certificate-data: Q0VSVA==
            client-key-data: S0VZ
        ");
    }

    #[test]
    fn a_kubeconfig_is_read_back_as_written() {
        let text = example().to_yaml().unwrap();
        assert_eq!(Kubeconfig::parse(text.as_bytes()).unwrap(), example());
    }

    #[test]
    fn contract_09_names_of_the_cluster_api_kubeconfig() {
        let copy = example().for_cluster_api("beta", "https://beta.example.com:443");
        assert_eq!(copy.cluster, "beta");
        assert_eq!(copy.user, "beta-admin");
        assert_eq!(copy.context(), "beta-admin@beta");
        assert_eq!(copy.server, "https://beta.example.com:443");
        assert_eq!(copy.certificate_pem, "CERT");
    }

    #[test]
    fn a_kubeconfig_without_embedded_certificates_is_refused_without_quoting_it() {
        let exec = "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n\
                    clusters: [{name: k, cluster: {server: 'https://h:1'}}]\nusers: [{name: u, user: {exec: {command: x}}}]\n";
        assert_eq!(
            Kubeconfig::parse(exec.as_bytes()),
            Err(Error::Lacks("certificate authority"))
        );
        let error = Kubeconfig::parse(b"apiVersion: [hunter2")
            .unwrap_err()
            .to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
