//! Rendered objects of the last release, in `hack/goldens`: a change of them replaces pods or machines of users, so it
//! needs a line in the changelog that names which ones.
//!
//! A golden has what the controllers apply, without what is random or depends on time. `hack/releases` names the
//! releases. `KAMAJI_GOLDENS=write` writes the goldens of the last one anew: do that when a release is made.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Heading of the changelog's section on changes that replace pods or machines.
const SECTION: &str = "### Pods that roll";

/// Compares objects with the golden `name` of the last release.
///
/// # Panics
/// When they differ and `CHANGELOG.md` has no line for that, with the line to add.
pub fn check(name: &str, objects: impl IntoIterator<Item = Value>) {
    let text = picture(objects);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: PathBuf| fs::read_to_string(&path).unwrap_or_default();
    let releases = read(root.join("hack/releases"));
    let release = last(&releases).expect("hack/releases names no release");
    let golden = root
        .join("hack/goldens")
        .join(release)
        .join(format!("{name}.yaml"));
    if std::env::var("KAMAJI_GOLDENS").is_ok_and(|value| value == "write") {
        fs::create_dir_all(golden.parent().unwrap()).unwrap();
        fs::write(&golden, text).unwrap();
        return;
    }
    let before = read(golden);
    if let Some(problem) = problem(name, release, &before, &text, &read(root.join("CHANGELOG.md"))) {
        panic!("{problem}");
    }
}

/// The last release that the list names: `v0.1.0 <commit>` a line.
fn last(releases: &str) -> Option<&str> {
    let mut lines = releases.lines().filter(|line| line.starts_with('v'));
    lines.next_back()?.split_whitespace().next()
}

/// What to do about a rendering that differs from the golden; nothing where the changelog names it.
fn problem(name: &str, release: &str, golden: &str, text: &str, changelog: &str) -> Option<String> {
    let key = format!("{name} {}", digest(text));
    let known = section(changelog).any(|line| line.contains(&key));
    (golden != text && !known).then(|| {
        format!(
            "The rendered objects of `{name}` differ from those of {release} (hack/goldens/{release}/{name}.yaml):\n\
             {}\n\
             If that is intended, add a line to CHANGELOG.md, under `## [Unreleased]` and `{SECTION}`, that names the pods \
             or machines that are replaced and why, and ends like this:\n\n\
             - <what is replaced, and why> ({key})\n\n\
             If nothing is replaced, the line says so.",
            difference(golden, text)
        )
    })
}

/// Lines of the section of the changelog that is not released yet.
fn section(changelog: &str) -> impl Iterator<Item = &str> {
    let unreleased = changelog
        .lines()
        .skip_while(|line| !line.starts_with("## [Unreleased]"));
    let unreleased = unreleased.skip(1).take_while(|line| !line.starts_with("## "));
    let section = unreleased.skip_while(|line| *line != SECTION).skip(1);
    section.take_while(|line| !line.starts_with("### "))
}

/// Lines that only one of the texts has, `-` of the first and `+` of the second; the first forty.
fn difference(before: &str, after: &str) -> String {
    let mut counts: BTreeMap<&str, i32> = BTreeMap::new();
    for line in before.lines() {
        *counts.entry(line).or_default() -= 1;
    }
    for line in after.lines() {
        *counts.entry(line).or_default() += 1;
    }
    let gone = before
        .lines()
        .filter(|line| counts[line] < 0)
        .map(|line| format!("-{line}"));
    let new = after
        .lines()
        .filter(|line| counts[line] > 0)
        .map(|line| format!("+{line}"));
    gone.chain(new).take(40).collect::<Vec<_>>().join("\n")
}

fn digest(text: &str) -> String {
    let hash = format!("{:x}", Sha256::digest(text.as_bytes()));
    hash[..12].to_owned()
}

/// The objects as YAML documents, ordered by kind and name, without what differs between two runs.
fn picture(objects: impl IntoIterator<Item = Value>) -> String {
    let mut documents: Vec<(String, String)> = Vec::new();
    for mut object in objects {
        let of = |pointer: &str| {
            object
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let key = format!(
            "{}/{}/{}",
            of("/kind"),
            of("/metadata/namespace"),
            of("/metadata/name")
        );
        let secret = of("/kind") == "Secret";
        if let Some(map) = object.as_object_mut() {
            map.remove("status");
        }
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            for field in [
                "uid",
                "resourceVersion",
                "generation",
                "creationTimestamp",
                "managedFields",
            ] {
                metadata.remove(field);
            }
        }
        if secret && let Some(data) = object.get_mut("data").and_then(Value::as_object_mut) {
            for value in data.values_mut() {
                let bytes = value.as_str().and_then(|text| STANDARD.decode(text).ok());
                *value = Value::String(plain(&bytes.unwrap_or_default()));
            }
        }
        redact(&mut object);
        documents.push((key, serde_yaml::to_string(&object).unwrap()));
    }
    documents.sort();
    let documents: Vec<_> = documents.into_iter().map(|(_, text)| text).collect();
    format!("---\n{}", documents.join("---\n"))
}

