//! The admin of a datastore of any kind: creates and deletes schemas and users of tenants.

use jiff::Timestamp;

use super::{Credentials, Deleted, Error, Health, TenantSchema, etcd::EtcdAdmin};

/// The kinds. An enum instead of a trait: a new kind does not compile until every function handles it.
#[derive(Clone, Debug)]
pub enum Admin {
    /// etcd.
    Etcd(Box<EtcdAdmin>),
    /// Schemas in memory, for convergence tests.
    #[cfg(test)]
    Memory(memory::Memory),
}

impl Admin {
    /// Creates a tenant's schema and user, or completes them.
    pub async fn ensure_tenant(&self, tenant: &TenantSchema, now: Timestamp) -> Result<(), Error> {
        match self {
            Self::Etcd(etcd) => etcd.ensure_tenant(tenant, now).await,
            #[cfg(test)]
            Self::Memory(memory) => memory.ensure_tenant(tenant),
        }
    }

    /// Deletes a tenant's schema, with its data, and user.
    pub async fn delete_tenant(&self, tenant: &TenantSchema) -> Result<Deleted, Error> {
        match self {
            Self::Etcd(etcd) => etcd.delete_tenant(tenant).await,
            #[cfg(test)]
            Self::Memory(memory) => memory.delete_tenant(tenant),
        }
    }

    /// What the datastore reported about itself when it was last asked.
    pub fn health(&self) -> Health {
        match self {
            Self::Etcd(etcd) => etcd.health(),
            #[cfg(test)]
            Self::Memory(memory) => memory.health(),
        }
    }

    /// Something happened that is a reason to ask the datastore about itself.
    pub fn has_news(&self) -> bool {
        match self {
            Self::Etcd(etcd) => etcd.has_news(),
            #[cfg(test)]
            Self::Memory(_) => false,
        }
    }

    /// What the datastore reported about itself may no longer be true.
    pub fn doubt(&self) {
        match self {
            Self::Etcd(etcd) => etcd.doubt(),
            #[cfg(test)]
            Self::Memory(_) => {}
        }
    }

    /// Asks the datastore about itself.
    pub async fn look(&self) -> Result<(), Error> {
        match self {
            Self::Etcd(etcd) => etcd.look().await,
            #[cfg(test)]
            Self::Memory(_) => Ok(()),
        }
    }

    /// The id of the datastore, if it has one.
    pub async fn identity(&self) -> Result<Option<String>, Error> {
        match self {
            Self::Etcd(etcd) => etcd.identity().await,
            #[cfg(test)]
            Self::Memory(memory) => memory.identity(),
        }
    }

    /// Gives the datastore an id, unless it has one. Returns the one that it has.
    pub async fn identify(&self, id: &str) -> Result<String, Error> {
        match self {
            Self::Etcd(etcd) => etcd.identify(id).await,
            #[cfg(test)]
            Self::Memory(memory) => memory.identify(id),
        }
    }

    /// Asks for the status with the credentials of a tenant, and records whether it was answered.
    pub async fn try_as(&self, tenant: &Credentials) -> Result<(), Error> {
        match self {
            Self::Etcd(etcd) => etcd.try_as(tenant).await,
            #[cfg(test)]
            Self::Memory(memory) => {
                memory.try_as_tenant();
                Ok(())
            }
        }
    }

    /// Whether users and roles are enforced.
    pub async fn auth_enabled(&self) -> Result<bool, Error> {
        match self {
            Self::Etcd(etcd) => etcd.auth_enabled().await,
            #[cfg(test)]
            Self::Memory(memory) => memory.auth_enabled(),
        }
    }

    /// Enables users and roles, for a managed datastore.
    pub async fn ensure_auth(&self) -> Result<(), Error> {
        match self {
            Self::Etcd(etcd) => etcd.ensure_auth().await,
            #[cfg(test)]
            Self::Memory(memory) => memory.ensure_auth(),
        }
    }
}

#[cfg(test)]
pub mod memory {
    //! Schemas in memory.

    use std::{collections::BTreeMap, sync::Arc};

    use parking_lot::Mutex;

    use super::super::{Deleted, Error, Health, Owner, Space, TenantSchema};

    /// Owners by schema. `down` makes every call fail.
    #[derive(Clone, Debug, Default)]
    pub struct Memory(Arc<Mutex<Store>>);

    #[derive(Debug, Default)]
    struct Store {
        schemas: BTreeMap<String, Owner>,
        id: Option<String>,
        unprotected: bool,
        calls: usize,
        down: bool,
        version: Option<String>,
        refuses_tenants: bool,
        answers_tenants: Option<bool>,
        space: Space,
    }

