//! Reads the management cluster: watched objects from memory, contents of Secrets and ConfigMaps by request. No content
//! of a Secret is kept.

use std::{collections::BTreeMap, sync::Arc};

use base64::Engine as _;
use k8s_openapi::{
    Resource as _,
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kamaji_api::{
    bootstrap::{File, KamajiConfig, KeySelector, NameSource},
    conditions::Reason,
    controlplane::KamajiControlPlane,
    labels::{capi, ours},
};
use kube::{Api, ResourceExt as _};
use rustls::pki_types::CertificateDer;
use tokio::sync::SemaphorePermit;

use super::{Context, bootstrapdata, owner::Owner};
use crate::{
    capi::{cluster::Cluster, machine::Machine},
    k8s::{
        error::{ApiError, Class},
        key::RootKey,
        problem::{Problem, Retry},
        row::Row,
    },
    pki::material::{self, Found},
};

/// The objects around a config.
pub struct Observed {
    /// The Machine that owns it, if a Machine does.
    pub machine: Option<Arc<Machine>>,
    /// Name of its Cluster: that of the Machine, else that of the label.
    pub cluster_name: Option<String>,
    /// Its Cluster.
    pub cluster: Option<Arc<Cluster>>,
    /// The Cluster's control plane, if it is a KamajiControlPlane.
    pub control_plane: Option<Arc<KamajiControlPlane>>,
    /// Where a machine that has its data takes the name of its Node from.
    pub name_source: Option<NameSource>,
}

/// Reads from memory alone.
pub fn observe(context: &Context, config: &KamajiConfig, owner: Option<Owner<&OwnerReference>>) -> Observed {
    let namespace = config.namespace().unwrap_or_default();
    let key = |name: &str| RootKey::new(namespace.clone(), name);
    let machine = owner.and_then(|owner| match owner {
        Owner::Machine(reference) => context.machines.get(&key(&reference.name)),
        Owner::Pool(pool) => match pool {},
    });
    let cluster_name = machine
        .as_ref()
        .map(|machine| machine.spec.cluster_name.clone())
        .or_else(|| config.labels().get(capi::CLUSTER_NAME).cloned())
        .filter(|name| !name.is_empty());
    let cluster = cluster_name
        .as_deref()
        .and_then(|name| context.clusters.get(&key(name)));
    let control_plane = cluster
        .as_ref()
        .and_then(|cluster| cluster.spec.control_plane_ref.as_ref())
        .filter(|reference| reference.kind == "KamajiControlPlane")
        .and_then(|reference| context.control_planes.get(&key(&reference.name)));
    Observed {
        machine,
        cluster_name,
        cluster,
        control_plane,
        name_source: rendered_name_source(context, config),
    }
}

/// The source of the name that the bootstrap data was rendered with, if there is data. A machine keeps to it, whatever the
/// spec and the presets say since. Data of a program without presets has no mark.
fn rendered_name_source(context: &Context, config: &KamajiConfig) -> Option<NameSource> {
    let row = secret_row(context, config, &config.name_any());
    let data = config
        .status
        .as_ref()
        .and_then(|status| status.bootstrap_data.as_ref());
    let marked = row
        .as_ref()
        .and_then(|row| NameSource::parse(row.annotations.get(ours::NAME_SOURCE)?));
    let own = || config.spec.node_registration.name_source;
    marked
        .or_else(|| data?.name_source)
        .or_else(|| (row.is_some() || data.is_some()).then(|| own().unwrap_or(NameSource::MachineName)))
}

/// The index entry of a Secret in the namespace of `config`.
pub fn secret_row(context: &Context, config: &KamajiConfig, name: &str) -> Option<Arc<Row>> {
    context
        .index
        .find::<Secret>(&config.namespace().unwrap_or_default(), name)
}

/// The index entry of the Secret with this provider's kubeconfig for the workload cluster.
pub fn kubeconfig_row(context: &Context, cluster: &RootKey) -> Option<Arc<Row>> {
    let name = format!("{}{}", cluster.name, ours::BOOTSTRAP_KUBECONFIG_SUFFIX);
    context.index.find::<Secret>(&cluster.namespace, &name)
}

/// A Secret with its content, if it exists.
///
/// # Errors
/// What the API server answered.
pub async fn secret(context: &Context, namespace: &str, name: &str) -> Result<Option<Secret>, Problem> {
    let api: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
    api.get_opt(name)
        .await
        .map_err(|error| refused(ApiError::new(format!("get Secret {namespace}/{name}"), error)))
}

/// What an answer of the management cluster means for a config: an invalid object and missing permissions are reported by
/// a condition and looked at again, anything else is a failure that says nothing about the config.
pub fn refused(error: ApiError) -> Problem {
    match error.class() {
        Class::Invalid => Problem::unwatched(Reason::InvalidSpec, error.to_string()),
        Class::Denied => Problem::unwatched(Reason::Forbidden, error.to_string()),
        Class::Transient | Class::Conflict | Class::Foreign => error.into(),
    }
}

/// A failure, which says nothing about the config: conditions keep what they reported.
pub fn is_failure(problem: &Problem) -> bool {
    match problem.retry {
        Retry::Backoff(_) => true,
        Retry::OnChange | Retry::Unwatched => false,
    }
}

/// The value of one key of a Secret.
pub fn value<'a>(secret: &'a Secret, key: &str) -> Option<&'a [u8]> {
    secret.data.as_ref()?.get(key).map(|bytes| bytes.0.as_slice())
}

