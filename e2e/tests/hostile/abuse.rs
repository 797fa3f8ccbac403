//! Writes to the management cluster that one bootstrap token can cause.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    bootstrap::{World, Write, until},
    csr,
};
use futures::{StreamExt as _, stream};
use k8s_openapi::api::{certificates::v1::CertificateSigningRequest, core::v1::Event};
use kube::{
    Client,
    api::{Api, ListParams, PostParams},
};
use serde_json::json;

/// Requests, and as many reports.
const ALL: usize = 1000;
/// Those that are sent before the token is ended.
const BURST: usize = 50;
/// Longer than the time after which a config may be woken again.
const LONG: Duration = Duration::from_secs(15);
/// «A handful»: writes until the token is ended.
const HANDFUL: usize = 30;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_requests_and_reports_of_one_token_are_a_handful_of_writes_and_then_none() -> Result<()> {
    let _turn = super::turn().await;
    let Some(world) = World::start("abuse").await? else {
        return Ok(());
    };
    let _controller = world.run()?;
    for name in ["m", "other"] {
        world.machine(name, json!({})).await?;
    }
    let (token, other) = (world.token("m").await?, world.token("other").await?);
    let id = token.split('.').next().context("no token")?.to_owned();
    let bearer = bearer(&world, &id)?;
    until("a report is accepted", Duration::from_secs(30), async || {
        Ok(report(&bearer, &id, ALL).await.ok())
    })
    .await?;

    let before = writes(&world)?;
    flood(&bearer, &id, 0..BURST).await?;
    let message = world.condition("m", "BootstrapTokenValid", "TokenAbused").await?;
    ensure!(message.contains("delete the Machine"), "{message}");
    let secret = e2e::bootstrap::token_secret(&token);
    until("the token is gone", Duration::from_secs(10), async || {
        Ok(world
            .secret("kube-system", &secret)
            .await?
            .is_none()
            .then_some(()))
    })
    .await?;
    let burst = writes(&world)? - before;

    let (quiet, began) = (writes(&world)?, Instant::now());
    let mut sent = BURST;
    while sent < ALL || began.elapsed() < LONG {
        let more = sent + 50;
        flood(&bearer, &id, sent..more).await?;
        sent = more;
    }
    // Whatever came before this request was seen before it.
    let request = world.ask(&world.bearer(&other)?, "other").await?;
    world.answer(&request, Duration::from_secs(30)).await?;
    let later = writes(&world)? - quiet;
    let requests: Api<CertificateSigningRequest> = Api::all(world.admin.clone());
    let requests = requests.list(&ListParams::default()).await?.items;
    let denied = requests.iter().filter(|request| {
        let status = request
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_ref());
        status.is_some_and(|list| list.iter().any(|condition| condition.type_ == "Denied"))
    });
    println!(
        "one token, {sent} requests and {sent} reports: {burst} writes to the management cluster until the token was ended, \
         {later} writes afterwards; {} requests were answered",
        denied.count()
    );
    ensure!(burst <= HANDFUL, "{burst} writes in the burst");
    ensure!(later == 0, "{later} writes after the burst");
    Ok(())
}

/// A client that the API server takes for the bearer of a token, also after the token was deleted: an API server may have
/// it in its cache, and the figure is about the provider alone.
fn bearer(world: &World, id: &str) -> Result<Client> {
    let mut config = world.server.config()?;
    config.auth_info.impersonate = Some(format!("system:bootstrap:{id}"));
    config.auth_info.impersonate_groups = Some(vec![
        "system:bootstrappers".to_owned(),
        "system:bootstrappers:kamaji:nodes".to_owned(),
    ]);
    Ok(Client::try_from(config)?)
}

/// Requests for names that are not the machine's, and reports.
async fn flood(bearer: &Client, id: &str, numbers: std::ops::Range<usize>) -> Result<()> {
    let requests: Api<CertificateSigningRequest> = Api::all(bearer.clone());
    let both = async |number: usize| -> Result<()> {
        let name = format!("system:node:another{number}");
        let request = csr::request(&name, "system:nodes", &csr::KUBELET_USAGES)?;
        requests.create(&PostParams::default(), &request).await?;
        report(bearer, id, number).await
    };
    let sent: Vec<Result<()>> = stream::iter(numbers)
        .map(both)
        .buffer_unordered(8)
        .collect()
        .await;
    sent.into_iter().collect()
}

async fn report(bearer: &Client, id: &str, number: usize) -> Result<()> {
    let reports: Api<Event> = Api::namespaced(bearer.clone(), "kamaji-bootstrap");
    let event = serde_json::from_value(json!({
        "metadata": {"name": format!("{id}.{number}-{}", rand::random::<u32>())}, "type": "Warning",
        "involvedObject": {"kind": "KamajiConfig", "namespace": "kamaji-bootstrap", "name": "m"},
        "reason": "PreJoinFailed", "message": format!("try {number}"), "lastTimestamp": "2099-01-02T03:04:05Z",
    }))?;
    reports.create(&PostParams::default(), &event).await?;
    Ok(())
}

/// Writes in the namespace, except those about the other machine.
fn writes(world: &World) -> Result<usize> {
    let writes = world.writes()?;
    Ok(writes.iter().filter(|write| counts(write)).count())
}

/// An Event has the name of its object, and more behind a dot.
fn counts(write: &Write) -> bool {
    write.name.split('.').next() != Some("other")
}

#[test]
fn every_write_counts_except_those_about_the_other_machine() {
    let write = |resource: &str, subresource: &str, name: &str| Write {
        resource: resource.to_owned(),
        subresource: subresource.to_owned(),
        name: name.to_owned(),
        conflict: false,
    };
    for (resource, subresource) in [
        ("kamajiconfigs", "status"),
        ("kamajiconfigs", ""),
        ("secrets", ""),
        ("configmaps", ""),
    ] {
        assert!(
            counts(&write(resource, subresource, "m")),
            "{resource}/{subresource}"
        );
        assert!(
            !counts(&write(resource, subresource, "other")),
            "{resource}/{subresource}"
        );
    }
    assert!(counts(&write("events", "", "m.18a0")));
    assert!(!counts(&write("events", "", "other.18a0")));
    assert!(counts(&write("secrets", "", "another")) && counts(&write("secrets", "", "")));
}
