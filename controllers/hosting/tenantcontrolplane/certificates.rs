//! Keys, certificates and kubeconfigs of a tenant: what is kept, what is issued, and reading the bytes of an
//! authority only when something has to be signed (style.md 3.4).
//!
//! Authorities and key pairs, on which all else rests, are [`super::trust_roots`]'s.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kamaji_api::conditions::Reason;
use kamaji_api::labels::ours;
use kamaji_api::tenantcontrolplane::TenantControlPlane;
use kube::{Api, ResourceExt as _};

use super::desired::{
    secrets,
    volumes::{AuthorityFiles, OUR_AUTHORITY},
};
use super::{Controller, problem::Problem, trust_roots::Root};
use crate::hosting::datastore::driver::Access;
use crate::k8s::error::{ApiError, Class};
use crate::k8s::key::RootKey;
use crate::pki::issue::{self, Material, Signers, content_hash};
use crate::pki::material::{self, Ca};
use crate::pki::policy::{self, Decision};
use crate::pki::spec::{self, SecretSpec, Signer, component};

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

/// What is known of one certificate.
enum Known {
    Kept {
        hash: String,
        renew_at: Option<Timestamp>,
    },
    Wanted,
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
        let mut lost = None;
        let mut signs_no_more = Vec::new();
        for spec in roots {
            match self.root(tenant, spec, now).await? {
                Root::Kept { hash, fingerprint } => {
                    done.hashes.insert(spec.component, hash);
                    fingerprints.extend(fingerprint.map(|print| (spec.component, print)));
                }
                Root::Seeded(seeded) => {
                    done.hashes.insert(spec.component, seeded.hash);
                    fingerprints.insert(spec.component, seeded.fingerprint);
                    done.files = seeded.files;
                }
                Root::Wanted => wanted.push(spec.clone()),
                // What does not depend on it goes on being renewed.
                Root::Lost(problem) => {
                    signs_no_more.push(spec.component);
                    lost = lost.or(Some(problem));
                }
            }
        }
        for (spec, material) in issued(tenant, wanted, None, None, None, now).await? {
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
        for spec in leaves {
            let by = spec.signer().and_then(Signer::component);
            if by.is_some_and(|by| signs_no_more.contains(&by)) {
                continue;
            }
            let print = match spec.signer() {
                Some(Signer::Cluster) => fingerprints.get(component::CA).cloned(),
                Some(Signer::FrontProxy) => fingerprints.get(component::FRONT_PROXY_CA).cloned(),
                Some(Signer::Datastore) => datastore
                    .as_ref()
                    .map(|access| access.ca.fingerprint().to_owned()),
                None => None,
            };
            match self.leaf(tenant, spec, print, now).await? {
                Known::Kept { hash, renew_at } => {
                    done.hashes.insert(spec.component, hash);
                    done.renew_at = [done.renew_at, renew_at].into_iter().flatten().min();
                }
                Known::Wanted => wanted.push(spec.clone()),
            }
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
        for (spec, material) in issued(tenant, wanted, cluster, front_proxy, datastore, now).await? {
            let manifest = secrets::material(tenant, &spec, &material)?;
            let applied = self.engine.applier.apply(&manifest).await?;
            self.saw(&applied.row);
            done.note(&spec, &material);
            if spec.component == component::ADMIN {
                done.admin = Some(material);
            }
        }
        lost.map_or(Ok(done), Err)
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
        let Some(row) = self.engine.index.find::<Secret>(&namespace, &spec.name) else {
            return Ok(Known::Wanted);
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
            ca: print.as_deref(),
            now,
        });
        let Decision::Keep { renew_at } = decision else {
            tracing::debug!(secret = %row.key, ?decision, "key material is issued again");
            return Ok(Known::Wanted);
        };
        let hash = row
            .annotations
            .get(ours::CONTENT_HASH)
            .cloned()
            .unwrap_or_default();
        if !self.is_untouched(&row) {
            let secret = self.get(&namespace, &spec.name).await?.unwrap_or_default();
            if hash_of(&secret) != hash {
                return Ok(Known::Wanted);
            }
            self.saw(&row);
        }
        Ok(Known::Kept { hash, renew_at })
    }

