//! The etcd driver against a real etcd: isolation of tenants, crashes between any two steps, deletion that leaves
//! nothing
//! behind and does not affect other tenants.

mod identity;
mod isolation;
mod members;
mod space;

use std::time::{Duration, Instant};

use capi_kamaji::{
    hosting::driver::{
        Access, Deleted, Error, Owner, TenantSchema,
        etcd::{EtcdAdmin, floor},
    },
    k8s::error::Class,
};
use e2e::etcd::Etcd;
use k8s_openapi::jiff::Timestamp;

fn place(name: &str) -> TenantSchema {
    TenantSchema {
        schema: format!("demo_{name}_bcdfghjk"),
        user: format!("demo_{name}_bcdfghjk"),
        owner: Owner {
            cluster: "one".to_owned(),
            namespace: "demo".to_owned(),
            name: name.to_owned(),
        },
        adopt: false,
        expected: false,
    }
}

async fn start() -> anyhow::Result<Option<(Etcd, EtcdAdmin)>> {
    let Some(etcd) = Etcd::start().await? else {
        return Ok(None);
    };
    let admin = EtcdAdmin::connect(&etcd.credentials()?).await?;
    assert!(!admin.auth_enabled().await?);
    admin.ensure_auth().await?;
    admin.ensure_auth().await?;
    assert!(admin.auth_enabled().await?);
    Ok(Some((etcd, admin)))
}

fn foreign_schema(schema: &str, owner: Option<&Owner>) -> Error {
    Error::ForeignSchema {
        schema: schema.to_owned(),
        owner: owner.cloned().map(Box::new),
    }
}

fn foreign_user(user: &str, owner: Option<&Owner>) -> Error {
    Error::ForeignUser {
        user: user.to_owned(),
        owner: owner.cloned().map(Box::new),
    }
}

fn put(etcd: &Etcd, user: &str, key: &str) -> anyhow::Result<String> {
    etcd.ctl(user, &["put", key, "value"])
}