/// Bytes of all files together that `contentFrom` may name. Whoever may create a KamajiConfig chooses them, and the process
/// serves all tenants. Bootstrap data itself has a megabyte at most.
pub const MAX_REFERENCED: usize = 2 * 1024 * 1024;
/// Configs whose files are read and rendered at the same time: each may take a multiple of [`MAX_REFERENCED`].
pub const READERS: usize = 4;

/// Values that the spec refers to.
pub struct References<'a> {
    /// Content of `spec.files`, by position.
    pub files: Vec<Option<Vec<u8>>>,
    /// Password hashes by user.
    pub passwords: BTreeMap<String, String>,
    /// Held while the values are in memory; see [`READERS`].
    _turn: Option<SemaphorePermit<'a>>,
}

/// Reads the values that the spec refers to, each object once.
///
/// # Errors
/// What is missing, or too large. Secrets of users carry no label that is watched, so they are looked for again with
/// backoff.
pub async fn references<'a>(context: &'a Context, config: &KamajiConfig) -> Result<References<'a>, Problem> {
    let namespace = config.namespace().unwrap_or_default();
    let refers = config.spec.files.iter().any(|file| file.content_from.is_some());
    let turn = if refers {
        context.readers.acquire().await.ok()
    } else {
        None
    };
    let sources: Vec<_> = config.spec.files.iter().map(source).collect();
    // Values of objects that were read, for the files that are still to come; shared by those that name the same one.
    let mut read: Vec<Option<Option<Arc<[u8]>>>> = vec![None; sources.len()];
    let (mut files, mut sizes) = (Vec::with_capacity(sources.len()), Vec::new());
    for (at, (file, source)) in config.spec.files.iter().zip(&sources).enumerate() {
        let (Some((kind, selector)), None) = (source, &file.content) else {
            files.push(file.content.clone().map(String::into_bytes));
            continue;
        };
        if read[at].is_none() {
            let object = Content::read(context, &namespace, kind, &selector.name).await?;
            let mut values = BTreeMap::new();
            for (other, wanted) in sources.iter().enumerate().skip(at) {
                let same = wanted.filter(|(of, by)| of == kind && by.name == selector.name);
                if let Some((_, selector)) = same {
                    let key = selector.key.as_str();
                    let value = values
                        .entry(key)
                        .or_insert_with(|| object.value(key).map(Arc::from));
                    read[other] = Some(value.clone());
                }
            }
        }
        let bytes = read[at].take().flatten();
        sizes.push((file.path.clone(), bytes.as_ref().map_or(0, |bytes| bytes.len())));
        let total: usize = sizes.iter().map(|(_, bytes)| bytes).sum();
        if total > MAX_REFERENCED {
            return Err(Problem::unwatched(
                Reason::TooLarge,
                format!(
                    "spec.files: contentFrom names more than {MAX_REFERENCED} bytes; largest files so far: {}; let the machine \
                     fetch what is large",
                    bootstrapdata::render::largest(sizes)
                ),
            ));
        }
        let bytes = bytes.map(|bytes| bytes.to_vec());
        files.push(present(
            bytes,
            &format!("files[{at}].contentFrom"),
            kind,
            selector,
        )?);
    }
    let mut passwords = BTreeMap::new();
    for (at, user) in config.spec.users.iter().enumerate() {
        let Some(from) = &user.passwd_from else {
            continue;
        };
        let selector = &from.secret;
        let secret = secret(context, &namespace, &selector.name).await?;
        let bytes = secret
            .as_ref()
            .and_then(|s| value(s, &selector.key))
            .map(<[u8]>::to_vec);
        if let Some(bytes) = present(bytes, &format!("users[{at}].passwdFrom"), Secret::KIND, selector)? {
            let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            passwords.insert(user.name.clone(), text);
        }
    }
    Ok(References {
        files,
        passwords,
        _turn: turn,
    })
}

