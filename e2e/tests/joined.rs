//! The state after `hack/quickstart`: two machines joined with the data that the product generated, and a working
//! cluster.
//! Needs the lab (`hack/test e2e` starts it); only reads it.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use e2e::lab::{
    access::{Lab, client, value, with_token},
    cleanup::{afterwards, gone},
    clusters::{QUICKSTART, VERSION, is_ready, nodes},
    describe, logs,
    machine::Inside,
    pods::{self, netexec},
    until::until,
};
use k8s_openapi::api::{
    authorization::v1::SubjectAccessReview,
    certificates::v1::CertificateSigningRequest,
    core::v1::{Namespace, Node, Pod, Secret, Service},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DynamicObject, ListParams, LogParams, PostParams},
};
use serde_json::json;
use sha2::{Digest as _, Sha256};

const MINUTE: Duration = Duration::from_mins(1);
/// Machines that `hack/quickstart` makes.
const WORKERS: usize = 2;

fn text<'a>(object: &'a DynamicObject, pointer: &str) -> &'a str {
    object
        .data
        .pointer(pointer)
        .and_then(|v| v.as_str())
        .unwrap_or_default()
}

/// The Machines; a loop over none would prove nothing.
async fn machines(lab: &Lab) -> Result<Vec<DynamicObject>> {
    let machines = QUICKSTART.machines(lab).await?;
    ensure!(machines.len() == WORKERS, "{} Machines", machines.len());
    Ok(machines)
}

async fn workers(tenant: &Client) -> Result<Vec<Node>> {
    let nodes = nodes(tenant).await?;
    let names: Vec<_> = nodes.iter().map(kube::ResourceExt::name_any).collect();
    ensure!(nodes.len() == WORKERS, "nodes {names:?}");
    Ok(nodes)
}

async fn inside(machine: &DynamicObject) -> Result<Inside> {
    Inside::of(
        &QUICKSTART.namespace,
        text(machine, "/spec/infrastructureRef/name"),
    )
    .await
}

#[tokio::test]
async fn two_workers_are_ready_nodes_of_the_version_asked_for() -> Result<()> {
    let lab = Lab::open().await?;
    let nodes = workers(&QUICKSTART.client(&lab).await?).await?;
    for node in &nodes {
        let info = node
            .status
            .as_ref()
            .and_then(|s| s.node_info.as_ref())
            .context("no node info")?;
        assert_eq!(info.kubelet_version, VERSION);
        assert!(is_ready(node), "{} is not Ready", node.name_any());
    }
    Ok(())
}

