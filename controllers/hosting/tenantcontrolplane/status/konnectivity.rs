//! `status.addons.konnectivity`. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kamaji_api::tenantcontrolplane::{
    ExternalObjectStatus, KonnectivityAgentStatus, KonnectivityConfigMapStatus, KonnectivityStatus,
    ServiceStatus, TenantControlPlane,
};
use kube::ResourceExt;

use super::secret;
use crate::{
    hosting::tenantcontrolplane::{certificates::Certificates, desired, konnectivity},
    pki::spec::{self, component},
    tenant::konnectivity as agents,
};

/// Konnectivity in both clusters, once its agents were applied; nothing but `enabled` once they were removed.
pub(super) fn status(
    old: Option<KonnectivityStatus>,
    tenant: &TenantControlPlane,
    made: Option<&Certificates>,
    now: &Time,
) -> Option<KonnectivityStatus> {
    let Some(settings) = konnectivity::of(tenant) else {
        return old.map(|_| KonnectivityStatus::default());
    };
    let KonnectivityStatus {
        enabled: _,
        config_map: _,
        certificate,
        kubeconfig,
        sa,
        cluster_role_binding,
        agent,
        service: _,
        // Not supported yet; an adopted tenant keeps it.
        gateway,
    } = old.unwrap_or_default();
    let name = tenant.name_any();
    let in_tenant = |old: Option<ExternalObjectStatus>, object: &str, namespace: Option<&str>| {
        let namespace = namespace.map(str::to_owned);
        let same =
            |old: &ExternalObjectStatus| old.name.as_deref() == Some(object) && old.namespace == namespace;
        old.filter(same).or_else(|| {
            Some(ExternalObjectStatus {
                name: Some(object.to_owned()),
                namespace: namespace.clone(),
                last_update: Some(now.clone()),
            })
        })
    };
    let hash = made.and_then(|made| made.hashes.get(component::KONNECTIVITY));
    let of_kubeconfig = desired::konnectivity::kubeconfig_hash(tenant);
    let kind = Some(agents::kind(settings.agent.mode).to_owned());
    Some(KonnectivityStatus {
        enabled: true,
        config_map: Some(KonnectivityConfigMapStatus {
            name: Some(konnectivity::egress_name(&name)),
            checksum: Some(desired::konnectivity::egress_hash()),
        }),
        certificate: Some(secret::entry(
            certificate,
            &spec::konnectivity_name(&name),
            hash,
            now,
        )),
        kubeconfig: Some(secret::entry(
            kubeconfig,
            &konnectivity::kubeconfig_name(&name),
            Some(&of_kubeconfig),
            now,
        )),
        sa: in_tenant(sa, agents::ACCOUNT, Some(agents::NAMESPACE)),
        cluster_role_binding: in_tenant(cluster_role_binding, agents::BINDING, None),
        agent: agent.filter(|agent| agent.mode == kind).or_else(|| {
            Some(KonnectivityAgentStatus {
                name: Some(agents::ACCOUNT.to_owned()),
                namespace: Some(agents::NAMESPACE.to_owned()),
                mode: kind.clone(),
                last_update: Some(now.clone()),
            })
        }),
        service: Some(ServiceStatus {
            name: name.clone(),
            namespace: tenant.namespace().unwrap_or_default(),
            port: settings.server.port,
            load_balancer: None,
            conditions: Vec::new(),
        }),
        gateway,
    })
}
