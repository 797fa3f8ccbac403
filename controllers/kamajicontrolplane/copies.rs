//! Builds the Secrets of the contract from the engine's Secrets, or reports why one is missing. Pure.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kamaji_api::{
    conditions::Reason,
    controlplane::{Endpoint, KamajiControlPlane},
    labels::{capi, kamaji, ours},
};
use kube::ResourceExt;

use super::{
    endpoint,
    secrets::{Action, Part, Rows, admin_key, labels},
};
use crate::{
    k8s::{meta, problem::Problem, row::Row},
    pki::kubeconfig::{self, Kubeconfig},
    settings::Hosting,
};

/// One Secret of the contract as it was observed.
#[derive(Debug)]
pub struct ObservedSecret {
    /// Which one.
    pub part: Part,
    /// Its metadata.
    pub rows: Rows,
    /// What has to be done.
    pub action: Action,
    /// What the action needs beyond metadata.
    pub read: Result<Read, Problem>,
}

/// Content that was read.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
pub enum Read {
    /// None.
    Nothing,
    /// The engine's Secret; `None` when it is gone.
    Source(Option<Secret>),
    /// The Secret of the contract, where it lacks the label of the Cluster; `None` when there is none.
    Unlabelled(Option<Row>),
}

/// What to write.
#[derive(Debug)]
pub enum Write {
    /// Nothing.
    Nothing,
    /// The label of the Cluster, on this Secret.
    Label(Arc<Row>),
    /// This copy.
    Copy {
        /// The Secret.
        secret: Box<Secret>,
        /// No Secret of the name is known.
        new: bool,
    },
}

/// What to write for one Secret of the contract.
///
/// # Errors
/// Why it is missing: what it waits for, or what is wrong with its source.
pub fn desired(
    control_plane: &KamajiControlPlane,
    cluster: &str,
    endpoint: Option<&Endpoint>,
    hosting: Hosting,
    observed: &ObservedSecret,
) -> Result<Write, Problem> {
    let part = observed.part;
    let waiting = || Err(waiting_for_source(part, control_plane));
    match (&observed.action, observed.read.clone()?) {
        (Action::Keep | Action::Foreign, _) => Ok(Write::Nothing),
        (Action::Label, _) => Ok(observed.rows.source.clone().map_or(Write::Nothing, Write::Label)),
        (Action::WaitForSource, Read::Unlabelled(Some(row))) => Ok(Write::Label(Arc::new(row))),
        // Upstream Kamaji creates no such kubeconfig: its nodes join with kubeadm.
        (Action::WaitForSource, _) if part == Part::Bootstrap && hosting == Hosting::External => {
            Ok(Write::Nothing)
        }
        (Action::Copy { .. }, _) if part != Part::Ca && endpoint.is_none() => Err(Problem::on_change(
            Reason::WaitingForEndpoint,
            format!(
                "Secret {} needs the endpoint, and the TenantControlPlane has no address yet",
                part.name(cluster)
            ),
        )),
        (Action::Copy { source, new }, Read::Source(Some(from))) => {
            let data = match (part, endpoint) {
                (Part::Kubeconfig, Some(endpoint)) => {
                    admin_data(&from, admin_key(control_plane), cluster, endpoint)
                }
                (Part::Bootstrap, Some(endpoint)) => bootstrap_data(&from, cluster, endpoint),
                (Part::Ca, _) | (_, None) => ca_data(&from),
            };
            let data = data.map_err(|error| refusal(control_plane, part, &error))?;
            Ok(Write::Copy {
                secret: Box::new(copy(control_plane, cluster, part, source.clone(), data)),
                new: *new,
            })
        }
        (Action::WaitForSource, _)
        | (Action::Copy { .. }, Read::Source(None) | Read::Nothing | Read::Unlabelled(_)) => waiting(),
    }
}

fn waiting_for_source(part: Part, control_plane: &KamajiControlPlane) -> Problem {
    let reason = match part {
        Part::Ca => Reason::WaitingForCertificates,
        Part::Kubeconfig | Part::Bootstrap => Reason::WaitingForKubeconfig,
    };
    Problem::on_change(
        reason,
        format!(
            "waiting for the TenantControlPlane to create Secret {}",
            part.source(&control_plane.name_any())
        ),
    )
}

