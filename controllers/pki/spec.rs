//! Which Secrets of key material a tenant has and what stands in them. Names, keys and subjects are Kamaji's
//! (hosting specification 2.2, 2.5, 2.6), without its flaws (7: no `system:masters` but for the break-glass
//! kubeconfig, one usage per certificate, one year of life). Values only: nothing is issued here.

use std::{collections::BTreeSet, net::IpAddr};

use kamaji_api::labels::{
    capi::{SECRET_TYPE, VALUE_KEY},
    kamaji::{LIFECYCLE_KUBECONFIG, LIFECYCLE_X509},
    ours,
};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::material::{CLUSTER_CA_KEYS, CaKeys, FRONT_PROXY_CA_KEYS, hex};

/// Group that the tenant binds to `cluster-admin`.
pub const ADMINS_GROUP: &str = "kubeadm:cluster-admins";
/// User of the bootstrap provider in a tenant; the tenant binds it to the ClusterRole of bootstrap.md 1.7.
pub const BOOTSTRAP_USER: &str = "kamaji-bootstrap:controller";

/// What the certificates of one tenant depend on.
#[derive(Debug, Clone, Default)]
pub struct Tenant {
    /// Namespace of the TenantControlPlane.
    pub namespace: String,
    /// Name of the TenantControlPlane.
    pub name: String,
    /// DNS domain inside the tenant.
    pub cluster_domain: String,
    /// First address of each service CIDR: the `kubernetes` Service.
    pub service_addresses: Vec<IpAddr>,
    /// Further hosts that the API server answers as: addresses, the load balancer's name, the endpoint's host.
    pub hosts: Vec<String>,
    /// `spec.networkProfile.certSANs`.
    pub extra_sans: Vec<String>,
    /// Port of the API server.
    pub port: u16,
    /// `host:port` that administrators use.
    pub endpoint: String,
    /// User of the tenant in its datastore, where that wants a client certificate.
    pub datastore_user: Option<String>,
}

/// Who signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, strum::Display)]
pub enum Signer {
    /// The tenant's CA, `<tcp>-ca`.
    Cluster,
    /// The tenant's front proxy CA.
    FrontProxy,
    /// The datastore's CA.
    Datastore,
}

impl Signer {
    /// Component of the Secret that holds the CA, where the tenant has it.
    pub fn component(self) -> Option<&'static str> {
        match self {
            Self::Cluster => Some(component::CA),
            Self::FrontProxy => Some(component::FRONT_PROXY_CA),
            Self::Datastore => None,
        }
    }
}

/// What a certificate may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Usage {
    /// TLS client.
    Client,
    /// TLS server.
    Server,
}

/// How long before its end a certificate is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Renewal {
    /// When half of its life is over: certificates that leave our hands, whose copies need time to spread.
    HalfLife,
    /// When two thirds of its life are over.
    LastThird,
}

/// Names a server answers to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AltNames {
    /// DNS names, wildcards included.
    pub dns: BTreeSet<String>,
    /// Addresses.
    pub ip: BTreeSet<IpAddr>,
}

impl AltNames {
    /// Adds a host, which is an address (bracketed or not) or a name. Empty text adds nothing.
    pub fn add(&mut self, host: &str) {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse() {
            self.ip.insert(address);
        } else if !host.is_empty() {
            self.dns.insert(host.to_ascii_lowercase());
        }
    }
}

/// A certificate that signs nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Leaf {
    /// Common name: the user, for clients.
    pub common_name: String,
    /// Organization: the group, for clients.
    pub organization: Option<String>,
    /// Extended key usages.
    pub usages: Vec<Usage>,
    /// Subject alternative names.
    pub names: AltNames,
}

impl Leaf {
    /// A client named by its common name.
    pub fn client(common_name: impl Into<String>) -> Self {
        Self {
            common_name: common_name.into(),
            organization: None,
            usages: vec![Usage::Client],
            names: AltNames::default(),
        }
    }

    /// The same in a group.
    #[must_use]
    pub fn in_group(mut self, group: &str) -> Self {
        self.organization = Some(group.to_owned());
        self
    }
}

/// One kubeconfig: where it is stored and whom it talks to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KubeconfigFile {
    /// Key in the Secret.
    pub key: String,
    /// `https://host:port`.
    pub server: String,
}

/// One client certificate and the kubeconfigs that carry it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KubeconfigIdentity {
    /// Who it is.
    pub leaf: Leaf,
    /// Name of the user entry.
    pub user: String,
    /// The files that carry it.
    pub files: Vec<KubeconfigFile>,
}

