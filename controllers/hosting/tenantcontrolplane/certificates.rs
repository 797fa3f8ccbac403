//! Key material of a tenant: keeps what is valid, and issues certificates and kubeconfigs that are missing or due. The
//! bytes of a CA are read only when something has to be signed.
//!
//! CAs and key pairs, on which all else rests, are found by [`super::trust_roots`].

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{api::core::v1::Secret, jiff::Timestamp};
use kamaji_api::{conditions::Reason, labels::ours, tenantcontrolplane::TenantControlPlane};

use super::{
    ca::{recorded_hash, unusable},
    ca_copy,
    component::{CaKeys, GENERATED_CA},
    desired::secrets,
    endpoint::Endpoint,
    identity, konnectivity, observe,
    scope::Scope,
    storage::{self, Placed},
    trust_roots::{self, TrustRoot},
};
use crate::{
    hosting::{datastore, driver::Access},
    k8s::{error::Class, key::RootKey, meta::controller_of, problem::Problem},
    pki::{
        issue::{self, Material, Signers},
        material::Ca,
        policy::{self, Decision},
        spec::{self, SecretSpec, Signer, component},
    },
};

/// The key material of a tenant.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// Digest of the data of each Secret, by component.
    pub hashes: BTreeMap<&'static str, String>,
    /// Digest of the public key of a CA that the user provides.
    pub ca_key: Option<String>,
    /// The Secret with the CA that the pods mount: `<tcp>-ca`, or a copy of the one that a user provides.
    pub ca_secret: String,
    /// Which keys it has.
    pub ca_keys: CaKeys,
    /// When the next certificate is renewed.
    pub renew_at: Option<Timestamp>,
    /// The kubeconfigs of the admin, if they were issued in this reconcile.
    pub admin: Option<Material>,
}

/// State of a certificate or of a kubeconfig.
enum Leaf {
    /// It is valid.
    Kept {
        hash: String,
        renew_at: Option<Timestamp>,
    },
    /// It has to be issued.
    Due,
}

/// Creates and renews all key material of the tenant.
///
/// # Errors
/// A trust root is lost or cannot be used, or what the API server answered.
pub async fn ensure(
    scope: &Scope<'_>,
    endpoint: &Endpoint,
    placed: &Placed,
) -> Result<Certificates, Problem> {
    let specs = specs(scope, endpoint, placed);
    let key = scope.key();
    let name = spec::datastore_name(&key.name);
    let missing = scope
        .context
        .engine
        .index
        .find::<Secret>(&key.namespace, &name)
        .is_none();
    let mut access = placed.access.clone();
    if access.is_none() && missing {
        access = Some(open(scope, &placed.store).await?);
    }
    let known = access.is_some();
    match issue_all(scope, &specs, access).await {
        // The client certificate for the datastore is due, and its CA was not read yet.
        Err(problem) if !known && problem.reason == Reason::InternalError => {
            let access = open(scope, &placed.store).await?;
            issue_all(scope, &specs, Some(access)).await
        }
        result => result,
    }
}

/// The Secrets that the tenant needs.
fn specs(scope: &Scope<'_>, endpoint: &Endpoint, placed: &Placed) -> Vec<SecretSpec> {
    let Scope { tenant, valid, .. } = *scope;
    let key = scope.key();
    let profile = &tenant.spec.network_profile;
    let mut specs = spec::tenant(&spec::Tenant {
        namespace: key.namespace,
        name: key.name.clone(),
        cluster_domain: profile.cluster_domain.clone(),
        service_addresses: valid.network.service_addresses(),
        hosts: endpoint.hosts.clone(),
        extra_sans: profile.cert_sans.clone(),
        port: valid.network.port,
        endpoint: endpoint.published.clone(),
        datastore_user: Some(placed.names.user.clone()),
    });
    if konnectivity::of(tenant).is_some() {
        specs.push(spec::konnectivity(&key.name));
    }
    // The control plane provider copies this one to `<cluster>-kamaji-bootstrap`, for the bootstrap provider.
    specs.push(spec::bootstrap(
        &key.name,
        &format!("https://{}", endpoint.published),
    ));
    specs
}

