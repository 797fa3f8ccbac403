//! An etcd of three members, of which any one may be down.

use std::time::Instant;

use capi_kamaji::hosting::driver::{Deleted, Error, etcd::EtcdAdmin};
use e2e::etcd::members::Members;
use k8s_openapi::jiff::Timestamp;

use super::place;

/// Creates and deletes the places of some tenants. Returns the longest time that one of them took, in milliseconds.
async fn create_and_delete(admin: &EtcdAdmin, down: usize) -> anyhow::Result<u128> {
    let mut longest = 0;
    for number in 0..4 {
        let place = place(&format!("m{down}n{number}"));
        let started = Instant::now();
        admin.ensure_tenant(&place, Timestamp::now()).await?;
        assert_eq!(admin.delete_tenant(&place).await?, Deleted { keys: 0 });
        longest = longest.max(started.elapsed().as_millis());
    }
    Ok(longest)
}

fn silent(admin: &EtcdAdmin) -> Vec<(String, String)> {
    let silent = admin.health().silent.into_iter();
    silent.map(|member| (member.endpoint, member.cause)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_are_created_and_deleted_whichever_member_is_down() -> anyhow::Result<()> {
    let Some(mut members) = Members::start().await? else {
        return Ok(());
    };
    let admin = EtcdAdmin::connect(&members.credentials()?).await?;
    admin.ensure_auth().await?;
    for down in 0..3 {
        members.kill(down)?;
        let longest = create_and_delete(&admin, down).await?;
        eprintln!("member {down} killed: creation and deletion took at most {longest} ms");
        assert!(admin.has_news(), "its turn came");
        admin.look().await?;
        assert_eq!(
            silent(&admin),
            [(members.endpoint(down), "connection refused".to_owned())]
        );
        // So it is for a process that starts now.
        EtcdAdmin::connect(&members.credentials()?).await?;
        members.restart(down)?;
        members
            .until("return", async |_| {
                admin.look().await?;
                Ok(silent(&admin).is_empty())
            })
            .await?;
        assert!(!admin.has_news());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_hangs_costs_one_timeout() -> anyhow::Result<()> {
    let Some(members) = Members::start().await? else {
        return Ok(());
    };
    let admin = EtcdAdmin::connect(&members.credentials()?).await?;
    admin.ensure_auth().await?;
    members.freeze(0, true)?;
    let started = Instant::now();
    create_and_delete(&admin, 0).await?;
    let took = started.elapsed();
    eprintln!(
        "member 0 hangs: four creations and deletions took {} ms",
        took.as_millis()
    );
    // Not one timeout of 5 s for each third request.
    assert!(took.as_secs() < 20, "{took:?}");
    assert!(admin.has_news());
    members.freeze(0, false)?;
    members
        .until("return", async |_| {
            admin.look().await?;
            Ok(silent(&admin).is_empty())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_each_member_is_told_with_its_cause() -> anyhow::Result<()> {
    let Some(mut members) = Members::start().await? else {
        return Ok(());
    };
    let admin = EtcdAdmin::connect(&members.credentials()?).await?;
    admin.ensure_auth().await?;
    for down in [0, 1] {
        members.kill(down)?;
    }
    let refused = admin.ensure_tenant(&place("a"), Timestamp::now()).await;
    let Err(Error::Unreachable { detail, .. }) = &refused else {
        anyhow::bail!("{refused:?}");
    };
    for down in [0, 1] {
        let reported = format!("{}: connection refused", members.endpoint(down));
        assert!(detail.contains(&reported), "{detail}");
    }
    // A majority is enough again, without a new connection.
    members.restart(0)?;
    members
        .until("majority", async |_| {
            admin.ensure_tenant(&place("a"), Timestamp::now()).await?;
            Ok(true)
        })
        .await
}
