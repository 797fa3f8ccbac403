//! The Service of a tenant changes its type in every direction on a real API server: the same object with the same cluster
//! IP, and what belongs to a type alone goes with it.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use capi_kamaji::{
    hosting::tenantcontrolplane::desired::service,
    k8s::{apply::Applier, index::ChildIndex},
};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use kamaji_api::{
    labels::{field_manager, ours},
    service::ServiceType,
    tenantcontrolplane::{TenantControlPlane, TenantControlPlaneSpec},
};
use kube::{
    Api,
    api::{DeleteParams, ResourceExt as _},
};

const NODE_PORT: i32 = 30_611;

/// The tenant with a Service of this type, which serves these former endpoints.
fn tenant(name: &str, service_type: ServiceType, former: Option<&str>) -> TenantControlPlane {
    let mut tenant = TenantControlPlane::new(name, TenantControlPlaneSpec::default());
    tenant.metadata.namespace = Some("default".to_owned());
    tenant.metadata.uid = Some("4f6d1c2e-0000-4000-8000-000000000001".to_owned());
    tenant.spec.control_plane.service.service_type = service_type;
    let profile = &mut tenant.spec.network_profile;
    profile.port = port_of(service_type);
    if service_type == ServiceType::LoadBalancer {
        profile.load_balancer_class = Some("example.org/none".to_owned());
        profile.load_balancer_source_ranges = vec!["192.0.2.0/24".to_owned()];
        let service = &mut tenant.spec.control_plane.service;
        service.allocate_load_balancer_node_ports = Some(false);
    }
    if let Some(former) = former {
        let annotations = tenant.annotations_mut();
        annotations.insert(ours::FORMER_ENDPOINTS.to_owned(), former.to_owned());
    }
    tenant
}

/// The former endpoint that a tenant has after it had a Service of this type.
fn former(service_type: ServiceType) -> String {
    match service_type {
        ServiceType::ClusterIp => "10.0.0.7:6443".to_owned(),
        ServiceType::NodePort => format!("203.0.113.4:{NODE_PORT}/NodePort"),
        ServiceType::LoadBalancer => "192.0.2.9:443/LoadBalancer".to_owned(),
    }
}

fn port(spec: &ServiceSpec, port: i32) -> Option<&ServicePort> {
    spec.ports.iter().flatten().find(|known| known.port == port)
}

/// The port of a tenant with a Service of this type.
fn port_of(service_type: ServiceType) -> i32 {
    match service_type {
        ServiceType::ClusterIp => 6443,
        ServiceType::NodePort => NODE_PORT,
        ServiceType::LoadBalancer => 443,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hosting_beyond_08_an_api_server_takes_every_change_of_the_service_type() -> Result<()> {
    let Some(server) = super::server().await? else {
        return Ok(());
    };
    let client = server.client()?;
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let applier = Applier::new(client, field_manager::HOSTING, Arc::<ChildIndex>::default());
    for from in ServiceType::ALL {
        for to in ServiceType::ALL {
            let name = format!("from-{}-to-{}", from.as_str(), to.as_str()).to_lowercase();
            let case = name.clone();
            let apply = async |service_type: ServiceType, wide: ServiceType, former: Option<&str>| {
                let mut tenant = tenant(&name, wide, former);
                tenant.spec.network_profile.port = port_of(service_type);
                let manifest = service::render(&tenant, service_type, None)?;
                let written = applier.apply(&manifest).await;
                written.with_context(|| format!("{case}: {service_type:?} as {wide:?}"))?;
                services.get(&name).await?.spec.context("no spec")
            };
            let before = apply(from, from, None).await?;
            // Both endpoints, then the new one alone.
            let both = apply(to, from.wider(to), Some(&former(from))).await?;
            let after = apply(to, to, None).await?;
            for spec in [&both, &after] {
                ensure!(spec.cluster_ip == before.cluster_ip, "{name}: another cluster IP");
            }
            ensure!(
                after.type_.as_deref() == Some(to.as_str()),
                "{name}: {:?}",
                after.type_
            );
            let (old, new) = (port_of(from), port_of(to));
            ensure!(
                port(&both, old).is_some() && port(&both, new).is_some(),
                "{name}: {both:?}"
            );
            if from != to {
                ensure!(port(&after, old).is_none(), "{name}: {:?}", after.ports);
            }
            if from == ServiceType::NodePort || to == ServiceType::NodePort {
                ensure!(
                    port(&both, NODE_PORT).is_some_and(|port| port.node_port == Some(NODE_PORT)),
                    "{name}: {:?}",
                    both.ports
                );
            }
            let expected = (to == ServiceType::NodePort).then_some(NODE_PORT);
            let found = port(&after, new).context("no port")?.node_port;
            ensure!(found == expected, "{name}: {:?}", after.ports);
            let balanced = to == ServiceType::LoadBalancer;
            ensure!(
                after.load_balancer_class.is_some() == balanced,
                "{name}: its class"
            );
            ensure!(
                after.load_balancer_source_ranges.is_some() == balanced,
                "{name}: its ranges"
            );
            services.delete(&name, &DeleteParams::default()).await?;
        }
    }
    Ok(())
}
