//! What a TenantControlPlane asks for, checked as far as its spec and its running version can tell. Pure.
//!
//! The API checks most of this by schema and CEL; it is checked again here because objects may be older than the
//! rules (DESIGN 2.1). What needs other objects is found where those are read.

use std::net::IpAddr;

use ipnet::IpNet;
use kamaji_api::conditions::Reason;
use kamaji_api::service::ServiceType;
use kamaji_api::tenantcontrolplane::{NetworkProfile, TenantControlPlane};
use semver::Version;

use super::desired::deployment::CONTAINERS;
use crate::hosting::datastore::names;

/// Oldest minor that the rendered flags and add-ons are for.
const OLDEST_MINOR: u64 = 30;

/// A spec that can be brought about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Valid {
    /// Version of Kubernetes.
    pub version: Version,
    /// Addresses and ranges, parsed.
    pub network: Network,
}

/// Addresses and ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Port of the API server.
    pub port: u16,
    /// Service ranges.
    pub service_cidrs: Vec<IpNet>,
    /// Pod ranges.
    pub pod_cidrs: Vec<IpNet>,
    /// Addresses of cluster DNS.
    pub dns: Vec<IpAddr>,
    /// Address given by the user.
    pub address: Option<IpAddr>,
    /// Address for the tenant's side, given by the user.
    pub advertise: Option<IpAddr>,
}

impl Network {
    /// First address of each service range: the `kubernetes` Service.
    pub fn service_addresses(&self) -> Vec<IpAddr> {
        self.service_cidrs
            .iter()
            .filter_map(|cidr| nth(cidr, 1))
            .collect()
    }
}

/// Why a spec cannot be brought about: field and fix in the message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    /// Reason of the condition.
    pub reason: Reason,
    /// For people.
    pub message: String,
}

fn invalid(reason: Reason, message: impl Into<String>) -> Invalid {
    Invalid {
        reason,
        message: message.into(),
    }
}

/// Checks the spec.
pub fn validate(tenant: &TenantControlPlane) -> Result<Valid, Invalid> {
    let running = tenant.status.as_ref().and_then(|s| {
        s.kubernetes_resources
            .as_ref()?
            .version
            .as_ref()?
            .version
            .as_deref()
    });
    let version = version(&tenant.spec.kubernetes.version, running)?;
    let network = network(&tenant.spec.network_profile)?;
    alternative_names(&tenant.spec.network_profile.cert_sans)?;
    let service = &tenant.spec.control_plane.service;
    if service.service_type == ServiceType::NodePort && network.address.is_none() {
        return Err(invalid(
            Reason::AddressRequired,
            "spec.networkProfile.address: required with serviceType NodePort; set the address of a node or of what \
             stands in front of the nodes",
        ));
    }
    for (field, name) in [
        ("spec.dataStoreSchema", &tenant.spec.data_store_schema),
        ("spec.dataStoreUsername", &tenant.spec.data_store_username),
    ] {
        if let Some(name) = name.as_deref().filter(|name| !name.is_empty()) {
            names::check(field, name).map_err(|refusal| {
                let reason = match refusal {
                    names::Refusal::Reserved { .. } => Reason::ReservedName,
                    names::Refusal::Malformed { .. } => Reason::InvalidSpec,
                };
                invalid(reason, refusal.to_string())
            })?;
        }
    }
    containers(tenant)?;
    Ok(Valid { version, network })
}

/// The version, with or without `v`.
pub fn parse_version(text: &str) -> Option<Version> {
    Version::parse(text.strip_prefix('v').unwrap_or(text)).ok()
}

fn version(asked: &str, running: Option<&str>) -> Result<Version, Invalid> {
    const FIELD: &str = "spec.kubernetes.version";
    let version = parse_version(asked).ok_or_else(|| {
        invalid(
            Reason::InvalidVersion,
            format!("{FIELD}: {asked:?} is not a semantic version; write it like v1.36.3"),
        )
    })?;
    if version.major != 1 || version.minor < OLDEST_MINOR {
        return Err(invalid(
            Reason::VersionNotSupported,
            format!("{FIELD}: {asked} is not supported; use v1.{OLDEST_MINOR}.0 or newer"),
        ));
    }
    let Some((running, text)) = running.and_then(|text| Some((parse_version(text)?, text))) else {
        return Ok(version);
    };
    if version.minor < running.minor {
        return Err(invalid(
            Reason::VersionDowngrade,
            format!(
                "{FIELD}: {asked} is below the running {text}; a control plane cannot go back a minor version, set it to \
                 v1.{} or the minor after it",
                running.minor
            ),
        ));
    }
    if version.minor > running.minor + 1 {
        return Err(invalid(
            Reason::VersionStepTooLarge,
            format!(
                "{FIELD}: {asked} is more than one minor above the running {text}; go to v1.{} first",
                running.minor + 1
            ),
        ));
    }
    Ok(version)
}

