//! What is special about the machines of known infrastructures: the data of `presets.yaml`, and its form. It is data for the
//! bootstrap provider and for the page of the book; what the provider does with it is elsewhere.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::bootstrap::{InfraPreset, NameSource};

/// The data, as YAML.
pub const EMBEDDED: &str = include_str!("presets.yaml");

/// API group of the kinds of infrastructure providers. Kinds of other groups have no preset, whatever their name.
pub const INFRASTRUCTURE_GROUP: &str = "infrastructure.cluster.x-k8s.io";

/// Everything that is known.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Presets {
    /// The form of the data: 1.
    pub version: u32,
    /// One entry an infrastructure.
    pub presets: Vec<Preset>,
}

/// What is special about the machines of one infrastructure. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Preset {
    /// Name in `spec.infraPreset`.
    pub name: InfraPreset,
    /// Name of the provider, for people.
    pub provider: String,
    /// Kinds of machines.
    pub kinds: Vec<String>,
    /// Where the name of the Node comes from by default.
    pub name_source: Option<NameSource>,
    /// Whether the host name is set by default.
    pub set_hostname: Option<bool>,
    /// What the provider ID of the Machine looks like.
    pub id_form: String,
    /// Who sets it on the Node, for people.
    pub id_from: String,
    /// Labels with a value that only the machine knows.
    pub label_templates: BTreeMap<String, String>,
    /// How much bootstrap data the infrastructure takes.
    pub user_data: Option<UserData>,
    /// Which templates are evaluated.
    pub templates: Templates,
    /// How the data is written.
    pub style: Style,
    /// The machine creates no users.
    pub files_only: bool,
    /// What else a user has to know, for people.
    pub note: String,
}

/// How much bootstrap data an infrastructure takes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UserData {
    /// Bytes at most.
    pub bytes: usize,
    /// How the provider encodes the data before it counts.
    #[serde(rename = "as")]
    pub encoding: Encoded,
    /// When the limit does not apply, for people; empty if it always does.
    #[serde(default)]
    pub unless: String,
}

/// How a provider encodes bootstrap data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Encoded {
    /// Not at all.
    #[default]
    Plain,
    /// As base64.
    Base64,
    /// Compressed with gzip.
    Gzip,
    /// Compressed with gzip, then as base64.
    GzipBase64,
}

impl Encoded {
    /// Size in bytes of data of `plain` bytes that has `gzip` bytes when it is compressed.
    pub const fn size(self, plain: usize, gzip: usize) -> usize {
        match self {
            Self::Plain => plain,
            Self::Base64 => base64(plain),
            Self::Gzip => gzip,
            Self::GzipBase64 => base64(gzip),
        }
    }

    /// For people, to follow a number of bytes; empty for [`Self::Plain`].
    pub const fn text(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Base64 => " as base64",
            Self::Gzip => " with gzip",
            Self::GzipBase64 => " with gzip as base64",
        }
    }
}

const fn base64(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

/// Which templates are evaluated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Evaluated")]
pub enum Templates {
    /// cloud-init evaluates them all.
    #[default]
    All,
    /// None but these texts, which the provider replaces itself.
    Only(Vec<String>),
}

impl Templates {
    /// Nothing in `text` would be left as it is.
    pub fn evaluate(&self, text: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(known) => {
                let rest = known
                    .iter()
                    .fold(text.to_owned(), |rest, known| rest.replace(known, ""));
                !["{{", "{%", "{#"].iter().any(|open| rest.contains(open))
            }
        }
    }
}

/// [`Templates`] as they are written.
#[derive(Deserialize)]
#[serde(untagged)]
enum Evaluated {
    Word(Word),
    Texts(Vec<String>),
}

#[derive(Deserialize)]
enum Word {
    All,
    None,
}

impl From<Evaluated> for Templates {
    fn from(written: Evaluated) -> Self {
        match written {
            Evaluated::Word(Word::All) => Self::All,
            Evaluated::Word(Word::None) => Self::Only(Vec::new()),
            Evaluated::Texts(texts) => Self::Only(texts),
        }
    }
}

/// How bootstrap data is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Style {
    /// Text is readable where that is not larger.
    #[default]
    Usual,
    /// No text is readable, so that nothing on the way evaluates it.
    Packed,
    /// All text is readable, for machines that know no encoding; commands are single strings.
    Plain,
}

