//! Everything the engine puts into a tenant, as one set with one digest: applied when the digest changes, by
//! server-side apply, and not asked after otherwise.

use std::collections::BTreeMap;

use kamaji_api::{
    addons::AddonImage,
    labels::{field_manager, kamaji, ours},
};
use kube::{
    Client,
    api::{
        Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, Preconditions,
    },
};
use serde_json::Value;

use super::{Error, addons::Wanted, coredns, kubeproxy, rbac, within};
use crate::k8s::digest;

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

/// Deletes what is there, if it is still ours: a tenant's admin may have put something else in its place.
async fn delete(client: &Client, object: &Value) -> Result<(), Error> {
    let (api, name, action) = place(client, object, "delete")?;
    let Some(found) = within(&action, api.get_metadata_opt(&name)).await? else {
        return Ok(());
    };
    if !is_ours(object, found.metadata.labels.as_ref()) {
        tracing::debug!(action, "left alone: it does not carry our labels");
        return Ok(());
    }
    let params = DeleteParams::background().preconditions(Preconditions {
        uid: found.metadata.uid,
        resource_version: None,
    });
    let request = async {
        match api.delete(&name, &params).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            answer => answer.map(|_| ()),
        }
    };
    within(&action, request).await
}

/// Whether what is found carries the labels that tell what this management cluster made.
fn is_ours(object: &Value, found: Option<&BTreeMap<String, String>>) -> bool {
    [kamaji::PROJECT, ours::MANAGEMENT_CLUSTER].iter().all(|key| {
        let made = object["metadata"]["labels"][*key].as_str();
        made.is_some() && made == found.and_then(|labels| labels.get(*key)).map(String::as_str)
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted<'a>(
        version: &'a semver::Version,
        image: &'a AddonImage,
        dns: &'a [std::net::IpAddr],
    ) -> Wanted<'a> {
        Wanted {
            management_cluster: "cluster-id",
            version,
            tag: "v1.36.3",
            registry: "registry.k8s.io",
            dns,
            domain: "cluster.local",
            server: "https://10.0.0.7:6443",
            pod_cidrs: &[],
            core_dns: Some(image),
            kube_proxy: Some(image),
            had_core_dns: false,
            had_kube_proxy: false,
        }
    }

    #[test]
    fn what_is_put_into_a_tenant() {
        let (version, image) = (semver::Version::new(1, 36, 3), AddonImage::default());
        let dns = ["10.96.0.10".parse().unwrap()];
        let bundle = bundle(&wanted(&version, &image, &dns));
        let objects: Vec<&Value> = bundle.objects().collect();
        insta::assert_yaml_snapshot!("bundle", objects);
    }

    #[test]
    fn an_addon_that_was_turned_off_is_removed_and_one_that_never_was_is_not() {
        let (version, image) = (semver::Version::new(1, 36, 3), AddonImage::default());
        let mut wanted = wanted(&version, &image, &[]);
        (wanted.core_dns, wanted.kube_proxy) = (None, None);
        wanted.had_core_dns = true;
        let bundle = bundle(&wanted);
        assert!(bundle.addons.is_empty());
        let gone: Vec<_> = bundle
            .gone
            .iter()
            .filter_map(|o| o["metadata"]["name"].as_str())
            .collect();
        assert!(
            gone.contains(&"kube-dns") && !gone.contains(&"kube-proxy"),
            "{gone:?}"
        );
    }

    #[tokio::test]
    async fn what_took_the_place_of_an_addon_outlives_it() {
        let (version, image) = (semver::Version::new(1, 36, 3), AddonImage::default());
        let dns = ["10.96.0.10".parse().unwrap()];
        let mut wanted = wanted(&version, &image, &dns);
        wanted.kube_proxy = None;
        let api = crate::testing::FakeApi::default();
        let client = api.client();
        bundle(&wanted).apply_addons(&client).await.unwrap();
        let config = "/api/v1/namespaces/kube-system/configmaps/coredns";
        let deployment = "/apis/apps/v1/namespaces/kube-system/deployments/coredns";
        let theirs = serde_json::json!({ "metadata": { "labels": { ours::MANAGEMENT_CLUSTER: null } } });
        api.edit(config, &theirs);
        (wanted.core_dns, wanted.had_core_dns) = (None, true);
        bundle(&wanted).apply_addons(&client).await.unwrap();
        assert!(api.get(deployment).is_none(), "ours is gone");
        assert!(api.get(config).is_some(), "the admin's own stays");
    }

    #[test]
    fn the_addresses_of_dns_are_those_kubelets_are_told() {
        let (version, image) = (semver::Version::new(1, 36, 3), AddonImage::default());
        let dns = ["10.96.0.53".parse().unwrap(), "fd00::35".parse().unwrap()];
        let bundle = bundle(&wanted(&version, &image, &dns));
        let service = bundle.objects().find(|o| o["kind"] == "Service").unwrap();
        assert_eq!(service["spec"]["clusterIP"], "10.96.0.53");
        assert_eq!(
            service["spec"]["clusterIPs"],
            serde_json::json!(["10.96.0.53", "fd00::35"])
        );
    }
}
