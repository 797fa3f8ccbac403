//! Rules of a KamajiConfig that its definition cannot say, and once more those it says (bootstrap.md 3.1, 1.9;
//! DESIGN 2.1). Pure. Each problem names the field and the fix.

use std::{collections::BTreeSet, time::Duration};

use kamaji_api::{
    bootstrap::{ContentFormat, Format, KamajiConfigSpec, NameSource, ProviderIdSource},
    conditions::Reason,
};
use kube::core::Duration as GoDuration;
use semver::Version;

use super::{cloudinit, kubelet, plan};

/// One breach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Reason of the condition.
    pub reason: Reason,
    /// Field and fix.
    pub message: String,
}

/// Paths that are ours (bootstrap.md 1.2): a path that ends with a slash stands for everything below it.
const RESERVED: [&str; 12] = [
    "/etc/kamaji/",
    "/etc/kubernetes/pki/ca.crt",
    "/etc/kubernetes/bootstrap-kubelet.conf",
    "/etc/kubernetes/kubelet.conf",
    "/etc/kubernetes/kubelet.conf.d/20-node.conf",
    "/var/lib/kubelet/config.yaml",
    "/var/lib/kubelet/pki/",
    "/var/lib/kamaji/",
    "/etc/systemd/system/kubelet.service.d/90-kamaji.conf",
    "/etc/systemd/system/kamaji-join.service",
    "/etc/sysctl.d/90-kamaji.conf",
    "/etc/modules-load.d/kamaji.conf",
];
/// Our sentinel, and core's folder for it.
const SENTINEL: &str = "/run/cluster-api/";
/// Kubelet flags with a field of their own, or that would open the node.
const DENIED_FLAGS: [&str; 23] = [
    "config",
    "config-dir",
    "kubeconfig",
    "bootstrap-kubeconfig",
    "hostname-override",
    "node-labels",
    "node-ip",
    "register-node",
    "register-with-taints",
    "register-schedulable",
    "provider-id",
    "pod-infra-container-image",
    "anonymous-auth",
    "authentication-token-webhook",
    "authentication-token-webhook-cache-ttl",
    "authorization-mode",
    "authorization-webhook-cache-authorized-ttl",
    "client-ca-file",
    "cloud-provider",
    "read-only-port",
    "rotate-certificates",
    "cert-dir",
    "tls-private-key-file",
];
/// Labels under Kubernetes' own domains that a kubelet may set.
const KUBELET_LABELS: [&str; 13] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.kubernetes.io/zone",
    "failure-domain.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];

