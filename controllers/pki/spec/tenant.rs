//! The Secrets of key material of one tenant. Names, keys and subjects are Kamaji's; `system:masters` is in the
//! break-glass kubeconfig alone, and each certificate has one usage.

use std::net::IpAddr;

use kamaji_api::labels::{
    capi::{SECRET_TYPE, VALUE_KEY},
    ours,
};

use super::{
    AltNames, Content, KubeconfigFile, KubeconfigIdentity, Leaf, Renewal, SecretSpec, Signer, Usage,
};
use crate::k8s::host_port::host_of;

/// Group that the tenant binds to `cluster-admin`.
pub const ADMINS_GROUP: &str = "kubeadm:cluster-admins";
/// User of the bootstrap provider in a tenant. [`crate::tenant::bootstrap_role`] lists its permissions.
pub const BOOTSTRAP_USER: &str = "kamaji-bootstrap:controller";

/// User of the konnectivity server in a tenant, and audience of the tokens that agents show it.
/// [`crate::tenant::konnectivity`] lists its permissions.
pub const KONNECTIVITY_USER: &str = "system:konnectivity-server";

/// Inputs of the certificates of one tenant.
#[derive(Debug, Clone, Default)]
pub struct Tenant {
    /// Namespace of the TenantControlPlane.
    pub namespace: String,
    /// Name of the TenantControlPlane.
    pub name: String,
    /// DNS domain of the tenant.
    pub cluster_domain: String,
    /// First address of each service range: those of the `kubernetes` Service.
    pub service_addresses: Vec<IpAddr>,
    /// Further hosts of the API server's certificate: addresses, the load balancer's name, the endpoint's host.
    pub hosts: Vec<String>,
    /// `spec.networkProfile.certSANs`.
    pub extra_sans: Vec<String>,
    /// Port of the API server.
    pub port: u16,
    /// `host:port` of the published endpoint.
    pub endpoint: String,
    /// User of the tenant in its datastore; `None` when the datastore uses no client certificates.
    pub datastore_user: Option<String>,
}

/// Values of the component label, as Kamaji writes them.
pub mod component {
    /// Cluster CA.
    pub const CA: &str = "ca";
    /// Front proxy CA.
    pub const FRONT_PROXY_CA: &str = "front-proxy-ca-certificate";
    /// ServiceAccount pair.
    pub const SERVICE_ACCOUNT: &str = "service-account";
    /// API server.
    pub const API_SERVER: &str = "api-server-certificate";
    /// API server as a client of kubelets.
    pub const KUBELET_CLIENT: &str = "api-server-kubelet-client-certificate";
    /// API server as a client of aggregated API servers.
    pub const FRONT_PROXY_CLIENT: &str = "front-proxy-client-certificate";
    /// Kubeconfigs of admins.
    pub const ADMIN: &str = "admin-kubeconfig";
    /// Controller manager.
    pub const CONTROLLER_MANAGER: &str = "controller-manager-kubeconfig";
    /// Scheduler.
    pub const SCHEDULER: &str = "scheduler-kubeconfig";
    /// Client of the datastore.
    pub const DATASTORE: &str = "datastore-certificate";
    /// Konnectivity server as a client of the API server.
    pub const KONNECTIVITY: &str = "konnectivity-certificate";
    /// Bootstrap provider.
    pub const BOOTSTRAP: &str = "bootstrap-kubeconfig";
}

/// Name of the Secret with the tenant's CA.
pub fn ca_name(tenant: &str) -> String {
    format!("{tenant}-ca")
}

/// Name of the Secret with the front proxy's CA.
pub fn front_proxy_ca_name(tenant: &str) -> String {
    format!("{tenant}-front-proxy-ca-certificate")
}

/// Name of the Secret with the key pair of ServiceAccount tokens.
pub fn service_account_name(tenant: &str) -> String {
    format!("{tenant}-sa-certificate")
}

/// Name of the Secret with the kubeconfigs of admins.
pub fn admin_name(tenant: &str) -> String {
    format!("{tenant}-admin-kubeconfig")
}

/// Name of the Secret with the tenant's client certificate for its datastore.
pub fn datastore_name(tenant: &str) -> String {
    format!("{tenant}-datastore-certificate")
}

