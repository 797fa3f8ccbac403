//! Metadata of the objects that controllers write: owners and labels.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};

/// The owner references of an object with `controller` as its controller, where it lost that one or has one to an earlier
/// object of that kind and name, as after a restore from a backup. `None`: it has it, or another object controls it.
pub fn with_controller(found: &[OwnerReference], controller: &OwnerReference) -> Option<Vec<OwnerReference>> {
    let same = |owner: &OwnerReference| (&owner.kind, &owner.name) == (&controller.kind, &controller.name);
    let current = found.iter().find(|owner| owner.controller == Some(true));
    if current.is_some_and(|owner| owner.uid == controller.uid || !same(owner)) {
        return None;
    }
    let others = found.iter().filter(|owner| !same(owner)).cloned();
    Some(others.chain([controller.clone()]).collect())
}

/// A controller owner reference to `owner`, which blocks its foreground deletion.
pub fn controller_of<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.name_any(),
        uid: owner.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_is_set_again_and_never_replaces_another_object() {
        let owner = |name: &str, uid: &str, controller| OwnerReference {
            kind: "TenantControlPlane".to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
            controller,
            ..OwnerReference::default()
        };
        let ours = owner("alpha", "2", Some(true));
        let set = |found: &[OwnerReference]| with_controller(found, &ours);
        assert_eq!(set(&[]), Some(vec![ours.clone()]));
        assert_eq!(set(&[owner("alpha", "1", Some(true))]), Some(vec![ours.clone()]));
        assert_eq!(set(std::slice::from_ref(&ours)), None);
        assert_eq!(set(&[owner("beta", "3", Some(true))]), None);
        let beside = owner("beta", "3", None);
        assert_eq!(
            set(std::slice::from_ref(&beside)),
            Some(vec![beside, ours.clone()])
        );
    }
}