/// All breaches of `spec`, in the order of its fields.
pub fn spec(spec: &KamajiConfigSpec) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut say = |reason: Reason, message: String| problems.push(Problem { reason, message });
    if spec.format == Format::Ignition {
        say(
            Reason::FieldNotSupported,
            "format: ignition is not supported yet, use cloud-config".to_owned(),
        );
    }
    registration(spec, &mut say);
    kubelet_settings(spec, &mut say);
    durations(spec, &mut say);
    files(spec, &mut say);
    users(spec, &mut say);
    for (field, commands) in [
        ("preJoinCommands", &spec.pre_join_commands),
        ("postJoinCommands", &spec.post_join_commands),
    ] {
        for (at, command) in commands.iter().enumerate() {
            if command.len() > 10_240 || command.contains(['\0', '\r']) {
                say(
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
            say(
                Reason::InvalidSpec,
                format!("os.modules: {module:?} is not the name of a module"),
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
            say(
                Reason::InvalidSpec,
                format!("os.sysctls: {key:?} must be a dotted name with a value of one line"),
            );
        }
    }
    problems
}

/// Breaches that depend on the Machine's version.
pub fn version(spec: &KamajiConfigSpec, version: &Version) -> Vec<Problem> {
    let mut problems: Vec<_> = kubelet::fatal_for(spec, version)
        .into_iter()
        .map(|message| Problem {
            reason: Reason::InvalidSpec,
            message,
        })
        .collect();
    if version.major != 1 || version.minor < 30 {
        problems.push(Problem {
            reason: Reason::VersionNotSupported,
            message: format!("the Machine asks for {version}, the oldest possible is 1.30"),
        });
    }
    problems
}

/// Kubelet and control plane, when both are known, fit together.
pub fn skew(kubelet: &Version, control_plane: &Version) -> Option<Problem> {
    let message = if (kubelet.major, kubelet.minor) > (control_plane.major, control_plane.minor) {
        format!(
            "the Machine's version {kubelet} is newer than the control plane's {control_plane}: upgrade the control plane first"
        )
    } else if kubelet.major == control_plane.major && control_plane.minor - kubelet.minor > 3 {
        format!(
            "the Machine's version {kubelet} is more than three minors older than the control plane's {control_plane}"
        )
    } else {
        return None;
    };
    Some(Problem {
        reason: Reason::VersionSkew,
        message,
    })
}

fn registration(spec: &KamajiConfigSpec, say: &mut impl FnMut(Reason, String)) {
    let registration = &spec.node_registration;
    if (registration.name_source == Some(NameSource::Template)) != registration.name_template.is_some() {
        say(
            Reason::InvalidSpec,
            "nodeRegistration.nameTemplate is given with nameSource: Template, and only then".to_owned(),
        );
    }
    let provider_id = &registration.provider_id;
    if (provider_id.source == ProviderIdSource::Template) != provider_id.template.is_some() {
        say(
            Reason::InvalidSpec,
            "nodeRegistration.providerID.template is given with source: Template, and only then".to_owned(),
        );
    }
    for (field, text) in [
        ("nameTemplate", &registration.name_template),
        ("providerID.template", &provider_id.template),
    ] {
        if let Some(text) = text
            && (text.contains(['\n', '\r']) || !balanced(text))
        {
            say(
                Reason::InvalidSpec,
                format!("nodeRegistration.{field} must be one line with every {{{{ and {{% closed"),
            );
        }
    }
    if let Some(socket) = &registration.cri_socket
        && !(socket.starts_with("unix:///") && is_plain_path(&socket["unix://".len()..]))
    {
        say(
            Reason::InvalidSpec,
            "nodeRegistration.criSocket must begin with unix:///".to_owned(),
        );
    }
    labels_and_taints(spec, say);
    arguments(spec, say);
    address(spec, say);
}

fn labels_and_taints(spec: &KamajiConfigSpec, say: &mut impl FnMut(Reason, String)) {
    let registration = &spec.node_registration;
    for (key, value) in &registration.labels {
        if let Some(fix) = label(key, value) {
            say(
                Reason::LabelNotAllowed,
                format!("nodeRegistration.labels: {key}: {fix}"),
            );
        }
    }
    let mut seen = BTreeSet::new();
    for taint in &registration.taints {
        let effect = taint.effect.as_str();
        if !seen.insert((taint.key.clone(), effect)) {
            say(
                Reason::InvalidSpec,
                format!("nodeRegistration.taints: {}:{effect} is there twice", taint.key),
            );
        }
        if !is_qualified(&taint.key) || taint.value.as_deref().is_some_and(|value| !is_label_value(value)) {
            say(
                Reason::InvalidSpec,
                format!(
                    "nodeRegistration.taints: {:?} is not a valid key and value",
                    taint.key
                ),
            );
        }
    }
}

fn arguments(spec: &KamajiConfigSpec, say: &mut impl FnMut(Reason, String)) {
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
            say(
                Reason::InvalidSpec,
                format!(
                    "nodeRegistration.kubeletExtraArgs[{at}]: a name without dashes in front and a value of one line"
                ),
            );
        } else if DENIED_FLAGS.contains(&name) {
            say(
                Reason::ProtectedSetting,
                format!(
                    "nodeRegistration.kubeletExtraArgs[{at}]: {name} is set by the provider; use its field"
                ),
            );
        } else if !seen.insert(name) {
            say(
                Reason::InvalidSpec,
                format!("nodeRegistration.kubeletExtraArgs[{at}]: {name} is there twice"),
            );
        }
    }
}

fn address(spec: &KamajiConfigSpec, say: &mut impl FnMut(Reason, String)) {
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
            say(
                Reason::InvalidSpec,
                "nodeRegistration.nodeIP: either address (an IP, or two with a comma) or interface"
                    .to_owned(),
            );
        }
    }
}

