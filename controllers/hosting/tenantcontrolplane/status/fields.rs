//! The fields of the status beside the conditions. Pure.

use k8s_openapi::{
    api::core::v1::{LoadBalancerIngress, LoadBalancerStatus},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kamaji_api::{
    datastore::Driver,
    labels::kamaji,
    tenantcontrolplane::{
        AddonStatus, AddonsStatus, CertificatesStatus, DeploymentStatus, KubeadmPhaseStatus,
        KubeconfigsStatus, KubernetesResourcesStatus, PhaseStatus, SecretStatus, ServiceStatus,
        StorageConfigStatus, StorageSetupStatus, StorageStatus, TenantControlPlane, TenantControlPlaneStatus,
        VersionPhase, VersionStatus,
    },
};
use kube::ResourceExt;

use super::{konnectivity, secret};
use crate::{
    hosting::tenantcontrolplane::{
        certificates::Certificates,
        desired::secrets,
        observe::{self, Rows},
        observed::{Observed, TenantApi},
        phase, plan,
        storage::Placed,
    },
    k8s::row::Row,
    pki::spec::{self, component},
};

/// Every field of the status is computed here or kept: a new one does not compile until that is decided. The conditions
/// stay as they are. `answered`: see [`phase::Inputs`].
pub fn fields(
    old: TenantControlPlaneStatus,
    tenant: &TenantControlPlane,
    observed: &Observed,
    rows: &Rows,
    answered: bool,
    now: Timestamp,
) -> TenantControlPlaneStatus {
    let TenantControlPlaneStatus {
        observed_generation,
        conditions,
        storage,
        certificates,
        kubeconfig,
        // Written by upstream Kamaji alone.
        kubeadm_config,
        kubeadm_phase,
        kubernetes_resources,
        control_plane_endpoint,
        worker_endpoint,
        addons,
    } = old;
    let name = tenant.name_any();
    let is_applied = observed.deleting.is_none() && observed.deployment.is_done();
    let tenant_api = observed.tenant_api.as_ref();
    let (kubeadm_phase, addons) = workload_cluster(
        kubeadm_phase,
        addons,
        tenant,
        tenant_api,
        observed.key_material.as_ref(),
        now,
    );
    let storage = storage_status(storage, &name, observed.placed.as_ref(), observed.torn_down, now);
    let (certificates, kubeconfig, storage) = match &observed.key_material {
        Some(made) => {
            let secrets = Secrets {
                name: &name,
                made,
                now,
            };
            (
                Some(secrets.certificates(certificates.unwrap_or_default())),
                Some(secrets.kubeconfigs(kubeconfig.unwrap_or_default())),
                storage.map(|storage| secrets.of_storage(storage)),
            )
        }
        None => (certificates, kubeconfig, storage),
    };
    // Nobody uses an address that no certificate names.
    let addresses = observed
        .addresses
        .as_ref()
        .filter(|_| observed.key_material.is_some());
    let published = addresses.map(|addresses| addresses.published.clone());
    let nodes = addresses.map(|addresses| addresses.nodes.clone());
    TenantControlPlaneStatus {
        observed_generation: if is_applied {
            tenant.metadata.generation
        } else {
            observed_generation
        },
        conditions,
        storage,
        certificates,
        kubeconfig,
        kubeadm_config,
        kubeadm_phase,
        kubernetes_resources: Some(resources(
            kubernetes_resources.unwrap_or_default(),
            tenant,
            rows,
            observed.rendered.as_deref(),
            answered,
        )),
        control_plane_endpoint: published.or(control_plane_endpoint),
        worker_endpoint: nodes.or(worker_endpoint),
        addons,
    }
}

/// Deployment, Service, version and phase.
fn resources(
    old: KubernetesResourcesStatus,
    tenant: &TenantControlPlane,
    rows: &Rows,
    rendered: Option<&str>,
    answered: bool,
) -> KubernetesResourcesStatus {
    let KubernetesResourcesStatus {
        version,
        deployment: _,
        service: _,
        // Not supported yet; an adopted tenant keeps them.
        ingress,
        gateway,
    } = old;
    let installed = version.and_then(|version| version.version);
    let phase = phase::phase(phase::Inputs {
        replicas: tenant.spec.control_plane.deployment.replicas,
        deployment: rows.deployment.as_deref(),
        installed: installed.as_deref(),
        rendered: rendered.or(installed.as_deref()),
        answered,
    });
    // A tenant with 0 replicas runs nothing. To record its rendered version, as upstream Kamaji does, would let the
    // next upgrade skip a minor.
    let rolled_out = match phase {
        VersionPhase::Ready => true,
        VersionPhase::Sleeping => installed.is_none(),
        VersionPhase::Unknown
        | VersionPhase::Provisioning
        | VersionPhase::CertificateAuthorityRotating
        | VersionPhase::Upgrading
        | VersionPhase::Migrating
        | VersionPhase::NotReady
        | VersionPhase::WriteLimited => false,
    };
    KubernetesResourcesStatus {
        version: Some(VersionStatus {
            version: rendered.map(str::to_owned).filter(|_| rolled_out).or(installed),
            status: phase,
        }),
        deployment: rows.deployment.as_deref().and_then(|row| deployment(tenant, row)),
        service: rows.service.as_deref().and_then(|row| service(tenant, row)),
        ingress,
        gateway,
    }
}

fn deployment(tenant: &TenantControlPlane, row: &Row) -> Option<DeploymentStatus> {
    let status = phase::facts(row)?.status.clone();
    let name = tenant.name_any();
    Some(DeploymentStatus {
        selector: format!("{}={name}", kamaji::NAME),
        name,
        namespace: tenant.namespace().unwrap_or_default(),
        last_update: None,
        observed_generation: status.observed_generation,
        // kubectl fails on a scale subresource without a number.
        replicas: Some(status.replicas.unwrap_or(0)),
        updated_replicas: Some(status.updated_replicas.unwrap_or(0)),
        ready_replicas: Some(status.ready_replicas.unwrap_or(0)),
        available_replicas: Some(status.available_replicas.unwrap_or(0)),
        unavailable_replicas: status.unavailable_replicas,
        terminating_replicas: status.terminating_replicas,
        collision_count: status.collision_count,
        conditions: status.conditions.unwrap_or_default(),
    })
}

fn service(tenant: &TenantControlPlane, row: &Row) -> Option<ServiceStatus> {
    let facts = observe::service_facts(row)?;
    let port = plan::port_of(facts).map(i32::from);
    Some(ServiceStatus {
        name: tenant.name_any(),
        namespace: tenant.namespace().unwrap_or_default(),
        port: port.unwrap_or(tenant.spec.network_profile.port),
        load_balancer: (!facts.ingress.is_empty()).then(|| load_balancer(&facts.ingress)),
        conditions: Vec::new(),
    })
}

fn load_balancer(addresses: &[String]) -> LoadBalancerStatus {
    let ingress = addresses.iter().map(|address| {
        let is_address = address.parse::<std::net::IpAddr>().is_ok();
        LoadBalancerIngress {
            ip: is_address.then(|| address.clone()),
            hostname: (!is_address).then(|| address.clone()),
            ..LoadBalancerIngress::default()
        }
    });
    LoadBalancerStatus {
        ingress: Some(ingress.collect()),
    }
}

/// Schema and user of the tenant `name`, once they exist.
fn storage_status(
    old: Option<StorageStatus>,
    name: &str,
    placed: Option<&Placed>,
    torn_down: bool,
    now: Timestamp,
) -> Option<StorageStatus> {
    if torn_down {
        return old.map(|storage| StorageStatus {
            setup: None,
            ..storage
        });
    }
    let Some(placed) = placed else {
        return old;
    };
    let StorageStatus {
        driver: _,
        data_store_name: _,
        config,
        setup,
        certificate,
    } = old.unwrap_or_default();
    Some(StorageStatus {
        driver: Some(Driver::Etcd.as_str().to_owned()),
        data_store_name: Some(placed.store.clone()),
        config: Some(StorageConfigStatus {
            secret_name: Some(secrets::datastore_config_name(name)),
            checksum: config.and_then(|config| config.checksum),
        }),
        setup: setup
            .filter(|setup| setup.checksum.as_deref() == Some(placed.digest.as_str()))
            .or_else(|| {
                Some(StorageSetupStatus {
                    schema: Some(placed.names.schema.clone()),
                    user: Some(placed.names.user.clone()),
                    checksum: Some(placed.digest.clone()),
                    last_update: Some(seconds(now)),
                })
            }),
        certificate,
    })
}

/// Entries for the Secrets of key material.
struct Secrets<'a> {
    /// Name of the tenant.
    name: &'a str,
    made: &'a Certificates,
    now: Timestamp,
}

