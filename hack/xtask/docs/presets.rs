//! The page of what the bootstrap provider knows about the machines of infrastructures. Made from the data that it decides
//! by.

use kamaji_api::presets::{EMBEDDED, Preset, Presets, Style, Templates};

use super::markdown;

/// The page.
pub fn page() -> anyhow::Result<String> {
    let known: Presets = serde_yaml::from_str(EMBEDDED)?;
    let made_by = markdown::made_by("`api/presets.yaml`");
    let mut text = format!("# Machines of infrastructures\n\n{made_by}\n{INTRO}");
    let head = [
        "preset",
        "kinds of machines",
        "provider ID, and who sets it on the Node",
        "defaults",
        "size of the data",
        "rules",
    ];
    markdown::add(
        &mut text,
        &format!(
            "\n## Presets\n\n| {} |\n|---|---|---|---|---|---|\n",
            head.join(" | ")
        ),
    );
    for preset in &known.presets {
        let cells = [
            format!("`{:?}`", preset.name),
            kinds(preset),
            format!("`{}`: {}", preset.id_form, preset.id_from),
            defaults(preset),
            size(preset),
            rules(preset),
        ];
        let cells = cells.map(|cell| markdown::cell(&cell));
        markdown::add(&mut text, &format!("| {} |\n", cells.join(" | ")));
    }
    Ok(text)
}

const INTRO: &str = "Infrastructures differ in the name that a Node must have, in who sets its provider ID, in how much bootstrap \
data they take, and in what they do to it on the way. The bootstrap provider knows some of them. The preset of a machine is that \
of the kind in `spec.infrastructureRef` of its Machine; `spec.infraPreset` of the KamajiConfig names another one, or `None`. A \
machine of a kind that is not in the table has no preset.\n\n\
The kind alone decides about labels, the size and how the data is written. `nameSource` and `setHostname` are defaults only where \
`spec.infraPreset` names the preset, so that Nodes keep their names. A name by host name is checked less strictly than that of \
the Machine: before the Machine has addresses, the first name that is asked for counts. A machine keeps the source of its name \
that its data was made with.\n\n\
`nameSource`, `setHostname`, `providerID`, `labels` and `labelTemplates` of `spec.nodeRegistration` win over a preset, and `spec.output.maxBytes` over its size. Labels are left out with \
`cloudProvider: external`, since Nodes then have their provider ID from a cloud controller manager.\n\n\
Data that is larger than the infrastructure takes is not given to the machine: `DataSecretAvailable` is False with \
[`TooLarge`](../operations/reasons.md#toolarge) and the five largest entries, before a machine is made. From 80 % of the size on \
there is one Warning event, [`UserDataNearLimit`](../operations/reasons.md#userdatanearlimit), and `DataSecretAvailable` tells the \
figures. They are in `status.bootstrapData` too.\n";

fn kinds(preset: &Preset) -> String {
    let kinds: Vec<_> = preset.kinds.iter().map(|kind| format!("`{kind}`")).collect();
    format!("{}: {}", preset.provider, kinds.join(", "))
}

fn defaults(preset: &Preset) -> String {
    let name = preset
        .name_source
        .map(|source| format!("`nameSource: {source:?}`"));
    let host = preset.set_hostname.map(|set| format!("`setHostname: {set}`"));
    let labels = &preset.label_templates;
    let labels = labels
        .iter()
        .map(|(key, text)| format!("label `{key}` from `{text}`"));
    joined(name.into_iter().chain(host).chain(labels))
}

fn size(preset: &Preset) -> String {
    let Some(limit) = &preset.user_data else {
        return "1000000".to_owned();
    };
    let more = match limit.unless.as_str() {
        "" => String::new(),
        when => format!(", a warning above: more is possible if {when}"),
    };
    format!("{}{}{more}", limit.bytes, limit.encoding.text())
}

fn rules(preset: &Preset) -> String {
    let templates = match &preset.templates {
        Templates::All => None,
        Templates::Only(texts) if texts.is_empty() => Some("no templates".to_owned()),
        Templates::Only(texts) => Some(format!("no template but `{}`", texts.join("`, `"))),
    };
    let style = match preset.style {
        Style::Usual => None,
        Style::Packed => Some("all text is encoded, since the provider evaluates `{{ }}` itself"),
        Style::Plain => Some("all text is plain, commands are single strings"),
    };
    let users = preset.files_only.then_some("no users");
    let note = (!preset.note.is_empty()).then(|| preset.note.clone());
    let fixed = [style, users].into_iter().flatten().map(str::to_owned);
    joined(templates.into_iter().chain(fixed).chain(note))
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<_> = parts.collect();
    if parts.is_empty() {
        "–".to_owned()
    } else {
        parts.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_defaults_the_size_and_the_rules() -> anyhow::Result<()> {
        let page = page()?;
        let row = |name: &str| {
            let found = page
                .lines()
                .find(|line| line.starts_with(&format!("| `{name}` |")));
            found.map(str::to_owned).unwrap_or_default()
        };
        assert!(row("Metal3").contains("label `metal3.io/uuid` from `{{ ds.meta_data.uuid }}`"));
        assert!(row("OpenStack").contains("| 65535 as base64 |"));
        assert!(row("AWS").contains(
            "| `nameSource: Hostname` | 16384, a warning above: more is possible if the AWSMachine"
        ));
        assert!(row("Proxmox").contains("| – | 1000000 | – |"));
        assert!(row("RemoteMachine").contains("no templates; all text is plain"));
        Ok(())
    }
}