/// Kind and key of the object that a file names.
fn source(file: &File) -> Option<(&'static str, &KeySelector)> {
    let from = file.content_from.as_ref()?;
    let secret = from.secret.as_ref().map(|selector| (Secret::KIND, selector));
    secret.or_else(|| {
        from.config_map
            .as_ref()
            .map(|selector| (ConfigMap::KIND, selector))
    })
}

/// An object that files name.
enum Content {
    Secret(Box<Secret>),
    ConfigMap(Box<ConfigMap>),
    Missing,
}

impl Content {
    async fn read(context: &Context, namespace: &str, kind: &str, name: &str) -> Result<Self, Problem> {
        if kind == Secret::KIND {
            let found = secret(context, namespace, name).await?;
            return Ok(found.map_or(Self::Missing, |secret| Self::Secret(Box::new(secret))));
        }
        let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), namespace);
        let found = api
            .get_opt(name)
            .await
            .map_err(|error| refused(ApiError::new(format!("get ConfigMap {namespace}/{name}"), error)))?;
        Ok(found.map_or(Self::Missing, |map| Self::ConfigMap(Box::new(map))))
    }

    fn value(&self, key: &str) -> Option<&[u8]> {
        match self {
            Self::Secret(secret) => value(secret, key),
            Self::ConfigMap(map) => {
                let text = map.data.as_ref().and_then(|data| data.get(key));
                let binary = map.binary_data.as_ref().and_then(|data| data.get(key));
                text.map(String::as_bytes)
                    .or_else(|| binary.map(|bytes| bytes.0.as_slice()))
            }
            Self::Missing => None,
        }
    }
}

fn present(
    bytes: Option<Vec<u8>>,
    field: &str,
    kind: &str,
    selector: &KeySelector,
) -> Result<Option<Vec<u8>>, Problem> {
    if bytes.is_none() && !selector.optional {
        return Err(Problem::unwatched(
            Reason::ReferenceNotFound,
            format!(
                "spec.{field} refers to {kind} {}, which does not exist or has no key {:?}",
                selector.name, selector.key
            ),
        ));
    }
    Ok(bytes)
}

/// The CA of the workload cluster: `tls.crt` of the Secret `<cluster>-ca`, or the key that the config names.
///
/// # Errors
/// What is missing, or wrong with it.
pub async fn ca(context: &Context, config: &KamajiConfig, cluster: &RootKey) -> Result<String, Problem> {
    let given = config.spec.control_plane.ca_secret_ref.as_ref();
    let name = given.map_or_else(
        || format!("{}{}", cluster.name, capi::CA_SUFFIX),
        |given| given.name.clone(),
    );
    let key = given
        .and_then(|given| given.key.clone())
        .unwrap_or_else(|| "tls.crt".to_owned());
    let location = format!("Secret {name}, key {key:?}");
    // A Secret that a user names need not carry the label that is watched.
    let problem = |reason: Reason, what: String| match given {
        Some(_) => Problem::unwatched(reason, format!("spec.controlPlane.caSecretRef: {what}")),
        None => Problem::on_change(reason, what),
    };
    let missing = || {
        problem(
            Reason::WaitingForCertificates,
            format!("waiting for the CA of Cluster {} in {location}", cluster.name),
        )
    };
    // Not asked for: a Secret that is watched and not in the index does not exist.
    if given.is_none() && secret_row(context, config, &name).is_none() {
        return Err(missing());
    }
    let Some(secret) = secret(context, &cluster.namespace, &name).await? else {
        return Err(missing());
    };
    let bytes = value(&secret, &key).ok_or_else(missing)?;
    certificates_of(location, bytes)
        .map_err(|error| problem(Reason::CertificateAuthorityInvalid, error.to_string()))
}

