//! Computes what a machine gets for its first boot. Pure.
//!
//! The provider's files are staged below one folder, where the join script reads them. The unit `kamaji-join.service` runs
//! the script at every boot; it is the only thing that the machine's first-boot software has to start.

use kamaji_api::bootstrap::{NameSource, ProviderIdSource};

use super::{
    content,
    inputs::{Inputs, RenderError, join_timeout, name_source},
    join, kubelet,
    node::{Content, NodeCommands, NodePlan, NodeUnit, PRIVATE, staged, text},
    text::is_expression,
};
use crate::kamajiconfig::owner::Owner;

/// Computes the plan.
///
/// # Errors
/// When a value of the user's Secrets and ConfigMaps cannot be carried to the machine.
pub fn plan(inputs: &Inputs<'_>) -> Result<NodePlan, RenderError> {
    let spec = inputs.spec;
    let config = kubelet::configuration(spec, inputs.version, inputs.target);
    Ok(NodePlan {
        staged: vec![
            staged("join.sh", "0700", text(join::script(inputs, &config)?)),
            staged("node.facts", PRIVATE, facts(inputs)),
            staged(
                "bootstrap.conf",
                PRIVATE,
                Content::Plain(join::kubeconfig(inputs)?),
            ),
            staged("ca.crt", PRIVATE, text(inputs.target.ca_pem.clone())),
        ],
        units: vec![NodeUnit {
            name: "kamaji-join.service",
            content: join::join_unit(join_timeout(spec), !spec.post_join_commands.is_empty())?,
            enabled: true,
            started: true,
        }],
        commands: NodeCommands {
            before: spec.pre_join_commands.clone(),
            after: spec.post_join_commands.clone(),
        },
        files: content::files(spec, inputs.files)?,
        users: content::users(spec, inputs.passwords)?,
        token: inputs.token.clone(),
    })
}

/// What only the machine may know. The join script parses this file and does not source it, so that no value becomes a
/// command.
fn facts(inputs: &Inputs<'_>) -> Content {
    let registration = &inputs.spec.node_registration;
    let name = match name_source(registration, &inputs.owner) {
        NameSource::MachineName => match &inputs.owner {
            Owner::Machine(name) => Some(*name),
            Owner::Pool(pool) => match *pool {},
        },
        NameSource::Template => registration.name_template.as_deref(),
        NameSource::Hostname => None,
    };
    let provider_id = match registration.provider_id.source {
        ProviderIdSource::Template => registration.provider_id.template.as_deref(),
        ProviderIdSource::Auto
        | ProviderIdSource::Machine
        | ProviderIdSource::CloudProvider
        | ProviderIdSource::None => None,
    };
    let address = registration.node_ip.as_ref().and_then(|ip| ip.address.as_deref());
    let labels = registration.label_templates.iter();
    let labels = labels.map(|(key, template)| format!("label={key}={template}\n"));
    let text: Vec<_> = [
        ("nodename", name),
        ("providerid", provider_id),
        ("nodeip", address),
    ]
    .map(|(key, value)| format!("{key}={}\n", value.unwrap_or_default()))
    .into_iter()
    .chain(labels)
    .collect();
    let text = text.concat();
    if is_expression(&text) {
        Content::Template(text)
    } else {
        Content::Bytes(text.into_bytes())
    }
}
