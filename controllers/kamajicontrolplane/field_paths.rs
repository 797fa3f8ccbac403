//! Rewrites TenantControlPlane field paths in the engine's messages to the KamajiControlPlane or Cluster field that
//! the user sets: the inverse of the mapping in [`super::desired`] and [`super::network`]. Pure.

/// Field of the TenantControlPlane, and the field it is set from. A row covers the fields below it too, unless one of
/// them has a row of its own.
const ORIGINS: [(&str, &str); 39] = [
    ("spec.dataStore", "spec.dataStoreName"),
    ("spec.kubernetes.version", "spec.version"),
    (
        "spec.kubernetes.admissionControllers",
        "spec.admissionControllers",
    ),
    ("spec.kubernetes.kubelet", "spec.kubelet"),
    ("spec.networkProfile.address", "spec.network.serviceAddress"),
    (
        "spec.networkProfile.advertiseAddress",
        "spec.network.advertiseAddress",
    ),
    (
        "spec.networkProfile.port",
        "Cluster.spec.clusterNetwork.apiServerPort",
    ),
    (
        "spec.networkProfile.clusterDomain",
        "Cluster.spec.clusterNetwork.serviceDomain",
    ),
    (
        "spec.networkProfile.serviceCidr",
        "Cluster.spec.clusterNetwork.services.cidrBlocks",
    ),
    (
        "spec.networkProfile.serviceCidrs",
        "Cluster.spec.clusterNetwork.services.cidrBlocks",
    ),
    (
        "spec.networkProfile.podCidr",
        "Cluster.spec.clusterNetwork.pods.cidrBlocks",
    ),
    (
        "spec.networkProfile.podCidrs",
        "Cluster.spec.clusterNetwork.pods.cidrBlocks",
    ),
    ("spec.networkProfile.dnsServiceIPs", "spec.network.dnsServiceIPs"),
    ("spec.networkProfile.certSANs", "spec.network.certSANs"),
    (
        "spec.networkProfile.loadBalancerClass",
        "spec.network.loadBalancerConfig.loadBalancerClass",
    ),
    (
        "spec.networkProfile.loadBalancerSourceRanges",
        "spec.network.loadBalancerConfig.loadBalancerSourceRanges",
    ),
    ("spec.controlPlane.deployment", "spec.deployment"),
    ("spec.controlPlane.deployment.replicas", "spec.replicas"),
    ("spec.controlPlane.deployment.registrySettings", "spec.registry"),
    (
        "spec.controlPlane.deployment.registrySettings.apiServerImage",
        "spec.apiServer.containerImageName",
    ),
    (
        "spec.controlPlane.deployment.registrySettings.controllerManagerImage",
        "spec.controllerManager.containerImageName",
    ),
    (
        "spec.controlPlane.deployment.registrySettings.schedulerImage",
        "spec.scheduler.containerImageName",
    ),
    (
        "spec.controlPlane.deployment.extraArgs.apiServer",
        "spec.apiServer.extraArgs",
    ),
    (
        "spec.controlPlane.deployment.extraArgs.controllerManager",
        "spec.controllerManager.extraArgs",
    ),
    (
        "spec.controlPlane.deployment.extraArgs.scheduler",
        "spec.scheduler.extraArgs",
    ),
    (
        "spec.controlPlane.deployment.extraArgs.kine",
        "spec.kine.extraArgs",
    ),
    (
        "spec.controlPlane.deployment.additionalContainers",
        "spec.deployment.extraContainers",
    ),
    (
        "spec.controlPlane.deployment.additionalInitContainers",
        "spec.deployment.extraInitContainers",
    ),
    (
        "spec.controlPlane.deployment.additionalVolumes",
        "spec.deployment.extraVolumes",
    ),
    (
        "spec.controlPlane.deployment.additionalVolumeMounts.apiServer",
        "spec.apiServer.extraVolumeMounts",
    ),
    (
        "spec.controlPlane.deployment.additionalVolumeMounts.controllerManager",
        "spec.controllerManager.extraVolumeMounts",
    ),
    (
        "spec.controlPlane.deployment.additionalVolumeMounts.scheduler",
        "spec.scheduler.extraVolumeMounts",
    ),
    ("spec.controlPlane.service", "spec.network"),
    (
        "spec.controlPlane.service.serviceType",
        "spec.network.serviceType",
    ),
    (
        "spec.controlPlane.service.additionalMetadata.annotations",
        "spec.network.serviceAnnotations",
    ),
    (
        "spec.controlPlane.service.additionalMetadata.labels",
        "spec.network.serviceLabels",
    ),
    (
        "spec.controlPlane.service.additionalPorts",
        "spec.network.additionalServicePorts",
    ),
    ("spec.controlPlane.ingress", "spec.network.ingress"),
    ("spec.controlPlane.gateway", "spec.network.gateway"),
];