    impl Memory {
        /// Schemas that exist.
        pub fn schemas(&self) -> Vec<String> {
            self.0.lock().schemas.keys().cloned().collect()
        }

        /// Removes all schemas and the id, as if another datastore were at the same endpoints. Returns the schemas.
        pub fn empty(&self) -> BTreeMap<String, Owner> {
            let mut store = self.0.lock();
            store.id = None;
            std::mem::take(&mut store.schemas)
        }

        /// Its id; another one, if `id` is given.
        pub fn id(&self, id: Option<&str>) -> Option<String> {
            let mut store = self.0.lock();
            store.id = id.map(str::to_owned).or_else(|| store.id.take());
            store.id.clone()
        }

        /// Restores what [`Memory::empty`] removed.
        pub fn restore(&self, schemas: BTreeMap<String, Owner>) {
            self.0.lock().schemas = schemas;
        }

        /// Number of calls since the last call of this function.
        pub fn calls(&self) -> usize {
            std::mem::take(&mut self.0.lock().calls)
        }

        /// Makes every call fail, or none.
        pub fn down(&self, down: bool) {
            self.0.lock().down = down;
        }

        /// Changes its version.
        pub fn upgrade(&self, version: &str) {
            let mut store = self.0.lock();
            store.version = Some(version.to_owned());
            store.answers_tenants = None;
        }

        /// Turns authentication off, or on.
        pub fn unprotect(&self, unprotected: bool) {
            self.0.lock().unprotected = unprotected;
        }

        /// How full it is.
        pub fn fill(&self, space: Space) {
            self.0.lock().space = space;
        }

        /// Refuses its status to the certificates of tenants, or answers it.
        pub fn refuse_tenants(&self, refuse: bool) {
            let mut store = self.0.lock();
            store.refuses_tenants = refuse;
            store.answers_tenants = None;
        }

        pub(super) fn try_as_tenant(&self) {
            let mut store = self.0.lock();
            store.answers_tenants = Some(!store.refuses_tenants);
        }

        pub(super) fn health(&self) -> Health {
            let store = self.0.lock();
            let version = store.version.clone();
            Health {
                version: version.unwrap_or_else(|| "3.6.16".to_owned()),
                answers_tenants: store.answers_tenants,
                members: 1,
                silent: Vec::new(),
                space: store.space,
            }
        }

        pub(super) fn identity(&self) -> Result<Option<String>, Error> {
            Ok(self.enter()?.id.clone())
        }

        pub(super) fn identify(&self, id: &str) -> Result<String, Error> {
            let mut store = self.enter()?;
            if store.space.full && store.id.is_none() {
                return Err(Error::Full {
                    operation: "write the id of the datastore".to_owned(),
                });
            }
            Ok(store.id.get_or_insert_with(|| id.to_owned()).clone())
        }

        pub(super) fn auth_enabled(&self) -> Result<bool, Error> {
            Ok(!self.enter()?.unprotected)
        }

        pub(super) fn ensure_auth(&self) -> Result<(), Error> {
            self.enter()?.unprotected = false;
            Ok(())
        }

        fn enter(&self) -> Result<parking_lot::MutexGuard<'_, Store>, Error> {
            let mut store = self.0.lock();
            store.calls += 1;
            if store.down {
                return Err(Error::Unreachable {
                    endpoints: "memory".to_owned(),
                    seconds: 5,
                    detail: "down".to_owned(),
                });
            }
            Ok(store)
        }

        pub(super) fn ensure_tenant(&self, tenant: &TenantSchema) -> Result<(), Error> {
            let mut store = self.enter()?;
            if tenant.expected && !store.schemas.contains_key(&tenant.schema) {
                return Err(Error::DataMissing {
                    schema: tenant.schema.clone(),
                });
            }
            let owner = store
                .schemas
                .entry(tenant.schema.clone())
                .or_insert_with(|| tenant.owner.clone());
            if *owner == tenant.owner {
                return Ok(());
            }
            Err(Error::ForeignSchema {
                schema: tenant.schema.clone(),
                owner: Some(Box::new(owner.clone())),
            })
        }

        pub(super) fn delete_tenant(&self, tenant: &TenantSchema) -> Result<Deleted, Error> {
            let mut store = self.enter()?;
            match store.schemas.get(&tenant.schema) {
                Some(owner) if *owner != tenant.owner => Err(Error::ForeignSchema {
                    schema: tenant.schema.clone(),
                    owner: Some(Box::new(owner.clone())),
                }),
                found => {
                    let keys = u64::from(found.is_some());
                    store.schemas.remove(&tenant.schema);
                    Ok(Deleted { keys })
                }
            }
        }
    }
}