fn kubelet_settings(spec: &KamajiConfigSpec, say: &mut impl FnMut(Reason, String)) {
    for (key, field) in kubelet::misplaced(spec) {
        say(Reason::InvalidSpec, format!("kubelet.config.{key}: use {field}"));
    }
    if !spec.kubelet.allow_unsafe_overrides {
        for path in kubelet::unsafe_overrides(spec) {
            say(
                Reason::ProtectedSetting,
                format!("{path} would open the node: remove it, or set kubelet.allowUnsafeOverrides"),
            );
        }
    }
    if let Some(path) = &spec.kubelet.path
        && !is_plain_path(path)
    {
        say(
            Reason::InvalidSpec,
            "kubelet.path must be an absolute path of letters, digits and ._-/".to_owned(),
        );
    }
    for gate in spec.kubelet.feature_gates.keys() {
        if gate.is_empty() || !gate.bytes().all(|b| b.is_ascii_alphanumeric()) {
            say(
                Reason::InvalidSpec,
                format!("kubelet.featureGates: {gate:?} is not the name of a gate"),
            );
        }
    }
}

fn durations(spec: &KamajiConfigSpec, say: &mut impl FnMut(Reason, String)) {
    let token = &spec.auth.token;
    let minutes = |n: u64| Duration::from_mins(n);
    let table: [(&str, Option<GoDuration>, Duration, Duration); 3] = [
        ("auth.token.ttl", token.ttl, minutes(5), minutes(24 * 60)),
        (
            "auth.token.maxLifetime",
            token.max_lifetime,
            minutes(5),
            minutes(30 * 24 * 60),
        ),
        ("joinTimeout", spec.join_timeout, minutes(1), minutes(60)),
    ];
    for (field, value, least, most) in table {
        if let Some(value) = value
            && (value.is_negative() || Duration::from(value) < least || Duration::from(value) > most)
        {
            say(
                Reason::InvalidSpec,
                format!(
                    "{field} must be from {}m to {}m",
                    least.as_secs() / 60,
                    most.as_secs() / 60
                ),
            );
        }
    }
}

fn files(spec: &KamajiConfigSpec, say: &mut impl FnMut(Reason, String)) {
    let mut seen = BTreeSet::new();
    for (at, file) in spec.files.iter().enumerate() {
        let path = file.path.as_str();
        if !is_absolute(path) {
            say(
                Reason::InvalidSpec,
                format!("files[{at}].path must be absolute and without . and .. in it"),
            );
        } else if let Some(owner) = reserved(path) {
            say(
                Reason::ReservedPath,
                format!("files[{at}].path: {owner} is written by the provider"),
            );
        } else if !seen.insert(path) {
            say(
                Reason::InvalidSpec,
                format!("files[{at}].path: {path} is there twice"),
            );
        }
        if file.content.is_some() == file.content_from.is_some() {
            say(
                Reason::InvalidSpec,
                format!("files[{at}] needs either content or contentFrom"),
            );
        }
        if let Some(from) = &file.content_from
            && from.secret.is_some() == from.config_map.is_some()
        {
            say(
                Reason::InvalidSpec,
                format!("files[{at}].contentFrom needs either secret or configMap"),
            );
        }
        if file
            .content
            .as_ref()
            .is_some_and(|content| content.len() > 10_240)
        {
            say(
                Reason::InvalidSpec,
                format!("files[{at}].content is longer than 10240 bytes: use contentFrom"),
            );
        }
        if let Some(mode) = &file.permissions
            && !is_mode(mode)
        {
            say(
                Reason::InvalidSpec,
                format!("files[{at}].permissions must be octal, such as 0640"),
            );
        }
        if let Some(owner) = &file.owner
            && (owner.is_empty()
                || !owner
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-:".contains(&b))
                || cloudinit::ambiguous(owner))
        {
            say(
                Reason::InvalidSpec,
                format!("files[{at}].owner must be user:group by name"),
            );
        }
        if file.content_format == ContentFormat::Jinja {
            if file.encoding.is_some() {
                say(
                    Reason::InvalidSpec,
                    format!("files[{at}]: contentFormat Jinja takes no encoding"),
                );
            }
            if file.content.as_deref().is_some_and(|content| !balanced(content)) {
                say(
                    Reason::InvalidSpec,
                    format!("files[{at}].content: a {{{{ or {{% is not closed"),
                );
            }
        }
    }
}

