//! Waits for asynchronous results: polls twice a second, with a deadline and a description.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// Polls `look` until it returns a value. The error names the description, the time, and the last state.
///
/// # Errors
/// When the time is over. Errors of `look` count as «not yet».
pub async fn until<T, F>(what: &str, limit: Duration, mut look: F) -> Result<T>
where
    F: AsyncFnMut() -> Result<Option<T>>,
{
    let end = Instant::now() + limit;
    loop {
        let seen = match look().await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => String::from("not yet there"),
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() > end {
            bail!("waited {} s for {what}; last seen: {seen}", limit.as_secs());
        }
        sleep(Duration::from_millis(500)).await;
    }
}
