//! Machines one by one and many at once: their data, their tokens and their certificates.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    bootstrap::{CLUSTER, NS, World, budget, kubelet, text, token_secret, until},
    csr,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::{
    ByteString,
    api::{certificates::v1::CertificateSigningRequest, core::v1::Secret},
    jiff::Timestamp,
};
use kamaji_api::bootstrap::KamajiConfig;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);
/// Machines that are created at once.
const MANY: usize = 500;

fn configs(world: &World) -> Api<KamajiConfig> {
    Api::namespaced(world.admin.clone(), NS)
}

async fn merge(world: &World, name: &str, change: Value) -> Result<KamajiConfig> {
    Ok(configs(world)
        .patch(name, &PatchParams::default(), &Patch::Merge(change))
        .await?)
}

/// The data Secret of a machine.
async fn data(world: &World, name: &str) -> Result<Secret> {
    world.secret(NS, name).await?.context("no data")
}

#[tokio::test(flavor = "multi_thread")]
async fn contract_42_the_data_is_a_cloud_config_and_the_key_format_names_it() -> Result<()> {
    let Some(world) = World::start("format").await? else {
        return Ok(());
    };
    let _controller = world.run()?;
    world.machine("m", json!({})).await?;
    world.token("m").await?;
    let data = data(&world, "m").await?;
    ensure!(text(&data, "format") == "cloud-config");
    ensure!(text(&data, "value").starts_with("#cloud-config\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bootstrap_35_a_file_that_names_a_missing_secret_waits_for_it_and_no_data_is_made() -> Result<()> {
    let Some(world) = World::start("references").await? else {
        return Ok(());
    };
    let _controller = world.run()?;
    let file = json!({"files": [{
        "path": "/etc/motd", "contentFrom": {"secret": {"name": "words", "key": "motd"}},
    }]});
    world.machine("m", file).await?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "words", "namespace": NS},
        "stringData": {"other": "wrong"},
    });
    for step in ["no Secret", "no key"] {
        let message = world
            .condition("m", "DataSecretAvailable", "ReferenceNotFound")
            .await?;
        for part in ["spec.files[0].contentFrom", "Secret words", "\"motd\""] {
            ensure!(message.contains(part), "{step}: {message}");
        }
        ensure!(world.secret(NS, "m").await?.is_none(), "{step}: there is data");
        world.apply(&secret).await?;
    }
    let mut secret = secret;
    secret["stringData"]["motd"] = json!("needle-of-the-file");
    world.apply(&secret).await?;
    world.token("m").await?;
    ensure!(text(&data(&world, "m").await?, "value").contains("needle-of-the-file"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn contract_45_the_token_of_a_machine_without_a_node_is_extended_and_goes_with_the_node() -> Result<()>
{
    let Some(world) = World::start("extended").await? else {
        return Ok(());
    };
    let _controller = world.run()?;
    world.machine("m", json!({})).await?;
    let token = world.token("m").await?;
    let name = token_secret(&token);

    // Five minutes are left, which is less than two thirds of 15.
    let soon = Timestamp::from_second(Timestamp::now().as_second() + 300)?.to_string();
    let status = Patch::Merge(json!({"status": {"token": {"expiration": soon}}}));
    configs(&world)
        .patch_status("m", &PatchParams::default(), &status)
        .await?;
    merge(&world, "m", json!({"metadata": {"labels": {"aged": "true"}}})).await?;
    let reported = until("another end of the token", SOON, async || {
        let token = world.status_of("m").await?.token.unwrap_or_default();
        Ok(token
            .expiration
            .map(|end| end.0)
            .filter(|end| end.to_string() != soon))
    })
    .await?;
    ensure!(
        reported.as_second() > Timestamp::now().as_second() + 800,
        "{reported}"
    );
    until("the end of the token in the workload cluster", SOON, async || {
        let secret = world.secret("kube-system", &name).await?.context("no token")?;
        let end: Timestamp = text(&secret, "expiration").parse()?;
        ensure!(text(&secret, "token-secret") == token.split_once('.').context("no token")?.1);
        Ok((end == reported).then_some(()))
    })
    .await?;

    let request = world.ask(&world.bearer(&token)?, "m").await?;
    ensure!(world.answer(&request, SOON).await?.0 == "Approved");
    world.node("m").await?;
    until("the token is gone", SOON, async || {
        Ok(world.secret("kube-system", &name).await?.is_none().then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn contract_54_a_config_that_is_edited_while_its_machine_is_updated_in_place_makes_no_new_data()
-> Result<()> {
    let Some(world) = World::start("in-place").await? else {
        return Ok(());
    };
    let _controller = world.run()?;
    world.machine("m", json!({})).await?;
    let token = world.token("m").await?;
    let before = data(&world, "m").await?;
    for joined in [false, true] {
        if joined {
            let request = world.ask(&world.bearer(&token)?, "m").await?;
            ensure!(world.answer(&request, SOON).await?.0 == "Approved");
            world.node("m").await?;
            world.condition("m", "NodeJoined", "NodeJoined").await?;
        }
        let update = json!({"metadata": {"annotations": {
            "in-place-updates.internal.cluster.x-k8s.io/update-in-progress": "",
        }}});
        world
            .api("cluster.x-k8s.io/v1beta2", "Machine")
            .patch("m", &PatchParams::default(), &Patch::Merge(update))
            .await?;
        let edit =
            json!({"spec": {"files": [{"path": "/etc/motd", "content": format!("joined: {joined}")}]}});
        let generation = merge(&world, "m", edit).await?.metadata.generation;
        until("the edit is seen", SOON, async || {
            Ok((world.status_of("m").await?.observed_generation == generation).then_some(()))
        })
        .await?;
        let after = data(&world, "m").await?;
        ensure!(
            after.data == before.data,
            "joined: {joined}: the data has changed"
        );
        let status = world.status_of("m").await?;
        ensure!(
            status.data_secret_name.as_deref() == Some("m"),
            "joined: {joined}"
        );
    }
    let data = ListParams::default().labels("cluster.x-k8s.io/cluster-name");
    let secrets: Api<Secret> = Api::namespaced(world.admin.clone(), NS);
    let names: Vec<_> = secrets
        .list(&data)
        .await?
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    ensure!(names.len() == 3, "{names:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn contract_51_a_config_is_deleted_within_10_s_while_the_api_server_of_its_cluster_is_silent()
-> Result<()> {
    let Some(world) = World::start("silent").await? else {
        return Ok(());
    };
    // It accepts connections, and never answers.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let silent = format!("https://{}", listener.local_addr()?);
    world.machine("m", json!({})).await?;
    let controller = world.run()?;
    world.token("m").await?;
    controller.cancel();
    world.cluster(CLUSTER, &silent).await?;
    let _controller = world.run()?;
    world
        .condition("m", "BootstrapTokenValid", "TenantUnreachable")
        .await?;
    let began = Instant::now();
    configs(&world).delete("m", &DeleteParams::default()).await?;
    until("the config is gone", budget(10), async || {
        Ok(configs(&world).get_opt("m").await?.is_none().then_some(()))
    })
    .await?;
    println!(
        "the config was gone after {:?}, the budget is 10 s",
        began.elapsed()
    );
    Ok(())
}

/// Requests the certificate of a node, with the rights of `client`, and waits for it. Returns what it can do with it.
async fn certified(world: &World, client: &Client, node: &str, seconds: i32) -> Result<(Client, String)> {
    let (request, key) = csr::keyed(&format!("system:node:{node}"), "system:nodes")?;
    let request: CertificateSigningRequest = serde_json::from_value(json!({
        "metadata": {"generateName": "node-csr-"},
        "spec": {
            "signerName": "kubernetes.io/kube-apiserver-client-kubelet", "usages": csr::KUBELET_USAGES,
            "expirationSeconds": seconds, "request": ByteString(request.into_bytes()),
        },
    }))?;
    let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
    let name = requests
        .create(&PostParams::default(), &request)
        .await?
        .name_any();
    let (type_, reason) = world.answer(&name, SOON).await?;
    ensure!(type_ == "Approved", "{type_} {reason}");
    let certificate = world.certificate(&name).await?;
    Ok((kubelet(&world.server, &certificate, &key)?, reason))
}

#[tokio::test(flavor = "multi_thread")]
async fn bootstrap_26_a_joined_node_renews_its_client_certificate_without_this_provider() -> Result<()> {
    let Some(world) = World::start("renewal").await? else {
        return Ok(());
    };
    let controller = world.run()?;
    world.machine("m", json!({})).await?;
    let token = world.token("m").await?;
    let (first, reason) = certified(&world, &world.bearer(&token)?, "m", 600).await?;
    ensure!(reason == "KamajiTokenBound", "{reason}");
    world.node("m").await?;
    world.condition("m", "NodeJoined", "NodeJoined").await?;
    controller.cancel();
    let mut kubelet = first;
    for _ in 0..2 {
        let (renewed, reason) = certified(&world, &kubelet, "m", 600).await?;
        ensure!(reason == "AutoApproved", "{reason}");
        kubelet = renewed;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bootstrap_61_the_data_of_500_machines_is_there_within_a_minute() -> Result<()> {
    let Some(world) = World::start("many").await? else {
        return Ok(());
    };
    let _controller = world.run()?;
    let writes = world.writes()?.len();
    let began = Instant::now();
    stream::iter(0..MANY)
        .map(async |number| world.machine(&format!("m-{number:03}"), json!({})).await)
        .buffer_unordered(32)
        .try_collect::<Vec<()>>()
        .await?;
    let created = began.elapsed();
    until("the data of all machines", budget(60), async || {
        let all = configs(&world).list(&ListParams::default()).await?;
        let done = all.iter().filter(|config| {
            let status = config
                .status
                .as_ref()
                .and_then(|status| status.initialization.as_ref());
            status.and_then(|done| done.data_secret_created) == Some(true)
        });
        Ok((done.count() == MANY).then_some(()))
    })
    .await?;
    let writes = world.writes()?.len() - writes;
    println!(
        "{MANY} machines were created in {created:?}, all data was there after {:?}, the budget is 60 s; {writes} writes to \
         the management cluster",
        began.elapsed(),
    );
    Ok(())
}
