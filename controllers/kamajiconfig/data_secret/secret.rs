//! The Secret with the bootstrap data: reads, adopts, renders and creates it. Its name is that of the config, or for a
//! MachinePool what [`super::pool`] says.
//!
//! Its type, labels and keys are those of the Cluster API contract for bootstrap providers
//! (<https://cluster-api.sigs.k8s.io/developer/providers/contracts/bootstrap-config>). One key more holds the token, so that
//! a token that was deleted is created again with the same value.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use k8s_openapi::{
    ByteString,
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kamaji_api::{
    bootstrap::{BootstrapDataStatus, KamajiConfig, NameSource},
    conditions::Reason,
    labels::{capi, field_manager, ours},
};
use kube::ResourceExt as _;
use rand::RngCore as _;
use semver::Version;
use sha2::{Digest as _, Sha256};

use crate::{
    k8s::{
        digest,
        error::Class,
        manifest::Manifest,
        meta,
        problem::{Problem, Retry},
        report::Step,
        row::Row,
    },
    kamajiconfig::{
        bootstrapdata::{
            self,
            delivery::Delivery,
            inputs::{self, Inputs, RenderError, Target},
            kubelet_versions, plan,
            render::Rendered,
        },
        observe::{self, References, is_failure, refused},
        owner::Owner,
        preconditions,
        scope::Scope,
        status::Progress,
        target,
        tenants::Tenant,
        token::{self, Token},
    },
};

/// Key of the token in the Secret.
const TOKEN_KEY: &str = "token";
/// Key of the ID of the token that the Secret of a pool had before: its machines may join after `clusterctl move`, which keeps
/// no status.
const FORMER_KEY: &str = "former-token-id";

/// The bootstrap data in its Secret.
pub struct Stored {
    /// The token in it; none in data that another program created.
    pub token: Option<Token>,
    /// ID of the token that it had before.
    pub former: Option<String>,
    /// Its figures.
    pub figures: BootstrapDataStatus,
}

/// Digest of the spec that the data is rendered from.
pub fn spec_hash(config: &KamajiConfig) -> String {
    digest::of(&serde_json::to_value(&config.spec).unwrap_or_default())
}

/// The Secret that the index has, if it still exists. One of this config that lost its owner, as after a restore from a
/// backup, gets it again.
///
/// # Errors
/// When another object controls it, or the API server does not answer.
pub async fn adopt(scope: &Scope<'_>, row: &Row) -> Result<Option<Stored>, Problem> {
    let (owner, controller) = (row.owner.as_ref(), meta::controller_of(scope.config));
    if is_lost(scope, row, &controller) {
        scope.context.applier.own(row, &controller).await?;
    } else if owner.is_none_or(|owner| owner.uid != controller.uid) {
        let owner = owner.map(|owner| (owner.kind.as_str(), owner.name.as_str()));
        return Err(taken(scope, &row.key.name, owner));
    }
    find(scope, &row.key.name).await
}

/// The Secret as it is, with its data, if it still exists and is this config's.
///
/// # Errors
/// When another object controls it, or the API server does not answer.
pub async fn published(scope: &Scope<'_>, name: &str) -> Result<Option<(Secret, Stored)>, Problem> {
    let Some(secret) = observe::secret(scope.context, &scope.key.namespace, name).await? else {
        return Ok(None);
    };
    let stored = stored(scope, name, &secret)?;
    Ok(Some((secret, stored)))
}

/// Gives the Secret of a machine that joined its owner again, if it lost it. The index tells, without a request.
///
/// # Errors
/// When the API server does not answer, or refuses.
pub async fn reclaim(scope: &Scope<'_>) -> Result<(), Problem> {
    let controller = meta::controller_of(scope.config);
    let row = observe::secret_row(scope.context, scope.config, &scope.key.name);
    if let Some(row) = row.filter(|row| is_lost(scope, row, &controller)) {
        scope.context.applier.own(&row, &controller).await?;
    }
    Ok(())
}

/// It is the Secret of the config by its labels, and lost its owner.
fn is_lost(scope: &Scope<'_>, row: &Row, controller: &OwnerReference) -> bool {
    let labels = labels(&scope.cluster.name);
    let labelled = labels
        .iter()
        .all(|(key, value)| row.labels.get(key) == Some(value));
    labelled && row.is_orphan_of(controller)
}

