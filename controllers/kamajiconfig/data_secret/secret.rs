//! The data Secret and the token: one of each for a Machine, whatever happens between two steps.
//!
//! The data Secret is the one place where a token is decided. It is *created*, never applied, under a fixed name, so
//! of two replicas one wins and the other reads what the winner wrote. Only then is the token made in the tenant, from
//! the data Secret, and only then does the status announce the data, so no machine boots with a token that does not
//! exist. A crash after any step leaves nothing that the next pass does not find: it reads the data Secret, makes the
//! token if it is missing, and announces. After `clusterctl move` or the loss of the status it is the same: the data
//! Secret is adopted and no second token is ever drawn.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp,
};
use kamaji_api::{
    bootstrap::{BootstrapDataStatus, KamajiConfig},
    conditions::Reason,
    labels::{capi, field_manager, ours},
};
use kube::ResourceExt as _;
use semver::Version;
use sha2::{Digest as _, Sha256};

use crate::{
    k8s::{
        digest::{self, hex},
        error::Class,
        manifest::Manifest,
        meta,
    },
    kamajiconfig::{
        Context,
        bootstrapdata::{
            cloudinit,
            inputs::{Inputs, Target},
            plan,
        },
        observe::{self, References},
        preconditions::Gate,
        stop::Stop,
        token::Token,
    },
    runtime::driver::{Failure, Outcome},
};

/// Key of the data Secret with the token, so that a vanished one is made again.
const TOKEN_KEY: &str = "token";

/// The data as it stands in its Secret.
pub struct Data {
    /// The token in it; none in data that somebody else made.
    pub token: Option<Token>,
    /// Its figures.
    pub figures: BootstrapDataStatus,
}

/// Digest of the spec the data is made from.
pub fn spec_hash(config: &KamajiConfig) -> String {
    digest::of(&serde_json::to_value(&config.spec).unwrap_or_default())
}

/// The data Secret of `config` when it exists and is its own.
///
/// # Errors
/// When the API server does not answer, or somebody else has the name.
pub async fn find(context: &Context, config: &KamajiConfig) -> Result<Option<Data>, Stop> {
    let (namespace, name) = (config.namespace().unwrap_or_default(), config.name_any());
    let Some(secret) = observe::secret(context, &namespace, &name).await? else {
        return Ok(None);
    };
    let uid = config.uid().unwrap_or_default();
    let own = secret
        .owner_references()
        .iter()
        .any(|owner| owner.controller == Some(true) && owner.uid == uid);
    if !own {
        let owner = secret
            .owner_references()
            .iter()
            .find(|owner| owner.controller == Some(true));
        let owner = owner.map(|owner| (owner.kind.as_str(), owner.name.as_str()));
        // It may carry no label that is watched.
        return Err(Stop::Closed(taken(&name, owner), Outcome::Waiting));
    }
    let bytes = observe::value(&secret, capi::VALUE_KEY).unwrap_or_default();
    if bytes.is_empty() {
        return Err(Stop::closed(Gate::closed(
            Reason::InternalError,
            format!(
                "Secret {name} has no key {:?}: delete it to have it written again",
                capi::VALUE_KEY
            ),
        )));
    }
    let token = observe::value(&secret, TOKEN_KEY)
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .and_then(Token::parse);
    let figures = BootstrapDataStatus {
        sha256: Some(hex(&Sha256::digest(bytes))),
        bytes: i64::try_from(bytes.len()).ok(),
        gzip_bytes: None,
        spec_hash: secret.annotations().get(ours::INPUTS_HASH).cloned(),
    };
    Ok(Some(Data { token, figures }))
}

/// The name is somebody else's: never overwritten. `owner` is kind and name of its controller, if it has one.
pub fn taken(name: &str, owner: Option<(&str, &str)>) -> Gate {
    let whose = owner.map_or_else(|| "nobody".to_owned(), |(kind, owner)| format!("{kind} {owner}"));
    Gate::closed(
        Reason::SecretNameTaken,
        format!("Secret {name} is controlled by {whose} and is left alone: delete it, or use another name"),
    )
}

