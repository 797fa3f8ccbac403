//! A plan as a cloud-config for cloud-init. Pure, and byte-deterministic: no times, fixed compression, fixed order.
//! The rendered text is parsed back and compared before anybody stores it.

use kamaji_api::{bootstrap::Encoding, presets::Style};
use serde::Serialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::{
    document::{Document, base64, gzip},
    inputs::RenderError,
    node::{Content, NodeFile, NodePlan, NodeUnit, NodeUser},
    text::{expressions, is_ambiguous, is_expression},
};
use crate::kamajiconfig::token::Token;

const TEMPLATE_HEAD: &str = "## template: jinja\n";
const HEAD: &str = "#cloud-config\n";
const UNITS: &str = "/etc/systemd/system";

#[derive(Serialize)]
struct CloudConfig<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    users: Vec<CloudUser<'a>>,
    write_files: Vec<WriteFile>,
    runcmd: Vec<Command<'a>>,
}

/// A command: words, or one string for the shell.
#[derive(Serialize)]
#[serde(untagged)]
enum Command<'a> {
    Words(Vec<&'a str>),
    Line(String),
}

/// A user in the words of cloud-init.
#[derive(Serialize)]
struct CloudUser<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    gecos: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    homedir: Option<&'a str>,
    /// Days after which an account with an expired password is disabled; zero is at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    inactive: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shell: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    passwd: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    primary_group: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lock_passwd: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sudo: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    ssh_authorized_keys: &'a [String],
}

impl<'a> CloudUser<'a> {
    fn of(user: &'a NodeUser) -> Self {
        let NodeUser {
            name,
            gecos,
            groups,
            home_dir,
            inactive,
            shell,
            password_hash,
            primary_group,
            lock_password,
            sudo,
            ssh_authorized_keys,
        } = user;
        Self {
            name,
            gecos: gecos.as_deref(),
            groups: groups.as_deref(),
            homedir: home_dir.as_deref(),
            inactive: inactive.then_some("0"),
            shell: shell.as_deref(),
            passwd: password_hash.as_deref(),
            primary_group: primary_group.as_deref(),
            lock_passwd: *lock_password,
            sudo: sudo.as_deref(),
            ssh_authorized_keys,
        }
    }
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

/// Renders `plan` in a style and checks the result.
///
/// # Errors
/// When it does not read back as the plan, or a template or a content cannot be carried.
pub fn render(plan: &NodePlan, style: Style) -> Result<Document, RenderError> {
    let NodePlan {
        staged,
        units,
        commands,
        files,
        users,
        token,
    } = plan;
    let templated = plan.is_templated();
    // Whatever evaluates braces finds none.
    let packed = templated || style == Style::Packed;
    let write = |file: &NodeFile| match style {
        Style::Plain => plain_file(file),
        Style::Usual | Style::Packed => Ok(write_file(file, packed)),
    };
    let document = CloudConfig {
        users: users.iter().map(CloudUser::of).collect(),
        write_files: staged
            .iter()
            .map(write)
            .chain(units.iter().map(|unit| write(&unit_file(unit))))
            .chain(commands.files().map(|file| write(&file)))
            .chain(files.iter().map(write))
            .collect::<Result<_, _>>()?,
        runcmd: run(units, style),
    };
    let body = Zeroizing::new(serde_yaml::to_string(&document)?);
    let head = if templated { TEMPLATE_HEAD } else { "" };
    let text = Zeroizing::new(format!("{head}{HEAD}{}", body.as_str()));
    let written =
        serde_json::to_value(&document).map_err(|error| RenderError::SelfCheck(error.to_string()))?;
    check(&text, &written, token)?;
    if packed {
        check_templates(plan, &document, &text)?;
    }
    let users = serde_json::to_string(&document.users).map_or(0, |users| users.len());
    let users = (!document.users.is_empty()).then(|| ("users".to_owned(), users));
    let files = document.write_files.into_iter();
    let files = files.map(|file| (file.path, file.content.len()));
    let sizes = files.chain(users).collect();
    Ok(Document { text, sizes })
}

/// cloud-init has no units: their files are written, and commands make systemd read them.
fn unit_file(unit: &NodeUnit) -> NodeFile {
    NodeFile {
        field: "nodeRegistration".to_owned(),
        path: format!("{UNITS}/{}", unit.name),
        mode: "0600".to_owned(),
        owner: None,
        append: false,
        after_users: false,
        content: Content::Bytes(unit.content.clone().into_bytes()),
    }
}

/// cloud-init waits for each command, and the failure of a unit to start is its own failure.
fn run(units: &[NodeUnit], style: Style) -> Vec<Command<'_>> {
    let enabled = units.iter().filter(|unit| unit.enabled);
    let started = units.iter().filter(|unit| unit.started);
    let reload = vec!["systemctl", "daemon-reload"];
    std::iter::once(reload)
        .chain(enabled.map(|unit| vec!["systemctl", "enable", unit.name]))
        .chain(started.map(|unit| vec!["systemctl", "start", unit.name]))
        .map(|words| match style {
            Style::Plain => Command::Line(words.join(" ")),
            Style::Usual | Style::Packed => Command::Words(words),
        })
        .collect()
}

