//! Computes what a machine gets for its first boot. Pure.
//!
//! The provider's files are staged below one folder, where the join script reads them. The unit `kamaji-join.service` runs
//! the script at every boot; it is the only thing that the machine's first-boot software has to start.

use super::{
    content, facts,
    inputs::{Inputs, RenderError, join_timeout},
    join, kubelet,
    node::{Content, NodeCommands, NodePlan, NodeUnit, PRIVATE, staged, text},
};

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
            staged("node.facts", PRIVATE, facts::content(inputs)),
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
