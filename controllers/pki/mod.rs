//! Certificates and kubeconfigs of a tenant.
//!
//! Owns: which Secrets of key material a tenant has and what they contain ([`spec`]), whether one of them has to be
//! issued again, decided from its annotations alone ([`policy`], [`annotations`]), reading CAs and keys of any origin
//! ([`material`]), issuing ([`issue`]) and kubeconfig text ([`kubeconfig`]).
//!
//! Does not: talk to a cluster, read a clock (the time is an argument) or decide when a Secret is written. Entropy
//! is the crypto provider's.
//!
//! A reconcile of a tenant puts the parts together:
//!
//! 1. [`spec::tenant`] lists the Secrets that should exist.
//! 2. [`policy::decide`] returns `Keep`, `Inspect` or `Issue` for each, from metadata. In steady state all are `Keep`,
//!    and no byte of a Secret is fetched; `renew_at` is the time of the next renewal.
//! 3. Before anything is issued, the CAs it needs are read with [`material::Ca::read`].
//! 4. [`issue::secret`] returns data and annotations of one Secret; both are applied together, so a crash leaves
//!    either the old Secret or the new one.

pub mod annotations;
pub mod issue;
pub mod kubeconfig;
pub mod material;
pub mod policy;
pub mod spec;
