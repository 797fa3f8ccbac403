//! Where the API servers of a tenant are asked, each at its own pod. Pure.

use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::k8s::host_port::HostPort;

/// Name and `host:port` of each pod that is ready, for the port of this name, sorted; of two addresses, one.
pub fn addresses(slices: &[EndpointSlice], port_name: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for slice in slices {
        let mut ports = slice.ports.iter().flatten();
        let port = ports.find(|port| port.name.as_deref() == Some(port_name));
        let port = port.and_then(|port| u16::try_from(port.port?).ok());
        let Some(port) = port else {
            continue;
        };
        for endpoint in &slice.endpoints {
            let is_ready = endpoint
                .conditions
                .as_ref()
                .and_then(|conditions| conditions.ready);
            let pod = endpoint
                .target_ref
                .as_ref()
                .and_then(|target| target.name.clone());
            if let (true, Some(address)) = (is_ready.unwrap_or(true), endpoint.addresses.first()) {
                let at = HostPort::new(address, port).to_string();
                found.push((pod.unwrap_or_else(|| address.clone()), at));
            }
        }
    }
    found.sort();
    // A pod of two address families is in a slice of each.
    found.dedup_by(|next, kept| next.0 == kept.0);
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_ready_pod_is_asked_at_the_port_of_the_api_server() {
        let slices: Vec<EndpointSlice> = serde_json::from_value(json!([
                {
                    "metadata": { "name": "alpha-1" }, "addressType": "IPv4",
                    "ports": [{ "name": "konnectivity-server", "port": 8132 }, { "name": "kube-apiserver", "port": 6443 }],
                    "endpoints": [
                        { "addresses": ["10.1.0.3"], "conditions": { "ready": true }, "targetRef": { "name": "alpha-b" } },
                        { "addresses": ["10.1.0.2"], "conditions": { "ready": true }, "targetRef": { "name": "alpha-a" } },
                        { "addresses": ["10.1.0.4"], "conditions": { "ready": false }, "targetRef": { "name": "alpha-c" } },
                    ],
                },
                {
                    "metadata": { "name": "alpha-2" }, "addressType": "IPv6",
                    "ports": [{ "name": "kube-apiserver", "port": 6443 }],
                    "endpoints": [
                        { "addresses": ["fd00::2"] },
                        { "addresses": ["fd00::3"], "targetRef": { "name": "alpha-b" } },
                    ],
                },
                { "metadata": { "name": "alpha-3" }, "addressType": "IPv4", "endpoints": [] },
        ]))
        .unwrap();
        let found: Vec<_> = addresses(&slices, "kube-apiserver")
            .into_iter()
            .map(|(pod, at)| format!("{pod} {at}"))
            .collect();
        assert_eq!(
            found,
            [
                "alpha-a 10.1.0.2:6443",
                "alpha-b 10.1.0.3:6443",
                "fd00::2 [fd00::2]:6443"
            ]
        );
    }
}