/// What stands in a Secret of key material.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Content {
    /// A CA of its own. The serialised name is part of [`SecretSpec::inputs_hash`] and must not change.
    #[serde(rename = "Authority")]
    Ca {
        /// Common name.
        common_name: String,
        /// DNS names, as kubeadm gives to its cluster CA.
        names: AltNames,
        /// Pairs of (certificate, key) under which the same pair is stored.
        keys: Vec<(String, String)>,
    },
    /// A key pair without a certificate: the ServiceAccount pair.
    KeyPair {
        /// Key of the public half.
        public: String,
        /// Key of the private half.
        private: String,
    },
    /// A certificate and its key.
    Certificate {
        /// Who signs.
        signer: Signer,
        /// What is signed.
        leaf: Leaf,
        /// Key under which the signer's bundle is stored too.
        bundle_key: Option<String>,
        /// Key of the certificate.
        certificate_key: String,
        /// Key of the private key.
        private_key: String,
    },
    /// Kubeconfigs with embedded client certificates.
    Kubeconfigs {
        /// Name of the cluster entry.
        cluster: String,
        /// Who is in them.
        identities: Vec<KubeconfigIdentity>,
    },
}

/// A Secret of key material: what it is called and what stands in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSpec {
    /// Name of the Secret.
    pub name: String,
    /// Value of the label `kamaji.clastix.io/component`.
    pub component: &'static str,
    /// Type of the Secret.
    pub secret_type: &'static str,
    /// When what it holds is replaced.
    pub renewal: Renewal,
    /// What stands in it.
    pub content: Content,
}

impl SecretSpec {
    /// Who signs what stands in it; nobody for CAs and key pairs.
    pub fn signer(&self) -> Option<Signer> {
        match &self.content {
            Content::Ca { .. } | Content::KeyPair { .. } => None,
            Content::Certificate { signer, .. } => Some(*signer),
            Content::Kubeconfigs { .. } => Some(Signer::Cluster),
        }
    }

    /// How to read it back, if it is a CA.
    pub fn ca_keys(&self) -> Option<CaKeys> {
        match (&self.content, self.component) {
            (Content::Ca { .. }, component::FRONT_PROXY_CA) => Some(FRONT_PROXY_CA_KEYS),
            (Content::Ca { .. }, _) => Some(CLUSTER_CA_KEYS),
            _ => None,
        }
    }

    /// Value of the label `kamaji.clastix.io/certificate_lifecycle_controller`.
    pub fn lifecycle(&self) -> Option<&'static str> {
        match &self.content {
            Content::Ca { .. } | Content::Certificate { .. } => Some(LIFECYCLE_X509),
            Content::Kubeconfigs { .. } => Some(LIFECYCLE_KUBECONFIG),
            Content::KeyPair { .. } => None,
        }
    }

    /// Digest of everything that is to stand in the Secret, entropy and time aside.
    pub fn inputs_hash(&self) -> String {
        // Serialising plain structs of strings into memory cannot fail; an empty digest would only issue again.
        let inputs = serde_json::to_vec(&("v1", &self.content)).unwrap_or_default();
        let mut digest = hex(&Sha256::digest(inputs));
        digest.truncate(32);
        digest
    }
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
    /// Administrators.
    pub const ADMIN: &str = "admin-kubeconfig";
    /// Controller manager.
    pub const CONTROLLER_MANAGER: &str = "controller-manager-kubeconfig";
    /// Scheduler.
    pub const SCHEDULER: &str = "scheduler-kubeconfig";
    /// Client of the datastore.
    pub const DATASTORE: &str = "datastore-certificate";
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

/// Name of the Secret with the administrators' kubeconfigs.
pub fn admin_name(tenant: &str) -> String {
    format!("{tenant}-admin-kubeconfig")
}

/// Name of the Secret with the tenant's certificate for its datastore.
pub fn datastore_name(tenant: &str) -> String {
    format!("{tenant}-datastore-certificate")
}

/// Name of the engine's Secret with the bootstrap provider's kubeconfig. The control plane provider copies it for the
/// Cluster, under [`ours::BOOTSTRAP_KUBECONFIG_SUFFIX`].
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