#[tokio::test(flavor = "multi_thread")]
async fn hosting_beyond_06_a_tenant_cannot_reach_its_neighbour() -> anyhow::Result<()> {
    let Some((etcd, admin)) = start().await? else {
        return Ok(());
    };
    let (a, b) = (place("a"), place("b"));
    for place in [&a, &b] {
        admin.ensure_tenant(place, Timestamp::now()).await?;
        etcd.identity(&place.user)?;
        put(&etcd, &place.user, &format!("/{}/registry/x", place.schema))?;
    }
    let foreign = [
        format!("/{}/registry/x", b.schema),
        format!("/{}", b.schema),
        // A neighbour whose name begins with ours.
        format!("/{}2/registry/x", a.schema),
        format!("/capi-kamaji/schema/{}", a.schema),
        "/capi-kamaji/store".to_owned(),
        "/registry/secrets".to_owned(),
    ];
    for key in &foreign {
        for arguments in [&["get", key][..], &["put", key, "mine"], &["del", key]] {
            let error = etcd.ctl(&a.user, arguments).unwrap_err().to_string();
            assert!(error.contains("permission denied"), "{arguments:?}: {error}");
        }
    }
    for arguments in [
        &["user", "list"][..],
        &["role", "list"],
        &["auth", "disable"],
        &["get", "", "--prefix"],
    ] {
        let error = etcd.ctl(&a.user, arguments).unwrap_err().to_string();
        assert!(error.contains("permission denied"), "{arguments:?}: {error}");
    }
    assert_eq!(admin.key_count(&b.schema).await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn hosting_beyond_10_a_set_up_cut_anywhere_converges() -> anyhow::Result<()> {
    let Some((etcd, admin)) = start().await? else {
        return Ok(());
    };
    let a = place("a");
    admin.ensure_tenant(&a, Timestamp::now()).await?;
    let whole = etcd.listing()?;
    let permission = format!("/{}/", a.schema);
    // Each list of commands reverts everything after one step.
    let cuts: [&[&[&str]]; 5] = [
        &[],
        &[&["user", "revoke-role", &a.user, &a.schema]],
        &[&["user", "delete", &a.user]],
        &[
            &["user", "delete", &a.user],
            &["role", "revoke-permission", &a.schema, &permission, "--prefix"],
        ],
        &[&["user", "delete", &a.user], &["role", "delete", &a.schema]],
    ];
    for (step, commands) in cuts.iter().enumerate() {
        for command in *commands {
            etcd.ctl("root", command)?;
        }
        admin.ensure_tenant(&a, Timestamp::now()).await?;
        assert_eq!(etcd.listing()?, whole, "cut {step}");
        etcd.identity(&a.user)?;
        put(&etcd, &a.user, &format!("/{}/x", a.schema))?;
        etcd.ctl("root", &["del", &format!("/{}/x", a.schema)])?;
    }
    // Once set up, looking again changes nothing: etcd counts every change of users.
    let before = etcd.ctl("root", &["auth", "status"])?;
    admin.ensure_tenant(&a, Timestamp::now()).await?;
    assert_eq!(etcd.ctl("root", &["auth", "status"])?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn hosting_beyond_01_deletion_leaves_nothing_and_touches_no_neighbour() -> anyhow::Result<()> {
    let Some((etcd, admin)) = start().await? else {
        return Ok(());
    };
    let (a, b) = (place("a"), place("b"));
    admin.ensure_tenant(&b, Timestamp::now()).await?;
    put(&etcd, "root", &format!("/{}/x", b.schema))?;
    let before = etcd.listing()?;
    // Each list of commands is what an interrupted deletion had done.
    let role: &[&str] = &["role", "delete", &a.schema];
    let user: &[&str] = &["user", "delete", &a.user];
    let cuts: [&[&[&str]]; 3] = [&[], &[role], &[role, user]];
    for (step, commands) in cuts.iter().enumerate() {
        admin.ensure_tenant(&a, Timestamp::now()).await?;
        for number in 0..3 {
            put(&etcd, "root", &format!("/{}/registry/{number}", a.schema))?;
        }
        for command in *commands {
            etcd.ctl("root", command)?;
        }
        assert_eq!(admin.delete_tenant(&a).await?, Deleted { keys: 3 }, "cut {step}");
        assert_eq!(etcd.listing()?, before, "cut {step}");
        assert_eq!(admin.delete_tenant(&a).await?, Deleted { keys: 0 }, "again");
    }
    assert_eq!(admin.key_count(&b.schema).await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn more_keys_than_one_batch_go() -> anyhow::Result<()> {
    let Some((etcd, admin)) = start().await? else {
        return Ok(());
    };
    let a = place("a");
    admin.ensure_tenant(&a, Timestamp::now()).await?;
    // Through one transaction each of etcdctl's: 128 operations at most.
    for block in 0..20 {
        let puts: String = (0..110).fold(String::new(), |text, number| {
            text + &format!("put /{}/{block}/{number} value\n", a.schema)
        });
        transaction(&etcd, &puts)?;
    }
    assert_eq!(admin.delete_tenant(&a).await?, Deleted { keys: 2200 });
    Ok(())
}

fn transaction(etcd: &Etcd, puts: &str) -> anyhow::Result<()> {
    etcd.ctl_with_input("root", &["txn"], &format!("\n{puts}\n\n"))?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn hosting_beyond_06_what_is_not_ours_is_refused_and_left_alone() -> anyhow::Result<()> {
    let Some((etcd, admin)) = start().await? else {
        return Ok(());
    };
    let a = place("a");
    admin.ensure_tenant(&a, Timestamp::now()).await?;
    put(&etcd, "root", &format!("/{}/x", a.schema))?;
    // Made by somebody without marks, and keys alone.
    for command in [
        &["role", "add", "unmarked"][..],
        &["user", "add", "unmarked", "--no-password"],
    ] {
        etcd.ctl("root", command)?;
    }
    put(&etcd, "root", "/bare/x")?;

    let stranger = Owner {
        cluster: "two".to_owned(),
        ..a.owner.clone()
    };
    let named = |schema: &str, user: &str| TenantSchema {
        schema: schema.to_owned(),
        user: user.to_owned(),
        owner: stranger.clone(),
        adopt: false,
        expected: false,
    };
    // The stranger is a tenant too.
    let own = named("strangers", "strangers");
    admin.ensure_tenant(&own, Timestamp::now()).await?;
    let before = etcd.listing()?;
    let cases = [
        (
            named(&a.schema, "other"),
            foreign_schema(&a.schema, Some(&a.owner)),
        ),
        (named("other", &a.user), foreign_user(&a.user, Some(&a.owner))),
        (named("unmarked", "other"), foreign_schema("unmarked", None)),
        (named("bare", "other"), foreign_schema("bare", None)),
        (named("other", "unmarked"), foreign_user("unmarked", None)),
        // One name that is its own makes the other one no more its own.
        (named("unmarked", &own.user), foreign_schema("unmarked", None)),
        (named("bare", &own.user), foreign_schema("bare", None)),
    ];
    for (place, expected) in cases {
        assert_eq!(
            admin.ensure_tenant(&place, Timestamp::now()).await,
            Err(expected.clone())
        );
        assert_eq!(admin.delete_tenant(&place).await, Err(expected.clone()));
        assert_eq!(expected.class(), Class::Invalid);
        assert_eq!(etcd.listing()?, before, "{place:?}");
    }
    let half = named(&own.schema, "unmarked");
    assert_eq!(
        admin.ensure_tenant(&half, Timestamp::now()).await,
        Err(foreign_user("unmarked", None))
    );
    assert_eq!(etcd.listing()?, before);
    let message = admin
        .ensure_tenant(&named(&a.schema, "other"), Timestamp::now())
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        message,
        format!(
            "schema \"{}\" belongs to demo/a of management cluster one",
            a.schema
        )
    );
    let error = admin
        .ensure_tenant(&named("other", "root"), Timestamp::now())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("datastore user: \"root\" is reserved"),
        "{error}"
    );
    assert_eq!(etcd.listing()?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_does_not_hold_a_tenants_data_gets_no_empty_place() -> anyhow::Result<()> {
    let Some((etcd, admin)) = start().await? else {
        return Ok(());
    };
    let before = etcd.listing()?;
    for adopt in [false, true] {
        let known = TenantSchema {
            expected: true,
            adopt,
            ..place("a")
        };
        let missing = Error::DataMissing {
            schema: known.schema.clone(),
        };
        let refused = admin.ensure_tenant(&known, Timestamp::now()).await;
        assert_eq!(refused, Err(missing.clone()));
        // A backup that is restored ends it.
        assert_eq!(missing.class(), Class::Foreign);
        assert_eq!(etcd.listing()?, before);
        // Nothing of it is there: its deletion is done.
        assert_eq!(admin.delete_tenant(&known).await, Ok(Deleted { keys: 0 }));
        assert_eq!(etcd.listing()?, before);
    }
    // An API server that found the etcd empty wrote keys of its own.
    let known = TenantSchema {
        expected: true,
        ..place("c")
    };
    put(&etcd, "root", &format!("/{}/registry/x", known.schema))?;
    let missing = Error::DataMissing {
        schema: known.schema.clone(),
    };
    let refused = admin.ensure_tenant(&known, Timestamp::now()).await;
    assert_eq!(refused, Err(missing.clone()));
    assert_eq!(admin.delete_tenant(&known).await, Err(missing));
    // The mark alone identifies the right one, and so do keys if upstream Kamaji left no mark.
    let known = TenantSchema {
        expected: true,
        ..place("a")
    };
    admin.ensure_tenant(&place("a"), Timestamp::now()).await?;
    admin.ensure_tenant(&known, Timestamp::now()).await?;
    let kamajis = TenantSchema {
        adopt: true,
        expected: true,
        ..place("b")
    };
    put(&etcd, "root", &format!("/{}/x", kamajis.schema))?;
    admin.ensure_tenant(&kamajis, Timestamp::now()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_certificate_makes_no_peer() -> anyhow::Result<()> {
    let Some((etcd, admin)) = start().await? else {
        return Ok(());
    };
    let a = place("a");
    admin.ensure_tenant(&a, Timestamp::now()).await?;
    for user in [a.user.as_str(), "root"] {
        etcd.identity(user)?;
        let error = etcd.ask_as_peer([127, 0, 0, 1].into(), user).unwrap_err();
        assert!(format!("{error:?}").contains("alert"), "{user}: {error:?}");
    }
    // The member would be let in, but nobody gets to the port from outside of its pod.
    assert_eq!(
        etcd.ask_as_peer([127, 0, 0, 1].into(), "pki/tls")?,
        "HTTP/1.1 200 OK"
    );
    let error = etcd.ask_as_peer([127, 0, 0, 2].into(), "pki/tls").unwrap_err();
    assert!(error.to_string().contains("refused"), "{error:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tenants_at_once_are_all_set_up() -> anyhow::Result<()> {
    let Some((etcd, admin)) = start().await? else {
        return Ok(());
    };
    let places: Vec<TenantSchema> = (0..12).map(|number| place(&format!("t{number}"))).collect();
    let set_ups = places.iter().map(|place| async {
        // Whoever waits for long is sent away, to come again.
        loop {
            match admin.ensure_tenant(place, Timestamp::now()).await {
                Err(Error::Busy { .. }) => {}
                result => return result,
            }
        }
    });
    futures::future::try_join_all(set_ups).await?;
    for place in &places {
        assert!(
            etcd.ctl("root", &["user", "get", &place.user])?
                .contains(&place.schema)
        );
    }
    let deletions = places.iter().map(|place| async {
        loop {
            match admin.delete_tenant(place).await {
                Err(Error::Busy { .. }) => {}
                result => return result,
            }
        }
    });
    futures::future::try_join_all(deletions).await?;
    assert_eq!(etcd.listing()?, ["user root", "role root"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_of_an_etcd_that_hangs_do_not_queue_up() -> anyhow::Result<()> {
    let Some((etcd, admin)) = start().await? else {
        return Ok(());
    };
    etcd.freeze(true)?;
    let places: Vec<TenantSchema> = (0..64).map(|number| place(&format!("t{number}"))).collect();
    let started = Instant::now();
    let all = places
        .iter()
        .map(|place| admin.ensure_tenant(place, Timestamp::now()));
    let results = futures::future::join_all(all).await;
    let took = started.elapsed();
    etcd.freeze(false)?;
    let busy = |result: &&Result<(), Error>| matches!(result, Err(Error::Busy { .. }));
    eprintln!(
        "an etcd that hangs: 64 tenants are answered within {} ms",
        took.as_millis()
    );
    assert_eq!(results.iter().filter(busy).count(), 60);
    assert!(results.iter().all(Result::is_err));
    // In turns of four, each would have waited for those before it: 16 timeouts of 5 s.
    assert!(took < Duration::from_secs(20), "{took:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_of_the_server_is_read_and_keeps_tenants_apart() -> anyhow::Result<()> {
    let Some((etcd, admin)) = start().await? else {
        return Ok(());
    };
    let version = admin.health().version;
    let shown = etcd.ctl("root", &["endpoint", "status"])?;
    assert!(shown.contains(&format!(" {version},")), "{version}: {shown}");
    assert_eq!(floor::check(&version), Ok(()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_answered_what_its_api_server_asks_for() -> anyhow::Result<()> {
    let Some((etcd, admin)) = start().await? else {
        return Ok(());
    };
    let a = place("a");
    admin.ensure_tenant(&a, Timestamp::now()).await?;
    let access = Access::open(&etcd.credentials()?).await?;
    assert_eq!(access.admin.health().answers_tenants, None);
    access.try_as_tenant(&a.user, Timestamp::now()).await?;
    assert_eq!(access.admin.health().answers_tenants, Some(true));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_answer_is_told_with_its_cause() -> anyhow::Result<()> {
    let Some((etcd, admin)) = start().await? else {
        return Ok(());
    };
    // Nobody listens there.
    let mut elsewhere = etcd.credentials()?;
    elsewhere.endpoints = vec!["127.0.0.1:1".to_owned()];
    let error = EtcdAdmin::connect(&elsewhere).await.err();
    assert_eq!(
        error.as_ref().map(ToString::to_string).as_deref(),
        Some(
            "no answer from 127.0.0.1:1 within 5 s: 127.0.0.1:1: connection refused; check spec.endpoints of the \
             DataStore, and that pods of this cluster reach them"
        )
    );
    assert_eq!(error.map(|error| error.class()), Some(Class::Foreign));
    // Another CA.
    let Some(other) = Etcd::start().await? else {
        return Ok(());
    };
    let mut wrong = other.credentials()?;
    wrong.endpoints = vec![etcd.endpoint().to_owned()];
    let message = EtcdAdmin::connect(&wrong)
        .await
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default();
    assert!(
        message.contains("does not answer over TLS with these certificates"),
        "{message}"
    );
    // A certificate that is not the admin's.
    let a = place("a");
    admin.ensure_tenant(&a, Timestamp::now()).await?;
    let weak = etcd.credentials_of(&a.user)?;
    let error = EtcdAdmin::connect(&weak).await.err();
    assert_eq!(error.map(|error| error.class()), Some(Class::Denied));
    Ok(())
}