/// Renders the data with `token` and creates its Secret.
///
/// # Errors
/// When the API server refuses it, or something is wrong with the data. When the Secret is there already, which the
/// index does not know where it carries no label of ours, it is judged as it stands.
pub async fn create(
    context: &Context,
    config: &KamajiConfig,
    cluster: &str,
    (machine, version): (&str, &Version),
    (target, references): (&Target, &References),
    token: &Token,
) -> Result<Data, Stop> {
    let hash = spec_hash(config);
    let rendered = plan::plan(&Inputs {
        name: &config.name_any(),
        spec_hash: &hash,
        spec: &config.spec,
        machine,
        version,
        target,
        token,
        files: &references.files,
        passwords: &references.passwords,
    })
    .map_err(cloudinit::Error::from)
    .and_then(|plan| cloudinit::render(&plan, token, cloudinit::LIMIT));
    let rendered = match rendered {
        Ok(rendered) => rendered,
        Err(error) => {
            let reason = error.reason();
            let message = match reason {
                Reason::TooLarge => format!("{error}{}", to_move(config, &references.files)),
                _ => error.to_string(),
            };
            return Err(match reason {
                // What is wrong may stand in a Secret or ConfigMap, and those are not watched.
                Reason::InvalidSpec => Stop::waiting(reason, message),
                _ => Stop::closed(Gate::closed(reason, message)),
            });
        }
    };
    let secret = secret(config, cluster, &hash, rendered.text.as_bytes(), token);
    let manifest = Manifest::of(&secret).map_err(|error| internal(&error))?;
    match context.applier.create(&manifest).await {
        Ok(_) => {}
        Err(error) if error.is_already_exists() => {
            return find(context, config)
                .await?
                .ok_or_else(|| Stop::Failed(Failure::new(Class::Conflict, error)));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(Data {
        token: Some(token.clone()),
        figures: BootstrapDataStatus {
            sha256: Some(rendered.sha256),
            bytes: i64::try_from(rendered.text.len()).ok(),
            gzip_bytes: i64::try_from(rendered.gzip_bytes).ok(),
            spec_hash: Some(hash),
        },
    })
}

fn internal(error: &dyn std::error::Error) -> Stop {
    Stop::closed(Gate::closed(Reason::InternalError, error.to_string()))
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
        "; put {} into the machine image, or fetch it in preJoinCommands",
        named.join(", ")
    )
}

/// The Secret of the contract (contract.md 3.2), with the token beside the data.
fn secret(config: &KamajiConfig, cluster: &str, hash: &str, data: &[u8], token: &Token) -> Secret {
    let extra = &config.spec.secret_metadata;
    let mut labels: BTreeMap<_, _> = extra.labels.clone();
    labels.insert(capi::CLUSTER_NAME.to_owned(), cluster.to_owned());
    labels.insert(ours::MANAGED_BY.to_owned(), field_manager::BOOTSTRAP.to_owned());
    let mut annotations: BTreeMap<_, _> = extra.annotations.clone();
    annotations.insert(ours::INPUTS_HASH.to_owned(), hash.to_owned());
    let data: [(&str, Vec<u8>); 3] = [
        (capi::VALUE_KEY, data.to_vec()),
        (capi::FORMAT_KEY, config.spec.format.as_str().into()),
        (TOKEN_KEY, token.expose().as_bytes().to_vec()),
    ];
    Secret {
        metadata: ObjectMeta {
            name: Some(config.name_any()),
            namespace: config.namespace(),
            labels: Some(labels),
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

/// When a token made or extended now ends, when it is extended next, and when it is extended no more.
pub struct Life {
    ttl: i64,
    longest: i64,
}

impl Life {
    /// The life the spec asks for.
    pub fn of(config: &KamajiConfig) -> Self {
        let settings = &config.spec.auth.token;
        let seconds = |value: Option<kube::core::Duration>, default: i64| {
            value.map_or(default, |value| {
                i64::try_from(std::time::Duration::from(value).as_secs()).unwrap_or(default)
            })
        };
        Self {
            ttl: seconds(settings.ttl, 15 * 60),
            longest: seconds(settings.max_lifetime, 24 * 3600),
        }
    }

    /// The end of a token that is made or extended at `now`: never after its longest life.
    pub fn end(&self, created: Timestamp, now: Timestamp) -> Timestamp {
        let end = (now.as_second() + self.ttl).min(created.as_second() + self.longest);
        Timestamp::from_second(end).unwrap_or(now)
    }

    /// Seconds until it is to be extended: when less than two thirds of a life are left. Zero or less is now.
    pub fn due_in(&self, expiration: Timestamp, now: Timestamp) -> i64 {
        expiration.as_second() - self.ttl * 2 / 3 - now.as_second()
    }

    /// It is extended no more.
    pub fn over(&self, created: Timestamp, now: Timestamp) -> bool {
        now.as_second() >= created.as_second() + self.longest
    }

    /// Its end was reached for the longest life, so extending changes nothing.
    pub fn last(&self, created: Timestamp, expiration: Timestamp) -> bool {
        expiration.as_second() >= created.as_second() + self.longest
    }
}

#[cfg(test)]
mod tests {
    use kube::api::ObjectMeta;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn bootstrap_12_a_token_is_extended_below_two_thirds_until_its_longest_life() {
        let life = Life {
            ttl: 900,
            longest: 3600,
        };
        let end = life.end(at(0), at(0));
        assert_eq!(end, at(900));
        assert_eq!(life.due_in(end, at(0)), 300);
        assert!(life.due_in(end, at(300)) <= 0);
        assert_eq!(life.end(at(0), at(3000)), at(3600));
        assert!(life.last(at(0), at(3600)) && !life.last(at(0), at(3599)));
        assert!(!life.over(at(0), at(3599)) && life.over(at(0), at(3600)));
    }

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
            text.contains("put files[2] /c (20 bytes), files[0] /a (10 bytes) into"),
            "{text}"
        );
    }

    #[test]
    fn bootstrap_02_the_secret_is_what_the_contract_says() {
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
        let made = secret(&config, "c", "h", b"#cloud-config\n", &token);
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
