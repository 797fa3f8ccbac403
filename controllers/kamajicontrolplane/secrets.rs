//! The Secrets of the contract: `<cluster>-ca`, `<cluster>-kubeconfig`, and the bootstrap provider's own kubeconfig.
//! Pure: what to do with each is told from metadata; what stands in a copy is made from the engine's Secret.
//!
//! Source: contract.md 1.7, DESIGN 2.5 and 7. The engine is the one writer of key material. Here it is copied under
//! Cluster API's names; where a name is the engine's own already, the Secret only gains the label, without which core
//! does not see it. A Secret that somebody else put under one of these names is used and never touched.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kamaji_api::{
    conditions::Reason,
    controlplane::{Endpoint, KamajiControlPlane},
    labels::{capi, field_manager, kamaji, ours},
    tenantcontrolplane::TenantControlPlane,
};
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::endpoint;
use crate::{
    k8s::{digest, meta, problem::Problem, row::Row},
    pki::{
        kubeconfig::{self, Kubeconfig},
        spec,
    },
};

/// Which of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `<cluster>-ca`.
    Authority,
    /// `<cluster>-kubeconfig`.
    Kubeconfig,
    /// `<cluster>-kamaji-bootstrap`.
    Bootstrap,
}

impl Part {
    /// All of them, in the order in which they are published.
    pub const ALL: [Self; 3] = [Self::Authority, Self::Kubeconfig, Self::Bootstrap];

    /// Name of the Secret of the contract.
    pub fn name(self, cluster: &str) -> String {
        let suffix = match self {
            Self::Authority => capi::CA_SUFFIX,
            Self::Kubeconfig => capi::KUBECONFIG_SUFFIX,
            Self::Bootstrap => ours::BOOTSTRAP_KUBECONFIG_SUFFIX,
        };
        format!("{cluster}{suffix}")
    }

    /// Name of the engine's Secret that it comes from.
    pub fn source(self, tenant: &str) -> String {
        match self {
            Self::Authority => spec::ca_name(tenant),
            Self::Kubeconfig => spec::admin_name(tenant),
            Self::Bootstrap => spec::bootstrap_name(tenant),
        }
    }
}

/// Label selector of the engine's Secrets that are copied.
pub fn sources() -> String {
    format!(
        "{} in ({},{},{})",
        kamaji::COMPONENT,
        spec::component::CA,
        spec::component::ADMIN,
        spec::component::BOOTSTRAP
    )
}

/// What has to be done for one Secret of the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is in place.
    Keep,
    /// Somebody else's Secret has the name: used as it is.
    Theirs,
    /// The engine has not made the source yet.
    WaitForSource,
    /// The engine's own Secret has the name: it needs the label.
    Label,
    /// Copy it from the source; `source` goes into the annotation.
    Copy {
        /// Digest of what the copy is made from.
        source: String,
        /// There is no Secret of the name, as far as is known.
        new: bool,
    },
}

/// What is known about one Secret of the contract, from metadata alone.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// The engine's Secret.
    pub source: Option<&'a Row>,
    /// The Secret of the contract.
    pub target: Option<&'a Row>,
    /// Both have one name.
    pub same: bool,
    /// Nobody touched the copy since it was written.
    pub untouched: bool,
}

/// Decides about one Secret. `inputs` is what a copy depends on beside the source.
pub fn step(control_plane: &KamajiControlPlane, known: Known<'_>, inputs: &str) -> Step {
    if known.same {
        return match (known.target, known.source) {
            (Some(_), _) => Step::Keep,
            (None, Some(_)) => Step::Label,
            (None, None) => Step::WaitForSource,
        };
    }
    if known.target.is_some_and(|row| !is_ours(control_plane, row)) {
        return Step::Theirs;
    }
    let Some(source) = known.source else {
        // A copy outlives its source for a moment at most; without either there is nothing to copy.
        return if known.target.is_some() {
            Step::Keep
        } else {
            Step::WaitForSource
        };
    };
    let source = fingerprint(source, inputs);
    match known.target {
        Some(row)
            if known.untouched
                && row.annotations.get(ours::SOURCE) == Some(&source)
                && row.owner.as_ref().map(|owner| owner.uid.as_str())
                    == control_plane.metadata.uid.as_deref() =>
        {
            Step::Keep
        }
        target => Step::Copy {
            source,
            new: target.is_none(),
        },
    }
}

