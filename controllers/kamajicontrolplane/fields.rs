//! Fields of a TenantControlPlane in the words of those who wrote a KamajiControlPlane and a Cluster. Pure.
//!
//! The engine's messages name the field to change. It is a field of an object that the user does not write, so the
//! path is told where it is written. The way back of what `desired` and `network` do.

/// Field of the TenantControlPlane, and where it comes from. A path stands for what is below it too, unless that has a
/// row of its own.
const ORIGINS: [(&str, &str); 36] = [
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

/// `text` with every field of the TenantControlPlane told where it is written; `None` when there is none in it.
pub fn told(text: &str) -> Option<String> {
    let mut made = String::with_capacity(text.len());
    let mut rest = text;
    let mut changed = false;
    while let Some(at) = rest.find("spec.") {
        let (before, from) = rest.split_at(at);
        made.push_str(before);
        let begins = !made.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '.');
        if let Some((field, origin)) = origin(from).filter(|_| begins) {
            made.push_str(origin);
            rest = &from[field.len()..];
            changed = true;
        } else {
            made.push_str("spec.");
            rest = &from["spec.".len()..];
        }
    }
    made.push_str(rest);
    changed.then_some(made)
}

/// The longest path that `text` begins with.
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
        "spec.kubernetes.version: v1.40.0 is more than one minor above the running v1.36.3; go to v1.37 first",
        "spec.version: v1.40.0 is more than one minor above the running v1.36.3; go to v1.37 first"
    )]
    #[case(
        "DataStore nope does not exist; create it, or name another in spec.dataStore",
        "DataStore nope does not exist; create it, or name another in spec.dataStoreName"
    )]
    #[case(
        "spec.controlPlane.deployment.additionalContainers[0].name: kine is the engine's own",
        "spec.deployment.extraContainers[0].name: kine is the engine's own"
    )]
    fn a_field_is_named_where_it_is_written(#[case] said: &str, #[case] wanted: &str) {
        assert_eq!(told(said).as_deref(), Some(wanted));
        assert_eq!(told(wanted), None, "it is told once");
    }

    #[rstest]
    #[case("spec.dataStoreSchema: \"root\" is reserved")]
    #[case("the API server does not answer")]
    #[case("DataStore d: spec.driver: required")]
    fn what_has_the_same_name_or_none_stays(#[case] said: &str) {
        assert_eq!(told(said), None);
    }

    /// Texts of the engine between quotation marks.
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
    fn every_field_that_the_engine_speaks_of_is_known_here() {
        // The same in both; the last two are of other objects, a DataStore and a Service.
        const SAME: [&str; 5] = [
            "spec.dataStoreSchema",
            "spec.dataStoreUsername",
            "spec.addons",
            "spec.endpoints",
            "spec.ports",
        ];
        let mut said = Vec::new();
        let engine = Path::new(env!("CARGO_MANIFEST_DIR")).join("controllers/hosting/tenantcontrolplane");
        texts(&engine, &mut said);
        // `field("port")` in the engine's check of the network.
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
        for text in &said {
            for (at, _) in text.match_indices("spec.") {
                let begins = !text[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || ".-".contains(c));
                let path: String = text[at..]
                    .chars()
                    .take_while(|c| c.is_ascii_alphanumeric() || *c == '.')
                    .collect();
                // A path that goes on with a name of its own, as in `spec.networkProfile.{name}`.
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
        assert!(unknown.is_empty(), "say where these are written: {unknown:?}");
    }
}