/// The Secret of the config with this name, if it exists.
async fn find(scope: &Scope<'_>, name: &str) -> Result<Option<Stored>, Problem> {
    Ok(published(scope, name).await?.map(|(_, stored)| stored))
}

/// What is in the Secret of this name.
fn stored(scope: &Scope<'_>, name: &str, secret: &Secret) -> Result<Stored, Problem> {
    let controller = secret
        .owner_references()
        .iter()
        .find(|owner| owner.controller == Some(true));
    if controller.map(|owner| &owner.uid) != scope.config.metadata.uid.as_ref() {
        let owner = controller.map(|owner| (owner.kind.as_str(), owner.name.as_str()));
        // It may carry no label that is watched.
        return Err(Problem {
            retry: Retry::Unwatched,
            ..taken(scope, name, owner)
        });
    }
    let bytes = observe::value(secret, capi::VALUE_KEY).unwrap_or_default();
    if bytes.is_empty() {
        return Err(Problem::on_change(
            Reason::InternalError,
            format!(
                "Secret {name} has no key {:?}: delete it to have it created again",
                capi::VALUE_KEY
            ),
        ));
    }
    let text = |key: &str| observe::value(secret, key).and_then(|bytes| std::str::from_utf8(bytes).ok());
    let figures = BootstrapDataStatus {
        sha256: Some(sha256(bytes)),
        bytes: i64::try_from(bytes.len()).ok(),
        gzip_bytes: None,
        user_data_bytes: None,
        user_data_limit: None,
        name_source: secret
            .annotations()
            .get(ours::NAME_SOURCE)
            .and_then(|text| NameSource::parse(text)),
        spec_hash: secret.annotations().get(ours::INPUTS_HASH).cloned(),
    };
    Ok(Stored {
        token: text(TOKEN_KEY).and_then(Token::parse),
        former: text(FORMER_KEY)
            .filter(|id| token::is_id(id))
            .map(ToOwned::to_owned),
        figures,
    })
}

/// Digest of data, as the status has it.
pub fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

/// The Secret belongs to another object and is never overwritten. `owner` is kind and name of its controller, if it has
/// one.
fn taken(scope: &Scope<'_>, name: &str, owner: Option<(&str, &str)>) -> Problem {
    let whose = owner.map_or_else(
        || "no object".to_owned(),
        |(kind, owner)| format!("{kind} {owner}"),
    );
    Problem::on_change(
        Reason::SecretNameTaken,
        format!(
            "Secret {name} is controlled by {whose} and is not changed: delete it, or {}",
            match &scope.owner {
                Owner::Machine(_) => "delete the Machine to get one with another name",
                Owner::Pool(_) => "change spec.poolSecretName of the KamajiConfig",
            }
        ),
    )
}

/// Renders the data and creates its Secret: with the token that the workload cluster has under the ID `known`, else with a
/// new one. The preconditions have to be met here too, since the Secret may be lost long after it was created.
///
/// # Errors
/// What is missing, wrong with the data, or could not be written.
pub async fn create(
    scope: &Scope<'_>,
    tenant: &Tenant,
    known: Option<&str>,
    progress: &mut Progress,
) -> Result<Stored, Problem> {
    let config = scope.config;
    let version = scope.version(progress)?;
    let target = target(scope, progress).await?;
    let references = observe::references(scope.context, config).await?;
    let token = generate(tenant, known).await?;
    let rendered = render(scope, version, &target, &references, &token)?;
    write(scope, &spec_hash(config), rendered, token).await
}

/// The API server and the network as nodes see them, with the CA.
///
/// # Errors
/// What is missing.
pub async fn target(scope: &Scope<'_>, progress: &mut Progress) -> Result<Target, Problem> {
    let (config, observed) = (scope.config, scope.observed);
    let ca = observe::ca(scope.context, config, &scope.cluster).await;
    if !ca.as_ref().is_err_and(is_failure) {
        progress.ca = Step::of(&ca);
    }
    let cluster = preconditions::cluster(&scope.cluster.name, observed.cluster.as_deref())?;
    target::target(config, cluster, observed.control_plane.as_deref(), ca?)
}

