//! Validates a KamajiConfig: the rules of its CRD once more, since the object may be older than the CRD, and those that a
//! CRD cannot express. Pure. Each problem names the field and the fix.

use std::collections::BTreeSet;

use kamaji_api::{
    bootstrap::{
        JOIN_TIMEOUT, KamajiConfigSpec, MACHINE_LABEL_DOMAIN, NameSource, ProviderIdSource, TOKEN_TTL,
        TaintEffect, is_below, is_denied_flag, is_node_label,
    },
    conditions::Reason,
    labels::capi,
};
use semver::Version;

use super::{
    bootstrapdata::{kubelet, kubelet_versions, render, text},
    names::NamePattern,
};
use crate::k8s::{names, problem::Problem};

mod files;

/// Everything that is wrong with `spec`, in the order of its fields.
pub fn spec(spec: &KamajiConfigSpec) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut report = |reason: Reason, message: String| problems.push(Problem::on_change(reason, message));
    if let Err(fix) = render::is_supported(spec.format) {
        report(Reason::FieldNotSupported, fix.to_owned());
    }
    registration(spec, &mut report);
    templates(spec, &mut report);
    kubelet_settings(spec, &mut report);
    durations(spec, &mut report);
    files::files(spec, &mut report);
    files::users(spec, &mut report);
    for (field, commands) in [
        ("preJoinCommands", &spec.pre_join_commands),
        ("postJoinCommands", &spec.post_join_commands),
    ] {
        for (at, command) in commands.iter().enumerate() {
            if let Some(name) = text::instance_name(command) {
                report(
                    Reason::InvalidSpec,
                    format!(
                        "{field}[{at}] reads {name} in a template, and commands are not templates: write \
                         $(cloud-init query {name}) instead, or for the host name set nodeRegistration.setHostname"
                    ),
                );
            }
            if command.len() > 10_240 || command.contains(['\0', '\r']) {
                report(
                    Reason::InvalidSpec,
                    format!("{field}[{at}] must be at most 10240 bytes without NUL and carriage return"),
                );
            }
        }
    }
    for module in &spec.os.modules {
        if module.is_empty()
            || !module
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
        {
            report(
                Reason::InvalidSpec,
                format!(
                    "os.modules: {module:?} is not the name of a kernel module; use letters, digits, _ and -"
                ),
            );
        }
    }
    for (key, value) in &spec.os.sysctls {
        let name = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if key.is_empty()
            || key.contains("..")
            || !key.bytes().all(name)
            || value.contains(['\n', '\r', '\0'])
            || value.is_empty()
        {
            report(
                Reason::InvalidSpec,
                format!("os.sysctls: {key:?} must be a dotted name with a value of one line"),
            );
        }
    }
    problems
}

/// Problems that depend on the owner's version. `whose` is the field with the version, and its object.
pub fn version(spec: &KamajiConfigSpec, whose: &str, version: &Version) -> Vec<Problem> {
    let mut problems: Vec<_> = kubelet_versions::problems(spec, whose, version)
        .into_iter()
        .map(|message| Problem::on_change(Reason::InvalidSpec, message))
        .collect();
    if version.major != 1 || version.minor < 30 {
        problems.push(Problem::on_change(
            Reason::VersionNotSupported,
            format!(
                "{whose} is v{version}, which is older than v1.30, the oldest supported version: set a newer one in its \
                 MachineDeployment or MachinePool"
            ),
        ));
    }
    problems
}

/// The version skew between kubelet and control plane (<https://kubernetes.io/releases/version-skew-policy/>).
pub fn skew(whose: &str, kubelet: &Version, control_plane: &Version) -> Option<Problem> {
    let message = if (kubelet.major, kubelet.minor) > (control_plane.major, control_plane.minor) {
        format!(
            "{whose} is v{kubelet}, which is newer than the control plane's v{control_plane}: upgrade the control plane first"
        )
    } else if kubelet.major == control_plane.major && control_plane.minor - kubelet.minor > 3 {
        format!(
            "{whose} is v{kubelet}, which is more than three minors older than the control plane's v{control_plane}: set a \
             newer one in its MachineDeployment or MachinePool"
        )
    } else {
        return None;
    };
    Some(Problem::on_change(Reason::VersionSkew, message))
}

