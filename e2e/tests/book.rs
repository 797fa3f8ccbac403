//! Every command block of the book that is marked as runnable (```` ```sh,runnable ````) works on the cluster that
//! `hack/quickstart` made. Each runs on its own with bash, stops at its first error, and is reported with page and line.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use e2e::lab::{access::Lab, clusters::QUICKSTART};
use tokio::process::Command;

/// How a block begins.
const OPENING: &str = "```sh,runnable";
/// Longest time for one block.
const PATIENCE: Duration = Duration::from_mins(12);

/// A block of commands.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    /// Page, from the root of the repository.
    page: String,
    /// Number of its first command's line.
    line: usize,
    /// The commands.
    commands: String,
}

/// The runnable blocks of a page.
fn blocks(page: &str, text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for (line, content) in (1..).zip(text.lines()) {
        match &mut open {
            None if content == OPENING => {
                open = Some(Block {
                    page: page.to_owned(),
                    line: line + 1,
                    commands: String::new(),
                });
            }
            None => {}
            Some(_) if content == "```" => found.extend(open.take()),
            Some(block) => {
                block.commands.push_str(content);
                block.commands.push('\n');
            }
        }
    }
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every page of the book, in order.
fn pages(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(folder)
        .with_context(|| folder.display().to_string())?
        .collect::<std::io::Result<_>>()?;
    entries.sort_by_key(std::fs::DirEntry::path);
    for entry in entries {
        let path = entry.path();
        if path.is_dir() {
            pages(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    Ok(())
}

/// Runs a block; fails with what it printed.
async fn run(lab: &Lab, block: &Block) -> Result<()> {
    let tools = lab.directory.join("bin");
    let path = format!(
        "{}:{}",
        tools.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let child = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &block.commands])
        .current_dir(root())
        .env("PATH", path)
        .env("KUBECONFIG", lab.directory.join("management.kubeconfig"))
        .env("CLUSTERCTL_DISABLE_VERSIONCHECK", "true")
        .env("CLUSTER_NAME", &*QUICKSTART.name)
        .env("CLUSTER_NAMESPACE", &*QUICKSTART.namespace)
        .env(
            "TENANT_KUBECONFIG",
            lab.directory.join(format!("{}.kubeconfig", &*QUICKSTART.name)),
        )
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, child)
        .await
        .with_context(|| format!("not done after {PATIENCE:?}"))??;
    ensure!(
        output.status.success(),
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

#[tokio::test]
async fn every_runnable_block_of_the_book_works() -> Result<()> {
    let lab = Lab::open().await?;
    let mut files = Vec::new();
    pages(&root().join("docs/src"), &mut files)?;
    let (mut count, mut failures) = (0, Vec::new());
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        let page = file.strip_prefix(root())?.display().to_string();
        for block in blocks(&page, &text) {
            count += 1;
            println!("{}:{}", block.page, block.line);
            if let Err(error) = run(&lab, &block).await {
                failures.push(format!("{}:{}: {error:#}", block.page, block.line));
            }
        }
    }
    ensure!(count > 0, "no page has a block that begins with {OPENING}");
    ensure!(
        failures.is_empty(),
        "{} of {count} blocks fail:\n{}",
        failures.len(),
        failures.join("\n")
    );
    Ok(())
}

#[test]
fn blocks_that_are_marked_are_found_with_their_lines() {
    let text = "# A\n```sh\nno\n```\n```sh,runnable\nkubectl get nodes\n\necho x\n```\n";
    assert_eq!(
        blocks("page.md", text),
        [Block {
            page: "page.md".to_owned(),
            line: 6,
            commands: "kubectl get nodes\n\necho x\n".to_owned(),
        }]
    );
}
