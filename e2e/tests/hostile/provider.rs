//! The process that is shipped, and what memory it takes.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use e2e::bootstrap::World;

/// Time between two looks at its memory.
const LOOK: Duration = Duration::from_millis(5);

/// The binary, with the role `bootstrap` alone. It ends when this is dropped.
pub struct Provider {
    child: Child,
    log: PathBuf,
    /// Most bytes that were seen.
    most: Arc<AtomicUsize>,
    /// Looks until this is dropped.
    _looking: mpsc::Sender<()>,
}

impl Provider {
    /// Builds and starts it, with the debug profile.
    pub fn start(world: &World) -> Result<Self> {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        // Beside the program of this test, so that what is measured is what was built from these sources.
        let built = Command::new(cargo)
            .args(["build", "--locked", "--quiet", "--workspace", "--bin=capi-kamaji"])
            .stdin(Stdio::null())
            .status()
            .context("cargo does not start")?;
        ensure!(built.success(), "the binary is not built: {built}");
        let here = std::env::current_exe()?;
        let target = here
            .parent()
            .and_then(|deps| deps.parent())
            .context("no target folder")?;
        let log = world.file("provider.log");
        let file = fs::File::create(&log)?;
        let child = Command::new(target.join("capi-kamaji"))
            .args([
                "run",
                "--controllers=bootstrap",
                "--leader-elect=false",
                "--diagnostics-address=127.0.0.1:0",
            ])
            .env("KUBECONFIG", world.server.kubeconfig()?)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .context("the provider does not start")?;
        let most = Arc::new(AtomicUsize::new(0));
        let (looking, stop) = mpsc::channel();
        let (path, seen) = (format!("/proc/{}/status", child.id()), most.clone());
        thread::spawn(move || {
            while stop.recv_timeout(LOOK) == Err(mpsc::RecvTimeoutError::Timeout) {
                if let Some(bytes) = fs::read_to_string(&path).ok().and_then(|text| anonymous(&text)) {
                    seen.fetch_max(bytes, Ordering::Relaxed);
                }
            }
        });
        Ok(Self {
            child,
            log,
            most,
            _looking: looking,
        })
    }

    /// Most bytes that it was seen to have in memory, at a look each [`LOOK`]. Mapped files do not count: fifty
    /// megabytes of a binary that is not optimized, and read from the disk again whenever the memory is needed.
    pub fn largest(&self) -> Result<usize> {
        let now = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let now = anonymous(&now).with_context(|| format!("the process has ended: {}", self.log()))?;
        Ok(self.most.load(Ordering::Relaxed).max(now))
    }

    /// Its last lines.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(15).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        // It is being thrown away: nothing useful can be done about an error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bytes of memory that are no file's, by the status file of a process.
fn anonymous(status: &str) -> Option<usize> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: usize = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}
