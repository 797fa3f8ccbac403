//! The bootstrap provider against a real kube-apiserver and a real kube-controller-manager. The numbers are rows of
//! `docs/src/reference/bootstrap.md`.

mod machines;
mod pools;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use capi_kamaji::pki::spec::BOOTSTRAP_USER;
use e2e::{
    bootstrap::{CLUSTER, NS, World, budget, refused, text, token_secret, until},
    csr,
};
use k8s_openapi::{
    ByteString,
    api::{
        certificates::v1::CertificateSigningRequest,
        core::v1::{Event, Node, Secret},
        rbac::v1::ClusterRoleBinding,
    },
    jiff::Timestamp,
};
use kamaji_api::bootstrap::KamajiConfig;
use kube::{
    Client,
    api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

/// Rows 2, 3, 5, 11, 13, 14, 16, 17, 59, 60: the way of one machine that behaves.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "the way of one machine is one story")]
async fn bootstrap_13_14_16_17_59_60_one_machine_joins_and_its_token_goes() -> Result<()> {
    let Some(world) = World::start("joins").await? else {
        return Ok(());
    };
    let controller = world.run()?;
    world.machine("m1", json!({})).await?;
    let token = world.token("m1").await?;
    let data = world.secret(NS, "m1").await?.context("no data")?;
    let cloud_config = text(&data, "value");
    ensure!(cloud_config.starts_with("#cloud-config\n") && text(&data, "format") == "cloud-config");
    ensure!(data.type_.as_deref() == Some("cluster.x-k8s.io/secret"));

    // 11: the token has the form of a bootstrap token, and is in no object but the two Secrets.
    let made = world
        .secret("kube-system", &token_secret(&token))
        .await?
        .context("no token")?;
    ensure!(text(&made, "auth-extra-groups") == "system:bootstrappers:kamaji:nodes");
    ensure!(
        !text(&made, "usage-bootstrap-authentication").is_empty()
            && text(&made, "usage-bootstrap-signing").is_empty()
    );
    let secret_part = token.split_once('.').context("no token")?.1.to_owned();
    let config = serde_json::to_string(&world.config("m1").await?)?;
    ensure!(!config.contains(&secret_part), "the KamajiConfig holds the token");
    let events: Api<k8s_openapi::api::events::v1::Event> = Api::all(world.admin.clone());
    ensure!(
        !serde_json::to_string(&events.list(&ListParams::default()).await?.items)?.contains(&secret_part)
    );

    // 16: the token is good for nothing else.
    let machine = world.bearer(&token)?;
    let secrets: Api<Secret> = Api::namespaced(machine.clone(), "kube-system");
    ensure!(refused(secrets.list(&ListParams::default()).await)?.starts_with("403"));
    let nodes: Api<Node> = Api::all(machine.clone());
    ensure!(refused(nodes.list(&ListParams::default()).await)?.starts_with("403"));
    let requests: Api<CertificateSigningRequest> = Api::all(machine.clone());
    ensure!(refused(requests.delete("x", &DeleteParams::default()).await)?.starts_with("403"));

    // 60: a report is named after its own token and no longer than it may be; other signers are refused.
    let reports: Api<Event> = Api::namespaced(machine.clone(), "kamaji-bootstrap");
    let report = |name: String, message: String| -> Result<Event> {
        Ok(serde_json::from_value(json!({
            "metadata": {"name": name}, "involvedObject": {"kind": "KamajiConfig", "namespace": "kamaji-bootstrap", "name": "m1"},
            "reason": "PreJoinFailed", "message": message, "type": "Warning", "lastTimestamp": Timestamp::now().to_string(),
        }))?)
    };
    let id = token.split('.').next().unwrap_or_default().to_owned();
    let params = PostParams::default();
    until("the policy is in force", Duration::from_secs(30), async || {
        let answer = reports
            .create(
                &params,
                &report(format!("zzzzzz.{}", rand::random::<u32>()), "x".to_owned())?,
            )
            .await;
        Ok(refused(answer)
            .ok()
            .filter(|why| why.contains("not named after the token")))
    })
    .await?;
    let long = reports
        .create(&params, &report(format!("{id}.long"), "x".repeat(2000))?)
        .await;
    ensure!(refused(long)?.contains("longer than 1024"));
    reports
        .create(
            &params,
            &report(
                format!("{id}.fine"),
                format!("command 0000 exited with 3 {token}"),
            )?,
        )
        .await?;
    let said = world.condition("m1", "NodeJoined", "PreJoinFailed").await?;
    ensure!(said == "command 0000 exited with 3 (token)", "{said}");
    let foreign: CertificateSigningRequest = serde_json::from_value(json!({
        "metadata": {"generateName": "x-"},
        "spec": {
            "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"],
            "request": ByteString(csr::pem("alice", "people")?.into_bytes()),
        },
    }))?;
    let answer = refused(requests.create(&params, &foreign).await)?;
    ensure!(answer.contains("may only ask"), "{answer}");

    // 14: a token that was deleted by hand is restored.
    let tokens: Api<Secret> = Api::namespaced(world.admin.clone(), "kube-system");
    tokens
        .delete(&token_secret(&token), &DeleteParams::default())
        .await?;
    let back = until("the token is back", Duration::from_secs(5), async || {
        world.secret("kube-system", &token_secret(&token)).await
    })
    .await?;
    ensure!(text(&back, "token-secret") == secret_part);

    // 3 and 5: another process, and a lost status: the same data, the same token.
    controller.cancel();
    let configs: Api<KamajiConfig> = Api::namespaced(world.admin.clone(), NS);
    let lost = json!([{"op": "remove", "path": "/status"}]);
    configs
        .patch_status(
            "m1",
            &PatchParams::default(),
            &Patch::<()>::Json(serde_json::from_value(lost)?),
        )
        .await?;
    let mut again = world.run()?;
    ensure!(world.token("m1").await? == token);
    ensure!(text(&world.secret(NS, "m1").await?.context("no data")?, "value") == cloud_config);
    let ours = ListParams::default().labels("capi-kamaji.io/managed-by=kamaji-bootstrap");
    ensure!(tokens.list(&ours).await?.items.len() == 1);

    // 17: the kubelet's request is approved by us and signed.
    let posted = Instant::now();
    let request = world.ask(&machine, "m1").await?;
    let (type_, reason) = world.answer(&request, budget(2)).await?;
    println!("approved after {:?}, the budget is 2 s", posted.elapsed());
    ensure!(
        (type_.as_str(), reason.as_str()) == ("Approved", "KamajiTokenBound"),
        "{type_} {reason}"
    );
    let by = until("the answer is on record", budget(2), async || {
        Ok(Some(world.writers(&request)?).filter(|by| !by.is_empty()))
    })
    .await?;
    ensure!(by == [BOOTSTRAP_USER], "approved by {by:?}");
    ensure!(!world.certificate(&request).await?.is_empty());
    let claim = world
        .config("m1")
        .await?
        .status
        .and_then(|status| status.node)
        .context("no claim")?;
    ensure!(claim.name.as_deref() == Some("m1") && claim.approvals == Some(1));

    // 25: the kubelet restarts before it has stored its certificate.
    let second = world.ask(&machine, "m1").await?;
    ensure!(world.answer(&second, Duration::from_secs(10)).await?.0 == "Approved");

    // 13: the token is deleted when the Node appears, although the infrastructure has set no provider ID yet.
    world.node("m1").await?;
    let appeared = Instant::now();
    until("the token is gone", budget(5), async || {
        let there = world.secret("kube-system", &token_secret(&token)).await?;
        Ok(there.is_none().then_some(()))
    })
    .await?;
    println!("token gone after {:?}, the budget is 5 s", appeared.elapsed());
    world
        .condition("m1", "ProviderIDSet", "WaitingForProviderID")
        .await?;
    // A used token is not created again: not by another reconcile, and not by another process.
    let made = world.writers(&token_secret(&token))?;
    ensure!(!made.is_empty(), "the token was never made");
    for (round, restart) in [(1, false), (2, true)] {
        if restart {
            again.cancel();
            again = world.run()?;
        }
        let label = json!({"metadata": {"labels": {"round": round.to_string()}}});
        world
            .api("cluster.x-k8s.io/v1beta2", "Machine")
            .patch("m1", &PatchParams::default(), &Patch::Merge(label))
            .await?;
        // When another config is finished, the controller has reconciled this one too.
        let other = format!("other{round}");
        world.machine(&other, json!({})).await?;
        world.token(&other).await?;
        world.condition("m1", "NodeJoined", "NodeJoined").await?;
    }
    world
        .api("cluster.x-k8s.io/v1beta2", "Machine")
        .patch(
            "m1",
            &PatchParams::default(),
            &Patch::Merge(json!({"spec": {"providerID": "local:///m1"}})),
        )
        .await?;

    // 59: the provider id follows.
    let node: Api<Node> = Api::all(world.admin.clone());
    let given = Instant::now();
    until("the provider id is there", budget(5), async || {
        let id = node.get("m1").await?.spec.and_then(|spec| spec.provider_id);
        Ok((id.as_deref() == Some("local:///m1")).then_some(()))
    })
    .await?;
    println!("provider id there after {:?}, the budget is 5 s", given.elapsed());
    until("the token is refused", Duration::from_secs(15), async || {
        Ok(refused(nodes.list(&ListParams::default()).await)?
            .starts_with("401")
            .then_some(()))
    })
    .await?;
    world.condition("m1", "NodeJoined", "NodeJoined").await?;
    world
        .condition("m1", "BootstrapTokenValid", "TokenRemoved")
        .await?;
    world.condition("m1", "ProviderIDSet", "ProviderIDSet").await?;
    let after = world.writers(&token_secret(&token))?;
    ensure!(
        after == made,
        "the token was made {} times more",
        after.len() - made.len()
    );
    let status = world.config("m1").await?.status.context("no status")?;
    for condition in &status.conditions {
        let wanted = if kamaji_api::conditions::is_negative(&condition.type_) {
            "False"
        } else {
            "True"
        };
        ensure!(
            condition.status == wanted,
            "{} is {}: {}",
            condition.type_,
            condition.status,
            condition.message
        );
    }
    Ok(())
}

