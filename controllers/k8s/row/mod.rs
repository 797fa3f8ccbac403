//! What the index keeps of one object: its names, its versions, a few labels and annotations, and the facts that some
//! controller reads. Packed, that is some 300 bytes, where the whole object takes several kilobytes.

mod packed;

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    num::NonZeroU64,
    sync::Arc,
};

use k8s_openapi::{
    api::{apps::v1::DeploymentStatus, core::v1::ServicePort},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kamaji_api::service::ServiceType;
use kube::Resource;

pub use self::packed::PackedRow;
use super::{cache::Entry, digest, key::ObjectKey, kind::Kind};

/// Annotation and label prefixes whose values the index keeps: ours, Kamaji's and Cluster API's.
const KEPT: [&str; 4] = [
    "capi-kamaji.io/",
    "kamaji.clastix.io/",
    "certs.kamaji.clastix.io/",
    "cluster.x-k8s.io/",
];
/// Prefixes of annotations that Kubernetes, and the engine on a TenantControlPlane, add to an applied object.
const FOREIGN: [&str; 4] = [
    "deployment.kubernetes.io/",
    "pv.kubernetes.io/",
    "capi-kamaji.io/datastore-",
    "capi-kamaji.io/identity",
];

/// The controller owner of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Kind of the owner.
    pub kind: String,
    /// Name of the owner, which is in the same namespace or cluster-scoped.
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

/// The facts that some controller reads, by kind.
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
        /// The status is of the current generation.
        observed: bool,
    },
    /// A PersistentVolumeClaim.
    Claim(Box<ClaimFacts>),
    /// A Pod: what keeps it from running.
    Pod {
        /// See [`super::pod::trouble`].
        trouble: Option<Box<str>>,
    },
}

/// What we read of a Deployment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeploymentFacts {
    /// Desired replicas.
    pub desired: i32,
    /// The whole status, because the status of a TenantControlPlane contains it.
    pub status: DeploymentStatus,
}

/// What we read of a Service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceFacts {
    /// Its type; `None` for one that a control plane has no use for.
    pub service_type: Option<ServiceType>,
    /// Allocated cluster address, `None` while there is none.
    pub cluster_ip: Option<String>,
    /// All allocated cluster addresses.
    pub cluster_ips: Vec<String>,
    /// Ports with the node ports that were allocated.
    pub ports: Vec<ServicePort>,
    /// Load balancer addresses, IP or host name, in order.
    pub ingress: Vec<String>,
}

/// What we read of a PersistentVolumeClaim.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClaimFacts {
    /// `Pending`, `Bound` or `Lost`.
    pub phase: String,
    /// Storage class the claim ended up with, if any.
    pub class: Option<String>,
}

/// One object.
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
    pub owner: Option<Arc<Owner>>,
    /// Labels with one of the kept prefixes.
    pub labels: BTreeMap<String, String>,
    /// Annotations with one of the kept prefixes.
    pub annotations: BTreeMap<String, String>,
    /// It has a deletion timestamp.
    pub deleting: bool,
    /// Hash of labels, annotations and owners, since an edit of metadata does not change the generation.
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
        let owner = meta
            .owner_references
            .iter()
            .flatten()
            .find(|o| o.controller == Some(true))
            .map(|o| {
                Arc::new(Owner {
                    kind: o.kind.clone(),
                    name: o.name.clone(),
                    uid: o.uid.clone(),
                })
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
            labels: kept(meta.labels.as_ref()),
            annotations: kept(meta.annotations.as_ref()),
            deleting: meta.deletion_timestamp.is_some(),
            metadata_hash: metadata_hash(meta),
            facts,
        }
    }

    /// It is a `K`.
    pub fn is<K: Resource<DynamicType = ()>>(&self) -> bool {
        self.key.kind == Kind::of::<K>()
    }

    /// No object controls it, or one that had the kind and name of `owner` before, as after a restore from a backup.
    pub fn is_orphan_of(&self, owner: &OwnerReference) -> bool {
        self.owner.as_ref().is_none_or(|known| {
            (&known.kind, &known.name) == (&owner.kind, &owner.name) && known.uid != owner.uid
        })
    }

    /// The digest of the manifest that was last applied, if we applied one.
    pub fn digest(&self) -> Option<&str> {
        self.annotations.get(digest::ANNOTATION).map(String::as_str)
    }

    /// A hash that changes when somebody edits the object: of its generation (or resource version, for kinds without
    /// generation) and its metadata.
    pub(super) fn fingerprint(&self) -> NonZeroU64 {
        let mut hasher = DefaultHasher::new();
        match self.generation {
            Some(generation) => generation.hash(&mut hasher),
            None => self.resource_version.hash(&mut hasher),
        }
        self.metadata_hash.hash(&mut hasher);
        NonZeroU64::new(hasher.finish()).unwrap_or(NonZeroU64::MIN)
    }
}

impl Entry for Row {
    type Key = ObjectKey;
    type Packed = PackedRow;

    fn key(&self) -> &ObjectKey {
        &self.key
    }

    fn resource_version(&self) -> &str {
        &self.resource_version
    }

    fn pack(&self) -> PackedRow {
        PackedRow::of(self)
    }

    fn unpack(packed: &PackedRow) -> Self {
        packed.unpack()
    }

    fn packed_key(packed: &PackedRow) -> ObjectKey {
        packed.key()
    }

    fn packed_version(packed: &PackedRow) -> String {
        packed.resource_version()
    }
}

/// Those with one of the kept prefixes.
fn kept(map: Option<&BTreeMap<String, String>>) -> BTreeMap<String, String> {
    map.into_iter()
        .flatten()
        .filter(|(key, _)| KEPT.iter().any(|prefix| key.starts_with(prefix)))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn metadata_hash(meta: &ObjectMeta) -> u64 {
    let mut hasher = DefaultHasher::new();
    let labels = meta.labels.iter().flatten();
    for note in labels.chain(meta.annotations.iter().flatten()) {
        if !FOREIGN.iter().any(|prefix| note.0.starts_with(prefix)) {
            note.hash(&mut hasher);
        }
    }
    for owner in meta.owner_references.iter().flatten() {
        owner.uid.hash(&mut hasher);
    }
    hasher.finish()
}
