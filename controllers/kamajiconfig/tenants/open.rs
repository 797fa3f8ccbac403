//! Opens the workload cluster of a config: with the kubeconfig that the control plane provider writes for this provider,
//! and with the RBAC rules that nodes need to join.

use std::sync::Arc;

use kamaji_api::{
    conditions::Reason,
    labels::{capi, ours},
};
use kube::ResourceExt as _;

use super::{Tenant, rbac};
use crate::{
    k8s::problem::Problem,
    kamajiconfig::{observe, scope::Scope, status::Progress},
    tenant::{self, nodes::Session},
};

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
    let found = apply_rbac(&tenant).await.map_err(|trouble| match trouble {
        tenant::Error::Refused { code, .. } if (400..500).contains(&code) && ![409, 429].contains(&code) => {
            Problem::unwatched(Reason::TenantRBACFailed, trouble.to_string())
        }
        other => Problem::from(other),
    })?;
    progress.automatic = Some(found);
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

/// Applies the RBAC rules once, and looks for bindings that approve requests automatically: again with each call while
/// there is one.
async fn apply_rbac(tenant: &Tenant) -> Result<Vec<String>, tenant::Error> {
    let objects = rbac::objects();
    let digest = rbac::digest(&objects);
    let _one = tenant.claims.lock().await;
    match tenant.rbac(&digest) {
        Some(found) if found.is_empty() => return Ok(found),
        Some(_) => {}
        None => {
            for object in &objects {
                tenant.session.apply(object).await?;
            }
        }
    }
    let found = rbac::automatic_approvals(&tenant.session.bindings().await?);
    tenant.note_rbac(digest, found.clone());
    Ok(found)
}
