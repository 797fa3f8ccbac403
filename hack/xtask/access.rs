//! The RBAC rules of the controllers, read from the file beside each of them, and the rules that no controller owns.
//!
//! The files hold data only and depend on `kamaji_api` alone, so that this program compiles them without linking the
//! product: the everyday checks stay fast. This is the one place where a module's file is elsewhere.

use kamaji_api::rbac::{Grant, Verb::Get, grant, group::CONTROL_PLANE};

#[path = "../../controllers/kamajiconfig/rbac.rs"]
mod bootstrap;
#[path = "../../controllers/kamajicontrolplane/rbac.rs"]
mod control_plane;
#[path = "../../controllers/hosting/rbac.rs"]
mod hosting;

pub use bootstrap::RULES as BOOTSTRAP_ROLE;
pub use control_plane::RULES as CONTROL_PLANE_ROLE;
pub use hosting::RULES as HOSTING_ROLE;

/// For the kubeadm bootstrap provider of Cluster API: it reads the control plane of the workers that it bootstraps.
pub const KUBEADM_READS: &[Grant] = &[grant(CONTROL_PLANE, &["kamajicontrolplanes"], &[Get])];

#[cfg(test)]
mod tests {
    use kamaji_api::rbac::Verb::{Create, Delete, Get, List, Patch, Update, Watch};

    use super::*;

    fn all() -> impl Iterator<Item = &'static Grant> {
        [CONTROL_PLANE_ROLE, HOSTING_ROLE, BOOTSTRAP_ROLE, KUBEADM_READS]
            .into_iter()
            .flatten()
    }

    #[test]
    fn no_rule_has_a_wildcard_or_lets_permissions_grow() {
        for grant in all() {
            assert!(!grant.group.contains('*'), "{grant:?}");
            assert!(!grant.resources.iter().any(|r| r.contains('*')), "{grant:?}");
            assert!(grant.group != "rbac.authorization.k8s.io", "{grant:?}");
        }
    }

    #[test]
    fn contract_27_every_kind_that_owns_children_lets_its_role_update_finalizers() {
        for (role, owners) in [
            (CONTROL_PLANE_ROLE, &["kamajicontrolplanes"][..]),
            (HOSTING_ROLE, &["tenantcontrolplanes", "datastores"]),
            (BOOTSTRAP_ROLE, &["kamajiconfigs"]),
        ] {
            for owner in owners {
                let name = format!("{owner}/finalizers");
                let may =
                    |grant: &Grant| grant.resources.contains(&name.as_str()) && grant.verbs.contains(&Update);
                assert!(role.iter().any(may), "{name}");
            }
        }
    }

    #[test]
    fn roles_cannot_touch_what_belongs_to_another() {
        let may = |role: &[Grant], resource: &str| {
            role.iter().any(|g| {
                g.resources.contains(&resource) && g.verbs.iter().any(|v| ![Get, List, Watch].contains(v))
            })
        };
        assert!(!may(BOOTSTRAP_ROLE, "tenantcontrolplanes"));
        assert!(!may(BOOTSTRAP_ROLE, "kamajicontrolplanes"));
        assert!(!may(HOSTING_ROLE, "kamajicontrolplanes"));
        assert!(!may(CONTROL_PLANE_ROLE, "deployments"));
        for watched in ["clusters", "machines", "machinepools", "pods", "storageclasses"] {
            assert!(!all().any(|g| may(std::slice::from_ref(g), watched)), "{watched}");
        }
    }

    #[test]
    fn what_is_applied_may_be_created() {
        for grant in all().filter(|g| g.verbs.contains(&Delete) && g.verbs.contains(&Patch)) {
            assert!(grant.verbs.contains(&Create), "{grant:?}");
        }
    }
}