fn registration(spec: &KamajiConfigSpec, report: &mut impl FnMut(Reason, String)) {
    let registration = &spec.node_registration;
    if (registration.name_source == Some(NameSource::Template)) != registration.name_template.is_some() {
        report(
            Reason::InvalidSpec,
            "nodeRegistration.nameTemplate is required with nameSource: Template, and not allowed otherwise"
                .to_owned(),
        );
    }
    let provider_id = &registration.provider_id;
    if (provider_id.source == ProviderIdSource::Template) != provider_id.template.is_some() {
        report(
            Reason::InvalidSpec,
            "nodeRegistration.providerID.template is required with source: Template, and not allowed otherwise".to_owned(),
        );
    }
    for (field, text) in [
        ("nameTemplate", &registration.name_template),
        ("providerID.template", &provider_id.template),
    ] {
        if let Some(text) = text
            && (text.contains(['\n', '\r']) || !text::is_balanced(text))
        {
            report(
                Reason::InvalidSpec,
                format!("nodeRegistration.{field} must be one line with every {{{{ and {{% closed"),
            );
        }
    }
    if let Some(socket) = &registration.cri_socket
        && !(socket.starts_with("unix:///") && is_plain_path(&socket["unix://".len()..]))
    {
        report(
            Reason::InvalidSpec,
            "nodeRegistration.criSocket must begin with unix:///".to_owned(),
        );
    }
    if let Some(Err(why)) = spec
        .csr_approval
        .node_name_pattern
        .as_deref()
        .map(NamePattern::parse)
    {
        report(Reason::InvalidSpec, format!("csrApproval.nodeNamePattern {why}"));
    }
    labels_and_taints(spec, report);
    arguments(spec, report);
    address(spec, report);
}

/// Fields in which nothing evaluates a template.
fn templates(spec: &KamajiConfigSpec, report: &mut impl FnMut(Reason, String)) {
    let arguments = &spec.node_registration.kubelet_extra_args;
    let arguments = arguments.iter().enumerate().map(|(at, argument)| {
        let field = format!("nodeRegistration.kubeletExtraArgs[{at}].value");
        (field, argument.value.clone())
    });
    let config = serde_json::to_string(&spec.kubelet.config).unwrap_or_default();
    let sysctls = spec.os.sysctls.iter();
    let sysctls = sysctls.map(|(key, value)| (format!("os.sysctls: {key}"), value.clone()));
    let fields = arguments
        .chain([("kubelet.config".to_owned(), config)])
        .chain(sysctls);
    for (field, value) in fields {
        if let Some(name) = text::instance_name(&value) {
            report(
                Reason::InvalidSpec,
                format!(
                    "{field} reads {name} in a template, and nothing evaluates it: templates are nodeRegistration.nameTemplate, \
                     nodeRegistration.providerID.template, nodeRegistration.labelTemplates and files with contentFormat: Jinja"
                ),
            );
        }
    }
}

fn labels_and_taints(spec: &KamajiConfigSpec, report: &mut impl FnMut(Reason, String)) {
    let registration = &spec.node_registration;
    for (key, value) in &registration.labels {
        if let Some(fix) = label(key, value) {
            report(
                Reason::LabelNotAllowed,
                format!("nodeRegistration.labels: {key}: {fix}"),
            );
        }
    }
    for (key, template) in &registration.label_templates {
        // What a template gives is checked on the machine.
        if let Some(fix) = label(key, "") {
            report(
                Reason::LabelNotAllowed,
                format!("nodeRegistration.labelTemplates: {key}: {fix}"),
            );
        }
        let lines = template.contains(['\n', '\r']);
        if template.is_empty() || template.len() > 512 || lines || !text::is_balanced(template) {
            report(
                Reason::InvalidSpec,
                format!(
                    "nodeRegistration.labelTemplates: {key} must have one line of at most 512 bytes with every {{{{ and {{% \
                     closed"
                ),
            );
        }
    }
    let mut seen = BTreeSet::new();
    for taint in &registration.taints {
        let effect = taint.effect.as_str();
        if !seen.insert((taint.key.clone(), effect)) {
            report(
                Reason::InvalidSpec,
                format!("nodeRegistration.taints: {}:{effect} is set twice", taint.key),
            );
        }
        if taint.key == capi::UNINITIALIZED_TAINT && taint.effect != TaintEffect::NoSchedule {
            report(
                Reason::InvalidSpec,
                format!(
                    "nodeRegistration.taints: {}:{effect} would stay on the Node: remove it; with the effect NoSchedule this \
                     provider sets it, and Cluster API removes it",
                    taint.key
                ),
            );
        }
        if !is_qualified(&taint.key) || taint.value.as_deref().is_some_and(|value| !is_label_value(value)) {
            report(
                Reason::InvalidSpec,
                format!(
                    "nodeRegistration.taints: {:?} is not a valid key and value",
                    taint.key
                ),
            );
        }
    }
}

fn arguments(spec: &KamajiConfigSpec, report: &mut impl FnMut(Reason, String)) {
    let registration = &spec.node_registration;
    let mut seen = BTreeSet::new();
    for (at, arg) in registration.kubelet_extra_args.iter().enumerate() {
        let name = arg.name.as_str();
        let fits = !name.is_empty()
            && !name.starts_with('-')
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !fits || arg.value.chars().any(|c| c.is_control() && c != '\t') {
            report(
                Reason::InvalidSpec,
                format!(
                    "nodeRegistration.kubeletExtraArgs[{at}] must have a name without leading dashes and a value of one line"
                ),
            );
        } else if is_denied_flag(name) {
            report(
                Reason::ProtectedSetting,
                format!(
                    "nodeRegistration.kubeletExtraArgs[{at}]: {name} is set by this provider; use the field for it"
                ),
            );
        } else if !seen.insert(name) {
            report(
                Reason::InvalidSpec,
                format!("nodeRegistration.kubeletExtraArgs[{at}]: {name} is set twice"),
            );
        }
    }
}

