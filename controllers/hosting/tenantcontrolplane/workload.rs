//! Applies the objects of a tenant: the Service first, the Deployment last.

use std::sync::Arc;

use kamaji_api::{conditions::Reason, tenantcontrolplane::TenantControlPlane};
use kube::ResourceExt;

use super::{
    certificates::Certificates,
    desired::{
        Companion, companions, deployment,
        inputs::{Inputs, Storage},
        secrets, service,
    },
    endpoint::{self, Endpoint},
    observe,
    plan::Plan,
    scope::Scope,
    storage::Placed,
};
use crate::k8s::{
    error::{ApiError, Class},
    key::{ObjectKey, RootKey},
    kind::Kind,
    problem::Problem,
    row::Row,
};

/// Applies the Service. Returns the addresses that follow from it.
///
/// # Errors
/// The Service was refused, or has no address yet.
pub async fn apply_service(scope: &Scope<'_>, plan: &Plan) -> Result<Endpoint, Problem> {
    let tenant = scope.tenant;
    let applied = scope
        .context
        .engine
        .applier
        .apply(&service::render(tenant, plan.endpoint_type())?)
        .await
        .map_err(|error| refused_service(tenant, error))?;
    let Some(facts) = observe::service_facts(&applied.row) else {
        return Err(Problem::on_change(
            Reason::WaitingForService,
            format!("Service {} was not read yet", tenant.name_any()),
        ));
    };
    endpoint::endpoint(scope, plan, facts)
}

/// Applies the companions and then the Deployment, whose row it returns.
///
/// # Errors
/// What the API server answered.
pub async fn apply(
    scope: &Scope<'_>,
    endpoint: &Endpoint,
    certificates: &Certificates,
    placed: &Placed,
) -> Result<Arc<Row>, Problem> {
    let Scope { tenant, valid, .. } = *scope;
    let Placed {
        store,
        names,
        endpoints,
        digest: _,
        access: _,
    } = placed;
    let applier = &scope.context.engine.applier;
    for companion in companions(tenant, names)? {
        match companion {
            Companion::Present(manifest) => {
                applier.apply(&manifest).await?;
            }
            Companion::Absent(kind) => delete(scope, kind).await?,
        }
    }
    let inputs = Inputs {
        tenant,
        valid,
        storage: Storage {
            store,
            schema: &names.schema,
            endpoints,
        },
        advertise: endpoint.advertise,
        ca_secret: &certificates.ca_secret,
        ca_keys: certificates.ca_keys,
        hashes: &certificates.hashes,
        config_hash: &secrets::datastore_config_hash(names),
    };
    Ok(applier.apply(&deployment::render(&inputs)?).await?.row)
}

/// Deletes the object of this kind and of the tenant's name, if it exists and the tenant owns it.
async fn delete(scope: &Scope<'_>, kind: Kind) -> Result<(), Problem> {
    let RootKey { namespace, name } = scope.key();
    let engine = &scope.context.engine;
    if let Some(row) = engine.index.get(&ObjectKey::new(kind, namespace, name))
        && row.owner.as_ref().map(|owner| &owner.uid) == scope.tenant.metadata.uid.as_ref()
        && !row.deleting
    {
        engine.applier.delete(&row).await?;
    }
    Ok(())
}

/// A Service that the API server refused: mostly for its port.
fn refused_service(tenant: &TenantControlPlane, error: ApiError) -> Problem {
    if error.class() != Class::Invalid {
        return error.into();
    }
    let (reason, message) = refusal(
        &tenant.name_any(),
        tenant.spec.network_profile.port,
        &error.to_string(),
    );
    Problem::backoff(Class::Invalid, reason, message)
}

/// Reason and message for the refusal `text` of the Service `name`, with the field of the TenantControlPlane.
fn refusal(name: &str, port: i32, text: &str) -> (Reason, String) {
    if text.contains("spec.ports[0].nodePort") || text.contains("provided port is") {
        return (
            Reason::PortNotAllocatable,
            format!(
                "spec.networkProfile.port: {port} cannot be allocated; set a free port, with serviceType NodePort one in \
                 the node port range ({text})"
            ),
        );
    }
    // The first port is that of kube-apiserver.
    let additional = text
        .split_once("spec.ports[")
        .and_then(|(_, rest)| rest.split_once(']')?.0.parse::<usize>().ok())
        .and_then(|index| index.checked_sub(1));
    let field = additional.map_or_else(
        || format!("Service {name} was refused"),
        |index| format!("spec.controlPlane.service.additionalPorts[{index}]"),
    );
    (Reason::ServiceRejected, format!("{field}: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_service_names_the_field_it_comes_from() {
        let table = [
            (
                "Service \"a\" is invalid: spec.ports[0].nodePort: Invalid value: 6443: provided port is not in the valid \
                 range. The range of valid ports is 30000-32767",
                Reason::PortNotAllocatable,
                "spec.networkProfile.port: 6443 ",
            ),
            (
                "Service \"a\" is invalid: spec.ports[2]: Duplicate value: {\"port\":6443}",
                Reason::ServiceRejected,
                "spec.controlPlane.service.additionalPorts[1]: ",
            ),
            (
                "Service \"a\" is invalid: spec.externalTrafficPolicy: Unsupported value: \"x\"",
                Reason::ServiceRejected,
                "Service a was refused: ",
            ),
        ];
        for (text, reason, start) in table {
            let (found, message) = refusal("a", 6443, text);
            assert_eq!(found, reason, "{text}");
            assert!(message.starts_with(start) && message.contains(text), "{message}");
        }
    }
}
