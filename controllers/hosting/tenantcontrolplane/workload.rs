//! Applies the objects of a tenant: the Service first, the Deployment last.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use kamaji_api::{conditions::Reason, tenantcontrolplane::TenantControlPlane};
use kube::ResourceExt;

use super::{
    certificates::Certificates,
    desired::{
        Companion, companions, deployment,
        inputs::{Inputs, Storage},
        networkpolicy, secrets,
        service::{self, AgentsPort},
    },
    endpoint::{self, Endpoint},
    konnectivity,
    names::Names,
    observe,
    plan::Plan,
    scope::Scope,
    storage::Placed,
};
use crate::{
    k8s::{
        error::{ApiError, Class},
        key::{ObjectKey, RootKey},
        kind::Kind,
        problem::Problem,
        row::Row,
    },
    pki::spec,
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
        .apply(&service::render(
            tenant,
            plan.endpoint_type(),
            agents_port(scope),
        )?)
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
    for companion in companions(tenant, names, agents_port(scope).map(|agents| agents.port))? {
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

/// The port that agents connect to. Once the add-on is off, the port stays until no pod serves it, which is when its
/// ConfigMap is deleted.
fn agents_port(scope: &Scope<'_>) -> Option<AgentsPort> {
    let RootKey { namespace, name } = scope.key();
    let index = &scope.context.engine.index;
    let row = index.find::<Service>(&namespace, &name);
    let ports = row.as_deref().and_then(observe::service_facts);
    let ports = ports.map_or(&[][..], |facts| &facts.ports);
    let with = |port: i32| AgentsPort {
        port,
        on_nodes: ports.iter().any(|known| {
            known.name.as_deref() == Some(konnectivity::SERVER) && known.node_port == Some(port)
        }),
    };
    if let Some(settings) = konnectivity::of(scope.tenant) {
        return Some(with(settings.server.port));
    }
    let map = index.find::<ConfigMap>(&namespace, &konnectivity::egress_name(&name))?;
    if !owns(scope, &map) || map.deleting {
        return None;
    }
    konnectivity::kept_port(scope.tenant, ports).map(with)
}

/// Once the add-on is off and every pod is of the current template: deletes what only former pods mounted, and closes the
/// port. After a crash in between, the next reconcile finds no ConfigMap and closes it.
///
/// # Errors
/// What the API server answered.
pub async fn retire_konnectivity(scope: &Scope<'_>, plan: &Plan, names: &Names) -> Result<(), Problem> {
    if konnectivity::of(scope.tenant).is_some() {
        return Ok(());
    }
    let RootKey { namespace, name } = scope.key();
    let engine = &scope.context.engine;
    let was_open = agents_port(scope).is_some();
    let keys = [
        ObjectKey::of::<Secret>(&*namespace, spec::konnectivity_name(&name)),
        ObjectKey::of::<Secret>(&*namespace, konnectivity::kubeconfig_name(&name)),
        // The last one, since the port stays as long as it does.
        ObjectKey::of::<ConfigMap>(&*namespace, konnectivity::egress_name(&name)),
    ];
    for key in keys {
        if let Some(row) = engine.index.get(&key)
            && owns(scope, &row)
            && !row.deleting
        {
            engine.applier.delete(&row).await?;
        }
    }
    if was_open {
        let service = service::render(scope.tenant, plan.endpoint_type(), None)?;
        engine.applier.apply(&service).await?;
        // A tenant that was adopted has none, as among its companions.
        if let Some(policy) = networkpolicy::render(scope.tenant, None)?.filter(|_| !names.adopted) {
            engine.applier.apply(&policy).await?;
        }
    }
    Ok(())
}

fn owns(scope: &Scope<'_>, row: &Row) -> bool {
    row.owner.as_ref().map(|owner| &owner.uid) == scope.tenant.metadata.uid.as_ref()
}

/// Deletes the object of this kind and of the tenant's name, if it exists and the tenant owns it.
async fn delete(scope: &Scope<'_>, kind: Kind) -> Result<(), Problem> {
    let RootKey { namespace, name } = scope.key();
    let engine = &scope.context.engine;
    if let Some(row) = engine.index.get(&ObjectKey::new(kind, namespace, name))
        && owns(scope, &row)
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
        konnectivity::of(tenant).map(|settings| settings.server.port),
        &error.to_string(),
    );
    Problem::backoff(Class::Invalid, reason, message)
}

/// Reason and message for the refusal `text` of the Service `name`, with the field of the TenantControlPlane. Its first
/// port is `api_server`, the next one `agents`, if there is one.
fn refusal(name: &str, api_server: i32, agents: Option<i32>, text: &str) -> (Reason, String) {
    let index = text
        .split_once("spec.ports[")
        .and_then(|(_, rest)| rest.split_once(']')?.0.parse::<usize>().ok());
    let additional = index.and_then(|index| index.checked_sub(1 + usize::from(agents.is_some())));
    let of_agents = agents.filter(|_| index == Some(1));
    if additional.is_none() && (text.contains("].nodePort") || text.contains("provided port is")) {
        let (field, port) = of_agents.map_or(("spec.networkProfile.port", api_server), |port| {
            ("spec.addons.konnectivity.server.port", port)
        });
        return (
            Reason::PortNotAllocatable,
            format!(
                "{field}: {port} cannot be allocated; set a free port, with serviceType NodePort one in the node port range \
                 ({text})"
            ),
        );
    }
    let field = match (additional, of_agents) {
        (Some(index), _) => format!("spec.controlPlane.service.additionalPorts[{index}]"),
        (None, Some(_)) => "spec.addons.konnectivity.server.port".to_owned(),
        (None, None) => format!("Service {name} was refused"),
    };
    (Reason::ServiceRejected, format!("{field}: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_service_names_the_field_it_comes_from() {
        let table = [
            (
                None,
                "Service \"a\" is invalid: spec.ports[0].nodePort: Invalid value: 6443: provided port is not in the valid \
                 range. The range of valid ports is 30000-32767",
                Reason::PortNotAllocatable,
                "spec.networkProfile.port: 6443 ",
            ),
            (
                Some(8132),
                "Service \"a\" is invalid: spec.ports[1].nodePort: Invalid value: 8132: provided port is not in the valid \
                 range. The range of valid ports is 30000-32767",
                Reason::PortNotAllocatable,
                "spec.addons.konnectivity.server.port: 8132 ",
            ),
            (
                Some(30132),
                "Service \"a\" is invalid: spec.ports[1].nodePort: Invalid value: 30132: provided port is already allocated",
                Reason::PortNotAllocatable,
                "spec.addons.konnectivity.server.port: 30132 ",
            ),
            (
                Some(8132),
                "Service \"a\" is invalid: spec.ports[2]: Duplicate value: {\"port\":6443}",
                Reason::ServiceRejected,
                "spec.controlPlane.service.additionalPorts[0]: ",
            ),
            (
                None,
                "Service \"a\" is invalid: spec.ports[2]: Duplicate value: {\"port\":6443}",
                Reason::ServiceRejected,
                "spec.controlPlane.service.additionalPorts[1]: ",
            ),
            (
                None,
                "Service \"a\" is invalid: spec.externalTrafficPolicy: Unsupported value: \"x\"",
                Reason::ServiceRejected,
                "Service a was refused: ",
            ),
        ];
        for (agents, text, reason, start) in table {
            let (found, message) = refusal("a", 6443, agents, text);
            assert_eq!(found, reason, "{text}");
            assert!(message.starts_with(start) && message.contains(text), "{message}");
        }
    }
}
