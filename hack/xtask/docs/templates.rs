//! The page of templates: the variables of each file in `templates/cluster`, from its head and from what it does with them.
//! Owns the form of the head: the lists `# Required:` and `# Optional:`, an entry each as `#   NAME  text`, further lines of
//! it indented more. Each variable is in one list, and the lists are complete.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    markdown,
    tree::{Problem, Tree},
};

/// Folder of the files.
const FOLDER: &str = "templates/cluster/";
/// Variables that clusterctl sets itself, by flags.
const FLAGS: [&str; 5] = [
    "CLUSTER_NAME",
    "CONTROL_PLANE_MACHINE_COUNT",
    "KUBERNETES_VERSION",
    "NAMESPACE",
    "WORKER_MACHINE_COUNT",
];
/// Default of a variable without which a field is absent.
const ABSENT: &str = "none";

/// The page, and what is wrong in the heads.
pub fn page(tree: &Tree) -> anyhow::Result<(String, Vec<Problem>)> {
    let made_by = markdown::made_by("the files in `templates/cluster`");
    let mut text = format!("# Templates\n\n{made_by}\n{INTRO}");
    let mut problems = Vec::new();
    for (path, file) in tree.files_under(FOLDER, ".yaml") {
        let name = path.trim_start_matches(FOLDER).trim_end_matches(".yaml");
        if let Some(class) = name.strip_prefix("clusterclass-") {
            markdown::add(
                &mut text,
                &format!(
                    "\n## ClusterClass {class}\n\n{}\n\n{}",
                    title(file),
                    class_table(file)?
                ),
            );
        } else if name.starts_with("cluster-template-") {
            let entries = entries(file);
            problems.extend(differences(path, file, &entries));
            markdown::add(
                &mut text,
                &format!("\n## {name}\n\n{}\n\n{}", title(file), table(file, &entries)),
            );
        }
    }
    Ok((text, problems))
}

const INTRO: &str = "\
These files in `templates/cluster` make clusters on the infrastructures that people have. [Clusters on your \
infrastructure](../operations/infrastructure.md) leads from nothing to Ready nodes.\n\n\
`clusterctl` fills the variables in from the environment or from its configuration file, and these five from its flags: \
`CLUSTER_NAME`, `NAMESPACE`, `KUBERNETES_VERSION`, `CONTROL_PLANE_MACHINE_COUNT`, `WORKER_MACHINE_COUNT`.\n\n\
```sh\nclusterctl generate cluster NAME --from templates/cluster/FILE --kubernetes-version v1.36.3 \\\n  \
--target-namespace NAMESPACE --worker-machine-count 2 | kubectl apply -f -\n```\n\n\
A variable without a default is required where the table says so; otherwise its field is absent unless the variable is set. \
Values that are maps or lists are written as in JSON.\n\n\
A file that ends in `-class` makes a cluster of the ClusterClass of the same infrastructure: apply the class to the namespace of \
the cluster before. Clusters of a class set its variables in `spec.topology.variables`; Cluster API refuses a value out of \
bounds, and a server-side dry run shows that.\n\n\
As flavors: copy the files into the overrides folder of clusterctl, below `infrastructure-PROVIDER/VERSION`. `--flavor` is then \
what stands between `cluster-template-` and `.yaml`, and the class comes with the cluster.\n";

/// What the file is, from its first line.
fn title(file: &str) -> String {
    let head = file
        .lines()
        .take_while(|line| line.starts_with("# "))
        .collect::<Vec<_>>();
    let paragraph = head
        .iter()
        .map(|line| line.trim_start_matches("# "))
        .collect::<Vec<_>>()
        .join(" ");
    paragraph
        .split_once(". ")
        .map_or_else(|| paragraph.clone(), |(first, _)| format!("{first}."))
}

/// An entry of the head.
#[derive(Debug, Default, PartialEq, Eq)]
struct Entry {
    name: String,
    text: String,
    required: bool,
    line: usize,
}

