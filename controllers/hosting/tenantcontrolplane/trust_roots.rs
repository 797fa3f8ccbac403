//! The trust roots of a tenant: its two CAs and its ServiceAccount key pair. They are generated once. If one is lost or
//! modified, the condition names it and nothing is regenerated, because that would lock out every node, kubeconfig and
//! token irrecoverably. What runs keeps running. Only the user can give a trust root up
//! ([`ours::ACCEPT_NEW_IDENTITY`]).
//!
//! Those that the engine makes are immutable. A `<tcp>-ca` that the user provides is used as it is and never owned; one
//! with another key than the tenant was built with is reported in the same way, and one that was renewed with the same key
//! is taken.

use k8s_openapi::{api::core::v1::Secret, jiff::Timestamp};
use kamaji_api::{
    conditions::{Reason, TenantControlPlaneCondition as On},
    labels::{field_manager, kamaji, ours},
    tenantcontrolplane::TenantControlPlane,
};
use kube::{Resource as _, ResourceExt};
use serde_json::json;

use super::{
    ca::{ProvidedCa, recorded_hash, unusable},
    desired::metadata::labels_of,
    identity::{self, built_with},
    observe,
    scope::Scope,
};
use crate::{
    k8s::{
        conditions,
        error::Class,
        key::{ObjectKey, RootKey},
        manifest::belongs,
        meta::{controller_of, with_controller},
        problem::Problem,
        row::Row,
    },
    pki::{
        issue::content_hash_of,
        material::{self, Ca, Found},
        policy::{self, Decision},
        spec::{Content, SecretSpec, component},
    },
};

/// State of a trust root.
pub enum TrustRoot {
    /// It exists, as the engine generated or recorded it.
    Kept {
        /// Digest of its data.
        hash: String,
        /// Fingerprint of the certificate, if it is a CA.
        fingerprint: Option<String>,
    },
    /// The user provides it.
    Provided(ProvidedCa),
    /// It has to be generated: it never existed, or the user gave it up.
    Missing,
    /// It is lost or modified, and the tenant depends on it.
    Lost(Problem),
}

/// Finds the trust root `spec`. One that the index does not know is read before it is generated: it may exist without
/// its label, and keys cost CPU.
///
/// # Errors
/// The Secret belongs to somebody else, cannot be used, or cannot be read.
pub async fn find(scope: &Scope<'_>, spec: &SecretSpec) -> Result<TrustRoot, Problem> {
    let Scope { context, tenant, .. } = *scope;
    let namespace = scope.key().namespace;
    let row = context.engine.index.find::<Secret>(&namespace, &spec.name);
    let recorded = row
        .as_deref()
        // One that lost the label is watched while it carries that of a Cluster.
        .filter(|row| row.labels.get(ours::MANAGED_BY).map(String::as_str) == Some(field_manager::HOSTING))
        .filter(|row| is_recorded(tenant, spec, row, scope.now));
    // What an earlier process found modified is read again, since this process trusts what it lists.
    let suspect = is_reported_lost(tenant);
    let orphan = recorded.is_some_and(|row| row.is_orphan_of(&controller_of(tenant)));
    if let Some(row) = recorded.filter(|row| context.is_untouched(row) && !suspect && !orphan) {
        return Ok(kept(row));
    }
    // The index may not know a CA that the user provides, since it carries none of our labels.
    let version = row.as_ref().map(|row| row.resource_version.clone());
    if recorded.is_none()
        && spec.component == component::CA
        && let Some(known) = context.provided_ca(tenant, version.as_deref(), scope.now)
    {
        return Ok(TrustRoot::Provided(known));
    }
    let name = format!("{namespace}/{}", spec.name);
    let Some(secret) = observe::secret(context, &namespace, &spec.name).await? else {
        let Some(hash) = built_with(tenant, spec.component).filter(|hash| !gives_up(tenant, hash)) else {
            return Ok(TrustRoot::Missing);
        };
        return Ok(TrustRoot::Lost(lost(
            &name,
            "is gone",
            hash,
            "a new one is generated",
        )));
    };
    if recorded.is_some() || belongs_to(tenant, &secret) {
        return match (modified(tenant, spec, &secret), recorded) {
            (None, Some(row)) if !orphan => {
                context.remember(row);
                Ok(kept(row))
            }
            (Some(hash), _) if !gives_up(tenant, &hash) => Ok(TrustRoot::Lost(lost(
                &name,
                "was modified",
                &hash,
                "its current content is used",
            ))),
            (Some(_) | None, _) => adopt(scope, spec, &secret).await,
        };
    }
    if spec.component != component::CA {
        return Err(Problem::backoff(
            Class::Foreign,
            Reason::OwnedByAnother,
            format!(
                "Secret {name} exists and does not belong to this TenantControlPlane; rename one of them, or, if it does \
                 hold this control plane's keys, label it {}={} and {}={}",
                kamaji::PROJECT,
                kamaji::PROJECT_VALUE,
                kamaji::NAME,
                tenant.name_any()
            ),
        ));
    }
    let provided = ProvidedCa::read(&name, &secret)?;
    if let Some(problem) = replaced(tenant, &name, &provided) {
        return Ok(TrustRoot::Lost(problem));
    }
    let version = secret.resource_version().filter(|_| row.is_some());
    context.remember_ca(tenant, version, &provided, scope.now);
    Ok(TrustRoot::Provided(provided))
}

