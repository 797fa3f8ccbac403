//! The text files of the repository that the book is made from or points to, read once. Everything after that is pure.

use std::{collections::BTreeMap, fmt, path::Path};

use anyhow::Context as _;

/// Something wrong, with the place of it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    path: String,
    line: usize,
    text: String,
}

impl Problem {
    /// A problem at a line (the first is 1) of a file, by its path from the root of the repository.
    pub fn new(path: &str, line: usize, text: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            text: text.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.text)
    }
}

/// Paths from the root of the repository with `/`, and the text of those that are text.
#[derive(Default)]
pub struct Tree {
    files: BTreeMap<String, String>,
}

/// Folders that are built or downloaded, at any depth.
const SKIPPED: [&str; 5] = ["target", "book", "node_modules", ".git", ".lab"];

impl Tree {
    /// Reads a repository.
    pub fn read(root: &Path) -> anyhow::Result<Self> {
        let mut tree = Self::default();
        tree.read_folder(root, "")?;
        Ok(tree)
    }

    fn read_folder(&mut self, folder: &Path, prefix: &str) -> anyhow::Result<()> {
        for entry in std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{prefix}{name}");
            let kind = entry.file_type()?;
            if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
                self.read_folder(&entry.path(), &format!("{path}/"))?;
            } else if kind.is_file() {
                let bytes = std::fs::read(entry.path()).with_context(|| format!("read {path}"))?;
                self.files
                    .insert(path, String::from_utf8(bytes).unwrap_or_default());
            }
        }
        Ok(())
    }

    /// A tree for tests.
    #[cfg(test)]
    pub fn of(files: &[(&str, &str)]) -> Self {
        let files = files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
        Self {
            files: files.collect(),
        }
    }

    /// Takes the given files over what is there.
    pub fn put_all(&mut self, files: &BTreeMap<String, String>) {
        self.files
            .extend(files.iter().map(|(path, text)| (path.clone(), text.clone())));
    }

    /// The text of a file.
    pub fn text(&self, path: &str) -> Option<&String> {
        self.files.get(path)
    }

    /// Whether a path is a file or a folder with files.
    pub fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let folder = format!("{path}/");
        self.files.contains_key(path)
            || self
                .files
                .range(folder.clone()..)
                .next()
                .is_some_and(|(first, _)| first.starts_with(&folder))
    }

    /// Path and text of the files whose path begins and ends like this, in order.
    pub fn files_under<'a>(
        &'a self,
        prefix: &'a str,
        suffix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.files
            .iter()
            .filter(move |(path, _)| path.starts_with(prefix) && path.ends_with(suffix))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }
}
