//! The settings of a machine: those of its config, and for what the config leaves open those of the infrastructure's preset
//! and of the Cluster. Computed once for each reconcile, without the contents of files. Pure.

use kamaji_api::{
    bootstrap::{InfraPreset, KamajiConfigSpec, NameSource, NodeRegistration, VersionCheck},
    presets::Preset,
};

use super::preset;
use crate::capi::cluster::Reference;

/// The settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What is known about the infrastructure.
    pub preset: &'static Preset,
    /// How the Node is registered.
    pub registration: NodeRegistration,
    /// How the version of the kubelet must match that of the Machine.
    pub version_check: VersionCheck,
}

impl Settings {
    /// The settings of a machine with this infrastructure object. A Cluster with a `topology` upgrades the next machines
    /// only once the Nodes have the versions of their Machines.
    pub fn of(spec: &KamajiConfigSpec, infrastructure: Option<&Reference>, topology: bool) -> Self {
        let preset = preset::of(spec.infra_preset, infrastructure);
        let mut registration = spec.node_registration.clone();
        // Whoever names no preset keeps the names that Nodes have without one.
        if spec.infra_preset != InfraPreset::Auto {
            registration.name_source = registration.name_source.or(preset.name_source);
            registration.set_hostname = registration.set_hostname.or(preset.set_hostname);
        }
        // By these labels the infrastructure provider finds Nodes that have no provider ID from a cloud controller manager.
        if registration.cloud_provider.is_none() {
            for (key, template) in &preset.label_templates {
                let templates = &mut registration.label_templates;
                templates.entry(key.clone()).or_insert_with(|| template.clone());
            }
        }
        let labels = &registration.labels;
        registration
            .label_templates
            .retain(|key, _| !labels.contains_key(key));
        let by_cluster = if topology {
            VersionCheck::Exact
        } else {
            VersionCheck::Minor
        };
        Self {
            preset,
            registration,
            version_check: spec.version_check.unwrap_or(by_cluster),
        }
    }

    /// The settings of a machine whose data takes the name of its Node from `source`.
    #[must_use]
    pub fn rendered(mut self, source: Option<NameSource>) -> Self {
        self.registration.name_source = source.or(self.registration.name_source);
        self
    }

    /// `spec` with these settings, as the bootstrap data is rendered from it.
    pub fn onto(&self, spec: &KamajiConfigSpec) -> KamajiConfigSpec {
        KamajiConfigSpec {
            node_registration: self.registration.clone(),
            version_check: Some(self.version_check),
            ..spec.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use kamaji_api::presets::INFRASTRUCTURE_GROUP;
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn settings(kind: &str, spec: Value) -> Settings {
        let spec: KamajiConfigSpec = serde_json::from_value(spec).unwrap();
        let object = Reference {
            api_group: INFRASTRUCTURE_GROUP.to_owned(),
            kind: kind.to_owned(),
            name: "m".to_owned(),
        };
        Settings::of(&spec, Some(&object), false)
    }

    #[rstest]
    #[case("Proxmox", None, None)]
    #[case("VSphere", None, Some(true))]
    #[case("Metal3", None, None)]
    #[case("AWS", Some(NameSource::Hostname), None)]
    #[case("Tinkerbell", Some(NameSource::Hostname), None)]
    fn a_preset_that_the_config_names_decides_about_names(
        #[case] preset: &str,
        #[case] name: Option<NameSource>,
        #[case] hostname: Option<bool>,
    ) {
        let made = settings("LocalMachine", json!({"infraPreset": preset})).registration;
        assert_eq!((made.name_source, made.set_hostname), (name, hostname));
        // The kind alone changes no name.
        for kind in ["AWSMachine", "VSphereMachine", "TinkerbellMachine"] {
            let made = settings(kind, json!({})).registration;
            assert_eq!((made.name_source, made.set_hostname), (None, None), "{kind}");
        }
    }

    #[test]
    fn a_machine_keeps_the_source_that_its_data_was_rendered_with() {
        let now = settings("AWSMachine", json!({"infraPreset": "AWS"}));
        assert_eq!(now.registration.name_source, Some(NameSource::Hostname));
        let then = now.clone().rendered(Some(NameSource::MachineName));
        assert_eq!(then.registration.name_source, Some(NameSource::MachineName));
        let new = now.rendered(None);
        assert_eq!(new.registration.name_source, Some(NameSource::Hostname));
    }

    #[test]
    fn fields_of_the_config_win() {
        let own = json!({"nodeRegistration": {
            "nameSource": "MachineName", "setHostname": false,
            "labels": {"metal3.io/uuid": "mine"},
        }});
        let with = |preset: &str| {
            let mut spec = own.clone();
            spec["infraPreset"] = json!(preset);
            settings("LocalMachine", spec).registration
        };
        assert_eq!(with("AWS").name_source, Some(NameSource::MachineName));
        assert_eq!(with("VSphere").set_hostname, Some(false));
        let metal3 = settings("Metal3Machine", own).registration;
        assert!(metal3.label_templates.is_empty());
        let template = json!({"nodeRegistration": {"labelTemplates": {"metal3.io/uuid": "{{ x }}"}}});
        let metal3 = settings("Metal3Machine", template).registration;
        assert_eq!(metal3.label_templates["metal3.io/uuid"], "{{ x }}");
        let external = json!({"nodeRegistration": {"cloudProvider": "external"}});
        let metal3 = settings("Metal3Machine", external).registration;
        assert!(metal3.label_templates.is_empty());
        let metal3 = settings("Metal3Machine", json!({})).registration;
        assert_eq!(
            metal3.label_templates["metal3.io/uuid"],
            "{{ ds.meta_data.uuid }}"
        );
    }

    #[test]
    fn bootstrap_54_a_cluster_with_a_topology_asks_for_the_exact_version() {
        let check = |spec: Value, topology| {
            let spec: KamajiConfigSpec = serde_json::from_value(spec).unwrap();
            Settings::of(&spec, None, topology).version_check
        };
        assert_eq!(check(json!({}), true), VersionCheck::Exact);
        assert_eq!(check(json!({}), false), VersionCheck::Minor);
        assert_eq!(check(json!({"versionCheck": "Minor"}), true), VersionCheck::Minor);
        assert_eq!(
            check(json!({"versionCheck": "Exact"}), false),
            VersionCheck::Exact
        );
    }
}
