//! What must be seen after `hack/quickstart`: two machines joined by what the product rendered, and a cluster that
//! works. Needs the lab (`hack/test e2e` brings it up); reads it and leaves it as it was.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use e2e::lab::{
    access::{Lab, client, value},
    clusters::{VERSION, is_ready, nodes},
    machine::Inside,
    until::until,
};
use k8s_openapi::api::{
    certificates::v1::CertificateSigningRequest,
    core::v1::{Namespace, Pod, Secret, Service},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{AttachParams, DeleteParams, DynamicObject, ListParams, LogParams, PostParams},
    config::{AuthInfo, Kubeconfig},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;

const NAMESPACE: &str = "default";
const CLUSTER: &str = "quickstart";
const MINUTE: Duration = Duration::from_mins(1);

/// Objects of Cluster API, read as they are.
fn capi(lab: &Lab, group: &str, version: &str, kind: &str, plural: &str) -> Api<DynamicObject> {
    let gvk = GroupVersionKind::gvk(group, version, kind);
    let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
    Api::namespaced_with(lab.management.clone(), NAMESPACE, &resource)
}

fn text<'a>(object: &'a DynamicObject, pointer: &str) -> &'a str {
    object
        .data
        .pointer(pointer)
        .and_then(|v| v.as_str())
        .unwrap_or_default()
}

async fn machines(lab: &Lab) -> Result<Vec<DynamicObject>> {
    let selector = ListParams::default().labels(&format!("cluster.x-k8s.io/cluster-name={CLUSTER}"));
    let api = capi(lab, "cluster.x-k8s.io", "v1beta2", "Machine", "machines");
    Ok(api.list(&selector).await?.items)
}

#[tokio::test]
async fn two_workers_are_ready_nodes_of_the_version_asked_for() -> Result<()> {
    let lab = Lab::open().await?;
    let tenant = lab.tenant(NAMESPACE, CLUSTER).await?;
    let nodes = nodes(&tenant).await?;
    assert_eq!(
        nodes.len(),
        2,
        "{:?}",
        nodes.iter().map(kube::ResourceExt::name_any).collect::<Vec<_>>()
    );
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
    let secrets = Api::<Secret>::namespaced(lab.management.clone(), NAMESPACE);
    let ca = secrets.get(&format!("{CLUSTER}-ca")).await?;
    let ca = String::from_utf8(value(&ca, "tls.crt").context("no tls.crt")?)?;
    let tenant = lab.tenant(NAMESPACE, CLUSTER).await?;
    let machines = machines(&lab).await?;
    assert_eq!(machines.len(), 2);
    for machine in machines {
        let name = machine.name_any();
        let inside = Inside::of(NAMESPACE, text(&machine, "/spec/infrastructureRef/name")).await?;
        assert_eq!(
            inside.run(&["cat", "/proc/1/comm"]).await?.trim(),
            "systemd",
            "{name}"
        );
        let status = inside.run(&["cloud-init", "status"]).await?;
        assert_eq!(status.trim(), "status: done", "{name}");
        // As cloud-init itself sees it; its own warnings are no part of the verdict.
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
    let requests = Api::<CertificateSigningRequest>::all(tenant)
        .list(&ListParams::default())
        .await?;
    let ours: Vec<_> = requests
        .items
        .iter()
        .filter(|csr| csr.spec.signer_name == "kubernetes.io/kube-apiserver-client-kubelet")
        .collect();
    assert!(ours.len() >= 2, "{} client CSRs", ours.len());
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
async fn contract_52_machines_have_their_nodes_and_every_condition_is_good() -> Result<()> {
    let lab = Lab::open().await?;
    for machine in machines(&lab).await? {
        let node = text(&machine, "/status/nodeRef/name");
        assert_eq!(node, machine.name_any(), "node of Machine {}", machine.name_any());
    }
    let bad = until(
        "every condition of `clusterctl describe cluster` to be good",
        MINUTE,
        async || {
            let printed = lab
                .tool(
                    "clusterctl",
                    &[
                        "describe",
                        "cluster",
                        CLUSTER,
                        "-n",
                        NAMESPACE,
                        "--show-conditions",
                        "all",
                    ],
                )
                .await?;
            let bad = bad_conditions(&printed);
            ensure!(bad.is_empty(), "{bad:#?}");
            Ok(Some(bad))
        },
    )
    .await?;
    assert!(bad.is_empty());
    Ok(())
}

/// Lines of `clusterctl describe --show-conditions all` whose condition is not healthy by its polarity.
fn bad_conditions(printed: &str) -> Vec<String> {
    const NEGATIVE: [&str; 8] = [
        "Paused",
        "Deleting",
        "RollingOut",
        "ScalingUp",
        "ScalingDown",
        "Remediating",
        "FieldNotSupported",
        "TopologyReconciled",
    ];
    printed
        .lines()
        .filter_map(|line| {
            let words: Vec<_> = line
                .split(|c: char| c.is_whitespace() || "│├└─".contains(c))
                .filter(|w| !w.is_empty())
                .collect();
            // A condition line is «Type Status Reason …»; an object line has a slash in its first word.
            let (first, status) = (
                *words.first()?,
                *words.iter().find(|w| ["True", "False", "Unknown"].contains(w))?,
            );
            if first.contains('/') {
                return None;
            }
            let wanted = if NEGATIVE.contains(&first) {
                "False"
            } else {
                "True"
            };
            (status != wanted).then(|| line.trim().to_owned())
        })
        .collect()
}

#[test]
fn bad_conditions_are_recognised() {
    let printed = "\
NAME                         REPLICAS  AVAILABLE  STATUS  REASON\n\
Cluster/quickstart           2/2       2          Available: True\n\
│           ├─Available      True  Available\n\
│           ├─Deleting       False NotDeleting\n\
│           ├─Paused         True  Paused\n\
│           └─RemoteProbe    Unknown ProbeUnknown\n";
    assert_eq!(bad_conditions(printed).len(), 2);
}

/// A pod of agnhost's `netexec` on a node.
fn netexec(name: &str, node: &str) -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": { "name": name, "labels": { "app": name } },
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{ "operator": "Exists" }],
            "containers": [{
                "name": "agnhost",
                "image": "registry.k8s.io/e2e-test-images/agnhost:2.63.0",
                "command": ["/agnhost", "netexec", "--http-port=8080"],
                "ports": [{ "containerPort": 8080 }],
            }],
        },
    }))?)
}

