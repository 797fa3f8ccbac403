//! Nothing is written where nothing changes.

use std::time::Duration;

use anyhow::Result;
use e2e::lab::{
    access::Lab,
    audit,
    topology::{made, settled},
};

use crate::{WORKERS, cluster};

/// How long nothing of ours asks the management cluster for anything.
const QUIET: Duration = Duration::from_mins(1);

#[tokio::test]
async fn contract_32_a_quiet_cluster_keeps_its_generations_and_template_names() -> Result<()> {
    let lab = Lab::open().await?;
    let cluster = cluster(&lab).await?;
    let before = made(&lab, &cluster).await?;
    audit::rest(&lab, QUIET, 4 * QUIET).await?;
    assert_eq!(
        before,
        made(&lab, &cluster).await?,
        "generations of what was made"
    );
    settled(&lab, &cluster, WORKERS).await
}
