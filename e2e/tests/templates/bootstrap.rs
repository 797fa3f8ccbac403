//! The bootstrap data that is rendered from the templates' settings of workers.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use capi_kamaji::capi::cluster::Reference;
use capi_kamaji::kamajiconfig::{
    bootstrapdata::{
        delivery::Delivery,
        inputs::{Inputs, Target},
        plan, render,
    },
    owner::Owner,
    preset,
    settings::Settings,
    token::Token,
    validate,
};
use e2e::{
    cloud_init::CloudInit,
    clusterctl::Clusterctl,
    objects::{documents, text},
};
use kamaji_api::{
    bootstrap::{Format, KamajiConfigSpec},
    presets::INFRASTRUCTURE_GROUP,
};
use semver::Version;
use serde_json::Value;

use super::{files, generated, samples};

/// Name of the machine.
const MACHINE: &str = "alpha-md-0-abcde";

/// Renders the data of a machine of this kind of template, perhaps in a Cluster with a topology, with these settings. It fits into the user data of every infrastructure, and cloud-init, where
/// there is one, knows all of it.
pub fn checked(
    cloud_init: Option<&CloudInit>,
    name: &str,
    (machine_template, topology): (&str, bool),
    spec: &Value,
) -> Result<()> {
    let data = rendered(machine_template, topology, spec)?;
    ensure!(data.len() <= 16 * 1024, "{} bytes", data.len());
    cloud_init.map_or(Ok(()), |cloud_init| cloud_init.check(name, &data))
}

/// Renders the data of a machine of this kind of template with these settings.
fn rendered(machine_template: &str, topology: bool, spec: &Value) -> Result<String> {
    let spec: KamajiConfigSpec = serde_json::from_value(spec.clone())?;
    let infrastructure = Reference {
        api_group: INFRASTRUCTURE_GROUP.to_owned(),
        kind: machine_template.trim_end_matches("Template").to_owned(),
        name: MACHINE.to_owned(),
    };
    let settings = Settings::of(&spec, Some(&infrastructure), topology);
    let mut problems = validate::spec(&spec);
    problems.extend(preset::problems(settings.preset, &spec, &settings.registration));
    let spec = settings.onto(&spec);
    ensure!(problems.is_empty(), "{problems:?}");
    let target = Target {
        host: "192.0.2.1".to_owned(),
        port: 6443,
        ca_pem: "-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----\n".to_owned(),
        cluster_dns: vec!["10.96.0.10".to_owned()],
        cluster_domain: "cluster.local".to_owned(),
        ..Target::default()
    };
    let files: Vec<_> = spec
        .files
        .iter()
        .map(|file| file.content.clone().map(String::into_bytes))
        .collect();
    let plan = plan::plan(&Inputs {
        name: MACHINE,
        uid: "5e6f7a8b-9c0d-4e1f-8a2b-3c4d5e6f7a8b",
        spec: &spec,
        owner: Owner::Machine(MACHINE),
        version: &Version::new(1, 36, 3),
        target: &target,
        token: &Token::parse("a1b2c3.0123456789abcdef").context("no token")?,
        files: &files,
        passwords: &BTreeMap::new(),
    })?;
    let delivery = Delivery::of(settings.preset, &spec.output);
    Ok(render(Format::CloudConfig, &plan, &delivery)?.text.to_string())
}

#[tokio::test]
async fn bootstrap_data_of_every_template_is_valid_for_cloud_init() -> Result<()> {
    let (Some(clusterctl), Some(cloud_init)) = (Clusterctl::find()?, CloudInit::find()?) else {
        return Ok(());
    };
    ensure!(
        cloud_init
            .check("wrong", "#cloud-config\nwrite_files: 5\n")
            .is_err(),
        "anything is valid"
    );
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for file in &files::all()? {
        let mut streams = vec![file.text.clone()];
        if !file.is_class() {
            let variables = generated::variables(&clusterctl, file).await?;
            streams.clear();
            for set in [samples::required(&variables), samples::every(&variables)] {
                streams.push(generated::generated(&clusterctl, file, &set).await?);
            }
        }
        for (number, stream) in streams.iter().enumerate() {
            let objects = documents(stream)?;
            let mut kinds = objects.iter().map(|object| text(object, "/kind"));
            let machine = kinds
                .find(|kind| kind.ends_with("MachineTemplate"))
                .unwrap_or_default();
            for template in objects
                .iter()
                .filter(|object| text(object, "/kind") == "KamajiConfigTemplate")
            {
                let spec = &template["spec"]["template"]["spec"];
                let name = format!("{}-{number}", file.name);
                seen += 1;
                if let Err(error) = checked(Some(&cloud_init), &name, (machine, file.is_class()), spec) {
                    wrong.push(format!("{name}: {error:#}"));
                }
            }
        }
    }
    ensure!(
        wrong.is_empty(),
        "{} of {seen}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    println!("{seen} documents");
    Ok(())
}