/// Name of the Secret with the client certificate of the konnectivity server.
pub fn konnectivity_name(tenant: &str) -> String {
    format!("{tenant}-konnectivity-certificate")
}

/// Name of the engine's Secret with the bootstrap provider's kubeconfig. The control plane provider copies it to the
/// Secret of the Cluster with the suffix [`ours::BOOTSTRAP_KUBECONFIG_SUFFIX`].
pub fn bootstrap_name(tenant: &str) -> String {
    format!("{tenant}{}", ours::TENANT_BOOTSTRAP_SUFFIX)
}

/// All Secrets of key material of a tenant, CAs first.
pub fn tenant(tenant: &Tenant) -> Vec<SecretSpec> {
    let name = &tenant.name;
    let mut list = vec![
        ca(name),
        front_proxy_ca(name),
        service_account(name),
        api_server(tenant),
        certificate(
            format!("{name}-api-server-kubelet-client-certificate"),
            component::KUBELET_CLIENT,
            Signer::Cluster,
            Leaf::client("kube-apiserver-kubelet-client"),
            ("apiserver-kubelet-client.crt", "apiserver-kubelet-client.key"),
        ),
        certificate(
            format!("{name}-front-proxy-client-certificate"),
            component::FRONT_PROXY_CLIENT,
            Signer::FrontProxy,
            Leaf::client("front-proxy-client"),
            ("front-proxy-client.crt", "front-proxy-client.key"),
        ),
        admin(tenant),
        local_kubeconfig(tenant, "controller-manager", component::CONTROLLER_MANAGER),
        local_kubeconfig(tenant, "scheduler", component::SCHEDULER),
    ];
    list.extend(tenant.datastore_user.as_deref().map(|user| datastore(name, user)));
    list
}

/// The tenant's CA, under the keys of Cluster API (`tls.*`) and of kubeadm (`ca.*`).
pub fn ca(tenant: &str) -> SecretSpec {
    let mut names = AltNames::default();
    names.add("kubernetes");
    SecretSpec {
        name: ca_name(tenant),
        component: component::CA,
        secret_type: SECRET_TYPE,
        renewal: Renewal::LastThird,
        content: Content::Ca {
            common_name: "kubernetes".to_owned(),
            names,
            keys: pairs(&[("ca.crt", "ca.key"), ("tls.crt", "tls.key")]),
        },
    }
}

fn front_proxy_ca(tenant: &str) -> SecretSpec {
    SecretSpec {
        name: front_proxy_ca_name(tenant),
        component: component::FRONT_PROXY_CA,
        secret_type: "Opaque",
        renewal: Renewal::LastThird,
        content: Content::Ca {
            common_name: "front-proxy-ca".to_owned(),
            names: AltNames::default(),
            keys: pairs(&[("front-proxy-ca.crt", "front-proxy-ca.key")]),
        },
    }
}

fn service_account(tenant: &str) -> SecretSpec {
    SecretSpec {
        name: service_account_name(tenant),
        component: component::SERVICE_ACCOUNT,
        secret_type: "Opaque",
        renewal: Renewal::LastThird,
        content: Content::KeyPair {
            public: "sa.pub".to_owned(),
            private: "sa.key".to_owned(),
        },
    }
}

fn api_server(tenant: &Tenant) -> SecretSpec {
    let Tenant { namespace, name, .. } = tenant;
    let mut names = AltNames::default();
    for host in [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "localhost",
        "127.0.0.1",
        "::1",
    ] {
        names.add(host);
    }
    names.add(&format!("kubernetes.default.svc.{}", tenant.cluster_domain));
    names.add(name);
    names.add(&format!("{name}.{namespace}"));
    names.add(&format!("{name}.{namespace}.svc"));
    names.add(&format!("{name}.{namespace}.svc.cluster.local"));
    names.ip.extend(tenant.service_addresses.iter().copied());
    for host in tenant.hosts.iter().chain(&tenant.extra_sans) {
        names.add(host);
    }
    names.add(host_of(&tenant.endpoint));
    let leaf = Leaf {
        common_name: "kube-apiserver".to_owned(),
        organization: None,
        usages: vec![Usage::Server],
        names,
    };
    certificate(
        format!("{name}-api-server-certificate"),
        component::API_SERVER,
        Signer::Cluster,
        leaf,
        ("apiserver.crt", "apiserver.key"),
    )
}

