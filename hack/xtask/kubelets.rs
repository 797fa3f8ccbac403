//! `cargo xtask kubelets`: takes the fields of KubeletConfiguration and the feature gates of each minor version out of the
//! Go sources of the pinned Kubernetes modules, and keeps them as `api/kubelets.json`. Nothing is compiled: the declarations
//! of both have one form in all versions. Gates of every module that a kubelet may link are taken, so that none that it
//! knows is missing.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use kamaji_api::kubelets::{Gate, Kubelet, Kubelets};

use crate::checkout;

/// Folders of hack/tools that pin a minor version of Kubernetes.
const PINNED: [&str; 4] = [
    "kubernetes-1.33",
    "kubernetes-1.34",
    "kubernetes-1.35",
    "kubernetes",
];
/// The file of the fields: module, path, name of the type.
const FIELDS: (&str, &str, &str) = (
    "k8s.io/kubelet",
    "config/v1beta1/types.go",
    "KubeletConfiguration",
);
/// Files with feature gates, by module. One that a version does not have is left out.
const GATES: [(&str, &str); 9] = [
    ("k8s.io/kubernetes", "pkg/features/kube_features.go"),
    ("k8s.io/apiserver", "pkg/features/kube_features.go"),
    ("k8s.io/apiextensions-apiserver", "pkg/features/kube_features.go"),
    ("k8s.io/client-go", "features/known_features.go"),
    ("k8s.io/component-base", "featuregate/feature_gate.go"),
    ("k8s.io/component-base", "logs/api/v1/kube_features.go"),
    ("k8s.io/component-base", "metrics/features/kube_features.go"),
    ("k8s.io/component-base", "zpages/features/kube_features.go"),
    ("k8s.io/controller-manager", "pkg/features/kube_features.go"),
];

/// Arguments of the task.
#[derive(clap::Args)]
pub struct Args {
    /// Write nothing; fail where the file is not what it should be. A version whose sources were not downloaded is not
    /// compared.
    #[arg(long)]
    check: bool,
}

/// Runs the task.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let root = checkout::root();
    let target = root.join("api/kubelets.json");
    let current = std::fs::read_to_string(&target).unwrap_or_default();
    let mut known = Kubelets::default();
    if args.check {
        known = serde_json::from_str(&current).context("read api/kubelets.json")?;
    }
    let mut missing = Vec::new();
    for folder in PINNED {
        let modules = match Modules::of(&root.join("hack/tools").join(folder)) {
            Ok(modules) => modules,
            // Without a network, Go does not even read what a folder pins.
            Err(error) if args.check => {
                missing.push(format!("{folder}: {error:#}"));
                continue;
            }
            Err(error) => return Err(error),
        };
        match read(&modules).with_context(|| format!("read the sources of hack/tools/{folder}"))? {
            Some((minor, kubelet)) => {
                known.minors.insert(minor, kubelet);
            }
            None if args.check => missing.push(format!("{folder}: {}", modules.download())),
            None => anyhow::bail!(
                "hack/tools/{folder}: download its modules first: {}",
                modules.download()
            ),
        }
    }
    let text = format!("{}\n", serde_json::to_string_pretty(&known)?);
    if !args.check {
        return std::fs::write(target, text).context("write api/kubelets.json");
    }
    ensure!(
        current == text,
        "api/kubelets.json is not current; run `cargo xtask kubelets`"
    );
    for folder in missing {
        writeln!(
            std::io::stdout(),
            "not compared, its modules are not downloaded: hack/tools/{folder}"
        )?;
    }
    Ok(())
}

/// The modules that one folder pins.
struct Modules {
    /// Version and folder of each; the folder is empty until it is downloaded.
    found: BTreeMap<String, (String, PathBuf)>,
}

