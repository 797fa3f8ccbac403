//! The process refuses to start while the Go implementation of one of its roles, upstream Kamaji or the Go provider, holds
//! its Lease: both would reconcile the same objects.

use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{Api, Client, ResourceExt, api::ListParams};

use crate::settings::RoleName;

/// Lease names of the Go engines, by the role of ours that would fight with them.
const PEERS: [(RoleName, &str, &str); 2] = [
    (RoleName::Hosting, "kamaji.clastix.io", "the Kamaji operator"),
    (
        RoleName::ControlPlane,
        "kamaji.controlplane.cluster.x-k8s.io",
        "the Go control plane provider for Kamaji",
    ),
];

/// Time for the API server to answer: nothing begins before, and a Lease may be held.
const PATIENCE: Duration = Duration::from_secs(10);

/// Fails while upstream Kamaji (for the hosting role) or the Go provider (for the control plane role) holds its Lease in
/// any namespace.
///
/// # Errors
/// Names the Lease, its holder and the fix, or the reason why Leases cannot be listed.
pub async fn refuse_beside(role: RoleName, client: &Client) -> anyhow::Result<()> {
    let Some((_, lease, peer)) = PEERS.iter().find(|(of, _, _)| *of == role) else {
        return Ok(());
    };
    let by_name = ListParams::default().fields(&format!("metadata.name={lease}"));
    let leases = Api::<Lease>::all(client.clone());
    let leases = tokio::time::timeout(PATIENCE, leases.list(&by_name))
        .await
        .context("the API server does not answer: list Leases")??;
    match leases
        .items
        .iter()
        .find(|lease| holder(lease, Timestamp::now()).is_some())
    {
        None => Ok(()),
        Some(held) => anyhow::bail!(
            "{peer} is running: lease {}/{lease} is held by {}; stop it (scale its Deployment to 0) before \
             starting the {} role",
            held.namespace().unwrap_or_default(),
            holder(held, Timestamp::now()).unwrap_or_default(),
            role.as_str(),
        ),
    }
}

/// Who holds the Lease at `now`; nobody after it expired.
fn holder(lease: &Lease, now: Timestamp) -> Option<&str> {
    let spec = lease.spec.as_ref()?;
    let holder = spec.holder_identity.as_deref().filter(|h| !h.is_empty())?;
    let renewed = spec.renew_time.as_ref()?.0.as_second();
    let valid = i64::from(spec.lease_duration_seconds.unwrap_or(0));
    (now.as_second() < renewed + valid).then_some(holder)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{api::coordination::v1::LeaseSpec, apimachinery::pkg::apis::meta::v1::MicroTime};

    use super::*;

    #[test]
    fn a_lease_is_held_until_it_runs_out() {
        let lease = |holder: &str| Lease {
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.into()),
                lease_duration_seconds: Some(15),
                renew_time: Some(MicroTime(Timestamp::from_second(100).unwrap())),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        };
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(holder(&lease("op"), at(114)), Some("op"));
        assert_eq!(holder(&lease("op"), at(115)), None);
        assert_eq!(holder(&lease(""), at(101)), None);
    }
}
