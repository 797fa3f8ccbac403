//! How much the inside of a workload cluster may cause for one config. Whoever holds a token, and the admin of the tenant,
//! creates requests, reports and Nodes without end, and each pass of a config may write to the management cluster. Pure:
//! the time is an argument.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

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

/// How many more reports may come at once for each further machine: all of them may fail at the same time.
const MORE_REPORTS: u32 = 2;

/// What a config was caused to do so far, and what its tokens did.
#[derive(Default)]
pub struct Conduct {
    passes: Bucket,
    /// What was done with each token, by its ID. A MachinePool has two, and who has one need not have the other.
    tokens: HashMap<String, Offences>,
    /// The pass that is due later because the burst is used up. It does for all wake-ups until then.
    planned: Option<Instant>,
    /// Machines that share a token, beside the first.
    sharers: u32,
}

/// What was done with one token.
#[derive(Default)]
struct Offences {
    reports: Bucket,
    denied: u32,
    too_many: u32,
}

impl Conduct {
    /// Something in the workload cluster wakes the config: after how long it may.
    pub fn wake(&mut self, now: Instant) -> Duration {
        if let Some(planned) = self.planned.filter(|planned| *planned > now) {
            return planned - now;
        }
        let burst = self.more(BURST, MORE_PASSES);
        let wait = self.passes.book(now, burst);
        self.planned = (!wait.is_zero()).then(|| now + wait);
        wait
    }

    /// A request of this token was denied for what it asks.
    pub fn note_denial(&mut self, token: &str) {
        let offences = self.tokens.entry(token.to_owned()).or_default();
        offences.denied = offences.denied.saturating_add(1);
    }

    /// This token reported something.
    pub fn note_report(&mut self, token: &str, now: Instant) {
        let burst = self.more(BURST, MORE_REPORTS);
        let offences = self.tokens.entry(token.to_owned()).or_default();
        if offences.reports.take(now, burst).is_none() {
            offences.too_many = offences.too_many.saturating_add(1);
        }
    }

    /// So many for one machine, and so many for each further one.
    const fn more(&self, one: u32, each: u32) -> u32 {
        one.saturating_add(each.saturating_mul(self.sharers))
    }

    /// So many machines share its token.
    pub fn share(&mut self, machines: usize) {
        self.sharers = u32::try_from(machines.saturating_sub(1)).unwrap_or(u32::MAX);
    }

    /// One of its tokens is abused.
    pub fn is_abused(&self) -> bool {
        self.tokens.keys().any(|token| self.is_abused_by(token))
    }

    /// This token is abused.
    pub fn is_abused_by(&self, token: &str) -> bool {
        let most = self.more(MOST_OFFENCES, MORE_OFFENCES);
        let offences = self.tokens.get(token);
        offences.is_some_and(|known| known.denied >= most || known.too_many >= most)
    }

    /// It has these tokens and no others any more.
    pub fn keep_tokens(&mut self, tokens: &[&str]) {
        self.tokens.retain(|token, _| tokens.contains(&token.as_str()));
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

    /// Takes one of at most `burst`, if one is left.
    fn take(&mut self, now: Instant, burst: u32) -> Option<()> {
        let before = self.full_at;
        let there = self.book(now, burst).is_zero();
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
            conduct.note_denial("one");
        }
        assert!(conduct.is_abused_by("one"));
        assert!(
            !conduct.is_abused_by("two"),
            "who has one need not have the other"
        );
        conduct.keep_tokens(&["two"]);
        assert!(!conduct.is_abused());
    }

    #[test]
    fn machines_that_fail_alike_in_each_attempt_are_no_abuse() {
        let (mut conduct, start) = (Conduct::default(), Instant::now());
        conduct.share(50);
        for attempt in 0..100 {
            for _ in 0..50 {
                conduct.note_report("one", start + MINUTE * 15 * attempt);
            }
        }
        assert!(!conduct.is_abused());
    }

    #[test]
    fn denials_of_one_token_after_the_other_do_not_add_up() {
        let mut conduct = Conduct::default();
        for rotation in 0..20 {
            let token = rotation.to_string();
            conduct.keep_tokens(&[&token]);
            for _ in 1..MOST_OFFENCES {
                conduct.note_denial(&token);
            }
            assert!(!conduct.is_abused());
        }
    }

    #[test]
    fn denials_and_a_flood_of_reports_are_abuse_and_a_report_now_and_then_is_not() {
        let start = Instant::now();
        let mut conduct = Conduct::default();
        for _ in 1..MOST_OFFENCES {
            conduct.note_denial("t");
        }
        assert!(!conduct.is_abused());
        conduct.note_denial("t");
        assert!(conduct.is_abused());

        let mut conduct = Conduct::default();
        for minute in 0..600 {
            conduct.note_report("t", start + MINUTE * minute);
        }
        assert!(!conduct.is_abused());
        for _ in 0..BURST + MOST_OFFENCES {
            conduct.note_report("t", start + MINUTE * 600);
        }
        assert!(conduct.is_abused());
    }
}
