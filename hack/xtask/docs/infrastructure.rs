//! The page of infrastructures: what the hand-off of the endpoint does with the kind of each known provider. Made from the
//! data that the program decides by.

use kamaji_api::{
    labels::{capi::MANAGED_BY, ours::AGGREGATE_TO_INFRA},
    quirks::{EMBEDDED, Managed, Mode, Quirk, Quirks},
};

use super::markdown;

/// The page.
pub fn page() -> anyhow::Result<String> {
    let quirks: Quirks = serde_yaml::from_str(EMBEDDED)?;
    let made_by = markdown::made_by("`api/quirks.yaml`");
    let mut text = format!("# Infrastructure\n\n{made_by}\n{}", intro());
    markdown::add(
        &mut text,
        "\n## Known providers\n\n| provider | kind | mode | what you set | what happens | when it cannot |\n\
         |---|---|---|---|---|---|\n",
    );
    for known in &quirks.kinds {
        let cells = [
            known.provider.clone(),
            kind(known),
            mode(known).to_owned(),
            set(known),
            result(known),
            conditions(known),
        ];
        let cells = cells.map(|cell| markdown::cell(&cell));
        markdown::add(&mut text, &format!("| {} |\n", cells.join(" | ")));
    }
    Ok(text)
}

fn intro() -> String {
    format!(
        "Many infrastructure providers wait for the endpoint of the control plane in `spec.controlPlaneEndpoint` of their own \
         object, such as `ProxmoxCluster`, before they make anything else. The control plane provider writes it there, once it \
         is known, for every kind that follows Cluster API's contract: it finds the version by the labels of the \
         CustomResourceDefinition and looks whether its schema has the field. It writes no other field, and replaces no \
         endpoint that somebody else set. The condition `InfrastructureClusterPatched` of the KamajiControlPlane says how far \
         it is; no other part of the control plane waits for it.\n\n\
         | mode | meaning |\n|---|---|\n\
         | set | the endpoint is written |\n\
         | verify | you write the endpoint before, and it is compared: the address has to be known beforehand, as with \
         `spec.network.serviceAddress` |\n\
         | managed | the object has the annotation `{MANAGED_BY}: kamaji`, so that its provider leaves it alone: the endpoint \
         is written, and that the object is provisioned |\n\
         | no | the provider keeps an endpoint of its own |\n\n\
         A kind that is not in the table has the mode set, or managed if its object has the annotation. A kind whose schema \
         has no `spec.controlPlaneEndpoint` takes the endpoint from the Cluster, and is not touched. Leave the endpoint out of \
         infrastructure templates: a topology would write the template's value back.\n\n\
         An object is read when there is an endpoint to hand over, and again after 15 seconds to 5 minutes while it does not \
         have it. Once the infrastructure is provisioned and the Cluster has its endpoint, nothing is read any more.\n\n\
         ## Permissions\n\n\
         The provider may read and patch the kinds in the table, by one ClusterRole a kind. For another kind, apply a \
         ClusterRole with the label below; `Forbidden` of the condition prints it ready-made. The second rule is for objects \
         that are managed.\n\n\
         ```yaml\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata:\n  name: kamaji-endpoint-thatclusters\n  \
         labels:\n    {AGGREGATE_TO_INFRA}: \"true\"\nrules:\n- apiGroups: [infrastructure.example.org]\n  resources: \
         [thatclusters]\n  verbs: [get, patch]\n- apiGroups: [infrastructure.example.org]\n  resources: \
         [thatclusters/status]\n  verbs: [patch]\n```\n\n\
         ## Other rules\n\n\
         `--infrastructure-quirks` names a file in the form of `api/quirks.yaml`, whose entries replace those of the same kind \
         and add to them: mount a ConfigMap. `--feature-gates=SkipInfraClusterPatch=true` turns the hand-off off; you then set \
         the endpoint in the infrastructure object yourself, where its provider waits for it.\n"
    )
}

