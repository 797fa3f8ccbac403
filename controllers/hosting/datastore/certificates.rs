//! The key material of a managed etcd. Its certificates are renewed. Its CA is created once: it signs the certificates of
//! every tenant too, so a missing CA is never replaced by a new one but has to be restored.

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

use super::{desired, observe, parts, validate::Managed};
use crate::{
    hosting::{engine::Engine, usage},
    k8s::{
        error::Class,
        key::{ObjectKey, RootKey},
        kind::Kind,
        meta::controller_of,
        problem::Problem,
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
    /// When the next certificate is due for renewal.
    pub(super) renew_at: Option<Timestamp>,
}

/// Creates missing key material and renews certificates that are due.
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
            let owner = controller_of(store);
            if let Some(row) = row.filter(|row| row.is_orphan_of(&owner)) {
                engine.applier.own(&row, &owner).await?;
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
        let material = issue::secret(&spec, signers, now).map_err(|error| not_issued(&error))?;
        put(engine, store, &spec, &material, row.is_some()).await?;
        engine.pool.forget(&managed.name);
    }
    Ok(Keys {
        ca: fingerprint,
        renew_at,
    })
}

/// Fingerprint of the CA: the recorded one, that of a CA without our labels, or that of a new CA if none was in use.
async fn ca(
    engine: &Engine,
    store: &DataStore,
    managed: &Managed,
    now: Timestamp,
) -> Result<String, Problem> {
    let spec = parts::ca(&managed.name);
    let row = engine.index.find::<Secret>(namespace::DATASTORES, &spec.name);
    let owned = row.filter(|row| !row.is_orphan_of(&controller_of(store)));
    if let Some(known) = owned.and_then(|row| row.annotations.get(on::CA_FINGERPRINT).cloned()) {
        return Ok(known);
    }
    if let Some(found) = observe::secret(&engine.client, namespace::DATASTORES, &spec.name).await? {
        return adopt(engine, store, &spec, found).await;
    }
    if let Some(witness) = witness(engine, managed) {
        return Err(Problem::backoff(
            Class::Foreign,
            Reason::SecretNotFound,
            format!(
                "Secret {}, the CA of this etcd and of its tenants' certificates, does not exist, but {witness} \
                 exists: restore the Secret from a backup",
                name_of(&spec)
            ),
        ));
    }
    let material = issue::secret(&spec, Signers::default(), now).map_err(|error| not_issued(&error))?;
    let manifest = desired::secret(store, &spec, &material)?;
    // If another process was faster, the next reconcile finds its CA.
    engine.applier.create(&manifest).await?;
    Ok(recorded(&material.annotations).unwrap_or_default().to_owned())
}

/// An object that exists only if a CA was created before.
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
        let mut tenants = engine.tenants_of(name).into_iter();
        let is_set_up = |key: &RootKey| {
            let tenant = engine.tenants.get(key);
            tenant.is_some_and(|tenant| usage::is_set_up(&tenant, name))
        };
        Some(format!("TenantControlPlane {}", tenants.find(is_set_up)?))
    })
}

/// Adopts a CA that the watch does not report: its labels or annotations were removed, or it was restored from a backup.
/// Its data stays.
async fn adopt(
    engine: &Engine,
    store: &DataStore,
    spec: &SecretSpec,
    found: Secret,
) -> Result<String, Problem> {
    let data = found.data.clone().unwrap_or_default();
    let read = Ca::read(&name_of(spec), CLUSTER_CA_KEYS, &data);
    let fingerprint = match &read {
        Ok(ca) => ca.fingerprint().to_owned(),
        Err(error) => {
            return Err(Problem::backoff(
                Class::Foreign,
                Reason::CredentialsInvalid,
                format!("{error}; restore the Secret from a backup"),
            ));
        }
    };
    let known = recorded(found.annotations());
    if known.is_some_and(|known| known != fingerprint) {
        return Err(another_ca(spec));
    }
    let advice = format!(
        "; if it contains the CA of this DataStore, annotate it with {}={fingerprint}",
        on::CA_FINGERPRINT
    );
    check_owner(store, spec, &found, known.is_some(), &advice)?;
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

/// Reads the CA; its fingerprint must be the recorded one.
async fn signing(engine: &Engine, managed: &Managed, fingerprint: &str) -> Result<Ca, Problem> {
    let ca = observe::ca(&engine.client, managed).await?;
    if ca.fingerprint() == fingerprint {
        return Ok(ca);
    }
    Err(another_ca(&parts::ca(&managed.name)))
}

fn another_ca(spec: &SecretSpec) -> Problem {
    Problem::backoff(
        Class::Foreign,
        Reason::CredentialsInvalid,
        format!(
            "Secret {} contains another CA than its annotation {} records: restore the former CA from a backup, or \
             remove the annotation to use this one",
            name_of(spec),
            on::CA_FINGERPRINT
        ),
    )
}

/// Writes a Secret with a certificate. One that exists without our labels is adopted.
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
            check_owner(store, spec, &found, recorded(found.annotations()).is_some(), "")?;
            let uid = found.metadata.uid.as_deref().unwrap_or_default();
            engine.applier.apply_to(&manifest, uid).await?;
            return Ok(());
        }
    }
    engine.applier.apply(&manifest).await?;
    Ok(())
}

/// Refuses to write a Secret of somebody else: ours is owned by this DataStore, or has no owner and our annotations.
fn check_owner(
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
            "is owned by {} {} with UID {}: remove that from its metadata.ownerReferences, or delete the Secret if it \
             is not used",
            owner.kind, owner.name, owner.uid
        ),
        None if is_owned || is_recorded => return Ok(()),
        None => format!("was not created for this DataStore: rename it{advice}"),
    };
    Err(Problem::backoff(
        Class::Foreign,
        Reason::OwnedByAnother,
        format!("Secret {} {why}", name_of(spec)),
    ))
}

fn recorded(annotations: &BTreeMap<String, String>) -> Option<&str> {
    annotations.get(on::CA_FINGERPRINT).map(String::as_str)
}

fn name_of(spec: &SecretSpec) -> String {
    format!("{}/{}", namespace::DATASTORES, spec.name)
}

fn not_issued(error: &issue::Error) -> Problem {
    Problem::on_change(Reason::InternalError, error.to_string())
}
