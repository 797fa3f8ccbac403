//! A config that a MachinePool owns.

use super::*;

const CONFIG: &str = "p";

/// A world whose one config is `p`, of a MachinePool with this many replicas.
async fn world(replicas: i32, spec: Value) -> World {
    let mut world = World::new();
    world.api.delete(&config_path("m"));
    world.api.delete(&path::machine("m"));
    pool(&world, CONFIG, replicas, &spec);
    world.settle().await;
    world
}

/// A MachinePool and its config.
fn pool(world: &World, name: &str, replicas: i32, spec: &Value) {
    let labels = json!({capi::CLUSTER_NAME: "alpha"});
    world.api.edit(
        &path::machine_pool(name),
        &json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachinePool",
            "metadata": {"name": name, "namespace": "demo", "labels": labels},
            "spec": {
                "clusterName": "alpha", "replicas": replicas,
                "template": {"spec": {
                    "version": "v1.36.3",
                    "bootstrap": {"configRef": {"apiGroup": "bootstrap.cluster.x-k8s.io", "kind": "KamajiConfig", "name": name}},
                }},
            },
        }),
    );
    config(world, name, name, spec);
}

/// A config of a MachinePool.
fn config(world: &World, name: &str, pool: &str, spec: &Value) {
    let labels = json!({capi::CLUSTER_NAME: "alpha"});
    world.api.edit(
        &config_path(name),
        &json!({
            "apiVersion": "bootstrap.cluster.x-k8s.io/v1alpha1", "kind": "KamajiConfig",
            "metadata": {
                "name": name, "namespace": "demo", "labels": labels,
                "ownerReferences": [{
                    "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachinePool", "name": pool, "uid": format!("uid-{pool}"),
                    "controller": true,
                }],
            },
            "spec": spec,
        }),
    );
}

impl World {
    fn data_name(&self) -> String {
        self.status(CONFIG).data_secret_name.unwrap()
    }

    /// The token in the data of the pool.
    fn pool_token(&self) -> String {
        self.token(&self.data_name())
    }

    fn data(&self) -> String {
        let secret = self.api.get(&path::secret(&self.data_name())).unwrap();
        let secret: Secret = serde_json::from_value(secret).unwrap();
        String::from_utf8(secret.data.unwrap()["value"].0.clone()).unwrap()
    }

    /// Half of the life of the token is over.
    fn age(&self) {
        let soon = Timestamp::from_second(Timestamp::now().as_second() + 20 * 60).unwrap();
        self.api.edit(
            &config_path(CONFIG),
            &json!({"status": {"token": {"expiration": soon.to_string()}}}),
        );
    }

    fn nodes(&self) -> Vec<(String, bool)> {
        let nodes = self.status(CONFIG).nodes.into_iter();
        nodes.map(|node| (node.name, node.joined)).collect()
    }

    fn scale(&self, replicas: i32) {
        self.api.edit(
            &path::machine_pool(CONFIG),
            &json!({"spec": {"replicas": replicas}}),
        );
    }

    /// Type and reason of the answer to a request.
    fn said(&self, request: &str) -> String {
        let answer = self.answer(request);
        answer.map_or_else(
            || "waits".to_owned(),
            |(type_, reason)| format!("{type_} {reason}"),
        )
    }

    /// A kubelet asks for a certificate, and its machine becomes a Node if it gets it.
    async fn join(&mut self, name: &str) -> String {
        let request = format!("csr-{name}");
        self.ask(&request, name, &self.pool_token());
        self.settle().await;
        let answer = self.said(&request);
        if answer == APPROVED {
            self.node(name);
            self.settle().await;
        }
        answer
    }
}

fn id(token: &str) -> String {
    token.split('.').next().unwrap().to_owned()
}

const APPROVED: &str = "Approved KamajiTokenBound";

