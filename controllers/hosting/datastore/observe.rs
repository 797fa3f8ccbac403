//! Reads what a DataStore depends on: the Secrets of its credentials, its members, and the storage classes of the cluster.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::{
        apps::v1::StatefulSet,
        core::v1::{PersistentVolumeClaim, Secret},
        storage::v1::StorageClass,
    },
};
use kamaji_api::{
    conditions::Reason,
    labels::{namespace, ours},
};
use kube::{Api, Client, ResourceExt as _};

use super::{
    parts,
    status::{Claim, Members, StorageClass as ClassFacts},
    validate::{External, Managed, Source, Valid},
};
use crate::{
    hosting::{driver::Credentials, engine::Engine},
    k8s::{
        error::{ApiError, Class},
        problem::Problem,
        row::Facts,
    },
    pki::material::{CLUSTER_CA_KEYS, Ca, Found, PrivateKeyPem, check_pair},
};

/// Annotation of the default storage class.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// Bytes and their location.
struct Read {
    location: String,
    bytes: Vec<u8>,
}

impl Read {
    fn found(&self) -> Found<'_> {
        Found {
            location: self.location.clone(),
            bytes: &self.bytes,
        }
    }

    fn text(&self) -> Result<String, Problem> {
        String::from_utf8(self.bytes.clone())
            .map_err(|_| invalid(format!("{} is not text; store PEM there", self.location)))
    }
}

/// Reads the admin's credentials and checks that certificates and keys match.
///
/// # Errors
/// When a Secret or key is missing, or the credentials cannot be used.
pub async fn credentials(client: &Client, valid: &Valid) -> Result<Credentials, Problem> {
    let (endpoints, sources) = match valid {
        Valid::External(external) => {
            let External {
                endpoints,
                ca,
                ca_key,
                certificate,
                key,
            } = &**external;
            let sources = [ca, ca_key, certificate, key].map(Clone::clone);
            (endpoints.clone(), sources)
        }
        Valid::Managed(managed) => (parts::endpoints(managed), managed_sources(managed)),
    };
    let mut secrets = BTreeMap::new();
    let mut all = Vec::with_capacity(sources.len());
    for source in &sources {
        all.push(read(client, source, &mut secrets).await?);
    }
    let [ca, ca_key, certificate, key] = &all[..] else {
        return Err(invalid("spec.tlsConfig: certificate authority and client certificate are required, each with its private key".to_owned()));
    };
    Ca::from_pem(&ca.found(), &ca_key.found(), None).map_err(|error| invalid(error.to_string()))?;
    check_pair(&certificate.found(), &key.found()).map_err(|error| invalid(error.to_string()))?;
    Ok(Credentials {
        endpoints,
        ca_pem: ca.text()?,
        ca_key: Some(PrivateKeyPem::new(ca_key.text()?)),
        certificate_pem: certificate.text()?,
        key: PrivateKeyPem::new(key.text()?),
        ca_locations: (ca.location.clone(), ca_key.location.clone()),
    })
}

/// The Secrets with the credentials of a managed DataStore.
fn managed_sources(managed: &Managed) -> [Source; 4] {
    let at = |name: String, key: &str| Source::Secret {
        field: "spec.managed".to_owned(),
        namespace: namespace::DATASTORES.to_owned(),
        name,
        key: key.to_owned(),
    };
    let ca = parts::ca(&managed.name).name;
    let admin = parts::admin(&managed.name).name;
    [
        at(ca.clone(), "ca.crt"),
        at(ca, "ca.key"),
        at(admin.clone(), "tls.crt"),
        at(admin, "tls.key"),
    ]
}

/// Reads the CA of a managed DataStore.
pub async fn ca(client: &Client, managed: &Managed) -> Result<Ca, Problem> {
    let name = parts::ca(&managed.name).name;
    let secret = get(client, namespace::DATASTORES, &name).await?;
    Ca::read(
        &format!("{}/{name}", namespace::DATASTORES),
        CLUSTER_CA_KEYS,
        &secret.unwrap_or_default(),
    )
    .map_err(|error| invalid(error.to_string()))
}

