//! Who owns a KamajiConfig: one Machine, or a MachinePool whose machines share the config. Pure.
//!
//! A config of a MachinePool is refused before anything is done for it, so [`Pool`] has no value yet. The variant exists
//! for the compiler: every place that depends on "one config is one Machine, one Node, one token" matches on [`Owner`],
//! and the first field of [`Pool`] makes each of them an error until its arm handles a pool.

/// The owner. `M` is what the place knows of a Machine: the object, or its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner<M> {
    /// One Machine, so one Node, one token and one node name.
    Machine(M),
    /// A MachinePool, so any number of Nodes that join with the same bootstrap data.
    Pool(Pool),
}

/// A MachinePool. Not supported yet: there is no value of this type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {}

impl<M> Owner<M> {
    /// The same owner with something else known of a Machine.
    pub fn map<'a, N>(&'a self, machine: impl FnOnce(&'a M) -> N) -> Owner<N> {
        match self {
            Self::Machine(known) => Owner::Machine(machine(known)),
            Self::Pool(pool) => Owner::Pool(*pool),
        }
    }
}