fn address(spec: &KamajiConfigSpec, report: &mut impl FnMut(Reason, String)) {
    let registration = &spec.node_registration;
    if let Some(ip) = &registration.node_ip {
        let both = ip.address.is_some() == ip.interface.is_some();
        let addresses = ip
            .address
            .iter()
            .flat_map(|list| list.split(','))
            .all(|one| one.parse::<std::net::IpAddr>().is_ok());
        let interface = ip.interface.as_deref().is_none_or(|name| {
            !name.is_empty()
                && name.len() <= 15
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-@".contains(&b))
        });
        if both || !addresses || !interface {
            report(
                Reason::InvalidSpec,
                "nodeRegistration.nodeIP requires either address (one IP address, or two with a comma between them) or interface"
                    .to_owned(),
            );
        }
    }
}

fn kubelet_settings(spec: &KamajiConfigSpec, report: &mut impl FnMut(Reason, String)) {
    for (key, fix) in kubelet::misplaced(spec) {
        report(Reason::InvalidSpec, format!("kubelet.config.{key}: {fix}"));
    }
    if spec.kubelet.config.get("registerNode") == Some(&false.into()) {
        report(
            Reason::InvalidSpec,
            "kubelet.config.registerNode: false keeps the machine from becoming a Node: remove it".to_owned(),
        );
    }
    if !spec.kubelet.allow_unsafe_overrides {
        for path in kubelet::unsafe_overrides(spec) {
            report(
                Reason::ProtectedSetting,
                format!("{path} opens the node to others: remove it, or set kubelet.allowUnsafeOverrides"),
            );
        }
    }
    if let Some(path) = &spec.kubelet.path
        && !is_plain_path(path)
    {
        report(
            Reason::InvalidSpec,
            "kubelet.path must be an absolute path of letters, digits and ._-/".to_owned(),
        );
    }
    for gate in spec.kubelet.feature_gates.keys() {
        if gate.is_empty() || !gate.bytes().all(|b| b.is_ascii_alphanumeric()) {
            report(
                Reason::InvalidSpec,
                format!("kubelet.featureGates: {gate:?} is not the name of a feature gate"),
            );
        }
    }
}

fn durations(spec: &KamajiConfigSpec, report: &mut impl FnMut(Reason, String)) {
    let token = &spec.auth.token;
    for (field, value, bounds) in [
        ("auth.token.ttl", token.ttl, TOKEN_TTL),
        ("auth.token.poolTTL", token.pool_ttl, TOKEN_TTL),
        (
            "auth.token.maxLifetime",
            token.max_lifetime,
            token.max_lifetime_bounds(),
        ),
        ("joinTimeout", spec.join_timeout, JOIN_TIMEOUT),
    ] {
        if value.is_some_and(|value| !bounds.hold(value)) {
            report(Reason::InvalidSpec, format!("{field} {bounds}"));
        }
    }
}

/// What is wrong with a label, and the fix.
fn label(key: &str, value: &str) -> Option<String> {
    if !is_qualified(key) || !is_label_value(value) {
        return Some("it is not a valid label".to_owned());
    }
    if is_node_label(key) {
        return None;
    }
    let (domain, _) = key.split_once('/')?;
    let on_the_machine = "set it on the Machine (spec.template.metadata.labels of the MachineDeployment or MachinePool), Cluster API \
                          copies it to the Node";
    Some(if is_below(domain, MACHINE_LABEL_DOMAIN) {
        format!("this provider leaves labels of {MACHINE_LABEL_DOMAIN} to Cluster API; {on_the_machine}")
    } else if let Some(synced) = ["node-role.kubernetes.io", "node-restriction.kubernetes.io"]
        .into_iter()
        .find(|synced| is_below(domain, synced))
    {
        format!("a kubelet may not set labels of {synced}; {on_the_machine}")
    } else {
        format!(
            "a kubelet may not set labels of kubernetes.io and k8s.io; use a domain of your own, or label the Machine \
             under {MACHINE_LABEL_DOMAIN}"
        )
    })
}

fn is_absolute(path: &str) -> bool {
    path.len() <= 512
        && path.len() > 1
        && path.starts_with('/')
        && !path.chars().any(char::is_control)
        && path[1..]
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..")
}

fn is_plain_path(path: &str) -> bool {
    is_absolute(path)
        && path
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b))
}

fn is_name(text: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b))
}

fn is_qualified(key: &str) -> bool {
    match key.split_once('/') {
        Some((domain, name)) => names::is_dns_name(domain) && is_name(name),
        None => is_name(key),
    }
}

fn is_label_value(value: &str) -> bool {
    value.is_empty() || is_name(value)
}

#[cfg(test)]
mod tests;
