//! The addresses of a tenant, from its [`Plan`] and its Service. Pure.

use std::net::IpAddr;

use kamaji_api::conditions::Reason;
use kube::ResourceExt as _;

use super::{
    former,
    plan::{self, Plan},
    published::Published,
    scope::Scope,
};
use crate::k8s::{conditions::Verdict, host_port::HostPort, problem::Problem, row::ServiceFacts};

/// Addresses of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `host:port` for admins, as it is published.
    pub published: String,
    /// `host:port` for nodes and what runs on them, as it is published.
    pub nodes: String,
    /// Address behind the `kubernetes` Service of the workload cluster.
    pub advertise: Option<IpAddr>,
    /// Names and addresses in the serving certificate of kube-apiserver.
    pub hosts: Vec<String>,
    /// `host:port` of the Service, for the engine.
    pub service: String,
    /// What it is published at, to be recorded.
    pub record: Published,
    /// What is published instead once every pod serves it.
    pub moving: Option<Published>,
    /// Why the endpoint may not lead to the API server, or not from everywhere, or is not the one that the spec asks for.
    /// The control plane goes on with it.
    pub doubt: Option<Problem>,
    /// Whether nodes of former endpoints reach the API server; `None` where there is none.
    pub former: Option<Verdict>,
}

impl Endpoint {
    /// The endpoint moves, and not every pod serves the new one yet.
    pub fn is_moving(&self) -> Option<Problem> {
        let moving = self.moving.as_ref()?;
        let (nodes, published) = (moving.nodes().to_string(), moving.endpoint.to_string());
        let (from, to) = if published == self.published {
            (&self.nodes, nodes)
        } else {
            (&self.published, published)
        };
        Some(Problem::on_change(
            Reason::EndpointMoving,
            format!(
                "the control plane moves from {from} to {to}; it is published there once every pod serves it"
            ),
        ))
    }
}

/// The addresses, once the Service exists.
///
/// # Errors
/// The Service has no address yet, or the spec needs one.
pub fn endpoint(scope: &Scope<'_>, plan: &Plan, service: &ServiceFacts) -> Result<Endpoint, Problem> {
    let name = scope.tenant.name_any();
    let internal = service
        .cluster_ip
        .as_deref()
        .ok_or_else(|| plan::no_cluster_ip(&name))?;
    // The first time, the address came with the Service.
    let first = plan
        .published
        .is_none()
        .then(|| plan::plan(scope.tenant, &scope.valid.network, Some(service)));
    let plan = first.as_ref().unwrap_or(plan);
    let mut doubt = plan.doubt.clone();
    let Some(target) = plan.target.clone() else {
        return Err(doubt.unwrap_or_else(|| plan::no_cluster_ip(&name)));
    };
    let advertise = match plan::advertise(&name, &scope.valid.network, &target.endpoint.host) {
        Ok(address) => Some(address),
        Err(problem) if plan.published.is_none() => return Err(problem),
        Err(problem) => {
            // Running pods are not replaced for an address that is no better.
            doubt = doubt.or(Some(problem));
            internal.parse().ok()
        }
    };
    let record = plan.published.clone().unwrap_or_else(|| target.clone());
    let nodes = record.nodes();
    let former = plan.former.iter().map(|former| former.endpoint.host.clone());
    let mut hosts: Vec<String> = service.cluster_ips.clone();
    hosts.extend(service.ingress.iter().cloned());
    hosts.extend(
        [
            internal,
            &target.endpoint.host,
            &record.endpoint.host,
            &nodes.host,
        ]
        .map(str::to_owned),
    );
    hosts.extend(advertise.map(|address| address.to_string()));
    hosts.extend(former);
    Ok(Endpoint {
        published: record.endpoint.to_string(),
        nodes: nodes.to_string(),
        advertise,
        hosts,
        service: HostPort::new(internal, target.endpoint.port).to_string(),
        former: former::verdict(scope.tenant, &plan.former, service, &nodes),
        moving: Some(target).filter(|target| *target != record),
        record,
        doubt,
    })
}
