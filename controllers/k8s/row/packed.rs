//! A row as the index keeps it: a third of its size.

use std::{collections::BTreeMap, sync::Arc};

use kamaji_api::labels::{capi, kamaji, ours};

use super::{Facts, Owner, Row};
use crate::k8s::{
    key::ObjectKey,
    kind::Kind,
    packed::{Packer, Unpacker},
};

/// Frequent keys of labels and annotations, by number. Other keys are spelled out: the list only saves memory.
const FREQUENT: [&str; 14] = [
    kamaji::PROJECT,
    kamaji::NAME,
    kamaji::COMPONENT,
    kamaji::CERTIFICATE_LIFECYCLE,
    kamaji::CHECKSUM,
    capi::CLUSTER_NAME,
    ours::MANAGED_BY,
    ours::DATASTORE,
    ours::DIGEST,
    ours::INPUTS_HASH,
    ours::NOT_BEFORE,
    ours::NOT_AFTER,
    ours::CONTENT_HASH,
    ours::CA_FINGERPRINT,
];
/// Stands for a key that is spelled out.
const SPELLED: u64 = FREQUENT.len() as u64;

/// A packed row.
pub struct PackedRow {
    kind: Kind,
    /// The controller owner; the rows of one owner share it.
    pub owner: Option<Arc<Owner>>,
    facts: Facts,
    /// Namespace, name and resource version first, since they are read alone; then the rest.
    rest: Box<[u8]>,
}

impl PackedRow {
    /// Packs `row`.
    pub fn of(row: &Row) -> Self {
        let Row {
            key:
                ObjectKey {
                    kind,
                    namespace,
                    name,
                },
            uid,
            resource_version,
            generation,
            owner,
            labels,
            annotations,
            deleting,
            metadata_hash,
            facts,
        } = row;
        let mut rest = Packer::default();
        for text in [namespace, name, resource_version, uid] {
            rest.text(text);
        }
        rest.text(
            &generation
                .map(|generation| generation.to_string())
                .unwrap_or_default(),
        );
        rest.number(u64::from(*deleting));
        rest.number(*metadata_hash);
        pack(&mut rest, labels);
        pack(&mut rest, annotations);
        Self {
            kind: *kind,
            owner: owner.clone(),
            facts: facts.clone(),
            rest: rest.finish(),
        }
    }

    /// The row.
    pub fn unpack(&self) -> Row {
        let mut rest = Unpacker::new(&self.rest);
        let key = ObjectKey::new(self.kind, rest.text(), rest.text());
        Row {
            key,
            resource_version: rest.text(),
            uid: rest.text(),
            generation: rest.text().parse().ok(),
            owner: self.owner.clone(),
            deleting: rest.number() != 0,
            metadata_hash: rest.number(),
            labels: unpack(&mut rest),
            annotations: unpack(&mut rest),
            facts: self.facts.clone(),
        }
    }

    /// The key of the row.
    pub fn key(&self) -> ObjectKey {
        let mut rest = Unpacker::new(&self.rest);
        ObjectKey::new(self.kind, rest.text(), rest.text())
    }

    /// The resource version of the row.
    pub fn resource_version(&self) -> String {
        let mut rest = Unpacker::new(&self.rest);
        (rest.text(), rest.text(), rest.text()).2
    }
}

fn pack(rest: &mut Packer, map: &BTreeMap<String, String>) {
    rest.number(map.len() as u64);
    for (key, value) in map {
        if let Some(number) = FREQUENT.iter().position(|frequent| frequent == key) {
            rest.number(number as u64);
        } else {
            rest.number(SPELLED);
            rest.text(key);
        }
        rest.text(value);
    }
}

fn unpack(rest: &mut Unpacker<'_>) -> BTreeMap<String, String> {
    let length = rest.number();
    (0..length)
        .map(|_| {
            let number = usize::try_from(rest.number()).unwrap_or(usize::MAX);
            let key = FREQUENT.get(number).map(|key| (*key).to_owned());
            (key.unwrap_or_else(|| rest.text()), rest.text())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Pod, Secret};
    use serde_json::json;

    use super::*;
    use crate::k8s::child::Child as _;

    #[test]
    fn a_row_comes_back_as_it_was() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {
                "name": "alpha-0", "namespace": "demo", "uid": "d0b5f2c8-1f5e-4c6a-9c57-4f1f9a0b7e11",
                "resourceVersion": "17", "generation": 3, "deletionTimestamp": "2026-01-01T00:00:00Z",
                "labels": { kamaji::NAME: "alpha", "capi-kamaji.io/rare": "", "app": "left out" },
                "annotations": { ours::CONTENT_HASH: "ä".repeat(9000) },
                "ownerReferences": [{ "apiVersion": "v1", "kind": "K", "name": "o", "uid": "1", "controller": true }],
            },
            "status": { "phase": "Pending", "conditions": [
                { "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node" },
            ] },
        }))
        .unwrap();
        let bare: Secret = serde_json::from_value(json!({ "metadata": { "name": "a" } })).unwrap();
        for row in [pod.row(), Row::of::<Secret>(&bare.metadata)] {
            let packed = PackedRow::of(&row);
            assert_eq!(packed.unpack(), row);
            assert_eq!(packed.key(), row.key);
            assert_eq!(packed.resource_version(), row.resource_version);
        }
        assert_eq!(pod.row().labels.len(), 2, "only keys with our prefixes are kept");
    }
}
