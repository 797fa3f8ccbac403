//! Structural comparison with the schemas of upstream Kamaji and of the Go control plane provider: every manifest that
//! they accept is accepted here, with the same types, defaults and rules. The schemas are third-party data. They are read
//! from the folder that `PROVIDER_CRDS` names and are not part of the project.

use std::{collections::BTreeSet, io::Write, path::Path};

use kamaji_api::crd::all_crds;
use serde_json::Value;

/// Intended differences: definition (`*` for all), path and difference, reason. At most twenty.
const INTENDED: &[(&str, &str, &str, &str)] = &[
    (
        "*",
        "",
        "requires spec",
        "an object without a spec has no meaning, and typed clients could not read it",
    ),
    (
        "DataStore",
        "/spec",
        "does not require driver",
        "omitted with spec.managed; a rule requires it otherwise",
    ),
    (
        "DataStore",
        "/spec",
        "does not require endpoints",
        "omitted with spec.managed; a rule requires it otherwise",
    ),
    (
        "TenantControlPlane",
        "/status/addons/konnectivity/service/loadBalancer/ingress[]/ports[]",
        "does not require error",
        "optional in core/v1 PortStatus, so a healthy port could not be reported",
    ),
    (
        "TenantControlPlane",
        "/status/kubernetesResources/service/loadBalancer/ingress[]/ports[]",
        "does not require error",
        "optional in core/v1 PortStatus, so a healthy port could not be reported",
    ),
    (
        "TenantControlPlane",
        "/status/kubernetesResources/ingress/loadBalancer/ingress[]/ports[]",
        "does not require error",
        "optional in networking.k8s.io/v1 IngressPortStatus, so a healthy port could not be reported",
    ),
    (
        "KamajiControlPlane",
        "/status",
        "does not require externalManagedControlPlane",
        "conditions are written before the rest is known; its default is true",
    ),
    (
        "KamajiControlPlane",
        "/status",
        "does not require ready",
        "conditions are written before the rest is known",
    ),
    (
        "KamajiControlPlane",
        "/status",
        "does not require version",
        "no version runs yet on the first write",
    ),
    (
        "KamajiControlPlane",
        "",
        "other columns",
        "those of KubeadmControlPlane: `Version` is the one that runs, `Ready` counts pods",
    ),
];

/// The definitions of upstream Kamaji and of the Go provider.
const UPSTREAM: &[&str] = &[
    "peer/kamaji/datastores.kamaji.clastix.io.yaml",
    "peer/kamaji/tenantcontrolplanes.kamaji.clastix.io.yaml",
    "peer/controlplane/kamajicontrolplanes.controlplane.cluster.x-k8s.io.yaml",
    "peer/controlplane/kamajicontrolplanetemplates.controlplane.cluster.x-k8s.io.yaml",
];

#[test]
fn manifests_of_upstream_kamaji_are_accepted() {
    let Some(folder) = std::env::var_os("PROVIDER_CRDS") else {
        // Written around the test harness, which captures output.
        let _ = writeln!(std::io::stderr(), "\nskipped: PROVIDER_CRDS not set");
        return;
    };
    let ours: Vec<Value> = all_crds()
        .iter()
        .map(|crd| serde_json::to_value(crd).unwrap())
        .collect();
    let mut found = Vec::new();
    let mut compared = 0;
    for file in UPSTREAM {
        let path = Path::new(&folder).join(file);
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let upstream: Value = serde_yaml::from_str(&text).unwrap();
        let own = ours
            .iter()
            .find(|crd| crd["metadata"]["name"] == upstream["metadata"]["name"]);
        compared += compare(
            &upstream,
            own.unwrap_or_else(|| panic!("no definition for {file}")),
            &mut found,
        );
    }
    assert!(compared > 4000, "only {compared} paths compared");
    assert!(INTENDED.len() <= 20);
    let intended = |(kind, path, what): &(String, String, String)| {
        INTENDED
            .iter()
            .any(|row| (row.0 == "*" || row.0 == kind) && row.1 == path && row.2 == what)
    };
    let unintended: Vec<_> = found.iter().filter(|difference| !intended(difference)).collect();
    assert!(
        unintended.is_empty(),
        "{} unintended differences:\n{unintended:#?}",
        unintended.len()
    );
    for row in INTENDED {
        let used = found
            .iter()
            .any(|(kind, path, what)| (row.0 == "*" || row.0 == kind) && row.1 == path && row.2 == what);
        assert!(used, "no such difference any more: {row:?}");
    }
}