#[tokio::test(start_paused = true)]
async fn machines_of_a_pool_join_with_one_config_and_then_nothing_is_written() {
    let mut world = world(2, json!({})).await;
    assert_eq!(world.condition_of(CONFIG, "NodeJoined").2, "0 of 2 Nodes joined");
    for name in ["a", "b"] {
        assert_eq!(world.join(name).await, APPROVED);
    }
    assert_eq!(world.nodes(), [("a".to_owned(), true), ("b".to_owned(), true)]);
    let ids = json!({"spec": {"providerIDList": ["test://zone/a", "test://zone/b"]}});
    world.api.edit(&path::machine_pool(CONFIG), &ids);
    world.settle().await;
    assert_eq!(
        world.tenant.get("/api/v1/nodes/b").unwrap()["spec"]["providerID"],
        "test://zone/b"
    );
    for condition in &world.status(CONFIG).conditions {
        let healthy = if kamaji_api::conditions::is_negative(&condition.type_) {
            "False"
        } else {
            "True"
        };
        assert_eq!(condition.status, healthy, "{condition:?}");
    }
    assert_eq!(world.condition_of(CONFIG, "NodeJoined").2, "2 of 2 Nodes joined");
    assert_eq!(
        world.tokens(),
        [id(&world.pool_token())],
        "the token stays for other machines"
    );
    // A quiet pool costs no request, and a restart no write.
    world.api.requests();
    world.tenant.requests();
    world.wake(CONFIG).await;
    assert_eq!((world.api.requests(), world.tenant.requests()), (vec![], vec![]));
    world.restart().await;
    world.settle().await;
    world.wake(CONFIG).await;
    assert_eq!(world.writes(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn bootstrap_15_a_new_token_changes_only_its_bytes_and_the_former_one_still_joins() {
    let mut world = world(2, json!({})).await;
    let (name, data, first) = (world.data_name(), world.data(), world.pool_token());
    let before = world.status(CONFIG).token.unwrap();
    world.age();
    world.wake(CONFIG).await;
    let second = world.pool_token();
    assert_ne!(first, second);
    assert_eq!(world.data_name(), name, "a new token is no new intent");
    assert_eq!(world.data(), data.replace(&first, &second));
    let mut both = [id(&first), id(&second)];
    both.sort();
    assert_eq!(world.tokens(), both);
    let status = world.status(CONFIG);
    assert_eq!(status.former_token.unwrap().id, before.id);
    assert_eq!(status.token.unwrap().id, Some(id(&second)));

    // A machine that booted before.
    world.ask("csr-late", "late", &first);
    world.settle().await;
    assert_eq!(world.said("csr-late"), APPROVED);
    // While the former one lives, there is no third.
    world.age();
    world.wake(CONFIG).await;
    assert_eq!(world.pool_token(), second);
    // It ends: the cluster deletes it. Its machine may have asked in the last moment.
    world.ask("csr-last", "last", &first);
    let ended = Timestamp::from_second(Timestamp::now().as_second() - 1).unwrap();
    let ended = json!({"status": {"formerToken": {"expiration": ended.to_string()}}});
    world.api.edit(&config_path(CONFIG), &ended);
    world.tenant.delete(&token_path(&id(&first)));
    world.settle().await;
    assert_eq!(world.said("csr-last"), APPROVED);
    world.wake(CONFIG).await;
    let third = world.pool_token();
    assert_ne!(third, second);
    let mut both = [id(&second), id(&third)];
    both.sort();
    assert_eq!(world.tokens(), both);
}

#[tokio::test]
async fn contract_47_a_token_that_was_removed_is_replaced_at_once() {
    let mut world = world(1, json!({})).await;
    let (name, first) = (world.data_name(), world.pool_token());
    world.tenant.delete(&token_path(&id(&first)));
    world.settle().await;
    let second = world.pool_token();
    assert_ne!(first, second);
    assert_eq!((world.data_name(), world.tokens()), (name, vec![id(&second)]));
}

#[tokio::test]
async fn contract_48_a_lost_status_comes_back_from_the_secret_and_no_token_is_made() {
    let mut world = world(1, json!({})).await;
    let (name, data, token) = (world.data_name(), world.data(), world.pool_token());
    let end = world.status(CONFIG).token.unwrap().expiration;
    world.api.edit(&config_path(CONFIG), &json!({"status": null}));
    world.restart().await;
    world.writes();
    world.wake(CONFIG).await;
    assert_eq!(
        (world.data_name(), world.data(), world.pool_token()),
        (name, data, token)
    );
    assert_eq!(world.status(CONFIG).token.unwrap().expiration, end);
    assert_eq!(world.condition_of(CONFIG, "Ready").0, "True");
    let writes = world.writes();
    assert!(
        !writes.iter().any(|write| write.starts_with("POST")),
        "{writes:?}"
    );
}

#[tokio::test]
async fn bootstrap_10_another_intent_is_another_secret_with_the_same_token() {
    let mut world = world(1, json!({})).await;
    let (first, token, data) = (world.data_name(), world.pool_token(), world.data());
    // What concerns no machine.
    for spec in [
        json!({"csrApproval": {"nodeNamePattern": "p-.*"}}),
        json!({"auth": {"token": {"poolTTL": "50m"}}}),
    ] {
        world.api.edit(
            &config_path(CONFIG),
            &json!({"spec": spec, "metadata": {"generation": 2}}),
        );
        world.settle().await;
        assert_eq!(world.data_name(), first);
    }
    world.api.edit(
        &path::machine_pool(CONFIG),
        &json!({"spec": {"template": {"spec": {"version": "v1.36.4"}}}}),
    );
    world.settle().await;
    let second = world.data_name();
    assert_ne!(first, second);
    assert_eq!(world.pool_token(), token);
    assert_ne!(world.data(), data);
    assert!(
        world.api.get(&path::secret(&first)).is_some(),
        "instances may be made from it still"
    );
    // Back again: the first Secret, with the token of now.
    world.age();
    world.wake(CONFIG).await;
    let newer = world.pool_token();
    assert_ne!(newer, token);
    world.api.edit(
        &path::machine_pool(CONFIG),
        &json!({"spec": {"template": {"spec": {"version": "v1.36.3"}}}}),
    );
    world.settle().await;
    assert_eq!((world.data_name(), world.pool_token()), (first, newer));
}

#[tokio::test]
async fn a_fixed_name_stays_and_its_content_follows_the_intent() {
    let mut world = world(1, json!({"poolSecretName": "Fixed"})).await;
    assert_eq!(world.data_name(), CONFIG);
    let before = world.data();
    world.api.edit(
        &path::machine_pool(CONFIG),
        &json!({"spec": {"template": {"spec": {"version": "v1.36.4"}}}}),
    );
    world.settle().await;
    assert_eq!(world.data_name(), CONFIG);
    assert_ne!(world.data(), before);
}

#[tokio::test]
async fn what_others_do_to_the_secret_is_undone_with_the_same_token() {
    let mut world = world(1, json!({})).await;
    let (name, data, token) = (world.data_name(), world.data(), world.pool_token());
    world.api.edit(
        &path::secret(&name),
        &json!({"data": {"value": ByteString(b"theirs".to_vec())}}),
    );
    world.settle().await;
    assert_eq!((world.data(), world.pool_token()), (data.clone(), token.clone()));
    world.api.delete(&path::secret(&name));
    world.settle().await;
    assert_eq!((world.data(), world.pool_token()), (data, token));
}

#[tokio::test]
async fn bootstrap_03_a_crash_after_any_write_leaves_one_secret_and_at_most_two_tokens() {
    for in_tenant in [false, true] {
        for writes in 0..14 {
            let mut world = World::new();
            world.api.delete(&config_path("m"));
            world.api.delete(&path::machine("m"));
            pool(&world, CONFIG, 1, &json!({}));
            let side = if in_tenant { &world.tenant } else { &world.api }.clone();
            side.die_after(Some(writes));
            for _ in 0..4 {
                world.round().await;
            }
            if world
                .try_config(CONFIG)
                .is_some_and(|config| config.status.is_some_and(|status| status.token.is_some()))
            {
                world.age();
            }
            for _ in 0..4 {
                world.context.queue.add(path::key(CONFIG));
                world.round().await;
            }
            side.die_after(None);
            world.restart().await;
            world.wake(CONFIG).await;
            let case = format!("in the tenant: {in_tenant}, writes: {writes}");
            let tokens = world.tokens();
            assert!(tokens.len() <= 2, "{case}: {tokens:?}");
            assert!(tokens.contains(&id(&world.pool_token())), "{case}");
            let status = world.status(CONFIG);
            let known: Vec<_> = status
                .token
                .iter()
                .chain(&status.former_token)
                .filter_map(|token| token.id.clone())
                .collect();
            assert!(
                tokens.iter().all(|id| known.contains(id)),
                "{case}: {tokens:?}, {known:?}"
            );
            assert_eq!(world.condition_of(CONFIG, "Ready").0, "True", "{case}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_has_no_more_nodes_than_its_size_and_a_quarter() {
    let mut world = world(1, json!({})).await;
    assert_eq!(world.join("a").await, APPROVED);
    assert_eq!(world.join("b").await, APPROVED, "one more, for a rolling update");
    assert_eq!(world.join("c").await, "waits", "it waits");
    assert_eq!(
        world.condition_of(CONFIG, "NodeJoined").0,
        "True",
        "all that are wanted joined"
    );
    world.scale(3);
    world.settle().await;
    assert_eq!(world.said("csr-c"), APPROVED);
    world.node("c");
    world.settle().await;
    assert_eq!(world.condition_of(CONFIG, "NodeJoined").2, "3 of 3 Nodes joined");
    // Cluster API deletes the Nodes of instances that are gone; the next has another name.
    world.scale(1);
    for node in ["b", "c"] {
        world.tenant.delete(&format!("/api/v1/nodes/{node}"));
    }
    world.settle().await;
    assert_eq!(world.nodes(), [("a".to_owned(), true)]);
    world.tenant.delete("/api/v1/nodes/a");
    world.settle().await;
    assert_eq!(world.join("a2").await, APPROVED);
    assert_eq!(world.nodes(), [("a2".to_owned(), true)]);
}

#[tokio::test(start_paused = true)]
async fn a_pool_without_replicas_has_data_and_takes_no_node_until_it_grows() {
    let mut world = world(0, json!({})).await;
    assert_eq!(world.condition_of(CONFIG, "Ready").0, "True");
    assert_eq!(world.join("a").await, "waits");
    assert_eq!(world.nodes(), []);
    world.scale(1);
    world.settle().await;
    assert_eq!(world.said("csr-a"), APPROVED);
}

#[tokio::test(start_paused = true)]
async fn a_name_outside_the_pattern_or_in_use_is_refused_and_the_pattern_can_be_corrected() {
    let mut world = world(2, json!({"csrApproval": {"nodeNamePattern": "pool-[0-9]+"}})).await;
    world.node("pool-1");
    world.settle().await;
    assert_eq!(world.join("stranger").await, "Denied NameMismatch");
    let (status, reason, message) = world.condition_of(CONFIG, "NodeJoined");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "NameMismatch"));
    assert!(
        message.starts_with("0 of 2 Nodes joined; a certificate request with the token was denied"),
        "{message}"
    );
    assert!(message.contains("spec.csrApproval.nodeNamePattern"), "{message}");
    assert_eq!(world.join("pool-1").await, "waits", "the Node may be deleted");
    assert_eq!(world.join("pool-2").await, APPROVED);
    let spec = json!({"spec": {"csrApproval": {"nodeNamePattern": "(pool|edge)-[0-9]+"}}, "metadata": {"generation": 2}});
    world.api.edit(&config_path(CONFIG), &spec);
    world.settle().await;
    assert_eq!(world.join("edge-1").await, APPROVED);
    assert_eq!(world.condition_of(CONFIG, "NodeJoined").2, "2 of 2 Nodes joined");
}

#[tokio::test(start_paused = true)]
async fn of_two_pools_with_one_pattern_each_name_goes_to_one() {
    let pattern = json!({"csrApproval": {"nodeNamePattern": "pool-[0-9]+"}});
    let mut world = world(2, pattern.clone()).await;
    pool(&world, "q", 2, &pattern);
    world.settle().await;
    let other = world.token(&world.status("q").data_secret_name.unwrap());
    world.ask("csr-one", "pool-1", &world.pool_token());
    world.settle().await;
    world.ask("csr-other", "pool-1", &other);
    world.ask("csr-next", "pool-2", &other);
    world.settle().await;
    assert_eq!(world.said("csr-one"), APPROVED);
    assert_eq!(world.said("csr-other"), "Denied NameClaimed");
    assert_eq!(world.said("csr-next"), APPROVED);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_names_are_as_many_nodes_as_the_pool_may_have_and_a_burst_is_no_abuse() {
    let mut world = world(1, json!({})).await;
    let token = world.pool_token();
    let request = |number: u32| format!("csr-{number:03}");
    for number in 0..100 {
        world.ask(&request(number), &format!("n-{number:03}"), &token);
    }
    world.settle().await;
    let approvals = |world: &World| {
        let said = (0..100).map(|number| world.said(&request(number)));
        said.filter(|said| said == APPROVED).count()
    };
    assert_eq!(approvals(&world), 2);
    assert_eq!(world.nodes().len(), 2);
    assert_eq!(
        world.pool_token(),
        token,
        "more machines than are known may be honest"
    );
    // The size of the pool becomes known: all that waited are approved.
    world.scale(80);
    world.settle().await;
    assert_eq!(approvals(&world), 100);
}

#[tokio::test(start_paused = true)]
async fn who_abuses_the_former_token_ends_that_one_alone_and_who_abuses_the_current_one_has_it_replaced() {
    let mut world = world(1, json!({"csrApproval": {"nodeNamePattern": "n-[0-9]+"}})).await;
    let former = world.pool_token();
    world.age();
    world.wake(CONFIG).await;
    let current = world.pool_token();
    let abuse = |world: &World, kind: &str, token: &str| {
        for number in 0..30 {
            world.ask(&format!("{kind}-{number:02}"), "stranger", token);
        }
    };
    abuse(&world, "former", &former);
    world.settle().await;
    world.wake(CONFIG).await;
    assert_eq!(world.tokens(), [id(&current)]);
    assert_eq!(world.pool_token(), current);
    assert_eq!(world.join("n-1").await, APPROVED);

    // Also while the spec keeps the data from being rendered.
    let spec = json!({"spec": {"kubelet": {"path": "relative"}}, "metadata": {"generation": 2}});
    world.api.edit(&config_path(CONFIG), &spec);
    abuse(&world, "current", &current);
    world.settle().await;
    world.wake(CONFIG).await;
    let next = world.pool_token();
    assert_ne!(next, current);
    assert_eq!(world.tokens(), [id(&next)]);
    assert_eq!(world.condition_of(CONFIG, "SpecValid").0, "False");
    assert_eq!(world.join("n-2").await, APPROVED);
}

#[tokio::test(start_paused = true)]
async fn machines_that_wait_cost_no_request_each() {
    let mut world = world(1, json!({})).await;
    let token = world.pool_token();
    for name in ["a", "b"] {
        assert_eq!(world.join(name).await, APPROVED);
    }
    for number in 0..40 {
        world.ask(&format!("csr-{number:02}"), &format!("n-{number:02}"), &token);
    }
    world.ask("csr-again", "a", &token);
    world.settle().await;
    world.tenant.requests();
    world.wake(CONFIG).await;
    assert_eq!(
        world.tenant.requests(),
        [format!("GET {}", token_path(&id(&token)))],
        "whether the token is still there"
    );
    assert_eq!(world.said("csr-39"), "waits");
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_all_machines_with_the_former_token_join() {
    const MANY: i32 = 40;
    let mut world = world(MANY, json!({})).await;
    let former = world.pool_token();
    world.age();
    world.wake(CONFIG).await;
    for number in 0..MANY {
        world.ask(&format!("csr-{number}"), &format!("n-{number}"), &former);
    }
    // The requests are listed before the config is reconciled, so that nobody knows how many machines have the token.
    world.restart().await;
    world.settle().await;
    for number in 0..MANY {
        assert_eq!(world.said(&format!("csr-{number}")), APPROVED, "{number}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_a_crash_left_is_deleted_though_tokens_are_not_listed_yet() {
    let mut world = world(1, json!({})).await;
    let first = world.pool_token();
    let mut left = world.tenant.get(&token_path(&id(&first))).unwrap();
    left["metadata"]["name"] = json!("bootstrap-token-0rphan");
    let mut others = left.clone();
    others["metadata"]["name"] = json!("bootstrap-token-0thers");
    others["metadata"]["labels"][ours::OWNER_UID] = json!("somebody");
    world.tenant.edit(&token_path("0rphan"), &left);
    world.tenant.edit(&token_path("0thers"), &others);
    world.unlisted = Some("Secret");
    world.restart().await;
    world.age();
    world.wake(CONFIG).await;
    let second = world.pool_token();
    let mut rest = ["0thers".to_owned(), id(&first), id(&second)];
    rest.sort();
    assert_eq!(world.tokens(), rest);
}

#[tokio::test(start_paused = true)]
async fn contract_48_after_a_move_machines_with_the_former_token_join() {
    let mut world = world(2, json!({})).await;
    let (first, ends) = (world.pool_token(), world.status(CONFIG).token.unwrap());
    world.age();
    world.wake(CONFIG).await;
    let second = world.pool_token();
    world.api.edit(&config_path(CONFIG), &json!({"status": null}));
    world.restart().await;
    world.wake(CONFIG).await;
    let status = world.status(CONFIG);
    assert_eq!(status.token.unwrap().id, Some(id(&second)));
    let former = status.former_token.unwrap();
    assert_eq!(
        (former.id, former.expiration),
        (Some(id(&first)), ends.expiration)
    );
    for (name, token) in [("a", &first), ("b", &second)] {
        world.ask(&format!("csr-{name}"), name, token);
        world.settle().await;
        assert_eq!(world.said(&format!("csr-{name}")), APPROVED, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_provider_ids_end_with_the_names_of_nodes_a_name_is_one_of_theirs() {
    let mut world = world(3, json!({})).await;
    assert_eq!(world.join("a").await, APPROVED);
    let ids = |names: &[&str]| {
        let ids: Vec<_> = names.iter().map(|name| format!("test://zone/{name}")).collect();
        json!({"spec": {"providerIDList": ids}})
    };
    world.api.edit(&path::machine_pool(CONFIG), &ids(&["a"]));
    world.settle().await;
    assert_eq!(world.join("thief").await, "waits");
    assert_eq!(world.join("b").await, "waits", "its ID may be reported later");
    world.api.edit(&path::machine_pool(CONFIG), &ids(&["a", "b"]));
    world.settle().await;
    assert_eq!(world.said("csr-b"), APPROVED);
    assert_eq!(world.said("csr-thief"), "waits");
    let (_, reason, message) = world.condition_of(CONFIG, "NodeJoined");
    assert_eq!(reason, "NameMismatch");
    assert!(message.contains("the requested name thief"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn configs_of_one_pool_have_one_budget_and_the_next_takes_over_the_nodes() {
    let mut world = world(2, json!({})).await;
    let former = world.pool_token();
    for name in ["a", "b"] {
        assert_eq!(world.join(name).await, APPROVED);
    }
    config(&world, "q", CONFIG, &json!({}));
    let second = json!({"spec": {"template": {"spec": {"bootstrap": {"configRef": {"name": "q"}}}}}});
    world.api.edit(&path::machine_pool(CONFIG), &second);
    world.settle().await;
    let next = world.token(&world.status("q").data_secret_name.unwrap());
    world.ask("csr-c", "c", &next);
    world.settle().await;
    assert_eq!(world.said("csr-c"), APPROVED, "one more than two");
    world.ask("csr-d", "d", &former);
    world.ask("csr-e", "e", &next);
    world.settle().await;
    assert_eq!(
        (world.said("csr-d"), world.said("csr-e")),
        ("waits".to_owned(), "waits".to_owned())
    );
    // The Nodes of both stay theirs until the tokens of the first have ended.
    world.node("c");
    let found = ["a", "b", "c"].map(|name| json!({"name": name}));
    world.api.edit(
        &path::machine_pool(CONFIG),
        &json!({"status": {"nodeRefs": found}}),
    );
    world.settle().await;
    let names = |world: &World, config: &str| {
        let nodes = world.status(config).nodes.into_iter();
        nodes.map(|node| node.name).collect::<Vec<_>>()
    };
    assert_eq!(
        (names(&world, CONFIG), names(&world, "q")),
        (vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned()])
    );
    let ended = Timestamp::from_second(Timestamp::now().as_second() - 700).unwrap();
    let ended = json!({"status": {"token": {"expiration": ended.to_string()}}});
    world.api.edit(&config_path(CONFIG), &ended);
    world.wake(CONFIG).await;
    assert_eq!(names(&world, CONFIG), Vec::<String>::new());
    assert_eq!(names(&world, "q"), ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_names_a_config_of_another_kind_gets_no_new_tokens() {
    let mut world = world(1, json!({})).await;
    let token = world.pool_token();
    for group in ["bootstrap.cluster.x-k8s.io", "example.com"] {
        let kind = if group == "example.com" {
            "KamajiConfig"
        } else {
            "KubeadmConfig"
        };
        let other = json!({"apiGroup": group, "kind": kind, "name": CONFIG});
        let named = json!({"spec": {"template": {"spec": {"bootstrap": {"configRef": other}}}}});
        world.api.edit(&path::machine_pool(CONFIG), &named);
        world.age();
        world.settle().await;
        world.wake(CONFIG).await;
        assert_eq!(world.pool_token(), token, "{kind} of {group}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_name_of_a_machine_that_has_not_asked_yet_is_not_for_a_pool() {
    let mut world = world(2, json!({})).await;
    world.machine("m");
    world.settle().await;
    assert_eq!(world.join("m").await, "Denied NameClaimed");
    let addresses = json!({"status": {"addresses": [{"type": "InternalDNS", "address": "ip-10-0-0-7"}]}});
    world.api.edit(&path::machine("m"), &addresses);
    world.settle().await;
    assert_eq!(world.join("ip-10-0-0-7").await, "Denied NameClaimed");
    world.ask("csr-rightful", "m", &world.token("m"));
    world.settle().await;
    assert_eq!(world.said("csr-rightful"), APPROVED);
}

#[tokio::test(start_paused = true)]
async fn a_request_before_nodes_are_listed_takes_no_reservation_for_a_node() {
    let mut world = world(3, json!({})).await;
    world.ask("csr-a", "a", &world.pool_token());
    world.settle().await;
    world.unlisted = Some("Node");
    world.restart().await;
    world.ask("csr-b", "b", &world.pool_token());
    world.settle().await;
    assert_eq!(world.said("csr-b"), APPROVED);
    assert_eq!(world.nodes(), [("a".to_owned(), false), ("b".to_owned(), false)]);
}

#[tokio::test(start_paused = true)]
async fn where_the_provider_has_machines_the_names_and_provider_ids_are_theirs() {
    let mut world = world(2, json!({})).await;
    let machine = |name: &str| {
        json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine",
            "metadata": {
                "name": name, "namespace": "demo",
                "labels": {capi::CLUSTER_NAME: "alpha", "cluster.x-k8s.io/pool-name": CONFIG},
                "ownerReferences": [{
                    "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachinePool", "name": CONFIG, "uid": "u", "controller": true,
                }],
            },
            "spec": {"clusterName": "alpha", "bootstrap": {"dataSecretName": ""}, "providerID": format!("test:///{name}")},
            "status": {
                "addresses": [{"type": "Hostname", "address": name}],
                "initialization": {"infrastructureProvisioned": true},
            },
        })
    };
    world.api.edit(&path::machine("p-1"), &machine("p-1"));
    world.settle().await;
    assert_eq!(world.join("p-1").await, APPROVED);
    assert_eq!(world.join("p-2").await, "waits", "its Machine may come");
    world.api.edit(&path::machine("p-2"), &machine("p-2"));
    world.settle().await;
    assert_eq!(world.said("csr-p-2"), APPROVED);
    assert_eq!(
        world.tenant.get("/api/v1/nodes/p-1").unwrap()["spec"]["providerID"],
        "test:///p-1"
    );
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_deleted_while_machines_join_leaves_no_token() {
    let mut world = world(2, json!({})).await;
    world.age();
    world.wake(CONFIG).await;
    assert_eq!(world.tokens().len(), 2);
    let token = world.pool_token();
    world.api.edit(
        &path::machine_pool(CONFIG),
        &json!({"metadata": {"deletionTimestamp": "2026-03-01T12:00:00Z", "finalizers": ["x"]}}),
    );
    world.ask("csr-late", "late", &token);
    world.settle().await;
    assert_eq!(world.tokens(), Vec::<String>::new());
    let (status, reason, message) = world.condition_of(CONFIG, "BootstrapTokenValid");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "TokenRemoved"));
    assert_eq!(message, "MachinePool p is being deleted");
    // Nobody waits for it any more: another process denies it.
    world.machine("m");
    world.settle().await;
    let tenant = world.open().await;
    tenant.deny_unknown(&id(&token), "csr-late").await;
    assert_eq!(world.said("csr-late"), "Denied UnknownToken");
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_names_another_config_leaves_this_one_its_tokens_until_they_end() {
    let mut world = world(2, json!({})).await;
    pool(&world, "q", 2, &json!({}));
    world.settle().await;
    let token = world.pool_token();
    let other = json!({"spec": {"template": {"spec": {"bootstrap": {"configRef": {"name": "q"}}}}}});
    world.api.edit(&path::machine_pool(CONFIG), &other);
    world.age();
    world.settle().await;
    world.wake(CONFIG).await;
    assert_eq!(world.pool_token(), token, "it is not replaced any more");
    assert_eq!(world.join("late").await, APPROVED);
    let ended = Timestamp::from_second(Timestamp::now().as_second() - 700).unwrap();
    let ended = json!({"status": {"token": {"expiration": ended.to_string()}}});
    world.api.edit(&config_path(CONFIG), &ended);
    world.wake(CONFIG).await;
    let (status, reason, message) = world.condition_of(CONFIG, "BootstrapTokenValid");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "TokenRemoved"));
    assert!(
        message.contains("names KamajiConfig q in its bootstrap.configRef"),
        "{message}"
    );
    assert!(!world.tokens().contains(&id(&token)));
    world.wake(CONFIG).await;
    assert!(world.status(CONFIG).token.is_none(), "and stays so");
}

#[tokio::test]
async fn contract_50_the_secret_of_another_is_left_alone() {
    let mut world = world(1, json!({})).await;
    let name = world.data_name();
    world.api.delete(&config_path(CONFIG));
    world.settle().await;
    // Without the label it is not watched.
    for labels in [json!({capi::CLUSTER_NAME: "alpha"}), json!({})] {
        world.api.delete(&path::secret(&name));
        world.api.delete(&config_path(CONFIG));
        world.settle().await;
        let theirs = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": name, "namespace": "demo", "labels": labels},
            "data": {"value": ByteString(b"theirs".to_vec())},
        });
        world.api.edit(&path::secret(&name), &theirs);
        pool(&world, CONFIG, 1, &json!({}));
        for _ in 0..4 {
            world.round().await;
        }
        let (_, reason, message) = world.condition_of(CONFIG, "DataSecretAvailable");
        assert_eq!(reason, "SecretNameTaken", "{labels}: {message}");
        assert!(message.contains("change spec.poolSecretName"), "{message}");
        assert_eq!(
            world.api.get(&path::secret(&name)).unwrap()["data"],
            theirs["data"]
        );
        assert_eq!(world.tokens(), Vec::<String>::new(), "{labels}");
    }
}

#[tokio::test]
async fn contract_49_a_failing_config_of_a_pool_has_none_of_the_fields_that_core_fails_on() {
    let world = world(1, json!({"kubelet": {"path": "relative"}})).await;
    assert_eq!(world.condition_of(CONFIG, "Ready").0, "False");
    let config = world.api.get(&config_path(CONFIG)).unwrap();
    let status = config["status"].as_object().unwrap();
    for field in ["failureReason", "failureMessage", "ready"] {
        assert!(!status.contains_key(field), "{field}");
    }
}

#[tokio::test]
async fn a_pool_cannot_take_the_names_of_machines_and_its_pattern_has_to_be_one() {
    for (spec, field) in [
        (
            json!({"nodeRegistration": {"nameSource": "MachineName"}}),
            "nodeRegistration.nameSource",
        ),
        (
            json!({"csrApproval": {"nodeNamePattern": "pool-("}}),
            "csrApproval.nodeNamePattern",
        ),
    ] {
        let world = world(1, spec).await;
        let (_, reason, message) = world.condition_of(CONFIG, "DataSecretAvailable");
        assert_eq!(reason, "InvalidSpec");
        assert!(message.contains(field), "{message}");
        assert_eq!(world.tokens(), Vec::<String>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn machines_join_while_the_spec_is_invalid_and_the_data_stays() {
    let mut world = world(1, json!({})).await;
    let (name, data) = (world.data_name(), world.data());
    let spec = json!({"spec": {"kubelet": {"path": "relative"}}, "metadata": {"generation": 2}});
    world.api.edit(&config_path(CONFIG), &spec);
    world.settle().await;
    assert_eq!(world.condition_of(CONFIG, "SpecValid").0, "False");
    assert_eq!(world.condition_of(CONFIG, "DataSecretAvailable").0, "True");
    assert_eq!(world.join("a").await, APPROVED);
    assert_eq!((world.data_name(), world.data()), (name.clone(), data.clone()));
    // Machines that boot much later join too, also with another process.
    let (mut before, mut token) = (data, world.pool_token());
    for restart in [false, true] {
        world.age();
        let ended = json!({"status": {"formerToken": null}});
        world.api.edit(&config_path(CONFIG), &ended);
        if restart {
            world.restart().await;
        }
        world.settle().await;
        world.wake(CONFIG).await;
        let next = world.pool_token();
        assert_ne!(next, token, "after a restart: {restart}");
        assert_eq!(
            (world.data_name(), world.data()),
            (name.clone(), before.replace(&token, &next))
        );
        (before, token) = (world.data(), next);
    }
    let (status, _, message) = world.condition_of(CONFIG, "BootstrapTokenValid");
    assert_eq!(status, "Unknown");
    assert!(
        message.contains("stays as it was, with new tokens in time"),
        "{message}"
    );
    assert_eq!(world.join("b").await, APPROVED);
    // Where its data is gone, nothing can be renewed.
    world.api.delete(&path::secret(&name));
    world.settle().await;
    let (_, _, message) = world.condition_of(CONFIG, "BootstrapTokenValid");
    assert!(message.contains("machines that boot after"), "{message}");
}
