//! What a machine is given on its first boot, before any envelope: staged files and users (bootstrap.md D1, D2, 1.2).
//! Pure: everything arrives as an argument. The same plan becomes a cloud-config, and Ignition later.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use kamaji_api::bootstrap::{ContentFormat, Encoding, File, NameSource, ProviderIdSource, User};
use serde::Serialize;

use super::{
    inputs::{Inputs, RenderError, join_timeout, name_source},
    join, kubelet,
    text::{is_balanced, is_expression, is_inert},
};

/// Folder of the staged files.
pub const STAGE: &str = "/etc/kamaji/bootstrap";
/// What the machine gets.
#[derive(Debug)]
pub struct NodePlan {
    /// Files, ours first.
    pub files: Vec<NodeFile>,
    /// Users.
    pub users: Vec<NodeUser>,
    /// Something is to be evaluated on the machine.
    pub templated: bool,
}

/// One file.
#[derive(Debug)]
pub struct NodeFile {
    /// Where in the spec it comes from.
    pub field: String,
    /// Absolute path.
    pub path: String,
    /// Octal digits.
    pub mode: String,
    /// `user:group`, where it is not root.
    pub owner: Option<String>,
    /// Append instead of replace.
    pub append: bool,
    /// Write after users were made.
    pub late: bool,
    /// Content.
    pub content: Content,
}

/// Content of a file, by what an envelope may do to it.
pub enum Content {
    /// Text that stays as it is in the envelope: rotation of the token changes its bytes and no others.
    Plain(String),
    /// Text that is evaluated on the machine.
    Template(String),
    /// Bytes that arrive unchanged, however they travel.
    Bytes(Vec<u8>),
    /// Compressed by the user; unpacked on the machine.
    Gzip(Vec<u8>),
}

impl std::fmt::Debug for Content {
    /// Contents hold the token and what users put into Secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[content]")
    }
}

/// One user, in the words of cloud-init.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NodeUser {
    /// Name.
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    gecos: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    homedir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inactive: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shell: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    passwd: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    primary_group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lock_passwd: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sudo: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ssh_authorized_keys: Vec<String>,
}

/// Makes the plan.
///
/// # Errors
/// When what Secrets and ConfigMaps hold cannot be carried to the machine.
pub fn plan(inputs: &Inputs<'_>) -> Result<NodePlan, RenderError> {
    let spec = inputs.spec;
    let mut files = staged(inputs)?;
    let mut users = Vec::with_capacity(spec.users.len());
    for (at, user) in spec.users.iter().enumerate() {
        users.push(node_user(at, user, inputs.passwords)?);
    }
    for (at, (file, content)) in spec.files.iter().zip(inputs.files).enumerate() {
        if let Some(bytes) = content {
            files.push(user_file(at, file, bytes, &spec.users)?);
        }
    }
    let templated = files
        .iter()
        .any(|file| matches!(file.content, Content::Template(_)));
    Ok(NodePlan {
        files,
        users,
        templated,
    })
}

/// Our own files (bootstrap.md 1.2): all of them below [`STAGE`] but the join unit.
fn staged(inputs: &Inputs<'_>) -> Result<Vec<NodeFile>, RenderError> {
    let spec = inputs.spec;
    let config = kubelet::configuration(spec, inputs.version, inputs.target);
    let stage = |name: &str, mode: &str, content: Content| NodeFile {
        field: "nodeRegistration".to_owned(),
        path: format!("{STAGE}/{name}"),
        mode: mode.to_owned(),
        owner: None,
        append: false,
        late: false,
        content,
    };
    let text = |text: String| Content::Bytes(text.into_bytes());
    let mut files = vec![
        stage("join.sh", "0700", text(join::script(inputs, &config)?)),
        stage("node.facts", "0600", facts(inputs)),
        stage(
            "bootstrap.conf",
            "0600",
            Content::Plain(join::kubeconfig(inputs)?),
        ),
        stage("ca.crt", "0600", text(inputs.target.authority_pem.clone())),
        stage("config.yaml", "0600", text(join::yaml(&config)?)),
        NodeFile {
            path: "/etc/systemd/system/kamaji-join.service".to_owned(),
            ..stage(
                "",
                "0600",
                text(join::join_unit(
                    join_timeout(spec),
                    !spec.post_join_commands.is_empty(),
                )?),
            )
        },
    ];
    for (folder, commands) in [
        ("pre.d", &spec.pre_join_commands),
        ("post.d", &spec.post_join_commands),
    ] {
        for (number, command) in commands.iter().enumerate() {
            files.push(stage(
                &format!("{folder}/{number:04}"),
                "0600",
                text(format!("{command}\n")),
            ));
        }
    }
    Ok(files)
}

