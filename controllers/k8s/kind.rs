//! The kind of an object, taken from its Rust type: a kind that does not exist does not compile.

use std::{
    borrow::Cow,
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
};

use kube::{Resource, core::ApiResource};

/// The kind of a type, with the way to its REST resource. One pointer wide; equal when the names are, since the kinds
/// in use are unique across the groups that we touch.
#[derive(Clone, Copy)]
pub struct Kind(&'static Definition);

struct Definition {
    name: fn() -> &'static str,
    resource: fn() -> ApiResource,
}

trait Defined {
    const DEFINITION: &'static Definition;
}

impl<K: Resource<DynamicType = ()>> Defined for K {
    const DEFINITION: &'static Definition = &Definition {
        name: name_of::<K>,
        resource: || ApiResource::erase::<K>(&()),
    };
}

fn name_of<K: Resource<DynamicType = ()>>() -> &'static str {
    match K::kind(&()) {
        Cow::Borrowed(name) => name,
        // Typed kinds have literal names.
        Cow::Owned(_) => std::any::type_name::<K>(),
    }
}

impl Kind {
    /// The kind of `K`; `PartialObjectMeta<K>` has that of `K`.
    pub fn of<K: Resource<DynamicType = ()>>() -> Self {
        Self(K::DEFINITION)
    }

    /// Its name in manifests, for example `Secret`.
    pub fn name(self) -> &'static str {
        (self.0.name)()
    }

    /// Group, version, kind and plural.
    pub fn resource(self) -> ApiResource {
        (self.0.resource)()
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Kind {}

impl PartialOrd for Kind {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Kind {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name().cmp(other.name())
    }
}

impl Hash for Kind {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Secret, Service};
    use kamaji_api::tenantcontrolplane::TenantControlPlane;
    use kube::api::PartialObjectMeta;

    use super::Kind;

    #[test]
    fn a_kind_comes_from_the_type_alone() {
        assert_eq!(Kind::of::<Secret>(), Kind::of::<PartialObjectMeta<Secret>>());
        assert_ne!(Kind::of::<Secret>(), Kind::of::<Service>());
        assert_eq!(Kind::of::<TenantControlPlane>().name(), "TenantControlPlane");
        assert_eq!(
            Kind::of::<TenantControlPlane>().resource().plural,
            "tenantcontrolplanes"
        );
        assert_eq!(size_of::<Kind>(), size_of::<usize>());
    }
}
