//! Files and users of the spec, as the machine gets them. Pure.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use kamaji_api::bootstrap::{ContentFormat, Encoding, File, KamajiConfigSpec, User};

use super::{
    inputs::RenderError,
    node::{Content, NodeFile, NodeUser},
    text::{is_balanced, is_expression, is_inert},
};

/// The files of `spec` that have a content in `contents`, by position.
///
/// # Errors
/// When a content is not what its field says it is.
pub fn files(spec: &KamajiConfigSpec, contents: &[Option<Vec<u8>>]) -> Result<Vec<NodeFile>, RenderError> {
    spec.files
        .iter()
        .zip(contents)
        .enumerate()
        .filter_map(|(at, (file, content))| Some(node_file(at, file, content.as_ref()?, &spec.users)))
        .collect()
}

/// The users of `spec`, with password hashes by user name.
///
/// # Errors
/// When a password hash has more than one line.
pub fn users(
    spec: &KamajiConfigSpec,
    passwords: &BTreeMap<String, String>,
) -> Result<Vec<NodeUser>, RenderError> {
    spec.users
        .iter()
        .enumerate()
        .map(|(at, user)| node_user(at, user, passwords))
        .collect()
}

/// Content that the user encoded.
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

fn template(bytes: &[u8]) -> Result<Content, &'static str> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| "is not text in UTF-8, which contentFormat Jinja requires; use Raw")?;
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

fn node_file(at: usize, file: &File, bytes: &[u8], users: &[User]) -> Result<NodeFile, RenderError> {
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
    let owner_is_created = file
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
        after_users: file.defer || owner_is_created,
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
        home_dir: user.home_dir.clone(),
        inactive: user.inactive == Some(true),
        shell: user.shell.clone(),
        password_hash: user.passwd.clone().or_else(|| password.cloned()),
        primary_group: user.primary_group.clone(),
        lock_password: user.lock_password,
        sudo: user.sudo.clone(),
        ssh_authorized_keys: user.ssh_authorized_keys.clone(),
    })
}
