//! Who owns a KamajiConfig: one Machine, or a MachinePool whose machines share the config. Pure.
//!
//! Every place that depends on "one config is one Machine, one Node, one token" matches on [`Owner`].

use std::{fmt, sync::Arc};

use crate::capi::{machine::Machine, machine_pool::MachinePool};

/// The owner. `M` is what the place knows of a Machine: the object, or its name; `P` is what it knows of a MachinePool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner<M, P = M> {
    /// One Machine, so one Node, one token and one node name.
    Machine(M),
    /// A MachinePool, so any number of Nodes that join with the same bootstrap data.
    Pool(P),
}

/// The owner as an object.
pub type OwnerObject = Owner<Arc<Machine>, Arc<MachinePool>>;

impl<M, P> Owner<M, P> {
    /// The same owner with something else known of it.
    pub fn map<'a, N, Q>(
        &'a self,
        machine: impl FnOnce(&'a M) -> N,
        pool: impl FnOnce(&'a P) -> Q,
    ) -> Owner<N, Q> {
        match self {
            Self::Machine(known) => Owner::Machine(machine(known)),
            Self::Pool(known) => Owner::Pool(pool(known)),
        }
    }
}

impl OwnerObject {
    /// Its name.
    pub fn name(&self) -> Owner<&str> {
        self.map(
            |machine| machine.metadata.name.as_deref().unwrap_or_default(),
            |pool| pool.metadata.name.as_deref().unwrap_or_default(),
        )
    }
}

impl fmt::Display for Owner<&str> {
    /// For people: `Machine m`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine(name) => write!(f, "Machine {name}"),
            Self::Pool(name) => write!(f, "MachinePool {name}"),
        }
    }
}
