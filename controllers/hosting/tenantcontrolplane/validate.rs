//! Checks the spec of a TenantControlPlane, as far as spec, annotations and recorded status allow. Pure.
//!
//! The CRD checks most of this by schema and CEL. It is checked again here because an object may be older than the
//! rules. What needs other objects is checked in the step that reads them.

use std::net::IpAddr;

use ipnet::IpNet;
use kamaji_api::{
    conditions::Reason,
    service::ServiceType,
    tenantcontrolplane::{
        ComponentVolumeMounts, ControlPlane, NetworkProfile, TenantControlPlane, TenantControlPlaneSpec,
    },
};
use semver::Version;

use super::{
    component::{CONTAINERS, FOLDER, MOUNT_PATH},
    konnectivity,
    names::{Names, check_names, names_of},
};
use crate::{
    hosting::driver::names,
    k8s::{
        host_port::nth_address,
        names::is_dns_name_of_any_case,
        problem::Problem,
        version::{self, Step},
    },
};

/// Oldest minor of Kubernetes 1 whose flags and add-ons the engine renders.
const OLDEST_MINOR: u64 = 30;

/// A valid spec, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Valid {
    /// Version of Kubernetes.
    pub version: Version,
    /// Addresses and ranges.
    pub network: Network,
    /// Schema and user in the DataStore.
    pub names: Names,
}

/// Addresses and ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Port of kube-apiserver.
    pub port: u16,
    /// Service ranges.
    pub service_cidrs: Vec<IpNet>,
    /// Pod ranges.
    pub pod_cidrs: Vec<IpNet>,
    /// Addresses of the cluster DNS Service.
    pub dns: Vec<IpAddr>,
    /// Address that the user sets for the endpoint.
    pub address: Option<IpAddr>,
    /// Address that the user sets for the `kubernetes` Service of the workload cluster.
    pub advertise: Option<IpAddr>,
}

impl Network {
    /// The address is of the family of the first Service range, as kube-apiserver requires of the one that it advertises.
    pub fn fits_services(&self, address: IpAddr) -> bool {
        let first = self.service_cidrs.first();
        first.is_none_or(|cidr| cidr.addr().is_ipv6() == address.is_ipv6())
    }

    /// First address of each Service range: that of the `kubernetes` Service.
    pub fn service_addresses(&self) -> Vec<IpAddr> {
        self.service_cidrs
            .iter()
            .filter_map(|cidr| nth_address(cidr, 1))
            .collect()
    }
}

fn invalid(reason: Reason, message: impl Into<String>) -> Problem {
    Problem::on_change(reason, message)
}