fn network(profile: &NetworkProfile) -> Result<Network, Invalid> {
    let field = |name: &str| format!("spec.networkProfile.{name}");
    let port = u16::try_from(profile.port)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| {
            invalid(
                Reason::InvalidSpec,
                format!(
                    "{}: {} is not a port; set one from 1 to 65535",
                    field("port"),
                    profile.port
                ),
            )
        })?;
    let service_cidrs = cidrs(&field("serviceCidrs"), &profile.effective_service_cidrs())?;
    let pod_cidrs = cidrs(&field("podCidrs"), &profile.effective_pod_cidrs())?;
    let address = address(&field("address"), profile.address.as_deref())?;
    let advertise = self::address(&field("advertiseAddress"), profile.advertise_address.as_deref())?;
    let mut dns = Vec::new();
    for text in &profile.dns_service_ips {
        let parsed: IpAddr = text.parse().map_err(|_| {
            invalid(
                Reason::InvalidSpec,
                format!(
                    "{}: {text:?} is not an IP address; write it like 10.96.0.10 or fd00::a",
                    field("dnsServiceIPs")
                ),
            )
        })?;
        if !service_cidrs.iter().any(|cidr| cidr.contains(&parsed)) {
            return Err(invalid(
                Reason::InvalidSpec,
                format!(
                    "{}: {text} lies in no service range; set an address of {}, or leave it out",
                    field("dnsServiceIPs"),
                    field("serviceCidrs")
                ),
            ));
        }
        dns.push(parsed);
    }
    if dns.is_empty() {
        dns = service_cidrs.iter().filter_map(|cidr| nth(cidr, 10)).collect();
    }
    Ok(Network {
        port,
        service_cidrs,
        pod_cidrs,
        dns,
        address,
        advertise,
    })
}

/// What stands in a certificate beside the addresses that we know.
fn alternative_names(names: &[String]) -> Result<(), Invalid> {
    for (index, name) in names.iter().enumerate() {
        if name.parse::<IpAddr>().is_err() && !is_dns_name(name.strip_prefix("*.").unwrap_or(name)) {
            return Err(invalid(
                Reason::InvalidSpec,
                format!(
                    "spec.networkProfile.certSANs[{index}]: {name:?} must be a DNS name, a wildcard like *.example.org or \
                     an IP address, without scheme and port"
                ),
            ));
        }
    }
    Ok(())
}

/// A name of RFC 1123: labels of letters, digits and hyphens.
fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

fn cidrs(field: &str, texts: &[&str]) -> Result<Vec<IpNet>, Invalid> {
    if texts.is_empty() || texts.len() > 2 {
        return Err(invalid(
            Reason::InvalidSpec,
            format!("{field}: one or two ranges are required"),
        ));
    }
    texts
        .iter()
        .map(|text| {
            text.parse::<IpNet>().map(|net| net.trunc()).map_err(|_| {
                invalid(
                    Reason::InvalidSpec,
                    format!("{field}: {text:?} is not a range in CIDR notation; write it like 10.96.0.0/16 or fd00::/108"),
                )
            })
        })
        .collect()
}

fn address(field: &str, text: Option<&str>) -> Result<Option<IpAddr>, Invalid> {
    text.filter(|text| !text.is_empty())
        .map(|text| {
            text.parse().map_err(|_| {
                invalid(
                    Reason::AddressInvalid,
                    format!(
                        "{field}: {text:?} is not an IP address; write it like 192.0.2.10 or 2001:db8::10"
                    ),
                )
            })
        })
        .transpose()
}

/// The `n`th address of a range.
fn nth(cidr: &IpNet, n: u8) -> Option<IpAddr> {
    let address = match cidr.network() {
        IpAddr::V4(base) => IpAddr::V4(u32::from(base).checked_add(u32::from(n))?.into()),
        IpAddr::V6(base) => IpAddr::V6(u128::from(base).checked_add(u128::from(n))?.into()),
    };
    cidr.contains(&address).then_some(address)
}

