//! Everything a pass reads of the management cluster: from memory where it is watched, by request where it is content
//! of Secrets and ConfigMaps. Secret content is never kept.

use std::{collections::BTreeMap, sync::Arc};

use base64::Engine as _;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kamaji_api::{
    bootstrap::{KamajiConfig, KeySelector},
    conditions::Reason,
    controlplane::KamajiControlPlane,
    labels::{capi, ours},
};
use kube::{Api, ResourceExt as _};

use rustls::pki_types::CertificateDer;

use super::{Context, preconditions::Gate, stop::Stop};
use crate::{
    capi::{cluster::Cluster, machine::Machine},
    k8s::{error::ApiError, key::RootKey, row::Row},
    pki::material::{self, Found},
};

/// What stands around a config.
pub struct Observed {
    /// Its Machine.
    pub machine: Option<Arc<Machine>>,
    /// Name of its Cluster, by the Machine or by the label.
    pub cluster_name: Option<String>,
    /// Its Cluster.
    pub cluster: Option<Arc<Cluster>>,
    /// The Cluster's control plane, where that is ours.
    pub control_plane: Option<Arc<KamajiControlPlane>>,
}

/// Reads from memory alone.
pub fn observe(context: &Context, config: &KamajiConfig, machine: Option<&str>) -> Observed {
    let namespace = config.namespace().unwrap_or_default();
    let key = |name: &str| RootKey::new(namespace.clone(), name);
    let machine = machine.and_then(|name| context.machines.get(&key(name)));
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
    }
}

/// The row of a Secret beside `config`.
pub fn secret_row(context: &Context, config: &KamajiConfig, name: &str) -> Option<Arc<Row>> {
    context
        .index
        .find::<Secret>(&config.namespace().unwrap_or_default(), name)
}

/// The row of the provider's own kubeconfig for the tenant.
pub fn kubeconfig_row(context: &Context, cluster: &RootKey) -> Option<Arc<Row>> {
    let name = format!("{}{}", cluster.name, ours::BOOTSTRAP_KUBECONFIG_SUFFIX);
    context.index.find::<Secret>(&cluster.namespace, &name)
}

/// A Secret with its content, if it exists.
pub async fn secret(context: &Context, namespace: &str, name: &str) -> Result<Option<Secret>, ApiError> {
    let api: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
    api.get_opt(name)
        .await
        .map_err(|error| ApiError::new(format!("get Secret {namespace}/{name}"), error))
}

/// One key of a Secret.
pub fn value<'a>(secret: &'a Secret, key: &str) -> Option<&'a [u8]> {
    secret.data.as_ref()?.get(key).map(|bytes| bytes.0.as_slice())
}

/// What the spec refers to.
pub struct References {
    /// Content of `spec.files`, by position.
    pub files: Vec<Option<Vec<u8>>>,
    /// Password hashes by user.
    pub passwords: BTreeMap<String, String>,
}

/// Reads what the spec refers to.
///
/// # Errors
/// What is missing. Secrets of users carry no label that is watched, so it is looked for again.
pub async fn references(context: &Context, config: &KamajiConfig) -> Result<References, Stop> {
    let namespace = config.namespace().unwrap_or_default();
    let mut files = Vec::with_capacity(config.spec.files.len());
    for (at, file) in config.spec.files.iter().enumerate() {
        let field = format!("files[{at}].contentFrom");
        let from = file.content_from.as_ref();
        let found = match (
            &file.content,
            from.and_then(|f| f.secret.as_ref()),
            from.and_then(|f| f.config_map.as_ref()),
        ) {
            (Some(text), ..) => Ok(Some(text.clone().into_bytes())),
            (None, Some(selector), _) => {
                let secret = secret(context, &namespace, &selector.name).await?;
                let bytes = secret
                    .as_ref()
                    .and_then(|s| value(s, &selector.key))
                    .map(<[u8]>::to_vec);
                present(bytes, &field, "Secret", selector)
            }
            (None, None, Some(selector)) => {
                let bytes = config_map_value(context, &namespace, selector).await?;
                present(bytes, &field, "ConfigMap", selector)
            }
            (None, None, None) => Ok(None),
        };
        files.push(found?);
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
        if let Some(bytes) = present(bytes, &format!("users[{at}].passwdFrom"), "Secret", selector)? {
            let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            passwords.insert(user.name.clone(), text);
        }
    }
    Ok(References { files, passwords })
}