/// The entries of the head, in order.
fn entries(file: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut required = None;
    for (line, text) in (1..)
        .zip(file.lines())
        .take_while(|(_, text)| text.starts_with('#'))
    {
        match text {
            "# Required:" => required = Some(true),
            "# Optional:" => required = Some(false),
            _ => {
                let Some((is_required, rest)) = required.zip(text.strip_prefix("#   ")) else {
                    required = None;
                    continue;
                };
                if let Some(more) = rest.strip_prefix(' ') {
                    if let Some(last) = entries.last_mut() {
                        last.text.push(' ');
                        last.text.push_str(more.trim());
                    }
                } else {
                    let (name, words) = rest.split_once(' ').unwrap_or((rest, ""));
                    entries.push(Entry {
                        name: name.to_owned(),
                        text: words.trim().to_owned(),
                        required: is_required,
                        line,
                    });
                }
            }
        }
    }
    entries
}

/// The variables of a file with their defaults; none is a variable without one.
fn variables(file: &str) -> BTreeMap<String, Option<String>> {
    let mut found: BTreeMap<String, Option<String>> = BTreeMap::new();
    for (at, _) in file.match_indices("${") {
        let rest = &file[at + 2..];
        let end = rest.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'));
        let (name, after) = rest.split_at(end.unwrap_or(rest.len()));
        if name.is_empty() || FLAGS.contains(&name) {
            continue;
        }
        let default = after
            .strip_prefix(":=")
            .map(|default| default[..closing(default)].to_owned());
        let known = found.entry(name.to_owned()).or_default();
        if known.is_none() {
            *known = default;
        }
    }
    found
}