/// Rows 18, 19, 20, 21, 22, 23: machines and people that do not behave.
#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::too_many_lines,
    reason = "one world for all who do not behave: starting one takes seconds"
)]
async fn bootstrap_18_to_23_hostile_requests_are_denied_and_foreign_ones_left_alone() -> Result<()> {
    let Some(world) = World::start("hostile").await? else {
        return Ok(());
    };
    world.node("existing").await?;
    let _controller = world.run()?;
    for name in ["a", "b", "c"] {
        world.machine(name, json!({})).await?;
    }
    let (a, b, odd) = (
        world.bearer(&world.token("a").await?)?,
        world.bearer(&world.token("b").await?)?,
        world.bearer(&world.token("c").await?)?,
    );
    let soon = Duration::from_secs(10);
    let denied = async |request: String, reason: &str| -> Result<()> {
        let answer = world.answer(&request, soon).await?;
        ensure!(
            answer == ("Denied".to_owned(), reason.to_owned()),
            "{answer:?}, not {reason}"
        );
        Ok(())
    };
    // 18, 19: names of others, existing or not.
    for name in ["existing", "b", "stranger"] {
        denied(world.ask(&a, name).await?, "NameMismatch").await?;
    }
    // 21: not what a kubelet sends.
    let client = ["digital signature", "client auth"];
    denied(
        world
            .ask_as(&odd, "system:node:c", "system:masters", &client)
            .await?,
        "MalformedRequest",
    )
    .await?;
    denied(
        world
            .ask_as(&odd, "cluster-admin", "system:nodes", &client)
            .await?,
        "MalformedRequest",
    )
    .await?;
    // 17 still applies to both.
    for (client, name) in [(&a, "a"), (&b, "b")] {
        let request = world.ask(client, name).await?;
        ensure!(world.answer(&request, soon).await?.0 == "Approved");
    }
    // 20: a second name.
    denied(world.ask(&b, "b2").await?, "NameMismatch").await?;

    // 22: a person's and a kubeadm token's requests are not ours.
    let mut config = world.server.config()?;
    config.auth_info.impersonate = Some("alice".to_owned());
    let alice = Client::try_from(config)?;
    let kubeadm = "kubead.0123456789abcdef";
    world
        .apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
            "metadata": {"name": "bootstrap-token-kubead", "namespace": "kube-system"},
            "stringData": {
                "token-id": "kubead", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
                "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
            },
        }))
        .await?;
    world
        .apply(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "kubeadm:kubelet-bootstrap"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:node-bootstrapper"},
            "subjects": [
                {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:bootstrappers:kubeadm:default-node-token"},
                {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice"},
            ],
        }))
        .await?;
    let person = until("alice may ask", soon, async || {
        Ok(world.ask(&alice, "person").await.ok())
    })
    .await?;
    let foreign = world.ask(&world.bearer(kubeadm)?, "worker").await?;

    // 23: two tokens race for one name that both may claim: exactly one gets it.
    let rounds = 10;
    let by_host_name = json!({"nodeRegistration": {"nameSource": "Hostname"}});
    for round in 0..rounds {
        for side in ["x", "y"] {
            world
                .machine(&format!("{side}{round}"), by_host_name.clone())
                .await?;
        }
    }
    for round in 0..rounds {
        let (x, y) = (format!("x{round}"), format!("y{round}"));
        let (one, two) = (
            world.bearer(&world.token(&x).await?)?,
            world.bearer(&world.token(&y).await?)?,
        );
        let name = format!("host{round}");
        let (first, second) = tokio::try_join!(world.ask(&one, &name), world.ask(&two, &name))?;
        let answers = [
            world.answer(&first, soon).await?.0,
            world.answer(&second, soon).await?.0,
        ];
        let approved = answers.iter().filter(|answer| *answer == "Approved").count();
        ensure!(approved == 1, "round {round}: {answers:?}");
    }

    let requests: Api<CertificateSigningRequest> = Api::all(world.admin.clone());
    for name in [person, foreign] {
        let status = requests.get(&name).await?.status.unwrap_or_default();
        ensure!(
            status.conditions.is_none_or(|list| list.is_empty()),
            "{name} was answered"
        );
    }
    Ok(())
}