impl Secrets<'_> {
    /// `old`, while it is about the same Secret with the same data.
    fn entry(&self, old: Option<SecretStatus>, component: &str, secret: &str) -> SecretStatus {
        let checksum = self.made.hashes.get(component);
        secret::entry(old, secret, checksum, &seconds(self.now))
    }

    fn own(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.name)
    }

    fn certificates(&self, old: CertificatesStatus) -> CertificatesStatus {
        let CertificatesStatus {
            ca,
            api_server,
            api_server_kubelet_client,
            front_proxy_ca,
            front_proxy_client,
            sa,
            etcd,
        } = old;
        CertificatesStatus {
            ca: Some(self.entry(ca, component::CA, &spec::ca_name(self.name))),
            api_server: Some(self.entry(
                api_server,
                component::API_SERVER,
                &self.own("api-server-certificate"),
            )),
            api_server_kubelet_client: Some(self.entry(
                api_server_kubelet_client,
                component::KUBELET_CLIENT,
                &self.own("api-server-kubelet-client-certificate"),
            )),
            front_proxy_ca: Some(self.entry(
                front_proxy_ca,
                component::FRONT_PROXY_CA,
                &self.own("front-proxy-ca-certificate"),
            )),
            front_proxy_client: Some(self.entry(
                front_proxy_client,
                component::FRONT_PROXY_CLIENT,
                &self.own("front-proxy-client-certificate"),
            )),
            sa: Some(self.entry(sa, component::SERVICE_ACCOUNT, &self.own("sa-certificate"))),
            // Written by upstream Kamaji alone.
            etcd,
        }
    }

    fn kubeconfigs(&self, old: KubeconfigsStatus) -> KubeconfigsStatus {
        let KubeconfigsStatus {
            admin,
            controller_manager,
            scheduler,
        } = old;
        KubeconfigsStatus {
            admin: Some(self.entry(admin, component::ADMIN, &spec::admin_name(self.name))),
            controller_manager: Some(self.entry(
                controller_manager,
                component::CONTROLLER_MANAGER,
                &self.own("controller-manager-kubeconfig"),
            )),
            scheduler: Some(self.entry(scheduler, component::SCHEDULER, &self.own("scheduler-kubeconfig"))),
        }
    }

    fn of_storage(&self, old: StorageStatus) -> StorageStatus {
        let certificate = old.certificate.clone();
        StorageStatus {
            certificate: Some(self.entry(
                certificate,
                component::DATASTORE,
                &spec::datastore_name(self.name),
            )),
            ..old
        }
    }
}

