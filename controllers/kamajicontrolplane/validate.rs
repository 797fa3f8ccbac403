//! Rules of a KamajiControlPlane, checked before a TenantControlPlane is applied for it. Pure.
//!
//! The CRD's schema has most of them. They are checked here too, because an object may be older than the schema, and
//! because a version upgrade depends on the version that runs. Messages name fields of the KamajiControlPlane. What
//! only the engine can check is reported by its conditions, which [`super::conditions`] mirrors.

use kamaji_api::{
    conditions::Reason, controlplane::KamajiControlPlane, labels::ours, service::ServiceType,
    tenantcontrolplane::TenantControlPlane,
};

use super::tenant::running_version;
use crate::k8s::{
    finalizer,
    problem::Problem,
    version::{self, Step},
};

/// The pods run in this management cluster. A control plane whose pods run in another one has its CA and its kubeconfig
/// here, and they must not be replaced. One that got our finalizer was hosted here before the field was set: it goes on,
/// and [`validate`] refuses the field.
///
/// # Errors
/// The field, and what to do.
pub fn hosted_here(control_plane: &KamajiControlPlane) -> Result<(), Problem> {
    if finalizer::has(control_plane, ours::CONTROL_PLANE_FINALIZER) {
        return Ok(());
    }
    external_reference(control_plane)
}

fn external_reference(control_plane: &KamajiControlPlane) -> Result<(), Problem> {
    if control_plane.spec.deployment.external_cluster_reference.is_none() {
        return Ok(());
    }
    Err(Problem::on_change(
        Reason::FieldNotSupported,
        "spec.deployment.externalClusterReference: pods in another management cluster are not supported; nothing of \
         this control plane is changed, and the provider that made it has to go on with it; for a control plane that is \
         hosted here, create one without this field",
    ))
}

/// Checks the spec. `tenant` knows the version that runs.
///
/// # Errors
/// The first rule that is broken, with field and fix.
pub fn validate(
    control_plane: &KamajiControlPlane,
    tenant: Option<&TenantControlPlane>,
) -> Result<(), Problem> {
    external_reference(control_plane)?;
    let spec = &control_plane.spec;
    let running = tenant.and_then(|tenant| running_version(control_plane, tenant));
    version(&spec.version, running.as_deref())?;
    if spec.replicas < 0 {
        return Err(Problem::on_change(
            Reason::InvalidSpec,
            format!(
                "spec.replicas: {} is below 0; set 0 to let the control plane sleep, or more",
                spec.replicas
            ),
        ));
    }
    let network = &spec.network;
    let address = network.service_address.as_deref().unwrap_or_default();
    if network.service_type == ServiceType::NodePort && address.is_empty() {
        return Err(Problem::on_change(
            Reason::AddressRequired,
            "spec.network.serviceAddress: required with serviceType NodePort; set it to an address that reaches the \
             nodes of the management cluster",
        ));
    }
    for (index, name) in network.cert_sans.iter().enumerate() {
        if name.parse::<std::net::IpAddr>().is_err() && name.contains(':') {
            return Err(Problem::on_change(
                Reason::InvalidSpec,
                format!(
                    "spec.network.certSANs[{index}]: {name:?} has a port; set the host name or IP address alone"
                ),
            ));
        }
    }
    Ok(())
}

/// A version may go up by one minor version at a time and never down a minor version: the Kubernetes version skew
/// policy, <https://kubernetes.io/releases/version-skew-policy/>.
fn version(desired: &str, running: Option<&str>) -> Result<(), Problem> {
    let version = version::parse(desired).ok_or_else(|| {
        Problem::on_change(
            Reason::InvalidVersion,
            format!("spec.version: {desired:?} is not a semantic version; write it like v1.36.3"),
        )
    })?;
    let Some((text, old)) = running.and_then(|text| Some((text, version::parse(text)?))) else {
        return Ok(());
    };
    match version::step(&old, &version) {
        Step::Allowed => Ok(()),
        Step::Downgrade => Err(Problem::on_change(
            Reason::VersionDowngrade,
            format!(
                "spec.version: {desired} is below the running {text}; a control plane cannot go back a minor version; \
                 set it to v{}.{} or the minor version after it",
                old.major, old.minor
            ),
        )),
        Step::TooLarge => Err(Problem::on_change(
            Reason::VersionStepTooLarge,
            format!(
                "spec.version: {desired} is more than one minor version above the running {text}; go to v{}.{} first",
                old.major,
                old.minor + 1
            ),
        )),
    }
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
        "spec.version: v1.34.1 is below the running v1.36.3; a control plane cannot go back a minor version; set it to \
         v1.36 or the minor version after it"
    )]
    #[case(
        "1.36.3",
        Some("v1.34.1"),
        Reason::VersionStepTooLarge,
        "spec.version: 1.36.3 is more than one minor version above the running v1.34.1; go to v1.35 first"
    )]
    fn a_version_that_cannot_be_reached_is_explained(
        #[case] desired: &str,
        #[case] running: Option<&str>,
        #[case] reason: Reason,
        #[case] message: &str,
    ) {
        let mut control_plane = example::control_plane();
        control_plane.spec.version = desired.into();
        let tenant = running.map(example::running);
        let refused = validate(&control_plane, tenant.as_ref()).unwrap_err();
        assert_eq!((refused.reason, refused.message.as_str()), (reason, message));
    }

    #[rstest]
    #[case("v1.36.3", Some("v1.35.4"))]
    #[case("1.36.3", Some("v1.36.4"))]
    #[case("v1.34.1+x.1", None)]
    #[case("v1.37.0-rc.1", Some("v1.36.3"))]
    fn one_minor_version_up_and_any_patch_version_pass(#[case] desired: &str, #[case] running: Option<&str>) {
        let mut control_plane = example::control_plane();
        control_plane.spec.version = desired.into();
        validate(&control_plane, running.map(example::running).as_ref()).unwrap();
    }

    #[test]
    fn no_minor_version_is_skipped_while_asleep() {
        let mut control_plane = example::control_plane();
        control_plane.spec.replicas = 0;
        control_plane.status.get_or_insert_default().version = Some("v1.35.4".into());
        // Upstream Kamaji reports a version that no pod has run yet.
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
    fn a_broken_rule_names_field_and_fix() {
        let mut control_plane = example::control_plane();
        control_plane.spec.network.service_type = ServiceType::NodePort;
        let refused = validate(&control_plane, None).unwrap_err();
        assert_eq!(refused.reason, Reason::AddressRequired);
        assert!(refused.message.starts_with(
            "spec.network.serviceAddress: required with serviceType NodePort; set it to an address"
        ));

        control_plane.spec.network.service_address = Some("192.0.2.1".into());
        control_plane.spec.network.cert_sans = vec!["fd00::1".into(), "a.example.org:443".into()];
        let refused = validate(&control_plane, None).unwrap_err();
        assert_eq!(
            refused.message,
            "spec.network.certSANs[1]: \"a.example.org:443\" has a port; set the host name or IP address alone"
        );
    }
}