/// Renders the data.
///
/// # Errors
/// What is wrong with the spec, or with what it refers to.
pub fn render(
    scope: &Scope<'_>,
    version: &Version,
    target: &Target,
    references: &References<'_>,
    token: &Token,
) -> Result<Rendered, Problem> {
    let config = scope.config;
    let spec = scope.settings.onto(&config.spec);
    let delivery = Delivery::of(scope.settings.preset, &spec.output);
    plan::plan(&Inputs {
        name: &scope.key.name,
        uid: config.metadata.uid.as_deref().unwrap_or_default(),
        spec: &spec,
        owner: scope.owner_name(),
        version,
        target,
        token,
        files: &references.files,
        passwords: &references.passwords,
    })
    .and_then(|plan| bootstrapdata::render(spec.format, &plan, &delivery))
    .map(|rendered| Rendered {
        unknown: kubelet_versions::unknown_fields(&spec, version),
        ..rendered
    })
    .map_err(|error| unrendered(&error, config, &references.files))
}

/// Emits an Event for everything that works and may surprise.
pub async fn warn(scope: &Scope<'_>, rendered: &Rendered) {
    for (reason, warning) in rendered.warnings() {
        scope
            .context
            .events
            .warn(scope.config, reason.as_str(), warning)
            .await;
    }
}

/// Creates the Secret. If it exists already, which the index does not know if it carries no label of Cluster API, it is
/// adopted.
async fn write(scope: &Scope<'_>, hash: &str, rendered: Rendered, token: Token) -> Result<Stored, Problem> {
    let text = rendered.text.as_bytes();
    let secret = secret(scope, &scope.key.name, hash, (text, &token, None));
    let manifest = Manifest::of(&secret)?;
    match scope.context.applier.create(&manifest).await {
        Ok(_) => {
            warn(scope, &rendered).await;
        }
        Err(error) if error.is_already_exists() => {
            let conflict = || Problem::backoff(Class::Conflict, Reason::InternalError, error.to_string());
            return find(scope, &scope.key.name).await?.ok_or_else(conflict);
        }
        Err(error) => return Err(refused(error)),
    }
    Ok(Stored {
        token: Some(token),
        former: None,
        figures: figures(scope, &rendered, hash),
    })
}

/// Figures of rendered data; `hash` is the digest of what it was rendered from.
pub fn figures(scope: &Scope<'_>, rendered: &Rendered, hash: &str) -> BootstrapDataStatus {
    BootstrapDataStatus {
        sha256: Some(rendered.sha256.clone()),
        bytes: i64::try_from(rendered.text.len()).ok(),
        gzip_bytes: i64::try_from(rendered.gzip_bytes).ok(),
        user_data_bytes: i64::try_from(rendered.size.bytes).ok(),
        user_data_limit: rendered.size.limit.and_then(|bytes| i64::try_from(bytes).ok()),
        name_source: Some(name_source(scope)),
        spec_hash: Some(hash.to_owned()),
    }
}

/// Why the data could not be rendered.
fn unrendered(error: &RenderError, config: &KamajiConfig, contents: &[Option<Vec<u8>>]) -> Problem {
    match error.reason() {
        // The wrong value may be in a Secret or ConfigMap of the user, and those are not watched.
        reason @ Reason::InvalidSpec => Problem::unwatched(reason, format!("spec.{error}")),
        reason @ Reason::TooLarge => {
            Problem::on_change(reason, format!("{error}{}", to_move(config, contents)))
        }
        reason => Problem::on_change(reason, error.to_string()),
    }
}

/// The token of a lost Secret, as the workload cluster has it; else a new one whose ID is free there.
async fn generate(tenant: &Tenant, known: Option<&str>) -> Result<Token, Problem> {
    if let Some(id) = known
        && let Some(secret) = tenant.session.token(id).await?
        && let Some(token) = in_tenant(id, &secret)
    {
        return Ok(token);
    }
    new_token(tenant).await
}

/// The token with this ID, as its Secret in the workload cluster has it.
pub fn in_tenant(id: &str, secret: &Secret) -> Option<Token> {
    let part = observe::value(secret, "token-secret").unwrap_or_default();
    Token::parse(&format!("{id}.{}", String::from_utf8_lossy(part)))
}

