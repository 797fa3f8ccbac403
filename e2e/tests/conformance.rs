//! Kubernetes' conformance tests against the cluster that `hack/quickstart` made: every chosen one passes. Needs the lab,
//! and the tools `e2e.test` and `ginkgo`.
//!
//! `KAMAJI_CONFORMANCE=write` puts the results into the book. `KAMAJI_CONFORMANCE_ONLY=words` runs the tests alone whose
//! names contain these words.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::{
    conformance::{
        choice::{self, Choice},
        page,
        report::Results,
    },
    lab::{
        access::Lab,
        clusters::{QUICKSTART, VERSION},
    },
};
use time::OffsetDateTime;
use tokio::process::Command;
use tokio_util::task::AbortOnDropHandle;

/// Nodes of the quickstart's cluster; some tests need two.
const WORKERS: usize = 2;
/// Tests that run at the same time. Most of the time they wait for pods.
const PROCESSES: usize = 4;
/// After this ginkgo ends the tests that still run, and reports.
const LIMIT: Duration = Duration::from_mins(150);
/// For ginkgo's report, after [`LIMIT`].
const GRACE: Duration = Duration::from_mins(10);
/// Time between two looks at what has ended.
const PACE: Duration = Duration::from_secs(30);
/// What ginkgo prints for each test that it has run.
const MARK: char = '•';
/// The page that has the results.
const PAGE: &str = "docs/src/conformance.md";

#[tokio::test]
async fn every_chosen_conformance_test_passes() -> Result<()> {
    let lab = Lab::open().await?;
    QUICKSTART.nodes_ready(&lab, WORKERS).await?;
    let names = choice::names(&lab.tool("e2e.test", &["--list-conformance-tests"]).await?)?;
    let mut choice = choice::choose(&names, choice::IMAGES)?;
    let only = std::env::var("KAMAJI_CONFORMANCE_ONLY").ok();
    if let Some(words) = &only {
        choice.only(words);
    }
    ensure!(!choice.run.is_empty(), "no conformance test is chosen");

    let folder = lab.directory.join("test/conformance");
    let began = Instant::now();
    let report = run(&lab, &choice, &folder).await?;
    let results = Results::read(&report, &choice)?;
    eprintln!("\n{}", page::table(&choice, &results));
    let minutes = began.elapsed().as_secs().div_ceil(60);
    if only.is_none() && std::env::var("KAMAJI_CONFORMANCE").is_ok_and(|value| value == "write") {
        let run = format!(
            "Run on {} with Kubernetes {VERSION} on {WORKERS} workers, in {minutes} minutes.",
            OffsetDateTime::now_utc().date()
        );
        write(&run, &choice, &results)?;
    }
    match results.complaint() {
        None => Ok(()),
        Some(complaint) => bail!("{complaint}\nginkgo's output: {}", log(&folder).display()),
    }
}

/// Runs the tests and returns ginkgo's report.
async fn run(lab: &Lab, choice: &Choice, folder: &Path) -> Result<String> {
    let report = folder.join("report.json");
    std::fs::create_dir_all(folder)?;
    if report.exists() {
        std::fs::remove_file(&report)?;
    }
    let tools = lab.directory.join("bin");
    let output = std::fs::File::create(log(folder))?;
    let _progress = AbortOnDropHandle::new(tokio::spawn(progress(log(folder), choice.run.len())));
    let kubeconfig = lab.directory.join(format!("{}.kubeconfig", QUICKSTART.name));
    let mut ginkgo = Command::new(tools.join("ginkgo"))
        .arg("run")
        .arg(format!("--procs={PROCESSES}"))
        .arg(format!("--timeout={}s", LIMIT.as_secs()))
        .args(["--no-color", "--json-report=report.json"])
        .arg(format!("--output-dir={}", folder.display()))
        .arg(format!("--focus={}", choice.focus()))
        .arg(tools.join("e2e.test"))
        .args(["--", "--provider=skeleton"])
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        .arg(format!("--kubectl-path={}", tools.join("kubectl").display()))
        .arg(format!("--e2e-output-dir={}", folder.display()))
        // What kubectl caches goes there.
        .env("HOME", folder)
        .env_remove("KUBECONFIG")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .kill_on_drop(true)
        .spawn()
        .context("ginkgo cannot run: hack/tools/build ginkgo e2e.test")?;
    // A test that failed is in the report.
    let status = tokio::time::timeout(LIMIT + GRACE, ginkgo.wait())
        .await
        .with_context(|| format!("ginkgo has not ended after {LIMIT:?}"))??;
    std::fs::read_to_string(&report).with_context(|| {
        format!(
            "ginkgo has written no report ({status}); its output: {}",
            log(folder).display()
        )
    })
}

fn log(folder: &Path) -> PathBuf {
    folder.join("ginkgo.log")
}

/// Prints how many tests have ended, whenever more have.
async fn progress(log: PathBuf, total: usize) {
    let mut before = 0;
    loop {
        tokio::time::sleep(PACE).await;
        let output = tokio::fs::read_to_string(&log).await.unwrap_or_default();
        let ended = output.matches(MARK).count();
        if ended > before {
            eprintln!("{ended} of {total} tests have ended");
            before = ended;
        }
    }
}

fn write(run: &str, choice: &Choice, results: &Results) -> Result<()> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(PAGE);
    let old = std::fs::read_to_string(&file).with_context(|| PAGE.to_owned())?;
    let page = page::with_results(&old, run, choice, results)?;
    std::fs::write(&file, page::with_images(&page, &choice.without_image)?)?;
    eprintln!("the results are in {PAGE}");
    Ok(())
}
