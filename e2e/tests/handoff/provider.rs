//! A small infrastructure provider: a definition, the rights for it, and what its controller does.

use std::time::Duration;

use anyhow::Result;
use e2e::lab::{access::Lab, cleanup::gone, tenants::PATIENCE, until::until};
use k8s_openapi::{
    api::rbac::v1::ClusterRole,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

/// Group, version, kind and plural of the object.
pub const GROUP: &str = "infrastructure.cluster.x-k8s.io";
pub const VERSION: &str = "v1alpha7";
pub const KIND: &str = "ExampleCluster";
pub const PLURAL: &str = "exampleclusters";
/// The host that it takes by itself; an address for documentation.
pub const OWN_HOST: &str = "192.0.2.10";

const DEFINITION: &str = "exampleclusters.infrastructure.cluster.x-k8s.io";
/// Where an object says how its provider behaves.
const BEHAVIOUR: &str = "example.org/behaviour";
/// Roles of Cluster API's core provider and of the control plane provider.
const ROLES: [&str; 2] = ["example-core", "example-endpoint"];

/// What a provider does with the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Nothing is made before there is an endpoint.
    Waits,
    /// The infrastructure is there at once.
    DoesNotWait,
    /// It makes an endpoint of its own.
    TakesItsOwn,
    /// Somebody else manages the object.
    Managed,
}

impl Behaviour {
    /// A word for names of objects.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waits => "waits",
            Self::DoesNotWait => "at-once",
            Self::TakesItsOwn => "own",
            Self::Managed => "managed",
        }
    }

    /// Annotations of an object.
    pub fn annotations(self) -> Value {
        match self {
            Self::Managed => json!({ "cluster.x-k8s.io/managed-by": "kamaji" }),
            other => json!({ BEHAVIOUR: other.name() }),
        }
    }
}

/// The provider.
pub struct Provider {
    resource: ApiResource,
}

impl Provider {
    /// Installs definition and rights, and waits until the kind is served.
    ///
    /// # Errors
    /// When the API server refuses them.
    pub async fn install(lab: &Lab) -> Result<Self> {
        let kind = GroupVersionKind::gvk(GROUP, VERSION, KIND);
        let resource = ApiResource::from_gvk_with_plural(&kind, PLURAL);
        let provider = Self { resource };
        let apply = PatchParams::apply("example-provider").force();
        let roles = Api::<ClusterRole>::all(lab.management.clone());
        for (name, label, resources) in [
            (
                ROLES[0],
                "cluster.x-k8s.io/aggregate-to-manager",
                json!([{ "apiGroups": [GROUP], "resources": [PLURAL, format!("{PLURAL}/status")],
                    "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"] }]),
            ),
            (
                ROLES[1],
                "controlplane.kamaji.clastix.io/aggregate-to-infra",
                json!([
                    { "apiGroups": [GROUP], "resources": [PLURAL], "verbs": ["get", "patch"] },
                    { "apiGroups": [GROUP], "resources": [format!("{PLURAL}/status")], "verbs": ["patch"] },
                ]),
            ),
        ] {
            let role = json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                "metadata": { "name": name, "labels": { label: "true" } }, "rules": resources,
            });
            roles.patch(name, &apply, &Patch::Apply(role)).await?;
        }
        let definitions = Api::<CustomResourceDefinition>::all(lab.management.clone());
        definitions
            .patch(DEFINITION, &apply, &Patch::Apply(definition()))
            .await?;
        until("the kind to be served", PATIENCE, async || {
            provider.all(lab).list(&ListParams::default()).await?;
            Ok(Some(()))
        })
        .await?;
        Ok(provider)
    }

    /// Removes them.
    ///
    /// # Errors
    /// When they do not go.
    pub async fn remove(&self, lab: &Lab) -> Result<()> {
        let definitions = Api::<CustomResourceDefinition>::all(lab.management.clone());
        gone(&definitions, DEFINITION, PATIENCE).await?;
        let roles = Api::<ClusterRole>::all(lab.management.clone());
        for role in ROLES {
            gone(&roles, role, PATIENCE).await?;
        }
        Ok(())
    }

    fn all(&self, lab: &Lab) -> Api<DynamicObject> {
        Api::all_with(lab.management.clone(), &self.resource)
    }

    fn namespaced(&self, lab: &Lab) -> Api<DynamicObject> {
        Api::namespaced_with(lab.management.clone(), "default", &self.resource)
    }

    /// An object.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn object(&self, lab: &Lab, name: &str) -> Result<DynamicObject> {
        Ok(self.namespaced(lab).get(name).await?)
    }

    /// Does what the controller does, until it is dropped.
    ///
    /// # Errors
    /// When the API server refuses a write.
    pub async fn play(&self, lab: &Lab) -> Result<()> {
        let objects = self.namespaced(lab);
        let manager = PatchParams::apply("example-provider").force();
        loop {
            for object in objects.list(&ListParams::default()).await? {
                let name = object.name_any();
                let of = |body: Value| {
                    let mut body = body;
                    body["apiVersion"] = json!(format!("{GROUP}/{VERSION}"));
                    body["kind"] = json!(KIND);
                    body["metadata"] = json!({ "name": name });
                    Patch::Apply(body)
                };
                let host = object.data["spec"]["controlPlaneEndpoint"]["host"].as_str();
                let behaviour = object.annotations().get(BEHAVIOUR).map(String::as_str);
                if behaviour == Some(Behaviour::TakesItsOwn.name()) && host.is_none() {
                    let endpoint = json!({ "host": OWN_HOST, "port": 6443 });
                    let spec = of(json!({ "spec": { "controlPlaneEndpoint": endpoint } }));
                    objects.patch(&name, &manager, &spec).await?;
                }
                let is_due = match behaviour {
                    None => false,
                    Some(known) => known != Behaviour::Waits.name() || host.is_some(),
                };
                if is_due && object.data["status"]["initialization"]["provisioned"] != true {
                    let status = of(json!({ "status": { "initialization": { "provisioned": true } } }));
                    objects.patch_status(&name, &manager, &status).await?;
                }
            }
            // The pace of the controller.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

fn definition() -> Value {
    let endpoint = json!({ "type": "object", "properties": {
        "host": { "type": "string" }, "port": { "type": "integer", "format": "int32" },
    } });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": DEFINITION, "labels": { "cluster.x-k8s.io/v1beta2": VERSION } },
        "spec": {
            "group": GROUP, "scope": "Namespaced",
            "names": { "kind": KIND, "plural": PLURAL, "singular": "examplecluster", "listKind": "ExampleClusterList" },
            "versions": [{
                "name": VERSION, "served": true, "storage": true, "subresources": { "status": {} },
                "schema": { "openAPIV3Schema": { "type": "object", "properties": {
                    "spec": { "type": "object", "properties": { "controlPlaneEndpoint": endpoint } },
                    "status": { "type": "object", "properties": {
                        "initialization": { "type": "object", "properties": { "provisioned": { "type": "boolean" } } },
                        "conditions": { "type": "array", "items": {
                            "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                        } },
                    } },
                } } },
            }],
        },
    })
}
