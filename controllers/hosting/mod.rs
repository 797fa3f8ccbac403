//! The hosting engine: TenantControlPlanes as pods, and the DataStores that keep their state.
//!
//! It meets the Cluster API providers only through TenantControlPlane objects (DESIGN 1) and imports none of them.

pub mod datastore;
