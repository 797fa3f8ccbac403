//! One attempt at a time to open a DataStore, whose end is that of everybody who waited for it.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

use crate::k8s::problem::Problem;

/// The attempts to open one version of a DataStore.
#[derive(Default)]
pub struct Attempts {
    /// Number of attempts that ended.
    ended: AtomicU64,
    /// How the last one failed. It is locked while one runs.
    failure: Mutex<Option<Problem>>,
}

impl Attempts {
    /// Runs `attempt`, unless another one ends while this waits for its turn: then with that one's result, which `opened`
    /// has when it is good. Without that, a DataStore that does not answer would be tried by each of its tenants in turn.
    pub async fn share<T>(
        &self,
        opened: impl Fn() -> Option<T>,
        attempt: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        let before = self.ended.load(Ordering::Acquire);
        let mut failure = self.failure.lock().await;
        if let Some(opened) = opened() {
            return Ok(opened);
        }
        if self.ended.load(Ordering::Acquire) != before
            && let Some(problem) = &*failure
        {
            return Err(problem.clone());
        }
        let result = attempt.await;
        *failure = result.as_ref().err().cloned();
        self.ended.fetch_add(1, Ordering::Release);
        result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures::future::join_all;
    use kamaji_api::conditions::Reason;

    use super::*;

    #[tokio::test]
    async fn many_that_wait_cause_one_attempt_and_share_its_end() {
        for good in [true, false] {
            let (attempts, tried) = (Attempts::default(), AtomicUsize::new(0));
            let opened = parking_lot::Mutex::new(None);
            let one = || {
                attempts.share(|| *opened.lock(), async {
                    tried.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    if good {
                        *opened.lock() = Some(1);
                        Ok(1)
                    } else {
                        Err(Problem::on_change(Reason::DataStoreUnreachable, "no answer"))
                    }
                })
            };
            let results = join_all((0..64).map(|_| one())).await;
            assert_eq!(tried.load(Ordering::Relaxed), 1);
            assert!(results.iter().all(|result| result.is_ok() == good));
            // One that comes later tries again, if there is something to try.
            assert_eq!(one().await.is_ok(), good);
            assert_eq!(tried.load(Ordering::Relaxed), if good { 1 } else { 2 });
        }
    }
}