/// Kind, path and what differs there.
type Difference = (String, String, String);

/// Compares two definitions. Returns the number of paths compared.
fn compare(upstream: &Value, own: &Value, found: &mut Vec<Difference>) -> usize {
    let kind = upstream["spec"]["names"]["kind"].as_str().unwrap_or_default();
    let mut walk = Walk { kind, found, seen: 0 };
    for field in ["/spec/group", "/spec/scope"] {
        walk.same(upstream.pointer(field), own.pointer(field), "", field);
    }
    for field in ["kind", "listKind", "plural", "singular"] {
        walk.same(
            upstream["spec"]["names"].get(field),
            own["spec"]["names"].get(field),
            "",
            field,
        );
    }
    for field in ["shortNames", "categories"] {
        for name in list(&upstream["spec"]["names"][field]) {
            if !list(&own["spec"]["names"][field]).contains(name) {
                walk.differ("", format!("{field} lacks {name}"));
            }
        }
    }
    for version in list(&upstream["spec"]["versions"]) {
        let Some(own) = list(&own["spec"]["versions"])
            .iter()
            .find(|own| own["name"] == version["name"])
        else {
            walk.differ("", format!("version {} missing", version["name"]));
            continue;
        };
        for field in ["served", "storage", "subresources"] {
            walk.same(version.get(field), own.get(field), "", field);
        }
        // Our columns come after theirs, so that scripts that select columns by position keep working.
        let theirs = list(&version["additionalPrinterColumns"]);
        let begins_alike = theirs.iter().enumerate().all(|(index, column)| {
            ["name", "type", "jsonPath"]
                .iter()
                .all(|field| own["additionalPrinterColumns"][index][field] == column[field])
        });
        if !begins_alike {
            walk.differ("", "other columns".to_owned());
        }
        walk.schema(
            &version["schema"]["openAPIV3Schema"],
            &own["schema"]["openAPIV3Schema"],
            "",
        );
    }
    walk.seen
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Words of a rule that name a field, the old value or a function; all of these begin with a lower-case letter.
fn words(rule: &Value) -> BTreeSet<String> {
    rule["rule"]
        .as_str()
        .unwrap_or_default()
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| word.len() > 3 && word.starts_with(|c: char| c.is_ascii_lowercase()))
        .filter(|word| !["self", "size", "null", "true", "false"].contains(word))
        .map(str::to_owned)
        .collect()
}

/// A value with the defaults of the schema put into it, at every depth.
fn with_defaults(schema: &Value, value: &Value) -> Value {
    let mut value = value.clone();
    if let (Some(value), Some(properties)) = (value.as_object_mut(), schema["properties"].as_object()) {
        for (name, property) in properties {
            if let Some(default) = property.get("default") {
                value.entry(name.clone()).or_insert_with(|| default.clone());
            }
            if let Some(inner) = value.get_mut(name) {
                *inner = with_defaults(property, inner);
            }
        }
    }
    value
}

/// One walk over two definitions.
struct Walk<'a> {
    kind: &'a str,
    found: &'a mut Vec<Difference>,
    seen: usize,
}