#[tokio::test]
async fn bootstrap_50_each_machine_booted_from_exactly_our_bootstrap_data() -> Result<()> {
    let lab = Lab::open().await?;
    let secrets = Api::<Secret>::namespaced(lab.management.clone(), &QUICKSTART.namespace);
    let ca = String::from_utf8(QUICKSTART.ca(&lab).await?.0)?;
    let tenant = QUICKSTART.client(&lab).await?;
    for machine in machines(&lab).await? {
        let name = machine.name_any();
        let inside = inside(&machine).await?;
        assert_eq!(
            inside.run(&["cat", "/proc/1/comm"]).await?.trim(),
            "systemd",
            "{name}"
        );
        let status = inside.run(&["cloud-init", "status"]).await?;
        assert_eq!(status.trim(), "status: done", "{name}");
        // As cloud-init itself reports it; its warnings are ignored.
        let schema = inside.run(&["cloud-init", "schema", "--system"]).await?;
        assert!(schema.contains("Valid cloud-config"), "{name}: {schema}");
        assert!(!schema.contains("deprecated"), "{name}: {schema}");

        let data = secrets
            .get(text(&machine, "/spec/bootstrap/dataSecretName"))
            .await?;
        let rendered = value(&data, "value").context("no value")?;
        let expected = format!("{:x}", Sha256::digest(&rendered));
        let seen = inside
            .run(&["sha256sum", "/var/lib/cloud/instance/user-data.txt"])
            .await?;
        assert_eq!(seen.split_whitespace().next(), Some(expected.as_str()), "{name}");

        // The certificate itself, checked by OpenSSL on this host against the tenant's CA.
        let pem = inside
            .run(&["cat", "/var/lib/kubelet/pki/kubelet-client-current.pem"])
            .await?;
        verify_issued_by(&ca, &pem).await.with_context(|| name.clone())?;
        assert_eq!(
            inside
                .run(&["cat", "/run/cluster-api/bootstrap-success.complete"])
                .await?,
            "success\n"
        );
        let left = inside.run(&["ls", "/etc/kubernetes/"]).await?;
        assert!(
            !left.contains("bootstrap-kubelet.conf"),
            "the token is still on {name}: {left}"
        );
    }
    let requests = Api::<CertificateSigningRequest>::all(tenant.clone())
        .list(&ListParams::default())
        .await?;
    let ours: Vec<_> = requests
        .items
        .iter()
        .filter(|csr| csr.spec.signer_name == "kubernetes.io/kube-apiserver-client-kubelet")
        .collect();
    assert!(ours.len() >= WORKERS, "{} client CSRs", ours.len());
    for csr in ours {
        let condition = csr
            .status
            .as_ref()
            .and_then(|s| s.conditions.as_ref())
            .and_then(|c| c.first());
        assert_eq!(
            condition.map(|c| c.type_.as_str()),
            Some("Approved"),
            "{}",
            csr.name_any()
        );
        assert_eq!(
            condition.and_then(|c| c.reason.as_deref()),
            Some("KamajiTokenBound")
        );
        let approver = csr
            .managed_fields()
            .iter()
            .find(|m| m.subresource.as_deref() == Some("approval"))
            .and_then(|m| m.manager.clone());
        assert_eq!(approver.as_deref(), Some("kamaji-bootstrap"));
        // The // A name of a manager is what a client says of itself. The only other one that approves by itself is
        // The // the controller
        // manager, for identities with this permission.
        let right = json!({ "spec": {
            "user": csr.spec.username, "groups": csr.spec.groups,
            "resourceAttributes": {
                "group": "certificates.k8s.io", "resource": "certificatesigningrequests", "subresource": "nodeclient",
                "verb": "create",
            },
        } });
        let review = Api::<SubjectAccessReview>::all(tenant.clone())
            .create(&PostParams::default(), &serde_json::from_value(right)?)
            .await?;
        let allowed = review.status.context("no answer")?.allowed;
        assert!(
            !allowed,
            "the controller manager may have approved {}",
            csr.name_any()
        );
    }
    Ok(())
}

