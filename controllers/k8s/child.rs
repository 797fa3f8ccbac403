//! How a watched object becomes a row.

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::{PersistentVolumeClaim, Pod, Service},
};
use kamaji_api::service::ServiceType;
use kube::{Resource, api::PartialObjectMeta};

use super::{
    kind::Kind,
    pod,
    row::{ClaimFacts, DeploymentFacts, Facts, Row, ServiceFacts},
};

/// A type that a watch brings and the index keeps as a row.
pub trait Child {
    /// What the index keeps.
    fn row(&self) -> Row;
}

/// A kind of which controllers read more than metadata.
pub trait Observed: Resource<DynamicType = ()> {
    /// What they read.
    fn facts(&self) -> Facts;
}

impl<K: Observed> Child for K {
    fn row(&self) -> Row {
        Row::new(Kind::of::<K>(), self.meta(), self.facts())
    }
}

impl<K: Resource<DynamicType = ()>> Child for PartialObjectMeta<K> {
    fn row(&self) -> Row {
        Row::of::<K>(&self.metadata)
    }
}

impl Observed for Deployment {
    fn facts(&self) -> Facts {
        let desired = self.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
        let status = self.status.clone().unwrap_or_default();
        Facts::Deployment(Box::new(DeploymentFacts { desired, status }))
    }
}

impl Observed for Service {
    fn facts(&self) -> Facts {
        let spec = self.spec.clone().unwrap_or_default();
        let real = |ip: &String| !ip.is_empty() && ip != "None";
        let ingress = self.status.as_ref().and_then(|s| s.load_balancer.as_ref());
        Facts::Service(Box::new(ServiceFacts {
            service_type: spec.type_.as_deref().and_then(ServiceType::parse),
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
        }))
    }
}

impl Observed for StatefulSet {
    fn facts(&self) -> Facts {
        let status = self.status.as_ref();
        Facts::StatefulSet {
            ready: status.and_then(|s| s.ready_replicas).unwrap_or(0),
            observed: status.and_then(|s| s.observed_generation) == self.metadata.generation,
        }
    }
}

impl Observed for PersistentVolumeClaim {
    fn facts(&self) -> Facts {
        Facts::Claim(Box::new(ClaimFacts {
            phase: self
                .status
                .as_ref()
                .and_then(|s| s.phase.clone())
                .unwrap_or_default(),
            class: self.spec.as_ref().and_then(|s| s.storage_class_name.clone()),
        }))
    }
}

impl Observed for Pod {
    fn facts(&self) -> Facts {
        Facts::Pod {
            trouble: pod::trouble(self).map(String::into_boxed_str),
        }
    }
}
