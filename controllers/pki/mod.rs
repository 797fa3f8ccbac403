//! Certificates and kubeconfigs of a tenant (DESIGN 2.5; hosting specification 2.2, 2.5, 2.6, 7).
//!
//! Owns: which Secrets of key material a tenant has and what stands in them ([`spec`]), whether one of them has to
//! be issued again, answered from the annotations on it alone ([`policy`], [`annotations`]), reading CAs and
//! keys of any age ([`material`]), issuing ([`issue`]) and kubeconfig text ([`kubeconfig`]).
//!
//! Does not: talk to a cluster, read a clock (the time is an argument) or decide when a Secret is written. Entropy
//! is the crypto provider's.
//!
//! How the parts are put together, once per pass of a tenant:
//!
//! 1. [`spec::tenant`] says which Secrets there should be.
//! 2. [`policy::decide`] says `Keep`, `Inspect` or `Issue` for each, from metadata. In steady state all are `Keep`,
//!    and no byte of a Secret is fetched; `renew_at` is when to look again.
//! 3. Before anything is issued, the CAs it needs are read with [`material::Ca::read`].
//! 4. [`issue::secret`] returns data and annotations of one Secret; both are applied together, so a crash leaves
//!    either the old Secret or the new one.

pub mod annotations;
pub mod issue;
pub mod kubeconfig;
pub mod material;
pub mod policy;
pub mod spec;
