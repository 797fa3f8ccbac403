//! Opens the workload cluster of a config: with the kubeconfig that the control plane provider writes for this provider,
//! and with the RBAC rules that nodes need to join.

use std::{sync::Arc, time::Duration};

use kamaji_api::{
    conditions::Reason,
    labels::{capi, ours},
};
use kube::ResourceExt as _;
use tokio::time::Instant;

use super::{Tenant, rbac};
use crate::{
    k8s::problem::Problem,
    kamajiconfig::{observe, scope::Scope, status::Progress},
    tenant::{self, nodes::Session},
};

/// Time between two reviews of automatic approval.
const REVIEW: Duration = Duration::from_hours(24);

/// The workload cluster, with the RBAC rules applied. The config waits in it from now on.
///
/// # Errors
/// When there is no usable kubeconfig yet, or the API server does not answer or refuses the rules.
pub async fn open(scope: &Scope<'_>, progress: &mut Progress) -> Result<Arc<Tenant>, Problem> {
    let tenant = connect(scope).await?;
    let token = scope
        .config
        .status
        .as_ref()
        .and_then(|status| status.token.as_ref()?.id.as_deref());
    tenant.wait(scope, token, scope.node_name().as_deref());
    let status = scope.config.status.as_ref();
    let former = status.and_then(|status| status.former_token.as_ref()?.id.as_deref());
    if former.is_some() {
        tenant.wait(scope, former, None);
    }
    grant(&tenant).await.map_err(|trouble| match trouble {
        tenant::Error::Refused { code, .. } if (400..500).contains(&code) && ![409, 429].contains(&code) => {
            Problem::unwatched(Reason::TenantRBACFailed, trouble.to_string())
        }
        other => Problem::from(other),
    })?;
    progress.automatic = review(&tenant).await?;
    Ok(tenant)
}

/// The open connection for the current kubeconfig, or a new one.
async fn connect(scope: &Scope<'_>) -> Result<Arc<Tenant>, Problem> {
    let (context, cluster) = (scope.context, &scope.cluster);
    let name = format!("{}{}", cluster.name, ours::BOOTSTRAP_KUBECONFIG_SUFFIX);
    let missing = || {
        let message = format!("waiting for the control plane provider to write Secret {name}");
        Problem::on_change(Reason::WaitingForKubeconfig, message)
    };
    let row = observe::kubeconfig_row(context, cluster).ok_or_else(missing)?;
    if let Some(tenant) = context.tenants.get(cluster, &row.resource_version) {
        return Ok(tenant);
    }
    let secret = observe::secret(context, &cluster.namespace, &row.key.name).await?;
    let secret = secret.ok_or_else(missing)?;
    let kubeconfig = observe::value(&secret, capi::VALUE_KEY).unwrap_or_default();
    let session = Session::new(kubeconfig, context.role).map_err(|error| {
        let message = format!("Secret {name}, key {:?}: {error}", capi::VALUE_KEY);
        Problem::on_change(Reason::WaitingForKubeconfig, message)
    })?;
    let uid = scope
        .observed
        .cluster
        .as_ref()
        .and_then(|cluster| cluster.uid())
        .unwrap_or_default();
    Ok(context
        .tenants
        .open(cluster, &uid, &row.resource_version, session))
}

/// Applies the RBAC rules once for all configs of the workload cluster. Of those that need them at the same time one does it,
/// and the others wait.
async fn grant(tenant: &Tenant) -> Result<(), tenant::Error> {
    let apply = async || {
        for object in rbac::objects() {
            tenant.session.apply(&object).await?;
        }
        Ok(())
    };
    tenant.granted.get_or_try_init(apply).await.copied()
}

/// Why requests are approved automatically, if they are: asked once a day, and again with each call while they are. `None`
/// where this identity may not ask yet, since a hosting engine of an earlier release gave it its permissions.
async fn review(tenant: &Tenant) -> Result<Option<Option<String>>, tenant::Error> {
    let before = tenant.review.lock().clone();
    if let Some((at, None)) = before
        && at.elapsed() < REVIEW
    {
        return Ok(Some(None));
    }
    match tenant.session.approves_automatically(&rbac::BEARER_GROUPS).await {
        Ok(why) => {
            *tenant.review.lock() = Some((Instant::now(), why.clone()));
            Ok(Some(why))
        }
        Err(tenant::Error::Refused { code: 403, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
