//! One Lease a role: who holds it acts. A leader that cannot renew it stops acting before another one may begin, and
//! one that ends gives it back after its last write.
//!
//! No clock of another process is believed: a lease has run out when we saw it unchanged for its whole duration. Every
//! write names the version that it was decided on, so of two that want the lease one gets a conflict.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::k8s::error::{ApiError, Class};

/// How long a lease is valid after its last renewal.
const VALID: i32 = 30;
/// How often it is renewed.
const EVERY: Duration = Duration::from_secs(10);
/// A leader whose last renewal is this old acts no more. The rest of [`VALID`] is for writes on their way.
const DEADLINE: Duration = Duration::from_secs(20);
/// Time between two tries of one renewal.
const RETRY: Duration = Duration::from_secs(2);
/// Time between two looks of who waits for the lease.
const LOOK: Duration = Duration::from_secs(5);
/// Longest time for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Who writes the Lease.
const FIELD_MANAGER: &str = "capi-kamaji";

/// One that wants a lease.
pub struct Candidate {
    api: Api<Lease>,
    namespace: String,
    name: String,
    identity: String,
}

/// A lease as a waiting process saw it, and since when.
struct Seen {
    spec: LeaseSpec,
    since: Instant,
}

/// The lease is ours.
pub struct Held {
    candidate: Candidate,
    lease: Lease,
    /// When the last renewal that succeeded was sent.
    renewed: Instant,
}

impl Candidate {
    /// `identity` wants the lease `name`; no two processes may have the same identity.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
        }
    }

    /// Waits for the lease; `None` when `stop` fires before.
    ///
    /// # Errors
    /// When the process may not read or write the lease, or its namespace does not exist.
    pub async fn acquire(self, stop: &CancellationToken) -> anyhow::Result<Option<Held>> {
        tracing::info!(
            lease = self.name,
            namespace = self.namespace,
            "waiting for the lease"
        );
        let mut seen = None;
        let mut failed = false;
        loop {
            let sent = Instant::now();
            match self.attempt(&mut seen).await {
                Ok(Some(lease)) => {
                    let held = Held {
                        candidate: self,
                        lease,
                        renewed: sent,
                    };
                    if stop.is_cancelled() {
                        held.release().await;
                        return Ok(None);
                    }
                    tracing::info!(
                        lease = held.candidate.name,
                        namespace = held.candidate.namespace,
                        identity = held.candidate.identity,
                        "leading"
                    );
                    return Ok(Some(held));
                }
                Ok(None) => failed = false,
                Err(error) if matches!(error.class(), Class::Denied | Class::Invalid) => {
                    return Err(anyhow::Error::new(error).context(
                        "no lease to wait for: is --lease-namespace right, and may this process create, get and patch \
                         the lease there?",
                    ));
                }
                Err(error) if failed => tracing::debug!(%error, "still no look at the lease"),
                Err(error) => {
                    failed = true;
                    tracing::warn!(%error, "no look at the lease, will retry");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(None),
                () = sleep(LOOK) => {}
            }
        }
    }

    /// One look, and one grab if it is free; `None` when somebody else has it.
    async fn attempt(&self, seen: &mut Option<Seen>) -> Result<Option<Lease>, ApiError> {
        let got = match self.read().await? {
            None => self.create().await,
            Some(lease) if self.may_take(&lease, seen, Instant::now()) => self.claim(&lease).await,
            Some(_) => return Ok(None),
        };
        match got {
            Ok(lease) => Ok(Some(lease)),
            // Somebody was faster.
            Err(error) if error.class() == Class::Conflict => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Nobody holds the lease, or we did before a restart, or its holder did not renew it while we watched.
    fn may_take(&self, lease: &Lease, seen: &mut Option<Seen>, now: Instant) -> bool {
        if holder(lease).is_none_or(|holder| holder == self.identity) {
            return true;
        }
        let spec = lease.spec.clone().unwrap_or_default();
        let seconds = spec.lease_duration_seconds.unwrap_or(VALID);
        let valid = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        if let Some(known) = seen.as_ref().filter(|known| known.spec == spec) {
            return now >= known.since + valid;
        }
        *seen = Some(Seen { spec, since: now });
        false
    }

    async fn read(&self) -> Result<Option<Lease>, ApiError> {
        self.answer("read", self.api.get_opt(&self.name)).await
    }

    async fn create(&self) -> Result<Lease, ApiError> {
        let now = MicroTime(Timestamp::now());
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: Some(VALID),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                ..LeaseSpec::default()
            }),
        };
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        self.answer("create", self.api.create(&params, &lease)).await
    }

    /// Makes or keeps us the holder of the lease as it was seen.
    async fn claim(&self, seen: &Lease) -> Result<Lease, ApiError> {
        self.patch("renew", seen, claim(seen, &self.identity, Timestamp::now()))
            .await
    }

    async fn patch(&self, action: &str, seen: &Lease, spec: Value) -> Result<Lease, ApiError> {
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(json!({
            "metadata": { "resourceVersion": seen.metadata.resource_version },
            "spec": spec,
        }));
        self.answer(action, self.api.patch(&self.name, &params, &patch))
            .await
    }

    async fn answer<T>(
        &self,
        action: &str,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ApiError> {
        let answer = timeout(PATIENCE, request).await.unwrap_or_else(|_| {
            let late = format!("no answer in {} s", PATIENCE.as_secs());
            Err(kube::Error::Service(late.into()))
        });
        answer
            .map_err(|error| ApiError::new(format!("{action} Lease {}/{}", self.namespace, self.name), error))
    }
}