/// Why a copy cannot be built.
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
    /// The source has no valid kubeconfig.
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

/// Why a copy is missing. An annotation of the user is named where it is the cause.
fn refusal(control_plane: &KamajiControlPlane, part: Part, error: &Error) -> Problem {
    let annotation = kamaji::KUBECONFIG_SECRET_KEY;
    let chosen = control_plane
        .annotations()
        .get(annotation)
        .is_some_and(|key| !key.is_empty());
    match part {
        Part::Kubeconfig if chosen => Problem::on_change(
            Reason::InvalidSpec,
            format!(
                "annotation {annotation}: {error}; set it to one of these keys, or remove the annotation"
            ),
        ),
        Part::Ca => Problem::on_change(Reason::WaitingForCertificates, error.to_string()),
        Part::Kubeconfig | Part::Bootstrap => {
            Problem::on_change(Reason::WaitingForKubeconfig, error.to_string())
        }
    }
}

/// Data of `<cluster>-ca`.
fn ca_data(source: &Secret) -> Result<BTreeMap<String, ByteString>, Error> {
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

/// Data of `<cluster>-kubeconfig`: with the names that Cluster API expects, and the endpoint as server. A key that ends
/// in `.svc` has the address of the Service as server, which is kept: the user chose it by annotation.
fn admin_data(
    source: &Secret,
    key: &str,
    cluster: &str,
    endpoint: &Endpoint,
) -> Result<BTreeMap<String, ByteString>, Error> {
    let kubeconfig = parsed(source, key)?;
    let has_extension = |expected: &str| {
        key.rsplit_once('.')
            .is_some_and(|(_, extension)| extension == expected)
    };
    let server = if has_extension("svc") {
        kubeconfig.server.clone()
    } else {
        endpoint::server(endpoint)
    };
    formatted(source, key, &kubeconfig.for_cluster_api(cluster, &server))
}

/// Data of `<cluster>-kamaji-bootstrap`: with a user of its own, and the endpoint as server.
fn bootstrap_data(
    source: &Secret,
    cluster: &str,
    endpoint: &Endpoint,
) -> Result<BTreeMap<String, ByteString>, Error> {
    let mut kubeconfig = parsed(source, capi::VALUE_KEY)?;
    cluster.clone_into(&mut kubeconfig.cluster);
    kubeconfig.server = endpoint::server(endpoint);
    formatted(source, capi::VALUE_KEY, &kubeconfig)
}

fn parsed(source: &Secret, key: &str) -> Result<Kubeconfig, Error> {
    let text = data(source, key).ok_or_else(|| missing(source, key))?;
    Kubeconfig::parse(&text.0).map_err(|error| malformed(source, key, error))
}

fn formatted(
    source: &Secret,
    key: &str,
    kubeconfig: &Kubeconfig,
) -> Result<BTreeMap<String, ByteString>, Error> {
    let text = kubeconfig
        .to_yaml()
        .map_err(|error| malformed(source, key, error))?;
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
fn copy(
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kamajicontrolplane::example;

    #[test]
    fn a_key_that_ends_in_svc_keeps_its_server() {
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
    fn a_missing_key_names_the_annotation_that_chose_it() {
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
        let problem = refused(&control_plane, &source);
        assert_eq!(problem.reason, Reason::InvalidSpec);
        assert_eq!(
            problem.message,
            "annotation kamaji.clastix.io/kubeconfig-secret-key: Secret alpha-admin-kubeconfig has no key \
             \"nope.conf\", it has admin.conf; set it to one of these keys, or remove the annotation"
        );
        control_plane.metadata.annotations = None;
        source.data = None;
        let problem = refused(&control_plane, &source);
        assert_eq!(problem.reason, Reason::WaitingForKubeconfig);
        assert_eq!(
            problem.message,
            "Secret alpha-admin-kubeconfig has no key \"admin.conf\""
        );
    }
}
