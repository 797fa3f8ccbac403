//! The key material of a managed etcd: made once; the leaves are renewed. Its CA signs the certificates of
//! every tenant too, so one that is gone is waited for and never replaced by another.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{PersistentVolumeClaim, Secret},
    },
    jiff::Timestamp,
};
use kamaji_api::{conditions::Reason, datastore::DataStore, labels::namespace};
use kube::ResourceExt as _;

use super::{
    desired, observe, parts, usage,
    validate::{Managed, Problem},
};
use crate::{
    hosting::engine::Engine,
    k8s::{
        error::Class,
        key::{ObjectKey, RootKey},
        kind::Kind,
    },
    pki::{
        annotations as on,
        issue::{self, Material, Signers},
        material::{CLUSTER_CA_KEYS, Ca, SecretBytes},
        policy::{self, Decision, Input},
        spec::SecretSpec,
    },
};

/// The key material.
pub(super) struct Keys {
    /// Fingerprint of the CA.
    pub(super) ca: String,
    /// When the next certificate is due.
    pub(super) renew_at: Option<Timestamp>,
}

/// Makes what is missing and renews what is due.
pub(super) async fn ensure(
    engine: &Engine,
    store: &DataStore,
    managed: &Managed,
    now: Timestamp,
) -> Result<Keys, Problem> {
    let index = &engine.index;
    if index
        .find::<StatefulSet>(namespace::DATASTORES, &managed.name)
        .is_none()
    {
        engine.applier.apply(&desired::home()?).await?;
    }
    let fingerprint = ca(engine, store, managed, now).await?;
    let mut renew_at: Option<Timestamp> = None;
    let mut signer = None;
    for spec in [parts::server(&managed.name), parts::admin(&managed.name)] {
        let row = index.find::<Secret>(namespace::DATASTORES, &spec.name);
        let decision = policy::decide(Input {
            spec: &spec,
            tenant: &managed.name,
            observed: row.as_ref().map(|row| &row.annotations),
            ca: Some(&fingerprint),
            now,
        });
        let Decision::Issue(reason) = decision else {
            if let Decision::Keep { renew_at: Some(at) } = decision {
                renew_at = Some(renew_at.map_or(at, |known| known.min(at)));
            }
            continue;
        };
        tracing::info!(datastore = managed.name, secret = spec.name, %reason, "issuing a certificate");
        let signer = match &signer {
            Some(signer) => signer,
            None => signer.insert(signing(engine, managed, &fingerprint).await?),
        };
        let signers = Signers {
            datastore: Some(signer),
            ..Signers::default()
        };
        let material = issue::secret(&spec, signers, now)?;
        put(engine, store, &spec, &material, row.is_some()).await?;
        engine.pool.forget(&managed.name);
    }
    Ok(Keys {
        ca: fingerprint,
        renew_at,
    })
}

/// Fingerprint of the CA: of the one that is known, of one that is found, or of a new one where none was in use.
async fn ca(
    engine: &Engine,
    store: &DataStore,
    managed: &Managed,
    now: Timestamp,
) -> Result<String, Problem> {
    let spec = parts::ca(&managed.name);
    let row = engine.index.find::<Secret>(namespace::DATASTORES, &spec.name);
    if let Some(known) = row.and_then(|row| row.annotations.get(on::CA_FINGERPRINT).cloned()) {
        return Ok(known);
    }
    if let Some(found) = observe::secret(&engine.client, namespace::DATASTORES, &spec.name).await? {
        return take(engine, store, &spec, found).await;
    }
    if let Some(witness) = witness(engine, managed) {
        return Err(Problem {
            reason: Reason::SecretNotFound,
            message: format!(
                "Secret {}, the CA of this etcd and of its tenants' certificates, is gone while {witness} \
                 exists: restore the Secret from a backup",
                place(&spec)
            ),
            class: Class::Foreign,
        });
    }
    let material = issue::secret(&spec, Signers::default(), now)?;
    let manifest = desired::secret(store, &spec, &material)?;
    // Where another process was faster, the next pass finds what that one made.
    engine.applier.create(&manifest).await?;
    Ok(recorded(&material.annotations).unwrap_or_default().to_owned())
}

/// Something that goes by the CA already.
fn witness(engine: &Engine, managed: &Managed) -> Option<String> {
    let name = managed.name.as_str();
    let parts = [
        (Kind::of::<StatefulSet>(), name.to_owned()),
        (Kind::of::<Secret>(), parts::server(name).name),
        (Kind::of::<Secret>(), parts::admin(name).name),
        (Kind::of::<PersistentVolumeClaim>(), parts::claim_name(name)),
    ];
    let part = parts.into_iter().find_map(|(kind, part)| {
        let row = engine
            .index
            .get(&ObjectKey::new(kind, namespace::DATASTORES, part))?;
        Some(row.key.to_string())
    });
    part.or_else(|| {
        let tenants = engine.tenants.all();
        let tenant = tenants.iter().find(|tenant| usage::is_set_up(tenant, name))?;
        Some(format!("TenantControlPlane {}", RootKey::of(&**tenant)))
    })
}

