//! What a KamajiControlPlane asks for, checked in its own field paths before anything is made of it. Pure.
//!
//! The schema checks most of it; objects may be older than the rules, and a step of versions needs the running one
//! (DESIGN 2.1). What the engine refuses beyond this is mirrored from the TenantControlPlane's conditions.

use kamaji_api::{
    conditions::Reason, controlplane::KamajiControlPlane, service::ServiceType,
    tenantcontrolplane::TenantControlPlane,
};
use semver::Version;

use super::versions;
use crate::k8s::problem::Problem;

/// A spec that can be handed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Valid {
    /// The version asked for.
    pub version: Version,
}

/// Checks the spec; `tenant` knows the version that runs.
pub fn validate(
    control_plane: &KamajiControlPlane,
    tenant: Option<&TenantControlPlane>,
) -> Result<Valid, Problem> {
    let spec = &control_plane.spec;
    let running = tenant.and_then(|tenant| versions::running(control_plane, tenant));
    let version = version(&spec.version, running.as_deref())?;
    if spec.replicas < 0 {
        return Err(Problem::on_change(
            Reason::InvalidSpec,
            format!(
                "spec.replicas: {} is below 0; 0 puts the control plane to sleep",
                spec.replicas
            ),
        ));
    }
    if spec.network.service_type == ServiceType::NodePort
        && spec
            .network
            .service_address
            .as_deref()
            .unwrap_or_default()
            .is_empty()
    {
        return Err(Problem::on_change(
            Reason::AddressRequired,
            "spec.network.serviceAddress: required with serviceType NodePort; set the address of a node of the \
             management cluster or of what stands in front of its nodes",
        ));
    }
    for (index, name) in spec.network.cert_sans.iter().enumerate() {
        if name.parse::<std::net::IpAddr>().is_err() && name.contains(':') {
            return Err(Problem::on_change(
                Reason::InvalidSpec,
                format!(
                    "spec.network.certSANs[{index}]: {name:?} has a port; a certificate names hosts alone"
                ),
            ));
        }
    }
    Ok(Valid { version })
}

/// A version, with or without `v`.
pub fn parse_version(text: &str) -> Option<Version> {
    Version::parse(text.strip_prefix('v').unwrap_or(text)).ok()
}

fn version(asked: &str, running: Option<&str>) -> Result<Version, Problem> {
    let version = parse_version(asked).ok_or_else(|| {
        Problem::on_change(
            Reason::InvalidVersion,
            format!("spec.version: {asked:?} is not a semantic version; write it like v1.36.3"),
        )
    })?;
    let Some((text, old)) = running.and_then(|text| Some((text, parse_version(text)?))) else {
        return Ok(version);
    };
    let (from, to) = ((old.major, old.minor), (version.major, version.minor));
    if to < from {
        return Err(Problem::on_change(
            Reason::VersionDowngrade,
            format!(
                "spec.version: {asked} is below the running {text}; a control plane cannot go back a minor version, set \
                 it to v{}.{} or the minor after it",
                from.0, from.1
            ),
        ));
    }
    if to.0 != from.0 || to.1 > from.1 + 1 {
        return Err(Problem::on_change(
            Reason::VersionStepTooLarge,
            format!(
                "spec.version: {asked} is more than one minor above the running {text}; go to v{}.{} first",
                from.0,
                from.1 + 1
            ),
        ));
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use kamaji_api::tenantcontrolplane::VersionPhase;
    use rstest::rstest;

    use super::*;
    use crate::kamajicontrolplane::example;

    #[rstest]
    #[case(
        "latest",
        None,
        Reason::InvalidVersion,
        "spec.version: \"latest\" is not a semantic version; write it like v1.36.3"
    )]
    #[case(
        "v1.34.1",
        Some("v1.36.3"),
        Reason::VersionDowngrade,
        "spec.version: v1.34.1 is below the running v1.36.3; a control plane cannot go back a minor version, set it to \
         v1.36 or the minor after it"
    )]
    #[case(
        "1.36.3",
        Some("v1.34.1"),
        Reason::VersionStepTooLarge,
        "spec.version: 1.36.3 is more than one minor above the running v1.34.1; go to v1.35 first"
    )]
    fn a_version_that_cannot_be_reached_is_explained(
        #[case] asked: &str,
        #[case] running: Option<&str>,
        #[case] reason: Reason,
        #[case] message: &str,
    ) {
        let mut control_plane = example::control_plane();
        control_plane.spec.version = asked.into();
        let tenant = running.map(example::running);
        let refused = validate(&control_plane, tenant.as_ref()).unwrap_err();
        assert_eq!((refused.reason, refused.message.as_str()), (reason, message));
    }

    #[rstest]
    #[case("v1.36.3", Some("v1.35.4"))]
    #[case("1.36.3", Some("v1.36.4"))]
    #[case("v1.34.1+x.1", None)]
    #[case("v1.37.0-rc.1", Some("v1.36.3"))]
    fn one_step_is_fine_and_patches_go_either_way(#[case] asked: &str, #[case] running: Option<&str>) {
        let mut control_plane = example::control_plane();
        control_plane.spec.version = asked.into();
        validate(&control_plane, running.map(example::running).as_ref()).unwrap();
    }

    #[test]
    fn no_minor_is_skipped_in_sleep() {
        let mut control_plane = example::control_plane();
        control_plane.spec.replicas = 0;
        control_plane.status.get_or_insert_default().version = Some("v1.35.4".into());
        // Kamaji's engine has copied the step that nothing ran yet.
        let mut tenant = example::running("v1.36.3");
        let resources = tenant
            .status
            .as_mut()
            .and_then(|s| s.kubernetes_resources.as_mut());
        resources.and_then(|r| r.version.as_mut()).unwrap().status = VersionPhase::Sleeping;
        validate(&control_plane, Some(&tenant)).unwrap();
        control_plane.spec.version = "v1.37.0".into();
        let refused = validate(&control_plane, Some(&tenant)).unwrap_err();
        assert_eq!(refused.reason, Reason::VersionStepTooLarge);
        assert!(
            refused.message.ends_with("go to v1.36 first"),
            "{}",
            refused.message
        );
    }

    #[test]
    fn bad_input_names_field_and_fix() {
        let mut control_plane = example::control_plane();
        control_plane.spec.network.service_type = ServiceType::NodePort;
        let refused = validate(&control_plane, None).unwrap_err();
        assert_eq!(refused.reason, Reason::AddressRequired);
        assert!(
            refused.message.starts_with(
                "spec.network.serviceAddress: required with serviceType NodePort; set the address"
            )
        );

        control_plane.spec.network.service_address = Some("192.0.2.1".into());
        control_plane.spec.network.cert_sans = vec!["fd00::1".into(), "a.example.org:443".into()];
        let refused = validate(&control_plane, None).unwrap_err();
        assert_eq!(
            refused.message,
            "spec.network.certSANs[1]: \"a.example.org:443\" has a port; a certificate names hosts alone"
        );
    }
}