async fn open(scope: &Scope<'_>, store: &str) -> Result<Arc<Access>, Problem> {
    let engine = &scope.context.engine;
    let store = storage::find(engine, store)?;
    datastore::access(engine, &store).await
}

/// Creates and renews the Secrets `specs`. `datastore` is known when the CA of the datastore was read.
async fn issue_all(
    scope: &Scope<'_>,
    specs: &[SecretSpec],
    datastore: Option<Arc<Access>>,
) -> Result<Certificates, Problem> {
    let Scope {
        context, tenant, now, ..
    } = *scope;
    let mut made = Certificates {
        hashes: BTreeMap::new(),
        ca_key: None,
        ca_secret: spec::ca_name(&scope.key().name),
        ca_keys: GENERATED_CA,
        renew_at: None,
        admin: None,
    };
    let (roots, leaves): (Vec<_>, Vec<_>) = specs.iter().partition(|spec| spec.signer().is_none());
    let mut fresh: BTreeMap<&'static str, Material> = BTreeMap::new();
    let mut fingerprints: BTreeMap<&'static str, String> = BTreeMap::new();
    let mut due: Vec<SecretSpec> = Vec::new();
    let mut lost = None;
    let mut cannot_sign = Vec::new();
    for spec in roots {
        match trust_roots::find(scope, spec).await? {
            TrustRoot::Kept { hash, fingerprint } => {
                // An earlier version made it, or the user accepted another one.
                if identity::noted(tenant, spec.component) != Some(hash.as_str()) {
                    trust_roots::freeze(scope, spec).await?;
                }
                made.hashes.insert(spec.component, hash);
                fingerprints.extend(fingerprint.map(|print| (spec.component, print)));
            }
            TrustRoot::Provided(ca) => {
                made.ca_secret = ca_copy::ensure(scope, &ca).await?;
                made.hashes.insert(spec.component, ca.hash);
                fingerprints.insert(spec.component, ca.fingerprint);
                made.ca_keys = ca.keys;
                made.ca_key = Some(ca.key);
            }
            TrustRoot::Missing => due.push(spec.clone()),
            // What another CA signs is still renewed.
            TrustRoot::Lost(problem) => {
                cannot_sign.push(spec.component);
                lost = lost.or(Some(problem));
            }
        }
    }
    for (spec, material) in issued(tenant, due, None, None, None, now).await? {
        create(scope, &spec, &material).await?;
        made.note(&spec, &material);
        fingerprints.extend(
            material
                .annotations
                .get(ours::CA_FINGERPRINT)
                .map(|print| (spec.component, print.clone())),
        );
        fresh.insert(spec.component, material);
    }
    let mut due = Vec::new();
    for spec in leaves {
        let by = spec.signer().and_then(Signer::component);
        if by.is_some_and(|by| cannot_sign.contains(&by)) {
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
        match leaf(scope, spec, print).await? {
            Leaf::Kept { hash, renew_at } => {
                made.hashes.insert(spec.component, hash);
                made.renew_at = [made.renew_at, renew_at].into_iter().flatten().min();
            }
            Leaf::Due => due.push(spec.clone()),
        }
    }
    let signs = |signer| due.iter().any(|spec| spec.signer() == Some(signer));
    let mut cluster = None;
    if signs(Signer::Cluster) {
        cluster = Some(read_ca(scope, specs, component::CA, &made.ca_secret, &fresh).await?);
    }
    let mut front_proxy = None;
    if signs(Signer::FrontProxy) {
        let name = spec::front_proxy_ca_name(&scope.key().name);
        front_proxy = Some(read_ca(scope, specs, component::FRONT_PROXY_CA, &name, &fresh).await?);
    }
    for (spec, material) in issued(tenant, due, cluster, front_proxy, datastore, now).await? {
        let manifest = secrets::material(tenant, &spec, &material)?;
        let applied = context.engine.applier.apply(&manifest).await?;
        context.remember(&applied.row);
        made.note(&spec, &material);
        if spec.component == component::ADMIN {
            made.admin = Some(material);
        }
    }
    lost.map_or(Ok(made), Err)
}

/// Checks a certificate or a kubeconfig. `print` is the fingerprint of the CA that signs it, if it is known.
async fn leaf(scope: &Scope<'_>, spec: &SecretSpec, print: Option<String>) -> Result<Leaf, Problem> {
    let context = scope.context;
    let key = scope.key();
    let Some(row) = context.engine.index.find::<Secret>(&key.namespace, &spec.name) else {
        return Ok(Leaf::Due);
    };
    let recorded = row.annotations.get(ours::CA_FINGERPRINT).cloned();
    // The CA of the datastore is read when its DataStore changes. Until then it counts as unchanged.
    let print = print.or_else(|| {
        (spec.signer() == Some(Signer::Datastore))
            .then_some(recorded)
            .flatten()
    });
    let decision = policy::decide(policy::Input {
        spec,
        tenant: &key.to_string(),
        observed: Some(&row.annotations),
        ca: print.as_deref(),
        now: scope.now,
    });
    let Decision::Keep { renew_at } = decision else {
        tracing::debug!(secret = %row.key, ?decision, "issuing key material again");
        return Ok(Leaf::Due);
    };
    let hash = recorded_hash(&row);
    let owner = controller_of(scope.tenant);
    let orphan = row.is_orphan_of(&owner);
    if orphan || !context.is_untouched(&row) {
        let secret = observe::secret(context, &key.namespace, &spec.name).await?;
        if issue::content_hash_of(&secret.unwrap_or_default()) != hash {
            return Ok(Leaf::Due);
        }
        if orphan {
            context.remember(&*context.engine.applier.own(&row, &owner).await?);
        } else {
            context.remember(&row);
        }
    }
    Ok(Leaf::Kept { hash, renew_at })
}

/// A CA with its private key: the one that was just generated, else from its Secret `name`.
async fn read_ca(
    scope: &Scope<'_>,
    specs: &[SecretSpec],
    component: &'static str,
    name: &str,
    fresh: &BTreeMap<&'static str, Material>,
) -> Result<Ca, Problem> {
    let namespace = scope.key().namespace;
    let spec = specs.iter().find(|spec| spec.component == component);
    let Some(keys) = spec.and_then(SecretSpec::ca_keys) else {
        return Err(Problem::on_change(
            Reason::InternalError,
            format!("there is no CA {component}"),
        ));
    };
    let data = match fresh.get(component) {
        Some(material) => material.to_data(),
        None => observe::secret(scope.context, &namespace, name)
            .await?
            .and_then(|secret| secret.data)
            .unwrap_or_default(),
    };
    Ca::read(&format!("{namespace}/{name}"), keys, &data).map_err(|error| unusable(&error))
}

/// Creates a CA or a key pair. It is never overwritten: two processes that race must not replace each other's keys.
async fn create(scope: &Scope<'_>, spec: &SecretSpec, material: &Material) -> Result<(), Problem> {
    let manifest = secrets::material(scope.tenant, spec, material)?;
    match scope.context.engine.applier.create(&manifest).await {
        Ok(applied) => scope.context.remember(&applied.row),
        Err(error) if error.is_already_exists() => {
            return Err(Problem::backoff(
                Class::Transient,
                Reason::WaitingForCertificates,
                format!("{} was created at the same time; it is read again", manifest.key),
            ));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

impl Certificates {
    fn note(&mut self, spec: &SecretSpec, material: &Material) {
        let hash = material.annotations.get(ours::CONTENT_HASH).cloned();
        self.hashes.insert(spec.component, hash.unwrap_or_default());
    }
}

/// Issues `specs` on a blocking thread, since keys cost CPU.
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
    let failed = |text: String| Problem::backoff(Class::Transient, Reason::InternalError, text);
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| failed(error.to_string()))?
        .map_err(|(signer, error)| match (signer, error) {
            (Some(signer), issue::Error::CaExpired(at)) => expired(tenant, signer, at),
            (_, error) => failed(error.to_string()),
        })
}

/// A CA that expired, and how to renew it. Whoever trusts the old certificate trusts a new one of the same key.
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
    Problem::backoff(
        Class::Foreign,
        Reason::CertificateAuthorityExpired,
        format!(
            "{text}: the CA expired at {at}, so it cannot sign any more; replace it with a certificate of the same key \
             that expires later"
        ),
    )
}