/// The tenant's CA: Cluster API's form and kubeadm's in one Secret.
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
        name: format!("{tenant}-sa-certificate"),
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
    let endpoint = tenant.endpoint.as_str();
    names.add(endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host));
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
    let outside = format!("https://{}", tenant.endpoint);
    let inside = format!("https://{}.{}.svc:{}", tenant.name, tenant.namespace, tenant.port);
    let identity = |user: &str, group: &str, file: &str| KubeconfigIdentity {
        leaf: Leaf::client(user).in_group(group),
        user: user.to_owned(),
        files: vec![
            kubeconfig_file(&format!("{file}.conf"), &outside),
            kubeconfig_file(&format!("{file}.svc"), &inside),
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

/// The tenant's client certificate for its datastore, with the bundle to check the datastore by.
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

/// The bootstrap provider's own way into a tenant (DESIGN 7): one client certificate, never the administrator's.
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

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn example() -> Tenant {
        Tenant {
            namespace: "demo".to_owned(),
            name: "alpha".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            service_addresses: vec!["10.96.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            hosts: vec!["192.0.2.7".to_owned(), "[2001:db8::7]".to_owned()],
            extra_sans: vec!["API.example.org".to_owned(), "*.example.org".to_owned()],
            port: 6443,
            endpoint: "alpha.example.com:6443".to_owned(),
            datastore_user: Some("demo_alpha_0a1b2c3d".to_owned()),
        }
    }

    fn find(component: &str) -> SecretSpec {
        tenant(&example())
            .into_iter()
            .find(|spec| spec.component == component)
            .unwrap()
    }

    #[test]
    fn names_and_keys_are_kamajis() {
        let listing: Vec<String> = tenant(&example())
            .iter()
            .map(|spec| {
                let keys: Vec<String> = match &spec.content {
                    Content::Ca { keys, .. } => {
                        keys.iter().map(|(cert, key)| format!("{cert} {key}")).collect()
                    }
                    Content::KeyPair { public, private } => vec![public.clone(), private.clone()],
                    Content::Certificate {
                        bundle_key,
                        certificate_key,
                        private_key,
                        ..
                    } => bundle_key
                        .iter()
                        .chain([certificate_key, private_key])
                        .cloned()
                        .collect(),
                    Content::Kubeconfigs { identities, .. } => identities
                        .iter()
                        .flat_map(|identity| identity.files.iter().map(|file| file.key.clone()))
                        .collect(),
                };
                format!("{}: {}", spec.name, keys.join(" "))
            })
            .collect();
        assert_eq!(
            listing,
            [
                "alpha-ca: ca.crt ca.key tls.crt tls.key",
                "alpha-front-proxy-ca-certificate: front-proxy-ca.crt front-proxy-ca.key",
                "alpha-sa-certificate: sa.pub sa.key",
                "alpha-api-server-certificate: apiserver.crt apiserver.key",
                "alpha-api-server-kubelet-client-certificate: apiserver-kubelet-client.crt apiserver-kubelet-client.key",
                "alpha-front-proxy-client-certificate: front-proxy-client.crt front-proxy-client.key",
                "alpha-admin-kubeconfig: admin.conf admin.svc super-admin.conf super-admin.svc",
                "alpha-controller-manager-kubeconfig: controller-manager.conf",
                "alpha-scheduler-kubeconfig: scheduler.conf",
                "alpha-datastore-certificate: ca.crt server.crt server.key",
            ]
        );
    }

    #[test]
    fn the_api_server_answers_to_every_name_it_is_called_by() {
        let Content::Certificate { leaf, .. } = find(component::API_SERVER).content else {
            panic!("not a certificate");
        };
        for name in [
            "kubernetes.default.svc.cluster.local",
            "alpha.demo.svc",
            "alpha.example.com",
            "api.example.org",
            "*.example.org",
            "localhost",
        ] {
            assert!(leaf.names.dns.contains(name), "{name}");
        }
        for address in [
            "10.96.0.1",
            "fd00::1",
            "192.0.2.7",
            "2001:db8::7",
            "127.0.0.1",
            "::1",
        ] {
            assert!(leaf.names.ip.contains(&address.parse().unwrap()), "{address}");
        }
        assert_eq!(leaf.usages, [Usage::Server]);
    }

    #[test]
    fn only_the_break_glass_kubeconfig_is_a_master() {
        for spec in tenant(&example()) {
            let text = serde_json::to_string(&spec.content).unwrap();
            assert_eq!(
                text.contains("system:masters"),
                spec.component == component::ADMIN,
                "{}",
                spec.name
            );
        }
        let text = serde_json::to_string(&bootstrap("alpha", "https://alpha:6443").content).unwrap();
        assert!(!text.contains("system:masters") && !text.contains(ADMINS_GROUP));
    }

    #[test]
    fn the_hash_follows_what_matters_and_nothing_else() {
        let before = find(component::API_SERVER);
        assert_eq!(before.inputs_hash(), find(component::API_SERVER).inputs_hash());
        let mut changed = example();
        changed.hosts.reverse();
        let same = tenant(&changed)
            .into_iter()
            .find(|s| s.name == before.name)
            .unwrap();
        assert_eq!(same.inputs_hash(), before.inputs_hash(), "order does not matter");
        changed.hosts.push("192.0.2.8".to_owned());
        let other = tenant(&changed)
            .into_iter()
            .find(|s| s.name == before.name)
            .unwrap();
        assert_ne!(other.inputs_hash(), before.inputs_hash());
    }
}
