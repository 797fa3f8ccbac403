//! An admission webhook that a pod of the workload cluster serves.

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use e2e::lab::{
    cleanup::{afterwards, gone},
    pods::{self, AGNHOST},
    tenants::PATIENCE,
    until::until,
};
use k8s_openapi::api::{
    admissionregistration::v1::ValidatingWebhookConfiguration,
    core::v1::{ConfigMap, Pod, Secret, Service},
};
use kube::{Api, Client, api::PostParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const NAME: &str = "webhook";

/// Serves a webhook in `namespace` that refuses every `ConfigMap` there, and creates one.
///
/// # Errors
/// When the webhook does not run, or when it was not asked.
pub async fn refuses(tenant: &Client, namespace: &str) -> Result<()> {
    let host = format!("{NAME}.{namespace}.svc");
    let pair = rcgen::generate_simple_self_signed([host])?;
    let (certificate, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
    create::<Secret>(
        &Api::namespaced(tenant.clone(), namespace),
        json!({
            "metadata": { "name": NAME },
            "stringData": { "tls.crt": certificate, "tls.key": key },
        }),
    )
    .await?;
    create::<Service>(
        &Api::namespaced(tenant.clone(), namespace),
        json!({
            "metadata": { "name": NAME },
            "spec": { "selector": { "app": NAME }, "ports": [{ "port": 443, "targetPort": 8444 }] },
        }),
    )
    .await?;
    let servers = Api::<Pod>::namespaced(tenant.clone(), namespace);
    create(&servers, server()).await?;
    until("the webhook's pod to be Ready", PATIENCE, async || {
        Ok(pods::is_ready(&servers.get(NAME).await?).then_some(()))
    })
    .await?;

    let webhooks = Api::<ValidatingWebhookConfiguration>::all(tenant.clone());
    create(&webhooks, configuration(namespace, &certificate)).await?;
    let maps = Api::<ConfigMap>::namespaced(tenant.clone(), namespace);
    let asked = until("the webhook to refuse a ConfigMap", PATIENCE, async || {
        let map = serde_json::from_value(json!({ "metadata": { "generateName": "refused-" } }))?;
        match maps.create(&PostParams::default(), &map).await {
            Err(kube::Error::Api(status)) if status.message.contains("denied the request") => Ok(Some(())),
            Err(error) => Err(error).context("another refusal"),
            Ok(_) => Ok(None),
        }
    });
    afterwards(Box::pin(asked), async || {
        gone(&webhooks, namespace, PATIENCE).await
    })
    .await
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
            "containers": [{
                "name": "agnhost",
                "image": AGNHOST,
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

/// Named as the namespace, to which it is limited.
fn configuration(namespace: &str, certificate: &str) -> Value {
    json!({
        "metadata": { "name": namespace },
        "webhooks": [{
            "name": "refuses.e2e.test",
            "clientConfig": {
                "service": { "namespace": namespace, "name": NAME, "path": "/always-deny" },
                "caBundle": STANDARD.encode(certificate),
            },
            "rules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"] }],
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": namespace } },
            "failurePolicy": "Fail",
            "sideEffects": "None",
            "timeoutSeconds": 5,
            "admissionReviewVersions": ["v1"],
        }],
    })
}
