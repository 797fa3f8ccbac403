//! The copy of a CA that a user provides, which the pods mount. A kubelet hands an edit of the user's Secret to running pods
//! within a minute, while their certificates stay; the copy is immutable. Its name has the digest of its content, so that
//! pods of two contents can run beside each other.

use k8s_openapi::api::core::v1::Secret;
use kamaji_api::{
    conditions::Reason,
    labels::{kamaji, ours},
};

use super::{ca::ProvidedCa, desired::secrets, observe, scope::Scope};
use crate::{
    k8s::{error::Class, problem::Problem},
    pki::{issue::content_hash_of, spec},
};

/// Makes the copy, and returns its name.
///
/// # Errors
/// What the API server answered, or the user's Secret is another one by now.
pub async fn ensure(scope: &Scope<'_>, ca: &ProvidedCa) -> Result<String, Problem> {
    let Scope { context, tenant, .. } = *scope;
    let key = scope.key();
    let name = secrets::ca_copy_name(&key.name, &ca.hash);
    let row = context.engine.index.find::<Secret>(&key.namespace, &name);
    let known = row.is_some_and(|row| {
        row.annotations.get(ours::CONTENT_HASH) == Some(&ca.hash)
            && row.owner.as_ref().map(|owner| &owner.uid) == tenant.metadata.uid.as_ref()
    });
    if known {
        return Ok(name);
    }
    let provided = spec::ca_name(&key.name);
    let provided = observe::secret(context, &key.namespace, &provided).await?;
    let provided = provided.unwrap_or_default();
    if content_hash_of(&provided) != ca.hash {
        return Err(Problem::backoff(
            Class::Transient,
            Reason::WaitingForCertificates,
            "the CA changed while it was copied; it is read again",
        ));
    }
    let copy = secrets::ca_copy(tenant, &ca.hash, provided.data.unwrap_or_default())?;
    context.engine.applier.apply(&copy).await?;
    Ok(name)
}

/// Deletes copies that no pod mounts, once all pods are of the current template.
///
/// # Errors
/// What the API server answered.
pub async fn prune(scope: &Scope<'_>, current: &str) -> Result<(), Problem> {
    let Scope { context, tenant, .. } = *scope;
    let uid = tenant.metadata.uid.as_deref().unwrap_or_default();
    for row in context.engine.index.owned_by(uid) {
        let component = row.labels.get(kamaji::COMPONENT).map(String::as_str);
        if component == Some(secrets::CA_COPY) && row.key.name != current && !row.deleting {
            context.engine.applier.delete(&row).await?;
        }
    }
    Ok(())
}
