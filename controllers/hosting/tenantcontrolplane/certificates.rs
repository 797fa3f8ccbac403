//! Keys, certificates and kubeconfigs of a tenant: what is kept, what is issued, and reading the bytes of an
//! authority only when something has to be signed (style.md 3.4).
//!
//! A user's `<tcp>-ca` is used as it is and never owned. Authorities and key pairs are created, never written over.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kamaji_api::conditions::Reason;
use kamaji_api::labels::ours;
use kamaji_api::tenantcontrolplane::TenantControlPlane;
use kube::{Api, ResourceExt};

use super::{Controller, problem::Problem};
use crate::hosting::datastore::driver::Access;
use crate::hosting::render::{
    secrets,
    volumes::{AuthorityFiles, OUR_AUTHORITY},
};
use crate::k8s::error::{ApiError, Class};
use crate::k8s::key::RootKey;
use crate::pki::issue::{self, Authorities, Material, content_hash};
use crate::pki::material::{self, Authority, CLUSTER_AUTHORITY};
use crate::pki::policy::{self, Decision};
use crate::pki::spec::{Content, SecretSpec, Signer, component};

/// The key material of a tenant as it stands after a pass.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// Digest of each Secret's data, by component.
    pub hashes: BTreeMap<&'static str, String>,
    /// Which keys `<tcp>-ca` has.
    pub files: AuthorityFiles,
    /// When something has to be issued again.
    pub renew_at: Option<Timestamp>,
    /// The administrators' kubeconfigs, where they were issued just now.
    pub admin: Option<Material>,
}

/// An authority that the engine did not make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeded {
    fingerprint: String,
    hash: String,
    files: AuthorityFiles,
}

/// What is known of one Secret.
enum Known {
    Kept {
        hash: String,
        fingerprint: Option<String>,
        renew_at: Option<Timestamp>,
    },
    Wanted {
        exists: bool,
    },
    Seeded(Seeded),
}

impl Controller {
    /// Brings all Secrets of `specs` about. `datastore` is there when the datastore's authority was read.
    pub(super) async fn certificates(
        &self,
        tenant: &TenantControlPlane,
        specs: &[SecretSpec],
        datastore: Option<Arc<Access>>,
        now: Timestamp,
    ) -> Result<Certificates, Problem> {
        let mut done = Certificates {
            hashes: BTreeMap::new(),
            files: OUR_AUTHORITY,
            renew_at: None,
            admin: None,
        };
        let (roots, leaves): (Vec<_>, Vec<_>) = specs.iter().partition(|spec| spec.signer().is_none());
        let mut fresh: BTreeMap<&'static str, Material> = BTreeMap::new();
        let mut fingerprints: BTreeMap<&'static str, String> = BTreeMap::new();
        let mut wanted: Vec<SecretSpec> = Vec::new();
        for spec in roots {
            match self.root(tenant, spec, now).await? {
                Known::Kept {
                    hash, fingerprint, ..
                } => {
                    done.hashes.insert(spec.component, hash);
                    fingerprints.extend(fingerprint.map(|print| (spec.component, print)));
                }
                Known::Seeded(seeded) => {
                    done.hashes.insert(spec.component, seeded.hash);
                    fingerprints.insert(spec.component, seeded.fingerprint);
                    done.files = seeded.files;
                }
                Known::Wanted { .. } => wanted.push(spec.clone()),
            }
        }
        for (spec, material) in issued(wanted, None, None, None, now).await? {
            self.create(tenant, &spec, &material).await?;
            done.note(&spec, &material);
            fingerprints.extend(
                material
                    .annotations
                    .get(ours::CA_FINGERPRINT)
                    .map(|print| (spec.component, print.clone())),
            );
            fresh.insert(spec.component, material);
        }
        let mut wanted = Vec::new();
        let mut existing = Vec::new();
        for spec in leaves {
            let print = match spec.signer() {
                Some(Signer::Cluster) => fingerprints.get(component::CA).cloned(),
                Some(Signer::FrontProxy) => fingerprints.get(component::FRONT_PROXY_CA).cloned(),
                Some(Signer::Datastore) => datastore
                    .as_ref()
                    .map(|access| access.authority.fingerprint().to_owned()),
                None => None,
            };
            match self.leaf(tenant, spec, print, now).await? {
                Known::Kept { hash, renew_at, .. } => {
                    done.hashes.insert(spec.component, hash);
                    done.renew_at = [done.renew_at, renew_at].into_iter().flatten().min();
                }
                Known::Wanted { exists } => {
                    existing.push(exists);
                    wanted.push(spec.clone());
                }
                Known::Seeded(_) => {}
            }
        }
        if wanted.is_empty() {
            return Ok(done);
        }
        let signs = |signer| wanted.iter().any(|spec| spec.signer() == Some(signer));
        let mut cluster = None;
        if signs(Signer::Cluster) {
            cluster = Some(self.authority(tenant, specs, component::CA, &fresh).await?);
        }
        let mut front_proxy = None;
        if signs(Signer::FrontProxy) {
            let name = component::FRONT_PROXY_CA;
            front_proxy = Some(self.authority(tenant, specs, name, &fresh).await?);
        }
        let made = issued(wanted, cluster, front_proxy, datastore, now).await?;
        for ((spec, material), exists) in made.into_iter().zip(existing) {
            if exists {
                let manifest = secrets::material(tenant, &spec, &material)?;
                let applied = self.engine.applier.apply(&manifest).await?;
                self.saw(&applied.row);
            } else {
                self.create(tenant, &spec, &material).await?;
            }
            done.note(&spec, &material);
            if spec.component == component::ADMIN {
                done.admin = Some(material);
            }
        }
        Ok(done)
    }

