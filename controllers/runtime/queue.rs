//! A keyed queue: each key at most once in the queue and never twice at work; times are absolute. Keys may be in lanes, of
//! which each has a bounded number of places at work: what is slow in one lane does not take the places of all. A key rests
//! for a moment after its work, so that the events which its own writes cause are one more run and not one each.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::k8s::key::RootKey;

/// How long a key is not worked on after its work.
const REST: Duration = Duration::from_millis(100);

/// The lane of a key, if it is in one.
type Lane = dyn Fn(&RootKey) -> Option<RootKey> + Send + Sync;

/// Due keys and keys at work.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    changed: Notify,
    lanes: Option<Lanes>,
}

struct Lanes {
    of: Box<Lane>,
    /// Places of each lane.
    places: usize,
}

#[derive(Default)]
struct State {
    due: BTreeSet<(Instant, RootKey)>,
    at: HashMap<RootKey, Instant>,
    /// Keys at work, with the lane whose place they take.
    working: HashMap<RootKey, Option<RootKey>>,
    /// Added while at work: due as soon as the work ends.
    again: HashSet<RootKey>,
    /// Ends of the rests of keys, and the same in order of time.
    rest: HashMap<RootKey, Instant>,
    rests: VecDeque<(Instant, RootKey)>,
    /// Lanes with keys at work.
    lanes: HashMap<RootKey, InLane>,
    /// Lanes of keys that wait, or waited, for a place: whoever was given a place takes it.
    lane_of: HashMap<RootKey, RootKey>,
}

/// What happens in one lane.
#[derive(Default)]
struct InLane {
    working: usize,
    /// Due keys that wait for a place. They are in `at` and not in `due`.
    waiting: BTreeSet<(Instant, RootKey)>,
}

impl State {
    /// Lets a key rest whose work ended.
    fn let_rest(&mut self, key: &RootKey, now: Instant) {
        self.forget_rests(now);
        self.rest.insert(key.clone(), now + REST);
        self.rests.push_back((now + REST, key.clone()));
    }

    fn forget_rests(&mut self, now: Instant) {
        while let Some((end, key)) = self.rests.pop_front_if(|(end, _)| *end <= now) {
            if self.rest.get(&key) == Some(&end) {
                self.rest.remove(&key);
            }
        }
    }

    /// Takes the first key that is due and may be worked on; else says when to look again.
    fn take(&mut self, now: Instant, lanes: Option<&Lanes>) -> Result<RootKey, Option<Instant>> {
        loop {
            let first = self.due.iter().find(|(_, key)| !self.working.contains_key(key));
            let (when, key) = first.cloned().ok_or(None)?;
            if when > now {
                return Err(Some(when));
            }
            self.due.remove(&(when, key.clone()));
            let lane = lanes.and_then(|lanes| self.lane_of.remove(&key).or_else(|| (lanes.of)(&key)));
            if let (Some(lanes), Some(lane)) = (lanes, &lane) {
                let in_lane = self.lanes.entry(lane.clone()).or_default();
                if in_lane.working >= lanes.places {
                    self.lane_of.insert(key.clone(), lane.clone());
                    in_lane.waiting.insert((when, key));
                    continue;
                }
                in_lane.working += 1;
            }
            self.at.remove(&key);
            self.working.insert(key.clone(), lane);
            return Ok(key);
        }
    }

    /// Gives the place of a key at work to the next of its lane.
    fn give_back(&mut self, key: &RootKey) {
        let Some(lane) = self.working.remove(key).flatten() else {
            return;
        };
        let Some(in_lane) = self.lanes.get_mut(&lane) else {
            return;
        };
        in_lane.working -= 1;
        self.due.extend(in_lane.waiting.pop_first());
        if in_lane.working == 0 && in_lane.waiting.is_empty() {
            self.lanes.remove(&lane);
        }
    }
}

impl Queue {
    /// A queue with lanes: of the keys that `of` puts into one lane, `places` are at work at a time.
    pub fn in_lanes(places: usize, of: impl Fn(&RootKey) -> Option<RootKey> + Send + Sync + 'static) -> Self {
        let of = Box::new(of);
        Self {
            lanes: Some(Lanes { of, places }),
            ..Self::default()
        }
    }

    /// Makes `key` due now, or when its rest ends.
    pub fn add(&self, key: RootKey) {
        self.add_at(key, Instant::now());
    }

    /// Makes `key` due after `delay`, or earlier if it is due earlier already.
    pub fn add_after(&self, key: RootKey, delay: Duration) {
        self.add_at(key, Instant::now() + delay);
    }

    fn add_at(&self, key: RootKey, when: Instant) {
        {
            let mut state = self.state.lock();
            let now = Instant::now();
            if state.working.contains_key(&key) && when <= now {
                state.again.insert(key);
                return;
            }
            state.forget_rests(now);
            let when = state.rest.get(&key).map_or(when, |end| when.max(*end));
            match state.at.get(&key).copied() {
                Some(known) if known <= when => return,
                Some(known) => {
                    state.due.remove(&(known, key.clone()));
                }
                None => {}
            }
            state.at.insert(key.clone(), when);
            state.due.insert((when, key));
        }
        self.changed.notify_one();
    }