/// The engine says that it uses the Secret, whoever made it.
pub fn is_in_use(part: Part, tenant: Option<&TenantControlPlane>) -> bool {
    let used = || {
        let certificates = tenant?.status.as_ref()?.certificates.as_ref()?;
        certificates.ca.as_ref()?.secret_name.as_deref()
    };
    part == Part::Authority && used().is_some_and(|name| !name.is_empty())
}

/// The Secret was made for this control plane. By kind and name: after a restore the UID is another one.
pub fn is_ours(control_plane: &KamajiControlPlane, row: &Row) -> bool {
    row.owner.as_ref().is_some_and(|owner| {
        owner.kind == KamajiControlPlane::kind(&()) && owner.name == control_plane.name_any()
    })
}

/// Digest of the source's data, as its annotations tell it, and of `inputs`.
fn fingerprint(source: &Row, inputs: &str) -> String {
    let data = source
        .annotations
        .get(ours::CONTENT_HASH)
        .or_else(|| source.annotations.get(kamaji::CHECKSUM))
        .unwrap_or(&source.resource_version);
    digest::of(&json!([data, inputs]))
}

/// What a kubeconfig depends on beside its source.
pub fn inputs(part: Part, cluster: &str, endpoint: Option<&Endpoint>, key: &str) -> String {
    match part {
        Part::Authority => String::new(),
        Part::Kubeconfig | Part::Bootstrap => {
            let server = endpoint.map(endpoint::server).unwrap_or_default();
            format!("{cluster} {server} {key}")
        }
    }
}

/// Key of the engine's Secret that becomes `<cluster>-kubeconfig`.
pub fn admin_key(control_plane: &KamajiControlPlane) -> &str {
    control_plane
        .annotations()
        .get(kamaji::KUBECONFIG_SECRET_KEY)
        .map(String::as_str)
        .filter(|key| !key.is_empty())
        .unwrap_or("admin.conf")
}

/// Why a copy cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The source lacks a key.
    #[error("Secret {secret} has no key {key:?}{}", listed(.has))]
    Missing {
        /// Name of the source.
        secret: String,
        /// The key.
        key: String,
        /// The keys it has.
        has: Vec<String>,
    },
    /// The source holds no kubeconfig.
    #[error("Secret {secret}, key {key:?}: {error}")]
    Malformed {
        /// Name of the source.
        secret: String,
        /// The key.
        key: String,
        /// What is wrong.
        error: kubeconfig::Error,
    },
}

fn listed(keys: &[String]) -> String {
    if keys.is_empty() {
        String::new()
    } else {
        format!(", it has {}", keys.join(", "))
    }
}

/// Why a copy is missing: what the user wrote is named where that is the cause.
pub fn refusal(control_plane: &KamajiControlPlane, part: Part, error: &Error) -> Problem {
    let annotation = kamaji::KUBECONFIG_SECRET_KEY;
    let chosen = control_plane
        .annotations()
        .get(annotation)
        .is_some_and(|key| !key.is_empty());
    match part {
        Part::Kubeconfig if chosen => Problem::on_change(
            Reason::InvalidSpec,
            format!("annotation {annotation}: {error}; name one of these or take the annotation away"),
        ),
        Part::Authority => Problem::on_change(Reason::WaitingForCertificates, error.to_string()),
        Part::Kubeconfig | Part::Bootstrap => {
            Problem::on_change(Reason::WaitingForKubeconfig, error.to_string())
        }
    }
}

/// Data of `<cluster>-ca`.
pub fn authority_data(source: &Secret) -> Result<BTreeMap<String, ByteString>, Error> {
    let pick = |keys: [&str; 2]| {
        keys.iter()
            .find_map(|key| data(source, key))
            .cloned()
            .ok_or_else(|| missing(source, keys[0]))
    };
    Ok([
        ("tls.crt".to_owned(), pick(["tls.crt", "ca.crt"])?),
        ("tls.key".to_owned(), pick(["tls.key", "ca.key"])?),
    ]
    .into())
}