/// A new token whose ID is free in the workload cluster.
///
/// # Errors
/// When the workload cluster does not answer, or none is found.
pub async fn new_token(tenant: &Tenant) -> Result<Token, Problem> {
    const TRIES: usize = 5;
    for _ in 0..TRIES {
        let token = Token::generate(|bytes| rand::rng().fill_bytes(bytes));
        let free = match tenant.has_token(token.id()) {
            Some(true) => false,
            Some(false) | None => tenant.session.token(token.id()).await?.is_none(),
        };
        if free {
            return Ok(token);
        }
    }
    Err(Problem::backoff(
        Class::Foreign,
        Reason::InternalError,
        "no free token ID was found in the workload cluster",
    ))
}

/// Which of the user's files to move out of data that is too large.
fn to_move(config: &KamajiConfig, contents: &[Option<Vec<u8>>]) -> String {
    let mut sizes: Vec<_> = config
        .spec
        .files
        .iter()
        .zip(contents)
        .enumerate()
        .map(|(at, (file, content))| (content.as_ref().map_or(0, Vec::len), at, file.path.as_str()))
        .filter(|(bytes, ..)| *bytes > 0)
        .collect();
    sizes.sort_by(|a, b| b.cmp(a));
    if sizes.is_empty() {
        return String::new();
    }
    let named: Vec<_> = sizes
        .iter()
        .take(3)
        .map(|(bytes, at, path)| format!("files[{at}] {path} ({bytes} bytes)"))
        .collect();
    format!(
        "; move {} into the machine image, or fetch it in spec.preJoinCommands",
        named.join(", ")
    )
}

/// Labels by which the Secret is found.
fn labels(cluster: &str) -> BTreeMap<String, String> {
    [
        (capi::CLUSTER_NAME.to_owned(), cluster.to_owned()),
        (ours::MANAGED_BY.to_owned(), field_manager::BOOTSTRAP.to_owned()),
    ]
    .into()
}

/// The Secret of this name with the data, its token, and the ID of the token before; `hash` is the digest of what the data was
/// rendered from.
pub fn secret(scope: &Scope<'_>, name: &str, hash: &str, data: (&[u8], &Token, Option<&str>)) -> Secret {
    let names = (name, scope.cluster.name.as_str());
    of(scope.config, names, (hash, name_source(scope)), data)
}

/// Where the data of this config takes the name of a Node from.
fn name_source(scope: &Scope<'_>) -> NameSource {
    inputs::name_source(&scope.settings.registration, &scope.owner)
}

fn of(
    config: &KamajiConfig,
    (name, cluster): (&str, &str),
    (hash, source): (&str, NameSource),
    (data, token, former): (&[u8], &Token, Option<&str>),
) -> Secret {
    let extra = &config.spec.secret_metadata;
    let mut all = extra.labels.clone();
    all.extend(labels(cluster));
    let mut annotations: BTreeMap<_, _> = extra.annotations.clone();
    annotations.insert(ours::INPUTS_HASH.to_owned(), hash.to_owned());
    if source != NameSource::MachineName {
        annotations.insert(ours::NAME_SOURCE.to_owned(), source.as_str().to_owned());
    }
    let data = [
        (capi::VALUE_KEY, data.to_vec()),
        (capi::FORMAT_KEY, config.spec.format.as_str().into()),
    ];
    let data = data.into_iter().chain(tokens(token, former));
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: config.namespace(),
            labels: Some(all),
            annotations: Some(annotations),
            owner_references: Some(vec![meta::controller_of(config)]),
            ..ObjectMeta::default()
        },
        type_: Some(capi::SECRET_TYPE.to_owned()),
        data: Some(
            data.map(|(key, bytes)| (key.to_owned(), ByteString(bytes)))
                .collect(),
        ),
        ..Secret::default()
    }
}

/// The keys of the tokens.
fn tokens(token: &Token, former: Option<&str>) -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    let former = former.map(|id| (FORMER_KEY, id.as_bytes().to_vec()));
    [(TOKEN_KEY, token.expose().as_bytes().to_vec())]
        .into_iter()
        .chain(former)
}

