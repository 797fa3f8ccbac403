//! The Secrets of the Cluster API contract: `<cluster>-ca`, `<cluster>-kubeconfig`, and the kubeconfig of the bootstrap
//! provider. Pure. [`action`] decides from metadata alone; [`super::copies`] builds a copy from the engine's Secret.
//!
//! The engine is the only writer of key material. Here it is copied to the names that Cluster API looks for
//! (`docs/src/reference/cluster-api-contract.md`). Where both have the same name, the Secret only needs the label of
//! the Cluster, without which Cluster API does not find it. A Secret that somebody else created under one of these
//! names is used and never changed.

use std::{collections::BTreeMap, sync::Arc};

use kamaji_api::{
    controlplane::{Endpoint, KamajiControlPlane},
    labels::{capi, field_manager, kamaji, ours},
    tenantcontrolplane::TenantControlPlane,
};
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::endpoint;
use crate::{
    capi::owner,
    k8s::{digest, row::Row},
    pki::spec,
};

/// One of the Secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `<cluster>-ca`.
    Ca,
    /// `<cluster>-kubeconfig`.
    Kubeconfig,
    /// `<cluster>-kamaji-bootstrap`.
    Bootstrap,
}

impl Part {
    /// All of them, in the order in which they are published.
    pub const ALL: [Self; 3] = [Self::Ca, Self::Kubeconfig, Self::Bootstrap];

    /// Name of the Secret of the contract.
    pub fn name(self, cluster: &str) -> String {
        let suffix = match self {
            Self::Ca => capi::CA_SUFFIX,
            Self::Kubeconfig => capi::KUBECONFIG_SUFFIX,
            Self::Bootstrap => ours::BOOTSTRAP_KUBECONFIG_SUFFIX,
        };
        format!("{cluster}{suffix}")
    }

