//! Rules of `files` and `users`. Pure.

use std::collections::BTreeSet;

use kamaji_api::{
    bootstrap::{ContentFormat, File, KamajiConfigSpec, reserved_path},
    conditions::Reason,
};

use super::is_absolute;
use crate::kamajiconfig::bootstrapdata::{plan, text};

/// Breaches in `files`.
pub fn files(spec: &KamajiConfigSpec, say: &mut impl FnMut(Reason, String)) {
    let mut seen = BTreeSet::new();
    let templated = text::may_be_templated(spec);
    for (at, file) in spec.files.iter().enumerate() {
        let path = file.path.as_str();
        if !is_absolute(path) {
            say(
                Reason::InvalidSpec,
                format!("files[{at}].path must be absolute and without . and .. in it"),
            );
        } else if let Some(reserved) = reserved_path(path) {
            say(
                Reason::ReservedPath,
                format!(
                    "files[{at}].path: {reserved} is the provider's own: use another path, or the field for it \
                     (kubelet.config, os)"
                ),
            );
        } else if templated && text::is_expression(path) {
            say(
                Reason::InvalidSpec,
                format!(
                    "files[{at}].path holds {{{{, {{% or {{#, which cloud-init would evaluate beside the templates: use \
                     another path"
                ),
            );
        } else if !seen.insert(path) {
            say(
                Reason::InvalidSpec,
                format!("files[{at}].path: {path} is there twice"),
            );
        }
        content(at, file, say);
        if let Some(mode) = &file.permissions
            && !is_mode(mode)
        {
            say(
                Reason::InvalidSpec,
                format!("files[{at}].permissions must be octal, such as 0640"),
            );
        }
        if let Some(owner) = &file.owner
            && (owner.is_empty()
                || !owner
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-:".contains(&b))
                || text::ambiguous(owner))
        {
            say(
                Reason::InvalidSpec,
                format!("files[{at}].owner must be user:group by name"),
            );
        }
    }
}

fn content(at: usize, file: &File, say: &mut impl FnMut(Reason, String)) {
    if file.content.is_some() == file.content_from.is_some() {
        say(
            Reason::InvalidSpec,
            format!("files[{at}] needs either content or contentFrom"),
        );
    }
    if let Some(from) = &file.content_from
        && from.secret.is_some() == from.config_map.is_some()
    {
        say(
            Reason::InvalidSpec,
            format!("files[{at}].contentFrom needs either secret or configMap"),
        );
    }
    if file
        .content
        .as_ref()
        .is_some_and(|content| content.len() > 10_240)
    {
        say(
            Reason::InvalidSpec,
            format!("files[{at}].content is longer than 10240 bytes: use contentFrom"),
        );
    }
    if let (Some(encoding), Some(content)) = (file.encoding, &file.content)
        && let Err(why) = plan::decoded(encoding, content.as_bytes())
    {
        say(
            Reason::InvalidSpec,
            format!(
                "files[{at}].content {why}, which encoding {} says it is",
                encoding.as_str()
            ),
        );
    }
    if file.content_format == ContentFormat::Jinja {
        if file.encoding.is_some() {
            say(
                Reason::InvalidSpec,
                format!("files[{at}]: contentFormat Jinja takes no encoding"),
            );
        }
        if file
            .content
            .as_deref()
            .is_some_and(|content| !text::is_balanced(content))
        {
            say(
                Reason::InvalidSpec,
                format!("files[{at}].content: a {{{{ or {{% is not closed"),
            );
        }
    }
}

/// Breaches in `users`.
pub fn users(spec: &KamajiConfigSpec, say: &mut impl FnMut(Reason, String)) {
    let mut seen = BTreeSet::new();
    for (at, user) in spec.users.iter().enumerate() {
        let name = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if user.name.is_empty()
            || user.name.len() > 32
            || !user.name.bytes().all(name)
            || !seen.insert(user.name.as_str())
        {
            say(
                Reason::InvalidSpec,
                format!("users[{at}].name must be a user's name, once"),
            );
        }
        if user.passwd.is_some() && user.passwd_from.is_some() {
            say(
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
            say(
                Reason::InvalidSpec,
                format!("users[{at}]: values are one line of text, no number, time or expression"),
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