#[tokio::test]
async fn pods_of_different_workers_meet_by_cluster_dns_and_logs_and_exec_work_on_both() -> Result<()> {
    let lab = Lab::open().await?;
    let tenant = lab.tenant(NAMESPACE, CLUSTER).await?;
    let mut names: Vec<_> = nodes(&tenant)
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
    let result = meet(&tenant, &namespace, one, two).await;
    namespaces.delete(&namespace, &DeleteParams::default()).await?;
    result
}

async fn meet(tenant: &Client, namespace: &str, one: &str, two: &str) -> Result<()> {
    let pods = Api::<Pod>::namespaced(tenant.clone(), namespace);
    until("the default ServiceAccount", MINUTE, async || {
        pods.create(&PostParams::default(), &netexec("asks", one)?)
            .await
            .map(Some)
            .map_err(Into::into)
    })
    .await?;
    pods.create(&PostParams::default(), &netexec("answers", two)?)
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
            let status = pods.get(pod).await?.status.unwrap_or_default();
            let ready = status
                .conditions
                .iter()
                .flatten()
                .any(|c| c.type_ == "Ready" && c.status == "True");
            Ok(ready.then_some(()))
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
    let inside = Inside::of(NAMESPACE, one).await?;
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
        let log = pods.logs(pod, &LogParams::default()).await?;
        assert!(log.contains("8080"), "log of {pod}: {log}");
        let mut attached = pods
            .exec(
                pod,
                ["/agnhost", "--version"],
                &AttachParams::default().stderr(true),
            )
            .await?;
        let mut out = String::new();
        attached
            .stdout()
            .context("no stdout")?
            .read_to_string(&mut out)
            .await?;
        attached.join().await?;
        assert!(out.starts_with("app version"), "exec in {pod} printed {out:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_anonymous_request_to_a_kubelet_gets_401() -> Result<()> {
    let lab = Lab::open().await?;
    let tenant = lab.tenant(NAMESPACE, CLUSTER).await?;
    for node in nodes(&tenant).await? {
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
    let secrets = Api::<Secret>::namespaced(lab.management.clone(), NAMESPACE);
    let mut tokens = BTreeMap::new();
    for machine in machines(lab).await? {
        let name = text(&machine, "/spec/bootstrap/dataSecretName").to_owned();
        let token = value(&secrets.get(&name).await?, "token").context("no token")?;
        tokens.insert(name, String::from_utf8(token)?);
    }
    Ok(tokens)
}

#[tokio::test]
async fn bootstrap_13_a_token_gets_401_after_join() -> Result<()> {
    let lab = Lab::open().await?;
    let mut kubeconfig = lab.kubeconfig(NAMESPACE, CLUSTER).await?;
    for (secret, token) in tokens(&lab).await? {
        let with_token = as_token(&mut kubeconfig, &token)?;
        until(
            &format!("the token of {secret} to be refused"),
            MINUTE,
            async || match client(with_token.clone()).await?.apiserver_version().await {
                Err(kube::Error::Api(status)) if status.code == 401 => Ok(Some(())),
                other => anyhow::bail!("{other:?}"),
            },
        )
        .await?;
    }
    Ok(())
}

fn as_token(kubeconfig: &mut Kubeconfig, token: &str) -> Result<Kubeconfig> {
    let mut changed = kubeconfig.clone();
    for user in &mut changed.auth_infos {
        let info: AuthInfo = serde_json::from_value(json!({ "token": token }))?;
        user.auth_info = Some(info);
    }
    Ok(changed)
}

#[tokio::test]
async fn bootstrap_11_a_token_stands_in_no_log_event_status_or_object_but_its_secrets() -> Result<()> {
    let lab = Lab::open().await?;
    let tenant = lab.tenant(NAMESPACE, CLUSTER).await?;
    let tokens = tokens(&lab).await?;
    assert_eq!(tokens.len(), 2);
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
                    for (secret, token) in &tokens {
                        let own = resource.kind == "Secret"
                            && (object.name_any() == *secret
                                || object.name_any().starts_with("bootstrap-token-"));
                        // The id is public; the 16 characters behind the dot are the secret.
                        let hidden = token.split_once('.').context("not a token")?.1;
                        if text.contains(hidden) && !own {
                            found.push(format!("{cluster} {} {}", resource.kind, object.name_any()));
                        }
                    }
                }
            }
        }
    }
    let logs = lab.directory.join("logs");
    for token in tokens.values() {
        let hidden = token.split_once('.').context("not a token")?.1;
        let output = tokio::process::Command::new("grep")
            .args(["-rlF", hidden])
            .args([
                logs.as_path(),
                lab.directory.join("audit.log").as_path(),
                std::path::Path::new("/var/log/pods"),
            ])
            .output()
            .await?;
        found.extend(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned));
    }
    assert!(found.is_empty(), "a token stands in {found:#?}");
    Ok(())
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