    /// An authority or a key pair.
    async fn root(
        &self,
        tenant: &TenantControlPlane,
        spec: &SecretSpec,
        now: Timestamp,
    ) -> Result<Known, Problem> {
        let namespace = tenant.namespace().unwrap_or_default();
        let row = self.engine.index.find("Secret", &namespace, &spec.name);
        let input = policy::Input {
            spec,
            tenant: &RootKey::of(tenant).to_string(),
            observed: row.as_ref().map(|row| &row.annotations),
            authority: None,
            now,
        };
        let decision = policy::decide(input);
        if let (Decision::Keep { renew_at }, Some(row)) = (decision, &row) {
            let note = |key: &str| row.annotations.get(key).cloned();
            return Ok(Known::Kept {
                hash: note(ours::CONTENT_HASH).unwrap_or_else(|| row.uid.clone()),
                fingerprint: note(ours::CA_FINGERPRINT),
                renew_at,
            });
        }
        if spec.component == component::CA {
            // Somebody else's is in no index: it carries none of our labels.
            let version = row.as_ref().map(|row| row.resource_version.clone());
            if let Some(known) = self.seeded(tenant, version.as_deref()) {
                return Ok(Known::Seeded(known));
            }
            if let Some(secret) = self.get(&namespace, &spec.name).await? {
                let seeded = seeded(&namespace, &secret)?;
                self.seed(
                    tenant,
                    secret.resource_version().filter(|_| row.is_some()),
                    &seeded,
                );
                return Ok(Known::Seeded(seeded));
            }
        }
        Ok(Known::Wanted { exists: false })
    }

    /// A certificate or kubeconfigs.
    async fn leaf(
        &self,
        tenant: &TenantControlPlane,
        spec: &SecretSpec,
        print: Option<String>,
        now: Timestamp,
    ) -> Result<Known, Problem> {
        let namespace = tenant.namespace().unwrap_or_default();
        let Some(row) = self.engine.index.find("Secret", &namespace, &spec.name) else {
            return Ok(Known::Wanted { exists: false });
        };
        let recorded = row.annotations.get(ours::CA_FINGERPRINT).cloned();
        // Not asked for is not changed: the datastore's authority is read when its DataStore changes.
        let print = print.or_else(|| {
            (spec.signer() == Some(Signer::Datastore))
                .then_some(recorded)
                .flatten()
        });
        let decision = policy::decide(policy::Input {
            spec,
            tenant: &RootKey::of(tenant).to_string(),
            observed: Some(&row.annotations),
            authority: print.as_deref(),
            now,
        });
        let Decision::Keep { renew_at } = decision else {
            tracing::debug!(secret = %row.key, ?decision, "key material is issued again");
            return Ok(Known::Wanted { exists: true });
        };
        let hash = row
            .annotations
            .get(ours::CONTENT_HASH)
            .cloned()
            .unwrap_or_default();
        if !self.is_untouched(&row) {
            let secret = self.get(&namespace, &spec.name).await?.unwrap_or_default();
            if hash_of(&secret) != hash {
                return Ok(Known::Wanted { exists: true });
            }
            self.saw(&row);
        }
        Ok(Known::Kept {
            hash,
            fingerprint: None,
            renew_at,
        })
    }