fn admin(tenant: &Tenant) -> SecretSpec {
    let published = format!("https://{}", tenant.endpoint);
    let in_cluster = format!("https://{}.{}.svc:{}", tenant.name, tenant.namespace, tenant.port);
    let identity = |user: &str, group: &str, file: &str| KubeconfigIdentity {
        leaf: Leaf::client(user).in_group(group),
        user: user.to_owned(),
        files: vec![
            kubeconfig_file(&format!("{file}.conf"), &published),
            kubeconfig_file(&format!("{file}.svc"), &in_cluster),
        ],
    };
    SecretSpec {
        name: admin_name(&tenant.name),
        component: component::ADMIN,
        secret_type: "Opaque",
        renewal: Renewal::HalfLife,
        content: Content::Kubeconfigs {
            cluster: tenant.name.clone(),
            identities: vec![
                identity("kubernetes-admin", ADMINS_GROUP, "admin"),
                identity("kubernetes-super-admin", "system:masters", "super-admin"),
            ],
        },
    }
}

fn local_kubeconfig(tenant: &Tenant, short: &str, component: &'static str) -> SecretSpec {
    let user = format!("system:kube-{short}");
    SecretSpec {
        name: format!("{}-{short}-kubeconfig", tenant.name),
        component,
        secret_type: "Opaque",
        renewal: Renewal::LastThird,
        content: Content::Kubeconfigs {
            cluster: tenant.name.clone(),
            identities: vec![KubeconfigIdentity {
                leaf: Leaf::client(user.clone()),
                user,
                files: vec![kubeconfig_file(
                    &format!("{short}.conf"),
                    &format!("https://127.0.0.1:{}", tenant.port),
                )],
            }],
        },
    }
}

/// The tenant's client certificate for its datastore, with the trust bundle for the datastore's certificate.
pub fn datastore(tenant: &str, user: &str) -> SecretSpec {
    SecretSpec {
        name: datastore_name(tenant),
        component: component::DATASTORE,
        secret_type: "Opaque",
        renewal: Renewal::LastThird,
        content: Content::Certificate {
            signer: Signer::Datastore,
            leaf: Leaf::client(user),
            bundle_key: Some("ca.crt".to_owned()),
            certificate_key: "server.crt".to_owned(),
            private_key: "server.key".to_owned(),
        },
    }
}

/// The client certificate of the konnectivity server, with which it reviews tokens and keeps a Lease. It is in no group.
pub fn konnectivity(tenant: &str) -> SecretSpec {
    SecretSpec {
        secret_type: "kubernetes.io/tls",
        ..certificate(
            konnectivity_name(tenant),
            component::KONNECTIVITY,
            Signer::Cluster,
            Leaf::client(KONNECTIVITY_USER),
            ("tls.crt", "tls.key"),
        )
    }
}

/// The bootstrap provider's kubeconfig for a tenant: an identity of its own with few permissions, never the admin's.
/// `server` is `https://host:port`.
pub fn bootstrap(tenant: &str, server: &str) -> SecretSpec {
    SecretSpec {
        name: bootstrap_name(tenant),
        component: component::BOOTSTRAP,
        secret_type: SECRET_TYPE,
        renewal: Renewal::HalfLife,
        content: Content::Kubeconfigs {
            cluster: tenant.to_owned(),
            identities: vec![KubeconfigIdentity {
                leaf: Leaf::client(BOOTSTRAP_USER),
                user: BOOTSTRAP_USER.to_owned(),
                files: vec![kubeconfig_file(VALUE_KEY, server)],
            }],
        },
    }
}

fn certificate(
    name: String,
    component: &'static str,
    signer: Signer,
    leaf: Leaf,
    (certificate_key, private_key): (&str, &str),
) -> SecretSpec {
    SecretSpec {
        name,
        component,
        secret_type: "Opaque",
        renewal: Renewal::LastThird,
        content: Content::Certificate {
            signer,
            leaf,
            bundle_key: None,
            certificate_key: certificate_key.to_owned(),
            private_key: private_key.to_owned(),
        },
    }
}

fn kubeconfig_file(key: &str, server: &str) -> KubeconfigFile {
    KubeconfigFile {
        key: key.to_owned(),
        server: server.to_owned(),
    }
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(certificate, key)| ((*certificate).to_owned(), (*key).to_owned()))
        .collect()
}
