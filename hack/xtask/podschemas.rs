//! `cargo xtask pod-schemas`: takes the schemas of embedded pod types out of the OpenAPI documents of the pinned
//! Kubernetes module, resolves every reference, drops the prose, and keeps the result as `api/pod.json`, so that
//! definitions can be made without the module.
//! The crates have schemas too, but those leave out how lists are merged. Nothing else reads the module.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail, ensure};
use kamaji_api::pod::{self, Source};
use serde_json::{Map, Value, json};

use crate::checkout;

/// Version of the module the schemas are taken from.
const VERSION: &str = "v1.36.3";

/// What a quantity looks like.
const QUANTITY: &str = "^(\\+|-)?(([0-9]+(\\.[0-9]*)?)|(\\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\\+|-)?(([0-9]+(\\.[0-9]*)?)|(\\.[0-9]+))))?$";

/// Types that embed an atomic reference inline, which the documents do not carry over.
const ATOMIC: &[&str] = &[
    "ConfigMapEnvSource",
    "ConfigMapProjection",
    "ConfigMapVolumeSource",
    "SecretEnvSource",
    "SecretProjection",
];

/// Arguments of the task.
#[derive(clap::Args)]
pub struct Args {
    /// Folder of the Kubernetes module; asked of `go list` in hack/tools/kubernetes when left out.
    #[arg(long)]
    module: Option<PathBuf>,
    /// Write nothing; fail where the file is not what it should be.
    #[arg(long)]
    check: bool,
}

/// Runs the task.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let root = checkout::root();
    let module = match &args.module {
        Some(module) => module.clone(),
        None => pinned_module(&root.join("hack/tools/kubernetes"))?,
    };
    ensure!(
        module.to_string_lossy().ends_with(VERSION),
        "{} is not {VERSION}",
        module.display()
    );
    let mut schemas = BTreeMap::new();
    for Source {
        document,
        prefix,
        types,
    } in pod::SOURCES
    {
        let path = module.join("api/openapi-spec/v3").join(document);
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let document: Value = serde_json::from_str(&text)?;
        let definitions = document["components"]["schemas"]
            .as_object()
            .context("no schemas in the document")?;
        for name in *types {
            let full = format!("{prefix}{name}");
            schemas.insert(*name, inline(definitions, &full, 0)?);
        }
    }
    let extract = json!({"source": format!("k8s.io/kubernetes {VERSION}"), "schemas": schemas});
    let text = format!("{}\n", serde_json::to_string(&crate::crds::sorted(extract))?);
    let target = root.join("api/pod.json");
    if args.check {
        let current = std::fs::read_to_string(&target).unwrap_or_default();
        ensure!(
            current == text,
            "api/pod.json is not current; run `cargo xtask pod-schemas`"
        );
        return Ok(());
    }
    std::fs::write(target, text).context("write api/pod.json")
}

/// Folder of the module, as the tools' own go.mod pins it.
fn pinned_module(tools: &Path) -> anyhow::Result<PathBuf> {
    let output = Command::new("go")
        .args(["list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes"])
        .current_dir(tools)
        .output()
        .with_context(|| format!("go list in {}", tools.display()))?;
    ensure!(
        output.status.success(),
        "go list: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let folder = String::from_utf8(output.stdout)?.trim().to_owned();
    ensure!(
        !folder.is_empty(),
        "the module is not downloaded: run `go mod download` in {}",
        tools.display()
    );
    Ok(folder.into())
}

/// The definition `name` with every reference put in its place.
fn inline(definitions: &Map<String, Value>, name: &str, depth: usize) -> anyhow::Result<Value> {
    ensure!(depth < 24, "{name} refers to itself");
    Ok(match name {
        "io.k8s.apimachinery.pkg.api.resource.Quantity" => json!({
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": QUANTITY,
            "x-kubernetes-int-or-string": true,
        }),
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString" => json!({
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": true,
        }),
        "io.k8s.apimachinery.pkg.apis.meta.v1.Time" => json!({"type": "string", "format": "date-time"}),
        // Of an embedded object's metadata, users write these; the rest is the server's.
        "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta" => json!({
            "type": "object",
            "properties": {
                "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
                "finalizers": {"type": "array", "items": {"type": "string"}},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "name": {"type": "string"},
                "namespace": {"type": "string"},
            },
        }),
        _ => {
            let Some(definition) = definitions.get(name) else {
                bail!("no definition {name}")
            };
            let mut schema = resolve(definitions, definition, depth + 1)?;
            let short = name.rsplit('.').next().unwrap_or_default();
            if ATOMIC.contains(&short) {
                schema["x-kubernetes-map-type"] = json!("atomic");
            }
            if name.ends_with("PortStatus") {
                // A rule of the Go type that the document does not carry.
                schema["properties"]["error"]["maxLength"] = json!(316);
                schema["properties"]["error"]["pattern"] = json!(kamaji_api::schema::QUALIFIED_NAME);
            }
            schema
        }
    })
}

/// A schema with every reference put in its place and everything dropped that a definition cannot carry.
fn resolve(definitions: &Map<String, Value>, schema: &Value, depth: usize) -> anyhow::Result<Value> {
    let Some(schema) = schema.as_object() else {
        return Ok(schema.clone());
    };
    let reference = schema
        .get("$ref")
        .or_else(|| match schema.get("allOf")?.as_array()?.as_slice() {
            [single] => single.get("$ref"),
            _ => None,
        });
    let mut out = match reference.and_then(Value::as_str) {
        Some(reference) => {
            let name = reference.rsplit('/').next().unwrap_or_default();
            match inline(definitions, name, depth)? {
                Value::Object(map) => map,
                other => bail!("{name} is {other}"),
            }
        }
        None => Map::new(),
    };
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (key, value) in schema {
        match key.as_str() {
            "type"
            | "format"
            | "required"
            | "x-kubernetes-list-type"
            | "x-kubernetes-list-map-keys"
            | "x-kubernetes-map-type" => {
                out.insert(key.clone(), value.clone());
            }
            "items" | "additionalProperties" => {
                let mut inner = resolve(definitions, value, depth)?;
                remove_default(&mut inner);
                out.insert(key.clone(), inner);
            }
            // Go's zero values are spelled as defaults of required fields; a marker's default is on an optional one.
            "default" if *value != json!({}) => {
                out.insert(key.clone(), value.clone());
            }
            "properties" => {
                let mut properties = Map::new();
                for (name, property) in value.as_object().context("properties are no object")? {
                    let mut property = resolve(definitions, property, depth)?;
                    if required.contains(&name.as_str()) {
                        remove_default(&mut property);
                    }
                    properties.insert(name.clone(), property);
                }
                out.insert(key.clone(), Value::Object(properties));
            }
            "$ref"
            | "allOf"
            | "default"
            | "description"
            | "enum"
            | "x-kubernetes-patch-merge-key"
            | "x-kubernetes-patch-strategy"
            | "x-kubernetes-unions"
            | "x-kubernetes-group-version-kind" => {}
            other => bail!("unexpected key {other}"),
        }
    }
    if let Some(required) = out.get_mut("required").and_then(Value::as_array_mut) {
        required.sort_by_key(ToString::to_string);
    }
    Ok(Value::Object(out))
}

fn remove_default(schema: &mut Value) {
    if let Some(schema) = schema.as_object_mut() {
        schema.remove("default");
    }
}
