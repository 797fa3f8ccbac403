//! What a pass found and did, as far as it got. «Was not looked at» is a finding of its own: it neither proves that
//! something is in place nor that it is missing. Values alone.

use super::{endpoint::Choice, health::Cause};

/// What a pass found out about one thing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Finding {
    /// The pass did not get there.
    #[default]
    Unknown,
    /// It is as it should be.
    InPlace,
    /// It is not; why.
    Missing(Cause),
}

impl Finding {
    /// Why it is not in place, where that is known.
    pub fn cause(&self) -> Option<&Cause> {
        match self {
            Self::Missing(cause) => Some(cause),
            Self::Unknown | Self::InPlace => None,
        }
    }

    /// In place, or why not.
    pub fn holds(&self) -> Result<(), Doubt> {
        match self {
            Self::Unknown => Err(Doubt::Unknown),
            Self::InPlace => Ok(()),
            Self::Missing(cause) => Err(cause.clone().into()),
        }
    }
}

/// Why something cannot be said to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Nobody looked.
    Unknown,
    /// It does not.
    Because(Cause),
}

impl From<Cause> for Doubt {
    fn from(cause: Cause) -> Self {
        Self::Because(cause)
    }
}

/// What a pass found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Why nothing may be done.
    pub paused: Option<String>,
    /// The step of the deletion.
    pub deleting: Option<Cause>,
    /// Why nothing can be made yet.
    pub waiting: Option<Cause>,
    /// The spec can be handed on.
    pub spec: Finding,
    /// The TenantControlPlane carries it.
    pub tenant: Finding,
    /// Generation of the TenantControlPlane after it was applied.
    pub generation: Option<i64>,
    /// The endpoint in force.
    pub endpoint: Option<Choice>,
    /// `<cluster>-ca`.
    pub authority: Finding,
    /// `<cluster>-kubeconfig`.
    pub kubeconfig: Finding,
    /// The bootstrap provider's kubeconfig.
    pub bootstrap: Finding,
}
