//! Who is called when something in memory changed, and when nobody is called yet.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

/// Callbacks. While they are held, none is called: what was listed before everything was is no change to anybody.
pub struct Routes<F: ?Sized> {
    all: RwLock<Vec<Box<F>>>,
    held: AtomicBool,
}

impl<F: ?Sized> Default for Routes<F> {
    fn default() -> Self {
        Self {
            all: RwLock::default(),
            held: AtomicBool::default(),
        }
    }
}

impl<F: ?Sized> Routes<F> {
    /// One more.
    pub fn add(&self, route: Box<F>) {
        self.all.write().push(route);
    }

    /// Calls none from now on.
    pub fn hold(&self) {
        self.held.store(true, Ordering::SeqCst);
    }

    /// Calls them again; `true` when they were held.
    pub fn release(&self) -> bool {
        self.held.swap(false, Ordering::SeqCst)
    }

    /// Calls `call` with each callback and each of `changes`, unless they are held.
    pub fn each<C>(&self, changes: impl IntoIterator<Item = C>, call: impl Fn(&F, &C)) {
        if self.held.load(Ordering::SeqCst) {
            return;
        }
        let all = self.all.read();
        for change in changes {
            all.iter().for_each(|route| call(route, &change));
        }
    }
}