/// Text of a Secret; files that cloud-init unpacks are unpacked.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if !text.starts_with("#cloud-config") && !text.starts_with("## template: jinja") {
        return text.into_owned();
    }
    let lines = text.lines().map(|line| {
        let word = line.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        let packed = word.rsplit([' ', '"']).find(|word| word.len() > 24);
        let unpacked = packed
            .and_then(|word| STANDARD.decode(word).ok())
            .and_then(|bytes| {
                let mut text = String::new();
                flate2::read::GzDecoder::new(bytes.as_slice())
                    .read_to_string(&mut text)
                    .ok()?;
                Some(text)
            });
        match (packed, unpacked) {
            (Some(word), Some(text)) => line.replace(word, &format!("|\n{text}")),
            _ => line.to_owned(),
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Replaces UIDs, and certificates, keys, hashes, tokens and times in all texts.
fn redact(value: &mut Value) {
    match value {
        Value::String(text) => *text = redacted(text),
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Object(map) => {
            for (name, value) in map {
                if name == "uid" {
                    *value = Value::String("<uid>".to_owned());
                } else {
                    redact(value);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn redacted(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        inside |= line.contains("-----BEGIN ");
        if inside {
            if line.contains("-----END ") {
                let indent = line.len() - line.trim_start().len();
                lines.push(format!("{}<PEM>", &line[..indent]));
                inside = false;
            }
            continue;
        }
        let word = |c: char| c.is_ascii_alphanumeric() || "+/=.:-_".contains(c);
        let mut out = String::new();
        let mut rest = line;
        while !rest.is_empty() {
            let end = rest.find(|c| !word(c)).unwrap_or(rest.len());
            out.push_str(random(&rest[..end]).unwrap_or(&rest[..end]));
            rest = &rest[end..];
            let next = rest.find(word).unwrap_or(rest.len());
            out.push_str(&rest[..next]);
            rest = &rest[next..];
        }
        lines.push(out);
    }
    lines.join("\n")
}

/// What a word stands for that is different in each run.
fn random(word: &str) -> Option<&'static str> {
    let all = |text: &str, test: fn(&u8) -> bool| text.bytes().all(|b| test(&b));
    let hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let token = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if let Some((id, secret)) = word.split_once('.')
        && id.len() == 6
        && secret.len() == 16
        && token(id)
        && token(secret)
    {
        return Some("<token>");
    }
    if word.len() == 20 && word.as_bytes()[4] == b'-' && word.as_bytes()[10] == b'T' && word.ends_with('Z') {
        return Some("<time>");
    }
    if word.len() >= 32 && hex(word.strip_prefix("sha256:").unwrap_or(word)) {
        return Some("<hash>");
    }
    let packed = word.len() >= 64 && all(word, |b| b.is_ascii_alphanumeric() || b"+/=".contains(b));
    packed.then_some("<base64>")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_of_the_rendered_objects_needs_a_line_in_the_changelog() {
        let (before, after) = ("---\na: 1\nb: 1\n", "---\na: 2\nb: 1\n");
        assert_eq!(problem("x", "v1.0.0", before, before, ""), None);
        let message = problem("x", "v1.0.0", before, after, "").unwrap();
        assert!(message.contains("-a: 1\n+a: 2\n"), "{message}");
        let line = message.lines().find(|line| line.starts_with("- <what")).unwrap();
        let log = |section: &str, heading: &str| {
            format!("# Changelog\n\n## [Unreleased]\n\n{heading}\n\n{section}\n\n## [0.1.0]\n\n{SECTION}\n")
        };
        assert_eq!(problem("x", "v1.0.0", before, after, &log(line, SECTION)), None);
        assert!(problem("x", "v1.0.0", before, after, &log(line, "### Added")).is_some());
        // Of an earlier release.
        let released = format!("{}{line}\n", log("", SECTION));
        assert!(problem("x", "v1.0.0", before, after, &released).is_some());
        // Another change needs another line.
        assert!(problem("x", "v1.0.0", before, "---\na: 3\n", &log(line, SECTION)).is_some());
    }

    #[test]
    fn the_last_release_counts() {
        assert_eq!(last("# Releases.\nv0.1.0 abc\nv0.2.0 def\n\n"), Some("v0.2.0"));
        assert_eq!(last("# None.\n"), None);
    }

    #[test]
    fn a_picture_has_nothing_random() {
        let pem = "-----BEGIN X-----\nabc\n-----END X-----\n";
        let object = json!({
            "kind": "Secret",
            "metadata": { "name": "a", "uid": "1", "annotations": {
                "hash": "0123456789abcdef0123456789abcdef", "until": "2026-11-27T12:00:00Z", "kept": "v1.36.3",
            } },
            "owner": { "uid": "2" },
            "data": { "tls.crt": STANDARD.encode(pem), "token": STANDARD.encode("abcdef.0123456789abcdef") },
            "status": { "x": 1 },
        });
        let text = "---\ndata:\n  tls.crt: <PEM>\n  token: <token>\nkind: Secret\nmetadata:\n  annotations:\n    \
                    hash: <hash>\n    kept: v1.36.3\n    until: <time>\n  name: a\nowner:\n  uid: <uid>\n";
        assert_eq!(picture([object]), text);
    }
}
