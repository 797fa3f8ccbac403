//! A machine for tests of the join script: a folder. Every absolute path of the script is moved below it, and `PATH` has
//! only stand-ins and harmless tools, so that the host is not touched. Time is a file that `sleep` advances.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    os::unix::{
        fs::{PermissionsExt as _, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use kamaji_api::bootstrap::KamajiConfigSpec;
use semver::Version;

use crate::kamajiconfig::{
    bootstrapdata::{
        inputs::{Inputs, Target},
        node::{Content, STAGE},
        plan,
    },
    owner::Owner,
    token::Token,
};

/// Secret part of the machine's token.
pub const SECRET: &str = "tokentokentoken1";
/// Real tools.
const TOOLS: [&str; 15] = [
    "awk", "cat", "chmod", "cut", "date", "grep", "head", "mkdir", "od", "sed", "sh", "tail", "touch", "tr",
    "wc",
];
/// Tools before which the machine may crash.
const STEPS: [&str; 3] = ["cp", "mv", "rm"];
const STAND_INS: [(&str, &str); 12] = [
    (
        "systemctl",
        r#". ROOT/step
echo "systemctl $*" >>ROOT/calls
case $* in
*is-active*kubelet*) [ -e ROOT/kubelet-runs ] ;;
*is-active*) exit 3 ;;
*containerd.service) [ ! -e ROOT/no-containerd ] ;;
is-system-running) cat ROOT/system ;;
'list-units --all --full --plain --no-legend --type=swap') cat ROOT/swap-units ;;
're'*' --no-block kubelet.service' | 'start --no-block kubelet.service')
    [ -e ROOT/var/lib/kubelet/config.yaml ] || exit 0
    conf=ROOT/etc/kubernetes/kubelet.conf
    pem=ROOT/var/lib/kubelet/pki/kubelet-client-current.pem
    if [ -s $pem ] && [ -s $conf ]; then
        cat $conf >ROOT/kubelet-runs
    else
        sed 's/token: .*/token: in-memory/' ROOT/etc/kubernetes/bootstrap-kubelet.conf >ROOT/kubelet-runs
        sed -e '/tls-server-name/d' -e 's/token: .*/client-certificate: its-own/' ROOT/kubelet-runs >$conf
        if [ -e ROOT/approved ]; then
            mkdir -p ${pem%/*}
            echo pem >$pem
        fi
        # It crashes, and reads the file that it wrote.
        if [ -e ROOT/crashes-once ]; then
            /bin/rm ROOT/crashes-once
            cat $conf >ROOT/kubelet-runs
            echo 1 >ROOT/restarts
        fi
    fi
    [ ! -s $pem ] || [ -e ROOT/refused ] || : >ROOT/node
    ;;
'stop --no-block kubelet.service') /bin/rm -f ROOT/kubelet-runs ;;
*NRestarts*) cat ROOT/restarts ;;
daemon-reload) [ ! -e ROOT/etc/kubernetes/bootstrap-kubelet.conf ] || echo 'reload after the token' >>ROOT/calls ;;
esac"#,
    ),
    (
        "curl",
        r#"echo "curl $*" >>ROOT/calls
case $* in *' -K - '*) cat >/dev/null ;; esac
read -r up _ <ROOT/proc/uptime
read -r wrong <ROOT/clock-wrong-until
seconds=$(date +%s)
[ "${up%%.*}" -ge "$wrong" ] || seconds=$((seconds - 3600))
answer() {
    printf 'HTTP/2 %s\r\ndate: %s\r\n\r\nstatus %s' "$1" "$(date -u -d "@$seconds")" "$1"
}
case $* in
*/events)
    while [ $# -gt 0 ]; do
        [ "$1" != -d ] || printf '%s\n' "$2" >>ROOT/reports
        shift
    done
    ;;
*/api/v1/nodes/m-0) if [ -e ROOT/node ]; then printf 200; else printf 404; fi ;;
*' -k '*) answer 200 ;;
*)
    [ ! -e ROOT/unreachable ] || exit 7
    read -r until <ROOT/untrusted-until
    [ "${up%%.*}" -ge "$until" ] || exit 60
    if [ -e ROOT/token-ended ]; then answer 401; else answer 200; fi
    ;;
