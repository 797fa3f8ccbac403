//! DataStores in the lab: the conditions of one that cannot be used, and an etcd that the user runs. The managed
//! DataStore
//! serves all other suites.

use anyhow::{Context as _, Result, ensure};
use capi_kamaji::{
    hosting::datastore::parts,
    pki::{issue, spec::AltNames},
};
use e2e::{
    etcd::Etcd,
    lab::{
        access::{HOST, Lab},
        cleanup::{afterwards, gone},
        clusters::VERSION,
        conditions::{PATIENCE, contains_all, message},
        stores::{external, ready, store},
        tenants::Scope,
        until::until,
    },
};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, PersistentVolumeClaim, Pod},
        storage::v1::StorageClass,
    },
    jiff::Timestamp,
};
use kamaji_api::{datastore::DataStore, labels};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

/// Annotation by which a StorageClass is the default one.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

#[tokio::test]
async fn a_datastore_says_why_it_is_not_ready() -> Result<()> {
    let lab = Lab::open().await?;
    let stores = Api::<DataStore>::all(lab.management.clone());
    let other = issue::ca("e2e", &AltNames::default(), Timestamp::now())?;
    let claim = format!(
        "PersistentVolumeClaim {}/{} is not bound: its StorageClass \"no-such-class\" does not exist: create it, or \
         create a DataStore with another spec.managed.storage.className",
        labels::namespace::DATASTORES,
        parts::claim_name("e2e-classless"),
    );
    let endpoint = format!("{HOST}:1");
    let silent = format!(
        "no answer from {endpoint} within 5 s: {endpoint}: connection refused; check spec.endpoints of the DataStore, and \
         that pods of this cluster reach them"
    );
    let cases = [
        (
            "e2e-unreachable",
            external(std::slice::from_ref(&endpoint), &other, &other),
            "DataStoreUnreachable",
            silent,
        ),
        (
            "e2e-classless",
            json!({ "managed": { "replicas": 1, "storage": { "size": "1Gi", "className": "no-such-class" } } }),
            "StorageUnavailable",
            claim,
        ),
    ];
    let test = async {
        for (name, spec, _, _) in &cases {
            store(&stores, name, spec).await?;
        }
        for (name, _, reason, sentence) in &cases {
            contains_all(&message(&stores, name, reason).await?, &[sentence]);
        }
        Ok(())
    };
    afterwards(test, async || {
        for (name, ..) in &cases {
            gone(&stores, name, PATIENCE).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_managed_datastore_asks_for_a_default_storage_class_and_comes_up_with_one() -> Result<()> {
    let lab = Lab::open().await?;
    let stores = Api::<DataStore>::all(lab.management.clone());
    let classes = Api::<StorageClass>::all(lab.management.clone());
    let defaults: Vec<String> = classes
        .list(&ListParams::default())
        .await?
        .iter()
        .filter(|class| {
            class
                .annotations()
                .get(DEFAULT_CLASS)
                .is_some_and(|value| value == "true")
        })
        .map(ResourceExt::name_any)
        .collect();
    ensure!(!defaults.is_empty(), "the lab has no default StorageClass");
    let mark = async |value: &str| -> Result<()> {
        let patch = Patch::Merge(json!({ "metadata": { "annotations": { DEFAULT_CLASS: value } } }));
        for name in &defaults {
            classes.patch(name, &PatchParams::default(), &patch).await?;
        }
        Ok(())
    };
    let name = "e2e-no-default";
    let test = async {
        mark("false").await?;
        let spec = json!({ "managed": { "replicas": 1, "storage": { "size": "1Gi" } } });
        store(&stores, name, &spec).await?;
        let sentence = format!(
            "PersistentVolumeClaim {}/{} is not bound: the cluster has no default StorageClass: annotate one with \
             storageclass.kubernetes.io/is-default-class=true, or create a DataStore with another \
             spec.managed.storage.className",
            labels::namespace::DATASTORES,
            parts::claim_name(name),
        );
        contains_all(&message(&stores, name, "StorageUnavailable").await?, &[&sentence]);
        mark("true").await?;
        ready(&stores, name).await
    };
    afterwards(test, async || {
        mark("true").await?;
        gone(&stores, name, PATIENCE).await
    })
    .await
}

/// Enables authentication by certificate, as an etcd admin does.
fn enable_authentication(etcd: &Etcd) -> Result<()> {
    for command in [
        &["role", "add", "root"][..],
        &["user", "add", "root", "--no-password"],
        &["user", "grant-role", "root", "root"],
        &["auth", "enable"],
    ] {
        etcd.ctl("root", command)?;
    }
    Ok(())
}

/// A DataStore on etcds that the test runs.
struct Own {
    stores: Api<DataStore>,
    name: &'static str,
}

impl Own {
    /// Lets the DataStore lead to this etcd.
    async fn point_at(&self, etcd: &Etcd) -> Result<()> {
        let patch = Patch::Merge(json!({ "spec": spec(etcd)? }));
        self.stores
            .patch(self.name, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }
}

fn spec(etcd: &Etcd) -> Result<Value> {
    Ok(external(&[etcd.endpoint().to_owned()], etcd.ca(), &etcd.admin()?))
}

async fn etcd() -> Result<Etcd> {
    Etcd::start_at(HOST.into()).await?.context("etcd is not built")
}

#[tokio::test]
async fn an_etcd_of_ones_own_serves_once_it_checks_who_asks_and_as_long_as_it_holds_the_data() -> Result<()> {
    let lab = Lab::open().await?;
    let own = Own {
        stores: Api::all(lab.management.clone()),
        name: "e2e-own",
    };
    let (first, second) = (etcd().await?, etcd().await?);
    enable_authentication(&second)?;
    let test = async {
        store(&own.stores, own.name, &spec(&first)?).await?;
        let said = message(&own.stores, own.name, "DataStoreAuthenticationDisabled").await?;
        contains_all(
            &said,
            &[
                "tenants could read each other's data; create the user root with the role root and run `etcdctl auth enable`",
            ],
        );
        enable_authentication(&first)?;
        ready(&own.stores, own.name).await?;
        let before = first.listing()?;
        Scope::run(&lab, "own", async |scope| {
            swapped(&lab, scope, &own, &first, &second).await
        })
        .await?;
        assert_eq!(first.listing()?, before, "what is left of the tenant");
        Ok(())
    };
    afterwards(Box::pin(test), async || {
        gone(&own.stores, own.name, PATIENCE).await
    })
    .await
}

/// The id of its datastore, as the DataStore records it.
async fn id(stores: &Api<DataStore>, name: &str) -> Result<String> {
    let store = stores.get(name).await?;
    let noted = store.annotations().get(labels::ours::STORE_ID).cloned();
    noted.context("no id is recorded")
}

/// The tenant's DataStore leads to another, empty etcd for a while.
async fn swapped(lab: &Lab, scope: &Scope, own: &Own, first: &Etcd, second: &Etcd) -> Result<()> {
    let name = "own";
    scope
        .create(name, VERSION, json!({ "dataStore": own.name }))
        .await?;
    scope.reaches(name, "Ready", VERSION).await?;
    let maps = Api::<ConfigMap>::namespaced(scope.client(name).await?, "default");
    let map: ConfigMap = serde_json::from_value(json!({ "metadata": { "name": "written-before" } }))?;
    maps.create(&PostParams::default(), &map).await?;
    let deployments = Api::<Deployment>::namespaced(lab.management.clone(), &scope.name);
    let generation = deployments.get(name).await?.metadata.generation;
    let empty = second.listing()?;

    let away = async {
        own.point_at(second).await?;
        let id = id(&own.stores, own.name).await?;
        let reported = [
            "the datastore has no id, and the data is in the one with the id ".to_owned(),
            "set spec.endpoints to the one with the data, or restore its backup".to_owned(),
            format!("{}={id}", labels::ours::ACCEPT_DATA_LOSS),
        ];
        let reported = reported.each_ref().map(String::as_str);
        contains_all(&message(&own.stores, own.name, "DataLost").await?, &reported);
        contains_all(&message(&scope.tenants(), name, "DataLost").await?, &reported);
        assert_eq!(second.listing()?, empty, "what was made in the other etcd");
        assert_eq!(
            deployments.get(name).await?.metadata.generation,
            generation,
            "the pods stay"
        );
        maps.get("written-before").await?;
        Ok(())
    };
    // Else the tenant could not be deleted either.
    afterwards(away, async || own.point_at(first).await).await?;
    message(&scope.tenants(), name, "DataStoreReady").await?;
    scope.reaches(name, "Ready", VERSION).await?;
    maps.get("written-before").await?;

    // Its deletion waits for the tenant, and keeps nothing from it.
    own.stores.delete(own.name, &DeleteParams::default()).await?;
    let asleep = Patch::Merge(json!({ "spec": { "replicas": 0 } }));
    scope
        .tenants()
        .patch_scale(name, &PatchParams::default(), &asleep)
        .await?;
    scope.reaches(name, "Sleeping", VERSION).await?;
    let waiting = own.stores.get(own.name).await?;
    ensure!(waiting.metadata.deletion_timestamp.is_some(), "nothing waits");
    Ok(())
}

#[tokio::test]
async fn a_managed_datastore_whose_claim_is_deleted_serves_nobody_until_the_loss_is_accepted() -> Result<()> {
    let lab = Lab::open().await?;
    let stores = Api::<DataStore>::all(lab.management.clone());
    let name = "e2e-lost";
    let test = async {
        let spec = json!({ "managed": { "replicas": 1, "storage": { "size": "1Gi" } } });
        store(&stores, name, &spec).await?;
        ready(&stores, name).await?;
        Scope::run(&lab, "lost", async |scope| lost(&lab, scope, &stores, name).await).await
    };
    afterwards(Box::pin(test), async || gone(&stores, name, PATIENCE).await).await
}

/// The claim of the DataStore is deleted under a running tenant.
async fn lost(lab: &Lab, scope: &Scope, stores: &Api<DataStore>, store: &str) -> Result<()> {
    let name = "lost";
    scope.create(name, VERSION, json!({ "dataStore": store })).await?;
    scope.reaches(name, "Ready", VERSION).await?;
    let deployments = Api::<Deployment>::namespaced(lab.management.clone(), &scope.name);
    let generation = deployments.get(name).await?.metadata.generation;
    let id = id(stores, store).await?;

    lose_claim(lab, store).await?;
    let way_out = format!("{}={id}", labels::ours::ACCEPT_DATA_LOSS);
    let claim = format!(
        "PersistentVolumeClaim {}/{} is not the one that held the data",
        labels::namespace::DATASTORES,
        parts::claim_name(store)
    );
    for said in [
        message(stores, store, "DataLost").await?,
        message(&scope.tenants(), name, "DataLost").await?,
    ] {
        contains_all(&said, &[&claim, &way_out]);
    }

    let accept = json!({ "metadata": { "annotations": { labels::ours::ACCEPT_DATA_LOSS: id } } });
    stores
        .patch(store, &PatchParams::default(), &Patch::Merge(accept))
        .await?;
    // The kubelet waits longer and longer before it starts a container again that ended.
    delete_member(lab, store).await?;
    ready(stores, store).await?;
    let missing = message(&scope.tenants(), name, "DataMissing").await?;
    contains_all(
        &missing,
        &["status.storage.setup: the datastore holds no data of schema "],
    );
    let store = stores.get(store).await?;
    let next = store.annotations().get(labels::ours::STORE_ID);
    ensure!(
        next.is_some_and(|next| *next != id),
        "the lost id is recorded: {next:?}"
    );
    let left = deployments.get(name).await?.metadata.generation;
    ensure!(left == generation, "the pods of the tenant were replaced");

    // Its API server may have written into the empty etcd before that checked who asks; nobody deletes that unasked.
    let abandon = json!({ "metadata": { "annotations": { labels::ours::ABANDON_DATA: "true" } } });
    let tenants = scope.tenants();
    tenants
        .patch(name, &PatchParams::default(), &Patch::Merge(abandon))
        .await?;
    scope.delete(name).await
}

/// Deletes the claim of a managed DataStore, and its member until another claim is there: a claim in use stays, and a pod
/// that came too early waits for the old one.
async fn lose_claim(lab: &Lab, store: &str) -> Result<()> {
    let claims =
        Api::<PersistentVolumeClaim>::namespaced(lab.management.clone(), labels::namespace::DATASTORES);
    let claim = parts::claim_name(store);
    let before = claims.get(&claim).await?.uid();
    claims.delete(&claim, &DeleteParams::default()).await?;
    until("another claim", PATIENCE, async || {
        let found = claims.get_opt(&claim).await?.and_then(|claim| claim.uid());
        if found.is_some() && found != before {
            return Ok(Some(()));
        }
        delete_member(lab, store).await?;
        Ok(None)
    })
    .await
}

async fn delete_member(lab: &Lab, store: &str) -> Result<()> {
    let pods = Api::<Pod>::namespaced(lab.management.clone(), labels::namespace::DATASTORES);
    match pods.delete(&format!("{store}-0"), &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}
