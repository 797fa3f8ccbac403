//! Approval of a node's first client certificate: [`csr`] decides about a request, [`approve`] claims the node's name and
//! answers.

pub mod approve;
pub mod csr;