/// The certificates in `bytes` and nothing else: a private key in the same file is not for nodes.
fn certificates_of(location: String, bytes: &[u8]) -> Result<String, material::Error> {
    let found = Found { location, bytes };
    let pem = |der: CertificateDer<'static>| {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            lines.join("\n")
        )
    };
    Ok(material::certificates(&found)?.into_iter().map(pem).collect())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use serde_json::{Value, json};

    use super::*;
    use crate::{
        pki::{issue, spec::AltNames},
        testing::{FakeApi, path},
    };

    /// A config whose files name key `k` of these Secrets, each of which has this many bytes.
    async fn referring(names: &[&str], bytes: usize) -> (FakeApi, Result<usize, Problem>) {
        let api = FakeApi::default();
        for name in names {
            let data = json!({ "k": k8s_openapi::ByteString(vec![b'x'; bytes]) });
            api.edit(
                &path::secret(name),
                &json!({ "metadata": { "name": name, "namespace": "demo" }, "data": data }),
            );
        }
        let file = |(at, name): (usize, &&str)| json!({ "path": format!("/f{at}"), "contentFrom": { "secret": { "name": name, "key": "k" } } });
        let files: Vec<Value> = names.iter().enumerate().map(file).collect();
        let config: KamajiConfig = serde_json::from_value(json!({
            "metadata": { "name": "c", "namespace": "demo" }, "spec": { "files": files },
        }))
        .unwrap();
        let context = Context::new(api.client(), "test", None, |_| true);
        let read = references(&context, &config).await;
        (
            api,
            read.map(|read| read.files.iter().flatten().map(Vec::len).sum()),
        )
    }

    #[tokio::test]
    async fn an_object_that_many_files_name_is_read_once() {
        let (api, read) = referring(&["a"; 200], 1000).await;
        assert_eq!(read.unwrap(), 200_000);
        assert_eq!(api.requests(), [format!("GET {}", path::secret("a"))]);
    }

    #[tokio::test]
    async fn files_that_are_too_large_together_are_refused_before_all_are_read() {
        let names: Vec<String> = (0..200).map(|at| format!("s{at}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for (names, requests) in [(&names[..], 3), (&["same"; 200][..], 1)] {
            let (api, read) = referring(names, 1024 * 1024).await;
            let problem = read.unwrap_err();
            assert_eq!(problem.reason, Reason::TooLarge);
            assert!(problem.message.contains("/f0 (1048576)"), "{}", problem.message);
            assert_eq!(api.requests().len(), requests);
        }
    }

    #[test]
    fn only_certificates_of_a_combined_file_reach_nodes() {
        let now = "2026-03-01T12:00:00Z".parse::<Timestamp>().unwrap();
        let one = issue::ca("one", &AltNames::default(), now).unwrap();
        let two = issue::ca("two", &AltNames::default(), now).unwrap();
        let text = format!(
            "# the CA\n{}{}{}",
            one.cert_pem,
            one.key_pem.expose(),
            two.cert_pem
        );
        let found = certificates_of("Secret a".to_owned(), text.as_bytes()).unwrap();
        assert_eq!(
            found,
            format!("{}{}", one.cert_pem, two.cert_pem).replace('\r', "")
        );
        assert!(certificates_of("Secret a".to_owned(), one.key_pem.expose().as_bytes()).is_err());
    }

    #[test]
    fn an_answer_of_the_management_cluster_is_reported_in_its_own_words() {
        let problem = |code: u16| {
            let answer = kube::core::Status::failure("metadata.labels: Invalid value", "").with_code(code);
            refused(ApiError::new(
                "create Secret ns/m",
                kube::Error::Api(Box::new(answer)),
            ))
        };
        let invalid = problem(422);
        assert_eq!(
            (invalid.reason, invalid.retry),
            (Reason::InvalidSpec, Retry::Unwatched)
        );
        assert!(invalid.message.contains("metadata.labels: Invalid value"));
        assert_eq!(problem(403).reason, Reason::Forbidden);
        assert_eq!(problem(403).retry, Retry::Unwatched);
        assert!(problem(500).is_transient());
    }
}
