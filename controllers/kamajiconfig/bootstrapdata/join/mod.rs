//! Texts that a machine gets: join script with its values, units, the kubelet's drop-in, the bootstrap kubeconfig. Pure.
//! Shell and units are templates, everything else is serialized.

use std::time::Duration;

use askama::Template;
use kamaji_api::bootstrap::{IpFamily, KamajiConfigSpec, KubeletArg, Swap, VersionCheck};
use serde::Serialize;
use serde_json::Value;

use super::{
    facts,
    inputs::{self, DEFAULT_CRI_SOCKET, Inputs, RenderError, Target},
    kubelet,
};
use crate::k8s::host_port::in_url;

/// Where the script looks for a kubelet if the spec names no path.
const KUBELET_PATHS: &str =
    "/usr/bin/kubelet /usr/local/bin/kubelet /opt/bin/kubelet /opt/kamaji/bin/kubelet";
/// Kernel modules of every node.
const MODULES: [&str; 3] = ["overlay", "br_netfilter", "nf_conntrack"];
/// Kernel settings that a kubelet with `protectKernelDefaults` requires.
const KERNEL_DEFAULTS: [(&str, &str); 6] = [
    ("vm.overcommit_memory", "1"),
    ("vm.panic_on_oom", "0"),
    ("kernel.panic", "10"),
    ("kernel.panic_on_oops", "1"),
    ("kernel.keys.root_maxkeys", "1000000"),
    ("kernel.keys.root_maxbytes", "25000000"),
];
/// Kernel settings for the pod network. Only some networks need those of bridges, so the script does not require them.
const NETWORK: [(&str, &str); 3] = [
    ("net.ipv4.ip_forward", "1"),
    ("net.bridge.bridge-nf-call-iptables", "1"),
    ("net.bridge.bridge-nf-call-ip6tables", "1"),
];

/// The join script without comments, and with its values, the kubelet's configuration and drop-in inside, which is smaller
/// than three more files. Values are quoted. No line of drop-in and configuration is free text of a user, so none can end
/// the here-documents.
pub fn script(inputs: &Inputs<'_>, config: &Value) -> Result<String, RenderError> {
    let mut values = environment(inputs, config).to_vec();
    values.extend(further(inputs));
    let plan = values
        .iter()
        .map(|(key, value)| format!("{key}={}", shell(value)))
        .collect::<Vec<_>>()
        .join("\n");
    let (drop_in, config) = (drop_in(inputs)?, yaml(config)?);
    let has = |name: &str| {
        let value = values
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value);
        value.is_some_and(|value| !value.is_empty() && value != "false")
    };
    let mut script = String::new();
    for line in bare_script(has) {
        script.push_str(match line {
            "@PLAN@" => &plan,
            "@DROP_IN@" => &drop_in,
            "@CONFIG@" => config.trim_end(),
            line => line,
        });
        script.push('\n');
    }
    Ok(script)
}

/// The lines of the script without indentation, comments, and the parts for values that it does not have.
fn bare_script(has: impl Fn(&str) -> bool) -> impl Iterator<Item = &'static str> {
    const SOURCE: &str = include_str!("../../../../templates/node/join.sh");
    let mut left_out = false;
    let mut lines = SOURCE.lines().map(str::trim_start);
    let first = lines.next();
    let rest = lines.filter(move |line| {
        if let Some(name) = line.strip_prefix("# only with ") {
            left_out = !has(name);
        } else if *line == "# end" {
            left_out = false;
        }
        !(left_out || line.is_empty() || line.starts_with('#'))
    });
    first.into_iter().chain(rest)
}

#[derive(Template)]
#[template(path = "node/kamaji-join.service", escape = "none")]
struct JoinUnit {
    timeout_seconds: u64,
}

/// The unit that runs the script. The join, and the commands after it, end by themselves after `timeout` each, so the
/// unit waits two minutes longer.
pub fn join_unit(timeout: Duration, commands_after: bool) -> Result<String, RenderError> {
    let stages = 1 + u64::from(commands_after);
    let timeout_seconds = stages * timeout.as_secs() + 120;
    Ok(JoinUnit { timeout_seconds }.render()?)
}

#[derive(Template)]
#[template(path = "node/90-kamaji.conf", escape = "none")]
struct DropIn {
    inherit_image_args: bool,
    flags: Vec<String>,
}

