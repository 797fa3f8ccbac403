//! How full an etcd is, and what it says when its quota is used up.

use capi_kamaji::hosting::driver::Error;
use etcd_client::{AlarmAction, AlarmType};
use k8s_openapi::jiff::Timestamp;

use super::{place, start};

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_is_out_of_space_says_so_until_the_alarm_is_disarmed() -> anyhow::Result<()> {
    let Some((etcd, admin)) = start().await? else {
        return Ok(());
    };
    let space = admin.health().space;
    // Three quarters of the default volume.
    assert_eq!(space.quota, 6 << 30);
    assert!(space.used > 0 && !space.full, "{space:?}");
    let mut root = etcd.connect("root").await?;
    root.alarm(AlarmAction::Activate, AlarmType::Nospace, None)
        .await?;
    assert!(!admin.has_news(), "it was asked a moment ago");
    admin.doubt();
    assert!(admin.has_news());
    admin.look().await?;
    assert!(admin.health().space.full);
    assert!(!admin.has_news());
    let refused = admin.ensure_tenant(&place("a"), Timestamp::now()).await;
    assert!(matches!(refused, Err(Error::Full { .. })), "{refused:?}");
    root.alarm(AlarmAction::Deactivate, AlarmType::Nospace, None)
        .await?;
    admin.look().await?;
    assert!(!admin.health().space.full);
    admin.ensure_tenant(&place("a"), Timestamp::now()).await?;
    Ok(())
}
