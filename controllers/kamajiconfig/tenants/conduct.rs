//! How much the inside of a workload cluster may cause for one config. Whoever holds a token, and the admin of the tenant,
//! creates requests, reports and Nodes without end, and each pass of a config may write to the management cluster. Pure:
//! the time is an argument.

use std::time::{Duration, Instant};

/// Passes, and reports, that may come at once.
const BURST: u32 = 5;
/// How many more passes for each further machine that shares the token: its request, its Node, what that reports of its
/// kubelet, and its provider ID.
const MORE_PASSES: u32 = 4;
/// Afterwards one comes in this time.
const EVERY: Duration = Duration::from_secs(10);
/// Denied requests, and reports beyond their rate, after which a token is abused. A machine that joins has none.
const MOST_OFFENCES: u32 = 10;
/// How many more of each there may be for each further machine that shares the token: all of them may fail alike.
const MORE_OFFENCES: u32 = 2;

/// What a config was caused to do so far, and what its token did.
#[derive(Default)]
pub struct Conduct {
    passes: Bucket,
    reports: Bucket,
    /// The pass that is due later because the burst is used up. It does for all wake-ups until then.
    planned: Option<Instant>,
    denied: u32,
    too_many: u32,
    /// Machines that share the token, beside the first.
    sharers: u32,
}

impl Conduct {
    /// Something in the workload cluster wakes the config: after how long it may.
    pub fn wake(&mut self, now: Instant) -> Duration {
        if let Some(planned) = self.planned.filter(|planned| *planned > now) {
            return planned - now;
        }
        let burst = BURST.saturating_add(MORE_PASSES.saturating_mul(self.sharers));
        let wait = self.passes.book(now, burst);
        self.planned = (!wait.is_zero()).then(|| now + wait);
        wait
    }

    /// A request of its token was denied for what it asks.
    pub fn note_denial(&mut self) {
        self.denied = self.denied.saturating_add(1);
    }

    /// Its token reported something.
    pub fn note_report(&mut self, now: Instant) {
        if self.reports.take(now).is_none() {
            self.too_many = self.too_many.saturating_add(1);
        }
    }

    /// So many machines share its token.
    pub fn share(&mut self, machines: usize) {
        self.sharers = u32::try_from(machines.saturating_sub(1)).unwrap_or(u32::MAX);
    }

    /// Its token is abused.
    pub fn is_abused(&self) -> bool {
        let most = MOST_OFFENCES.saturating_add(MORE_OFFENCES.saturating_mul(self.sharers));
        self.denied >= most || self.too_many >= most
    }

    /// It has another token: what was done with the one before is no fault of who has this one.
    pub fn begin_again(&mut self) {
        (self.denied, self.too_many) = (0, 0);
    }
}

/// A token bucket.
#[derive(Default)]
struct Bucket {
    /// When it is full again.
    full_at: Option<Instant>,
}

impl Bucket {
    /// Takes one of at most `burst`, from what comes later if nothing is left: after how long it is there.
    fn book(&mut self, now: Instant, burst: u32) -> Duration {
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + EVERY;
        self.full_at = Some(full_at);
        (full_at - now).saturating_sub(EVERY.saturating_mul(burst))
    }

    /// Takes one, if one is left.
    fn take(&mut self, now: Instant) -> Option<()> {
        let before = self.full_at;
        let there = self.book(now, BURST).is_zero();
        if !there {
            self.full_at = before;
        }
        there.then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn wake_ups_are_a_burst_and_then_one_in_ten_seconds() {
        let (mut conduct, start) = (Conduct::default(), Instant::now());
        let waits: Vec<u64> = (0..1000).map(|_| conduct.wake(start).as_secs()).collect();
        assert_eq!(waits[..5], [0; 5]);
        assert!(
            waits[5..].iter().all(|wait| *wait == 10),
            "one pass does for all of them"
        );
        // A wake-up each millisecond: at most one pass in ten seconds.
        let mut passes = std::collections::BTreeSet::new();
        for milli in 0..60_000 {
            let now = start + Duration::from_millis(milli);
            passes.insert(now + conduct.wake(now));
        }
        assert!((5..=7).contains(&passes.len()), "{}", passes.len());
        let later = start + MINUTE * 5;
        assert_eq!(conduct.wake(later), Duration::ZERO, "it refills");
    }

    #[test]
    fn the_token_of_many_machines_may_do_more_and_the_next_one_begins_anew() {
        let mut conduct = Conduct::default();
        conduct.share(50);
        let start = Instant::now();
        let at_once = (0..300).filter(|_| conduct.wake(start).is_zero()).count();
        assert_eq!(at_once, 201, "each of 50 machines asks and becomes a Node");
        for _ in 0..MOST_OFFENCES + MORE_OFFENCES * 49 {
            assert!(!conduct.is_abused());
            conduct.note_denial();
        }
        assert!(conduct.is_abused());
        conduct.begin_again();
        assert!(!conduct.is_abused());
    }

    #[test]
    fn denials_and_a_flood_of_reports_are_abuse_and_a_report_now_and_then_is_not() {
        let start = Instant::now();
        let mut conduct = Conduct::default();
        for _ in 1..MOST_OFFENCES {
            conduct.note_denial();
        }
        assert!(!conduct.is_abused());
        conduct.note_denial();
        assert!(conduct.is_abused());

        let mut conduct = Conduct::default();
        for minute in 0..600 {
            conduct.note_report(start + MINUTE * minute);
        }
        assert!(!conduct.is_abused());
        for _ in 0..BURST + MOST_OFFENCES {
            conduct.note_report(start + MINUTE * 600);
        }
        assert!(conduct.is_abused());
    }
}