    /// An authority with its key: from what was just made, else from its Secret.
    async fn authority(
        &self,
        tenant: &TenantControlPlane,
        specs: &[SecretSpec],
        component: &'static str,
        fresh: &BTreeMap<&'static str, Material>,
    ) -> Result<Ca, Problem> {
        let namespace = tenant.namespace().unwrap_or_default();
        let spec = specs.iter().find(|spec| spec.component == component);
        let (Some(spec), Some(keys)) = (spec, spec.and_then(SecretSpec::ca_keys)) else {
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
        Ca::read(&format!("{namespace}/{}", spec.name), keys, &data).map_err(|error| unfit(&error))
    }

    /// Makes an authority or a key pair, which is never written over.
    async fn create(
        &self,
        tenant: &TenantControlPlane,
        spec: &SecretSpec,
        material: &Material,
    ) -> Result<(), Problem> {
        let manifest = secrets::material(tenant, spec, material)?;
        match self.engine.applier.create(&manifest).await {
            Ok(applied) => self.saw(&applied.row),
            // Another process made it meanwhile: the next pass reads it.
            Err(error) if error.is_already_exists() => {
                return Err(Problem::retry(
                    Class::Transient,
                    Reason::WaitingForCertificates,
                    format!(
                        "{} came while it was being made; it is looked at again",
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

/// Issues all of `specs` off the reactor: keys cost CPU.
async fn issued(
    tenant: &TenantControlPlane,
    specs: Vec<SecretSpec>,
    cluster: Option<Ca>,
    front_proxy: Option<Ca>,
    datastore: Option<Arc<Access>>,
    now: Timestamp,
) -> Result<Vec<(SecretSpec, Material)>, Problem> {
    if specs.is_empty() {
        return Ok(Vec::new());
    }
    let work = move || {
        let by = Signers {
            cluster: cluster.as_ref(),
            front_proxy: front_proxy.as_ref(),
            datastore: datastore.as_ref().map(|access| &access.ca),
        };
        specs
            .into_iter()
            .map(|spec| match issue::secret(&spec, by, now) {
                Ok(material) => Ok((spec, material)),
                Err(error) => Err((spec.signer(), error)),
            })
            .collect::<Result<Vec<_>, _>>()
    };
    let failed = |text: String| Problem::retry(Class::Transient, Reason::InternalError, text);
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| failed(error.to_string()))?
        .map_err(|(signer, error)| match (signer, error) {
            (Some(signer), issue::Error::CaExpired(at)) => expired(tenant, signer, at),
            (_, error) => failed(error.to_string()),
        })
}

/// An authority that is over, and what brings it back: a renewed certificate of the same key is trusted by whom the old
/// one was trusted by.
fn expired(tenant: &TenantControlPlane, signer: Signer, at: Timestamp) -> Problem {
    let key = RootKey::of(tenant);
    let text = match signer {
        Signer::Cluster => format!("Secret {}/{}", key.namespace, spec::ca_name(&key.name)),
        Signer::FrontProxy => format!(
            "Secret {}/{}",
            key.namespace,
            spec::front_proxy_ca_name(&key.name)
        ),
        Signer::Datastore => "tlsConfig.certificateAuthority of the DataStore".to_owned(),
    };
    Problem::retry(
        Class::Foreign,
        Reason::CertificateAuthorityExpired,
        format!(
            "{text}: the certificate authority expired at {at}, nothing can be signed by it; put a certificate of the \
             same key there that ends later"
        ),
    )
}

pub(super) fn hash_of(secret: &Secret) -> String {
    let data = secret.data.iter().flatten();
    content_hash(data.map(|(key, value)| (key.as_str(), value.0.as_slice())))
}

pub(super) fn unfit(error: &material::Error) -> Problem {
    let reason = match error {
        material::Error::KeyMismatch { .. } => Reason::CertificateAuthorityKeyMismatch,
        _ => Reason::CertificateAuthorityInvalid,
    };
    Problem::retry(Class::Foreign, reason, error.to_string())
}
