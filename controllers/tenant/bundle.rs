//! Everything that the engine applies in a tenant, as one set with one digest. It is applied by server-side apply when
//! the digest changes, and not read otherwise.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use kamaji_api::{
    addons::AddonImage,
    labels::{kamaji, ours},
};
use serde_json::Value;

use super::{
    Connection, Error,
    addons::{Inputs, Konnectivity, Selection},
    coredns, konnectivity, kubeproxy, leases, rbac,
};
use crate::k8s::digest;

/// The objects of an add-on, the workload last.
type Objects = fn(&Inputs<'_>, &AddonImage) -> Vec<Value>;

/// The set.
#[derive(Clone, Debug)]
pub struct Bundle {
    rbac: Vec<Value>,
    addons: Vec<Value>,
    /// Objects of add-ons that were disabled, and a workload of agents of the former kind.
    removed: Vec<Value>,
    /// Konnectivity was disabled: the Leases of its servers go too.
    without_servers: bool,
}

/// How many objects of a [`Bundle`] are applied. A try that was given up leaves it to the next one, which goes on there.
#[derive(Debug, Default)]
pub struct Applied {
    rbac: AtomicUsize,
    /// The removed ones follow the others.
    addons: AtomicUsize,
}

/// The set of a tenant.
pub fn bundle(inputs: &Inputs<'_>) -> Bundle {
    let (mut addons, mut removed) = (Vec::new(), Vec::new());
    // First, since a webhook that refuses the others may be reached through the agents alone.
    let Konnectivity { agents, installed } = &inputs.konnectivity;
    match agents {
        Some(agents) => {
            addons.extend(konnectivity::objects(inputs, agents));
            removed.push(konnectivity::other_workload(inputs, agents.settings.mode));
        }
        None if *installed => removed.extend(konnectivity::removed(inputs)),
        None => {}
    }
    // The order is part of the digest.
    let all: [(Objects, Selection<'_>); 2] = [
        (coredns::objects, inputs.core_dns),
        (kubeproxy::objects, inputs.kube_proxy),
    ];
    for (objects, Selection { image, installed }) in all {
        match image {
            Some(image) => addons.extend(objects(inputs, image)),
            None if installed => removed.extend(objects(inputs, &AddonImage::default())),
            None => {}
        }
    }
    Bundle {
        rbac: rbac::objects(inputs),
        addons,
        removed,
        without_servers: agents.is_none() && *installed,
    }
}

impl Bundle {
    /// Digest of the objects that should exist.
    pub fn digest(&self) -> String {
        digest::of(&Value::Array([&self.rbac[..], &self.addons[..]].concat()))
    }

    /// Applies the RBAC objects that are not yet `applied`.
    ///
    /// # Errors
    /// Of the first object that the tenant refuses.
    pub async fn apply_rbac(&self, connection: &Connection, applied: &Applied) -> Result<(), Error> {
        for object in self.rbac.iter().skip(applied.rbac.load(Ordering::Relaxed)) {
            connection.apply(object).await?;
            applied.rbac.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Applies the enabled add-ons and removes the disabled ones, as far as that is not yet `applied`. An object without
    /// the labels of this management cluster is not removed: a tenant's admin has replaced it.
    ///
    /// # Errors
    /// Of the first object that the tenant refuses.
    pub async fn apply_addons(&self, connection: &Connection, applied: &Applied) -> Result<(), Error> {
        let done = applied.addons.load(Ordering::Relaxed);
        for object in self.addons.iter().skip(done) {
            connection.apply(object).await?;
            applied.addons.fetch_add(1, Ordering::Relaxed);
        }
        let done = done.saturating_sub(self.addons.len());
        for object in self.removed.iter().rev().skip(done) {
            let ours = connection
                .delete(object, |found| is_ours(object, found.labels.as_ref()))
                .await?;
            if !ours {
                let (kind, name) = (&object["kind"], &object["metadata"]["name"]);
                tracing::debug!(%kind, %name, "object of a disabled add-on kept: it does not carry our labels");
            }
            applied.addons.fetch_add(1, Ordering::Relaxed);
        }
        // The role that lets servers create them is gone.
        if self.without_servers {
            leases::delete(connection).await?;
        }
        Ok(())
    }

    /// All objects that should exist.
    pub fn objects(&self) -> impl Iterator<Item = &Value> {
        self.rbac.iter().chain(&self.addons)
    }
}

/// Whether the object that exists carries the labels that name the management cluster it was made by.
fn is_ours(object: &Value, found: Option<&BTreeMap<String, String>>) -> bool {
    [kamaji::PROJECT, ours::MANAGEMENT_CLUSTER].iter().all(|key| {
        let made = object["metadata"]["labels"][*key].as_str();
        made.is_some() && made == found.and_then(|labels| labels.get(*key)).map(String::as_str)
    })
}

#[cfg(test)]
mod tests {
    use kamaji_api::{
        addons::{KonnectivityAgent, KonnectivityAgentMode},
        labels::field_manager,
    };

    use super::*;
    use crate::{k8s::host_port::HostPort, tenant::addons::Agents};

    fn inputs<'a>(
        version: &'a semver::Version,
        image: &'a AddonImage,
        dns: &'a [std::net::IpAddr],
    ) -> Inputs<'a> {
        Inputs {
            management_cluster: "cluster-id",
            version,
            tag: "v1.36.3",
            registry: "registry.k8s.io",
            dns,
            domain: "cluster.local",
            server: "https://10.0.0.7:6443",
            pod_cidrs: &[],
            core_dns: enabled(image),
            kube_proxy: enabled(image),
            konnectivity: Konnectivity::default(),
        }
    }

    fn enabled(image: &AddonImage) -> Selection<'_> {
        Selection {
            image: Some(image),
            installed: false,
        }
    }

    fn agents<'a>(
        settings: &'a KonnectivityAgent,
        api_server: &'a HostPort,
        server: &'a HostPort,
    ) -> Konnectivity<'a> {
        let agents = Agents {
            tenant: "alpha",
            settings,
            tag: "v0.36.0",
            api_server,
            server,
            by_lease: true,
        };
        Konnectivity {
            agents: Some(agents),
            installed: true,
        }
    }

    /// Enabled before, disabled now.
    const DISABLED: Selection<'static> = Selection {
        image: None,
        installed: true,
    };

    #[test]
    fn the_objects_that_are_applied_in_a_tenant() {
        let (version, image) = (semver::Version::new(1, 36, 3), AddonImage::default());
        let dns = ["10.96.0.10".parse().unwrap()];
        let bundle = bundle(&inputs(&version, &image, &dns));
        let objects: Vec<&Value> = bundle.objects().collect();
        insta::assert_yaml_snapshot!("bundle", objects);
    }

    #[test]
    fn an_addon_that_was_disabled_is_removed_and_one_that_was_never_enabled_is_not() {
        let (version, image) = (semver::Version::new(1, 36, 3), AddonImage::default());
        let mut inputs = inputs(&version, &image, &[]);
        (inputs.core_dns, inputs.kube_proxy) = (DISABLED, Selection::default());
        let bundle = bundle(&inputs);
        assert!(bundle.addons.is_empty());
        let removed: Vec<_> = bundle
            .removed
            .iter()
            .filter_map(|o| o["metadata"]["name"].as_str())
            .collect();
        assert!(
            removed.contains(&"kube-dns") && !removed.contains(&"kube-proxy"),
            "{removed:?}"
        );
    }

    #[tokio::test]
    async fn agents_of_the_other_mode_and_of_a_disabled_konnectivity_are_removed() {
        let (version, image) = (semver::Version::new(1, 36, 3), AddonImage::default());
        let mut inputs = inputs(&version, &image, &[]);
        (inputs.core_dns, inputs.kube_proxy) = (Selection::default(), Selection::default());
        let api = crate::testing::FakeApi::default();
        let connection = Connection::from_client(api.client(), field_manager::HOSTING);
        let (address, server) = (HostPort::new("10.0.0.7", 6443), HostPort::new("10.0.0.7", 8132));
        let kinds = async |inputs: &Inputs<'_>| {
            let bundle = bundle(inputs);
            bundle
                .apply_addons(&connection, &Applied::default())
                .await
                .unwrap();
            let found = api.objects();
            let kinds = found
                .iter()
                .filter_map(|object| object["kind"].as_str())
                .map(str::to_owned);
            kinds.collect::<std::collections::BTreeSet<_>>()
        };
        for mode in [
            KonnectivityAgentMode::DaemonSet,
            KonnectivityAgentMode::Deployment,
        ] {
            let settings = KonnectivityAgent {
                mode,
                ..KonnectivityAgent::default()
            };
            let enabled = Inputs {
                konnectivity: agents(&settings, &address, &server),
                ..inputs
            };
            let own = konnectivity::kind(mode);
            let expected = ["ClusterRoleBinding", "Role", "RoleBinding", "ServiceAccount", own];
            assert_eq!(kinds(&enabled).await, expected.map(str::to_owned).into());
            if mode == KonnectivityAgentMode::Deployment {
                insta::assert_yaml_snapshot!("konnectivity", api.objects());
            }
        }
        let lease = |name: &str| format!("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{name}");
        for name in ["konnectivity-proxy-server-alpha-1", "kube-scheduler"] {
            api.edit(
                &lease(name),
                &serde_json::json!({
                    "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": name },
                }),
            );
        }
        inputs.konnectivity = Konnectivity {
            agents: None,
            installed: true,
        };
        api.requests();
        assert_eq!(kinds(&inputs).await, ["Lease".to_owned()].into());
        assert!(api.get(&lease("kube-scheduler")).is_some());
        let last = api.requests().pop().unwrap();
        assert_eq!(
            last,
            format!("DELETE {}", lease("konnectivity-proxy-server-alpha-1"))
        );
    }

    #[tokio::test]
    async fn agents_come_before_what_may_not_be_admitted_without_them() {
        let (version, image) = (semver::Version::new(1, 36, 3), AddonImage::default());
        let (address, server) = (HostPort::new("10.0.0.7", 6443), HostPort::new("10.0.0.7", 8132));
        let settings = KonnectivityAgent::default();
        let inputs = Inputs {
            konnectivity: agents(&settings, &address, &server),
            ..inputs(&version, &image, &[])
        };
        let api = crate::testing::FakeApi::default();
        api.deny(Some("/api/v1/namespaces/kube-system/configmaps"));
        let connection = Connection::from_client(api.client(), field_manager::HOSTING);
        let refused = bundle(&inputs)
            .apply_addons(&connection, &Applied::default())
            .await;
        assert!(refused.is_err());
        let agents = "/apis/apps/v1/namespaces/kube-system/daemonsets/konnectivity-agent";
        assert!(api.get(agents).is_some());
    }

    #[tokio::test]
    async fn an_object_that_an_admin_replaced_outlives_its_addon() {
        let (version, image) = (semver::Version::new(1, 36, 3), AddonImage::default());
        let dns = ["10.96.0.10".parse().unwrap()];
        let mut inputs = inputs(&version, &image, &dns);
        inputs.kube_proxy = Selection::default();
        let api = crate::testing::FakeApi::default();
        let connection = Connection::from_client(api.client(), field_manager::HOSTING);
        let bundled = bundle(&inputs);
        bundled
            .apply_addons(&connection, &Applied::default())
            .await
            .unwrap();
        let config = "/api/v1/namespaces/kube-system/configmaps/coredns";
        let deployment = "/apis/apps/v1/namespaces/kube-system/deployments/coredns";
        let theirs = serde_json::json!({ "metadata": { "labels": { ours::MANAGEMENT_CLUSTER: null } } });
        api.edit(config, &theirs);
        inputs.core_dns = DISABLED;
        let bundled = bundle(&inputs);
        bundled
            .apply_addons(&connection, &Applied::default())
            .await
            .unwrap();
        assert!(api.get(deployment).is_none(), "ours is gone");
        assert!(api.get(config).is_some(), "the admin's own stays");
    }

    #[test]
    fn the_addresses_of_dns_are_those_that_kubelets_are_configured_with() {
        let (version, image) = (semver::Version::new(1, 36, 3), AddonImage::default());
        let dns = ["10.96.0.53".parse().unwrap(), "fd00::35".parse().unwrap()];
        let bundle = bundle(&inputs(&version, &image, &dns));
        let service = bundle.objects().find(|o| o["kind"] == "Service").unwrap();
        assert_eq!(service["spec"]["clusterIP"], "10.96.0.53");
        assert_eq!(
            service["spec"]["clusterIPs"],
            serde_json::json!(["10.96.0.53", "fd00::35"])
        );
    }
}