/// The drop-in of `kubelet.service` that starts the kubelet with the provider's flags instead of the image's.
pub fn drop_in(inputs: &Inputs<'_>) -> Result<String, RenderError> {
    let spec = inputs.spec;
    let registration = &spec.node_registration;
    let mut flags = vec![
        "--config=/var/lib/kubelet/config.yaml".to_owned(),
        "--config-dir=/etc/kubernetes/kubelet.conf.d".to_owned(),
        "--kubeconfig=/etc/kubernetes/kubelet.conf".to_owned(),
        "--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf".to_owned(),
        // Only the machine knows both: the script fills them in, or removes the second.
        "--hostname-override=@NODENAME@".to_owned(),
        "--node-ip=@NODEIP@".to_owned(),
    ];
    if !registration.labels.is_empty() {
        let labels: Vec<_> = registration
            .labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        flags.push(argument("node-labels", &labels.join(",")));
    }
    if !registration.label_templates.is_empty() {
        // Added to those above. The script fills them in.
        flags.push("--node-labels=@LABELS@".to_owned());
    }
    if registration.cloud_provider.is_some() {
        flags.push("--cloud-provider=external".to_owned());
    }
    for KubeletArg { name, value } in &registration.kubelet_extra_args {
        flags.push(argument(name, value));
    }
    let inherit_image_args = spec.kubelet.inherit_image_args;
    Ok(DropIn {
        inherit_image_args,
        flags,
    }
    .render()?)
}

/// A flag in the quoting of systemd's `ExecStart`.
fn argument(name: &str, value: &str) -> String {
    let mut quoted = format!("\"--{name}=");
    for character in value.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '%' | '$' => quoted.extend([character, character]),
            '\t' => quoted.push_str("\\t"),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// The values of the script, by the name of their variable.
fn environment(inputs: &Inputs<'_>, config: &Value) -> [(&'static str, String); 22] {
    let spec = inputs.spec;
    let registration = &spec.node_registration;
    let target = inputs.target;
    let interface = registration.node_ip.as_ref().and_then(|ip| ip.interface.clone());
    let family = registration.node_ip.as_ref().and_then(|ip| ip.family);
    let text = |key: &str| config.get(key).and_then(Value::as_str);
    let is = |key: &str| config.get(key) == Some(&Value::Bool(true));
    let mut required = vec!["net.ipv4.ip_forward"];
    if is("protectKernelDefaults") {
        required.push("protect");
    }
    required.extend(spec.os.sysctls.keys().map(String::as_str));
    let modules: Vec<_> = MODULES
        .into_iter()
        .chain(spec.os.modules.iter().map(String::as_str))
        .collect();
    let health_port = config.get("healthzPort").and_then(Value::as_u64).unwrap_or(10248);
    let health = match health_port {
        0 => String::new(),
        port => format!(
            "{}:{port}",
            in_url(text("healthzBindAddress").unwrap_or("127.0.0.1"))
        ),
    };
    [
        ("CONFIG_NAME", inputs.name.to_owned()),
        ("CONFIG_UID", inputs.uid.to_owned()),
        ("VERSION", inputs.version.to_string()),
        (
            "VERSION_CHECK",
            version_check(spec.version_check.unwrap_or_default()).to_owned(),
        ),
        (
            "NAME_SOURCE",
            format!("{:?}", inputs::name_source(registration, &inputs.owner)),
        ),
        (
            "SET_HOSTNAME",
            (registration.set_hostname == Some(true)).to_string(),
        ),
        ("NODE_IP_INTERFACE", interface.unwrap_or_default()),
        ("NODE_IP_FAMILY", family_flag(family).to_owned()),
        ("SERVER_HOST", target.url_host()),
        ("SERVER_PORT", target.port.to_string()),
        ("TLS_NAME", target.tls_server_name.clone().unwrap_or_default()),
        (
            "CRI_SOCKET",
            text("containerRuntimeEndpoint")
                .unwrap_or(DEFAULT_CRI_SOCKET)
                .to_owned(),
        ),
        (
            "KUBELET_PATHS",
            spec.kubelet
                .path
                .clone()
                .unwrap_or_else(|| KUBELET_PATHS.to_owned()),
        ),
        (
            "CGROUP_V1",
            kubelet::cgroup_v1(config, spec.kubelet.cgroup_v1, inputs.version).to_owned(),
        ),
        ("SWAP", swap(spec.os.swap).to_owned()),
        ("SWAP_FATAL", is("failSwapOn").to_string()),
        (
            "RESOLV_CONF",
            if config.get("resolvConf").is_some() {
                "given"
            } else {
                "auto"
            }
            .to_owned(),
        ),
        ("HEALTHZ", health),
        ("MODULES", modules.join(" ")),
        ("SYSCTLS", sysctls(spec, target)),
        ("SYSCTL_REQUIRED", required.join(" ")),
        ("JOIN_TIMEOUT", inputs::join_timeout(spec).as_secs().to_string()),
    ]
}