/// Takes a CA that no watch shows: it lost our label or our annotation, or came out of a backup. Its bytes stay.
async fn take(
    engine: &Engine,
    store: &DataStore,
    spec: &SecretSpec,
    found: Secret,
) -> Result<String, Problem> {
    let data = found.data.clone().unwrap_or_default();
    let read = Ca::read(&place(spec), CLUSTER_CA_KEYS, &data);
    let fingerprint = match &read {
        Ok(ca) => ca.fingerprint().to_owned(),
        Err(error) => {
            return Err(Problem {
                reason: Reason::CredentialsInvalid,
                message: format!("{error}; restore the Secret from a backup"),
                class: Class::Foreign,
            });
        }
    };
    let told = recorded(found.annotations());
    if told.is_some_and(|told| told != fingerprint) {
        return Err(another_ca(spec));
    }
    let advice = format!(
        "; if its CA is the right one, annotate it with {}={fingerprint}",
        on::CA_FINGERPRINT
    );
    mine(store, spec, &found, told.is_some(), &advice)?;
    let mut annotations: BTreeMap<_, _> = found
        .annotations()
        .iter()
        .filter(|(key, _)| {
            [on::INPUTS_HASH, on::NOT_BEFORE, on::NOT_AFTER, on::CONTENT_HASH].contains(&&***key)
        })
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    annotations.insert(on::CA_FINGERPRINT.to_owned(), fingerprint.clone());
    let data = data
        .into_iter()
        .map(|(key, value)| (key, SecretBytes::new(value.0)));
    let material = Material {
        data: data.collect(),
        annotations,
    };
    let manifest = desired::secret(store, spec, &material)?;
    let uid = found.metadata.uid.as_deref().unwrap_or_default();
    engine.applier.apply_to(&manifest, uid).await?;
    Ok(fingerprint)
}

/// The CA, as the one that was recorded.
async fn signing(engine: &Engine, managed: &Managed, fingerprint: &str) -> Result<Ca, Problem> {
    let ca = observe::ca(&engine.client, managed).await?;
    if ca.fingerprint() == fingerprint {
        return Ok(ca);
    }
    Err(another_ca(&parts::ca(&managed.name)))
}

fn another_ca(spec: &SecretSpec) -> Problem {
    Problem {
        reason: Reason::CredentialsInvalid,
        message: format!(
            "Secret {} holds another CA than its annotation {} says: restore the former one from a backup, or \
             remove the annotation to go over to this one",
            place(spec),
            on::CA_FINGERPRINT
        ),
        class: Class::Foreign,
    }
}

/// Writes a certificate. One that is there and only lost our label is written over.
async fn put(
    engine: &Engine,
    store: &DataStore,
    spec: &SecretSpec,
    material: &Material,
    is_known: bool,
) -> Result<(), Problem> {
    let manifest = desired::secret(store, spec, material)?;
    if !is_known {
        match engine.applier.create(&manifest).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_already_exists() => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(found) = observe::secret(&engine.client, namespace::DATASTORES, &spec.name).await? {
            mine(store, spec, &found, recorded(found.annotations()).is_some(), "")?;
            let uid = found.metadata.uid.as_deref().unwrap_or_default();
            engine.applier.apply_to(&manifest, uid).await?;
            return Ok(());
        }
    }
    engine.applier.apply(&manifest).await?;
    Ok(())
}

/// Whether a Secret with the name of ours may be written: it belongs to this DataStore, or to nobody and carries what
/// we record.
fn mine(
    store: &DataStore,
    spec: &SecretSpec,
    found: &Secret,
    is_recorded: bool,
    advice: &str,
) -> Result<(), Problem> {
    let owners = found.owner_references();
    let is_owned = owners
        .iter()
        .any(|owner| Some(&owner.uid) == store.metadata.uid.as_ref());
    let other = owners
        .iter()
        .find(|owner| owner.controller == Some(true) && !is_owned);
    let why = match other {
        Some(owner) => format!(
            "belongs to {} {} of UID {}: take that out of its metadata.ownerReferences, or delete the Secret if it is \
             of no use",
            owner.kind, owner.name, owner.uid
        ),
        None if is_owned || is_recorded => return Ok(()),
        None => format!("was not made for this DataStore: move it to another name{advice}"),
    };
    Err(Problem {
        reason: Reason::OwnedByAnother,
        message: format!("Secret {} {why}", place(spec)),
        class: Class::Foreign,
    })
}

fn recorded(annotations: &BTreeMap<String, String>) -> Option<&str> {
    annotations.get(on::CA_FINGERPRINT).map(String::as_str)
}

fn place(spec: &SecretSpec) -> String {
    format!("{}/{}", namespace::DATASTORES, spec.name)
}

impl From<serde_json::Error> for Problem {
    fn from(error: serde_json::Error) -> Self {
        Self::invalid(
            Reason::InternalError,
            format!("an object cannot be written: {error}"),
        )
    }
}

impl From<issue::Error> for Problem {
    fn from(error: issue::Error) -> Self {
        Self::invalid(Reason::InternalError, error.to_string())
    }
}