/// Checks the spec. `entropy` is used once in the life of a tenant, to generate the names of schema and user.
///
/// # Errors
/// The first field that is invalid, with the fix. Only a change of the object helps.
pub fn validate(tenant: &TenantControlPlane, entropy: u64) -> Result<Valid, Problem> {
    let TenantControlPlaneSpec {
        data_store_schema,
        data_store_username,
        control_plane:
            ControlPlane {
                deployment: _,
                service,
                ingress: _,
                gateway: _,
            },
        kubernetes,
        network_profile,
        data_store: _,
        data_store_overrides: _,
        write_permissions: _,
        // Konnectivity is checked against the rest; the others have nothing to check.
        addons: _,
    } = &tenant.spec;
    let running = tenant.status.as_ref().and_then(|s| {
        s.kubernetes_resources
            .as_ref()?
            .version
            .as_ref()?
            .version
            .as_deref()
    });
    let version = version(&kubernetes.version, running)?;
    let network = network(network_profile)?;
    alternative_names(&network_profile.cert_sans)?;
    if service.service_type == ServiceType::NodePort && network.address.is_none() {
        return Err(invalid(
            Reason::AddressRequired,
            "spec.networkProfile.address is required with serviceType NodePort; set it to an address that reaches the \
             nodes",
        ));
    }
    for (field, name) in [
        ("spec.dataStoreSchema", data_store_schema),
        ("spec.dataStoreUsername", data_store_username),
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
    mounts(tenant)?;
    konnectivity::check(tenant)?;
    let names = names_of(tenant, entropy);
    check_names(tenant, &names)?;
    Ok(Valid {
        version,
        network,
        names,
    })
}

fn version(desired: &str, running: Option<&str>) -> Result<Version, Problem> {
    const FIELD: &str = "spec.kubernetes.version";
    let version = version::parse(desired).ok_or_else(|| {
        invalid(
            Reason::InvalidVersion,
            format!("{FIELD}: {desired:?} is not a semantic version; write it like v1.36.3"),
        )
    })?;
    if version.major != 1 || version.minor < OLDEST_MINOR {
        return Err(invalid(
            Reason::VersionNotSupported,
            format!("{FIELD}: {desired} is not supported; use v1.{OLDEST_MINOR}.0 or newer"),
        ));
    }
    let Some((running, text)) = running.and_then(|text| Some((version::parse(text)?, text))) else {
        return Ok(version);
    };
    match version::step(&running, &version) {
        Step::Allowed => Ok(version),
        Step::Downgrade => Err(invalid(
            Reason::VersionDowngrade,
            format!(
                "{FIELD}: {desired} is below the running {text}; a control plane cannot go back a minor version; set it to \
                 v1.{} or the next minor",
                running.minor
            ),
        )),
        Step::TooLarge => Err(invalid(
            Reason::VersionStepTooLarge,
            format!(
                "{FIELD}: {desired} is more than one minor above the running {text}; go to v1.{} first",
                running.minor + 1
            ),
        )),
    }
}

fn network(profile: &NetworkProfile) -> Result<Network, Problem> {
    let NetworkProfile {
        address,
        advertise_address,
        port,
        dns_service_ips,
        // The effective lists follow from each pair.
        service_cidr: _,
        service_cidrs: _,
        pod_cidr: _,
        pod_cidrs: _,
        // Checked by the caller or by the schema, and used as they are.
        cert_sans: _,
        cluster_domain: _,
        allow_address_as_external_ip: _,
        load_balancer_class: _,
        load_balancer_source_ranges: _,
    } = profile;
    let field = |name: &str| format!("spec.networkProfile.{name}");
    let port = u16::try_from(*port)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| {
            invalid(
                Reason::InvalidSpec,
                format!("{}: {port} is not a port; set one from 1 to 65535", field("port")),
            )
        })?;
    let service_cidrs = cidrs(&field("serviceCidrs"), &profile.effective_service_cidrs())?;
    let pod_cidrs = cidrs(&field("podCidrs"), &profile.effective_pod_cidrs())?;
    let address = parsed_address(&field("address"), address.as_deref())?;
    let advertise = parsed_address(&field("advertiseAddress"), advertise_address.as_deref())?;
    let mut dns = Vec::new();
    for text in dns_service_ips {
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
                    "{}: {text} is in no Service range; set an address in {}, or remove it",
                    field("dnsServiceIPs"),
                    field("serviceCidrs")
                ),
            ));
        }
        dns.push(parsed);
    }
    if dns.is_empty() {
        dns = service_cidrs
            .iter()
            .filter_map(|cidr| nth_address(cidr, 10))
            .collect();
    }
    let network = Network {
        port,
        service_cidrs,
        pod_cidrs,
        dns,
        address,
        advertise,
    };
    if let Some(address) = advertise.filter(|address| !network.fits_services(*address)) {
        return Err(invalid(
            Reason::AddressInvalid,
            format!(
                "{}: {address} is of another family than the first of {}, and kube-apiserver refuses that; set an address of \
                 that family, or put a range of the other family first",
                field("advertiseAddress"),
                field("serviceCidrs")
            ),
        ));
    }
    Ok(network)
}

