//! The Secret with the bootstrap data: reads, adopts and creates it. Its name is that of the config.
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
            inputs::{self, Inputs, RenderError},
            plan,
            render::Rendered,
        },
        observe::{self, is_failure, refused},
        preconditions,
        scope::Scope,
        status::Progress,
        target,
        tenants::Tenant,
        token::Token,
    },
};

/// Key of the token in the Secret.
const TOKEN_KEY: &str = "token";

/// The bootstrap data in its Secret.
pub struct Stored {
    /// The token in it; none in data that another program created.
    pub token: Option<Token>,
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
        return Err(taken(&row.key.name, owner));
    }
    find(scope).await
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

/// The Secret of the config, if it exists.
async fn find(scope: &Scope<'_>) -> Result<Option<Stored>, Problem> {
    let (namespace, name) = (&scope.key.namespace, &scope.key.name);
    let Some(secret) = observe::secret(scope.context, namespace, name).await? else {
        return Ok(None);
    };
    let controller = secret
        .owner_references()
        .iter()
        .find(|owner| owner.controller == Some(true));
    if controller.map(|owner| &owner.uid) != scope.config.metadata.uid.as_ref() {
        let owner = controller.map(|owner| (owner.kind.as_str(), owner.name.as_str()));
        // It may carry no label that is watched.
        return Err(Problem {
            retry: Retry::Unwatched,
            ..taken(name, owner)
        });
    }
    let bytes = observe::value(&secret, capi::VALUE_KEY).unwrap_or_default();
    if bytes.is_empty() {
        return Err(Problem::on_change(
            Reason::InternalError,
            format!(
                "Secret {name} has no key {:?}: delete it to have it created again",
                capi::VALUE_KEY
            ),
        ));
    }
    let token = observe::value(&secret, TOKEN_KEY)
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .and_then(Token::parse);
    let figures = BootstrapDataStatus {
        sha256: Some(HEXLOWER.encode(&Sha256::digest(bytes))),
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
    Ok(Some(Stored { token, figures }))
}

/// The Secret belongs to another object and is never overwritten. `owner` is kind and name of its controller, if it has
/// one.
fn taken(name: &str, owner: Option<(&str, &str)>) -> Problem {
    let whose = owner.map_or_else(
        || "no object".to_owned(),
        |(kind, owner)| format!("{kind} {owner}"),
    );
    Problem::on_change(
        Reason::SecretNameTaken,
        format!(
            "Secret {name} is controlled by {whose} and is not changed: delete it, or delete the Machine to get one with \
             another name"
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
    let (context, config) = (scope.context, scope.config);
    let version = scope.version(progress)?;
    let ca = observe::ca(context, config, &scope.cluster).await;
    if !ca.as_ref().is_err_and(is_failure) {
        progress.ca = Step::of(&ca);
    }
    let observed = scope.observed;
    let cluster = preconditions::cluster(&scope.cluster.name, observed.cluster.as_deref())?;
    let target = target::target(config, cluster, observed.control_plane.as_deref(), ca?)?;
    let references = observe::references(context, config).await?;
    let token = generate(tenant, known).await?;
    let hash = spec_hash(config);
    let spec = scope.settings.onto(&config.spec);
    let delivery = Delivery::of(scope.settings.preset, &spec.output);
    let rendered = plan::plan(&Inputs {
        name: &scope.key.name,
        uid: config.metadata.uid.as_deref().unwrap_or_default(),
        spec: &spec,
        owner: scope.owner_name(),
        version,
        target: &target,
        token: &token,
        files: &references.files,
        passwords: &references.passwords,
    })
    .and_then(|plan| bootstrapdata::render(spec.format, &plan, &delivery))
    .map_err(|error| unrendered(&error, config, &references.files))?;
    let source = inputs::name_source(&spec.node_registration, &scope.owner);
    write(scope, (&hash, source), rendered, token).await
}

/// Creates the Secret. If it exists already, which the index does not know if it carries no label of Cluster API, it is
/// adopted.
async fn write(
    scope: &Scope<'_>,
    (hash, source): (&str, NameSource),
    rendered: Rendered,
    token: Token,
) -> Result<Stored, Problem> {
    let secret = secret(
        scope.config,
        &scope.cluster.name,
        (hash, source),
        rendered.text.as_bytes(),
        &token,
    );
    let manifest = Manifest::of(&secret)?;
    match scope.context.applier.create(&manifest).await {
        Ok(_) => {
            if let Some(warning) = &rendered.size.warning {
                let reason = Reason::UserDataNearLimit.as_str();
                scope.context.events.warn(scope.config, reason, warning).await;
            }
        }
        Err(error) if error.is_already_exists() => {
            let conflict = || Problem::backoff(Class::Conflict, Reason::InternalError, error.to_string());
            return find(scope).await?.ok_or_else(conflict);
        }
        Err(error) => return Err(refused(error)),
    }
    Ok(Stored {
        token: Some(token),
        figures: BootstrapDataStatus {
            sha256: Some(rendered.sha256),
            bytes: i64::try_from(rendered.text.len()).ok(),
            gzip_bytes: i64::try_from(rendered.gzip_bytes).ok(),
            user_data_bytes: i64::try_from(rendered.size.bytes).ok(),
            user_data_limit: rendered.size.limit.and_then(|bytes| i64::try_from(bytes).ok()),
            name_source: Some(source),
            spec_hash: Some(hash.to_owned()),
        },
    })
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
    const TRIES: usize = 5;
    if let Some(id) = known
        && let Some(secret) = tenant.session.token(id).await?
    {
        let part = observe::value(&secret, "token-secret").unwrap_or_default();
        let text = format!("{id}.{}", String::from_utf8_lossy(part));
        if let Some(token) = Token::parse(&text) {
            return Ok(token);
        }
    }
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

/// The Secret.
fn secret(
    config: &KamajiConfig,
    cluster: &str,
    (hash, source): (&str, NameSource),
    data: &[u8],
    token: &Token,
) -> Secret {
    let extra = &config.spec.secret_metadata;
    let mut all = extra.labels.clone();
    all.extend(labels(cluster));
    let mut annotations: BTreeMap<_, _> = extra.annotations.clone();
    annotations.insert(ours::INPUTS_HASH.to_owned(), hash.to_owned());
    if source != NameSource::MachineName {
        annotations.insert(ours::NAME_SOURCE.to_owned(), source.as_str().to_owned());
    }
    let data: [(&str, Vec<u8>); 3] = [
        (capi::VALUE_KEY, data.to_vec()),
        (capi::FORMAT_KEY, config.spec.format.as_str().into()),
        (TOKEN_KEY, token.expose().as_bytes().to_vec()),
    ];
    Secret {
        metadata: ObjectMeta {
            name: Some(config.name_any()),
            namespace: config.namespace(),
            labels: Some(all),
            annotations: Some(annotations),
            owner_references: Some(vec![meta::controller_of(config)]),
            ..ObjectMeta::default()
        },
        type_: Some(capi::SECRET_TYPE.to_owned()),
        data: Some(
            data.map(|(key, bytes)| (key.to_owned(), ByteString(bytes)))
                .into(),
        ),
        ..Secret::default()
    }
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
        let made = secret(
            &config,
            "c",
            ("h", NameSource::MachineName),
            b"#cloud-config\n",
            &token,
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
}