/// Facts that only the machine may know. Parsed there, never sourced (bootstrap.md 1.2).
fn facts(inputs: &Inputs<'_>) -> Content {
    let registration = &inputs.spec.node_registration;
    let name = match name_source(inputs.spec) {
        NameSource::MachineName => Some(inputs.machine),
        NameSource::Template => registration.name_template.as_deref(),
        NameSource::Hostname => None,
    };
    let provider_id = match registration.provider_id.source {
        ProviderIdSource::Template => registration.provider_id.template.as_deref(),
        _ => None,
    };
    let address = registration.node_ip.as_ref().and_then(|ip| ip.address.as_deref());
    let text = [
        ("nodename", name),
        ("providerid", provider_id),
        ("nodeip", address),
    ]
    .map(|(key, value)| format!("{key}={}\n", value.unwrap_or_default()))
    .concat();
    if is_expression(&text) {
        Content::Template(text)
    } else {
        Content::Bytes(text.into_bytes())
    }
}

/// What the user encoded.
///
/// # Errors
/// What is wrong with it.
pub fn decoded(encoding: Encoding, bytes: &[u8]) -> Result<Content, &'static str> {
    let plain = || {
        let text: Vec<u8> = bytes
            .iter()
            .copied()
            .filter(|byte| !byte.is_ascii_whitespace())
            .collect();
        BASE64_STANDARD.decode(text).map_err(|_| "is not base64")
    };
    let gzip = |bytes: Vec<u8>| {
        if bytes.starts_with(&[0x1f, 0x8b]) {
            Ok(Content::Gzip(bytes))
        } else {
            Err("is not compressed with gzip")
        }
    };
    match encoding {
        Encoding::Base64 => plain().map(Content::Bytes),
        Encoding::Gzip => gzip(bytes.to_vec()),
        Encoding::GzipBase64 => plain().and_then(gzip),
    }
}

/// A text to be evaluated.
fn template(bytes: &[u8]) -> Result<Content, &'static str> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| "is not text in UTF-8, which contentFormat Jinja needs: use Raw")?;
    if !is_balanced(text) {
        return Err("has a {{, {% or {# that is not closed");
    }
    if !is_expression(text) {
        return Ok(Content::Bytes(bytes.to_vec()));
    }
    // Only text of several lines is written without quotes, which would become part of an expression.
    let end = if text.contains('\n') { "" } else { "\n" };
    Ok(Content::Template(format!("{text}{end}")))
}

fn user_file(at: usize, file: &File, bytes: &[u8], users: &[User]) -> Result<NodeFile, RenderError> {
    let content = match (file.encoding, file.content_format) {
        (Some(encoding), _) => decoded(encoding, bytes),
        (None, ContentFormat::Jinja) => template(bytes),
        (None, ContentFormat::Raw) => Ok(Content::Bytes(bytes.to_vec())),
    };
    let field = format!("files[{at}]");
    let content = content.map_err(|why| RenderError::Refused {
        field: field.clone(),
        why,
    })?;
    let owner_is_made = file
        .owner
        .as_deref()
        .and_then(|owner| owner.split(':').next())
        .is_some_and(|owner| users.iter().any(|user| user.name == owner));
    Ok(NodeFile {
        field,
        path: file.path.clone(),
        mode: file.permissions.clone().unwrap_or_else(|| "0644".to_owned()),
        owner: file.owner.clone(),
        append: file.append,
        late: file.defer || owner_is_made,
        content,
    })
}

fn node_user(at: usize, user: &User, passwords: &BTreeMap<String, String>) -> Result<NodeUser, RenderError> {
    let password = passwords.get(&user.name);
    if password.is_some_and(|password| !is_inert(password)) {
        return Err(RenderError::Refused {
            field: format!("users[{at}].passwdFrom"),
            why: "must hold the hash of a password in one line",
        });
    }
    Ok(NodeUser {
        name: user.name.clone(),
        gecos: user.gecos.clone(),
        groups: user.groups.clone(),
        homedir: user.home_dir.clone(),
        // cloud-init wants days; zero is at once.
        inactive: (user.inactive == Some(true)).then(|| "0".to_owned()),
        shell: user.shell.clone(),
        passwd: user.passwd.clone().or_else(|| password.cloned()),
        primary_group: user.primary_group.clone(),
        lock_passwd: user.lock_password,
        sudo: user.sudo.clone(),
        ssh_authorized_keys: user.ssh_authorized_keys.clone(),
    })
}