/// Lets whoever has a token get a certificate, by a role and a group that do not say so.
async fn approve_everybody(world: &World) -> Result<()> {
    world
        .apply(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "certificates"},
            "rules": [{"apiGroups": ["certificates.k8s.io"], "resources": ["*"], "verbs": ["*"]}],
        }))
        .await?;
    world
        .apply(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "too-wide"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "certificates"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:authenticated"}],
        }))
        .await?;
    Ok(())
}

/// Rows 1, 4, 6, 7, 8, 24 and other invalid input.
#[tokio::test(flavor = "multi_thread")]
async fn bootstrap_01_06_07_08_24_what_cannot_be_done_is_said_and_nothing_is_lost() -> Result<()> {
    let Some(world) = World::start("refused").await? else {
        return Ok(());
    };
    // 24: somebody approves every bootstrap token.
    approve_everybody(&world).await?;
    // 6: the name is taken.
    world
        .apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {
                "name": "taken", "namespace": NS, "labels": {"cluster.x-k8s.io/cluster-name": CLUSTER},
            },
            "stringData": {"value": "theirs"},
        }))
        .await?;
    // 1: nothing before the control plane is initialized.
    world
        .status(
            "Cluster",
            CLUSTER,
            &json!({"initialization": {"controlPlaneInitialized": false}}),
        )
        .await?;
    let _controller = world.run()?;
    world.machine("m", json!({})).await?;
    world.machine("taken", json!({})).await?;
    let label = json!({"nodeRegistration": {"labels": {"node-role.kubernetes.io/worker": ""}}});
    let Err(answer) = world.machine("label", label).await else {
        bail!("a label that no kubelet may set was accepted");
    };
    ensure!(
        format!("{answer:#}").contains("set node-role.kubernetes.io"),
        "{answer:#}"
    );
    world.machine("boss", json!({})).await?;
    world
        .api("cluster.x-k8s.io/v1beta2", "Machine")
        .patch(
            "boss",
            &PatchParams::default(),
            &Patch::Merge(json!({"metadata": {"labels": {"cluster.x-k8s.io/control-plane": ""}}})),
        )
        .await?;
    world
        .condition("m", "DataSecretAvailable", "WaitingForControlPlaneInitialized")
        .await?;
    ensure!(world.secret(NS, "m").await?.is_none());
    let tokens: Api<Secret> = Api::namespaced(world.admin.clone(), "kube-system");
    let ours = ListParams::default().labels("capi-kamaji.io/managed-by=kamaji-bootstrap");
    ensure!(tokens.list(&ours).await?.items.is_empty());
    world
        .condition("boss", "DataSecretAvailable", "ControlPlaneMachineNotSupported")
        .await?;
    world
        .status(
            "Cluster",
            CLUSTER,
            &json!({"initialization": {"controlPlaneInitialized": true}}),
        )
        .await?;
    let token = world.token("m").await?;
    let message = world
        .condition("m", "CSRApprovalStrict", "AutoApprovalBound")
        .await?;
    ensure!(message.contains("too-wide"), "{message}");
    let bindings: Api<ClusterRoleBinding> = Api::all(world.admin.clone());
    bindings.delete("too-wide", &DeleteParams::default()).await?;
    let message = world
        .condition("taken", "DataSecretAvailable", "SecretNameTaken")
        .await?;
    ensure!(message.contains("Secret taken"), "{message}");
    ensure!(text(&world.secret(NS, "taken").await?.context("gone")?, "value") == "theirs");
    ensure!(world.secret(NS, "boss").await?.is_none());

    // 4: a pause is reported and nothing is written.
    let configs: Api<KamajiConfig> = Api::namespaced(world.admin.clone(), NS);
    let pause = json!({"metadata": {"annotations": {"cluster.x-k8s.io/paused": ""}}});
    configs
        .patch("m", &PatchParams::default(), &Patch::Merge(&pause))
        .await?;
    world.condition("m", "Paused", "Paused").await?;
    let go_on = json!({"metadata": {"annotations": {"cluster.x-k8s.io/paused": null}}});
    configs
        .patch("m", &PatchParams::default(), &Patch::Merge(&go_on))
        .await?;
    world.condition("m", "Paused", "NotPaused").await?;
    world.condition("m", "CSRApprovalStrict", "Strict").await?;

    // 8: the token is deleted with the config, which waits for nothing.
    configs.delete("m", &DeleteParams::default()).await?;
    until("the token is gone", Duration::from_secs(10), async || {
        Ok(world
            .secret("kube-system", &token_secret(&token))
            .await?
            .is_none()
            .then_some(()))
    })
    .await?;
    ensure!(configs.get_opt("m").await?.is_none());
    Ok(())
}