fn users(spec: &KamajiConfigSpec, say: &mut impl FnMut(Reason, String)) {
    let mut seen = BTreeSet::new();
    for (at, user) in spec.users.iter().enumerate() {
        let name = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if user.name.is_empty()
            || user.name.len() > 32
            || !user.name.bytes().all(name)
            || !seen.insert(user.name.as_str())
        {
            say(
                Reason::InvalidSpec,
                format!("users[{at}].name must be a user's name, once"),
            );
        }
        if user.passwd.is_some() && user.passwd_from.is_some() {
            say(
                Reason::InvalidSpec,
                format!("users[{at}] has both passwd and passwdFrom"),
            );
        }
        let texts = [
            &user.gecos,
            &user.groups,
            &user.home_dir,
            &user.shell,
            &user.passwd,
            &user.primary_group,
            &user.sudo,
        ];
        let keys = user.ssh_authorized_keys.iter();
        if texts.into_iter().flatten().chain(keys).any(|text| {
            text.chars().any(char::is_control) || plan::is_expression(text) || cloudinit::ambiguous(text)
        }) {
            say(
                Reason::InvalidSpec,
                format!("users[{at}]: values are one line of text, no number, time or expression"),
            );
        }
    }
}

/// What is wrong with a label, and the right way.
fn label(key: &str, value: &str) -> Option<String> {
    if !is_qualified(key) || !is_label_value(value) {
        return Some("not a valid label".to_owned());
    }
    let (domain, _) = key.split_once('/')?;
    let within = |parent: &str| domain == parent || domain.ends_with(&format!(".{parent}"));
    let synced = [
        "node-role.kubernetes.io",
        "node-restriction.kubernetes.io",
        "node.cluster.x-k8s.io",
    ];
    if let Some(domain) = synced.into_iter().find(|parent| within(parent)) {
        return Some(format!(
            "a kubelet may not set labels of {domain}; set it on the Machine (spec.template.metadata.labels of the \
             MachineDeployment), Cluster API copies it to the Node"
        ));
    }
    let kubernetes = within("kubernetes.io") || within("k8s.io");
    let allowed =
        KUBELET_LABELS.contains(&key) || within("kubelet.kubernetes.io") || within("node.kubernetes.io");
    (kubernetes && !allowed).then(|| {
        "a kubelet may not set labels of kubernetes.io and k8s.io; use a domain of your own, or label the Machine under \
         node.cluster.x-k8s.io"
            .to_owned()
    })
}

fn reserved(path: &str) -> Option<&'static str> {
    RESERVED
        .into_iter()
        .chain([SENTINEL])
        .find(|ours| path == ours.trim_end_matches('/') || (ours.ends_with('/') && path.starts_with(ours)))
        // Anything in the folder of kubelet's drop-ins could undo what is protected.
        .or_else(|| {
            path.starts_with("/etc/kubernetes/kubelet.conf.d/")
                .then_some("/etc/kubernetes/kubelet.conf.d (use kubelet.config)")
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

fn is_mode(mode: &str) -> bool {
    let digits = mode
        .strip_prefix('0')
        .filter(|rest| rest.len() >= 3)
        .unwrap_or(mode);
    (3..=4).contains(&digits.len()) && digits.bytes().all(|b| (b'0'..=b'7').contains(&b))
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
        Some((domain, name)) => super::csr::is_dns_name(domain) && is_name(name),
        None => is_name(key),
    }
}

fn is_label_value(value: &str) -> bool {
    value.is_empty() || is_name(value)
}

/// Every expression that opens closes, in order.
fn balanced(text: &str) -> bool {
    let mut rest = text;
    while let Some((close, after)) = ["{{", "{%", "{#"]
        .into_iter()
        .zip(["}}", "%}", "#}"])
        .filter_map(|(open, close)| rest.find(open).map(|at| (at, close)))
        .min()
        .map(|(at, close)| (close, &rest[at + 2..]))
    {
        let Some(end) = after.find(close) else {
            return false;
        };
        rest = &after[end + 2..];
    }
    true
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
