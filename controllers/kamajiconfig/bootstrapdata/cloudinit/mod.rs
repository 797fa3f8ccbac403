//! The plan as a cloud-config (bootstrap.md 4.1). Pure, byte-deterministic: no times, fixed compression, sorted maps.
//! What is rendered is parsed back before anybody stores it.

use std::io::Write as _;

use flate2::{Compression, GzBuilder};
use kamaji_api::{bootstrap::Encoding, conditions::Reason};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{
    inputs::{RenderError, base64},
    plan::{Content, NodeFile, NodePlan, NodeUser},
    text::{ambiguous, expressions, is_expression},
};
use crate::{k8s::digest::hex, kamajiconfig::token::Token};

/// The most that a Secret takes, with room for its other keys.
pub const LIMIT: usize = 1_000_000;

/// Why a plan is not handed out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be written.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// It is larger than the infrastructure takes.
    #[error("the data has {bytes} bytes, {limit} are possible; largest: {largest}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The most that is possible.
        limit: usize,
        /// The five largest files.
        largest: String,
    },
    /// What was written does not read back as what was meant.
    #[error("the rendered data does not read back: {0}")]
    SelfCheck(String),
}

impl Error {
    /// The reason of the condition that says so.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Render(RenderError::Refused { .. }) => Reason::InvalidSpec,
            Self::TooLarge { .. } => Reason::TooLarge,
            Self::Render(_) | Self::SelfCheck(_) => Reason::InternalError,
        }
    }
}

/// The data with its figures.
pub struct Rendered {
    /// The cloud-config.
    pub text: zeroize::Zeroizing<String>,
    /// SHA-256, hexadecimal.
    pub sha256: String,
    /// Size compressed.
    pub gzip_bytes: usize,
}

#[derive(Serialize)]
struct CloudConfig<'a> {
    #[serde(skip_serializing_if = "slice_is_empty")]
    users: &'a [NodeUser],
    write_files: Vec<WriteFile>,
    runcmd: [&'static [&'static str]; 3],
}

fn slice_is_empty(users: &&[NodeUser]) -> bool {
    users.is_empty()
}

#[derive(Serialize)]
struct WriteFile {
    path: String,
    permissions: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    append: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    defer: bool,
    content: String,
}

/// The last one is waited for: its failure is cloud-init's failure.
const RUN: [&[&str]; 3] = [
    &["systemctl", "daemon-reload"],
    &["systemctl", "enable", "kamaji-join.service"],
    &["systemctl", "start", "kamaji-join.service"],
];
const TEMPLATE_HEAD: &str = "## template: jinja\n";
const HEAD: &str = "#cloud-config\n";

/// Renders `plan`, checks the result and its size.
///
/// # Errors
/// When it is too large, or does not read back as what was meant.
pub fn render(plan: &NodePlan, token: &Token, limit: usize) -> Result<Rendered, Error> {
    let document = CloudConfig {
        users: &plan.users,
        write_files: plan
            .files
            .iter()
            .map(|file| write_file(file, plan.templated))
            .collect(),
        runcmd: RUN,
    };
    let body = zeroize::Zeroizing::new(serde_yaml::to_string(&document).map_err(RenderError::from)?);
    let head = if plan.templated { TEMPLATE_HEAD } else { "" };
    let text = zeroize::Zeroizing::new(format!("{head}{HEAD}{}", body.as_str()));
    let written = serde_json::to_value(&document).map_err(|error| Error::SelfCheck(error.to_string()))?;
    check(&text, &written, token)?;
    if plan.templated {
        evaluated(plan, &text)?;
    }
    if text.len() > limit {
        return Err(Error::TooLarge {
            bytes: text.len(),
            limit,
            largest: largest(&document.write_files),
        });
    }
    Ok(Rendered {
        sha256: hex(&Sha256::digest(text.as_bytes())),
        gzip_bytes: gzip(text.as_bytes()).len(),
        text,
    })
}