impl Held {
    /// Does `work` while the lease is ours, and gives it back when the work has ended. When the lease is lost, the work
    /// is cancelled at its current await.
    ///
    /// # Errors
    /// When the lease is lost, or the error of the work.
    pub async fn during(mut self, work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
        tokio::select! {
            lost = self.lost() => Err(lost),
            ended = work => {
                self.release().await;
                ended
            }
        }
    }

    /// Renews the lease, and ends when it is lost.
    async fn lost(&mut self) -> anyhow::Error {
        loop {
            sleep_until(self.renewed + EVERY).await;
            let deadline = self.renewed + DEADLINE;
            match timeout_at(deadline, self.renew()).await {
                Ok(Ok(())) => {}
                Ok(Err(holder)) => {
                    return anyhow::anyhow!("the lease {} is {holder}'s now", self.candidate.name);
                }
                Err(_) => {
                    return anyhow::anyhow!(
                        "the lease {} could not be renewed for {} s: another replica may take it soon",
                        self.candidate.name,
                        DEADLINE.as_secs()
                    );
                }
            }
        }
    }

    /// Tries until the lease is renewed; otherwise returns who holds it.
    async fn renew(&mut self) -> Result<(), String> {
        loop {
            let sent = Instant::now();
            let error = match self.candidate.claim(&self.lease).await {
                Ok(lease) => {
                    (self.lease, self.renewed) = (lease, sent);
                    return Ok(());
                }
                // Somebody edited it, took it, or removed it.
                Err(error) if error.class() == Class::Conflict || error.is_not_found() => error,
                Err(error) => {
                    tracing::warn!(%error, "the lease was not renewed, will retry");
                    sleep(RETRY).await;
                    continue;
                }
            };
            tracing::debug!(%error, "somebody else wrote the lease");
            match self.candidate.read().await {
                Ok(Some(lease)) => match holder(&lease) {
                    Some(holder) if holder == self.candidate.identity => self.lease = lease,
                    other => return Err(other.unwrap_or("nobody").to_owned()),
                },
                Ok(None) => match self.candidate.create().await {
                    Ok(lease) => {
                        (self.lease, self.renewed) = (lease, sent);
                        return Ok(());
                    }
                    Err(error) => tracing::warn!(%error, "the lease was not made again, will retry"),
                },
                Err(error) => tracing::warn!(%error, "no look at the lease, will retry"),
            }
            sleep(RETRY).await;
        }
    }

    /// Gives the lease back, so that the next leader need not wait until it runs out.
    async fn release(self) {
        match timeout(PATIENCE, self.give_back()).await {
            Ok(Ok(())) => tracing::info!(lease = self.candidate.name, "lease given back"),
            Ok(Err(error)) => tracing::warn!(%error, "the lease was not given back and runs out by itself"),
            Err(_) => tracing::warn!("the lease was not given back in time and runs out by itself"),
        }
    }

