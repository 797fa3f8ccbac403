//! Approval of a node's first client certificate: [`csr`] decides about a request, [`pool`] about one of a MachinePool,
//! [`approve`] claims the node's name and answers, [`count`] counts the answers.

pub mod approve;
mod count;
pub mod csr;
pub mod pool;