    /// Name of the engine's Secret that it is copied from.
    pub fn source(self, tenant: &str) -> String {
        match self {
            Self::Ca => spec::ca_name(tenant),
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

/// Metadata of one Secret of the contract.
#[derive(Clone, Debug)]
pub struct Rows {
    /// The engine's Secret.
    pub source: Option<Arc<Row>>,
    /// The Secret of the contract.
    pub target: Option<Arc<Row>>,
    /// Both have the same name.
    pub same: bool,
    /// Nobody changed the copy since it was written.
    pub untouched: bool,
}

/// What has to be done for one Secret of the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing: it is in place.
    Keep,
    /// Nothing: somebody else created it, and it is used as it is.
    Foreign,
    /// Wait until the engine has created the source.
    WaitForSource,
    /// Label the engine's own Secret, which has the name.
    Label,
    /// Copy the source.
    Copy {
        /// Digest of what the copy is built from, for its annotation.
        source: String,
        /// No Secret of the name is known.
        new: bool,
    },
}

/// Decides what to do. `inputs` is what a copy depends on beside its source.
pub fn action(control_plane: &KamajiControlPlane, rows: &Rows, inputs: &str) -> Action {
    let (source, target) = (rows.source.as_deref(), rows.target.as_deref());
    if rows.same {
        return match (target, source) {
            (Some(_), _) => Action::Keep,
            (None, Some(_)) => Action::Label,
            (None, None) => Action::WaitForSource,
        };
    }
    if target.is_some_and(|row| !is_ours(control_plane, row)) {
        return Action::Foreign;
    }
    let Some(source) = source else {
        // A copy may exist for a moment without its source.
        return if target.is_some() {
            Action::Keep
        } else {
            Action::WaitForSource
        };
    };
    let source = fingerprint(source, inputs);
    match target {
        Some(row)
            if rows.untouched
                && row.annotations.get(ours::SOURCE) == Some(&source)
                && row.owner.as_ref().map(|owner| owner.uid.as_str())
                    == control_plane.metadata.uid.as_deref() =>
        {
            Action::Keep
        }
        Some(_) | None => Action::Copy {
            source,
            new: target.is_none(),
        },
    }
}

/// The engine reports that it uses `<tcp>-ca`, whoever created it.
pub fn is_in_use(part: Part, tenant: Option<&TenantControlPlane>) -> bool {
    let used = || {
        let certificates = tenant?.status.as_ref()?.certificates.as_ref()?;
        certificates.ca.as_ref()?.secret_name.as_deref()
    };
    part == Part::Ca && used().is_some_and(|name| !name.is_empty())
}

/// The object was created for this control plane. Compared by kind and name, because the UID is another one after a
/// restore. A restore may also remove the owner: then the labels decide, which are those of [`labels`].
pub fn is_ours(control_plane: &KamajiControlPlane, row: &Row) -> bool {
    if let Some(found) = &row.owner {
        return found.kind == KamajiControlPlane::kind(&()) && found.name == control_plane.name_any();
    }
    let cluster = owner::cluster(control_plane).or_else(|| owner::cluster_label(control_plane));
    cluster.is_some_and(|cluster| {
        let mut wanted = labels(cluster).into_iter();
        wanted.all(|(key, value)| row.labels.get(&key) == Some(&value))
    })
}

/// Digest of the source's data, as its annotations have it, and of `inputs`.
fn fingerprint(source: &Row, inputs: &str) -> String {
    let data = source
        .annotations
        .get(ours::CONTENT_HASH)
        .or_else(|| source.annotations.get(kamaji::CHECKSUM))
        .unwrap_or(&source.resource_version);
    digest::of(&json!([data, inputs]))
}

/// What a copy depends on beside its source.
pub fn inputs(part: Part, cluster: &str, endpoint: Option<&Endpoint>, key: &str) -> String {
    match part {
        Part::Ca => String::new(),
        Part::Kubeconfig | Part::Bootstrap => {
            let server = endpoint.map(endpoint::server).unwrap_or_default();
            format!("{cluster} {server} {key}")
        }
    }
}

/// Key of the engine's Secret that becomes `<cluster>-kubeconfig`: a user may choose another one by annotation.
pub fn admin_key(control_plane: &KamajiControlPlane) -> &str {
    control_plane
        .annotations()
        .get(kamaji::KUBECONFIG_SECRET_KEY)
        .map(String::as_str)
        .filter(|key| !key.is_empty())
        .unwrap_or("admin.conf")
}

/// Labels of the Secrets that this controller creates.
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

/// The label by which Cluster API finds a Secret.
pub fn cluster_label(cluster: &str) -> BTreeMap<String, String> {
    [(capi::CLUSTER_NAME.to_owned(), cluster.to_owned())].into()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};

    use super::*;
    use crate::{k8s::meta, kamajicontrolplane::example};

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

    fn decide(source: Option<&Row>, target: Option<&Row>, same: bool, untouched: bool) -> Action {
        let rows = Rows {
            source: source.cloned().map(Arc::new),
            target: target.cloned().map(Arc::new),
            same,
            untouched,
        };
        action(&example::control_plane(), &rows, "inputs")
    }

    #[test]
    fn a_secret_of_the_engine_is_copied_again_only_when_it_or_the_copy_changed() {
        let engine = row("s", None, &[(ours::CONTENT_HASH, "one")]);
        let Action::Copy { source, new: true } = decide(Some(&engine), None, false, false) else {
            panic!("there is no copy yet");
        };
        let copy = row("t", Some("kcp-uid"), &[(ours::SOURCE, &source)]);
        assert_eq!(decide(Some(&engine), Some(&copy), false, true), Action::Keep);
        let again = |action| matches!(action, Action::Copy { new: false, .. });
        assert!(
            again(decide(Some(&engine), Some(&copy), false, false)),
            "the copy changed"
        );
        let renewed = row("s", None, &[(ours::CONTENT_HASH, "two")]);
        assert!(
            again(decide(Some(&renewed), Some(&copy), false, true)),
            "the source changed"
        );
        let restored = row("t", Some("old-uid"), &[(ours::SOURCE, &source)]);
        assert!(
            again(decide(Some(&engine), Some(&restored), false, true)),
            "contract_29"
        );
    }

    #[test]
    fn a_foreign_secret_is_kept_and_a_missing_source_is_waited_for() {
        let engine = row("s", None, &[]);
        let foreign = row("t", None, &[]);
        assert_eq!(
            decide(Some(&engine), Some(&foreign), false, true),
            Action::Foreign
        );
        assert_eq!(decide(None, None, false, false), Action::WaitForSource);
        assert_eq!(decide(None, None, true, false), Action::WaitForSource);
        assert_eq!(decide(Some(&engine), None, true, false), Action::Label);
        assert_eq!(decide(Some(&engine), Some(&engine), true, false), Action::Keep);
    }
}
