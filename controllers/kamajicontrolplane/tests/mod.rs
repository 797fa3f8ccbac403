//! Convergence: the controller against an API server in memory. The test plays the hosting engine and Cluster API.
//! Every reconcile runs unchanged; the watches are replaced by folding the changes of the API server.

mod bring_up;
mod deletion;
mod elsewhere;
mod handoff;
mod moves;
mod pause;
mod secrets;
mod world;
