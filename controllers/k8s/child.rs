//! How each kind of child folds into a row.

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::{PersistentVolumeClaim, Pod, Secret, Service},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use kube::api::{DynamicObject, PartialObjectMeta};

use super::pod;
use super::row::{DeploymentFacts, Facts, Row, ServiceFacts};

/// A watched kind.
pub trait Child {
    /// Its kind, as in [`super::key::ObjectKey`].
    const KIND: &'static str;

    /// What the index keeps.
    fn row(&self) -> Row;
}

impl Child for Deployment {
    const KIND: &'static str = "Deployment";

    fn row(&self) -> Row {
        let desired = self.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
        let status = self.status.clone().unwrap_or_default();
        Row::new(
            Self::KIND,
            &self.metadata,
            Facts::Deployment(Box::new(DeploymentFacts { desired, status })),
        )
    }
}

impl Child for Service {
    const KIND: &'static str = "Service";

    fn row(&self) -> Row {
        let spec = self.spec.clone().unwrap_or_default();
        let real = |ip: &String| !ip.is_empty() && ip != "None";
        let ingress = self.status.as_ref().and_then(|s| s.load_balancer.as_ref());
        let facts = ServiceFacts {
            cluster_ip: spec.cluster_ip.filter(real),
            cluster_ips: spec
                .cluster_ips
                .unwrap_or_default()
                .into_iter()
                .filter(real)
                .collect(),
            ports: spec.ports.unwrap_or_default(),
            ingress: ingress
                .and_then(|lb| lb.ingress.as_ref())
                .into_iter()
                .flatten()
                .filter_map(|i| i.ip.clone().or_else(|| i.hostname.clone()))
                .collect(),
        };
        Row::new(Self::KIND, &self.metadata, Facts::Service(Box::new(facts)))
    }
}

impl Child for StatefulSet {
    const KIND: &'static str = "StatefulSet";

    fn row(&self) -> Row {
        let status = self.status.as_ref();
        let facts = Facts::StatefulSet {
            ready: status.and_then(|s| s.ready_replicas).unwrap_or(0),
            observed: status.and_then(|s| s.observed_generation) == self.metadata.generation,
        };
        Row::new(Self::KIND, &self.metadata, facts)
    }
}

impl Child for PersistentVolumeClaim {
    const KIND: &'static str = "PersistentVolumeClaim";

    fn row(&self) -> Row {
        let facts = Facts::Claim {
            phase: self
                .status
                .as_ref()
                .and_then(|s| s.phase.clone())
                .unwrap_or_default(),
            class: self.spec.as_ref().and_then(|s| s.storage_class_name.clone()),
        };
        Row::new(Self::KIND, &self.metadata, facts)
    }
}

impl Child for Pod {
    const KIND: &'static str = "Pod";

    fn row(&self) -> Row {
        let trouble = pod::trouble(self);
        Row::new(Self::KIND, &self.metadata, Facts::Pod { trouble })
    }
}

/// Kinds of which metadata alone is watched and kept.
macro_rules! metadata_only {
    ($($kind:ident),*) => {$(
        impl Child for PartialObjectMeta<$kind> {
            const KIND: &'static str = stringify!($kind);

            fn row(&self) -> Row {
                Row::new(Self::KIND, &self.metadata, Facts::Metadata)
            }
        }
    )*};
}

metadata_only!(Secret, NetworkPolicy, PodDisruptionBudget);

/// The row of an object that one of our writes returned.
pub(super) fn row_of(kind: &'static str, object: &DynamicObject) -> Row {
    fn typed<K: Child + serde::de::DeserializeOwned>(object: &DynamicObject) -> Option<Row> {
        let value = serde_json::to_value(object).ok()?;
        serde_json::from_value::<K>(value).ok().map(|k| k.row())
    }
    let row = match kind {
        Deployment::KIND => typed::<Deployment>(object),
        Service::KIND => typed::<Service>(object),
        StatefulSet::KIND => typed::<StatefulSet>(object),
        PersistentVolumeClaim::KIND => typed::<PersistentVolumeClaim>(object),
        _ => None,
    };
    row.unwrap_or_else(|| Row::new(kind, &object.metadata, Facts::Metadata))
}
