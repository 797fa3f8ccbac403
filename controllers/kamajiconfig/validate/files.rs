//! Validates `files` and `users` of a KamajiConfig. Pure.

use std::collections::BTreeSet;

use kamaji_api::{
    bootstrap::{ContentFormat, File, KamajiConfigSpec, reserved_path},
    conditions::Reason,
};

use super::is_absolute;
use crate::kamajiconfig::bootstrapdata::{content, text};

/// What is wrong with `files`.
pub fn files(spec: &KamajiConfigSpec, report: &mut impl FnMut(Reason, String)) {
    let mut seen = BTreeSet::new();
    let templated = text::may_be_templated(spec);
    for (at, file) in spec.files.iter().enumerate() {
        let path = file.path.as_str();
        if !is_absolute(path) {
            report(
                Reason::InvalidSpec,
                format!("files[{at}].path must be absolute, without . and .. in it"),
            );
        } else if let Some(reserved) = reserved_path(path) {
            report(
                Reason::ReservedPath,
                format!(
                    "files[{at}].path: {reserved} is reserved for this provider: use another path, or the field for it \
                     (kubelet.config, os)"
                ),
            );
        } else if templated && text::is_expression(path) {
            report(
                Reason::InvalidSpec,
                format!(
                    "files[{at}].path holds {{{{, {{% or {{#, which cloud-init would evaluate with the templates: use \
                     another path"
                ),
            );
        } else if !seen.insert(path) {
            report(
                Reason::InvalidSpec,
                format!("files[{at}].path: {path} is set twice"),
            );
        }
        content(at, file, report);
        if let Some(mode) = &file.permissions
            && !is_mode(mode)
        {
            report(
                Reason::InvalidSpec,
                format!("files[{at}].permissions must be octal, such as 0640"),
            );
        }
        if let Some(owner) = &file.owner
            && (owner.is_empty()
                || !owner
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-:".contains(&b))
                || text::is_ambiguous(owner))
        {
            report(
                Reason::InvalidSpec,
                format!("files[{at}].owner must be user:group, both by name"),
            );
        }
    }
}

fn content(at: usize, file: &File, report: &mut impl FnMut(Reason, String)) {
    if file.content.is_some() == file.content_from.is_some() {
        report(
            Reason::InvalidSpec,
            format!("files[{at}] requires either content or contentFrom"),
        );
    }
    if let Some(from) = &file.content_from
        && from.secret.is_some() == from.config_map.is_some()
    {
        report(
            Reason::InvalidSpec,
            format!("files[{at}].contentFrom requires either secret or configMap"),
        );
    }
    if file
        .content
        .as_ref()
        .is_some_and(|content| content.len() > 10_240)
    {
        report(
            Reason::InvalidSpec,
            format!("files[{at}].content is longer than 10240 bytes: use contentFrom"),
        );
    }
    if let (Some(encoding), Some(content)) = (file.encoding, &file.content)
        && let Err(why) = content::decoded(encoding, content.as_bytes())
    {
        report(
            Reason::InvalidSpec,
            format!(
                "files[{at}].content {why}, which encoding {} requires",
                encoding.as_str()
            ),
        );
    }
    if file.content_format == ContentFormat::Raw
        && file.encoding.is_none()
        && let Some(name) = file.content.as_deref().and_then(text::instance_name)
    {
        report(
            Reason::InvalidSpec,
            format!(
                "files[{at}].content reads {name} in a template, and nothing evaluates it: set contentFormat: Jinja; text \
                 that stays as it is can be given in base64, with encoding"
            ),
        );
    }
    if file.content_format == ContentFormat::Jinja {
        if file.encoding.is_some() {
            report(
                Reason::InvalidSpec,
                format!("files[{at}]: contentFormat Jinja takes no encoding"),
            );
        }
        if file
            .content
            .as_deref()
            .is_some_and(|content| !text::is_balanced(content))
        {
            report(
                Reason::InvalidSpec,
                format!("files[{at}].content: a {{{{ or {{% is not closed"),
            );
        }
    }
}

/// What is wrong with `users`.
pub fn users(spec: &KamajiConfigSpec, report: &mut impl FnMut(Reason, String)) {
    let mut seen = BTreeSet::new();
    for (at, user) in spec.users.iter().enumerate() {
        let name = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if user.name.is_empty()
            || user.name.len() > 32
            || !user.name.bytes().all(name)
            || !seen.insert(user.name.as_str())
        {
            report(
                Reason::InvalidSpec,
                format!(
                    "users[{at}].name must be a unique user name of at most 32 letters, digits, dots, underscores and dashes"
                ),
            );
        }
        if user.passwd.is_some() && user.passwd_from.is_some() {
            report(
                Reason::InvalidSpec,
                format!("users[{at}] has both passwd and passwdFrom"),
            );
        }
        let texts = [
            &user.gecos,
            &user.groups,
            &user.home_dir,
            &user.shell,
            &user.passwd,
            &user.primary_group,
            &user.sudo,
        ];
        let keys = user.ssh_authorized_keys.iter();
        if texts
            .into_iter()
            .flatten()
            .chain(keys)
            .any(|text| !text::is_inert(text))
        {
            report(
                Reason::InvalidSpec,
                format!(
                    "users[{at}]: each value must be one line of text that is no number, no time and no template expression"
                ),
            );
        }
    }
}

fn is_mode(mode: &str) -> bool {
    let digits = mode
        .strip_prefix('0')
        .filter(|rest| rest.len() >= 3)
        .unwrap_or(mode);
    (3..=4).contains(&digits.len()) && digits.bytes().all(|b| (b'0'..=b'7').contains(&b))
}
