//! What was asked about infrastructure objects, in memory. A new process begins without it, and starts from the conditions.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use kamaji_api::controlplane::Endpoint;
use parking_lot::Mutex;

use crate::{capi::cluster::Reference, k8s::key::RootKey};

/// What an object was asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The object.
    pub reference: Reference,
    /// The endpoint that it is to have.
    pub endpoint: Endpoint,
}

/// What was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// What was asked.
    pub asked: Asked,
    /// How long it is not asked again; `None` where it has the endpoint, or takes none.
    pub wait: Option<Duration>,
    /// When it was asked.
    pub at: Instant,
}

/// The last answer about the infrastructure object of each control plane.
#[derive(Default)]
pub struct Memory(Mutex<HashMap<RootKey, Known>>);

impl Memory {
    /// The last answer.
    pub fn get(&self, control_plane: &RootKey) -> Option<Known> {
        self.0.lock().get(control_plane).cloned()
    }

    /// Remembers an answer.
    pub fn keep(&self, control_plane: &RootKey, asked: Asked, wait: Option<Duration>, at: Instant) {
        self.0
            .lock()
            .insert(control_plane.clone(), Known { asked, wait, at });
    }

    /// The control plane, or the object, is gone.
    pub fn forget(&self, control_plane: &RootKey) {
        self.0.lock().remove(control_plane);
    }
}
