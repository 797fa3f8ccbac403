//! Searches every log of the lab for text that must not be in it.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, Command},
};

use super::{
    access::{DATA, Lab},
    machine::Inside,
};

/// Logs of the lab's own processes, one file each.
pub fn of_processes(lab: &Lab) -> PathBuf {
    lab.directory.join("logs")
}

/// Logs of the management cluster's pods, hosted control planes among them (`podLogsDir` of its kubelet).
pub fn of_pods() -> PathBuf {
    Path::new(DATA).join("pod-logs")
}

/// The management cluster's audit log, older parts included.
///
/// # Errors
/// When there is none.
pub fn of_requests(lab: &Lab) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&lab.directory)? {
        let name = entry?.file_name();
        let text = name.to_string_lossy();
        if text.starts_with("audit") && Path::new(text.as_ref()).extension().is_some_and(|e| e == "log") {
            files.push(lab.directory.join(&name));
        }
    }
    ensure!(!files.is_empty(), "no audit log");
    Ok(files)
}

/// What a machine has logged: its journal with every field, and the files below `/var/log`, cloud-init's among them.
///
/// # Errors
/// When the machine does not run.
pub async fn of_machine(inside: &Inside) -> Result<String> {
    let journal = ["journalctl", "--no-pager", "--all", "--output=export"];
    let mut text = inside.run(&journal).await?;
    let files = "find /var/log -type f ! -path '/var/log/journal/*' -exec cat {} +";
    text += &inside.run(&["sh", "-c", files]).await?;
    Ok(text)
}

/// Files at or below `places` that contain one of `texts`. Compressed files are searched too.
///
/// # Errors
/// When a place cannot be read.
pub async fn files_with(texts: &[&str], places: &[PathBuf]) -> Result<Vec<String>> {
    ensure!(
        !texts.is_empty() && texts.iter().all(|text| !text.is_empty() && !text.contains('\n')),
        "nothing to search for"
    );
    // The texts come by standard input: a command line is for everybody to read.
    let mut grep = Command::new("grep");
    grep.args([
        "--recursive",
        "--files-with-matches",
        "--fixed-strings",
        "--file=-",
    ])
    .arg("--")
    .args(places);
    let mut found = lines(grep, texts).await?;
    for packed in packed(places) {
        let output = Command::new("gzip").arg("-dc").arg(&packed).output().await?;
        ensure!(output.status.success(), "{} cannot be unpacked", packed.display());
        let content = String::from_utf8_lossy(&output.stdout);
        if texts.iter().any(|text| content.contains(text)) {
            found.push(packed.display().to_string());
        }
    }
    Ok(found)
}

async fn lines(mut grep: Command, texts: &[&str]) -> Result<Vec<String>> {
    let mut child = grep
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    give(&mut child, texts).await?;
    let output = child.wait_with_output().await?;
    // 1 is «not found»; anything above it is a search that was not made.
    ensure!(
        matches!(output.status.code(), Some(0 | 1)),
        "grep: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let found = String::from_utf8_lossy(&output.stdout);
    Ok(found.lines().map(str::to_owned).collect())
}

async fn give(child: &mut Child, texts: &[&str]) -> Result<()> {
    let mut stdin = child.stdin.take().context("no stdin")?;
    stdin.write_all(texts.join("\n").as_bytes()).await?;
    stdin.write_all(b"\n").await?;
    Ok(())
}

fn packed(places: &[PathBuf]) -> Vec<PathBuf> {
    let (mut ahead, mut found) = (places.to_vec(), Vec::new());
    while let Some(place) = ahead.pop() {
        if place.is_dir() {
            let entries = std::fs::read_dir(&place).into_iter().flatten().flatten();
            ahead.extend(entries.map(|entry| entry.path()));
        } else if place.extension().is_some_and(|extension| extension == "gz") {
            found.push(place);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_search_finds_plain_and_packed_files_and_fails_where_it_cannot_look() {
        let home = std::env::temp_dir().join(format!("kamaji-logs-{}", std::process::id()));
        std::fs::create_dir_all(home.join("pod")).unwrap();
        for (name, text) in [
            ("a.log", "one needle.x here\n"),
            ("pod/b.log", "needleyx\n"),
            ("pod/c", "needle.x"),
        ] {
            std::fs::write(home.join(name), text).unwrap();
        }
        let here = std::slice::from_ref(&home);
        let packed = Command::new("gzip")
            .arg(home.join("pod/c"))
            .status()
            .await
            .unwrap();
        assert!(packed.success());
        let mut found = files_with(&["absent", "needle.x"], here).await.unwrap();
        found.sort();
        let name = |file: &str| home.join(file).display().to_string();
        assert_eq!(found, [name("a.log"), name("pod/c.gz")]);
        assert!(files_with(&["absent"], here).await.unwrap().is_empty());
        assert!(files_with(&["absent"], &[home.join("nowhere")]).await.is_err());
        assert!(files_with(&[""], here).await.is_err());
        std::fs::remove_dir_all(&home).unwrap();
    }
}
