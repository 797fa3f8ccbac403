//! The templates and ClusterClasses in `templates/cluster`, as users meet them: by `clusterctl generate`, on an API server
//! with the definitions of the infrastructure providers and Cluster API's core provider, and as bootstrap data. No
//! infrastructure provider runs.

mod addons;
mod bootstrap;
mod changes;
mod classes;
mod files;
mod flavors;
mod generated;
mod objects;
mod place;
mod providers;
mod samples;
mod variables;
