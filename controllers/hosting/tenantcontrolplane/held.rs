//! The spec that is in effect while an edit of the endpoint is not: what is rendered is computed from it. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::api::core::v1::Service;
use kamaji_api::{labels::ours, service::ServiceType, tenantcontrolplane::TenantControlPlane};

use super::{plan::Plan, validate::Valid};

/// Puts what is in effect into `tenant` and `valid`.
pub fn put(tenant: &mut TenantControlPlane, valid: &mut Valid, plan: &Plan) {
    tenant.spec.control_plane.service.service_type = plan.service_type;
    let Some(target) = &plan.target else { return };
    let (profile, network) = (&mut tenant.spec.network_profile, &mut valid.network);
    if network.port != target.endpoint.port {
        network.port = target.endpoint.port;
        profile.port = target.endpoint.port.into();
    }
    for (now, field, held) in [
        (&mut network.address, &mut profile.address, target.address),
        (
            &mut network.advertise,
            &mut profile.advertise_address,
            target.advertise,
        ),
    ] {
        if *now != held {
            *now = held;
            *field = held.as_ref().map(IpAddr::to_string);
        }
    }
}

/// A load balancer is kept that the spec does not ask for any more.
pub fn keeps_load_balancer(tenant: &TenantControlPlane, plan: &Plan) -> bool {
    let asked = tenant.spec.control_plane.service.service_type;
    plan.service_type == ServiceType::LoadBalancer && asked != plan.service_type
}

/// Puts the settings of a load balancer that is kept into `tenant`. The spec may not have them any more, and without its
/// source ranges and the annotations of its class it would be open to others, or be another one.
pub fn keep_load_balancer(tenant: &mut TenantControlPlane, live: Service) {
    let spec = live.spec.unwrap_or_default();
    let profile = &mut tenant.spec.network_profile;
    profile.load_balancer_class = spec.load_balancer_class;
    profile.load_balancer_source_ranges = spec.load_balancer_source_ranges.unwrap_or_default();
    let service = &mut tenant.spec.control_plane.service;
    service.allocate_load_balancer_node_ports = spec
        .allocate_load_balancer_node_ports
        .filter(|allocate| !*allocate);
    let metadata = &mut service.additional_metadata;
    keep(&mut metadata.labels, live.metadata.labels);
    keep(&mut metadata.annotations, live.metadata.annotations);
}

fn keep(asked: &mut BTreeMap<String, String>, live: Option<BTreeMap<String, String>>) {
    for (key, value) in live.unwrap_or_default() {
        if key != ours::DIGEST {
            asked.entry(key).or_insert(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        hosting::{
            tenantcontrolplane::{plan::plan, published::Published},
            testing::tenant as example,
        },
        k8s::host_port::HostPort,
    };

    #[test]
    fn a_held_edit_is_as_if_it_was_not_made() {
        let mut tenant = example::tenant();
        tenant.spec.control_plane.service.service_type = ServiceType::NodePort;
        tenant.spec.network_profile.port = 30002;
        tenant.spec.network_profile.address = Some("203.0.113.4".to_owned());
        let published = Published {
            endpoint: HostPort::new("192.0.2.9", 6443),
            service_type: ServiceType::LoadBalancer,
            address: None,
            advertise: None,
        };
        let annotations = tenant.metadata.annotations.get_or_insert_default();
        annotations.insert(ours::PUBLISHED_ENDPOINT.to_owned(), published.text());
        let mut valid = example::valid(&tenant);
        let plan = plan(&tenant, &valid.network, None);
        assert!(keeps_load_balancer(&tenant, &plan));
        put(&mut tenant, &mut valid, &plan);
        let live = json!({
            "metadata": { "annotations": { "cloud.example/internal": "true", ours::DIGEST: "x" } },
            "spec": {
                "type": "LoadBalancer", "loadBalancerClass": "example.org/a", "allocateLoadBalancerNodePorts": true,
                "loadBalancerSourceRanges": ["192.0.2.0/24"],
            },
        });
        keep_load_balancer(&mut tenant, serde_json::from_value(live).unwrap());
        let (service, profile) = (&tenant.spec.control_plane.service, &tenant.spec.network_profile);
        assert_eq!(service.service_type, ServiceType::LoadBalancer);
        assert_eq!((profile.port, valid.network.port), (6443, 6443));
        assert_eq!((profile.address.as_deref(), valid.network.address), (None, None));
        assert_eq!(profile.load_balancer_class.as_deref(), Some("example.org/a"));
        assert_eq!(profile.load_balancer_source_ranges, ["192.0.2.0/24"]);
        assert_eq!(service.allocate_load_balancer_node_ports, None);
        let kept: Vec<_> = service.additional_metadata.annotations.keys().collect();
        assert_eq!(kept, ["cloud.example/internal"]);
    }
}
