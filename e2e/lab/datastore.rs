//! The managed DataStore `default` of the lab, read from the host with etcdctl.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kamaji_api::labels;
use kube::{Api, api::ListParams};
use tokio::process::Command;

use super::access::{Lab, value};

/// Credentials on disk for the time of one question.
struct Credentials(PathBuf);

impl Credentials {
    /// Writes `ca.crt` and this pair of keys of `secret`.
    async fn of(secret: &Secret, certificate: &str, key: &str) -> Result<Self> {
        let directory = std::env::temp_dir().join(format!("kamaji-etcd-{:08x}", rand::random::<u32>()));
        tokio::fs::create_dir_all(&directory).await?;
        for (from, to) in [("ca.crt", "ca.crt"), (certificate, "tls.crt"), (key, "tls.key")] {
            let content = value(secret, from).with_context(|| format!("no {from}"))?;
            tokio::fs::write(directory.join(to), content).await?;
        }
        Ok(Self(directory))
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Credentials {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// `https://address:port` of the member; the host reaches pods by their address.
async fn endpoint(lab: &Lab) -> Result<String> {
    let pods = Api::<Pod>::namespaced(lab.management.clone(), labels::namespace::DATASTORES);
    let selector = ListParams::default().labels(&format!("{}=default", labels::ours::DATASTORE));
    let member = pods
        .list(&selector)
        .await?
        .items
        .into_iter()
        .find_map(|p| p.status?.pod_ip);
    Ok(format!(
        "https://{}:2379",
        member.context("the managed DataStore has no running member")?
    ))
}

/// Runs etcdctl; the member's certificate names no pod address, so its name is not checked here.
async fn etcdctl(lab: &Lab, credentials: &Credentials, command: &[&str]) -> Result<String> {
    let output = Command::new(lab.directory.join("bin/etcdctl"))
        .args(["--endpoints", &endpoint(lab).await?, "--insecure-skip-tls-verify"])
        .args(["--cacert", &credentials.path("ca.crt")])
        .args([
            "--cert",
            &credentials.path("tls.crt"),
            "--key",
            &credentials.path("tls.key"),
        ])
        .args(command)
        .output()
        .await?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn administrator(lab: &Lab) -> Result<Credentials> {
    let secrets = Api::<Secret>::namespaced(lab.management.clone(), labels::namespace::DATASTORES);
    let name = capi_kamaji::hosting::datastore::parts::admin("default").name;
    Credentials::of(&secrets.get(&name).await?, "tls.crt", "tls.key").await
}

/// Reads one key below the prefix of `schema` with the credentials of a tenant (`<tcp>-datastore-certificate`).
///
/// # Errors
/// What etcd answered.
pub async fn read_as(lab: &Lab, tenant: &Secret, schema: &str) -> Result<()> {
    let credentials = Credentials::of(tenant, "server.crt", "server.key").await?;
    let prefix = format!("/{schema}/");
    etcdctl(
        lab,
        &credentials,
        &["get", "--prefix", "--keys-only", "--limit=1", &prefix],
    )
    .await?;
    Ok(())
}

/// Prefixes with keys, our own keys (ownership marks), users and roles, one line each.
///
/// # Errors
/// When the DataStore does not answer.
pub async fn inventory(lab: &Lab) -> Result<Vec<String>> {
    let credentials = administrator(lab).await?;
    let keys = etcdctl(lab, &credentials, &["get", "", "--prefix", "--keys-only"]).await?;
    let mut lines: Vec<_> = keys.lines().filter_map(place).collect();
    for what in ["user", "role"] {
        let listed = etcdctl(lab, &credentials, &[what, "list"]).await?;
        lines.extend(listed.lines().map(|name| format!("{what} {name}")));
    }
    lines.sort();
    lines.dedup();
    Ok(lines)
}

/// A line for a key: the prefix of a tenant's data, or the whole key if it is ours or of an unknown form.
fn place(key: &str) -> Option<String> {
    let mut parts = key.split('/');
    match (parts.next(), parts.next()) {
        (Some(""), None) | (None, _) => None,
        (Some(""), Some(first)) if !first.is_empty() && first != "capi-kamaji" => {
            Some(format!("prefix {first}"))
        }
        _ => Some(format!("key {key}")),
    }
}

/// Keys below the prefix of `schema` that do not come and go by themselves (events, leases).
///
/// # Errors
/// When the DataStore does not answer.
pub async fn count(lab: &Lab, schema: &str) -> Result<usize> {
    let prefix = format!("/{schema}/");
    let keys = etcdctl(
        lab,
        &administrator(lab).await?,
        &["get", &prefix, "--prefix", "--keys-only"],
    )
    .await?;
    let restless =
        |key: &&str| key.contains("/events/") || key.contains("/leases/") || key.contains("/masterleases/");
    Ok(keys
        .lines()
        .filter(|key| !key.is_empty() && !restless(key))
        .count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ownership_mark_is_listed_by_its_whole_key() {
        let line = |key| place(key).unwrap_or_default();
        assert_eq!(line("/default_one_abc/registry/pods/x"), "prefix default_one_abc");
        assert_eq!(
            line("/capi-kamaji/schema/default_one_abc"),
            "key /capi-kamaji/schema/default_one_abc"
        );
        assert_eq!(
            line("/capi-kamaji/user/default_one_abc"),
            "key /capi-kamaji/user/default_one_abc"
        );
        assert_eq!(line("compact_rev_key"), "key compact_rev_key");
        assert_eq!(line("//odd"), "key //odd");
        assert_eq!(place(""), None);
    }
}