impl Walk<'_> {
    fn differ(&mut self, path: &str, what: String) {
        self.found.push((self.kind.to_owned(), path.to_owned(), what));
    }

    fn same(&mut self, upstream: Option<&Value>, own: Option<&Value>, path: &str, what: &str) {
        let equal = match (upstream.and_then(Value::as_f64), own.and_then(Value::as_f64)) {
            (Some(upstream), Some(own)) => (upstream - own).abs() < f64::EPSILON,
            _ => upstream == own,
        };
        if upstream.is_some() && !equal {
            self.differ(path, format!("{what} {own:?} instead of {upstream:?}"));
        }
    }

    fn schema(&mut self, upstream: &Value, own: &Value, path: &str) {
        self.seen += 1;
        for (key, value) in upstream.as_object().into_iter().flatten() {
            match key.as_str() {
                "description"
                | "properties"
                | "items"
                | "additionalProperties"
                | "required"
                | "default"
                | "x-kubernetes-validations" => {}
                // Every other keyword of a schema: type, format, enum, bounds, pattern, list type and keys, any-of.
                _ => self.same(Some(value), own.get(key), path, key),
            }
        }
        let keep = "x-kubernetes-preserve-unknown-fields";
        if upstream.get(keep).is_none() && own.get(keep).is_some() {
            self.differ(path, "preserves unknown fields".to_owned());
        }
        self.required(upstream, own, path);
        if let Some(default) = upstream.get("default") {
            let own_default = own.get("default").map(|default| with_defaults(own, default));
            self.same(
                Some(&with_defaults(upstream, default)),
                own_default.as_ref(),
                path,
                "default",
            );
        }
        // The text of a rule may differ. Its location, the fields that it names and the number of rules are compared
        // here; its effect is tested against a real API server.
        let rules = list(&own["x-kubernetes-validations"]);
        if list(&upstream["x-kubernetes-validations"]).len() > rules.len() {
            self.differ(path, "fewer rules".to_owned());
        }
        for rule in list(&upstream["x-kubernetes-validations"]) {
            let theirs = words(rule);
            if !rules
                .iter()
                .any(|own| theirs.iter().all(|word| words(own).contains(word)))
            {
                self.differ(path, format!("no rule about {theirs:?}"));
            }
        }
        for (name, property) in upstream["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}/{name}");
            match own["properties"].get(name) {
                Some(own) => self.schema(property, own, &path),
                None => self.differ(&path, "missing".to_owned()),
            }
        }
        for (key, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
            if let Some(inner) = upstream.get(key) {
                self.schema(inner, &own[key], &format!("{path}{mark}"));
            }
        }
    }

    fn required(&mut self, upstream: &Value, own: &Value, path: &str) {
        let (theirs, ours) = (list(&upstream["required"]), list(&own["required"]));
        for name in theirs.iter().filter(|name| !ours.contains(name)) {
            self.differ(
                path,
                format!("does not require {}", name.as_str().unwrap_or_default()),
            );
        }
        let known = |name: &&Value| {
            upstream["properties"]
                .get(name.as_str().unwrap_or_default())
                .is_some()
        };
        for name in ours.iter().filter(|name| !theirs.contains(name)).filter(known) {
            self.differ(path, format!("requires {}", name.as_str().unwrap_or_default()));
        }
    }
}

#[test]
fn the_comparison_notices_what_is_missing() {
    let upstream = serde_json::json!({"type": "object", "required": ["a"], "properties": {
        "a": {"type": "string", "default": "x", "maxLength": 3},
        "b": {"type": "array", "items": {"type": "integer"}, "x-kubernetes-validations": [{"rule": "self == oldSelf"}]},
    }});
    let own = serde_json::json!({"type": "object", "properties": {
        "a": {"type": "string", "default": "y"},
        "b": {"type": "array", "items": {"type": "string"}, "x-kubernetes-preserve-unknown-fields": true},
    }});
    let mut found = Vec::new();
    Walk {
        kind: "Test",
        found: &mut found,
        seen: 0,
    }
    .schema(&upstream, &own, "");
    let has = |path: &str, what: &str| {
        found
            .iter()
            .any(|(_, at, text)| at == path && text.starts_with(what))
    };
    assert!(has("", "does not require a"));
    assert!(has("/a", "maxLength") && has("/a", "default"));
    assert!(has("/b", "preserves") && has("/b", "fewer rules") && has("/b[]", "type"));
    found.clear();
    Walk {
        kind: "Test",
        found: &mut found,
        seen: 0,
    }
    .schema(&upstream, &upstream, "");
    assert!(found.is_empty());
}
