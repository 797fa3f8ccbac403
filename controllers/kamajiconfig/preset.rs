//! Which preset a config has, and what does not fit with it. Pure.

use std::sync::LazyLock;

use kamaji_api::{
    bootstrap::{ContentFormat, InfraPreset, KamajiConfigSpec, NodeRegistration},
    conditions::Reason,
    presets::{EMBEDDED, Preset, Presets, Templates},
};

use super::bootstrapdata::text;
use crate::{capi::cluster::Reference, k8s::problem::Problem};

/// What the program knows.
static KNOWN: LazyLock<Presets> = LazyLock::new(|| serde_yaml::from_str(EMBEDDED).unwrap_or_default());
/// For infrastructures that are not known.
static NOTHING: LazyLock<Preset> = LazyLock::new(Preset::default);

/// The preset of a machine: the one that `choice` names, else that of its infrastructure object.
pub fn of(choice: InfraPreset, infrastructure: Option<&Reference>) -> &'static Preset {
    let found = match choice {
        InfraPreset::None => None,
        InfraPreset::Auto => infrastructure.and_then(|object| KNOWN.of_kind(&object.api_group, &object.kind)),
        name => KNOWN.named(name),
    };
    found.unwrap_or(&NOTHING)
}

/// What the machines of an infrastructure cannot do with `spec`. `registration` is its own with the defaults of the preset.
pub fn problems(preset: &Preset, spec: &KamajiConfigSpec, registration: &NodeRegistration) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut report = |message: String| {
        problems.push(Problem::on_change(Reason::InvalidSpec, message));
    };
    let provider = &preset.provider;
    for (field, text) in templates(registration) {
        if !preset.templates.evaluate(text) {
            report(format!(
                "nodeRegistration.{field} reads the metadata of the instance ({text}), and nothing evaluates templates on \
                 machines of {provider}: remove it; preJoinCommands and the host name can tell what the machine knows"
            ));
        }
    }
    let template = registration.provider_id.template.as_deref().unwrap_or_default();
    if let (Some((scheme, _)), Some(known)) = (template.split_once("://"), preset.id_scheme())
        && scheme != known
        && !text::is_expression(scheme)
    {
        report(format!(
            "nodeRegistration.providerID.template begins with {scheme}://, and machines of {provider} have an ID such as \
             {}: the Node would never be found",
            preset.id_form
        ));
    }
    for (at, file) in spec.files.iter().enumerate() {
        let is_template = file.content_format == ContentFormat::Jinja;
        let stays = match (&file.content, &preset.templates) {
            (Some(text), templates) => !templates.evaluate(text),
            // What a Secret or ConfigMap holds is not known here.
            (None, templates) => *templates == Templates::Only(Vec::new()),
        };
        if is_template && stays {
            report(format!(
                "files[{at}].contentFormat is Jinja, and nothing evaluates templates on machines of {provider}: write the \
                 file in preJoinCommands"
            ));
        }
    }
    if preset.files_only && !spec.users.is_empty() {
        report(format!(
            "users: machines of {provider} read files and commands alone: create users in the image or in preJoinCommands"
        ));
    }
    problems
}

/// The templates of a registration, by field.
fn templates(registration: &NodeRegistration) -> impl Iterator<Item = (String, &String)> {
    let name = registration.name_template.iter();
    let id = registration.provider_id.template.iter();
    let labels = registration.label_templates.iter();
    name.map(|text| ("nameTemplate".to_owned(), text))
        .chain(id.map(|text| ("providerID.template".to_owned(), text)))
        .chain(labels.map(|(key, text)| (format!("labelTemplates: {key}"), text)))
}

#[cfg(test)]
mod tests {
    use kamaji_api::presets::INFRASTRUCTURE_GROUP;
    use serde_json::{Value, json};

    use super::*;
    use crate::kamajiconfig::settings::Settings;

    fn reference(kind: &str, name: &str) -> Reference {
        Reference {
            api_group: INFRASTRUCTURE_GROUP.to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
        }
    }

    fn spec(value: Value) -> KamajiConfigSpec {
        serde_json::from_value(value).unwrap()
    }

    fn found(kind: &str, value: Value) -> Vec<String> {
        let spec = spec(value);
        let object = reference(kind, "m");
        let settings = Settings::of(&spec, Some(&object), false);
        let problems = problems(settings.preset, &spec, &settings.registration);
        problems.into_iter().map(|problem| problem.message).collect()
    }

    #[test]
    fn the_preset_is_that_of_the_kind_unless_the_spec_names_one() {
        let machine = reference("OpenStackMachine", "m");
        let name = |choice| of(choice, Some(&machine)).name;
        assert_eq!(name(InfraPreset::Auto), InfraPreset::OpenStack);
        assert_eq!(name(InfraPreset::Azure), InfraPreset::Azure);
        assert_eq!(of(InfraPreset::None, Some(&machine)), &Preset::default());
        assert_eq!(
            of(InfraPreset::Auto, Some(&reference("LocalMachine", "m"))),
            &Preset::default()
        );
        assert_eq!(of(InfraPreset::Auto, None), &Preset::default());
        assert_eq!(of(InfraPreset::AWS, None).name, InfraPreset::AWS);
    }

    #[test]
    fn a_template_without_metadata_is_refused_before_the_machine_is_made() {
        let template = json!({"nodeRegistration": {"providerID": {
            "source": "Template", "template": "harvester://{{ ds.meta_data.uid }}",
        }}});
        let problems = found("HarvesterMachine", template.clone());
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].starts_with("nodeRegistration.providerID.template reads the metadata")
                && problems[0].contains("machines of Harvester"),
            "{problems:?}"
        );
        let mut none = template;
        none["infraPreset"] = json!("None");
        assert_eq!(found("HarvesterMachine", none), Vec::<String>::new());
        let name = |text: &str| json!({"nodeRegistration": {"nameSource": "Template", "nameTemplate": text}});
        assert_eq!(
            found("NutanixMachine", name("{{ ds.meta_data.hostname }}")),
            Vec::<String>::new()
        );
        assert_eq!(found("NutanixMachine", name("{{ ds.meta_data.uuid }}")).len(), 1);
        let labels = json!({"nodeRegistration": {"labelTemplates": {"example.com/rack": "{{ v1.region }}"}}});
        assert_eq!(found("PacketMachine", labels).len(), 1);
        let file = json!({"files": [{"path": "/a", "content": "{{ v1.region }}", "contentFormat": "Jinja"}]});
        assert_eq!(found("RemoteMachine", file).len(), 1);
    }

    #[test]
    fn a_template_with_the_scheme_of_another_infrastructure_is_refused() {
        let template = |text: &str| json!({"nodeRegistration": {"providerID": {"source": "Template", "template": text}}});
        let problems = found(
            "ProxmoxMachine",
            template("vsphere://{{ ds.meta_data.instance_id }}"),
        );
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("such as proxmox://<UUID>"), "{problems:?}");
        for text in [
            "proxmox://{{ ds.meta_data.instance_id }}",
            "{{ ds.meta_data.provider_id }}",
        ] {
            assert_eq!(found("ProxmoxMachine", template(text)), Vec::<String>::new());
        }
        let other = template("vsphere://{{ ds.meta_data.instance_id }}");
        assert_eq!(found("LocalMachine", other), Vec::<String>::new());
    }

    #[test]
    fn users_are_refused_where_none_are_made() {
        let users = json!({"users": [{"name": "ops"}]});
        assert_eq!(found("RemoteMachine", users.clone()).len(), 1);
        assert_eq!(found("Metal3Machine", users).len(), 0);
    }
}
