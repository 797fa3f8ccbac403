//! Clients of the management cluster and, through `<cluster>-kubeconfig`, of the workload clusters.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, Config,
    config::{AuthInfo, KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use tokio::process::Command;

use crate::run;

/// Where the lab keeps its data on this machine (`hack/lib/paths.sh`).
pub const DATA: &str = "/var/lib/capi-kamaji-lab";

/// The host on the lab's bridge (`hack/lib/net.sh`): pods reach what the host serves there, node ports among it.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);

/// The lab of this checkout.
#[derive(Clone)]
pub struct Lab {
    /// `KAMAJI_LAB`, or `.lab` of the checkout.
    pub directory: PathBuf,
    /// Management cluster, as its admin.
    pub management: Client,
}

impl Lab {
    /// Opens the lab.
    ///
    /// # Errors
    /// When it is not up: `hack/quickstart` brings it up.
    pub async fn open() -> Result<Self> {
        run::crypto();
        let directory = std::env::var_os("KAMAJI_LAB").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name(".lab"),
            PathBuf::from,
        );
        let file = directory.join("management.kubeconfig");
        let kubeconfig = Kubeconfig::read_from(&file)
            .with_context(|| format!("{}: run hack/quickstart first", file.display()))?;
        Ok(Self {
            management: client(kubeconfig).await?,
            directory,
        })
    }

    /// The kubeconfig that users get for a cluster.
    ///
    /// # Errors
    /// When the Secret is missing or holds no kubeconfig.
    pub async fn kubeconfig(&self, namespace: &str, cluster: &str) -> Result<Kubeconfig> {
        let name = format!("{cluster}-kubeconfig");
        let secret = Api::<Secret>::namespaced(self.management.clone(), namespace)
            .get(&name)
            .await?;
        let value = value(&secret, "value").with_context(|| format!("Secret {name} has no key value"))?;
        Ok(Kubeconfig::from_yaml(&String::from_utf8(value)?)?)
    }

    /// A workload cluster, as its admin.
    ///
    /// # Errors
    /// When there is no usable kubeconfig.
    pub async fn tenant(&self, namespace: &str, cluster: &str) -> Result<Client> {
        client(self.kubeconfig(namespace, cluster).await?).await
    }

    /// Runs one of the lab's tools and returns what it printed.
    ///
    /// # Errors
    /// When it fails, with what it wrote to standard error.
    pub async fn tool(&self, name: &str, args: &[&str]) -> Result<String> {
        self.tool_with(name, args, &[]).await
    }

    /// The same with more variables in its environment.
    ///
    /// # Errors
    /// When it fails, with what it wrote to standard error.
    pub async fn tool_with(&self, name: &str, args: &[&str], variables: &[(&str, &str)]) -> Result<String> {
        let output = Command::new(self.directory.join("bin").join(name))
            .args(args)
            .envs(variables.iter().copied())
            .env("KUBECONFIG", self.directory.join("management.kubeconfig"))
            .env("CLUSTERCTL_DISABLE_VERSIONCHECK", "true")
            .stdin(Stdio::null())
            .output()
            .await
            .with_context(|| format!("{name} cannot run"))?;
        if !output.status.success() {
            bail!(
                "{name} {}: {}",
                args.join(" "),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The same kubeconfig with a bearer token instead of its credentials.
///
/// # Errors
/// Never: the token is always serializable.
pub fn with_token(kubeconfig: &Kubeconfig, token: &str) -> Result<Kubeconfig> {
    let mut changed = kubeconfig.clone();
    for user in &mut changed.auth_infos {
        let info: AuthInfo = serde_json::from_value(json!({ "token": token }))?;
        user.auth_info = Some(info);
    }
    Ok(changed)
}

/// A client for `kubeconfig` with short timeouts and without retries.
///
/// # Errors
/// When the kubeconfig cannot be used.
pub async fn client(kubeconfig: Kubeconfig) -> Result<Client> {
    run::crypto();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.connect_timeout = Some(std::time::Duration::from_secs(5));
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

/// One value of a Secret.
pub fn value(secret: &Secret, key: &str) -> Option<Vec<u8>> {
    secret.data.as_ref()?.get(key).map(|bytes| bytes.0.clone())
}