/// Makes a trust root of the engine immutable: no pod sees another content under the same name, and an edit is refused.
///
/// # Errors
/// What the API server answered.
pub async fn freeze(scope: &Scope<'_>, spec: &SecretSpec) -> Result<(), Problem> {
    let Scope { context, .. } = *scope;
    if let Some(row) = context
        .engine
        .index
        .find::<Secret>(&scope.key().namespace, &spec.name)
    {
        let frozen = context.engine.applier.freeze(&row).await?;
        context.remember(&frozen);
    }
    Ok(())
}

/// Records on a Secret of this tenant what the engine needs to know: the label by which it is watched, digest and
/// fingerprint, and the owner if it has lost it. The keys stay as they are.
async fn adopt(scope: &Scope<'_>, spec: &SecretSpec, secret: &Secret) -> Result<TrustRoot, Problem> {
    let Scope { context, tenant, .. } = *scope;
    let key = ObjectKey::of::<Secret>(scope.key().namespace, &spec.name);
    let name = RootKey::of(secret).to_string();
    let data = secret.data.clone().unwrap_or_default();
    let mut annotations = json!({ ours::CONTENT_HASH: content_hash_of(secret) });
    match (&spec.content, spec.ca_keys()) {
        (_, Some(keys)) => {
            let ca = Ca::read(&name, keys, &data).map_err(|error| unusable(&error))?;
            annotations[ours::CA_FINGERPRINT] = ca.fingerprint().into();
        }
        (Content::KeyPair { public, private }, None) => {
            let bytes = |key: &str| data.get(key).map_or(&[][..], |value| &value.0);
            let found = |key: &str| Found::in_secret(&name, key, bytes(key));
            let pair = material::is_pair(&found(public), &found(private));
            if !pair.map_err(|error| unusable(&error))? {
                return Err(Problem::backoff(
                    Class::Foreign,
                    Reason::CertificateAuthorityKeyMismatch,
                    format!(
                        "Secret {name}: {public} and {private} are not a pair; put a matching pair there"
                    ),
                ));
            }
        }
        (_, None) => {}
    }
    let mut metadata = json!({
        "labels": labels_of(tenant, spec.component),
        "annotations": annotations,
    });
    if let Some(owners) = with_controller(secret.owner_references(), &controller_of(tenant)) {
        metadata["ownerReferences"] = json!(owners);
    }
    let uid = secret.uid().unwrap_or_default();
    let row = context.engine.applier.record(&key, &uid, metadata).await?;
    tracing::info!(secret = %key, "recorded existing key material");
    context.remember(&row);
    Ok(kept(&row))
}