esac"#,
    ),
    (
        "sleep",
        r#"awk -v seconds="$1" '{ printf "%.2f 0\n", $1 + seconds }' ROOT/proc/uptime >ROOT/uptime
cat ROOT/uptime >ROOT/proc/uptime
echo "sleep $1" >>ROOT/calls"#,
    ),
    (
        "timeout",
        r#"[ "$1" = -k ] || exit 125
limit=$3
shift 3
read -r before _ <ROOT/proc/uptime
code=0
"$@" || code=$?
read -r after _ <ROOT/proc/uptime
[ "$((${after%%.*} - ${before%%.*}))" -lt "$limit" ] || exit 124
exit "$code""#,
    ),
    (
        "swapoff",
        r#"echo "swapoff $*" >>ROOT/calls
[ -e ROOT/swap-stays ] || echo Filename >ROOT/proc/swaps"#,
    ),
    ("journalctl", "cat ROOT/journal"),
    ("stat", "cat ROOT/cgroup"),
    ("uname", "echo host"),
    ("hostname", ":"),
    ("crictl", ":"),
    ("mount", ":"),
    ("modprobe", "exit 1"),
];
const FILES: [(&str, &str); 13] = [
    ("etc/machine-id", "f00\n"),
    ("proc/uptime", "100.00 0\n"),
    ("proc/meminfo", "MemTotal: 4000000 kB\n"),
    ("proc/swaps", "Filename\n"),
    ("proc/sys/net/ipv4/ip_local_reserved_ports", "\n"),
    ("system", "running\n"),
    ("journal", ""),
    ("restarts", "0\n"),
    ("clock-wrong-until", "0\n"),
    ("untrusted-until", "0\n"),
    ("swap-units", ""),
    ("cgroup", "cgroup2fs\n"),
    (
        "step",
        "read -r count <ROOT/count
echo $((count + 1)) >ROOT/count
read -r last <ROOT/crash-at
if [ $((count + 1)) = \"$last\" ]; then
    read -r pid <ROOT/pid
    kill -9 \"$pid\"
    exit 1
fi\n",
    ),
];
const FOLDERS: [&str; 11] = [
    "bin",
    "run/containerd",
    "run/systemd/system",
    "proc/sys/vm",
    "proc/sys/kernel/keys",
    "proc/sys/net/ipv4",
    "proc/sys/net/bridge",
    "sys/module/overlay",
    "sys/module/br_netfilter",
    "sys/module/nf_conntrack",
    "usr/bin",
];

/// The machine.
pub struct Machine {
    root: PathBuf,
    spec: KamajiConfigSpec,
    uid: RefCell<String>,
}

/// One run of the script.
#[derive(Debug)]
pub struct Boot {
    /// How it ended; none where the machine crashed.
    pub code: Option<i32>,
    /// What it printed on the console.
    pub console: String,
    /// What it did to the system, a line each.
    pub calls: String,
    /// What it reported to the API server.
    pub reports: String,
}

impl Boot {
    pub fn printed(&self, words: &str) -> bool {
        self.console.contains(&format!("kamaji-join: {words}"))
    }

    pub fn called(&self, words: &str) -> bool {
        self.calls.lines().any(|line| line.starts_with(words))
    }

    /// It failed, printed why, and reported the same to the API server once.
    pub fn assert_failed(&self, reason: &str, words: &str) {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert!(self.printed(&format!("failed: {reason}: ")), "{self:?}");
        assert_eq!(self.reports.lines().count(), 1, "{self:?}");
        let report: serde_json::Value = serde_json::from_str(&self.reports).unwrap();
        assert_eq!(report["reason"], reason, "{self:?}");
        assert!(report["message"].as_str().unwrap().contains(words), "{self:?}");
        assert!(
            report["metadata"]["name"]
                .as_str()
                .unwrap()
                .starts_with("a1b2c3."),
            "{self:?}"
        );
        for text in [&self.console, &self.calls, &self.reports] {
            assert!(!text.contains(SECRET), "{self:?}");
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

impl Machine {
    /// A machine with bootstrap data of this spec that never booted. `{root}` in commands is its folder.
    pub fn new(change: impl FnOnce(&mut KamajiConfigSpec)) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("kamaji-join-{}-{number}", std::process::id()));
        let mut spec = KamajiConfigSpec {
            join_timeout: Some(Duration::from_mins(1).into()),
            ..KamajiConfigSpec::default()
        };
        change(&mut spec);
        let machine = Self {
            root,
            spec,
            uid: RefCell::new("uid".to_owned()),
        };
        for folder in FOLDERS {
            fs::create_dir_all(machine.root.join(folder)).unwrap();
        }
        for (path, text) in FILES {
            machine.write(path, &machine.rooted(text));
        }
        for (name, text) in STAND_INS {
            machine.program(&format!("bin/{name}"), text);
        }
        machine.program("usr/bin/kubelet", "echo Kubernetes v1.36.3");
        for name in TOOLS {
            symlink(real(name), machine.root.join("bin").join(name)).unwrap();
        }
        for name in STEPS {
            machine.program(
                &format!("bin/{name}"),
                &format!(". ROOT/step\nexec {} \"$@\"", real(name).display()),
            );
        }
        machine.crash_at(0);
        UnixListener::bind(machine.root.join("run/containerd/containerd.sock")).unwrap();
        machine.stage();
        machine
    }

    /// Gets the data of another config.
    pub fn be(&self, uid: &str) {
        uid.clone_into(&mut self.uid.borrow_mut());
        self.stage();
    }

    /// Writes what cloud-init writes.
    pub fn stage(&self) {
        let (version, token) = (
            Version::new(1, 36, 3),
            Token::parse(&format!("a1b2c3.{SECRET}")).unwrap(),
        );
        let target = Target {
            host: "10.88.0.1".to_owned(),
            port: 31443,
            ca_pem: "ca\n".to_owned(),
            tls_server_name: self.spec.control_plane.tls_server_name.clone(),
            ..Target::default()
        };
        let plan = plan::plan(&Inputs {
            name: "m-0",
            uid: &self.uid.borrow(),
            spec: &self.spec,
            owner: Owner::Machine("m-0"),
            version: &version,
            target: &target,
            token: &token,
            files: &[],
            passwords: &BTreeMap::new(),
        })
        .unwrap();
        let commands: Vec<_> = plan.commands.files().collect();
        for file in plan.staged.into_iter().chain(commands) {
            let text = match file.content {
                Content::Plain(text) | Content::Template(text) => text,
                Content::Bytes(bytes) | Content::Gzip(bytes) => String::from_utf8(bytes).unwrap(),
            };
            let text = if file.path.ends_with("/join.sh") {
                self.moved(&text)
            } else {
                text.replace("{root}", &self.root.to_string_lossy())
            };
            self.write(file.path.trim_start_matches('/'), &text);
        }
    }

    /// The script with every absolute path below the folder, but for devices and the shell.
    fn moved(&self, script: &str) -> String {
        let root = self.root.to_str().unwrap();
        let path = |line: &str| line.starts_with("PATH=").then(|| format!("PATH={root}/bin"));
        let mut moved = String::new();
        for line in script.lines() {
            let line = path(line).unwrap_or_else(|| line.replace("unix:///", &format!("unix://{root}/")));
            let mut before = ' ';
            for (at, character) in line.char_indices() {
                let rest = &line[at..];
                let begins =
                    character == '/' && !(before.is_alphanumeric() || "}%*)].:/-_|@".contains(before));
                let named = rest[1.min(rest.len())..].starts_with(|c: char| c.is_ascii_alphabetic());
                let kept = [root, "/dev/", "/bin/"].iter().any(|kept| rest.starts_with(kept));
                if begins && named && !kept {
                    moved.push_str(root);
                }
                moved.push(character);
                before = character;
            }
            moved.push('\n');
        }
        assert_eq!(moved.matches("\nPATH=").count(), 1);
        for folder in ["/etc/", "/var/", "/run/", "/proc/", "/opt/", "/usr/"] {
            let all = moved.matches(folder).count();
            assert_eq!(all, moved.matches(&format!("{root}{folder}")).count(), "{folder}");
        }
        moved
    }

    /// Boots: what is in memory is lost, then the script runs.
    pub fn boot(&self) -> Boot {
        for gone in ["run/cluster-api", "run/kamaji-join", "kubelet-runs"] {
            self.remove(gone);
        }
        self.run()
    }

    /// Runs the script, as the timer does after a failure.
    pub fn run(&self) -> Boot {
        for gone in ["calls", "reports", "count"] {
            self.remove(gone);
        }
        self.write("count", "0\n");
        let script = self.root.join(STAGE.trim_start_matches('/')).join("join.sh");
        let output = Command::new("/bin/sh")
            .args(["-c", "echo $$ >\"$0/pid\"; exec /bin/sh \"$1\""])
            .args([&self.root, &script])
            .env_clear()
            .env("PATH", self.root.join("bin"))
            .current_dir(&self.root)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Boot {
            code: output.status.code(),
            console: text(&output.stdout) + &text(&output.stderr),
            calls: self.read("calls"),
            reports: self.read("reports"),
        }
    }

    /// It is a node: the sentinel file exists, the kubelet runs, the token is deleted, nothing was reported.
    pub fn assert_joined(&self, boot: &Boot) {
        assert_eq!((boot.code, boot.reports.as_str()), (Some(0), ""), "{boot:?}");
        assert_eq!(
            self.read("run/cluster-api/bootstrap-success.complete"),
            "success\n"
        );
        assert!(
            self.has("kubelet-runs") && !self.read("var/lib/kamaji/joined").is_empty(),
            "{boot:?}"
        );
        // Where the certificate of the API server has another name, every kubelet checks it for that.
        let (running, next) = (
            self.read("kubelet-runs"),
            self.read("etc/kubernetes/kubelet.conf"),
        );
        if let Some(name) = &self.spec.control_plane.tls_server_name {
            let entry = format!("tls-server-name: {name}\n");
            assert!(
                running.contains(&entry) && next.contains(&entry),
                "{running} {next}"
            );
        }
        assert!(next.contains("client-certificate: "), "{next}");
        assert!(!self.has("etc/kamaji/bootstrap/bootstrap.conf"), "{boot:?}");
        assert!(!self.has("etc/kubernetes/bootstrap-kubelet.conf"), "{boot:?}");
        for path in ["etc/kubernetes/pki/ca.crt", "var/lib/kubelet/config.yaml"] {
            assert!(!self.read(path).is_empty(), "{path}: {boot:?}");
        }
    }

    /// The cluster gives the kubelet its certificate.
    pub fn approve(&self) {
        self.write("approved", "");
    }

    /// The machine crashes before this step of the next boot; zero for never.
    pub fn crash_at(&self, step: usize) {
        self.write("crash-at", &format!("{step}\n"));
    }

    /// Steps of the last boot.
    pub fn steps(&self) -> usize {
        self.read("count").trim().parse().unwrap()
    }

    /// Uses the host's time.
    pub fn use_real_time(&self) {
        for name in ["sleep", "timeout"] {
            self.remove(&format!("bin/{name}"));
            symlink(real(name), self.root.join("bin").join(name)).unwrap();
        }
        self.remove("proc/uptime");
        symlink("/proc/uptime", self.root.join("proc/uptime")).unwrap();
    }

    /// Files that hold the secret part of the token.
    pub fn with_secret(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                let (path, kind) = (entry.path(), entry.file_type().unwrap());
                if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_file()
                    && String::from_utf8_lossy(&fs::read(&path).unwrap()).contains(SECRET)
                {
                    found.push(path.display().to_string());
                }
            }
        }
        found
    }

    /// Writes a file.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A file's text; empty if it does not exist.
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path)).unwrap_or_default()
    }

    /// Permissions of a file.
    pub fn mode(&self, path: &str) -> u32 {
        let metadata = fs::metadata(self.root.join(path)).unwrap();
        metadata.permissions().mode() & 0o777
    }

    /// The path exists.
    pub fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// Removes a file or a folder.
    pub fn remove(&self, path: &str) {
        let path = self.root.join(path);
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
    }

    fn rooted(&self, text: &str) -> String {
        text.replace("ROOT", self.root.to_str().unwrap())
    }

    fn program(&self, path: &str, text: &str) {
        self.write(path, &self.rooted(&format!("#!/bin/sh\n{text}\n")));
        fs::set_permissions(self.root.join(path), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// Where the host has a tool.
fn real(name: &str) -> PathBuf {
    let mut places = ["/usr/bin", "/bin"]
        .into_iter()
        .map(|folder| Path::new(folder).join(name));
    places
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{name} is not installed"))
}
