//! What a tenant is known by: its two authorities and its ServiceAccount pair. Nodes, kubeconfigs and tokens trust
//! them, so they are made once. One that is gone or was changed is told by name and not made again, while everything
//! that runs goes on: a new one would cut off every node, and no way led back. Giving it up is an explicit act of the
//! user ([`ours::ACCEPT_NEW_IDENTITY`]).
//!
//! A user's `<tcp>-ca` is used as it is and never owned.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kamaji_api::conditions::{Reason, TenantControlPlaneCondition as On};
use kamaji_api::labels::{kamaji, ours};
use kamaji_api::tenantcontrolplane::{SecretStatus, TenantControlPlane};
use kube::{Resource as _, ResourceExt};
use serde_json::json;

use super::Controller;
use super::certificates::{hash_of, unfit};
use super::desired::{self, volumes::AuthorityFiles};
use super::problem::Problem;
use crate::k8s::conditions;
use crate::k8s::error::Class;
use crate::k8s::key::{ObjectKey, RootKey};
use crate::k8s::manifest::belongs;
use crate::k8s::meta::controller_of;
use crate::k8s::row::Row;
use crate::pki::material::{self, CLUSTER_CA_KEYS, Ca, Found};
use crate::pki::policy::{self, Decision};
use crate::pki::spec::{Content, SecretSpec, component};

/// An authority that the engine did not make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeded {
    /// Fingerprint of its certificate.
    pub fingerprint: String,
    /// Digest of the data.
    pub hash: String,
    /// Which keys it has.
    pub files: AuthorityFiles,
}

/// What is known of an authority or a key pair.
pub enum Root {
    /// It is there.
    Kept {
        /// Digest of the data.
        hash: String,
        /// Fingerprint of an authority's certificate.
        fingerprint: Option<String>,
    },
    /// It is a user's.
    Seeded(Seeded),
    /// It was never made, or it was given up.
    Wanted,
    /// The tenant was built with another one.
    Lost(Problem),
}

impl Controller {
    /// Looks at an authority or a key pair. What the index does not know is read before anything is made: keys cost
    /// CPU, and the Secret may have lost its label alone.
    pub(super) async fn root(
        &self,
        tenant: &TenantControlPlane,
        spec: &SecretSpec,
        now: Timestamp,
    ) -> Result<Root, Problem> {
        let namespace = tenant.namespace().unwrap_or_default();
        let row = self.engine.index.find::<Secret>(&namespace, &spec.name);
        let recorded = row.as_deref().filter(|row| is_recorded(tenant, spec, row, now));
        // What was found changed by an earlier process is not believed by this one.
        let doubted = is_told_lost(tenant);
        if let Some(row) = recorded.filter(|row| self.is_untouched(row) && !doubted) {
            return Ok(kept(row));
        }
        // A user's authority is in no index: it carries none of our labels.
        let version = row.as_ref().map(|row| row.resource_version.clone());
        if recorded.is_none()
            && spec.component == component::CA
            && let Some(known) = self.seeded(tenant, version.as_deref())
        {
            return Ok(Root::Seeded(known));
        }
        let place = format!("{namespace}/{}", spec.name);
        let Some(secret) = self.get(&namespace, &spec.name).await? else {
            let Some(hash) = built_with(tenant, spec.component).filter(|hash| !gives_up(tenant, hash)) else {
                return Ok(Root::Wanted);
            };
            let what = "is gone";
            return Ok(Root::Lost(lost(&place, what, hash, "a new one is made")));
        };
        if recorded.is_some() || belongs_to(tenant, &secret) {
            return match (changed(tenant, spec, &secret), recorded) {
                (None, Some(row)) => {
                    self.saw(row);
                    Ok(kept(row))
                }
                (Some(hash), _) if !gives_up(tenant, &hash) => {
                    let what = "was changed";
                    Ok(Root::Lost(lost(&place, what, &hash, "what it holds now is used")))
                }
                _ => self.recognise(tenant, spec, &secret).await,
            };
        }
        if spec.component != component::CA {
            return Err(Problem::retry(
                Class::Foreign,
                Reason::OwnedByAnother,
                format!(
                    "Secret {place} exists and does not belong to this TenantControlPlane; rename one of them, or, if \
                     it does hold this control plane's keys, label it {}={} and {}={}",
                    kamaji::PROJECT,
                    kamaji::PROJECT_VALUE,
                    kamaji::NAME,
                    tenant.name_any()
                ),
            ));
        }
        let seeded = seeded(&place, &secret)?;
        let version = secret.resource_version().filter(|_| row.is_some());
        self.seed(tenant, version, &seeded);
        Ok(Root::Seeded(seeded))
    }

