//! Tenants in the lab on an etcd of three members, of which any one is down: they are created, scaled, put to sleep, woken
//! and deleted meanwhile.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use capi_kamaji::hosting::driver::etcd::EtcdAdmin;
use e2e::{
    etcd::members::Members,
    lab::{
        access::{HOST, Lab},
        cleanup::{afterwards, gone},
        clusters::VERSION,
        conditions::PATIENCE,
        stores::{external, ready, store},
        tenants::Scope,
        until::until,
    },
};
use kamaji_api::datastore::DataStore;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

const STORE: &str = "e2e-members";

#[tokio::test(flavor = "multi_thread")]
async fn tenants_come_scale_sleep_wake_and_go_whichever_member_is_down() -> Result<()> {
    let lab = Lab::open().await?;
    let mut members = Members::start_at(HOST.into())
        .await?
        .context("etcd is not built")?;
    let admin = EtcdAdmin::connect(&members.credentials()?).await?;
    admin.ensure_auth().await?;
    let stores = Api::<DataStore>::all(lab.management.clone());
    let test = async {
        let endpoints: Vec<String> = (0..3).map(|number| members.endpoint(number)).collect();
        store(
            &stores,
            STORE,
            &external(&endpoints, members.ca(), &members.admin()?),
        )
        .await?;
        ready(&stores, STORE).await?;
        Scope::run(&lab, "members", async |scope| {
            for down in 0..3 {
                let name = format!("down{down}");
                scope
                    .create(&format!("before{down}"), VERSION, json!({ "dataStore": STORE }))
                    .await?;
                scope.reaches(&format!("before{down}"), "Ready", VERSION).await?;
                members.kill(down)?;
                life(scope, &name)
                    .await
                    .with_context(|| format!("member {down} is down"))?;
                // Whoever asks nothing of a member does not miss it.
                named(&stores, &members.endpoint(down)).await?;
                for tenant in [name, format!("before{down}")] {
                    let began = Instant::now();
                    scope.delete(&tenant).await?;
                    eprintln!(
                        "member {down} down: {tenant} gone after {} s",
                        began.elapsed().as_secs()
                    );
                }
                ready(&stores, STORE).await?;
                members.restart(down)?;
                members
                    .until("return", async |_| {
                        admin.look().await?;
                        Ok(admin.health().silent.is_empty())
                    })
                    .await?;
            }
            Ok(())
        })
        .await
    };
    afterwards(Box::pin(test), async || gone(&stores, STORE, PATIENCE).await).await
}

/// The DataStore stays ready and names the member.
async fn named(stores: &Api<DataStore>, endpoint: &str) -> Result<()> {
    until("the DataStore to name the member", PATIENCE, async || {
        let status = stores.get(STORE).await?.status.unwrap_or_default();
        ensure!(
            status.ready,
            "the DataStore is not ready: {:?}",
            status.conditions
        );
        let reported = status
            .conditions
            .iter()
            .find(|known| known.message.contains(endpoint));
        Ok(reported.map(|_| ()))
    })
    .await
}

/// A tenant from its creation over two replicas and sleep to the time after.
async fn life(scope: &Scope, name: &str) -> Result<()> {
    let mut took = Vec::new();
    let mut began = Instant::now();
    scope.create(name, VERSION, json!({ "dataStore": STORE })).await?;
    scope.reaches(name, "Ready", VERSION).await?;
    took.push(("created", began.elapsed().as_secs()));
    for (what, replicas, status) in [
        ("scaled", 2, "Ready"),
        ("asleep", 0, "Sleeping"),
        ("awake", 1, "Ready"),
    ] {
        began = Instant::now();
        let patch =
            Patch::Merge(json!({ "spec": { "controlPlane": { "deployment": { "replicas": replicas } } } }));
        scope
            .tenants()
            .patch(name, &PatchParams::default(), &patch)
            .await?;
        until(what, PATIENCE, async || {
            let tenant = scope.tenants().get(name).await?;
            let resources = tenant
                .status
                .unwrap_or_default()
                .kubernetes_resources
                .unwrap_or_default();
            let pods = resources
                .deployment
                .and_then(|pods| pods.ready_replicas)
                .unwrap_or(0);
            let at = resources
                .version
                .map(|version| version.status.as_str().to_owned())
                .unwrap_or_default();
            Ok((pods == replicas && at == status).then_some(()))
        })
        .await?;
        took.push((what, began.elapsed().as_secs()));
    }
    eprintln!("{name}: {took:?} (seconds)");
    Ok(())
}