fn write_file(file: &NodeFile, templated: bool) -> WriteFile {
    let (content, encoding) = match &file.content {
        Content::Plain(text) | Content::Template(text) => (text.clone(), None),
        Content::Gzip(bytes) => (base64(bytes), Some(Encoding::GzipBase64.as_str())),
        Content::Bytes(bytes) => pack(bytes, templated),
    };
    WriteFile {
        path: file.path.clone(),
        permissions: file.mode.clone(),
        owner: file.owner.clone(),
        encoding,
        append: file.append,
        defer: file.late,
        content,
    }
}

/// Text stays readable where that costs nothing; everything else travels as base64, compressed where that is
/// smaller. What a reader of YAML 1.1 (cloud-init's) could take for something else than text is encoded too.
fn pack(bytes: &[u8], templated: bool) -> (String, Option<&'static str>) {
    let packed = base64(&gzip(bytes));
    let readable = !templated && bytes.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\n'));
    let indented = bytes.len() + 4 * bytes.split(|byte| *byte == b'\n').count();
    if readable
        && indented <= packed.len()
        && let Ok(text) = std::str::from_utf8(bytes)
        && !ambiguous(text)
    {
        return (text.to_owned(), None);
    }
    let plain = base64(bytes);
    if packed.len() < plain.len() {
        (packed, Some(Encoding::GzipBase64.as_str()))
    } else {
        (plain, Some(Encoding::Base64.as_str()))
    }
}

/// Gzip without a time, at a fixed level.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    // Writing to memory does not fail.
    let _ = writer.write_all(bytes);
    writer.finish().unwrap_or_default()
}

/// The text is one YAML mapping, says what was meant, and holds the token once.
fn check(text: &str, written: &Value, token: &Token) -> Result<(), Error> {
    let parsed: Value = serde_yaml::from_str(text).map_err(|error| {
        let line = error.location().map_or(0, |at| at.line());
        Error::SelfCheck(format!("not YAML at line {line}"))
    })?;
    if parsed != *written {
        return Err(Error::SelfCheck("another document came out".to_owned()));
    }
    let times = text.matches(token.expose().as_str()).count();
    if times != 1 {
        return Err(Error::SelfCheck(format!("the token stands in it {times} times")));
    }
    Ok(())
}

/// cloud-init evaluates all of the text, not the templates alone, before it reads the YAML. So templates stand in it
/// byte for byte, without quotes and escapes that would end up in their expressions, and nothing else is an expression.
fn evaluated(plan: &NodePlan, text: &str) -> Result<(), Error> {
    let refused = |field: String, why| Err(RenderError::Refused { field, why }.into());
    let elsewhere = "holds {{, {% or {#, and another file is a template: cloud-init would evaluate both";
    let mut meant = 0;
    for file in &plan.files {
        if is_expression(&file.path) {
            return refused(format!("{}.path", file.field), elsewhere);
        }
        if let Content::Template(template) = &file.content {
            meant += expressions(template);
            if !text.contains(&block(template)) {
                let why = "cannot be carried as a template: remove tabs, spaces at the end of lines and what cannot \
                           be printed, or use contentFormat Raw";
                return refused(file.field.clone(), why);
            }
        }
    }
    for (at, user) in plan.users.iter().enumerate() {
        if serde_json::to_string(user).is_ok_and(|user| is_expression(&user)) {
            return refused(format!("users[{at}]"), elsewhere);
        }
    }
    if expressions(text) == meant {
        Ok(())
    } else {
        let why = "more than the templates would be evaluated on the machine";
        Err(Error::SelfCheck(why.to_owned()))
    }
}

/// A template as it stands in `write_files`: every line, indented, nothing else.
fn block(template: &str) -> String {
    let mut block = String::from("\n");
    for line in template.strip_suffix('\n').unwrap_or(template).split('\n') {
        if !line.is_empty() {
            block.push_str("    ");
            block.push_str(line);
        }
        block.push('\n');
    }
    block
}

fn largest(files: &[WriteFile]) -> String {
    let mut sizes: Vec<_> = files
        .iter()
        .map(|file| (file.content.len(), &file.path))
        .collect();
    sizes.sort_by(|a, b| b.cmp(a));
    let named: Vec<_> = sizes
        .iter()
        .take(5)
        .map(|(bytes, path)| format!("{path} ({bytes})"))
        .collect();
    named.join(", ")
}

#[cfg(test)]
mod template_tests;
#[cfg(test)]
mod tests;
