//! Watches Issuers, Certificates, and the objects that request a CA bundle.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::{StreamExt as _, future::join_all};
use k8s_openapi::{
    api::core::v1::Secret, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    jiff::Timestamp,
};
use kube::{
    Client, CustomResourceExt as _, Resource, ResourceExt as _,
    api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams},
    core::NamespaceResourceScope,
    runtime::{
        controller::{Action, Controller},
        reflector::ObjectRef,
        wait::{await_condition, conditions::is_crd_established},
        watcher,
    },
};
use serde_json::json;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{
    api::{Certificate, ConditionStatus, INJECT, Issuer},
    injection, issuing,
};
use crate::{
    infra::conditions::{Verdict, set},
    run,
};

const FIELD_MANAGER: &str = "lab-cert-issuer";
const RETRY: Duration = Duration::from_secs(2);
const ESTABLISHED_WITHIN: Duration = Duration::from_mins(1);

/// Installs the definitions and waits until they are served.
pub async fn install(client: &Client) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in [Issuer::crd(), Certificate::crd()] {
        let name = crd.name_any();
        api.patch(
            &name,
            &PatchParams::apply(FIELD_MANAGER).force(),
            &Patch::Apply(&crd),
        )
        .await?;
        tokio::time::timeout(
            ESTABLISHED_WITHIN,
            await_condition(api.clone(), &name, is_crd_established()),
        )
        .await
        .with_context(|| format!("{name} is not served after {} s", ESTABLISHED_WITHIN.as_secs()))??;
    }
    Ok(())
}

/// Serves until `stop`.
pub async fn serve(client: Client, stop: CancellationToken) {
    let injections = [
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
    ]
    .map(|(group, kind)| Box::pin(inject_all(client.clone(), group, kind, stop.clone())));
    futures::join!(
        Box::pin(issuers(client.clone(), stop.clone())),
        Box::pin(certificates(client.clone(), stop.clone())),
        join_all(injections),
    );
}

async fn issuers(client: Client, stop: CancellationToken) {
    Controller::new(Api::<Issuer>::all(client.clone()), watcher::Config::default())
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(issuer, run::retry, Arc::new(client))
        .for_each(async |outcome| run::report("Issuer", outcome))
        .await;
}

async fn issuer(issuer: Arc<Issuer>, client: Arc<Client>) -> Result<Action, kube::Error> {
    let verdict = if issuer.spec.self_signed.is_some() {
        Verdict::holds("IsReady")
    } else {
        Verdict::fails("NotSupported", "the lab knows spec.selfSigned alone")
    };
    ready(&*issuer, issuer.status.as_ref(), &verdict, &client).await
}

async fn certificates(client: Client, stop: CancellationToken) {
    let secrets: Api<Secret> = Api::all(client.clone());
    Controller::new(
        Api::<Certificate>::all(client.clone()),
        watcher::Config::default(),
    )
    .owns(
        secrets,
        watcher::Config::default().fields("type=kubernetes.io/tls"),
    )
    .graceful_shutdown_on(stop.cancelled_owned())
    .run(certificate, run::retry, Arc::new(client))
    .for_each(async |outcome| run::report("Certificate", outcome))
    .await;
}