#[tokio::test]
async fn the_bootstrap_provider_writes_bootstrap_tokens_and_no_other_secret() -> Result<()> {
    let Some(world) = World::start("secrets").await? else {
        return Ok(());
    };
    let kubeconfig = world
        .secret(NS, &format!("{CLUSTER}-kamaji-bootstrap"))
        .await?
        .and_then(|secret| secret.data?.remove("value"))
        .context("no kubeconfig")?;
    let kubeconfig = kube::config::Kubeconfig::from_yaml(&String::from_utf8(kubeconfig.0)?)?;
    let config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await?;
    let secrets = Api::<Secret>::namespaced(Client::try_from(config)?, "kube-system");
    let create = async |name: &str, type_: &str| {
        let secret: Secret = serde_json::from_value(json!({
            "metadata": {
                "name": name,
                "annotations": { "kubernetes.io/service-account.name": "clusterrole-aggregation-controller" },
            },
            "type": type_,
        }))?;
        anyhow::Ok(secrets.create(&PostParams::default(), &secret).await)
    };
    // A policy takes a moment to be in force.
    until("other Secrets to be refused", budget(20), async || {
        let name = format!("bootstrap-token-{}", "a".repeat(6));
        match create(&name, "kubernetes.io/service-account-token").await? {
            Err(kube::Error::Api(status)) => {
                Ok(status.message.contains("bootstrap tokens alone").then_some(()))
            }
            Err(error) => Err(error.into()),
            Ok(_) => {
                secrets.delete(&name, &DeleteParams::default()).await?;
                Ok(None)
            }
        }
    })
    .await?;
    for type_ in ["kubernetes.io/service-account-token", "Opaque"] {
        let refused = create("a", type_).await?.unwrap_err();
        ensure!(
            refused.to_string().contains("bootstrap tokens alone"),
            "{refused}"
        );
    }
    create("bootstrap-token-abcdef", "bootstrap.kubernetes.io/token").await??;
    let other = json!({ "type": "Opaque" });
    let changed = secrets
        .patch(
            "bootstrap-token-abcdef",
            &PatchParams::default(),
            &Patch::Merge(other),
        )
        .await;
    ensure!(changed.is_err(), "the type of a Secret is immutable");
    Ok(())
}