async fn verify_issued_by(ca: &str, pem: &str) -> Result<()> {
    let directory = std::env::temp_dir().join(format!("kamaji-e2e-{}", std::process::id()));
    tokio::fs::create_dir_all(&directory).await?;
    let (ca_file, pem_file) = (directory.join("ca.crt"), directory.join("client.crt"));
    tokio::fs::write(&ca_file, ca).await?;
    // The kubelet keeps key and certificate in one file; the key stays out of ours.
    let certificate = pem
        .split_inclusive("-----END CERTIFICATE-----")
        .next()
        .context("no certificate")?;
    let certificate = certificate
        .split_once("-----BEGIN CERTIFICATE-----")
        .context("no certificate")?
        .1;
    tokio::fs::write(&pem_file, format!("-----BEGIN CERTIFICATE-----{certificate}\n")).await?;
    let output = tokio::process::Command::new("openssl")
        .args(["verify", "-purpose", "sslclient", "-CAfile"])
        .args([&ca_file, &pem_file])
        .output()
        .await?;
    tokio::fs::remove_dir_all(&directory).await?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

#[tokio::test]
async fn contract_52_62_machines_have_their_nodes_and_describe_shows_the_control_plane_and_good_conditions()
-> Result<()> {
    let lab = Lab::open().await?;
    for machine in machines(&lab).await? {
        let node = text(&machine, "/status/nodeRef/name");
        assert_eq!(node, machine.name_any(), "node of Machine {}", machine.name_any());
    }
    // Machines of the same state are else shown as one line without conditions, and without what they refer to.
    let arguments = format!(
        "describe cluster {} -n {} --show-conditions all --grouping=false --echo",
        QUICKSTART.name, QUICKSTART.namespace
    );
    let arguments: Vec<_> = arguments.split(' ').collect();
    until(
        "every condition of `clusterctl describe cluster` to be good",
        MINUTE,
        async || {
            let printed = lab.tool("clusterctl", &arguments).await?;
            let row = describe::control_plane(&printed).context("no row of the control plane")?;
            ensure!(row.get(1..) == Some(&["1/1", "1", "1", "1"][..]), "{row:?}");
            let shown = describe::read(&printed);
            let bad: Vec<_> = shown.iter().filter(|c| !c.is_good()).collect();
            ensure!(bad.is_empty(), "{bad:#?}");
            let missing = describe::missing(&shown, WORKERS);
            ensure!(missing.is_empty(), "not shown: {missing:#?}");
            Ok(Some(()))
        },
    )
    .await?;
    let short = [
        "describe",
        "cluster",
        &QUICKSTART.name,
        "-n",
        &QUICKSTART.namespace,
    ];
    let printed = lab.tool("clusterctl", &short).await?;
    let line = format!("{WORKERS} Machines...");
    ensure!(
        printed.contains(&line),
        "machines of one state are not one line: {printed}"
    );
    Ok(())
}

#[tokio::test]
async fn pods_of_different_workers_meet_by_cluster_dns_and_logs_and_exec_work_on_both() -> Result<()> {
    let lab = Lab::open().await?;
    let tenant = QUICKSTART.client(&lab).await?;
    let mut names: Vec<_> = workers(&tenant)
        .await?
        .iter()
        .map(kube::ResourceExt::name_any)
        .collect();
    names.sort();
    let [one, two] = names.as_slice() else {
        anyhow::bail!("two workers are needed: {names:?}")
    };

    let namespace = format!("e2e-{:08x}", rand::random::<u32>());
    let namespaces = Api::<Namespace>::all(tenant.clone());
    let body = serde_json::from_value(json!({ "metadata": { "name": namespace } }))?;
    namespaces.create(&PostParams::default(), &body).await?;
    afterwards(Box::pin(meet(&tenant, &namespace, one, two)), async || {
        gone(&namespaces, &namespace, 3 * MINUTE).await
    })
    .await
}

async fn meet(tenant: &Client, namespace: &str, one: &str, two: &str) -> Result<()> {
    let pods = Api::<Pod>::namespaced(tenant.clone(), namespace);
    until("the default ServiceAccount", MINUTE, async || {
        pods.create(&PostParams::default(), &netexec("asks", Some(one))?)
            .await
            .map(Some)
            .map_err(Into::into)
    })
    .await?;
    pods.create(&PostParams::default(), &netexec("answers", Some(two))?)
        .await?;
    let service: Service = serde_json::from_value(json!({
        "metadata": { "name": "answers" },
        "spec": { "selector": { "app": "answers" }, "ports": [{ "port": 80, "targetPort": 8080 }] },
    }))?;
    Api::<Service>::namespaced(tenant.clone(), namespace)
        .create(&PostParams::default(), &service)
        .await?;
    for pod in ["asks", "answers"] {
        until(&format!("pod {pod} to be Ready"), 3 * MINUTE, async || {
            Ok(pods::is_ready(&pods.get(pod).await?).then_some(()))
        })
        .await?;
    }

    // The pod on worker 1 itself resolves the name and asks; the answer is the other pod's host name.
    let ip = pods
        .get("asks")
        .await?
        .status
        .and_then(|s| s.pod_ip)
        .context("no pod IP")?;
    let inside = Inside::of(&QUICKSTART.namespace, one).await?;
    let host = format!("answers.{namespace}.svc.cluster.local");
    let dial = format!("http://{ip}:8080/dial?request=hostname&protocol=http&host={host}&port=80&tries=1");
    let answer = until("an answer by name from worker 2", MINUTE, async || {
        let answer = inside
            .run(&["curl", "--silent", "--fail", "--max-time", "10", &dial])
            .await?;
        ensure!(!answer.contains("\"errors\""), "{answer}");
        Ok(Some(answer))
    })
    .await?;
    assert!(answer.contains("\"answers\""), "{answer}");
    assert_eq!(
        pods.get("answers")
            .await?
            .spec
            .and_then(|s| s.node_name)
            .as_deref(),
        Some(two)
    );

    for pod in ["asks", "answers"] {
        pods::log_and_exec(&pods, pod).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_anonymous_request_to_a_kubelet_gets_401() -> Result<()> {
    let lab = Lab::open().await?;
    for node in workers(&QUICKSTART.client(&lab).await?).await? {
        let address = node
            .status
            .as_ref()
            .and_then(|s| s.addresses.as_ref())
            .into_iter()
            .flatten()
            .find(|a| a.type_ == "InternalIP")
            .map(|a| a.address.clone())
            .context("no InternalIP")?;
        let output = tokio::process::Command::new("curl")
            .args([
                "--silent",
                "--insecure",
                "--max-time",
                "10",
                "--output",
                "/dev/null",
                "--write-out",
                "%{http_code}",
            ])
            .arg(format!("https://{address}:10250/pods"))
            .output()
            .await?;
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "401",
            "{}",
            node.name_any()
        );
    }
    Ok(())
}

/// Tokens of all Machines' bootstrap data, by Secret.
async fn tokens(lab: &Lab) -> Result<BTreeMap<String, String>> {
    let secrets = Api::<Secret>::namespaced(lab.management.clone(), &QUICKSTART.namespace);
    let mut tokens = BTreeMap::new();
    for machine in machines(lab).await? {
        let name = text(&machine, "/spec/bootstrap/dataSecretName").to_owned();
        let secret = secrets.get(&name).await?;
        let token = String::from_utf8(value(&secret, "token").context("no token")?)?;
        // The machine received what is searched for below.
        let data = String::from_utf8(value(&secret, "value").context("no value")?)?;
        ensure!(
            data.contains(&token),
            "the token of {name} is not in its bootstrap data"
        );
        tokens.insert(name, token);
    }
    ensure!(tokens.len() == WORKERS, "{} tokens", tokens.len());
    Ok(tokens)
}

#[tokio::test]
async fn bootstrap_13_a_token_gets_401_after_join() -> Result<()> {
    let lab = Lab::open().await?;
    let kubeconfig = lab.kubeconfig(&QUICKSTART.namespace, &QUICKSTART.name).await?;
    for (secret, token) in tokens(&lab).await? {
        let theirs = with_token(&kubeconfig, &token)?;
        until(
            &format!("the token of {secret} to be refused"),
            MINUTE,
            async || match client(theirs.clone()).await?.apiserver_version().await {
                Err(kube::Error::Api(status)) if status.code == 401 => Ok(Some(())),
                other => anyhow::bail!("{other:?}"),
            },
        )
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn bootstrap_11_a_token_stands_in_no_event_status_or_object_but_its_secrets() -> Result<()> {
    let lab = Lab::open().await?;
    let tenant = QUICKSTART.client(&lab).await?;
    let tokens = tokens(&lab).await?;
    let mut own = 0;
    let mut found = Vec::new();
    for (cluster, client) in [("management", &lab.management), ("tenant", &tenant)] {
        let discovery = kube::Discovery::new(client.clone()).run().await?;
        for group in discovery.groups() {
            for (resource, capabilities) in group.recommended_resources() {
                if !capabilities.supports_operation(kube::discovery::verbs::LIST) {
                    continue;
                }
                let api = Api::<DynamicObject>::all_with(client.clone(), &resource);
                for object in api.list(&ListParams::default()).await? {
                    let text = decoded(&resource.kind, &object)?;
                    let at = format!(
                        "{cluster} {} {}/{}",
                        resource.kind,
                        object.namespace().unwrap_or_default(),
                        object.name_any()
                    );
                    for (secret, token) in &tokens {
                        let (id, hidden) = parts(token)?;
                        if !text.contains(hidden) {
                            continue;
                        }
                        let data = format!("management Secret {}/{secret}", QUICKSTART.namespace);
                        if at == data {
                            own += 1;
                        } else if at != format!("tenant Secret kube-system/bootstrap-token-{id}") {
                            found.push(at.clone());
                        }
                    }
                }
            }
        }
    }
    assert_eq!(own, WORKERS, "the search does not find what is there");
    assert!(found.is_empty(), "a token is in {found:#?}");
    Ok(())
}

/// Id and secret of a token: the id is public, the 16 characters behind the dot are not.
fn parts(token: &str) -> Result<(&str, &str)> {
    let (id, hidden) = token.split_once('.').context("not a token")?;
    ensure!(hidden.len() == 16, "not a token");
    Ok((id, hidden))
}

#[tokio::test]
async fn bootstrap_11_a_token_stands_in_no_log() -> Result<()> {
    let lab = Lab::open().await?;
    let tokens = tokens(&lab).await?;
    let hidden: Vec<_> = tokens
        .values()
        .map(|token| parts(token).map(|(_, hidden)| hidden))
        .collect::<Result<_>>()?;

    // Each location is first searched for text that must be there.
    let (processes, pods, requests) = (
        logs::of_processes(&lab),
        logs::of_pods(),
        logs::of_requests(&lab)?,
    );
    for machine in machines(&lab).await? {
        let name = machine.name_any();
        holds(&name, std::slice::from_ref(&processes)).await?;
        holds(text(&machine, "/spec/bootstrap/dataSecretName"), &requests).await?;
    }
    for line in last_lines(&lab).await? {
        holds(&line, std::slice::from_ref(&pods)).await?;
    }
    let mut places = vec![processes, pods];
    places.extend(requests);
    let mut found = logs::files_with(&hidden, &places).await?;

    for machine in machines(&lab).await? {
        let name = machine.name_any();
        let log = logs::of_machine(&inside(&machine).await?).await?;
        for known in [
            format!("_HOSTNAME={name}"),
            "Cloud-init v.".to_owned(),
            "kubelet".to_owned(),
        ] {
            assert!(log.contains(&known), "«{known}» is missing in the logs of {name}");
        }
        if hidden.iter().any(|hidden| log.contains(hidden)) {
            found.push(format!("the logs of machine {name}"));
        }
    }
    assert!(found.is_empty(), "a token is in {found:#?}");
    Ok(())
}

/// The search finds `known` in one of these places: it looks where the logs are.
async fn holds(known: &str, places: &[std::path::PathBuf]) -> Result<()> {
    let found = logs::files_with(&[known], places).await?;
    ensure!(!found.is_empty(), "«{known}» is in none of {places:?}");
    Ok(())
}

/// The last log line of each of our processes, read through the API server.
async fn last_lines(lab: &Lab) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for namespace in e2e::lab::audit::OURS {
        let pods = Api::<Pod>::namespaced(lab.management.clone(), namespace);
        for pod in pods.list(&ListParams::default()).await?.items {
            let log = pods.logs(&pod.name_any(), &LogParams::default()).await?;
            let last = log.lines().next_back();
            lines.push(last.context("our process logs nothing")?.to_owned());
        }
    }
    ensure!(lines.len() >= e2e::lab::audit::OURS.len(), "no process of ours");
    Ok(lines)
}

/// An object as text, the data of Secrets decoded.
fn decoded(kind: &str, object: &DynamicObject) -> Result<String> {
    let mut text = serde_json::to_string(object)?;
    if kind == "Secret" {
        let secret: Secret = serde_json::from_value(serde_json::to_value(object)?)?;
        for bytes in secret.data.unwrap_or_default().values() {
            text.push_str(&String::from_utf8_lossy(&bytes.0));
        }
    }
    Ok(text)
}
