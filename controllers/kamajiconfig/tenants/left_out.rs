//! Certificate requests that were left out for lack of room. A watch reports each request once, so that they are listed again
//! when there is room.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Tenant, requests::most_of_a_token};

/// Time between two lists.
const LIST_AGAIN: Duration = Duration::from_mins(1);

/// When requests are listed again.
#[derive(Default)]
pub(super) struct Listing {
    last: Option<Instant>,
    planned: bool,
    /// How often it was done.
    count: u64,
}

impl Tenant {
    /// Lists the requests again, at a bounded rate, if there is room for some that were left out: since others were answered,
    /// the pool has grown, or nobody had waited for their token yet. A watch reports each of them only once.
    pub fn read_left_out(self: &Arc<Self>) {
        let wait = {
            let mut view = self.view.lock();
            let has_room = |token: &str| {
                let waiter = view.ids.get(token).filter(|waiter| !waiter.ignored);
                waiter.is_some_and(|waiter| view.requests.has_room(token, most_of_a_token(waiter.sharers)))
            };
            if view.listing.planned || !view.requests.incomplete().any(has_room) {
                return;
            }
            view.listing.planned = true;
            let next = view.listing.last.map(|last| last + LIST_AGAIN);
            next.map_or(Duration::ZERO, |next| {
                next.saturating_duration_since(Instant::now())
            })
        };
        let me = Arc::downgrade(self);
        self.spawn(async move {
            tokio::time::sleep(wait).await;
            if let Some(tenant) = me.upgrade() {
                let count = {
                    let listing = &mut tenant.view.lock().listing;
                    listing.planned = false;
                    listing.last = Some(Instant::now());
                    listing.count += 1;
                    listing.count
                };
                tracing::debug!(cluster = %tenant.cluster, count, "lists certificate requests that were left out");
                tenant.watch_requests();
            }
        });
    }

    /// How often requests were listed again.
    #[cfg(test)]
    pub fn lists(&self) -> u64 {
        self.view.lock().listing.count
    }
}
