//! The provider's clusterctl files: `infrastructure-components.yaml` and `metadata.yaml`. Pure.
//!
//! `${LAB_MACHINES_URL}` and `${LAB_MACHINES_TOKEN}` are filled in by `clusterctl init` from the environment.

use serde_json::{Value, json};

use super::{
    api::{GROUP, definitions},
    names::{GRANTS, NAMESPACE, PROVIDER},
};

const RBAC: &str = "rbac.authorization.k8s.io/v1";
const RBAC_GROUP: &str = "rbac.authorization.k8s.io";
const CAPI: &str = "cluster.x-k8s.io";
/// Secret with the machine host's address and token.
const HOST_SECRET: &str = "infra-local-host";

/// Everything that `clusterctl init` installs, as one YAML stream.
pub fn components(image: &str) -> Result<String, serde_yaml::Error> {
    let mut objects = vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})];
    objects.extend(definitions().into_iter().map(|crd| json!(crd)));
    objects.extend(provider_access());
    objects.extend(grants_access());
    objects.extend(others_access());
    objects.push(json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": HOST_SECRET, "namespace": NAMESPACE},
        "stringData": {"url": "${LAB_MACHINES_URL:=http://10.88.0.1:7780}", "token": "${LAB_MACHINES_TOKEN}"},
    }));
    objects.push(deployment(PROVIDER, "provider", image, true));
    objects.push(deployment(GRANTS, "grants", image, false));
    let mut text = String::new();
    for mut object in objects {
        label(&mut object);
        text.push_str("---\n");
        text.push_str(&serde_yaml::to_string(&object)?);
    }
    // Quoted, so that any value of the variable is a string.
    Ok(text.replace("${LAB_MACHINES_TOKEN}", "\"${LAB_MACHINES_TOKEN}\""))
}

/// Which contract each release series speaks.
pub fn metadata() -> Result<String, serde_yaml::Error> {
    serde_yaml::to_string(&json!({
        "apiVersion": "clusterctl.cluster.x-k8s.io/v1alpha3",
        "kind": "Metadata",
        "releaseSeries": [{"major": 0, "minor": 1, "contract": "v1beta2"}],
    }))
}

fn label(object: &mut Value) {
    object["metadata"]["labels"]["cluster.x-k8s.io/provider"] = json!("infrastructure-local");
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}

