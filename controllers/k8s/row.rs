//! What the index keeps of one object: about a hundred bytes instead of the whole (style.md 3.9).

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{apps::v1::DeploymentStatus, core::v1::ServicePort},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::Resource;
use sha2::{Digest as _, Sha256};

use super::{digest, key::ObjectKey, kind::Kind};

/// Annotation and label prefixes whose values the index keeps: ours, Kamaji's and Cluster API's.
const KEPT: [&str; 4] = [
    "capi-kamaji.io/",
    "kamaji.clastix.io/",
    "certs.kamaji.clastix.io/",
    "cluster.x-k8s.io/",
];
/// Annotations that Kubernetes itself, and the engine on a TenantControlPlane, write on what was applied.
const FOREIGN: [&str; 3] = [
    "deployment.kubernetes.io/",
    "pv.kubernetes.io/",
    "capi-kamaji.io/datastore-",
];

/// The controller owner of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Kind of the owner.
    pub kind: String,
    /// Name of the owner; it lives in the same namespace or is cluster-scoped.
    pub name: String,
    /// UID of the owner.
    pub uid: String,
}

impl Owner {
    /// It is a `K`.
    pub fn is<K: Resource<DynamicType = ()>>(&self) -> bool {
        self.kind == Kind::of::<K>().name()
    }
}

/// The status facts that some controller reads, by kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Facts {
    /// Nothing but metadata is known.
    Metadata,
    /// A Deployment.
    Deployment(Box<DeploymentFacts>),
    /// A Service.
    Service(Box<ServiceFacts>),
    /// A StatefulSet: ready replicas, and whether the controller saw the current generation.
    StatefulSet {
        /// Pods that are ready.
        ready: i32,
        /// The status speaks of the current generation.
        observed: bool,
    },
    /// A PersistentVolumeClaim.
    Claim {
        /// `Pending`, `Bound` or `Lost`.
        phase: String,
        /// Storage class the claim ended up with, if any.
        class: Option<String>,
    },
    /// A Pod: what keeps it from running.
    Pod {
        /// See [`super::pod::trouble`].
        trouble: Option<String>,
    },
}

/// What we read of a Deployment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeploymentFacts {
    /// Desired replicas.
    pub desired: i32,
    /// The status as a whole, since TenantControlPlane shows it inline.
    pub status: DeploymentStatus,
}

/// What we read of a Service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceFacts {
    /// Allocated cluster address, `None` while there is none.
    pub cluster_ip: Option<String>,
    /// All allocated cluster addresses.
    pub cluster_ips: Vec<String>,
    /// Ports with the node ports that were allocated.
    pub ports: Vec<ServicePort>,
    /// Load balancer addresses, IP or host name, in order.
    pub ingress: Vec<String>,
}

/// One object, folded.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Kind, namespace and name.
    pub key: ObjectKey,
    /// UID.
    pub uid: String,
    /// Resource version as the API server gave it.
    pub resource_version: String,
    /// Generation, where the kind has one.
    pub generation: Option<i64>,
    /// The controller owner, if there is one.
    pub owner: Option<Owner>,
    /// Labels with one of the kept prefixes.
    pub labels: BTreeMap<String, String>,
    /// Annotations with one of the kept prefixes.
    pub annotations: BTreeMap<String, String>,
    /// It carries a deletion timestamp.
    pub deleting: bool,
    /// Hash of labels, annotations and owners: metadata edits do not move the generation.
    pub(super) metadata_hash: u64,
    /// Status facts.
    pub facts: Facts,
}

impl Row {
    /// The row of a `K` of which the metadata alone is known.
    pub fn of<K: Resource<DynamicType = ()>>(meta: &ObjectMeta) -> Self {
        Self::metadata(Kind::of::<K>(), meta)
    }

    /// The row of an object of which the metadata alone is known.
    pub fn metadata(kind: Kind, meta: &ObjectMeta) -> Self {
        Self::new(kind, meta, Facts::Metadata)
    }

    /// The row of an object with this metadata and these facts.
    pub fn new(kind: Kind, meta: &ObjectMeta, facts: Facts) -> Self {
        let kept = |map: &Option<BTreeMap<String, String>>| -> BTreeMap<String, String> {
            map.iter()
                .flatten()
                .filter(|(k, _)| KEPT.iter().any(|prefix| k.starts_with(prefix)))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect()
        };
        let owner = meta
            .owner_references
            .iter()
            .flatten()
            .find(|o| o.controller == Some(true))
            .map(|o| Owner {
                kind: o.kind.clone(),
                name: o.name.clone(),
                uid: o.uid.clone(),
            });
        Self {
            key: ObjectKey::new(
                kind,
                meta.namespace.clone().unwrap_or_default(),
                meta.name.clone().unwrap_or_default(),
            ),
            uid: meta.uid.clone().unwrap_or_default(),
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            generation: meta.generation,
            owner,
            labels: kept(&meta.labels),
            annotations: kept(&meta.annotations),
            deleting: meta.deletion_timestamp.is_some(),
            metadata_hash: metadata_hash(meta),
            facts,
        }
    }

    /// It is a `K`.
    pub fn is<K: Resource<DynamicType = ()>>(&self) -> bool {
        self.key.kind == Kind::of::<K>()
    }

    /// The digest of the manifest last applied, if we applied one.
    pub fn digest(&self) -> Option<&str> {
        self.annotations.get(digest::ANNOTATION).map(String::as_str)
    }

    /// What changes when somebody edits the object: its generation (or the version, for kinds without one) and
    /// its metadata.
    pub(super) fn fingerprint(&self) -> (String, u64) {
        let version = self
            .generation
            .map_or_else(|| self.resource_version.clone(), |g| g.to_string());
        (version, self.metadata_hash)
    }

    /// `self` was read from the API server before `other` was.
    pub(super) fn is_older_than(&self, other: &Self) -> bool {
        older(&self.resource_version, &other.resource_version)
    }
}

/// Resource versions are revisions of the API server's store and grow (KEP-5504 makes this a promise).
pub(super) fn older(a: &str, b: &str) -> bool {
    matches!((a.parse::<u64>(), b.parse::<u64>()), (Ok(a), Ok(b)) if a < b)
}

fn metadata_hash(meta: &ObjectMeta) -> u64 {
    let mut hash = Sha256::new();
    for (key, value) in meta
        .labels
        .iter()
        .flatten()
        .chain(meta.annotations.iter().flatten())
    {
        if FOREIGN.iter().any(|prefix| key.starts_with(prefix)) {
            continue;
        }
        for part in [key, value] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
    }
    for owner in meta.owner_references.iter().flatten() {
        hash.update(owner.uid.as_bytes());
        hash.update([1]);
    }
    let digest = hash.finalize();
    let mut head = [0; 8];
    head.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(head)
}
