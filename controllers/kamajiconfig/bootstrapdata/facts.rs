//! What only the machine may know: name, provider ID, address and labels of its Node, a line each in one file. Pure.
//!
//! The join script parses the file and does not source it, so that no value becomes a command. What cloud-init evaluates
//! comes from the metadata of the instance, which is trusted like the bootstrap data itself; a value of several lines is
//! refused by the machine all the same, since it would be more facts.

use kamaji_api::bootstrap::{NameSource, ProviderIdSource};

use super::{
    inputs::{Inputs, name_source},
    node::Content,
    text::is_expression,
};
use crate::kamajiconfig::owner::Owner;

/// The facts, in the order of their lines: name and value.
fn facts(inputs: &Inputs<'_>) -> Vec<(String, String)> {
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
    let fixed = [
        ("nodename", name),
        ("providerid", provider_id),
        ("nodeip", address),
    ];
    let fixed = fixed.map(|(key, value)| (key.to_owned(), value.unwrap_or_default().to_owned()));
    let labels = registration.label_templates.values().enumerate();
    let labels = labels.map(|(at, template)| (format!("label{at}"), template.clone()));
    fixed.into_iter().chain(labels).collect()
}

/// The file.
pub fn content(inputs: &Inputs<'_>) -> Content {
    let lines: Vec<_> = facts(inputs)
        .into_iter()
        .map(|(key, value)| format!("{key}={value}\n"))
        .collect();
    let text = lines.concat();
    if is_expression(&text) {
        Content::Template(text)
    } else {
        Content::Bytes(text.into_bytes())
    }
}

/// The names of the facts in the order of their lines, if something evaluates one of them on the machine.
pub fn evaluated(inputs: &Inputs<'_>) -> Option<String> {
    let facts = facts(inputs);
    let any = facts.iter().any(|(_, value)| is_expression(value));
    let names: Vec<_> = facts.into_iter().map(|(key, _)| key).collect();
    any.then(|| names.join(" "))
}