/// Where the brace closes that is open at the beginning.
fn closing(text: &str) -> usize {
    let mut depth = 1_usize;
    for (at, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// What the head says that the file does not, and the other way round.
fn differences(path: &str, file: &str, entries: &[Entry]) -> Vec<Problem> {
    let variables = variables(file);
    let mut problems = Vec::new();
    for entry in entries {
        let name = &entry.name;
        let wrong = match variables.get(name) {
            None => format!("{name} is not in the file"),
            Some(None) if !entry.required => format!("{name} is optional here, and has no default"),
            Some(Some(_)) if entry.required => format!("{name} is required here, and has a default"),
            Some(_) if entry.text.is_empty() => format!("{name} has no text"),
            Some(_) => continue,
        };
        problems.push(Problem::new(path, entry.line, wrong));
    }
    let missing = variables
        .keys()
        .filter(|name| !entries.iter().any(|entry| entry.name == **name));
    problems.extend(missing.map(|name| Problem::new(path, 1, format!("the head does not list {name}"))));
    problems
}

fn table(file: &str, entries: &[Entry]) -> String {
    let variables = variables(file);
    let mut text = String::from("| variable | default | meaning |\n|---|---|---|\n");
    for entry in entries {
        let default = match variables.get(&entry.name) {
            _ if entry.required => "required".to_owned(),
            Some(Some(default)) if default != ABSENT && default != "\"\"" => format!("`{default}`"),
            _ => String::new(),
        };
        let cells = [format!("`{}`", entry.name), default, entry.text.clone()];
        let cells = cells.map(|cell| markdown::cell(&cell));
        markdown::add(&mut text, &format!("| {} |\n", cells.join(" | ")));
    }
    text
}

/// The variables of a ClusterClass.
fn class_table(file: &str) -> anyhow::Result<String> {
    let mut text = String::from("| variable | default | bounds | meaning |\n|---|---|---|---|\n");
    for document in file.split("\n---\n") {
        let object: Value = serde_yaml::from_str(document)?;
        for variable in object["spec"]["variables"].as_array().into_iter().flatten() {
            let schema = &variable["schema"]["openAPIV3Schema"];
            let name = variable["name"].as_str().unwrap_or_default();
            schema_rows(&mut text, name, schema, variable["required"] == true);
        }
    }
    Ok(text)
}

/// A row for a part of a schema, then those of its fields.
fn schema_rows(page: &mut String, name: &str, schema: &Value, required: bool) {
    let default = match &schema["default"] {
        Value::Null if required => "required".to_owned(),
        Value::Null => String::new(),
        Value::String(text) if text.is_empty() => String::new(),
        Value::String(text) => format!("`{text}`"),
        other => format!("`{other}`"),
    };
    let description = schema["description"].as_str().unwrap_or_default().to_owned();
    let cells = [format!("`{name}`"), default, bounds(schema), description].map(|cell| markdown::cell(&cell));
    markdown::add(page, &format!("| {} |\n", cells.join(" | ")));
    let needed = schema["required"].as_array().cloned().unwrap_or_default();
    for (field, part) in schema["properties"].as_object().into_iter().flatten() {
        schema_rows(
            page,
            &format!("{name}.{field}"),
            part,
            needed.contains(&Value::from(field.as_str())),
        );
    }
    let items = &schema["items"];
    let needed = items["required"].as_array().cloned().unwrap_or_default();
    for (field, part) in items["properties"].as_object().into_iter().flatten() {
        schema_rows(
            page,
            &format!("{name}[].{field}"),
            part,
            needed.contains(&Value::from(field.as_str())),
        );
    }
}

/// What a value of the schema may be, in words.
fn bounds(schema: &Value) -> String {
    let number = |key: &str| schema[key].as_i64();
    let kind = schema["type"].as_str().unwrap_or("any");
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<_> = values
            .iter()
            .filter_map(Value::as_str)
            .map(|value| format!("`{value}`"))
            .collect();
        return values.join(", ");
    }
    let range = |low: Option<i64>, high: Option<i64>, unit: &str| match (low, high) {
        (Some(low), Some(high)) => format!("{low} to {high}{unit}"),
        (None, Some(high)) => format!("at most {high}{unit}"),
        (Some(low), None) => format!("at least {low}{unit}"),
        (None, None) => String::new(),
    };
    let words = match kind {
        "integer" => range(number("minimum"), number("maximum"), ""),
        "string" => range(number("minLength"), number("maxLength"), " characters"),
        "array" => range(number("minItems"), number("maxItems"), " items"),
        "object" => range(number("minProperties"), number("maxProperties"), " entries"),
        _ => String::new(),
    };
    if words.is_empty() {
        kind.to_owned()
    } else {
        format!("{kind}, {words}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# A cluster on X: here. More.\n#\n# Required:\n#   SERVER   its address\n# Optional:\n#   SIZE     how \
                        large\n#            it is\n#   ZONE     where\n# Absent unless set: ${ZONE:=none}.\n#\n# Notes.\n\
                        a: ${SERVER}\nb: ${SIZE:=${WORKER_MACHINE_COUNT}}\nc: ${ZONE/${ZONE:=none}/zone: }${ZONE}\n";

    #[test]
    fn the_head_is_compared_with_the_file() {
        let found = entries(FILE);
        assert_eq!(
            found.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(),
            ["SERVER", "SIZE", "ZONE"]
        );
        assert_eq!(found[1].text, "how large it is");
        assert!(differences("f", FILE, &found).is_empty());
        let other = FILE
            .replace("a: ${SERVER}", "a: ${SERVER:=x}\nd: ${NEW}")
            .replace("b: ${SIZE", "b: ${SIZES");
        let wrong: Vec<_> = differences("f", &other, &entries(&other))
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            wrong,
            [
                "f:4: SERVER is required here, and has a default",
                "f:6: SIZE is not in the file",
                "f:1: the head does not list NEW",
                "f:1: the head does not list SIZES",
            ]
        );
    }

    #[test]
    fn a_row_has_the_default_and_the_first_sentence_is_the_title() {
        let table = table(FILE, &entries(FILE));
        assert!(table.contains("| `SERVER` | required | its address |"), "{table}");
        assert!(
            table.contains("| `SIZE` | `${WORKER_MACHINE_COUNT}` | how large it is |"),
            "{table}"
        );
        assert!(table.contains("| `ZONE` |  | where |"), "{table}");
        assert_eq!(title(FILE), "A cluster on X: here.");
    }

    #[test]
    fn fields_of_class_variables_have_rows_with_bounds() -> anyhow::Result<()> {
        let class = "spec:\n  variables:\n  - name: size\n    required: true\n    schema:\n      openAPIV3Schema:\n        \
                     type: object\n        description: Size.\n        required: [disk]\n        properties:\n          \
                     disk: {type: integer, minimum: 1, maximum: 9, description: Disk.}\n          \
                     mode: {type: string, enum: [a, b], default: a, description: Mode.}\n";
        let table = class_table(class)?;
        assert!(
            table.contains("| `size` | required | object | Size. |"),
            "{table}"
        );
        assert!(
            table.contains("| `size.disk` | required | integer, 1 to 9 | Disk. |"),
            "{table}"
        );
        assert!(
            table.contains("| `size.mode` | `a` | `a`, `b` | Mode. |"),
            "{table}"
        );
        Ok(())
    }
}
