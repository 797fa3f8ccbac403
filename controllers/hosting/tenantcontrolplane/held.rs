//! The spec that is in effect while an edit of the endpoint is not: what is rendered is computed from it. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::api::core::v1::Service;
use kamaji_api::{labels::ours, service::ServiceType, tenantcontrolplane::TenantControlPlane};

use super::{
    plan::{Plan, takes},
    validate::Valid,
};

/// Puts what is in effect into `tenant` and `valid`.
pub fn put(tenant: &mut TenantControlPlane, valid: &mut Valid, plan: &Plan) {
    tenant.spec.control_plane.service.service_type = plan.service_type;
    let Some(target) = &plan.target else { return };
    let (profile, network) = (&mut tenant.spec.network_profile, &mut valid.network);
    if network.port != target.endpoint.port {
        network.port = target.endpoint.port;
        profile.port = target.endpoint.port.into();
        let additional = &mut tenant.spec.control_plane.service.additional_ports;
        additional.retain(|port| !takes(port, target.endpoint.port));
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

/// There is a load balancer to keep.
pub fn is_load_balancer(live: &Service) -> bool {
    let live = live.spec.as_ref().and_then(|spec| spec.type_.as_deref());
    live == Some(ServiceType::LoadBalancer.as_str())
}

/// Asks for no load balancer where the one to keep is gone. A new one would not have its address, and be open to others
/// than it was.
pub fn give_up_load_balancer(tenant: &mut TenantControlPlane, asked: ServiceType, plan: &Plan) {
    let target = plan.target.iter().map(|target| target.service_type);
    let former = plan.former.iter().map(|former| former.service_type);
    let narrower = target
        .chain(former)
        .filter(|kept| *kept != ServiceType::LoadBalancer);
    tenant.spec.control_plane.service.service_type = narrower.fold(asked, ServiceType::wider);
}

/// Puts the settings of a load balancer that is kept into `tenant`, where the spec has none: it may not have them any more,
/// and without its source ranges and the annotations of its class it would be open to others, or be another one. What the
/// spec has comes first: its source ranges may be narrower.
pub fn keep_load_balancer(tenant: &mut TenantControlPlane, live: Service) {
    let spec = live.spec.unwrap_or_default();
    let profile = &mut tenant.spec.network_profile;
    let class = profile.load_balancer_class.take();
    profile.load_balancer_class = class.or(spec.load_balancer_class);
    if profile.load_balancer_source_ranges.is_empty() {
        profile.load_balancer_source_ranges = spec.load_balancer_source_ranges.unwrap_or_default();
    }
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
            tenantcontrolplane::{former::Former, plan::plan, published::Published},
            testing::tenant as example,
        },
        k8s::{host_port::HostPort, row::ServiceFacts},
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

    /// Published by a load balancer, and the spec asks for none.
    fn held() -> (TenantControlPlane, Plan) {
        let mut tenant = example::tenant();
        let annotations = tenant.metadata.annotations.get_or_insert_default();
        let text = "endpoint=192.0.2.9:6443,service=LoadBalancer";
        annotations.insert(ours::PUBLISHED_ENDPOINT.to_owned(), text.to_owned());
        let mut valid = example::valid(&tenant);
        let plan = plan(&tenant, &valid.network, None);
        assert!(keeps_load_balancer(&tenant, &plan));
        put(&mut tenant, &mut valid, &plan);
        (tenant, plan)
    }

    #[test]
    fn the_source_ranges_of_the_spec_close_a_load_balancer_that_is_kept() {
        let live = json!({ "spec": {
            "type": "LoadBalancer", "loadBalancerClass": "example.org/a",
            "loadBalancerSourceRanges": ["192.0.2.0/24"],
        } });
        let live: Service = serde_json::from_value(live).unwrap();
        assert!(is_load_balancer(&live));
        let (mut tenant, _) = held();
        let profile = &mut tenant.spec.network_profile;
        profile.load_balancer_source_ranges = vec!["192.0.2.8/29".to_owned()];
        keep_load_balancer(&mut tenant, live);
        let profile = &tenant.spec.network_profile;
        assert_eq!(profile.load_balancer_source_ranges, ["192.0.2.8/29"]);
        assert_eq!(profile.load_balancer_class.as_deref(), Some("example.org/a"));
    }

    #[test]
    fn a_load_balancer_that_is_gone_is_not_made_again() {
        let live = json!({ "spec": { "type": "ClusterIP" } });
        assert!(!is_load_balancer(&serde_json::from_value(live).unwrap()));
        let (mut tenant, mut plan) = held();
        give_up_load_balancer(&mut tenant, ServiceType::ClusterIp, &plan);
        let service_type = |tenant: &TenantControlPlane| tenant.spec.control_plane.service.service_type;
        assert_eq!(service_type(&tenant), ServiceType::ClusterIp);
        plan.former = vec![Former {
            endpoint: HostPort::new("203.0.113.4", 30002),
            service_type: ServiceType::NodePort,
        }];
        give_up_load_balancer(&mut tenant, ServiceType::ClusterIp, &plan);
        assert_eq!(
            service_type(&tenant),
            ServiceType::NodePort,
            "nodes that joined before go on"
        );
    }

    #[test]
    fn an_additional_port_waits_while_the_port_in_effect_is_its_own() {
        let mut tenant = example::tenant();
        let annotations = tenant.metadata.annotations.get_or_insert_default();
        let text = "endpoint=10.0.0.7:6443,service=ClusterIP";
        annotations.insert(ours::PUBLISHED_ENDPOINT.to_owned(), text.to_owned());
        tenant.spec.network_profile.port = 7443;
        let ports = json!([
            { "name": "mine", "port": 6443, "targetPort": 9000 },
            { "name": "quic", "protocol": "UDP", "port": 6443, "targetPort": 9000 },
            { "name": "other", "port": 9000, "targetPort": 9000 },
        ]);
        tenant.spec.control_plane.service.additional_ports = serde_json::from_value(ports).unwrap();
        let mut valid = example::valid(&tenant);
        let facts = ServiceFacts {
            cluster_ip: Some("10.0.0.7".to_owned()),
            ..ServiceFacts::default()
        };
        let plan = plan(&tenant, &valid.network, Some(&facts));
        let reported = plan.doubt.as_ref().unwrap().message.clone();
        assert!(
            reported.contains("until then mine of spec.controlPlane"),
            "{reported}"
        );
        put(&mut tenant, &mut valid, &plan);
        let left = &tenant.spec.control_plane.service.additional_ports;
        let left: Vec<_> = left.iter().map(|port| port.name.as_str()).collect();
        assert_eq!(left, ["quic", "other"]);
    }
}