/// `text` with every path of the TenantControlPlane rewritten; `None` when it names none.
pub fn translate(text: &str) -> Option<String> {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    let mut changed = false;
    while let Some(at) = rest.find("spec.") {
        let (before, from) = rest.split_at(at);
        result.push_str(before);
        let begins = !result.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '.');
        if let Some((field, origin)) = origin(from).filter(|_| begins) {
            result.push_str(origin);
            rest = &from[field.len()..];
            changed = true;
        } else {
            result.push_str("spec.");
            rest = &from["spec.".len()..];
        }
    }
    result.push_str(rest);
    changed.then_some(result)
}

/// The row with the longest path that `text` begins with.
fn origin(text: &str) -> Option<(&'static str, &'static str)> {
    ORIGINS
        .into_iter()
        .filter(|(field, _)| {
            text.strip_prefix(field)
                .is_some_and(|after| !after.starts_with(|c: char| c.is_ascii_alphanumeric()))
        })
        .max_by_key(|(field, _)| field.len())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(
        "spec.networkProfile.port: 1 cannot be had; choose a free port",
        "Cluster.spec.clusterNetwork.apiServerPort: 1 cannot be had; choose a free port"
    )]
    #[case(
        "spec.kubernetes.version: v1.40.0 is more than one minor version above the running v1.36.3; go to v1.37 first",
        "spec.version: v1.40.0 is more than one minor version above the running v1.36.3; go to v1.37 first"
    )]
    #[case(
        "DataStore nope does not exist; create it, or name another in spec.dataStore",
        "DataStore nope does not exist; create it, or name another in spec.dataStoreName"
    )]
    #[case(
        "spec.controlPlane.deployment.additionalContainers[0].name: kine is the engine's own",
        "spec.deployment.extraContainers[0].name: kine is the engine's own"
    )]
    fn a_path_of_the_tenant_becomes_the_path_that_the_user_sets(
        #[case] message: &str,
        #[case] expected: &str,
    ) {
        assert_eq!(translate(message).as_deref(), Some(expected));
        assert_eq!(translate(expected), None, "nothing is left to rewrite");
    }

    #[rstest]
    #[case("spec.dataStoreSchema: \"root\" is reserved")]
    #[case("the API server does not answer")]
    #[case("DataStore d: spec.driver: required")]
    fn a_path_that_is_the_same_in_both_is_left_alone(#[case] message: &str) {
        assert_eq!(translate(message), None);
    }

    /// String literals of the engine's sources.
    fn texts(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                texts(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = std::fs::read_to_string(&path).unwrap();
                let code = source.split("#[cfg(test)]").next().unwrap_or_default();
                found.extend(
                    code.lines()
                        .filter(|line| !line.trim_start().starts_with("//"))
                        .flat_map(|line| line.split('"').skip(1).step_by(2))
                        .map(str::to_owned),
                );
            }
        }
    }

    #[test]
    fn every_path_in_a_message_of_the_engine_has_a_row() {
        // The same in both; the last belong to other objects, a DataStore and a Service, or no field of a
        // KamajiControlPlane sets them.
        const SAME: [&str; 6] = [
            "spec.dataStoreSchema",
            "spec.dataStoreUsername",
            "spec.addons",
            "spec.endpoints",
            "spec.ports",
            "spec.networkProfile.allowAddressAsExternalIP",
        ];
        let mut literals = Vec::new();
        let engine = Path::new(env!("CARGO_MANIFEST_DIR")).join("controllers/hosting/tenantcontrolplane");
        texts(&engine, &mut literals);
        // `field("port")` in the engine's validation of the network.
        let mut paths: BTreeSet<String> = [
            "port",
            "serviceCidrs",
            "podCidrs",
            "address",
            "advertiseAddress",
            "dnsServiceIPs",
        ]
        .map(|name| format!("spec.networkProfile.{name}"))
        .into();
        for text in &literals {
            for (at, _) in text.match_indices("spec.") {
                let begins = !text[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || ".-".contains(c));
                let path: String = text[at..]
                    .chars()
                    .take_while(|c| c.is_ascii_alphanumeric() || *c == '.')
                    .collect();
                // Not a path that is continued at run time, as in `spec.networkProfile.{name}`.
                if begins && !path.ends_with('.') {
                    paths.insert(path);
                }
            }
        }
        assert!(paths.len() > 8, "{paths:?}");
        let unknown: Vec<_> = paths
            .iter()
            .filter(|path| !SAME.iter().any(|same| path.starts_with(same)) && origin(path).is_none())
            .collect();
        assert!(unknown.is_empty(), "add a row for these: {unknown:?}");
    }
}