impl Modules {
    fn of(tools: &Path) -> anyhow::Result<Self> {
        let format = "{{.Path}} {{.Version}} {{.Dir}}";
        let output = Command::new("go")
            .args(["list", "-mod=readonly", "-m", "-f", format])
            .args(Self::paths())
            .env("GOWORK", "off")
            .current_dir(tools)
            .output()
            .with_context(|| format!("go list in {}", tools.display()))?;
        ensure!(
            output.status.success(),
            "go list: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let found = String::from_utf8(output.stdout)?
            .lines()
            .filter_map(|line| {
                let mut words = line.splitn(3, ' ');
                let (path, version) = (words.next()?, words.next()?);
                let folder = words.next().unwrap_or_default();
                Some((path.to_owned(), (version.to_owned(), PathBuf::from(folder))))
            })
            .collect();
        Ok(Self { found })
    }

    fn paths() -> BTreeSet<&'static str> {
        GATES
            .iter()
            .map(|(module, _)| *module)
            .chain([FIELDS.0])
            .collect()
    }

    /// What downloads them.
    fn download(&self) -> String {
        let paths: Vec<_> = self.found.keys().map(String::as_str).collect();
        format!("go mod download {}", paths.join(" "))
    }

    /// The text of a file; `None` if its module is not there.
    fn text(&self, module: &str, path: &str) -> Option<String> {
        let (_, folder) = self.found.get(module)?;
        std::fs::read_to_string(folder.join(path)).ok()
    }
}

/// What a kubelet knows, with its minor version; `None` if the sources are not there.
fn read(modules: &Modules) -> anyhow::Result<Option<(u64, Kubelet)>> {
    if modules
        .found
        .values()
        .any(|(_, folder)| folder.as_os_str().is_empty())
    {
        return Ok(None);
    }
    let (version, _) = modules
        .found
        .get("k8s.io/kubernetes")
        .context("k8s.io/kubernetes is not pinned")?;
    let minor: u64 = version
        .split('.')
        .nth(1)
        .and_then(|minor| minor.parse().ok())
        .with_context(|| format!("{version} is no version"))?;
    let types = modules
        .text(FIELDS.0, FIELDS.1)
        .with_context(|| format!("{} has no {}", FIELDS.0, FIELDS.1))?;
    let fields = fields(&types, FIELDS.2);
    let mut texts = GATES
        .iter()
        .filter_map(|(module, path)| modules.text(module, path));
    let (mut names, mut states) = (BTreeMap::new(), BTreeMap::new());
    for text in &mut texts {
        names.extend(declarations(&text));
        states.extend(defaults(&text, minor));
    }
    // A constant without a state is no gate yet, or names something else.
    let gates: BTreeMap<_, _> = names
        .into_iter()
        .filter_map(|(constant, name)| Some((name, *states.get(&constant)?)))
        .collect();
    ensure!(
        fields.len() > 100 && gates.len() > 100,
        "{} fields and {} gates of {version}: the sources have another form",
        fields.len(),
        gates.len()
    );
    Ok(Some((
        minor,
        Kubelet {
            version: version.clone(),
            fields,
            gates,
        },
    )))
}

/// Names in JSON of the fields of a struct.
fn fields(source: &str, of: &str) -> BTreeSet<String> {
    let begin = format!("type {of} struct {{");
    source
        .lines()
        .skip_while(|line| *line != begin)
        .take_while(|line| *line != "}")
        .filter_map(|line| {
            let (_, tag) = line.split_once("`json:\"")?;
            let name = tag.split([',', '"']).next()?;
            (!name.is_empty()).then(|| name.to_owned())
        })
        .collect()
}

/// The constants of feature gates, and the names of the gates.
fn declarations(source: &str) -> Vec<(String, String)> {
    let gate = |line: &str| {
        let (left, right) = line.trim().split_once(" = ")?;
        let mut words = left.split_whitespace().rev();
        let last = words.next()?;
        let (value, constant) = if last.rsplit('.').next() == Some("Feature") {
            (right.strip_prefix('"')?, words.next()?)
        } else if let Some((_, value)) = right.split_once("Feature(\"") {
            (value, last)
        } else {
            // Without a type it is a gate if it is named like one.
            let named = right
                .strip_prefix('"')
                .filter(|value| value.split('"').next() == Some(last));
            (named?, last)
        };
        Some((constant.to_owned(), value.split('"').next()?.to_owned()))
    };
    source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .filter_map(gate)
        .collect()
}