    /// Writes beside key material of ours what we have to know of it: the label by which it is watched, digest and
    /// fingerprint, and the owner where there is none. The keys stay as they are.
    async fn recognise(
        &self,
        tenant: &TenantControlPlane,
        spec: &SecretSpec,
        secret: &Secret,
    ) -> Result<Root, Problem> {
        let key = ObjectKey::of::<Secret>(tenant.namespace().unwrap_or_default(), &spec.name);
        let place = RootKey::of(secret).to_string();
        let data = secret.data.clone().unwrap_or_default();
        let mut annotations = json!({ ours::CONTENT_HASH: hash_of(secret) });
        match (&spec.content, spec.ca_keys()) {
            (_, Some(keys)) => {
                let authority = Ca::read(&place, keys, &data).map_err(|error| unfit(&error))?;
                annotations[ours::CA_FINGERPRINT] = authority.fingerprint().into();
            }
            (Content::KeyPair { public, private }, _) => {
                let bytes = |key: &str| data.get(key).map_or(&[][..], |value| &value.0);
                let found = |key: &str| Found::in_secret(&place, key, bytes(key));
                let pair = material::is_pair(&found(public), &found(private));
                if !pair.map_err(|error| unfit(&error))? {
                    return Err(Problem::retry(
                        Class::Foreign,
                        Reason::CertificateAuthorityKeyMismatch,
                        format!(
                            "Secret {place}: {public} and {private} are no pair; put a matching pair there"
                        ),
                    ));
                }
            }
            _ => {}
        }
        let mut metadata = json!({
            "labels": desired::labels_of(tenant, spec.component),
            "annotations": annotations,
        });
        if secret.owner_references().is_empty() {
            metadata["ownerReferences"] = json!([controller_of(tenant)]);
        }
        let uid = secret.uid().unwrap_or_default();
        let row = self.engine.applier.record(&key, &uid, metadata).await?;
        tracing::info!(secret = %key, "key material is recognised");
        self.saw(&row);
        Ok(kept(&row))
    }
}

/// The Secret carries what the engine writes beside its own.
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

fn kept(row: &Row) -> Root {
    let note = |key: &str| row.annotations.get(key).cloned();
    Root::Kept {
        hash: note(ours::CONTENT_HASH).unwrap_or_default(),
        fingerprint: note(ours::CA_FINGERPRINT),
    }
}

/// Made by this engine, or by Kamaji for the same tenant.
fn belongs_to(tenant: &TenantControlPlane, secret: &Secret) -> bool {
    let labels = desired::labels_of(tenant, "");
    let kind = TenantControlPlane::kind(&());
    belongs(&secret.metadata, &kind, &tenant.name_any(), |key| {
        labels.get(key).cloned()
    })
}

/// Digest of what the tenant was built with.
fn built_with<'a>(tenant: &'a TenantControlPlane, component: &str) -> Option<&'a str> {
    let certificates = tenant.status.as_ref()?.certificates.as_ref()?;
    let recorded: Option<&SecretStatus> = match component {
        component::CA => certificates.ca.as_ref(),
        component::FRONT_PROXY_CA => certificates.front_proxy_ca.as_ref(),
        component::SERVICE_ACCOUNT => certificates.sa.as_ref(),
        _ => None,
    };
    recorded?.checksum.as_deref().filter(|hash| !hash.is_empty())
}

/// Digest of what the Secret held, where it holds something else by now. One that Kamaji made says by Kamaji's digest,
/// which is another one, that it is the recorded one.
fn changed(tenant: &TenantControlPlane, spec: &SecretSpec, secret: &Secret) -> Option<String> {
    let hash = hash_of(secret);
    let noted = secret.annotations().get(ours::CONTENT_HASH);
    let known = built_with(tenant, spec.component);
    let kamajis = secret.annotations().get(kamaji::CHECKSUM).map(String::as_str);
    match (noted, known) {
        (Some(noted), _) if *noted != hash => Some(known.unwrap_or(noted).to_owned()),
        (_, Some(known)) if known != hash && (noted.is_some() || kamajis != Some(known)) => {
            Some(known.to_owned())
        }
        _ => None,
    }
}

fn is_told_lost(tenant: &TenantControlPlane) -> bool {
    let conditions = tenant.status.as_ref().map(|status| &status.conditions[..]);
    conditions::get(conditions.unwrap_or_default(), On::CertificatesAvailable.as_str())
        .is_some_and(|condition| condition.reason == Reason::CertificateAuthorityLost.as_str())
}

/// The user gave it up: the annotation names this very one, so that the next loss is told again.
fn gives_up(tenant: &TenantControlPlane, hash: &str) -> bool {
    let given = tenant.annotations().get(ours::ACCEPT_NEW_IDENTITY);
    given.is_some_and(|list| list.split(',').any(|given| given.trim() == hash))
}

fn lost(place: &str, what: &str, hash: &str, then: &str) -> Problem {
    Problem::retry(
        Class::Foreign,
        Reason::CertificateAuthorityLost,
        format!(
            "Secret {place} {what}, and nodes, kubeconfigs or tokens trust what it held: restore it from a backup; what \
             runs goes on meanwhile. To give it up, annotate the TenantControlPlane with {}={hash}: then {then}, and \
             everything that trusts the old one is cut off",
            ours::ACCEPT_NEW_IDENTITY
        ),
    )
}

/// Looks at an authority that the engine did not make.
fn seeded(place: &str, secret: &Secret) -> Result<Seeded, Problem> {
    let data = secret.data.clone().unwrap_or_default();
    let authority = Ca::read(place, CLUSTER_CA_KEYS, &data).map_err(|error| unfit(&error))?;
    let has = |key: &str| data.get(key).is_some_and(|value| !value.0.is_empty());
    let (certificate, key) = if has("tls.crt") {
        ("tls.crt", "tls.key")
    } else {
        ("ca.crt", "ca.key")
    };
    Ok(Seeded {
        fingerprint: authority.fingerprint().to_owned(),
        hash: hash_of(secret),
        files: AuthorityFiles {
            bundle: if has("ca.crt") { "ca.crt" } else { certificate },
            certificate,
            key,
        },
    })
}