fn kind(known: &Quirk) -> String {
    let usual = "infrastructure.cluster.x-k8s.io";
    let mut text = format!("`{}`", known.kind);
    if known.group != usual {
        markdown::add(&mut text, &format!(" of `{}`", known.group));
    }
    if known.untested {
        text.push_str(", not tested");
    }
    text
}

fn mode(known: &Quirk) -> &'static str {
    match known.mode {
        Mode::Unsupported => "no",
        Mode::Verify => "verify",
        Mode::Set if known.needs_manager() => "managed",
        Mode::Set => "set",
    }
}

fn set(known: &Quirk) -> String {
    let needed = known.require.iter().map(|needed| {
        let versions = match needed.versions.as_slice() {
            [] => String::new(),
            some => format!("{}: ", some.join(", ")),
        };
        format!("{versions}{}", code(&needed.text()))
    });
    let preset = "`spec.controlPlaneEndpoint`".to_owned();
    let preset = (known.mode == Mode::Verify).then_some(preset);
    let note = (!known.note.is_empty()).then(|| known.note.clone());
    let all: Vec<String> = preset.into_iter().chain(needed).chain(note).collect();
    if all.is_empty() {
        "nothing".to_owned()
    } else {
        all.join("; ")
    }
}

/// What has to hold, with names and values as code.
fn code(text: &str) -> String {
    for word in [" other than ", " in "] {
        if let Some((one, other)) = text.split_once(word) {
            return format!("`{one}`{word}`{other}`");
        }
    }
    for word in ["the annotation ", "no "] {
        if let Some(name) = text.strip_prefix(word) {
            return format!("{word}`{name}`");
        }
    }
    format!("`{text}`")
}

fn result(known: &Quirk) -> String {
    let ignored = match known.managed {
        Managed::Ignored if known.mode == Mode::Set => "; `managed-by` has no effect",
        Managed::Ignored | Managed::Allowed => "",
    };
    let text = match mode(known) {
        "set" => "the endpoint is written",
        "verify" => "the endpoint is compared",
        "managed" => "the endpoint is written, and that it is provisioned",
        _ => "nothing",
    };
    format!("{text}{ignored}")
}

fn conditions(known: &Quirk) -> String {
    let mut reasons = Vec::new();
    match known.mode {
        Mode::Unsupported => reasons.push("InfrastructureClusterNotPatched"),
        Mode::Verify => reasons.extend(["EndpointMustBePreset", "EndpointConflict"]),
        Mode::Set => {
            reasons.extend((!known.require.is_empty()).then_some("HostedModeNotConfigured"));
            reasons.push("EndpointConflict");
        }
    }
    let link = |reason: &&str| format!("[`{reason}`](../operations/reasons.md#{})", reason.to_lowercase());
    reasons.iter().map(link).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_to_set_and_where_to_look() -> anyhow::Result<()> {
        let page = page()?;
        let row = |name: &str| {
            let found = page.lines().find(|line| line.contains(&format!("| `{name}`")));
            found.map(str::to_owned).unwrap_or_default()
        };
        let proxmox = row("ProxmoxCluster");
        assert!(
            proxmox.contains("| set | `spec.externalManagedControlPlane: true` |"),
            "{proxmox}"
        );
        assert!(
            proxmox.contains("(../operations/reasons.md#hostedmodenotconfigured)"),
            "{proxmox}"
        );
        let kubevirt = row("KubevirtCluster");
        assert!(kubevirt.contains("| managed |"), "{kubevirt}");
        assert!(
            kubevirt.contains("the annotation `cluster.x-k8s.io/managed-by: kamaji`"),
            "{kubevirt}"
        );
        assert!(row("Metal3Cluster").contains("| verify | `spec.controlPlaneEndpoint`;"));
        assert!(row("IonosCloudCluster").contains("| no `spec.loadBalancerProviderRef` |"));
        assert!(row("OscCluster").contains("| `loadbalancer` in `spec.network.disable` |"));
        let harvester = row("HarvesterCluster");
        assert!(harvester.contains("not tested | no |"), "{harvester}");
        assert!(row("NutanixCluster").contains("`managed-by` has no effect"));
        Ok(())
    }
}
