//! What a tenant was built with: digests of its trust roots, as the status and an annotation record them. Pure.

use std::collections::BTreeMap;

use kamaji_api::{
    labels::ours,
    tenantcontrolplane::{CertificatesStatus, SecretStatus, TenantControlPlane},
};
use kube::ResourceExt as _;

use crate::pki::spec::component;

/// Name of the digest of the public key of a CA that a user provides, beside the components.
const CA_KEY: &str = "ca-key";
/// The trust roots.
const ROOTS: [&str; 3] = [
    component::CA,
    component::FRONT_PROXY_CA,
    component::SERVICE_ACCOUNT,
];

/// Digest of the trust root `component` that the tenant was built with.
pub fn built_with<'a>(tenant: &'a TenantControlPlane, component: &str) -> Option<&'a str> {
    published(tenant, component).or_else(|| noted(tenant, component))
}

/// Digest of the public key of the provided CA that the tenant was built with.
pub fn ca_key(tenant: &TenantControlPlane) -> Option<&str> {
    noted(tenant, CA_KEY)
}

/// The digest that the annotation records. The Secret of an engine-made trust root was made immutable before.
pub fn noted<'a>(tenant: &'a TenantControlPlane, name: &str) -> Option<&'a str> {
    let list = tenant.annotations().get(ours::IDENTITY)?.split(',');
    list.filter_map(|entry| entry.split_once('='))
        .find_map(|(found, digest)| (found.trim() == name).then_some(digest.trim()))
        .filter(|digest| !digest.is_empty())
}

/// The user gave up a trust root of the engine, and another one takes its place under the same name. A kubelet reads an
/// immutable Secret once, and again when no pod on its node uses it any more: a new pod beside an old one would get the
/// former content.
pub fn is_replaced(
    tenant: &TenantControlPlane,
    hashes: &BTreeMap<&'static str, String>,
    ca_key: Option<&str>,
) -> bool {
    let made = ROOTS
        .iter()
        .filter(|root| **root != component::CA || ca_key.is_none());
    made.copied().any(|root| {
        let (before, now) = (noted(tenant, root), hashes.get(root));
        before.is_some_and(|before| now.is_some_and(|now| before != now))
    })
}

/// The annotation for trust roots with these digests, by component, and for a provided CA with this key.
pub fn annotation(hashes: &BTreeMap<&'static str, String>, ca_key: Option<&str>) -> String {
    let roots = ROOTS
        .iter()
        .filter_map(|root| Some((*root, hashes.get(root)?.as_str())));
    let entries: BTreeMap<&str, &str> = roots.chain(ca_key.map(|key| (CA_KEY, key))).collect();
    let entries: Vec<String> = entries
        .iter()
        .map(|(name, digest)| format!("{name}={digest}"))
        .collect();
    entries.join(",")
}

fn published<'a>(tenant: &'a TenantControlPlane, component: &str) -> Option<&'a str> {
    let CertificatesStatus {
        ca,
        front_proxy_ca,
        sa,
        api_server: _,
        api_server_kubelet_client: _,
        front_proxy_client: _,
        etcd: _,
    } = tenant.status.as_ref()?.certificates.as_ref()?;
    let recorded: Option<&SecretStatus> = match component {
        component::CA => ca.as_ref(),
        component::FRONT_PROXY_CA => front_proxy_ca.as_ref(),
        component::SERVICE_ACCOUNT => sa.as_ref(),
        _ => None,
    };
    recorded?.checksum.as_deref().filter(|hash| !hash.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosting::testing::tenant as example;

    #[test]
    fn the_annotation_stands_in_for_a_lost_status() {
        let mut tenant = example::tenant();
        assert_eq!(built_with(&tenant, component::CA), None);
        let hashes = BTreeMap::from([
            (component::CA, "1".to_owned()),
            (component::SERVICE_ACCOUNT, "2".to_owned()),
            (component::ADMIN, "3".to_owned()),
        ]);
        let text = annotation(&hashes, Some("4"));
        assert!(!text.contains('3'), "{text}: no trust root");
        tenant.annotations_mut().insert(ours::IDENTITY.to_owned(), text);
        assert_eq!(built_with(&tenant, component::CA), Some("1"));
        assert_eq!(built_with(&tenant, component::SERVICE_ACCOUNT), Some("2"));
        assert_eq!(built_with(&tenant, component::FRONT_PROXY_CA), None);
        assert_eq!(ca_key(&tenant), Some("4"));
        assert!(!is_replaced(&tenant, &hashes, None));
        let other = BTreeMap::from([(component::CA, "9".to_owned())]);
        assert!(is_replaced(&tenant, &other, None));
        assert!(!is_replaced(&tenant, &other, Some("4")), "the user's is mutable");
        tenant
            .annotations_mut()
            .insert(ours::IDENTITY.to_owned(), "rubbish, ca= ,".to_owned());
        assert_eq!(built_with(&tenant, component::CA), None);
    }
}