/// Values that few machines have.
fn further(inputs: &Inputs<'_>) -> Vec<(&'static str, String)> {
    let spec = inputs.spec;
    let exact = spec.version_check == Some(VersionCheck::Exact);
    let keys: Vec<_> = spec
        .node_registration
        .label_templates
        .keys()
        .map(String::as_str)
        .collect();
    [
        ("EXACT", exact.then(|| "true".to_owned())),
        ("FACTS", facts::evaluated(inputs)),
        ("LABEL_TEMPLATES", (!keys.is_empty()).then(|| keys.join(" "))),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

/// A word of shell, in single quotes if it needs them.
fn shell(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._/:-".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The family as an option of `ip`.
fn family_flag(family: Option<IpFamily>) -> &'static str {
    match family {
        None | Some(IpFamily::V4) => "-4",
        Some(IpFamily::V6) => "-6",
    }
}

/// The check as the script reads it.
fn version_check(check: VersionCheck) -> &'static str {
    match check {
        VersionCheck::Minor => "Minor",
        VersionCheck::Exact => "Exact",
        VersionCheck::Off => "Off",
    }
}

/// The setting as the script reads it.
fn swap(swap: Swap) -> &'static str {
    match swap {
        Swap::Off => "off",
        Swap::Keep => "keep",
    }
}

/// Kernel settings, one `key = value` a line; those of the user come last and win.
fn sysctls(spec: &KamajiConfigSpec, target: &Target) -> String {
    let dual_stack = target.cluster_dns.iter().any(|ip| ip.contains(':'));
    let forward6 = dual_stack.then_some(("net.ipv6.conf.all.forwarding", "1"));
    let lines: Vec<_> = KERNEL_DEFAULTS
        .into_iter()
        .chain(NETWORK)
        .chain(forward6)
        .filter(|(key, _)| !spec.os.sysctls.contains_key(*key))
        .chain(
            spec.os
                .sysctls
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str())),
        )
        .map(|(key, value)| format!("{key} = {value}"))
        .collect();
    lines.join("\n")
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig<'a> {
    #[serde(rename = "apiVersion")]
    api_version: &'a str,
    kind: &'a str,
    clusters: [NamedCluster<'a>; 1],
    contexts: [NamedContext<'a>; 1],
    current_context: &'a str,
    users: [NamedUser<'a>; 1],
}

#[derive(Serialize)]
struct NamedCluster<'a> {
    name: &'a str,
    cluster: ClusterEntry<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct ClusterEntry<'a> {
    server: String,
    certificate_authority: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_server_name: Option<&'a str>,
}

#[derive(Serialize)]
struct NamedContext<'a> {
    name: &'a str,
    context: ContextEntry<'a>,
}

#[derive(Serialize)]
struct ContextEntry<'a> {
    cluster: &'a str,
    user: &'a str,
}

#[derive(Serialize)]
struct NamedUser<'a> {
    name: &'a str,
    user: UserEntry<'a>,
}

#[derive(Serialize)]
struct UserEntry<'a> {
    token: &'a str,
}

/// The kubeconfig with the token. The CA is in a file of its own, so that rotating it changes one file.
pub fn kubeconfig(inputs: &Inputs<'_>) -> Result<String, RenderError> {
    let target = inputs.target;
    let token = inputs.token.expose();
    Ok(serde_yaml::to_string(&Kubeconfig {
        api_version: "v1",
        kind: "Config",
        clusters: [NamedCluster {
            name: "tenant",
            cluster: ClusterEntry {
                server: format!("https://{}:{}", target.url_host(), target.port),
                certificate_authority: "/etc/kubernetes/pki/ca.crt",
                tls_server_name: target.tls_server_name.as_deref(),
            },
        }],
        contexts: [NamedContext {
            name: "node",
            context: ContextEntry {
                cluster: "tenant",
                user: "node",
            },
        }],
        current_context: "node",
        users: [NamedUser {
            name: "node",
            user: UserEntry { token: &token },
        }],
    })?)
}

/// `value` as YAML.
fn yaml(value: &Value) -> Result<String, RenderError> {
    Ok(serde_yaml::to_string(value)?)
}

#[cfg(test)]
mod machine;
#[cfg(test)]
mod retry_tests;
#[cfg(test)]
mod tests;