/// The Secret as it is, with another token in its data; `None` if its data does not have the one that it names.
pub fn with_token(
    config: &KamajiConfig,
    now: &Secret,
    token: &Token,
    former: Option<&str>,
) -> Option<Secret> {
    let old = std::str::from_utf8(observe::value(now, TOKEN_KEY)?).ok()?;
    let old = Token::parse(old)?.expose();
    let text = std::str::from_utf8(observe::value(now, capi::VALUE_KEY)?).ok()?;
    if !text.contains(old.as_str()) {
        return None;
    }
    let text = text.replace(old.as_str(), &token.expose());
    let mut data = now.data.clone()?;
    data.remove(FORMER_KEY);
    let news = tokens(token, former).chain([(capi::VALUE_KEY, text.into_bytes())]);
    data.extend(news.map(|(key, bytes)| (key.to_owned(), ByteString(bytes))));
    Some(Secret {
        metadata: ObjectMeta {
            name: now.metadata.name.clone(),
            namespace: now.metadata.namespace.clone(),
            labels: now.metadata.labels.clone(),
            annotations: now.metadata.annotations.clone(),
            owner_references: Some(vec![meta::controller_of(config)]),
            ..ObjectMeta::default()
        },
        type_: now.type_.clone(),
        data: Some(data),
        ..Secret::default()
    })
}

#[cfg(test)]
mod tests {
    use kube::api::ObjectMeta;

    use super::*;

    #[test]
    fn bootstrap_44_the_files_to_move_out_are_named() {
        let file = |path: &str| kamaji_api::bootstrap::File {
            path: path.to_owned(),
            ..kamaji_api::bootstrap::File::default()
        };
        let mut config = KamajiConfig::default();
        assert_eq!(to_move(&config, &[]), "");
        config.spec.files = ["/a", "/b", "/c"].map(file).to_vec();
        let text = to_move(&config, &[Some(vec![0; 10]), None, Some(vec![0; 20])]);
        assert!(
            text.contains("move files[2] /c (20 bytes), files[0] /a (10 bytes) into"),
            "{text}"
        );
    }

    #[test]
    fn bootstrap_02_the_secret_is_that_of_the_contract() {
        let config = KamajiConfig {
            metadata: ObjectMeta {
                name: Some("m".into()),
                namespace: Some("ns".into()),
                uid: Some("u".into()),
                ..ObjectMeta::default()
            },
            ..KamajiConfig::default()
        };
        let token = Token::parse("abcdef.0123456789abcdef").unwrap();
        let made = of(
            &config,
            ("m", "c"),
            ("h", NameSource::MachineName),
            (b"#cloud-config\n", &token, None),
        );
        assert_eq!(made.type_.as_deref(), Some("cluster.x-k8s.io/secret"));
        assert_eq!(made.labels()["cluster.x-k8s.io/cluster-name"], "c");
        let owner = &made.owner_references()[0];
        assert_eq!(
            (owner.kind.as_str(), owner.controller),
            ("KamajiConfig", Some(true))
        );
        let data = made.data.unwrap();
        assert_eq!(data["format"].0, b"cloud-config");
        assert_eq!(data["value"].0, b"#cloud-config\n");
        assert_eq!(data.keys().collect::<Vec<_>>(), ["format", "token", "value"]);
    }

    #[test]
    fn another_token_changes_the_bytes_of_the_one_before_alone() {
        let mut config = KamajiConfig::default();
        config.spec.secret_metadata.labels = [("a".to_owned(), "b".to_owned())].into();
        let [old, new] =
            ["abcdef.0123456789abcdef", "uvwxyz.0123456789uvwxyz"].map(|text| Token::parse(text).unwrap());
        let data = b"#cloud-config\ntoken: abcdef.0123456789abcdef\n";
        let before = of(
            &config,
            ("p-1", "c"),
            ("h", NameSource::Hostname),
            (data, &old, None),
        );
        // The spec has no part in it.
        config.spec.secret_metadata.labels.clear();
        let after = with_token(&config, &before, &new, Some("abcdef")).unwrap();
        assert_eq!(after.metadata.labels, before.metadata.labels);
        assert_eq!(after.metadata.annotations, before.metadata.annotations);
        let data = after.data.unwrap();
        let text = |key: &str| String::from_utf8(data[key].0.clone()).unwrap();
        assert_eq!(text("value"), "#cloud-config\ntoken: uvwxyz.0123456789uvwxyz\n");
        assert_eq!(text("token"), "uvwxyz.0123456789uvwxyz");
        assert_eq!(text("former-token-id"), "abcdef");
        let mut theirs = before;
        theirs
            .data
            .as_mut()
            .unwrap()
            .insert("value".to_owned(), ByteString(b"theirs".to_vec()));
        assert_eq!(with_token(&config, &theirs, &new, None), None);
    }
}
