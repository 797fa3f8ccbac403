//! What is special about the infrastructure kinds of known providers: the data of `quirks.yaml`, and its form. It is data for
//! the program, for the RBAC rules and for the page of the book; what the program does with it is elsewhere.

use serde::Deserialize;
use serde_json::Value;

use crate::labels::{capi::MANAGED_BY, ours::MANAGES_INFRA};

/// The data that the program has with it, as YAML.
pub const EMBEDDED: &str = include_str!("quirks.yaml");

/// Everything that is known.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quirks {
    /// The form of the data.
    pub version: Version,
    /// For kinds that are not listed.
    #[serde(default)]
    pub default: Option<Quirk>,
    /// One entry a kind.
    #[serde(default)]
    pub kinds: Vec<Quirk>,
}

/// The form of the data that this version reads: 1.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "u32")]
pub struct Version;

impl TryFrom<u32> for Version {
    type Error = String;

    fn try_from(version: u32) -> Result<Self, String> {
        match version {
            1 => Ok(Self),
            other => Err(format!("version is {other}, this program reads 1")),
        }
    }
}

/// What is special about one kind.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Quirk {
    /// API group.
    #[serde(default = "usual_group")]
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Who gets the endpoint into the object.
    pub mode: Mode,
    /// Whether the provider knows the annotation [`MANAGED_BY`].
    pub managed: Managed,
    /// The value of [`MANAGED_BY`] may be any.
    pub any_manager: bool,
    /// An endpoint that is set cannot be changed.
    pub immutable: bool,
    /// What has to hold before the endpoint is written.
    pub require: Vec<Requirement>,
    /// Name of the provider, for people.
    pub provider: String,
    /// What else a user has to know, for people.
    pub note: String,
    /// No schema was at hand to test the entry with.
    pub untested: bool,
}

fn usual_group() -> String {
    "infrastructure.cluster.x-k8s.io".to_owned()
}

/// Who gets the endpoint into the object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The control plane provider writes it.
    #[default]
    Set,
    /// The user writes it before; it is compared.
    Verify,
    /// Nobody: the infrastructure provider keeps one of its own.
    Unsupported,
}

/// Whether a provider leaves objects alone that have [`MANAGED_BY`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Managed {
    /// It does.
    #[default]
    Allowed,
    /// It does not know the annotation.
    Ignored,
}

/// A field that has to have a value, or none.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// Versions of the API in which the field exists; all when empty.
    #[serde(default)]
    pub versions: Vec<String>,
    /// The field.
    pub path: Path,
    /// What has to hold.
    pub op: Op,
    /// The value to compare with.
    #[serde(default)]
    pub value: Value,
}

/// What has to hold for a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// It has the value.
    Eq,
    /// It is missing or has another value.
    Ne,
    /// It is there.
    Exists,
    /// It is missing.
    Absent,
    /// It is a list with the value.
    Contains,
}

/// The names on the way to a field: `spec.a.b`, or `metadata.annotations['a/b']`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Path(Vec<String>);

impl TryFrom<String> for Path {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("«{text}» is no path such as spec.a.b or metadata.annotations['a/b']");
        let (plain, key) = match text.strip_suffix("']").map(|rest| rest.split_once("['")) {
            Some(Some((plain, key))) => (plain, Some(key)),
            Some(None) => return Err(wrong()),
            None => (text.as_str(), None),
        };
        let names: Vec<String> = plain.split('.').chain(key).map(str::to_owned).collect();
        let is_name = |name: &String| !name.is_empty() && !name.contains(['[', ']', '\'', ' ']);
        if names.iter().all(is_name) {
            Ok(Self(names))
        } else {
            Err(wrong())
        }
    }
}

