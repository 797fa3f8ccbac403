//! Approval of a node's first client certificate: [`requests`] keeps the open requests, [`csr`] decides about one,
//! [`approve`] claims the node's name and answers.

pub mod approve;
pub mod csr;
pub mod requests;