fn present(
    bytes: Option<Vec<u8>>,
    field: &str,
    kind: &str,
    selector: &KeySelector,
) -> Result<Option<Vec<u8>>, Stop> {
    if bytes.is_none() && !selector.optional {
        return Err(Stop::waiting(
            Reason::ReferenceNotFound,
            format!(
                "{field}: {kind} {} has no key {} (or does not exist)",
                selector.name, selector.key
            ),
        ));
    }
    Ok(bytes)
}

async fn config_map_value(
    context: &Context,
    namespace: &str,
    selector: &KeySelector,
) -> Result<Option<Vec<u8>>, ApiError> {
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), namespace);
    let found = api
        .get_opt(&selector.name)
        .await
        .map_err(|error| ApiError::new(format!("get ConfigMap {namespace}/{}", selector.name), error))?;
    Ok(found.and_then(|map| {
        let text = map
            .data
            .and_then(|mut data| data.remove(&selector.key))
            .map(String::into_bytes);
        text.or_else(|| {
            map.binary_data
                .and_then(|mut data| data.remove(&selector.key))
                .map(|bytes| bytes.0)
        })
    }))
}

/// The tenant's CA: `tls.crt` of `<cluster>-ca`, or what the config names. The key is not asked for.
///
/// # Errors
/// What is missing, or wrong with it.
pub async fn authority(context: &Context, config: &KamajiConfig, cluster: &RootKey) -> Result<String, Stop> {
    let given = config.spec.control_plane.ca_secret_ref.as_ref();
    let name = given.map_or_else(
        || format!("{}{}", cluster.name, capi::CA_SUFFIX),
        |given| given.name.clone(),
    );
    let key = given
        .and_then(|given| given.key.clone())
        .unwrap_or_else(|| "tls.crt".to_owned());
    let place = format!("Secret {name}, key {key:?}");
    // A Secret that a user names need not carry the label that is watched.
    let stop = |reason: Reason, what: String| match given {
        Some(_) => Stop::waiting(reason, format!("controlPlane.caSecretRef: {what}")),
        None => Stop::closed(Gate::closed(reason, what)),
    };
    let missing = || {
        stop(
            Reason::WaitingForCertificates,
            format!("waiting for the cluster's CA in {place}"),
        )
    };
    // A Secret that is watched and not there need not be asked for.
    if given.is_none() && secret_row(context, config, &name).is_none() {
        return Err(missing());
    }
    let Some(secret) = secret(context, &cluster.namespace, &name).await? else {
        return Err(missing());
    };
    let bytes = value(&secret, &key).ok_or_else(missing)?;
    certificates_of(place, bytes)
        .map_err(|error| stop(Reason::CertificateAuthorityInvalid, error.to_string()))
}

/// The certificates in `bytes` and nothing else: what stands beside them, a key above all, is not for nodes.
fn certificates_of(place: String, bytes: &[u8]) -> Result<String, material::Error> {
    let found = Found {
        location: place,
        bytes,
    };
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

    use super::*;
    use crate::pki::{issue, spec::AltNames};

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
        let told = certificates_of("Secret a".to_owned(), text.as_bytes()).unwrap();
        assert_eq!(
            told,
            format!("{}{}", one.cert_pem, two.cert_pem).replace('\r', "")
        );
        assert!(certificates_of("Secret a".to_owned(), one.key_pem.expose().as_bytes()).is_err());
    }
}