impl Path {
    /// The names.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    fn of<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        let found = self.0.iter().try_fold(object, |at, name| at.get(name));
        found.filter(|value| !value.is_null())
    }

    /// For people: `spec.a.b`, or `the annotation a/b`.
    fn text(&self) -> String {
        match self.0.as_slice() {
            [metadata, annotations, key] if metadata == "metadata" && annotations == "annotations" => {
                format!("the annotation {key}")
            }
            names => names.join("."),
        }
    }

    fn is_managed_by(&self) -> bool {
        self.0.last().is_some_and(|last| last == MANAGED_BY)
    }
}

impl Requirement {
    /// It holds for an object of this version of the API, or is not about that version.
    pub fn holds(&self, version: &str, object: &Value) -> bool {
        if !self.versions.is_empty() && !self.versions.iter().any(|known| known == version) {
            return true;
        }
        let found = self.path.of(object);
        match self.op {
            Op::Eq => found == Some(&self.value),
            Op::Ne => found != Some(&self.value),
            Op::Exists => found.is_some(),
            Op::Absent => found.is_none(),
            Op::Contains => found
                .and_then(Value::as_array)
                .is_some_and(|list| list.contains(&self.value)),
        }
    }

    /// What has to hold, for people, such as `spec.a: true`.
    pub fn text(&self) -> String {
        let path = self.path.text();
        let value = self
            .value
            .as_str()
            .map_or_else(|| self.value.to_string(), str::to_owned);
        match self.op {
            Op::Eq => format!("{path}: {value}"),
            Op::Ne => format!("{path} other than {value}"),
            Op::Exists if self.path.is_managed_by() => format!("{path}: {MANAGES_INFRA}"),
            Op::Exists => path,
            Op::Absent => format!("no {path}"),
            Op::Contains => format!("{value} in {path}"),
        }
    }
}

impl Quirk {
    /// Only an object that its provider leaves alone takes an endpoint.
    pub fn needs_manager(&self) -> bool {
        let by_annotation = |needed: &Requirement| needed.op == Op::Exists && needed.path.is_managed_by();
        self.require.iter().any(by_annotation)
    }

    /// Name of the kind in URLs and rules.
    pub fn plural(&self) -> String {
        format!("{}s", self.kind.to_lowercase())
    }
}

impl Quirks {
    /// The same with the entries of `over` in the place of those with the same group and kind.
    #[must_use]
    pub fn overlaid(mut self, over: Self) -> Self {
        let key = |entry: &Quirk| (entry.group.clone(), entry.kind.clone());
        self.kinds
            .retain(|known| !over.kinds.iter().any(|new| key(new) == key(known)));
        self.kinds.extend(over.kinds);
        self.default = over.default.or(self.default);
        self
    }

