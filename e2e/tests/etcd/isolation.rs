//! What a hostile tenant tries against its neighbours and against etcd itself, with the certificate that its API server
//! has. Every request is sent to a real etcd; the last line counts how many were tried and how many succeeded.

mod attacks;
mod tried;

use capi_kamaji::hosting::driver::etcd::EtcdAdmin;
use e2e::etcd::Etcd;
use etcd_client::{AlarmAction, AlarmType, Client, PutOptions};
use k8s_openapi::jiff::Timestamp;

use self::{attacks::Attacker, tried::Tried};
use super::{place, start};

/// A tenant, its neighbour with a key and a lease, and keys of nobody.
struct Neighbourhood {
    etcd: Etcd,
    admin: EtcdAdmin,
    root: Client,
    attacker: Attacker,
}

async fn neighbourhood() -> anyhow::Result<Option<Neighbourhood>> {
    let Some((etcd, admin)) = start().await? else {
        return Ok(None);
    };
    let (a, b) = (place("a"), place("b"));
    for place in [&a, &b] {
        admin.ensure_tenant(place, Timestamp::now()).await?;
    }
    let mut root = etcd.connect("root").await?;
    let mut neighbour = etcd.connect(&b.user).await?;
    let mut client = etcd.connect(&a.user).await?;
    let lease = neighbour.lease_grant(3600, None).await?.id();
    let leased = PutOptions::new().with_lease(lease);
    let secret = format!("/{}/registry/secrets/x", b.schema);
    neighbour.put(secret.as_str(), "secret", Some(leased)).await?;
    client
        .put(format!("/{}/registry/x", a.schema), "own", None)
        .await?;
    root.put("/registry/secrets/x", "secret", None).await?;
    root.put(format!("/{}2/registry/x", a.schema), "secret", None)
        .await?;
    let attacker = Attacker {
        client,
        schema: a.schema,
        user: a.user,
        neighbour: b.schema,
        neighbours_user: b.user,
        neighbours_lease: lease,
    };
    Ok(Some(Neighbourhood {
        etcd,
        admin,
        root,
        attacker,
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn hosting_beyond_06_no_attack_of_a_tenant_on_its_neighbours_succeeds() -> anyhow::Result<()> {
    let Some(Neighbourhood {
        etcd,
        admin,
        mut root,
        attacker,
    }) = Box::pin(neighbourhood()).await?
    else {
        return Ok(());
    };
    let before = etcd.dump()?;
    let mut tried = Tried::default();
    attacker.keys(&mut tried).await;
    // Before anything that would take the neighbour's key off its lease.
    attacker.leases(&mut tried).await;
    attacker.ranges(&mut tried).await;
    Box::pin(attacker.transactions(&mut tried)).await;
    attacker.watches(&mut tried).await;
    attacker.users(&mut tried).await;
    attacker.maintenance(&mut tried).await;
    attacker.members(&mut tried).await;
    // An etcd that is out of space takes other paths through its checks.
    root.alarm(AlarmAction::Activate, AlarmType::Nospace, None)
        .await?;
    attacker.out_of_space(&mut tried).await;
    root.alarm(AlarmAction::Deactivate, AlarmType::Nospace, None)
        .await?;
    // Those that end what the others are tried against come last.
    attacker.authentication(&mut tried).await;
    eprintln!("isolation: {}", tried.figures());
    assert!(tried.count() >= 50, "{}", tried.figures());
    assert_eq!(tried.not_refused(), Vec::<String>::new(), "{}", tried.figures());
    // Nothing of it left a trace.
    assert_eq!(etcd.dump()?, before);
    assert!(admin.auth_enabled().await?);
    Ok(())
}

/// etcd answers these to every user, whatever its roles. None of them reaches a key.
#[tokio::test(flavor = "multi_thread")]
async fn what_etcd_answers_to_every_user_is_known() -> anyhow::Result<()> {
    let Some(Neighbourhood {
        etcd: _running,
        mut root,
        attacker,
        ..
    }) = Box::pin(neighbourhood()).await?
    else {
        return Ok(());
    };
    let mut client = attacker.client.clone();
    let status = client.status().await?;
    assert!(!status.version().is_empty());
    let members = client.member_list().await?;
    assert_eq!(members.members().len(), 1);
    let alarms = client.alarm(AlarmAction::Get, AlarmType::None, None).await?;
    assert!(alarms.alarms().is_empty());
    let own = client.lease_grant(60, None).await?.id();
    client.lease_revoke(own).await?;
    // A lease without keys may be anybody's: the API server of a neighbour takes a new one when it is gone.
    let keyless = root.lease_grant(60, None).await?.id();
    client.lease_revoke(keyless).await?;
    let remaining = client.lease_time_to_live(attacker.neighbours_lease, None).await?;
    assert!(remaining.ttl() > 0 && remaining.keys().is_empty());
    Ok(())
}