impl Preset {
    /// Scheme of the provider ID.
    pub fn id_scheme(&self) -> Option<&str> {
        self.id_form.split_once("://").map(|(scheme, _)| scheme)
    }
}

impl Presets {
    /// What is known about the machines of a kind.
    pub fn of_kind(&self, group: &str, kind: &str) -> Option<&Preset> {
        let mut presets = self.presets.iter().filter(|_| group == INFRASTRUCTURE_GROUP);
        presets.find(|preset| preset.kinds.iter().any(|of| of == kind))
    }

    /// The preset of this name.
    pub fn named(&self, name: InfraPreset) -> Option<&Preset> {
        self.presets.iter().find(|preset| preset.name == name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    fn embedded() -> Presets {
        serde_yaml::from_str(EMBEDDED).unwrap()
    }

    #[test]
    fn every_name_of_the_field_has_one_preset() {
        let schema = serde_json::to_value(schemars::schema_for!(InfraPreset)).unwrap();
        let names = all_names(&schema);
        let presets = embedded();
        assert_eq!(presets.version, 1);
        let known: BTreeSet<String> = presets
            .presets
            .iter()
            .map(|preset| format!("{:?}", preset.name))
            .collect();
        assert_eq!(known.len(), presets.presets.len(), "a preset is listed twice");
        let expected: BTreeSet<_> = names
            .into_iter()
            .filter(|name| !["Auto", "None"].contains(&name.as_str()))
            .collect();
        assert!(expected.len() > 20, "{expected:?}");
        assert_eq!(known, expected);
    }

    /// Every string in an `enum` or `const` of the schema.
    fn all_names(schema: &Value) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        match schema {
            Value::Object(fields) => {
                for (key, value) in fields {
                    match (key.as_str(), value) {
                        ("enum", Value::Array(list)) => {
                            names.extend(list.iter().filter_map(Value::as_str).map(str::to_owned));
                        }
                        ("const", Value::String(name)) => {
                            names.insert(name.clone());
                        }
                        _ => names.extend(all_names(value)),
                    }
                }
            }
            Value::Array(list) => names.extend(list.iter().flat_map(all_names)),
            _ => {}
        }
        names
    }

    #[test]
    fn a_kind_has_at_most_one_preset_and_is_found_in_groups_of_providers_alone() {
        let presets = embedded();
        let kinds: Vec<_> = presets.presets.iter().flat_map(|preset| &preset.kinds).collect();
        let unique: BTreeSet<_> = kinds.iter().collect();
        assert_eq!(unique.len(), kinds.len());
        let of = |group: &str, kind: &str| presets.of_kind(group, kind).map(|preset| preset.name);
        assert_eq!(
            of(INFRASTRUCTURE_GROUP, "Metal3Machine"),
            Some(InfraPreset::Metal3)
        );
        // Machines of vSphere with Supervisor get their data in another way.
        assert_eq!(
            of("vmware.infrastructure.cluster.x-k8s.io", "VSphereMachine"),
            None
        );
        assert_eq!(of("otherinfrastructure.cluster.x-k8s.io", "VSphereMachine"), None);
        assert_eq!(of("example.com", "VSphereMachine"), None);
        assert_eq!(of(INFRASTRUCTURE_GROUP, "LocalMachine"), None);
    }

    #[test]
    fn sizes_are_those_after_the_encoding() {
        assert_eq!(Encoded::Plain.size(49_151, 1), 49_151);
        assert_eq!(Encoded::Base64.size(49_151, 1), 65_536);
        assert_eq!(Encoded::Base64.size(49_150, 1), 65_536);
        assert_eq!(Encoded::Base64.size(49_149, 1), 65_532);
        assert_eq!(Encoded::Gzip.size(9, 5), 5);
        assert_eq!(Encoded::GzipBase64.size(9, 5), 8);
    }

    #[test]
    fn templates_that_stay_are_found() {
        let presets = embedded();
        let of = |name| &presets.named(name).unwrap().templates;
        assert!(of(InfraPreset::VSphere).evaluate("{{ ds.meta_data.x }}"));
        let nutanix = of(InfraPreset::Nutanix);
        assert!(nutanix.evaluate("{{ ds.meta_data.hostname }}") && nutanix.evaluate("a"));
        assert!(!nutanix.evaluate("{{ ds.meta_data.hostname }}{{ ds.meta_data.uuid }}"));
        assert!(!of(InfraPreset::Harvester).evaluate("{{ ds.meta_data.hostname }}"));
    }
}