    /// What is special about a kind.
    pub fn of(&self, group: &str, kind: &str) -> Quirk {
        let listed = self
            .kinds
            .iter()
            .find(|known| known.group == group && known.kind == kind);
        listed.or(self.default.as_ref()).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    fn embedded() -> Quirks {
        serde_yaml::from_str(EMBEDDED).unwrap()
    }

    fn requirement(text: &str) -> Requirement {
        serde_yaml::from_str(text).unwrap()
    }

    #[test]
    fn a_requirement_holds_or_not() {
        for (text, object, expected) in [
            (
                "{path: spec.a.b, op: eq, value: true}",
                json!({"spec": {"a": {"b": true}}}),
                true,
            ),
            (
                "{path: spec.a.b, op: eq, value: false}",
                json!({"spec": {}}),
                false,
            ),
            ("{path: spec.a.b, op: ne, value: true}", json!({}), true),
            (
                "{path: spec.a.b, op: ne, value: true}",
                json!({"spec": {"a": {"b": true}}}),
                false,
            ),
            (
                "{path: \"metadata.annotations['a.b/c']\", op: exists}",
                json!({"metadata": {"annotations": {"a.b/c": ""}}}),
                true,
            ),
            (
                "{path: \"metadata.annotations['a.b/c']\", op: exists}",
                json!({"metadata": {}}),
                false,
            ),
            ("{path: spec.a, op: absent}", json!({"spec": {"a": null}}), true),
            ("{path: spec.a, op: absent}", json!({"spec": {"a": {}}}), false),
            (
                "{path: spec.a, op: contains, value: x}",
                json!({"spec": {"a": ["y", "x"]}}),
                true,
            ),
            (
                "{path: spec.a, op: contains, value: x}",
                json!({"spec": {"a": "x"}}),
                false,
            ),
            (
                "{versions: [v2], path: spec.a, op: eq, value: 1}",
                json!({}),
                true,
            ),
            (
                "{versions: [v2, v1], path: spec.a, op: eq, value: 1}",
                json!({}),
                false,
            ),
        ] {
            assert_eq!(requirement(text).holds("v1", &object), expected, "{text}");
        }
    }

    #[test]
    fn a_requirement_is_told_as_a_user_writes_it() {
        for (text, expected) in [
            ("{path: spec.a.b, op: eq, value: false}", "spec.a.b: false"),
            ("{path: spec.a, op: eq, value: disabled}", "spec.a: disabled"),
            ("{path: spec.a, op: ne, value: true}", "spec.a other than true"),
            ("{path: spec.a, op: absent}", "no spec.a"),
            ("{path: spec.a, op: contains, value: x}", "x in spec.a"),
            (
                "{path: \"metadata.annotations['cluster.x-k8s.io/managed-by']\", op: exists}",
                "the annotation cluster.x-k8s.io/managed-by: kamaji",
            ),
        ] {
            assert_eq!(requirement(text).text(), expected);
        }
    }

    #[test]
    fn an_entry_of_a_mounted_file_replaces_the_one_of_the_same_kind_alone() {
        let embedded = embedded();
        assert_eq!(embedded.of("i.example", "ThatCluster").mode, Mode::Set);
        let text = "version: 1\nkinds:\n- {kind: AWSCluster, mode: verify}\n- {kind: ThatCluster, group: i.example, immutable: true}\n";
        let over = embedded.clone().overlaid(serde_yaml::from_str(text).unwrap());
        let group = usual_group();
        assert_eq!(over.of(&group, "AWSCluster").mode, Mode::Verify);
        assert!(
            over.of(&group, "AWSCluster").require.is_empty(),
            "the entry as a whole"
        );
        assert!(over.of("i.example", "ThatCluster").immutable);
        assert_eq!(
            over.of(&group, "AzureCluster"),
            embedded.of(&group, "AzureCluster")
        );
        let default = serde_yaml::from_str("version: 1\ndefault: {mode: verify}\n").unwrap();
        let default = embedded.overlaid(default);
        assert_eq!(default.of("i.example", "ThatCluster").mode, Mode::Verify);
    }

    #[test]
    fn a_wrong_file_is_refused_with_its_fault() {
        for (text, fault) in [
            ("version: 2\n", "version is 2"),
            ("version: 1\nkinds: [{kind: A, mode: sometimes}]\n", "sometimes"),
            ("version: 1\nkinds: [{kind: A, modus: set}]\n", "modus"),
            (
                "version: 1\nkinds: [{kind: A, require: [{path: 'spec..a', op: exists}]}]\n",
                "is no path",
            ),
            (
                "version: 1\nkinds: [{kind: A, require: [{path: \"a['b\", op: exists}]}]\n",
                "is no path",
            ),
        ] {
            let error = serde_yaml::from_str::<Quirks>(text).unwrap_err().to_string();
            assert!(error.contains(fault), "{error}");
        }
    }

    #[test]
    fn no_kind_is_listed_twice() {
        let kinds = embedded().kinds;
        let unique: BTreeSet<_> = kinds.iter().map(|known| (&known.group, &known.kind)).collect();
        assert_eq!(unique.len(), kinds.len());
        assert!(
            kinds
                .iter()
                .all(|known| !known.provider.is_empty() && !known.kind.is_empty())
        );
    }
}