/// The Secret carries the annotations that the engine writes on key material.
fn is_recorded(tenant: &TenantControlPlane, spec: &SecretSpec, row: &Row, now: Timestamp) -> bool {
    let decision = policy::decide(policy::Input {
        spec,
        tenant: &RootKey::of(tenant).to_string(),
        observed: Some(&row.annotations),
        ca: None,
        now,
    });
    matches!(decision, Decision::Keep { .. }) && row.annotations.contains_key(ours::CONTENT_HASH)
}

fn kept(row: &Row) -> TrustRoot {
    TrustRoot::Kept {
        hash: recorded_hash(row),
        fingerprint: row.annotations.get(ours::CA_FINGERPRINT).cloned(),
    }
}

/// The engine, or an upstream Kamaji, generated the Secret for this tenant.
fn belongs_to(tenant: &TenantControlPlane, secret: &Secret) -> bool {
    let labels = labels_of(tenant, "");
    let kind = TenantControlPlane::kind(&());
    belongs(&secret.metadata, &kind, &tenant.name_any(), |key| {
        labels.get(key).cloned()
    })
}

/// Digest of what the Secret held before, if it holds something else now. A Secret that an upstream Kamaji made carries
/// Kamaji's digest, which is computed in another way: when that is the recorded one, the Secret is unmodified.
fn modified(tenant: &TenantControlPlane, spec: &SecretSpec, secret: &Secret) -> Option<String> {
    let hash = content_hash_of(secret);
    let noted = secret.annotations().get(ours::CONTENT_HASH);
    let known = built_with(tenant, spec.component);
    let upstream = secret.annotations().get(kamaji::CHECKSUM).map(String::as_str);
    match (noted, known) {
        (Some(noted), _) if *noted != hash => Some(known.unwrap_or(noted).to_owned()),
        (_, Some(known)) if known != hash && (noted.is_some() || upstream != Some(known)) => {
            Some(known.to_owned())
        }
        _ => None,
    }
}

/// Why a CA that the user provides is not taken: the tenant was built with another one, of another key. Whoever trusts the
/// former certificate trusts a renewed one of the same key.
fn replaced(tenant: &TenantControlPlane, name: &str, provided: &ProvidedCa) -> Option<Problem> {
    let built_with = built_with(tenant, component::CA)?;
    let same = built_with == provided.hash || identity::ca_key(tenant) == Some(provided.key.as_str());
    (!same && !gives_up(tenant, built_with)).then(|| {
        lost(
            name,
            "was replaced by a CA with another key",
            built_with,
            "its current content is used",
        )
    })
}

fn is_reported_lost(tenant: &TenantControlPlane) -> bool {
    let conditions = tenant.status.as_ref().map(|status| &status.conditions[..]);
    conditions::get(conditions.unwrap_or_default(), On::CertificatesAvailable.as_str())
        .is_some_and(|condition| condition.reason == Reason::CertificateAuthorityLost.as_str())
}

/// The user gave up the trust root with this digest. The annotation names the digest, so that the next loss is reported
/// again.
fn gives_up(tenant: &TenantControlPlane, hash: &str) -> bool {
    let given = tenant.annotations().get(ours::ACCEPT_NEW_IDENTITY);
    given.is_some_and(|list| list.split(',').any(|given| given.trim() == hash))
}

/// `what` happened to the Secret `name`; `then` is what happens when the user gives it up.
fn lost(name: &str, what: &str, hash: &str, then: &str) -> Problem {
    Problem::backoff(
        Class::Foreign,
        Reason::CertificateAuthorityLost,
        format!(
            "Secret {name} {what}, but nodes, kubeconfigs or tokens trust its former content; restore it from a backup. \
             What runs keeps running. To give it up, annotate the TenantControlPlane with {}={hash}: {then}, and \
             everything that trusts the former content loses access",
            ours::ACCEPT_NEW_IDENTITY
        ),
    )
}