/// A file in plain text, without an encoding.
fn plain_file(file: &NodeFile) -> Result<WriteFile, RenderError> {
    let refused = |why| RenderError::Refused {
        field: file.field.clone(),
        why,
    };
    if file.append {
        return Err(refused(
            "appends to a file, and machines of this infrastructure replace files alone",
        ));
    }
    let root = ["root", "root:root"];
    if file.owner.as_deref().is_some_and(|owner| !root.contains(&owner)) {
        return Err(refused(
            "has an owner, and machines of this infrastructure write files as root: set it in preJoinCommands",
        ));
    }
    let bytes = match &file.content {
        Content::Plain(text) | Content::Template(text) => text.as_bytes(),
        Content::Bytes(bytes) => bytes,
        Content::Gzip(_) => {
            return Err(refused(
                "is compressed, and machines of this infrastructure read plain text alone",
            ));
        }
    };
    let text = std::str::from_utf8(bytes).map_err(|_| {
        refused("is not text in UTF-8, and machines of this infrastructure read plain text alone")
    })?;
    Ok(WriteFile {
        path: file.path.clone(),
        permissions: file.mode.clone(),
        owner: None,
        encoding: None,
        append: false,
        defer: false,
        content: text.to_owned(),
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
        defer: file.after_users,
        content,
    }
}

/// Text stays readable where that is not larger. Everything else is base64, compressed if that is smaller, and so is
/// text that a parser of YAML 1.1 could read as something else.
fn pack(bytes: &[u8], templated: bool) -> (String, Option<&'static str>) {
    let packed = base64(&gzip(bytes));
    let readable = !templated && bytes.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\n'));
    let indented = bytes.len() + 4 * bytes.split(|byte| *byte == b'\n').count();
    if readable
        && indented <= packed.len()
        && let Ok(text) = std::str::from_utf8(bytes)
        && !is_ambiguous(text)
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

/// The text is one YAML mapping, equals the document, and holds the token once.
fn check(text: &str, written: &Value, token: &Token) -> Result<(), RenderError> {
    let parsed: Value = serde_yaml::from_str(text).map_err(|error| {
        let line = error.location().map_or(0, |at| at.line());
        RenderError::SelfCheck(format!("not YAML at line {line}"))
    })?;
    if parsed != *written {
        return Err(RenderError::SelfCheck("it is another document".to_owned()));
    }
    let times = text.matches(token.expose().as_str()).count();
    if times != 1 {
        return Err(RenderError::SelfCheck(format!(
            "it holds the token {times} times"
        )));
    }
    Ok(())
}

/// cloud-init evaluates the whole text before it parses the YAML, and so do some providers. So a template is in the text byte for byte, without
/// quotes and escapes that would become part of its expressions, and no other text holds an expression.
fn check_templates(plan: &NodePlan, document: &CloudConfig<'_>, text: &str) -> Result<(), RenderError> {
    let refused = |field: String, why| Err(RenderError::Refused { field, why });
    let elsewhere = if plan.is_templated() {
        "holds {{, {% or {#, and the data has a template, perhaps for a label of the preset: cloud-init would evaluate both"
    } else {
        "holds {{, {% or {#, which the infrastructure provider would evaluate"
    };
    let mut meant = 0;
    for file in plan.staged.iter().chain(&plan.files) {
        if is_expression(&file.path) {
            return refused(format!("{}.path", file.field), elsewhere);
        }
        if let Content::Template(template) = &file.content {
            meant += expressions(template);
            if !text.contains(&block(template)) {
                let why = "cannot be carried as a template: remove tabs, spaces at the end of lines and characters that \
                           cannot be printed, or use contentFormat Raw";
                return refused(file.field.clone(), why);
            }
        }
    }
    for (at, user) in document.users.iter().enumerate() {
        if serde_json::to_string(user).is_ok_and(|user| is_expression(&user)) {
            return refused(format!("users[{at}]"), elsewhere);
        }
    }
    if expressions(text) == meant {
        Ok(())
    } else {
        let why = "more than the templates would be evaluated on the machine";
        Err(RenderError::SelfCheck(why.to_owned()))
    }
}

/// A template as `write_files` has it: every line indented, nothing else.
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

#[cfg(test)]
mod style_tests;
#[cfg(test)]
mod template_tests;
#[cfg(test)]
mod tests;