    /// The next due key; it is at work until [`Queue::done`]. Cancel-safe.
    pub async fn next(&self) -> RootKey {
        loop {
            let taken = self.state.lock().take(Instant::now(), self.lanes.as_ref());
            match taken {
                Ok(key) => return key,
                Err(Some(when)) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(when) => {}
                        () = self.changed.notified() => {}
                    }
                }
                Err(None) => self.changed.notified().await,
            }
        }
    }

    /// Ends the work on `key`; `again` is when it wants to run next. An add that came meanwhile wins.
    pub fn done(&self, key: RootKey, again: Option<Duration>) {
        let added = {
            let mut state = self.state.lock();
            state.give_back(&key);
            state.let_rest(&key, Instant::now());
            state.again.remove(&key)
        };
        if added {
            self.add(key);
        } else if let Some(delay) = again {
            self.add_after(key, delay);
        }
        self.changed.notify_one();
    }

    /// For how long the longest waiting key has been due; `None` while none is. A key that waits for a place in its lane is
    /// not counted.
    pub fn oldest_due(&self) -> Option<Duration> {
        let state = self.state.lock();
        let (when, _) = state.due.first()?;
        Instant::now().checked_duration_since(*when)
    }

    /// Keys that wait, due or not.
    pub fn len(&self) -> usize {
        self.state.lock().at.len()
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> RootKey {
        RootKey::new("ns", name)
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_added_at_work_runs_again_and_never_twice_at_once() {
        let queue = Queue::default();
        queue.add(key("a"));
        let first = queue.next().await;
        queue.add(key("a"));
        let second = tokio::time::timeout(Duration::from_mins(1), queue.next()).await;
        assert!(second.is_err(), "the key is at work");
        queue.done(first, None);
        assert_eq!(queue.next().await, key("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn events_shortly_after_the_work_are_one_more_run_and_nothing_of_it_is_kept() {
        let queue = Queue::default();
        queue.add(key("a"));
        let first = queue.next().await;
        queue.add(key("a"));
        queue.done(first, None);
        let ended = Instant::now();
        for _ in 0..3 {
            tokio::time::advance(REST / 4).await;
            queue.add(key("a"));
        }
        let second = queue.next().await;
        assert_eq!(ended.elapsed(), REST);
        assert!(queue.is_empty());
        queue.done(second, None);

        tokio::time::advance(REST).await;
        queue.add(key("a"));
        let rested = Instant::now();
        queue.next().await;
        assert_eq!(rested.elapsed(), Duration::ZERO, "it has rested");
        let state = queue.state.lock();
        assert!(state.rest.is_empty() && state.rests.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_time_wins() {
        let queue = Queue::default();
        let start = Instant::now();
        queue.add_after(key("a"), Duration::from_secs(100));
        queue.add_after(key("a"), Duration::from_secs(10));
        queue.add_after(key("a"), Duration::from_secs(50));
        queue.next().await;
        assert_eq!(start.elapsed().as_secs(), 10);
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_at_work_does_not_hold_back_others() {
        let queue = Queue::default();
        queue.add(key("a"));
        let _working = queue.next().await;
        queue.add(key("b"));
        assert_eq!(queue.next().await, key("b"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_has_its_places_and_leaves_the_others_alone() {
        let lane = |key: &RootKey| key.name.starts_with('s').then(|| RootKey::new("ns", "slow"));
        let queue = Queue::in_lanes(2, lane);
        for name in ["s1", "s2", "s3", "s4", "t"] {
            queue.add(key(name));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        let taken = [queue.next().await, queue.next().await, queue.next().await];
        assert_eq!(taken, [key("s1"), key("s2"), key("t")]);
        let next = tokio::time::timeout(Duration::from_mins(1), queue.next());
        assert!(next.await.is_err(), "the lane is full");
        assert_eq!(queue.len(), 2);
        queue.add(key("s3"));
        queue.done(key("t"), None);
        queue.done(key("s2"), Some(Duration::from_secs(1)));
        assert_eq!(
            queue.next().await,
            key("s3"),
            "in the order in which they were due"
        );
        queue.done(key("s3"), None);
        queue.done(key("s1"), None);
        assert_eq!((queue.next().await, queue.next().await), (key("s4"), key("s2")));
        queue.done(key("s4"), None);
        queue.done(key("s2"), None);
        assert!(queue.is_empty() && queue.state.lock().lanes.is_empty());
        assert!(queue.state.lock().lane_of.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_age_of_the_oldest_due_key_is_that_of_its_wait() {
        let queue = Queue::default();
        queue.add_after(key("later"), Duration::from_mins(1));
        assert_eq!(queue.oldest_due(), None);
        queue.add(key("now"));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(queue.oldest_due(), Some(Duration::from_secs(5)));
    }
}