/// Checks the user's alternative names of the serving certificate.
fn alternative_names(names: &[String]) -> Result<(), Problem> {
    for (index, name) in names.iter().enumerate() {
        if name.parse::<IpAddr>().is_err()
            && !is_dns_name_of_any_case(name.strip_prefix("*.").unwrap_or(name))
        {
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

fn cidrs(field: &str, texts: &[&str]) -> Result<Vec<IpNet>, Problem> {
    if texts.is_empty() || texts.len() > 2 {
        return Err(invalid(
            Reason::InvalidSpec,
            format!("{field}: one or two ranges are required"),
        ));
    }
    let ranges: Result<Vec<IpNet>, Problem> = texts
        .iter()
        .map(|text| {
            text.parse::<IpNet>().map(|net| net.trunc()).map_err(|_| {
                invalid(
                    Reason::InvalidSpec,
                    format!("{field}: {text:?} is not a range in CIDR notation; write it like 10.96.0.0/16 or fd00::/108"),
                )
            })
        })
        .collect();
    let ranges = ranges?;
    if let [first, second] = ranges[..]
        && first.addr().is_ipv6() == second.addr().is_ipv6()
    {
        return Err(invalid(
            Reason::InvalidSpec,
            format!(
                "{field}: {first} and {second} are of one family; two ranges are one of IPv4 and one of IPv6"
            ),
        ));
    }
    Ok(ranges)
}

fn parsed_address(field: &str, text: Option<&str>) -> Result<Option<IpAddr>, Problem> {
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

/// The user's additional containers may not have the name of a container of the engine.
fn containers(tenant: &TenantControlPlane) -> Result<(), Problem> {
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
                        "spec.controlPlane.deployment.{field}[{index}].name: {} is the name of a container of the engine; choose another",
                        name.unwrap_or_default()
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// A user's volume hides the engine's files where it is mounted over them, and cannot be mounted among them.
fn mounts(tenant: &TenantControlPlane) -> Result<(), Problem> {
    let ComponentVolumeMounts {
        api_server,
        controller_manager,
        scheduler,
    } = &tenant.spec.control_plane.deployment.additional_volume_mounts;
    let taken = |path: &str| {
        let path = path.trim_end_matches('/');
        path == FOLDER || path == MOUNT_PATH || path.starts_with(&format!("{MOUNT_PATH}/"))
    };
    for (component, mounts) in [
        ("apiServer", api_server),
        ("controllerManager", controller_manager),
        ("scheduler", scheduler),
    ] {
        for (index, mount) in mounts.iter().enumerate() {
            let path = mount.0.get("mountPath").and_then(|path| path.as_str());
            if let Some(path) = path.filter(|path| taken(path)) {
                return Err(invalid(
                    Reason::InvalidSpec,
                    format!(
                        "spec.controlPlane.deployment.additionalVolumeMounts.{component}[{index}].mountPath: {path} is \
                         where the engine mounts the certificates; mount a single file below {FOLDER} with subPath, or \
                         another folder"
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
        let refused = validate(&tenant, 0).unwrap_err();
        (refused.reason, refused.message)
    }

    #[test]
    fn the_default_tenant_is_valid_and_dns_has_the_tenth_address() {
        let valid = validate(&example::tenant(), 0).unwrap();
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
            validate(&tenant, 0).map(|_| ()).map_err(|refused| refused.reason)
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
        assert!(message.starts_with("spec.networkProfile.address is required with serviceType NodePort"));
        let (reason, message) = refusal(|t| t.spec.data_store_username = Some("root".to_owned()));
        assert_eq!(reason, Reason::ReservedName);
        assert!(message.starts_with("spec.dataStoreUsername: \"root\" is reserved"));
        let (reason, _) = refusal(|t| t.spec.network_profile.address = Some("api.example.org".to_owned()));
        assert_eq!(reason, Reason::AddressInvalid);
        let (_, message) = refusal(|t| t.spec.network_profile.dns_service_ips = vec!["192.0.2.1".to_owned()]);
        assert_eq!(
            message,
            "spec.networkProfile.dnsServiceIPs: 192.0.2.1 is in no Service range; set an address in \
             spec.networkProfile.serviceCidrs, or remove it"
        );
        let (_, message) = refusal(|t| {
            t.spec.control_plane.deployment.additional_containers =
                vec![json!({"name": "kube-apiserver"}).into()];
        });
        assert!(message.contains("additionalContainers[0].name"), "{message}");
        let mounted = |path: &str| json!({"name": "a", "mountPath": path, "subPath": "a"}).into();
        for path in [
            "/etc/kubernetes/",
            "/etc/kubernetes/pki",
            "/etc/kubernetes/pki/mine.crt",
        ] {
            let (reason, message) = refusal(|t| {
                let mounts = &mut t.spec.control_plane.deployment.additional_volume_mounts;
                mounts.scheduler = vec![mounted("/a"), mounted(path)];
            });
            assert_eq!(reason, Reason::InvalidSpec);
            let field = "spec.controlPlane.deployment.additionalVolumeMounts.scheduler[1].mountPath: ";
            assert!(
                message.starts_with(field) && message.contains("subPath"),
                "{message}"
            );
        }
        let (_, message) = refusal(|t| {
            t.spec.network_profile.service_cidrs = vec!["10.96.0.0/16".to_owned(), "10.97.0.0/16".to_owned()];
        });
        assert!(message.contains("are of one family"), "{message}");
        let (reason, message) = refusal(|t| {
            t.spec.network_profile.advertise_address = Some("2001:db8::7".to_owned());
        });
        assert_eq!(reason, Reason::AddressInvalid);
        assert!(
            message.starts_with("spec.networkProfile.advertiseAddress: "),
            "{message}"
        );
        let mut tenant = example::tenant();
        let mounts = &mut tenant.spec.control_plane.deployment.additional_volume_mounts;
        mounts.api_server = vec![mounted("/etc/kubernetes/audit-policy.yaml")];
        assert!(validate(&tenant, 0).is_ok(), "the usual place of an audit policy");
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