async fn read(
    client: &Client,
    source: &Source,
    secrets: &mut BTreeMap<(String, String), BTreeMap<String, ByteString>>,
) -> Result<Read, Problem> {
    let (field, namespace, name, key) = match source {
        Source::Inline { field, bytes } => {
            return Ok(Read {
                location: field.clone(),
                bytes: bytes.clone(),
            });
        }
        Source::Secret {
            field,
            namespace,
            name,
            key,
        } => (field, namespace, name, key),
    };
    // A Secret of a user is not watched.
    let missing =
        |what: String| Problem::backoff(Class::Foreign, Reason::SecretNotFound, format!("{field}: {what}"));
    let id = (namespace.clone(), name.clone());
    if !secrets.contains_key(&id) {
        let data = get(client, namespace, name)
            .await?
            .ok_or_else(|| missing(format!("Secret {namespace}/{name} does not exist")))?;
        secrets.insert(id.clone(), data);
    }
    let bytes = secrets
        .get(&id)
        .and_then(|data| data.get(key))
        .ok_or_else(|| missing(format!("Secret {namespace}/{name} has no key {key:?}")))?;
    Ok(Read {
        location: format!("Secret {namespace}/{name}, key {key:?}"),
        bytes: bytes.0.clone(),
    })
}

async fn get(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<BTreeMap<String, ByteString>>, Problem> {
    let secret = secret(client, namespace, name).await?;
    Ok(secret.map(|secret| secret.data.unwrap_or_default()))
}

/// Gets a Secret, if it exists.
pub async fn secret(client: &Client, namespace: &str, name: &str) -> Result<Option<Secret>, Problem> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let found = api.get_opt(name).await;
    Ok(found.map_err(|error| ApiError::new(format!("get Secret {namespace}/{name}"), error))?)
}

/// Lists the storage classes of the cluster.
pub async fn storage_classes(client: &Client) -> Result<Vec<ClassFacts>, ApiError> {
    let api: Api<StorageClass> = Api::all(client.clone());
    let list = api
        .list(&kube::api::ListParams::default())
        .await
        .map_err(|error| ApiError::new("list StorageClasses", error))?;
    Ok(list
        .iter()
        .map(|class| ClassFacts {
            name: class.name_any(),
            is_default: class
                .annotations()
                .get(DEFAULT_CLASS)
                .is_some_and(|value| value == "true"),
        })
        .collect())
}

fn invalid(message: String) -> Problem {
    // They may be in a Secret that is not watched: try again with backoff.
    Problem::backoff(Class::Foreign, Reason::CredentialsInvalid, message)
}

/// The members of a managed DataStore, from the index.
pub fn members(engine: &Engine, managed: &Managed) -> Members {
    let (index, name) = (&engine.index, managed.name.as_str());
    let set = index.find::<StatefulSet>(namespace::DATASTORES, name);
    let ready = match set.as_ref().map(|row| &row.facts) {
        Some(Facts::StatefulSet {
            ready,
            observed: true,
        }) => *ready,
        _ => 0,
    };
    let claim = index.find::<PersistentVolumeClaim>(namespace::DATASTORES, &parts::claim_name(name));
    let claim = claim.map(|row| {
        let (bound, class) = match &row.facts {
            Facts::Claim(found) => (found.phase == "Bound", found.class.clone()),
            _ => (true, None),
        };
        Claim {
            uid: row.uid.clone(),
            bound,
            class,
            adoptable: row.owner.is_none() && !row.deleting,
        }
    });
    let waits = ready < managed.spec.replicas || claim.as_ref().is_some_and(|claim| !claim.bound);
    let trouble = waits
        .then(|| index.pod_trouble(namespace::DATASTORES, ours::DATASTORE, name))
        .flatten();
    Members {
        ready,
        claim,
        trouble,
    }
}
