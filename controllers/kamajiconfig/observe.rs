//! Everything a pass reads of the management cluster: from memory where it is watched, by request where it is content
//! of Secrets and ConfigMaps. Secret content is never kept.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kamaji_api::{
    bootstrap::{KamajiConfig, KeySelector},
    conditions::Reason,
    controlplane::KamajiControlPlane,
    labels::{capi, ours},
};
use kube::{Api, ResourceExt as _};

use super::{Context, gates::Gate};
use crate::{
    capi::{cluster::Cluster, machine::Machine},
    k8s::{error::ApiError, key::RootKey, row::Row},
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
        .find("Secret", &config.namespace().unwrap_or_default(), name)
}

/// The row of the provider's own kubeconfig for the tenant.
pub fn kubeconfig_row(context: &Context, cluster: &RootKey) -> Option<Arc<Row>> {
    let name = format!("{}{}", cluster.name, ours::BOOTSTRAP_KUBECONFIG_SUFFIX);
    context.index.find("Secret", &cluster.namespace, &name)
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
/// When the API server does not answer; inside, what is missing.
pub async fn references(
    context: &Context,
    config: &KamajiConfig,
) -> Result<Result<References, Gate>, ApiError> {
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
        match found {
            Ok(bytes) => files.push(bytes),
            Err(gate) => return Ok(Err(gate)),
        }
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
        match present(bytes, &format!("users[{at}].passwdFrom"), "Secret", selector) {
            Ok(Some(bytes)) => {
                let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
                passwords.insert(user.name.clone(), text);
            }
            Ok(None) => {}
            Err(gate) => return Ok(Err(gate)),
        }
    }
    Ok(Ok(References { files, passwords }))
}

fn present(
    bytes: Option<Vec<u8>>,
    field: &str,
    kind: &str,
    selector: &KeySelector,
) -> Result<Option<Vec<u8>>, Gate> {
    if bytes.is_none() && !selector.optional {
        return Err(Gate::closed(
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
/// When the API server does not answer; inside, what is missing.
pub async fn authority(
    context: &Context,
    config: &KamajiConfig,
    cluster: &RootKey,
) -> Result<Result<String, Gate>, ApiError> {
    let given = config.spec.control_plane.ca_secret_ref.as_ref();
    let name = given.map_or_else(
        || format!("{}{}", cluster.name, capi::CA_SUFFIX),
        |given| given.name.clone(),
    );
    let key = given
        .and_then(|given| given.key.clone())
        .unwrap_or_else(|| "tls.crt".to_owned());
    let missing = || {
        Gate::closed(
            Reason::WaitingForCertificates,
            format!("waiting for key {key} of Secret {name} with the cluster's CA"),
        )
    };
    // A Secret that is watched and not there need not be asked for.
    if given.is_none() && secret_row(context, config, &name).is_none() {
        return Ok(Err(missing()));
    }
    let Some(secret) = secret(context, &cluster.namespace, &name).await? else {
        return Ok(Err(missing()));
    };
    let Some(pem) = value(&secret, &key).and_then(|bytes| std::str::from_utf8(bytes).ok()) else {
        return Ok(Err(missing()));
    };
    let found = crate::pki::material::Found {
        place: format!("Secret {name}"),
        bytes: pem.as_bytes(),
    };
    Ok(match crate::pki::material::certificates(&found) {
        Ok(_) => Ok(format!("{}\n", pem.trim())),
        Err(error) => Err(Gate::closed(
            Reason::CertificateAuthorityInvalid,
            error.to_string(),
        )),
    })
}
