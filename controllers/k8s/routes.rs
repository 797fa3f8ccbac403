//! Callbacks for changes of watched objects in memory.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

/// Callbacks that can be held: while a role lists its objects, none is called.
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
    /// Adds a callback.
    pub fn add(&self, route: Box<F>) {
        self.all.write().push(route);
    }

    /// Calls no callback until [`Self::release`].
    pub fn hold(&self) {
        self.held.store(true, Ordering::SeqCst);
    }

    /// Ends [`Self::hold`]; `true` if the callbacks were held.
    pub fn release(&self) -> bool {
        self.held.swap(false, Ordering::SeqCst)
    }

    /// Calls `call` with each callback and each of `changes`, unless callbacks are held.
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
