//! Structural comparison with the schemas of Kamaji and of the Go control plane provider: what their manifests may
//! say, ours may say too, with the same types, defaults and rules. The schemas are third-party data, read from the
//! folder that `PROVIDER_CRDS` names and not part of the project.

use kamaji_api::crd::all_crds;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

/// Differences that are meant: definition (`*` for all), path and what differs, why. At most twenty.
const MEANT: &[(&str, &str, &str, &str)] = &[
    (
        "*",
        "",
        "requires spec",
        "an object without a spec says nothing; typed clients could not read it",
    ),
    (
        "DataStore",
        "/spec",
        "does not require driver",
        "left out with spec.managed; a rule requires it otherwise",
    ),
    (
        "DataStore",
        "/spec",
        "does not require endpoints",
        "left out with spec.managed; a rule requires it otherwise",
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
        "conditions are written before the rest is known (contract.md 1.3); its default is true",
    ),
    (
        "KamajiControlPlane",
        "/status",
        "does not require ready",
        "conditions are written before the rest is known (contract.md 1.3)",
    ),
    (
        "KamajiControlPlane",
        "/status",
        "does not require version",
        "no version runs yet on the first write (contract.md 1.3)",
    ),
    (
        "KamajiControlPlane",
        "",
        "other columns",
        "those of KubeadmControlPlane: `Version` is the one that runs, `Ready` counts pods",
    ),
];

/// The peers' definitions.
const PEERS: &[&str] = &[
    "peer/kamaji/datastores.kamaji.clastix.io.yaml",
    "peer/kamaji/tenantcontrolplanes.kamaji.clastix.io.yaml",
    "peer/controlplane/kamajicontrolplanes.controlplane.cluster.x-k8s.io.yaml",
    "peer/controlplane/kamajicontrolplanetemplates.controlplane.cluster.x-k8s.io.yaml",
];

#[test]
fn the_peers_manifests_can_be_said_here() {
    let Some(folder) = std::env::var_os("PROVIDER_CRDS") else {
        // Past the harness, which would keep it to itself.
        let _ = writeln!(std::io::stderr(), "\nskipped: PROVIDER_CRDS not set");
        return;
    };
    let ours: Vec<Value> = all_crds()
        .iter()
        .map(|crd| serde_json::to_value(crd).unwrap())
        .collect();
    let mut found = Vec::new();
    let mut compared = 0;
    for file in PEERS {
        let path = Path::new(&folder).join(file);
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let peer: Value = serde_yaml::from_str(&text).unwrap();
        let own = ours
            .iter()
            .find(|crd| crd["metadata"]["name"] == peer["metadata"]["name"]);
        compared += compare(
            &peer,
            own.unwrap_or_else(|| panic!("no definition for {file}")),
            &mut found,
        );
    }
    assert!(compared > 4000, "only {compared} paths compared");
    assert!(MEANT.len() <= 20);
    let meant = |(kind, path, what): &(String, String, String)| {
        MEANT
            .iter()
            .any(|row| (row.0 == "*" || row.0 == kind) && row.1 == path && row.2 == what)
    };
    let unmeant: Vec<_> = found.iter().filter(|difference| !meant(difference)).collect();
    assert!(
        unmeant.is_empty(),
        "{} differences nobody meant:\n{unmeant:#?}",
        unmeant.len()
    );
    for row in MEANT {
        let used = found
            .iter()
            .any(|(kind, path, what)| (row.0 == "*" || row.0 == kind) && row.1 == path && row.2 == what);
        assert!(used, "no such difference any more: {row:?}");
    }
}

/// Kind, path and what differs there.
type Difference = (String, String, String);

