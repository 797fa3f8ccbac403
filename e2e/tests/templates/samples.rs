//! Values that users could give to the variables of the templates: for each one that is not the default. Data only.

use std::collections::BTreeMap;

use e2e::clusterctl::Variables;

/// Values that do not follow from name and default.
const SAMPLES: &[(&str, &str)] = &[
    ("ALLOWED_NODES", "[pve1, pve2]"),
    ("AZURE_FAILURE_DOMAIN", "1"),
    ("AZURE_IMAGE", r#"{"id": "/subscriptions/a/images/b"}"#),
    ("AZURE_VM_IDENTITY", "SystemAssigned"),
    (
        "AZURE_VM_USER_ASSIGNED_IDENTITIES",
        r#"[{"providerID": "azure:///a"}]"#,
    ),
    ("BOOT_VOLUME_DEVICE", "virtio0"),
    ("CONTROL_PLANE_SERVICE_TYPE", "NodePort"),
    ("DNS_SERVERS", "[192.0.2.53]"),
    ("IMAGE_CHECKSUM_TYPE", "sha512"),
    ("IMAGE_URL", "http://192.0.2.20/node.qcow2"),
    ("IMAGE_FORMAT", "raw"),
    ("KONNECTIVITY", "false"),
    ("MACHINE_IMAGE", "other"),
    ("METAL3_CLEANING_MODE", "disabled"),
    (
        "METAL3_HOST_SELECTOR",
        r#"{"matchLabels": {"rack": "a"}, "matchExpressions": [{"key": "size", "operator": "in", "values": ["l"]}]}"#,
    ),
    ("NETWORK", "outside"),
    ("NODE_IP_RANGES", "[192.0.2.64-192.0.2.90]"),
    ("NUTANIX_ADDITIONAL_TRUST_BUNDLE", "YQ=="),
    ("NUTANIX_INSECURE", "true"),
    ("NUTANIX_MACHINE_BOOT_TYPE", "uefi"),
    (
        "OPENSTACK_EXTERNAL_NETWORK_ID",
        "1b2c3d4e-5f60-4718-8293-a4b5c6d7e8f9",
    ),
    // Names that YAML would read as something else.
    ("OPENSTACK_SSH_KEY_NAME", "123"),
    ("PROXMOX_DISK_FORMAT", "raw"),
    ("SSH_AUTHORIZED_KEYS", r#"["ssh-ed25519 AAAA a"]"#),
    ("VM_SSH_KEYS", "ssh-ed25519 AAAA a"),
    ("VSPHERE_CLONE_MODE", "linkedClone"),
    ("VSPHERE_STORAGE_POLICY", "Gold: fast"),
];

/// A value other than the default, which is none for a required variable.
fn sample(name: &str, default: Option<&str>) -> String {
    if let Some((_, value)) = SAMPLES.iter().find(|(known, _)| *known == name) {
        return (*value).to_owned();
    }
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    if ends(&["_B64"]) {
        return "YQ==".to_owned();
    }
    if ends(&["_ANNOTATIONS"]) {
        return r#"{"example.org/a": "b"}"#.to_owned();
    }
    if ends(&["_ENDPOINT_IP", "_HOST", "GATEWAY"]) {
        return "192.0.2.10".to_owned();
    }
    if ends(&["_NAMESERVERS"]) {
        return "192.0.2.53".to_owned();
    }
    if ends(&["CIDR"]) {
        return "198.51.100.0/24".to_owned();
    }
    if ends(&["_IMAGE"]) {
        return "registry.example.org/image:v1".to_owned();
    }
    if ends(&["_PREFIX"]) {
        return "24".to_owned();
    }
    if ends(&["_VMID"]) {
        return "100".to_owned();
    }
    if ends(&["_PORT"]) {
        return "30443".to_owned();
    }
    let quantity = ["Gi", "Mi"].into_iter().find_map(|unit| {
        let number: u32 = default?.strip_suffix(unit)?.parse().ok()?;
        Some(format!("{}{unit}", 2 * number))
    });
    let number = default
        .and_then(|text| text.parse::<u32>().ok())
        .map(|number| (2 * number).max(1).to_string());
    let size = default
        .is_some_and(|text| text.starts_with("${"))
        .then(|| "7".to_owned());
    quantity
        .or(number)
        .or(size)
        .unwrap_or_else(|| name.to_lowercase().replace('_', "-"))
}

/// A value for each required variable.
pub fn required(variables: &Variables) -> BTreeMap<String, String> {
    variables
        .required
        .iter()
        .map(|name| (name.clone(), sample(name, None)))
        .collect()
}

/// A value other than the default for each optional variable.
pub fn optional(variables: &Variables) -> BTreeMap<String, String> {
    variables
        .optional
        .iter()
        .map(|(name, default)| (name.clone(), sample(name, Some(default))))
        .collect()
}

/// A value for every variable.
pub fn every(variables: &Variables) -> BTreeMap<String, String> {
    let mut all = required(variables);
    all.extend(optional(variables));
    all
}