async fn certificate(certificate: Arc<Certificate>, client: Arc<Client>) -> Result<Action, kube::Error> {
    if certificate.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let namespace = certificate.namespace().unwrap_or_default();
    let spec = &certificate.spec;
    let issuers: Api<Issuer> = Api::namespaced((*client).clone(), &namespace);
    let self_signed = issuers
        .get_opt(&spec.issuer_ref.name)
        .await?
        .is_some_and(|it| it.spec.self_signed.is_some());
    if !self_signed
        || spec
            .issuer_ref
            .kind
            .as_deref()
            .is_some_and(|kind| kind != "Issuer")
    {
        let message = format!("no self-signed Issuer {} in {namespace}", spec.issuer_ref.name);
        ready(
            &*certificate,
            certificate.status.as_ref(),
            &Verdict::fails("IssuerNotFound", message),
            &client,
        )
        .await?;
        return Ok(Action::requeue(RETRY));
    }
    let secrets: Api<Secret> = Api::namespaced((*client).clone(), &namespace);
    let held = secrets.get_opt(&spec.secret_name).await?;
    let name = certificate.name_any();
    if !held.is_some_and(|secret| issuing::serves(&secret, &name, spec)) {
        let data = match issuing::issue(spec, OffsetDateTime::now_utc()) {
            Ok(data) => data,
            Err(error) => {
                let verdict = Verdict::fails("NotIssuable", format!("{error:#}"));
                return ready(&*certificate, certificate.status.as_ref(), &verdict, &client).await;
            }
        };
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {
                "name": spec.secret_name,
                "annotations": issuing::annotations(&name, spec),
                "ownerReferences": [certificate.controller_owner_ref(&())],
            },
            "data": data,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        secrets
            .patch(&spec.secret_name, &params, &Patch::Apply(secret))
            .await?;
        info!(namespace, certificate = name, "issued");
    }
    ready(
        &*certificate,
        certificate.status.as_ref(),
        &Verdict::holds("Ready"),
        &client,
    )
    .await
}

/// Writes the condition `Ready` if it changed.
async fn ready<K>(
    object: &K,
    status: Option<&ConditionStatus>,
    verdict: &Verdict,
    client: &Client,
) -> Result<Action, kube::Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + std::fmt::Debug,
    K: serde::de::DeserializeOwned,
{
    let before = status.cloned().unwrap_or_default();
    let mut after = before.clone();
    set(
        &mut after.conditions,
        "Ready",
        verdict,
        object.meta().generation,
        Timestamp::now(),
    );
    if after != before {
        let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
        let patch = Patch::Merge(json!({"status": after}));
        api.patch_status(&object.name_any(), &PatchParams::default(), &patch)
            .await?;
    }
    Ok(Action::await_change())
}

async fn inject_all(client: Client, group: &str, kind: &str, stop: CancellationToken) {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let controller = Controller::new_with(api.clone(), watcher::Config::default(), resource.clone());
    let store = controller.store();
    let certificates: Api<Certificate> = Api::all(client.clone());
    let context = Arc::new((client, api));
    controller
        .watches(certificates, watcher::Config::default(), move |certificate| {
            let source = format!(
                "{}/{}",
                certificate.namespace().unwrap_or_default(),
                certificate.name_any()
            );
            let asking = |object: &Arc<DynamicObject>| object.annotations().get(INJECT) == Some(&source);
            let found: Vec<_> = store.state().into_iter().filter(asking).collect();
            found
                .into_iter()
                .map(|object| ObjectRef::from_obj_with(&*object, resource.clone()))
                .collect::<Vec<_>>()
        })
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(inject, run::retry, context)
        .for_each(async |outcome| run::report(kind, outcome))
        .await;
}

async fn inject(
    object: Arc<DynamicObject>,
    context: Arc<(Client, Api<DynamicObject>)>,
) -> Result<Action, kube::Error> {
    let (client, api) = &*context;
    let Some((namespace, name)) = object
        .annotations()
        .get(INJECT)
        .and_then(|source| source.split_once('/'))
    else {
        return Ok(Action::await_change());
    };
    let certificates: Api<Certificate> = Api::namespaced(client.clone(), namespace);
    let Some(certificate) = certificates.get_opt(name).await? else {
        return Ok(Action::await_change());
    };
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = secrets.get_opt(&certificate.spec.secret_name).await?;
    let Some(bundle) = secret
        .and_then(|secret| secret.data)
        .and_then(|mut data| data.remove("ca.crt"))
    else {
        // Its status changes when it has been issued.
        return Ok(Action::await_change());
    };
    let Some(mut patch) = injection::patch(&object.data, &STANDARD.encode(&bundle.0)) else {
        return Ok(Action::await_change());
    };
    // Made from this very version of the object.
    patch["metadata"]["resourceVersion"] = json!(object.metadata.resource_version);
    api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    info!(object = object.name_any(), "CA bundle injected");
    Ok(Action::await_change())
}