fn cluster_role(name: &str, rules: &[Value]) -> Value {
    let name = format!("{NAMESPACE}-{name}");
    json!({"apiVersion": RBAC, "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules})
}

fn account(name: &str) -> [Value; 2] {
    let role = format!("{NAMESPACE}-{name}");
    [
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": NAMESPACE}}),
        json!({
            "apiVersion": RBAC,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": role},
            "roleRef": {"apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}],
        }),
    ]
}

/// RBAC rules for its own kinds and for the kinds of Cluster API that it reads; none for Secrets.
fn provider_access() -> Vec<Value> {
    let role = cluster_role(
        PROVIDER,
        &[
            rule(
                GROUP,
                &["localclusters", "localmachines", "localmachinepools"],
                &["get", "list", "watch", "patch"],
            ),
            // The instances of a pool with Machines: it creates them, and Cluster API deletes them with their Machines.
            rule(GROUP, &["localmachines"], &["create", "delete"]),
            rule(CAPI, &["machines"], &["delete"]),
            rule(
                GROUP,
                &[
                    "localclusters/status",
                    "localmachines/status",
                    "localmachinepools/status",
                ],
                &["get", "patch"],
            ),
            rule(
                GROUP,
                &["localmachines/finalizers", "localmachinepools/finalizers"],
                &["update"],
            ),
            rule(
                CAPI,
                &["clusters", "machines", "machinepools"],
                &["get", "list", "watch"],
            ),
        ],
    );
    Vec::from(account(PROVIDER)).into_iter().chain([role]).collect()
}

/// RBAC rules with `get` on Secrets, only because RBAC lets nobody grant what he does not have.
fn grants_access() -> Vec<Value> {
    let role = cluster_role(
        GRANTS,
        &[
            rule(CAPI, &["machines", "machinepools"], &["get", "list", "watch"]),
            rule(
                RBAC_GROUP,
                &["roles", "rolebindings"],
                &["create", "patch", "delete"],
            ),
            rule("", &["secrets"], &["get"]),
        ],
    );
    Vec::from(account(GRANTS)).into_iter().chain([role]).collect()
}

/// RBAC rules of Cluster API on these kinds.
fn others_access() -> Vec<Value> {
    let all = [
        "localclusters",
        "localclustertemplates",
        "localmachines",
        "localmachinetemplates",
        "localmachinepools",
    ];
    let verbs = ["create", "delete", "get", "list", "patch", "update", "watch"];
    let mut core = cluster_role("capi", &[rule(GROUP, &all, &verbs)]);
    core["metadata"]["labels"]["cluster.x-k8s.io/aggregate-to-manager"] = json!("true");
    vec![core]
}

fn deployment(name: &str, role: &str, image: &str, host: bool) -> Value {
    let labels = json!({"control-plane": name, "cluster.x-k8s.io/provider": "infrastructure-local"});
    let from = |key: &str| json!({"secretKeyRef": {"name": HOST_SECRET, "key": key}});
    let env = if host {
        json!([
            {"name": "LAB_MACHINES_URL", "valueFrom": from("url")},
            {"name": "LAB_MACHINES_TOKEN", "valueFrom": from("token")},
        ])
    } else {
        json!([])
    };
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": 1,
            // Never two at once: there is no lease.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": name,
                    "terminationGracePeriodSeconds": 10,
                    "securityContext": {
                        "runAsNonRoot": true,
                        "runAsUser": 65532,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [{
                        "name": "manager",
                        "image": image,
                        "imagePullPolicy": "IfNotPresent",
                        "args": [role],
                        "env": env,
                        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
                        "securityContext": {
                            "allowPrivilegeEscalation": false,
                            "readOnlyRootFilesystem": true,
                            "capabilities": {"drop": ["ALL"]},
                        },
                    }],
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize as _;

    use super::*;

    fn objects() -> Vec<Value> {
        serde_yaml::Deserializer::from_str(&components("registry.test/infra-local:v1").unwrap())
            .map(|document| Value::deserialize(document).unwrap())
            .collect()
    }

    fn rules(name: &str) -> Vec<Value> {
        let objects = objects();
        let role = objects
            .iter()
            .find(|object| {
                object["kind"] == "ClusterRole" && object["metadata"]["name"] == format!("{NAMESPACE}-{name}")
            })
            .unwrap();
        role["rules"].as_array().unwrap().clone()
    }

    fn names(rules: &[Value], field: &str) -> Vec<String> {
        rules
            .iter()
            .flat_map(|rule| rule[field].as_array().unwrap())
            .map(|v| v.as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn the_provider_may_read_no_secret_and_nothing_of_the_product() {
        let rules = rules(PROVIDER);
        let (groups, resources) = (names(&rules, "apiGroups"), names(&rules, "resources"));
        assert!(
            groups.iter().all(|group| [GROUP, CAPI].contains(&&**group)),
            "{groups:?}"
        );
        assert!(
            resources
                .iter()
                .all(|name| !name.contains('*') && name != "secrets"),
            "{resources:?}"
        );
    }

    #[test]
    fn whoever_grants_can_neither_list_secrets_nor_escalate() {
        let rules = rules(GRANTS);
        let secrets: Vec<&Value> = rules
            .iter()
            .filter(|rule| rule["resources"][0] == "secrets")
            .collect();
        assert_eq!(secrets, [&rule("", &["secrets"], &["get"])]);
        let verbs = names(&rules, "verbs");
        assert!(
            verbs
                .iter()
                .all(|verb| !["escalate", "bind", "impersonate", "*"].contains(&&**verb)),
            "{verbs:?}"
        );
    }

    #[test]
    fn clusterctl_finds_its_label_on_every_object_and_the_container_it_looks_for() {
        let objects = objects();
        for object in &objects {
            assert_eq!(
                object["metadata"]["labels"]["cluster.x-k8s.io/provider"],
                "infrastructure-local"
            );
        }
        let deployments: Vec<&Value> = objects
            .iter()
            .filter(|object| object["kind"] == "Deployment")
            .collect();
        assert_eq!(deployments.len(), 2);
        for deployment in deployments {
            assert_eq!(
                deployment["spec"]["template"]["spec"]["containers"][0]["name"],
                "manager"
            );
        }
        assert!(
            components("x")
                .unwrap()
                .contains("token: \"${LAB_MACHINES_TOKEN}\"")
        );
        assert!(metadata().unwrap().contains("v1beta2"));
    }
}
