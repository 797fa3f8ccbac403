//! The API server of these tests: with the definitions of the infrastructure providers, Cluster API's core provider, and the
//! ClusterClasses in the namespace of the generated clusters.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use anyhow::{Context as _, Result};
use e2e::{
    apiserver::{Options, TestApiServer},
    clusterctl::{Clusterctl, NAMESPACE},
    core_provider::{self, CoreProvider},
    infra,
    objects::{self, documents, text, title},
    provider_definitions,
};
use futures::future::try_join_all;
use kube::Client;
use serde_json::Value;

use super::{
    files::{self, File},
    generated,
};

/// Time that Cluster API takes for what it does at once.
pub const SOON: Duration = Duration::from_mins(2);

/// Everything that runs.
pub struct Place {
    server: Arc<TestApiServer>,
    /// Runs as long as the tests do.
    _core: CoreProvider,
    has_providers: bool,
}

impl Place {
    /// The one that all tests here share; none where a tool is not built.
    pub async fn shared() -> Result<Option<Arc<Self>>> {
        static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        static SHARED: Mutex<Weak<Place>> = Mutex::new(Weak::new());
        let _turn = TURN.lock().await;
        let running = SHARED.lock().ok().and_then(|shared| shared.upgrade());
        if running.is_some() {
            return Ok(running);
        }
        let Some(server) = TestApiServer::shared(&Options::default()).await? else {
            return Ok(None);
        };
        let place = Arc::new(Self::start(server).await?);
        if let Ok(mut shared) = SHARED.lock() {
            *shared = Arc::downgrade(&place);
        }
        Ok(Some(place))
    }

    async fn start(server: Arc<TestApiServer>) -> Result<Self> {
        let named = files::all()?;
        let wanted = |provider: &str| named.iter().any(|file| file.infrastructure == provider);
        let providers = provider_definitions::of(wanted)?;
        let has_providers = providers.is_some();
        let mut definitions: Vec<_> = providers.into_iter().flatten().collect();
        definitions.extend(infra::api::definitions());
        let kubeadm = core_provider::module()?.join("bootstrap/kubeadm/config/crd/bases");
        for file in std::fs::read_dir(kubeadm)? {
            definitions.push(serde_yaml::from_str(&std::fs::read_to_string(file?.path())?)?);
        }
        try_join_all(definitions.iter().map(|definition| server.install(definition))).await?;
        let core = CoreProvider::start(&server).await?;
        let place = Self {
            server,
            _core: core,
            has_providers,
        };
        place.namespace(NAMESPACE).await?;
        Ok(place)
    }

    /// The API server.
    pub fn server(&self) -> &TestApiServer {
        &self.server
    }

    /// A client with all rights.
    pub fn client(&self) -> Result<Client> {
        self.server.client()
    }

    /// The files whose infrastructure has definitions here.
    pub fn files(&self) -> Result<Vec<File>> {
        let mut files = files::all()?;
        files.retain(|file| self.has_providers || file.infrastructure == "local");
        Ok(files)
    }

    /// Makes a namespace with all ClusterClasses, and waits until clusters of them are validated.
    pub async fn namespace(&self, name: &str) -> Result<()> {
        self.server.namespace(name).await?;
        let client = self.client()?;
        let mut classes = Vec::new();
        for file in self.files()?.iter().filter(|file| file.is_class()) {
            for object in documents(&file.text)? {
                let object = within(object, name);
                objects::apply(&client, &object, "test", false)
                    .await
                    .with_context(|| format!("{}: {}", file.name, title(&object)))?;
                classes.extend((text(&object, "/kind") == "ClusterClass").then_some(object));
            }
        }
        for class in classes {
            let api = objects::api(&client, &class).await?;
            core_provider::condition(&api, text(&class, "/metadata/name"), "VariablesReady", SOON).await?;
        }
        Ok(())
    }

    /// What clusterctl generates from a template with these variables, in a namespace.
    pub async fn generated(
        &self,
        clusterctl: &Clusterctl,
        file: &File,
        variables: &BTreeMap<String, String>,
        namespace: &str,
    ) -> Result<Vec<Value>> {
        let generated = generated::generated(clusterctl, file, variables).await;
        let generated = generated.with_context(|| file.name.clone())?;
        Ok(documents(&generated)?
            .into_iter()
            .map(|object| within(object, namespace))
            .collect())
    }
}

/// The same object in another namespace.
pub fn within(mut object: Value, namespace: &str) -> Value {
    object["metadata"]["namespace"] = namespace.into();
    object
}
