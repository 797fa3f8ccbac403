//! What a machine gets for its first boot, in no particular format: files, users, units and commands. Pure.

use crate::kamajiconfig::token::Token;

/// Folder of the staged files.
pub const STAGE: &str = "/etc/kamaji/bootstrap";
/// Mode of what only root reads.
pub const PRIVATE: &str = "0600";

/// What the machine gets.
#[derive(Debug)]
pub struct NodePlan {
    /// Files of the provider.
    pub staged: Vec<NodeFile>,
    /// Units of systemd.
    pub units: Vec<NodeUnit>,
    /// Commands of the user.
    pub commands: NodeCommands,
    /// Files of the user.
    pub files: Vec<NodeFile>,
    /// Users.
    pub users: Vec<NodeUser>,
    /// The bootstrap token, which the rendered data has to hold exactly once.
    pub token: Token,
}

/// One file.
#[derive(Debug)]
pub struct NodeFile {
    /// The field of the spec that it comes from, for messages.
    pub field: String,
    /// Absolute path.
    pub path: String,
    /// Octal digits.
    pub mode: String,
    /// `user:group`, if it is not root.
    pub owner: Option<String>,
    /// Append instead of replace.
    pub append: bool,
    /// Write it after the users were created.
    pub after_users: bool,
    /// Content.
    pub content: Content,
}

/// Content of a file, by what a format may do to it.
pub enum Content {
    /// Text that a format writes as it is, so that another token changes its bytes and no others.
    Plain(String),
    /// A template that is evaluated on the machine, with the metadata of its instance.
    Template(String),
    /// Bytes that arrive unchanged, however a format encodes them.
    Bytes(Vec<u8>),
    /// Compressed with gzip by the user, and decompressed on the machine.
    Gzip(Vec<u8>),
}

impl std::fmt::Debug for Content {
    /// Contents hold the token and values of the user's Secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[content]")
    }
}

/// A unit of systemd.
#[derive(Debug)]
pub struct NodeUnit {
    /// Its name with suffix.
    pub name: &'static str,
    /// Its text.
    pub content: String,
    /// It starts at every boot.
    pub enabled: bool,
    /// It starts now; the first boot waits for it, and fails if it fails.
    pub started: bool,
}

/// Shell commands, in the order in which they run.
#[derive(Debug, Default)]
pub struct NodeCommands {
    /// Before the machine joins.
    pub before: Vec<String>,
    /// After it joined.
    pub after: Vec<String>,
}

impl NodeCommands {
    /// The files from which the join script runs the commands.
    pub fn files(&self) -> impl Iterator<Item = NodeFile> {
        let folders = [("pre.d", &self.before), ("post.d", &self.after)];
        folders.into_iter().flat_map(|(folder, commands)| {
            commands.iter().enumerate().map(move |(number, command)| {
                staged(
                    &format!("{folder}/{number:04}"),
                    PRIVATE,
                    text(format!("{command}\n")),
                )
            })
        })
    }
}

/// One user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeUser {
    /// Name.
    pub name: String,
    /// Comment, usually the full name.
    pub gecos: Option<String>,
    /// Further groups, with commas.
    pub groups: Option<String>,
    /// Home directory.
    pub home_dir: Option<String>,
    /// The account is inactive.
    pub inactive: bool,
    /// Login shell.
    pub shell: Option<String>,
    /// Hash of the password.
    pub password_hash: Option<String>,
    /// Primary group.
    pub primary_group: Option<String>,
    /// The password is refused.
    pub lock_password: Option<bool>,
    /// Rule of sudo.
    pub sudo: Option<String>,
    /// Public keys for SSH.
    pub ssh_authorized_keys: Vec<String>,
}

impl NodePlan {
    /// Something is evaluated on the machine.
    pub fn is_templated(&self) -> bool {
        self.staged
            .iter()
            .chain(&self.files)
            .any(|file| matches!(file.content, Content::Template(_)))
    }
}

/// A file of the provider.
pub fn staged(name: &str, mode: &str, content: Content) -> NodeFile {
    NodeFile {
        field: "nodeRegistration".to_owned(),
        path: format!("{STAGE}/{name}"),
        mode: mode.to_owned(),
        owner: None,
        append: false,
        after_users: false,
        content,
    }
}

/// Content that arrives unchanged.
pub fn text(text: String) -> Content {
    Content::Bytes(text.into_bytes())
}
