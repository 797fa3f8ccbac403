//! An admission webhook that refuses everything, served by a pod.

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::api::{
    admissionregistration::v1::ValidatingWebhookConfiguration,
    core::v1::{ConfigMap, Pod, Secret, Service},
};
use kube::{Api, Client, api::PostParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    cleanup::{afterwards, gone},
    pods::{self, AGNHOST},
    tenants::PATIENCE,
    until::until,
};

const NAME: &str = "webhook";

/// What a webhook is asked about.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// API group.
    pub group: &'a str,
    /// Resource, whose creation it is asked about.
    pub resource: &'a str,
    /// Namespace of the objects.
    pub namespace: &'a str,
    /// Name of the object; any, where it is empty.
    pub name: &'a str,
}

/// Serves a webhook in `namespace` that refuses every `ConfigMap` there, and creates one.
///
/// # Errors
/// When the webhook does not run, or when it was not asked.
pub async fn refuses(client: &Client, namespace: &str) -> Result<()> {
    let config_maps = Asked {
        group: "",
        resource: "configmaps",
        namespace,
        name: "",
    };
    let maps = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    while_refused(client, namespace, &config_maps, async || {
        until("the webhook to refuse a ConfigMap", PATIENCE, async || {
            let map = serde_json::from_value(json!({ "metadata": { "generateName": "refused-" } }))?;
            match maps.create(&PostParams::default(), &map).await {
                Err(kube::Error::Api(status)) if status.message.contains("denied the request") => {
                    Ok(Some(()))
                }
                Err(error) => Err(error).context("another refusal"),
                Ok(_) => Ok(None),
            }
        })
        .await
    })
    .await
}

/// Serves a webhook in `namespace` that refuses the creation of what it is asked about, while `test` runs. The API server
/// answers such a request with 400, as the webhook gives no code.
///
/// # Errors
/// When the webhook does not run, and those of `test`.
pub async fn while_refused<T>(
    client: &Client,
    namespace: &str,
    asked: &Asked<'_>,
    test: impl AsyncFnOnce() -> Result<T>,
) -> Result<T> {
    let certificate = serve(client, namespace).await?;
    let webhooks = Api::<ValidatingWebhookConfiguration>::all(client.clone());
    create(&webhooks, configuration(namespace, &certificate, asked)).await?;
    afterwards(Box::pin(test()), async || {
        gone(&webhooks, namespace, PATIENCE).await
    })
    .await
}

/// Runs the webhook. Returns its certificate in PEM.
async fn serve(client: &Client, namespace: &str) -> Result<String> {
    let host = format!("{NAME}.{namespace}.svc");
    let pair = rcgen::generate_simple_self_signed([host])?;
    let (certificate, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
    create::<Secret>(
        &Api::namespaced(client.clone(), namespace),
        json!({
            "metadata": { "name": NAME },
            "stringData": { "tls.crt": certificate, "tls.key": key },
        }),
    )
    .await?;
    create::<Service>(
        &Api::namespaced(client.clone(), namespace),
        json!({
            "metadata": { "name": NAME },
            "spec": { "selector": { "app": NAME }, "ports": [{ "port": 443, "targetPort": 8444 }] },
        }),
    )
    .await?;
    let servers = Api::<Pod>::namespaced(client.clone(), namespace);
    create(&servers, server()).await?;
    until("the webhook's pod to be Ready", PATIENCE, async || {
        Ok(pods::is_ready(&servers.get(NAME).await?).then_some(()))
    })
    .await?;
    Ok(certificate)
}

async fn create<K>(api: &Api<K>, object: Value) -> Result<()>
where
    K: Clone + std::fmt::Debug + serde::Serialize + DeserializeOwned,
{
    api.create(&PostParams::default(), &serde_json::from_value(object)?)
        .await?;
    Ok(())
}

fn server() -> Value {
    json!({
        "metadata": { "name": NAME, "labels": { "app": NAME } },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65534, "fsGroup": 65534, "seccompProfile": { "type": "RuntimeDefault" },
            },
            "containers": [{
                "name": "agnhost",
                "image": AGNHOST,
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
                "args": ["webhook", "--port=8444", "--tls-cert-file=/tls/tls.crt", "--tls-private-key-file=/tls/tls.key"],
                "readinessProbe": {
                    "httpGet": { "scheme": "HTTPS", "port": 8444, "path": "/readyz" },
                    "periodSeconds": 1,
                },
                "volumeMounts": [{ "name": "tls", "mountPath": "/tls" }],
            }],
            "volumes": [{ "name": "tls", "secret": { "secretName": NAME } }],
        },
    })
}

/// Named as the namespace of the webhook.
fn configuration(namespace: &str, certificate: &str, asked: &Asked<'_>) -> Value {
    let named = json!({ "name": "named", "expression": format!("object.metadata.name == '{}'", asked.name) });
    json!({
        "metadata": { "name": namespace },
        "webhooks": [{
            "name": "refuses.e2e.test",
            "clientConfig": {
                "service": { "namespace": namespace, "name": NAME, "path": "/always-deny" },
                "caBundle": STANDARD.encode(certificate),
            },
            "rules": [{
                "apiGroups": [asked.group], "apiVersions": ["*"], "operations": ["CREATE"], "resources": [asked.resource],
            }],
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": asked.namespace } },
            "matchConditions": if asked.name.is_empty() { json!([]) } else { json!([named]) },
            "failurePolicy": "Fail",
            "sideEffects": "None",
            "timeoutSeconds": 5,
            "admissionReviewVersions": ["v1"],
        }],
    })
}
