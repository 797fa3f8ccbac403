//! Cleanup that also runs when a test fails, so that its objects do not disturb later tests.

use std::{
    fmt::Debug,
    panic::{AssertUnwindSafe, resume_unwind},
    time::Duration,
};

use anyhow::{Result, bail};
use futures::FutureExt as _;
use kube::{Api, api::DeleteParams};
use serde::{Serialize, de::DeserializeOwned};

use super::{describe::not_true, until::until};

/// Runs `test`, then `clean`, and returns the result of `test`: a value, an error or a failed assertion.
///
/// # Errors
/// Of `test`; else of `clean`.
pub async fn afterwards<T>(
    test: impl Future<Output = Result<T>>,
    clean: impl AsyncFnOnce() -> Result<()>,
) -> Result<T> {
    let outcome = AssertUnwindSafe(test).catch_unwind().await;
    let cleaned = clean().await;
    if let Ok(Ok(value)) = outcome {
        return cleaned.map(|()| value);
    }
    if let Err(error) = cleaned {
        eprintln!("the clean-up failed too: {error:#}");
    }
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Deletes an object, if it exists, and waits until it is gone.
///
/// # Errors
/// When it is not removed in time, with its unhealthy conditions.
pub async fn gone<K>(api: &Api<K>, name: &str, limit: Duration) -> Result<()>
where
    K: Clone + DeserializeOwned + Serialize + Debug,
{
    match api.delete(name, &DeleteParams::default()).await {
        // Its owner may have taken it along already.
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        other => drop(other?),
    }
    until(&format!("{name} to be gone"), limit, async || {
        let Some(object) = api.get_opt(name).await? else {
            return Ok(Some(()));
        };
        bail!("{}", not_true(&serde_json::to_value(&object)?))
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn it_runs_after_a_value_an_error_and_a_failed_assertion() {
        let runs = Cell::new(0);
        let count = async || {
            runs.set(runs.get() + 1);
            Ok(())
        };
        assert_eq!(afterwards(async { Ok(7) }, count).await.unwrap(), 7);
        let error = afterwards(async { bail!("wrong") }, count).await;
        let error: anyhow::Error = Result::<()>::unwrap_err(error);
        assert_eq!(error.to_string(), "wrong");
        let failing = async {
            assert_eq!(runs.get(), 1, "runs before the clean-up");
            Ok(())
        };
        let panic = AssertUnwindSafe(afterwards(failing, count)).catch_unwind().await;
        assert!(panic.is_err());
        assert_eq!(runs.get(), 3);
    }

    #[tokio::test]
    async fn a_failed_clean_up_is_reported_unless_the_test_failed_first() {
        let failing = async || bail!("left");
        let result = afterwards(async { Ok(()) }, failing).await;
        assert_eq!(result.unwrap_err().to_string(), "left");
        let result: Result<()> = afterwards(async { bail!("first") }, failing).await;
        assert_eq!(result.unwrap_err().to_string(), "first");
    }
}
