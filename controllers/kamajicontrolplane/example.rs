//! The objects that the tests of this controller start from.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, OwnerReference, Time},
    jiff::Timestamp,
};
use kamaji_api::{
    conditions::TenantControlPlaneCondition,
    controlplane::KamajiControlPlane,
    labels::capi,
    tenantcontrolplane::{
        DeploymentStatus, KubernetesResourcesStatus, TenantControlPlane, VersionPhase, VersionStatus,
    },
};

use super::{
    desired::{Inputs, tenant as desired},
    kept::Keeper,
};
use crate::capi::cluster::Cluster;

/// The time of the tests.
pub fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

/// `demo/alpha` at v1.36.3 with two replicas.
pub fn cluster() -> Cluster {
    Cluster {
        metadata: metadata("alpha", "cluster-uid"),
        ..Cluster::default()
    }
}

/// The control plane of [`cluster`], owned by it.
pub fn control_plane() -> KamajiControlPlane {
    let mut made = KamajiControlPlane {
        metadata: metadata("alpha", "kcp-uid"),
        ..KamajiControlPlane::default()
    };
    made.metadata.generation = Some(1);
    made.metadata.labels = Some([(capi::CLUSTER_NAME.to_owned(), "alpha".to_owned())].into());
    made.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "cluster.x-k8s.io/v1beta2".into(),
        kind: "Cluster".into(),
        name: "alpha".into(),
        uid: "cluster-uid".into(),
        ..OwnerReference::default()
    }]);
    made.spec.version = "v1.36.3".into();
    made
}

/// The TenantControlPlane of [`control_plane`], without a status.
pub fn tenant() -> TenantControlPlane {
    let mut made = desired(Inputs {
        control_plane: &control_plane(),
        cluster: &cluster(),
        endpoint: None,
        keeper: &Keeper::Nobody,
        tenant: None,
        now: now(),
    });
    made.metadata.uid = Some("tcp-uid".into());
    made.metadata.generation = Some(1);
    made.metadata.creation_timestamp = Some(Time("2026-03-01T11:00:00Z".parse().unwrap()));
    made
}

/// [`tenant`] with `version` rolled out in full on two pods and every condition healthy.
pub fn running(version: &str) -> TenantControlPlane {
    let mut made = tenant();
    let status = made.status.get_or_insert_default();
    status.control_plane_endpoint = Some("192.0.2.1:6443".into());
    status.observed_generation = Some(1);
    status.kubernetes_resources = Some(KubernetesResourcesStatus {
        version: Some(VersionStatus {
            version: Some(version.into()),
            status: VersionPhase::Ready,
        }),
        deployment: Some(DeploymentStatus {
            selector: "kamaji.clastix.io/name=alpha".into(),
            replicas: Some(2),
            ready_replicas: Some(2),
            available_replicas: Some(2),
            updated_replicas: Some(2),
            ..DeploymentStatus::default()
        }),
        ..KubernetesResourcesStatus::default()
    });
    for condition in [
        TenantControlPlaneCondition::Ready,
        TenantControlPlaneCondition::Available,
        TenantControlPlaneCondition::SpecValid,
        TenantControlPlaneCondition::DataStoreReady,
        TenantControlPlaneCondition::CertificatesAvailable,
        TenantControlPlaneCondition::KubeconfigsAvailable,
        TenantControlPlaneCondition::EndpointReady,
        TenantControlPlaneCondition::DeploymentReady,
        TenantControlPlaneCondition::TenantRBACReady,
    ] {
        report(&mut made, condition, "True", condition.as_str(), "");
    }
    made
}

/// Sets a condition of the tenant.
pub fn report(
    tenant: &mut TenantControlPlane,
    condition: TenantControlPlaneCondition,
    status: &str,
    reason: &str,
    message: &str,
) {
    let conditions = &mut tenant.status.get_or_insert_default().conditions;
    conditions.retain(|known| known.type_ != condition.as_str());
    conditions.push(Condition {
        type_: condition.to_string(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        observed_generation: Some(1),
        last_transition_time: Time(now()),
    });
}

fn metadata(name: &str, uid: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: Some("demo".into()),
        uid: Some(uid.into()),
        ..ObjectMeta::default()
    }
}
