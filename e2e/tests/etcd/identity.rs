//! The id of an etcd, and a member that lost its volume.

use anyhow::Context as _;
use capi_kamaji::hosting::driver::{Error, TenantSchema, etcd::EtcdAdmin};
use k8s_openapi::jiff::Timestamp;
use kamaji_api::labels::ours::{ACCEPT_DATA_LOSS, STORE_ID};

use super::{place, start};

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_lost_its_volume_does_not_begin_anew_until_that_is_accepted() -> anyhow::Result<()> {
    let Some((mut etcd, admin)) = start().await? else {
        return Ok(());
    };
    assert_eq!(admin.identity().await?, None);
    assert_eq!(admin.identify("one").await?, "one");
    assert_eq!(admin.identify("two").await?, "one", "it has one");
    assert_eq!(admin.identity().await?.as_deref(), Some("one"));
    let a = place("a");
    admin.ensure_tenant(&a, Timestamp::now()).await?;

    // With its data it starts, whatever is recorded.
    let recorded = [(STORE_ID, "one")];
    etcd.kill()?;
    assert!(etcd.start_again(&recorded).await?);
    let admin = EtcdAdmin::connect(&etcd.credentials()?).await?;
    assert_eq!(admin.identity().await?.as_deref(), Some("one"));

    etcd.lose_volume()?;
    for attempt in 0..2 {
        assert!(!etcd.start_again(&recorded).await?, "attempt {attempt} serves");
    }
    // Another loss is accepted.
    let other = [(STORE_ID, "one"), (ACCEPT_DATA_LOSS, "zero")];
    assert!(!etcd.start_again(&other).await?);

    let accepted = [(STORE_ID, "one"), (ACCEPT_DATA_LOSS, "one")];
    assert!(etcd.start_again(&accepted).await?);
    let admin = EtcdAdmin::connect(&etcd.credentials()?).await?;
    assert_eq!(admin.identity().await?, None);
    admin.ensure_auth().await?;
    let expected = TenantSchema { expected: true, ..a };
    let missing = admin.ensure_tenant(&expected, Timestamp::now()).await;
    let error = missing.err().context("an empty place was made")?;
    assert!(matches!(error, Error::DataMissing { .. }), "{error}");
    Ok(())
}