/// Digest of what was applied in the workload cluster, and the add-ons in it.
fn workload_cluster(
    phase: Option<KubeadmPhaseStatus>,
    addons: Option<AddonsStatus>,
    tenant: &TenantControlPlane,
    observed: Option<&TenantApi>,
    made: Option<&Certificates>,
    now: Timestamp,
) -> (Option<KubeadmPhaseStatus>, Option<AddonsStatus>) {
    let applied = |api: &&TenantApi| {
        let failed = api.rbac.problem().is_some() || api.addons.problem().is_some();
        let known = phase
            .as_ref()
            .and_then(|phase| phase.bootstrap_token.checksum.as_deref());
        !failed && known != Some(api.digest.as_str())
    };
    let Some(api) = observed.filter(applied) else {
        return (phase, addons);
    };
    let addon = |enabled: bool| {
        Some(AddonStatus {
            enabled,
            last_update: Some(seconds(now)),
        })
    };
    let phase = KubeadmPhaseStatus {
        bootstrap_token: PhaseStatus {
            checksum: Some(api.digest.clone()),
            last_update: Some(seconds(now)),
        },
    };
    let addons = AddonsStatus {
        core_dns: addon(tenant.spec.addons.core_dns.is_some()),
        kube_proxy: addon(tenant.spec.addons.kube_proxy.is_some()),
        konnectivity: konnectivity::status(
            addons.and_then(|addons| addons.konnectivity),
            tenant,
            made,
            &seconds(now),
        ),
    };
    (Some(phase), Some(addons))
}

/// `now` in the precision of the API: whole seconds.
fn seconds(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}