/// Compares two definitions; the number of paths seen.
fn compare(peer: &Value, own: &Value, found: &mut Vec<Difference>) -> usize {
    let kind = peer["spec"]["names"]["kind"].as_str().unwrap_or_default();
    let mut walk = Walk { kind, found, seen: 0 };
    for field in ["/spec/group", "/spec/scope"] {
        walk.same(peer.pointer(field), own.pointer(field), "", field);
    }
    for field in ["kind", "listKind", "plural", "singular"] {
        walk.same(
            peer["spec"]["names"].get(field),
            own["spec"]["names"].get(field),
            "",
            field,
        );
    }
    for field in ["shortNames", "categories"] {
        for name in list(&peer["spec"]["names"][field]) {
            if !list(&own["spec"]["names"][field]).contains(name) {
                walk.differ("", format!("{field} lacks {name}"));
            }
        }
    }
    for version in list(&peer["spec"]["versions"]) {
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
        // Columns of ours come after the peer's, so that scripts that cut columns go on working.
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

/// Words of a rule that mean a field, the former value or a check; all of these begin with a small letter.
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

    fn same(&mut self, peer: Option<&Value>, own: Option<&Value>, path: &str, what: &str) {
        let equal = match (peer.and_then(Value::as_f64), own.and_then(Value::as_f64)) {
            (Some(peer), Some(own)) => (peer - own).abs() < f64::EPSILON,
            _ => peer == own,
        };
        if peer.is_some() && !equal {
            self.differ(path, format!("{what} {own:?} instead of {peer:?}"));
        }
    }

    fn schema(&mut self, peer: &Value, own: &Value, path: &str) {
        self.seen += 1;
        for (key, value) in peer.as_object().into_iter().flatten() {
            match key.as_str() {
                "description"
                | "properties"
                | "items"
                | "additionalProperties"
                | "required"
                | "default"
                | "x-kubernetes-validations" => {}
                // Whatever else a schema says: type, format, enum, bounds, pattern, list type and keys, any-of.
                _ => self.same(Some(value), own.get(key), path, key),
            }
        }
        let keep = "x-kubernetes-preserve-unknown-fields";
        if peer.get(keep).is_none() && own.get(keep).is_some() {
            self.differ(path, "preserves unknown fields".to_owned());
        }
        self.required(peer, own, path);
        if let Some(default) = peer.get("default") {
            let own_default = own.get("default").map(|default| with_defaults(own, default));
            self.same(
                Some(&with_defaults(peer, default)),
                own_default.as_ref(),
                path,
                "default",
            );
        }
        // The rule's text is ours; its place, the fields it speaks of and their number are compared here, its effect
        // in the tables run against a real API server.
        let rules = list(&own["x-kubernetes-validations"]);
        if list(&peer["x-kubernetes-validations"]).len() > rules.len() {
            self.differ(path, "fewer rules".to_owned());
        }
        for rule in list(&peer["x-kubernetes-validations"]) {
            let theirs = words(rule);
            if !rules
                .iter()
                .any(|own| theirs.iter().all(|word| words(own).contains(word)))
            {
                self.differ(path, format!("no rule about {theirs:?}"));
            }
        }
        for (name, property) in peer["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}/{name}");
            match own["properties"].get(name) {
                Some(own) => self.schema(property, own, &path),
                None => self.differ(&path, "missing".to_owned()),
            }
        }
        for (key, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
            if let Some(inner) = peer.get(key) {
                self.schema(inner, &own[key], &format!("{path}{mark}"));
            }
        }
    }

    fn required(&mut self, peer: &Value, own: &Value, path: &str) {
        let (theirs, ours) = (list(&peer["required"]), list(&own["required"]));
        for name in theirs.iter().filter(|name| !ours.contains(name)) {
            self.differ(
                path,
                format!("does not require {}", name.as_str().unwrap_or_default()),
            );
        }
        let known = |name: &&Value| {
            peer["properties"]
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
    let peer = serde_json::json!({"type": "object", "required": ["a"], "properties": {
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
    .schema(&peer, &own, "");
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
    .schema(&peer, &peer, "");
    assert!(found.is_empty());
}