/// Data of `<cluster>-kubeconfig`: Cluster API's names, and the endpoint as server. A key of the `.svc` family is the
/// user's choice to stay inside the management cluster, so its server is kept.
pub fn admin_data(
    source: &Secret,
    key: &str,
    cluster: &str,
    endpoint: &Endpoint,
) -> Result<BTreeMap<String, ByteString>, Error> {
    let read = read(source, key)?;
    let has_extension = |wanted: &str| {
        key.rsplit_once('.')
            .is_some_and(|(_, extension)| extension == wanted)
    };
    let server = if has_extension("svc") {
        read.server.clone()
    } else {
        endpoint::server(endpoint)
    };
    written(source, key, &read.for_cluster_api(cluster, &server))
}

/// Data of the bootstrap provider's kubeconfig: its own user, the endpoint as server.
pub fn bootstrap_data(
    source: &Secret,
    cluster: &str,
    endpoint: &Endpoint,
) -> Result<BTreeMap<String, ByteString>, Error> {
    let mut read = read(source, capi::VALUE_KEY)?;
    cluster.clone_into(&mut read.cluster);
    read.server = endpoint::server(endpoint);
    written(source, capi::VALUE_KEY, &read)
}

fn read(source: &Secret, key: &str) -> Result<Kubeconfig, Error> {
    let text = data(source, key).ok_or_else(|| missing(source, key))?;
    Kubeconfig::parse(&text.0).map_err(|error| malformed(source, key, error))
}

fn written(source: &Secret, key: &str, made: &Kubeconfig) -> Result<BTreeMap<String, ByteString>, Error> {
    let text = made.to_yaml().map_err(|error| malformed(source, key, error))?;
    Ok([(capi::VALUE_KEY.to_owned(), ByteString(text.as_bytes().to_vec()))].into())
}

fn data<'a>(source: &'a Secret, key: &str) -> Option<&'a ByteString> {
    source.data.as_ref()?.get(key)
}

fn missing(source: &Secret, key: &str) -> Error {
    Error::Missing {
        secret: source.name_any(),
        key: key.to_owned(),
        has: source.data.iter().flatten().map(|(key, _)| key.clone()).collect(),
    }
}

fn malformed(source: &Secret, key: &str, error: kubeconfig::Error) -> Error {
    Error::Malformed {
        secret: source.name_any(),
        key: key.to_owned(),
        error,
    }
}

/// A Secret of the contract.
pub fn copy(
    control_plane: &KamajiControlPlane,
    cluster: &str,
    part: Part,
    source: String,
    data: BTreeMap<String, ByteString>,
) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(part.name(cluster)),
            namespace: control_plane.namespace(),
            labels: Some(labels(cluster)),
            annotations: Some([(ours::SOURCE.to_owned(), source)].into()),
            owner_references: Some(vec![meta::controller_of(control_plane)]),
            ..ObjectMeta::default()
        },
        type_: Some(capi::SECRET_TYPE.to_owned()),
        data: Some(data),
        ..Secret::default()
    }
}

/// Labels of what is made here.
pub fn labels(cluster: &str) -> BTreeMap<String, String> {
    [
        (capi::CLUSTER_NAME.to_owned(), cluster.to_owned()),
        (
            ours::MANAGED_BY.to_owned(),
            field_manager::CONTROL_PLANE.to_owned(),
        ),
    ]
    .into()
}

