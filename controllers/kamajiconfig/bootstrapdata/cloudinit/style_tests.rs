//! Data for infrastructures that do something to it on the way.

use std::collections::BTreeMap;

use kamaji_api::{
    bootstrap::{Encoding, File, Format, InfraPreset, KamajiConfigSpec, User},
    conditions::Reason,
};
use semver::Version;
use serde_json::Value;

use super::tests::{files, target, token};
use crate::kamajiconfig::{
    bootstrapdata::{
        delivery::Delivery,
        inputs::{Inputs, RenderError},
        plan,
        render::{Rendered, render},
    },
    owner::Owner,
    settings::Settings,
};

/// The data of a machine of an infrastructure.
fn on(name: InfraPreset, spec: &KamajiConfigSpec) -> Result<Rendered, RenderError> {
    let spec = KamajiConfigSpec {
        infra_preset: name,
        ..spec.clone()
    };
    let settings = Settings::of(&spec, None, false);
    let spec = settings.onto(&spec);
    let contents: Vec<_> = spec
        .files
        .iter()
        .map(|file| file.content.clone().map(String::into_bytes))
        .collect();
    let plan = plan::plan(&Inputs {
        name: "m-0",
        uid: "u",
        spec: &spec,
        owner: Owner::Machine("m-0"),
        version: &Version::new(1, 36, 3),
        target: &target(),
        token: &token(),
        files: &contents,
        passwords: &BTreeMap::new(),
    })?;
    render(
        Format::CloudConfig,
        &plan,
        &Delivery::of(settings.preset, &spec.output),
    )
}

fn with_file(content: &str) -> KamajiConfigSpec {
    KamajiConfigSpec {
        files: vec![File {
            path: "/opt/a".to_owned(),
            content: Some(content.to_owned()),
            ..File::default()
        }],
        ..KamajiConfigSpec::default()
    }
}

#[test]
fn a_preset_without_peculiarities_changes_no_byte() {
    let spec = with_file("{{ x }}\n");
    let none = on(InfraPreset::None, &spec).unwrap();
    let data = on(InfraPreset::Proxmox, &spec).unwrap();
    assert_eq!(*data.text, *none.text);
    assert!(data.text.contains("{{ x }}"), "the file of one line is readable");
}

#[test]
fn a_provider_that_evaluates_braces_finds_none() {
    let spec = with_file("{{ x }}\n");
    let data = on(InfraPreset::EquinixMetal, &spec).unwrap();
    assert!(!data.text.contains("{{"));
    assert_eq!(files(&data)["/opt/a"], b"{{ x }}\n");
    let spec = KamajiConfigSpec {
        users: vec![User {
            name: "ops".to_owned(),
            gecos: Some("{{ y }}".to_owned()),
            ..User::default()
        }],
        ..KamajiConfigSpec::default()
    };
    let error = on(InfraPreset::EquinixMetal, &spec).err().unwrap();
    assert_eq!(error.reason(), Reason::InvalidSpec);
    assert!(
        error
            .to_string()
            .contains("users[0] holds {{, {% or {#, which the infrastructure"),
        "{error}"
    );
}

#[test]
fn a_machine_that_knows_no_encoding_gets_plain_text_and_commands_of_one_string() {
    let data = on(InfraPreset::RemoteMachine, &with_file("a\n\tb ü\n")).unwrap();
    let document: Value = serde_yaml::from_str(&data.text).unwrap();
    for file in document["write_files"].as_array().unwrap() {
        assert_eq!(file.get("encoding"), None, "{file}");
    }
    assert_eq!(
        document["runcmd"],
        serde_json::json!([
            "systemctl daemon-reload",
            "systemctl enable kamaji-join.service",
            "systemctl start kamaji-join.service"
        ])
    );
    assert_eq!(files(&data)["/opt/a"], "a\n\tb ü\n".as_bytes());
    let mut spec = with_file("AP8=");
    spec.files[0].encoding = Some(Encoding::Base64);
    let refused = |spec: &KamajiConfigSpec, words: &str| {
        let error = on(InfraPreset::RemoteMachine, spec).err().unwrap().to_string();
        assert!(error.starts_with(words), "{error}");
    };
    refused(&spec, "files[0] is not text");
    // What k0smotron does not write would be lost without a word.
    let mut spec = with_file("a");
    spec.files[0].append = true;
    refused(&spec, "files[0] appends");
    let mut spec = with_file("a");
    spec.files[0].owner = Some("ops:ops".to_owned());
    refused(&spec, "files[0] has an owner");
    spec.files[0].owner = Some("root:root".to_owned());
    assert!(on(InfraPreset::RemoteMachine, &spec).is_ok());
}

#[test]
fn a_label_that_the_machine_alone_knows_is_a_template_of_cloud_init() {
    let data = on(InfraPreset::Metal3, &KamajiConfigSpec::default()).unwrap();
    assert!(data.text.starts_with("## template: jinja\n"));
    assert_eq!(data.text.matches("{{").count(), 1);
    let facts = files(&data)["/etc/kamaji/bootstrap/node.facts"].clone();
    let facts = String::from_utf8(facts).unwrap();
    assert!(facts.contains("\nlabel0={{ ds.meta_data.uuid }}\n"), "{facts}");
    let script = files(&data)["/etc/kamaji/bootstrap/join.sh"].clone();
    assert!(
        String::from_utf8(script)
            .unwrap()
            .contains("--node-labels=@LABELS@")
    );
}

#[test]
fn bootstrap_44_the_five_largest_entries_are_named() {
    let mut spec = with_file(&"0123456789abcdef".repeat(640));
    for number in 0..6 {
        // Two of them are too much for a pool of AWS, whatever is compressed.
        let mut state = 88_172_645_463_325_252_u64 + number;
        let mut next = || {
            for (left, by) in [(true, 13), (false, 7), (true, 17)] {
                state ^= if left { state << by } else { state >> by };
            }
            char::from(b'0' + u8::try_from(state % 64).unwrap())
        };
        let noise: String = (0..10_240).map(|_| next()).collect();
        spec.files.push(File {
            path: format!("/opt/large-{number}"),
            content: Some(noise),
            ..File::default()
        });
    }
    let error = on(InfraPreset::AWSMachinePool, &spec).err().unwrap().to_string();
    assert!(error.contains("AWS, pools takes at most 16384"), "{error}");
    let (_, largest) = error.split_once("largest entries: ").unwrap();
    assert_eq!(largest.split(", ").count(), 5, "{largest}");
    assert!(on(InfraPreset::Metal3, &spec).is_ok());
}
