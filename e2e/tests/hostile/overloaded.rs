//! A workload cluster whose API server is overloaded: it refuses the approval of a certificate with 429, again and again.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context as _, Result, ensure};
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Method, StatusCode},
    response::{IntoResponse as _, Response},
};
use capi_kamaji::pki::spec::BOOTSTRAP_USER;
use e2e::bootstrap::{World, until};
use http_body_util::BodyExt as _;
use kube::{
    Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use std::time::Duration;

/// Refusals before an approval is accepted.
const REFUSALS: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn bootstrap_25_an_approval_that_is_refused_ten_times_is_accepted_in_the_end() -> Result<()> {
    let _turn = super::turn().await;
    let Some(world) = World::start("overloaded").await? else {
        return Ok(());
    };
    let refused = Arc::new(AtomicUsize::new(0));
    world
        .cluster("busy", &front(&world, refused.clone()).await?)
        .await?;
    let _controller = world.run()?;
    world.machine_of("busy", "m", json!({})).await?;
    let machine = world.bearer(&world.token("m").await?)?;
    let request = world.ask(&machine, "m").await?;
    let machines = world.api("cluster.x-k8s.io/v1beta2", "Machine");
    // It is tried again with growing pauses. What happens to the Machine shortens them.
    until("all refusals", Duration::from_mins(2), async || {
        let label = json!({"metadata": {"labels": {"try": rand::random::<u32>().to_string()}}});
        machines
            .patch("m", &PatchParams::default(), &Patch::Merge(label))
            .await?;
        Ok((refused.load(Ordering::SeqCst) >= REFUSALS).then_some(()))
    })
    .await?;
    let (type_, reason) = world.answer(&request, Duration::from_secs(30)).await?;
    let claim = world.config("m").await?.status.and_then(|status| status.node);
    let approvals = claim.and_then(|node| node.approvals).context("no claim")?;
    println!(
        "an approval that was refused {} times: {type_}, counted {approvals} time",
        refused.load(Ordering::SeqCst)
    );
    ensure!((type_.as_str(), reason.as_str()) == ("Approved", "KamajiTokenBound"));
    ensure!(approvals == 1, "counted {approvals} times");
    Ok(())
}

/// What is in front of the API server.
#[derive(Clone)]
struct Front {
    client: Client,
    refused: Arc<AtomicUsize>,
}

/// URL of a server that passes requests on with the identity of the bootstrap provider, except for the first approvals.
async fn front(world: &World, refused: Arc<AtomicUsize>) -> Result<String> {
    let mut config = world.server.config()?;
    config.auth_info.impersonate = Some(BOOTSTRAP_USER.to_owned());
    let client = Client::try_from(config)?;
    let router = Router::new().fallback(pass).with_state(Front { client, refused });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(url)
}

async fn pass(State(front): State<Front>, request: Request) -> Response {
    let approval = request.method() == Method::PUT && request.uri().path().ends_with("/approval");
    if approval && front.refused.load(Ordering::SeqCst) < REFUSALS {
        front.refused.fetch_add(1, Ordering::SeqCst);
        return StatusCode::TOO_MANY_REQUESTS.into_response();
    }
    match forward(&front.client, request).await {
        Ok(response) => response,
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response(),
    }
}

async fn forward(client: &Client, request: Request) -> Result<Response> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().context("no path")?.as_str().to_owned();
    parts.uri = path.parse()?;
    parts.headers.remove("host");
    let body = body.collect().await?.to_bytes().to_vec();
    let request = http::Request::from_parts(parts, kube::client::Body::from(body));
    Ok(client.send(request).await?.map(Body::new))
}