    /// An authority with its key: from what was just made, else from its Secret.
    async fn authority(
        &self,
        tenant: &TenantControlPlane,
        specs: &[SecretSpec],
        component: &'static str,
        fresh: &BTreeMap<&'static str, Material>,
    ) -> Result<Authority, Problem> {
        let namespace = tenant.namespace().unwrap_or_default();
        let spec = specs.iter().find(|spec| spec.component == component);
        let (Some(spec), Some(keys)) = (spec, spec.and_then(SecretSpec::authority_keys)) else {
            return Err(Problem::wait(
                Reason::InternalError,
                format!("no authority {component}"),
            ));
        };
        let data = match fresh.get(component) {
            Some(material) => material.to_data(),
            None => self
                .get(&namespace, &spec.name)
                .await?
                .and_then(|secret| secret.data)
                .unwrap_or_default(),
        };
        Authority::read(&format!("{namespace}/{}", spec.name), keys, &data).map_err(|error| unfit(&error))
    }

    async fn create(
        &self,
        tenant: &TenantControlPlane,
        spec: &SecretSpec,
        material: &Material,
    ) -> Result<(), Problem> {
        let manifest = secrets::material(tenant, spec, material)?;
        match self.engine.applier.create(&manifest).await {
            Ok(applied) => self.saw(&applied.row),
            // It lost our labels, or it is another process's: what can be issued again is, the rest is read.
            Err(error) if error.is_already_exists() && !is_root(spec) => {
                let applied = self.engine.applier.apply(&manifest).await?;
                self.saw(&applied.row);
            }
            Err(error) if error.is_already_exists() => {
                return Err(Problem::retry(
                    Class::Transient,
                    Reason::WaitingForCertificates,
                    format!(
                        "Secret {} exists and is not known yet; if it is not the engine's own, delete it",
                        manifest.key
                    ),
                ));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Reads one Secret.
    pub(super) async fn get(&self, namespace: &str, name: &str) -> Result<Option<Secret>, Problem> {
        let api: Api<Secret> = Api::namespaced(self.engine.client.clone(), namespace);
        api.get_opt(name)
            .await
            .map_err(|error| ApiError::new(format!("get Secret {namespace}/{name}"), error).into())
    }
}

impl Certificates {
    fn note(&mut self, spec: &SecretSpec, material: &Material) {
        let hash = material.annotations.get(ours::CONTENT_HASH).cloned();
        self.hashes.insert(spec.component, hash.unwrap_or_default());
    }
}

fn is_root(spec: &SecretSpec) -> bool {
    matches!(spec.content, Content::Authority { .. } | Content::KeyPair { .. })
}

/// Issues all of `specs` off the reactor: keys cost CPU.
async fn issued(
    specs: Vec<SecretSpec>,
    cluster: Option<Authority>,
    front_proxy: Option<Authority>,
    datastore: Option<Arc<Access>>,
    now: Timestamp,
) -> Result<Vec<(SecretSpec, Material)>, Problem> {
    if specs.is_empty() {
        return Ok(Vec::new());
    }
    let work = move || {
        let by = Authorities {
            cluster: cluster.as_ref(),
            front_proxy: front_proxy.as_ref(),
            datastore: datastore.as_ref().map(|access| &access.authority),
        };
        specs
            .into_iter()
            .map(|spec| issue::secret(&spec, by, now).map(|material| (spec, material)))
            .collect::<Result<Vec<_>, _>>()
    };
    let failed = |text: String| Problem::retry(Class::Transient, Reason::InternalError, text);
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| failed(error.to_string()))?
        .map_err(|error| failed(error.to_string()))
}

/// Looks at an authority that the engine did not make.
fn seeded(namespace: &str, secret: &Secret) -> Result<Seeded, Problem> {
    let data = secret.data.clone().unwrap_or_default();
    let place = format!("{namespace}/{}", secret.name_any());
    let authority = Authority::read(&place, CLUSTER_AUTHORITY, &data).map_err(|error| unfit(&error))?;
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

fn hash_of(secret: &Secret) -> String {
    let data = secret.data.iter().flatten();
    content_hash(data.map(|(key, value)| (key.as_str(), value.0.as_slice())))
}

fn unfit(error: &material::Error) -> Problem {
    let reason = match error {
        material::Error::KeyMismatch { .. } => Reason::CertificateAuthorityKeyMismatch,
        _ => Reason::CertificateAuthorityInvalid,
    };
    Problem::retry(Class::Foreign, reason, error.to_string())
}