/// The state of feature gates in a minor version, by constant.
fn defaults(source: &str, minor: u64) -> Vec<(String, Gate)> {
    let mut states = Vec::new();
    let mut constant = None;
    for line in source.lines().map(str::trim) {
        let line = line.split(" // ").next().unwrap_or_default();
        let entry = line
            .split_once(':')
            .filter(|(key, value)| is_constant(key) && value.trim_start().starts_with('{'));
        if let Some((key, _)) = entry {
            constant = key.rsplit('.').next();
        }
        let locked = line.contains("LockToDefault: true");
        // The one name ends like the other.
        let line = line.replace("LockToDefault: ", "");
        let (Some(of), true) = (constant, line.contains("Default: ")) else {
            continue;
        };
        let since = line
            .split_once("MustParse(\"1.")
            .and_then(|(_, rest)| rest.split('"').next()?.parse::<u64>().ok());
        if since.is_none_or(|since| since <= minor) {
            states.push((of.to_owned(), Gate::of(line.contains("Default: true"), locked)));
        }
    }
    states
}

/// It is a constant of Go, perhaps of another package.
fn is_constant(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "
const (
\t// Some words = \"more\" about it.
// MyFeature featuregate.Feature = \"MyFeature\"
\tNodeSwap featuregate.Feature = \"NodeSwap\"
\tOwn Feature = \"OwnName\"
\tUntyped = \"Untyped\"
\tCalled = featuregate.Feature(\"Called\")
\tother = \"words\"
)
const ContextualLogging featuregate.Feature = \"ContextualLogging\"

var gates = map[featuregate.Feature]featuregate.VersionedSpecs{
\tNodeSwap: {
\t\t{Version: version.MustParse(\"1.28\"), Default: false, PreRelease: featuregate.Beta},
\t\t{Version: version.MustParse(\"1.30\"), Default: true, PreRelease: featuregate.Beta},
\t\t{Version: version.MustParse(\"1.34\"), Default: true, PreRelease: featuregate.GA, LockToDefault: true}, // remove in 1.37
\t},
\tgeneric.Own: {
\t\t{Version: version.MustParse(\"1.34\"), Default: true, PreRelease: Beta},
\t},
\tGone: {
\t\t{Version: version.MustParse(\"1.33\"), Default: false, PreRelease: featuregate.Deprecated},
\t\t{Version: version.MustParse(\"1.36\"), Default: false, LockToDefault: true, PreRelease: featuregate.Deprecated},
\t},
\tContextualLogging:    {Default: true, PreRelease: featuregate.Beta},
}

var dependencies = map[featuregate.Feature][]featuregate.Feature{
\tNodeSwap: {Own},
}
";

    #[test]
    fn gates_have_the_state_of_the_minor_version() {
        assert_eq!(
            declarations(SOURCE),
            [
                ("NodeSwap".to_owned(), "NodeSwap".to_owned()),
                ("Own".to_owned(), "OwnName".to_owned()),
                ("Untyped".to_owned(), "Untyped".to_owned()),
                ("Called".to_owned(), "Called".to_owned()),
                ("ContextualLogging".to_owned(), "ContextualLogging".to_owned()),
            ]
        );
        let state = |minor: u64, name: &str| {
            let states: BTreeMap<_, _> = defaults(SOURCE, minor).into_iter().collect();
            states.get(name).copied()
        };
        assert_eq!(state(29, "NodeSwap"), Some(Gate::Off));
        assert_eq!(state(33, "NodeSwap"), Some(Gate::On));
        assert_eq!(state(34, "NodeSwap"), Some(Gate::LockedOn));
        assert_eq!(state(33, "Gone"), Some(Gate::Off));
        assert_eq!(state(36, "Gone"), Some(Gate::LockedOff));
        assert_eq!(state(33, "Own"), None);
        assert_eq!(state(34, "Own"), Some(Gate::On));
        assert_eq!(state(34, "ContextualLogging"), Some(Gate::On));
    }

    #[test]
    fn fields_are_those_of_the_type_alone() {
        let source = "type Other struct {\n\tA string `json:\"a\"`\n}\n\ntype K struct {\n\tmetav1.TypeMeta `json:\",inline\"`\n\t// words\n\tB string `json:\"b,omitempty\"`\n\tC int `json:\"c\"`\n}\n";
        let found: Vec<_> = fields(source, "K").into_iter().collect();
        assert_eq!(found, ["b", "c"]);
    }
}
