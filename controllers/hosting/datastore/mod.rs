//! DataStores: where tenants keep their state (DESIGN 2.8, 7; hosting specification 1.5, 3).
//!
//! Owns the names of schemas and users ([`names`]) and the way into a datastore ([`driver`]). What a tenant needs of
//! its datastore is [`driver::etcd::EtcdAdmin::ensure_tenant`] and [`driver::etcd::EtcdAdmin::delete_tenant`]; what
//! it presents there is a certificate of [`crate::pki::spec::datastore`].

pub mod desired;
pub mod driver;
pub mod names;
mod quantity;
pub mod validate;