    /// Reads first: a renewal may have been on its way when the work ended.
    async fn give_back(&self) -> Result<(), ApiError> {
        let ours = |lease: &Lease| holder(lease) == Some(self.candidate.identity.as_str());
        if let Some(lease) = self.candidate.read().await?.filter(ours) {
            let nobody = json!({
                "holderIdentity": null, "leaseDurationSeconds": null, "acquireTime": null, "renewTime": null,
            });
            self.candidate.patch("give back", &lease, nobody).await?;
        }
        Ok(())
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref()?;
    (!holder.is_empty()).then_some(holder)
}

/// The change of the spec that makes or keeps `identity` the holder.
fn claim(seen: &Lease, identity: &str, now: Timestamp) -> Value {
    let now = MicroTime(now);
    let mut spec = json!({ "holderIdentity": identity, "leaseDurationSeconds": VALID, "renewTime": now });
    if holder(seen) != Some(identity) {
        let transitions = seen.spec.as_ref().and_then(|spec| spec.lease_transitions);
        spec["leaseTransitions"] = json!(transitions.unwrap_or(0).saturating_add(1));
        spec["acquireTime"] = json!(now);
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeApi;

    const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/system/leases/role";

    fn candidate(api: &FakeApi, identity: &str) -> Candidate {
        Candidate::new(api.client(), "system", "role", identity)
    }

    async fn lead(api: &FakeApi, identity: &str) -> Held {
        let stop = CancellationToken::new();
        candidate(api, identity).acquire(&stop).await.unwrap().unwrap()
    }

    fn holds(api: &FakeApi) -> Option<String> {
        Some(api.get(PATH)?["spec"]["holderIdentity"].as_str()?.to_owned())
    }

    async fn forever() -> anyhow::Result<()> {
        std::future::pending().await
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_keeps_the_lease_by_one_request_each_ten_seconds() {
        let api = FakeApi::default();
        let held = lead(&api, "a").await;
        api.requests();
        let waiting = CancellationToken::new();
        let (second, stop) = (candidate(&api, "b"), waiting.clone());
        let second = tokio::spawn(async move { second.acquire(&stop).await.map(|held| held.is_some()) });
        let led = timeout(Duration::from_secs(304), held.during(forever())).await;
        assert!(led.is_err(), "nothing ends it: {led:?}");
        let (writes, looks): (Vec<_>, Vec<_>) = api
            .requests()
            .into_iter()
            .partition(|request| request.starts_with("PATCH"));
        assert_eq!((writes.len(), looks.len()), (30, 61));
        waiting.cancel();
        assert!(
            !second.await.unwrap().unwrap(),
            "stopped while it waited: it never led"
        );
        assert_eq!(holds(&api).as_deref(), Some("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_lease_is_given_back_after_the_last_write_and_the_next_one_leads_soon() {
        let api = FakeApi::default();
        let first = lead(&api, "a").await;
        let (seen, stop) = (api.clone(), CancellationToken::new());
        let stopped = stop.clone();
        let work = async move {
            stopped.cancelled().await;
            // The last writes, longer than the lease lives.
            sleep(Duration::from_secs(45)).await;
            assert_eq!(holds(&seen).as_deref(), Some("a"));
            Ok(())
        };
        stop.cancel();
        let second = async {
            lead(&api, "b").await;
            Instant::now()
        };
        let first = async {
            first.during(work).await.unwrap();
            Instant::now()
        };
        let (ended, led) = tokio::join!(first, second);
        assert!(led >= ended && led <= ended + LOOK, "{:?}", led - ended);
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_without_answers_ends_before_another_one_leads() {
        let api = FakeApi::default();
        let way = api.another_way();
        let first = lead(&way, "a").await;
        way.fall_silent();
        let first = async {
            let lost = first.during(forever()).await.unwrap_err();
            assert!(lost.to_string().contains("could not be renewed"), "{lost}");
            Instant::now()
        };
        let second = async {
            lead(&api, "b").await;
            Instant::now()
        };
        let (ended, led) = tokio::join!(first, second);
        assert!(led >= ended + Duration::from_secs(9), "{:?}", led - ended);
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_gets_errors_ends_before_its_lease_runs_out() {
        let api = FakeApi::default();
        let held = lead(&api, "a").await;
        let started = Instant::now();
        api.die_after(Some(0));
        held.during(forever()).await.unwrap_err();
        assert_eq!(started.elapsed().as_secs(), DEADLINE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn short_trouble_and_edits_of_others_do_not_cost_the_lease() {
        let api = FakeApi::default();
        let held = lead(&api, "a").await;
        let trouble = async {
            sleep(Duration::from_secs(9)).await;
            api.die_after(Some(0));
            sleep(Duration::from_secs(8)).await;
            api.die_after(None);
            sleep(Duration::from_secs(5)).await;
            api.edit(PATH, &json!({ "metadata": { "labels": { "of": "somebody" } } }));
            sleep(Duration::from_secs(20)).await;
            api.delete(PATH);
            sleep(Duration::from_secs(20)).await;
        };
        tokio::select! {
            ended = held.during(forever()) => panic!("{ended:?}"),
            () = trouble => {}
        }
        assert_eq!(holds(&api).as_deref(), Some("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_was_taken_ends_the_leader() {
        let api = FakeApi::default();
        let held = lead(&api, "a").await;
        api.edit(PATH, &json!({ "spec": { "holderIdentity": "b" } }));
        let lost = held.during(forever()).await.unwrap_err();
        assert_eq!(lost.to_string(), "the lease role is b's now");
        assert_eq!(holds(&api).as_deref(), Some("b"), "and is left to it");
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_leader_is_followed_when_its_lease_stood_still_whatever_its_clock_said() {
        let api = FakeApi::default();
        lead(&api, "a").await;
        api.edit(
            PATH,
            &json!({ "spec": { "renewTime": "2001-01-01T00:00:00.000000Z" } }),
        );
        let started = Instant::now();
        lead(&api, "b").await;
        let waited = started.elapsed().as_secs();
        assert!((30..=35).contains(&waited), "{waited} s");
        assert_eq!(api.get(PATH).unwrap()["spec"]["leaseTransitions"], 1);
        // The same process, started again, need not wait.
        let started = Instant::now();
        lead(&api, "b").await;
        assert!(started.elapsed().is_zero());
    }
}