/// The label that makes core see a Secret.
pub fn cluster_label(cluster: &str) -> BTreeMap<String, String> {
    [(capi::CLUSTER_NAME.to_owned(), cluster.to_owned())].into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kamajicontrolplane::example;

    fn row(name: &str, owner: Option<&str>, annotations: &[(&str, &str)]) -> Row {
        let control_plane = example::control_plane();
        let meta = ObjectMeta {
            name: Some(name.into()),
            namespace: Some("demo".into()),
            uid: Some(format!("uid-{name}")),
            resource_version: Some("7".into()),
            annotations: Some(
                annotations
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                    .collect(),
            ),
            owner_references: owner.map(|uid| {
                let mut owner = meta::controller_of(&control_plane);
                uid.clone_into(&mut owner.uid);
                vec![owner]
            }),
            ..ObjectMeta::default()
        };
        Row::of::<Secret>(&meta)
    }

    fn decide(source: Option<&Row>, target: Option<&Row>, same: bool, untouched: bool) -> Step {
        let known = Known {
            source,
            target,
            same,
            untouched,
        };
        step(&example::control_plane(), known, "inputs")
    }

    #[test]
    fn a_secret_of_the_engine_is_copied_once_and_again_when_it_or_the_copy_changed() {
        let engine = row("s", None, &[(ours::CONTENT_HASH, "one")]);
        let Step::Copy { source, new: true } = decide(Some(&engine), None, false, false) else {
            panic!("it is not there");
        };
        let copy = row("t", Some("kcp-uid"), &[(ours::SOURCE, &source)]);
        assert_eq!(decide(Some(&engine), Some(&copy), false, true), Step::Keep);
        let again = |step| matches!(step, Step::Copy { new: false, .. });
        assert!(again(decide(Some(&engine), Some(&copy), false, false)), "touched");
        let renewed = row("s", None, &[(ours::CONTENT_HASH, "two")]);
        assert!(again(decide(Some(&renewed), Some(&copy), false, true)), "renewed");
        let restored = row("t", Some("old-uid"), &[(ours::SOURCE, &source)]);
        assert!(
            again(decide(Some(&engine), Some(&restored), false, true)),
            "contract_29"
        );
    }

    #[test]
    fn what_is_somebody_elses_or_not_there_yet_is_left() {
        let engine = row("s", None, &[]);
        let theirs = row("t", None, &[]);
        assert_eq!(decide(Some(&engine), Some(&theirs), false, true), Step::Theirs);
        assert_eq!(decide(None, None, false, false), Step::WaitForSource);
        assert_eq!(decide(None, None, true, false), Step::WaitForSource);
        assert_eq!(decide(Some(&engine), None, true, false), Step::Label);
        assert_eq!(decide(Some(&engine), Some(&engine), true, false), Step::Keep);
    }

    #[test]
    fn a_key_of_the_svc_family_keeps_its_server() {
        let text = "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n\
                    clusters: [{name: k, cluster: {server: 'https://alpha.demo.svc:6443', certificate-authority-data: QQ==}}]\n\
                    users: [{name: u, user: {client-certificate-data: QQ==, client-key-data: QQ==}}]\n";
        let mut source = Secret::default();
        source.metadata.name = Some("alpha-admin-kubeconfig".into());
        source.data = Some(
            ["admin.svc", "admin.conf"]
                .map(|key| (key.to_owned(), ByteString(text.as_bytes().to_vec())))
                .into(),
        );
        let endpoint = Endpoint {
            host: "192.0.2.1".into(),
            port: 443,
        };
        let server = |key: &str| {
            let data = admin_data(&source, key, "beta", &endpoint).unwrap();
            Kubeconfig::parse(&data["value"].0).unwrap().server
        };
        assert_eq!(server("admin.svc"), "https://alpha.demo.svc:6443");
        assert_eq!(server("admin.conf"), "https://192.0.2.1:443");
    }

    #[test]
    fn a_key_that_is_not_there_is_the_annotations_fault_where_there_is_one() {
        let mut control_plane = example::control_plane();
        let mut source = Secret::default();
        source.metadata.name = Some("alpha-admin-kubeconfig".into());
        source.data = Some([("admin.conf".to_owned(), ByteString(b"-".to_vec()))].into());
        let endpoint = Endpoint {
            host: "192.0.2.1".into(),
            port: 443,
        };
        let refused = |control_plane: &KamajiControlPlane, source: &Secret| {
            let error = admin_data(source, admin_key(control_plane), "beta", &endpoint).unwrap_err();
            refusal(control_plane, Part::Kubeconfig, &error)
        };
        let annotations = control_plane.metadata.annotations.get_or_insert_default();
        annotations.insert(kamaji::KUBECONFIG_SECRET_KEY.into(), "nope.conf".into());
        let cause = refused(&control_plane, &source);
        assert_eq!(cause.reason, Reason::InvalidSpec);
        assert_eq!(
            cause.message,
            "annotation kamaji.clastix.io/kubeconfig-secret-key: Secret alpha-admin-kubeconfig has no key \
             \"nope.conf\", it has admin.conf; name one of these or take the annotation away"
        );
        control_plane.metadata.annotations = None;
        source.data = None;
        let cause = refused(&control_plane, &source);
        assert_eq!(cause.reason, Reason::WaitingForKubeconfig);
        assert_eq!(
            cause.message,
            "Secret alpha-admin-kubeconfig has no key \"admin.conf\""
        );
    }
}