/// Containers of users beside ours have names of their own.
fn containers(tenant: &TenantControlPlane) -> Result<(), Invalid> {
    let deployment = &tenant.spec.control_plane.deployment;
    let lists = [
        ("additionalContainers", &deployment.additional_containers),
        ("additionalInitContainers", &deployment.additional_init_containers),
    ];
    for (field, list) in lists {
        for (index, container) in list.iter().enumerate() {
            let name = container.0.get("name").and_then(|name| name.as_str());
            if name.is_some_and(|name| CONTAINERS.contains(&name)) {
                return Err(invalid(
                    Reason::InvalidSpec,
                    format!(
                        "spec.controlPlane.deployment.{field}[{index}].name: {} is the engine's own; choose another",
                        name.unwrap_or_default()
                    ),
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kamaji_api::tenantcontrolplane::{
        KubernetesResourcesStatus, TenantControlPlaneStatus, VersionPhase, VersionStatus,
    };
    use serde_json::json;

    use super::*;
    use crate::hosting::testing::tenant as example;

    fn running(version: &str) -> TenantControlPlaneStatus {
        TenantControlPlaneStatus {
            kubernetes_resources: Some(KubernetesResourcesStatus {
                version: Some(VersionStatus {
                    version: Some(version.to_owned()),
                    status: VersionPhase::Ready,
                }),
                ..KubernetesResourcesStatus::default()
            }),
            ..TenantControlPlaneStatus::default()
        }
    }

    fn refusal(change: impl FnOnce(&mut TenantControlPlane)) -> (Reason, String) {
        let mut tenant = example::tenant();
        change(&mut tenant);
        let refused = validate(&tenant).unwrap_err();
        (refused.reason, refused.message)
    }

    #[test]
    fn the_default_tenant_passes_and_has_its_tenth_address_for_dns() {
        let valid = validate(&example::tenant()).unwrap();
        assert_eq!(valid.network.dns, ["10.96.0.10".parse::<IpAddr>().unwrap()]);
        assert_eq!(
            valid.network.service_addresses(),
            ["10.96.0.1".parse::<IpAddr>().unwrap()]
        );
    }

    #[test]
    fn hosting_peer_25_26_versions_go_up_one_minor_at_a_time() {
        let step = |from: &str, to: &str| {
            let mut tenant = example::tenant();
            tenant.status = Some(running(from));
            to.clone_into(&mut tenant.spec.kubernetes.version);
            validate(&tenant).map(|_| ()).map_err(|refused| refused.reason)
        };
        assert_eq!(step("v1.35.4", "v1.36.3"), Ok(()));
        assert_eq!(step("v1.36.3", "v1.36.1"), Ok(()), "a patch may go back");
        assert_eq!(step("v1.36.3", "v1.35.4"), Err(Reason::VersionDowngrade));
        assert_eq!(step("v1.34.1", "v1.36.3"), Err(Reason::VersionStepTooLarge));
        assert_eq!(step("v1.36.3", "latest"), Err(Reason::InvalidVersion));
        assert_eq!(step("v1.36.3", "v1.23.0"), Err(Reason::VersionNotSupported));
    }

    #[test]
    fn bad_input_names_field_and_fix() {
        let (reason, message) =
            refusal(|t| t.spec.control_plane.service.service_type = ServiceType::NodePort);
        assert_eq!(reason, Reason::AddressRequired);
        assert!(message.starts_with("spec.networkProfile.address: required with serviceType NodePort"));
        let (reason, message) = refusal(|t| t.spec.data_store_username = Some("root".to_owned()));
        assert_eq!(reason, Reason::ReservedName);
        assert!(message.starts_with("spec.dataStoreUsername: \"root\" is reserved"));
        let (reason, _) = refusal(|t| t.spec.network_profile.address = Some("api.example.org".to_owned()));
        assert_eq!(reason, Reason::AddressInvalid);
        let (_, message) = refusal(|t| t.spec.network_profile.dns_service_ips = vec!["192.0.2.1".to_owned()]);
        assert_eq!(
            message,
            "spec.networkProfile.dnsServiceIPs: 192.0.2.1 lies in no service range; set an address of \
             spec.networkProfile.serviceCidrs, or leave it out"
        );
        let (_, message) = refusal(|t| {
            t.spec.control_plane.deployment.additional_containers =
                vec![json!({"name": "kube-apiserver"}).into()];
        });
        assert!(message.contains("additionalContainers[0].name"), "{message}");
        for bad in [
            "https://api.example.org",
            "api.example.org:6443",
            "bücher.example",
            "*",
            "",
        ] {
            let (reason, message) = refusal(|t| {
                t.spec.network_profile.cert_sans = vec!["*.example.org".to_owned(), bad.to_owned()];
            });
            assert_eq!(reason, Reason::InvalidSpec, "{bad}");
            assert!(
                message.starts_with("spec.networkProfile.certSANs[1]: "),
                "{message}"
            );
        }
    }
}
