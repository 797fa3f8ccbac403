//! Everything the engine puts into a tenant, as one set with one digest: applied when the digest changes, by
//! server-side apply, and not asked after otherwise.

use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde_json::Value;

use super::addons::Wanted;
use super::{Error, coredns, kubeproxy, rbac, within};
use crate::k8s::digest;
use kamaji_api::addons::AddonImage;
use kamaji_api::labels::field_manager;

/// The set.
#[derive(Clone, Debug)]
pub struct Bundle {
    rights: Vec<Value>,
    addons: Vec<Value>,
    /// Objects of add-ons that were turned off.
    gone: Vec<Value>,
}

/// The set for a tenant.
pub fn bundle(wanted: &Wanted<'_>) -> Bundle {
    let mut bundle = Bundle {
        rights: rbac::objects(wanted),
        addons: Vec::new(),
        gone: Vec::new(),
    };
    match wanted.core_dns {
        Some(image) => bundle.addons.extend(coredns::objects(wanted, image)),
        None if wanted.had_core_dns => bundle
            .gone
            .extend(coredns::objects(wanted, &AddonImage::default())),
        None => {}
    }
    match wanted.kube_proxy {
        Some(image) => bundle.addons.extend(kubeproxy::objects(wanted, image)),
        None if wanted.had_kube_proxy => bundle
            .gone
            .extend(kubeproxy::objects(wanted, &AddonImage::default())),
        None => {}
    }
    bundle
}

impl Bundle {
    /// Digest of what is to be there.
    pub fn digest(&self) -> String {
        digest::of(&Value::Array([&self.rights[..], &self.addons[..]].concat()))
    }

    /// Applies the rights.
    ///
    /// # Errors
    /// Of the first object that was refused.
    pub async fn apply_rights(&self, client: &Client) -> Result<(), Error> {
        for object in &self.rights {
            apply(client, object).await?;
        }
        Ok(())
    }

    /// Applies the add-ons and removes those that were turned off.
    ///
    /// # Errors
    /// Of the first object that was refused.
    pub async fn apply_addons(&self, client: &Client) -> Result<(), Error> {
        for object in &self.addons {
            apply(client, object).await?;
        }
        for object in self.gone.iter().rev() {
            delete(client, object).await?;
        }
        Ok(())
    }

    /// All objects that are to be there.
    pub fn objects(&self) -> impl Iterator<Item = &Value> {
        self.rights.iter().chain(&self.addons)
    }
}

async fn apply(client: &Client, object: &Value) -> Result<(), Error> {
    let (api, name, action) = place(client, object, "apply")?;
    let params = PatchParams::apply(field_manager::HOSTING).force();
    within(&action, api.patch(&name, &params, &Patch::Apply(object))).await?;
    Ok(())
}

async fn delete(client: &Client, object: &Value) -> Result<(), Error> {
    let (api, name, action) = place(client, object, "delete")?;
    let request = async {
        match api.delete(&name, &DeleteParams::background()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            answer => answer.map(|_| ()),
        }
    };
    within(&action, request).await
}

/// Where an object lives, its name, and what is said when it fails.
fn place(client: &Client, object: &Value, verb: &str) -> Result<(Api<DynamicObject>, String, String), Error> {
    let text = |pointer: &str| {
        let value = object.pointer(pointer).and_then(Value::as_str);
        value.map(str::to_owned)
    };
    let broken = || Error::Refused("an add-on has no kind or name".to_owned());
    let kind = text("/kind").ok_or_else(broken)?;
    let name = text("/metadata/name").ok_or_else(broken)?;
    let version = text("/apiVersion").ok_or_else(broken)?;
    let (group, version) = version.rsplit_once('/').unwrap_or(("", &version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
    let api = match text("/metadata/namespace") {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let action = format!("{verb} {kind} {name}");
    Ok((api, name, action))
}
