//! Bootstrap data, read back as cloud-init, the shell and the kubelet read it.

use std::{
    collections::BTreeMap,
    io::Read as _,
    process::{Command, Stdio},
};

use base64::Engine as _;
use flate2::read::GzDecoder;
use kamaji_api::bootstrap::{ContentFormat, File, Format, KamajiConfigSpec, KubeletArg, NameSource, User};
use kamaji_api::presets::{Encoded, UserData};
use proptest::prelude::*;
use semver::Version;
use serde_json::Value;

use crate::kamajiconfig::{
    bootstrapdata::{
        delivery::{Delivery, LIMIT},
        inputs::{Inputs, RenderError, Target},
        plan,
        render::{self, Rendered},
    },
    owner::Owner,
    token::Token,
};

const CA: &str = "-----BEGIN CERTIFICATE-----\nMIIBdzCCAR2gAwIBAgIUK3xQ6n0l2n7mH2mJ5r9r0v1pY7wwCgYIKoZIzj0EAwIw\nFTETMBEGA1UEAwwKa3ViZXJuZXRlczAeFw0yNjExMjEwMDAwMDBaFw0zNjExMTgw\nMDAwMDBaMBUxEzARBgNVBAMMCmt1YmVybmV0ZXMwWTATBgcqhkjOPQIBBggqhkjO\nPQMBBwNCAASm8bQe2n8iQXq0b8m8Yb7QzJq0N6f6u2b8l2mK7n0h1oW8e5s9c0Zq\nq7Xo6r6p9Yk2Xn5b0d1Q8a3b5c7d9e1fo0IwQDAOBgNVHQ8BAf8EBAMCAqQwDwYD\nVR0TAQH/BAUwAwEB/zAdBgNVHQ4EFgQUq0Qx3n5c7d9e1f3a5b7c9d1e3f5a7b8w\nCgYIKoZIzj0EAwIDSAAwRQIhAM0b8n2m4k6j8h0g2f4d6s8a0p2o4i6u8y0t2r4e\n6w8qAiA1z3x5c7v9b1n3m5l7k9j1h3g5f7d9s1a3p5o7i9u1yA==\n-----END CERTIFICATE-----\n";

pub(super) fn target() -> Target {
    Target {
        host: "10.88.0.1".to_owned(),
        port: 31443,
        tls_server_name: None,
        ca_pem: CA.to_owned(),
        cluster_dns: vec!["10.96.0.10".to_owned()],
        cluster_domain: "cluster.local".to_owned(),
    }
}

pub(super) fn token() -> Token {
    Token::parse("a1b2c3.0123456789abcdef").unwrap()
}

/// A machine whose infrastructure takes so many bytes.
fn at_most(limit: usize) -> Delivery {
    Delivery {
        limit: Some(UserData {
            bytes: limit,
            encoding: Encoded::Plain,
            unless: String::new(),
        }),
        ..Delivery::default()
    }
}

pub(super) fn rendered_with(
    spec: &KamajiConfigSpec,
    target: &Target,
    limit: usize,
) -> Result<Rendered, RenderError> {
    let (version, token) = (Version::new(1, 36, 3), token());
    let files: Vec<_> = spec
        .files
        .iter()
        .map(|file| file.content.clone().map(String::into_bytes))
        .collect();
    let plan = plan::plan(&Inputs {
        name: "quickstart-md-0-x7k2p-9q4wz",
        uid: "5e6f7a8b-9c0d-4e1f-8a2b-3c4d5e6f7a8b",
        spec,
        owner: Owner::Machine("quickstart-md-0-x7k2p-9q4wz"),
        version: &version,
        target,
        token: &token,
        files: &files,
        passwords: &BTreeMap::new(),
    })?;
    render::render(Format::CloudConfig, &plan, &at_most(limit))
}

pub(super) fn rendered(spec: &KamajiConfigSpec) -> Rendered {
    rendered_with(spec, &target(), LIMIT).unwrap()
}

/// Files by path, decoded as `write_files` decodes them.
pub(super) fn files(rendered: &Rendered) -> BTreeMap<String, Vec<u8>> {
    let document: Value = serde_yaml::from_str(&rendered.text).unwrap();
    let mut found = BTreeMap::new();
    for file in document["write_files"].as_array().unwrap() {
        let text = file["content"].as_str().unwrap();
        let decode = || {
            base64::engine::general_purpose::STANDARD
                .decode(text.trim())
                .unwrap()
        };
        let content = match file.get("encoding").and_then(Value::as_str) {
            None => text.as_bytes().to_vec(),
            Some("base64") => decode(),
            Some(_) => {
                let mut bytes = Vec::new();
                GzDecoder::new(&decode()[..]).read_to_end(&mut bytes).unwrap();
                bytes
            }
        };
        found.insert(file["path"].as_str().unwrap().to_owned(), content);
    }
    found
}

fn staged(rendered: &Rendered, name: &str) -> String {
    let bytes = files(rendered)[&format!("/etc/kamaji/bootstrap/{name}")].clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn bootstrap_42_a_default_config_is_at_most_ten_kibibytes() {
    let data = rendered(&KamajiConfigSpec::default());
    let sizes: Vec<_> = files(&data)
        .iter()
        .map(|(path, bytes)| (path.clone(), bytes.len()))
        .collect();
    assert!(
        data.text.len() <= 10 * 1024,
        "{} bytes: {sizes:?}",
        data.text.len()
    );
    assert!(data.text.starts_with("#cloud-config\n"));
}

#[test]
fn bootstrap_43_a_hundred_renderings_are_one() {
    let first = rendered(&KamajiConfigSpec::default());
    for _ in 0..100 {
        assert_eq!(rendered(&KamajiConfigSpec::default()).sha256, first.sha256);
    }
}

#[test]
fn contract_43_no_kubeadm_the_token_once_and_the_taint() {
    let data = rendered(&KamajiConfigSpec::default());
    let all: String = files(&data)
        .values()
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .collect();
    assert!(!all.contains("kubeadm"));
    assert_eq!(all.matches("a1b2c3.0123456789abcdef").count(), 1);
    assert!(kubelet_config(&data).contains("node.cluster.x-k8s.io/uninitialized"));
}

#[test]
fn only_token_bytes_differ_between_two_tokens() {
    let spec = KamajiConfigSpec::default();
    let one = rendered(&spec);
    let plan = {
        let other = Token::parse("zzzzzz.zzzzzzzzzzzzzzzz").unwrap();
        let version = Version::new(1, 36, 3);
        let target = target();
        let plan = plan::plan(&Inputs {
            name: "quickstart-md-0-x7k2p-9q4wz",
            uid: "5e6f7a8b-9c0d-4e1f-8a2b-3c4d5e6f7a8b",
            spec: &spec,
            owner: Owner::Machine("quickstart-md-0-x7k2p-9q4wz"),
            version: &version,
            target: &target,
            token: &other,
            files: &[],
            passwords: &BTreeMap::new(),
        })
        .unwrap();
        render::render(Format::CloudConfig, &plan, &Delivery::default()).unwrap()
    };
    assert_eq!(
        one.text
            .replace("a1b2c3.0123456789abcdef", "zzzzzz.zzzzzzzzzzzzzzzz"),
        *plan.text
    );
}

#[test]
fn bootstrap_44_too_large_names_the_largest_and_the_limit_itself_passes() {
    let mut spec = KamajiConfigSpec::default();
    spec.files.push(File {
        path: "/opt/big".to_owned(),
        content: Some("0123456789".repeat(1000)),
        ..File::default()
    });
    let bytes = rendered(&spec).text.len();
    assert!(rendered_with(&spec, &target(), bytes).is_ok());
    let Err(RenderError::TooLarge { largest, .. }) = rendered_with(&spec, &target(), bytes - 1) else {
        panic!("accepted");
    };
    assert!(
        largest.starts_with("/etc/kamaji/bootstrap/join.sh ("),
        "{largest}"
    );
}

#[test]
fn bootstrap_47_ipv6_endpoint_dual_stack_dns_two_cas_and_a_server_name() {
    let target = Target {
        host: "fd00::1".to_owned(),
        port: 6443,
        tls_server_name: Some("api.example.com".to_owned()),
        ca_pem: CA.repeat(2),
        cluster_dns: vec!["10.96.0.10".to_owned(), "fd00:96::a".to_owned()],
        cluster_domain: "example.local".to_owned(),
    };
    let data = rendered_with(&KamajiConfigSpec::default(), &target, LIMIT).unwrap();
    let kubeconfig: Value = serde_yaml::from_str(&staged(&data, "bootstrap.conf")).unwrap();
    let cluster = &kubeconfig["clusters"][0]["cluster"];
    assert_eq!(cluster["server"], "https://[fd00::1]:6443");
    assert_eq!(cluster["tls-server-name"], "api.example.com");
    assert_eq!(cluster["certificate-authority"], "/etc/kubernetes/pki/ca.crt");
    assert_eq!(kubeconfig["users"][0]["user"]["token"], "a1b2c3.0123456789abcdef");
    assert_eq!(staged(&data, "ca.crt").matches("BEGIN CERTIFICATE").count(), 2);
    let config: Value = serde_yaml::from_str(&kubelet_config(&data)).unwrap();
    assert_eq!(config["clusterDNS"][1], "fd00:96::a");
    assert_eq!(config["clusterDomain"], "example.local");
    assert!(staged(&data, "join.sh").contains("net.ipv6.conf.all.forwarding = 1"));
}

#[test]
fn only_templates_are_evaluated() {
    let mut spec = KamajiConfigSpec::default();
    spec.files.push(File {
        path: "/opt/raw".to_owned(),
        content: Some("{{ raw }}".to_owned()),
        ..File::default()
    });
    let data = rendered(&spec);
    assert!(
        data.text.starts_with("#cloud-config\n"),
        "no head without a template"
    );
    spec.node_registration.name_source = Some(NameSource::Template);
    spec.node_registration.name_template = Some("{{ v1.local_hostname }}".to_owned());
    spec.files.push(File {
        path: "/opt/jinja".to_owned(),
        content: Some("{{ v1.instance_id }}\n".to_owned()),
        content_format: ContentFormat::Jinja,
        ..File::default()
    });
    let data = rendered(&spec);
    assert!(data.text.starts_with("## template: jinja\n#cloud-config\n"));
    assert!(!data.text.contains("{{ raw"), "raw text is encoded");
    assert_eq!(data.text.matches("{{").count(), 2);
    assert_eq!(files(&data)["/opt/raw"], b"{{ raw }}");
    assert!(staged(&data, "node.facts").starts_with("nodename={{ v1.local_hostname }}\n"));
}

#[test]
fn bootstrap_47_health_on_an_ipv6_address() {
    let mut spec = KamajiConfigSpec::default();
    spec.kubelet
        .config
        .insert("healthzBindAddress".to_owned(), Value::String("::1".to_owned()));
    let script = staged(&rendered(&spec), "join.sh");
    assert!(
        values(&script).contains("HEALTHZ='[::1]:10248'"),
        "{}",
        values(&script)
    );
}

#[test]
fn bootstrap_45_another_program_may_rewrite_the_yaml() {
    let data = rendered(&KamajiConfigSpec::default());
    let mut document: Value = serde_yaml::from_str(&data.text).unwrap();
    document["users"] = serde_json::json!([{"name": "capk"}]);
    let rewritten = format!("#cloud-config\n{}", serde_yaml::to_string(&document).unwrap());
    let again = Rendered {
        text: rewritten.into(),
        ..rendered(&KamajiConfigSpec::default())
    };
    assert_eq!(files(&again), files(&data));
    assert!(!data.text.contains("PROVIDER_ID"));
}

#[test]
fn the_script_is_a_posix_script() {
    let script = staged(&rendered(&KamajiConfigSpec::default()), "join.sh");
    let source = include_str!("../../../../templates/node/join.sh");
    for text in [script.as_str(), source] {
        let mut shell = Command::new("sh")
            .arg("-n")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut shell.stdin.take().unwrap(), text.as_bytes()).unwrap();
        assert!(shell.wait().unwrap().success());
    }
    for bashism in ["[[ ", "function ", "<<<", "local ", "&>", "echo -e"] {
        assert!(!source.contains(bashism), "{bashism}");
    }
}

/// The values at the head of the script.
fn values(script: &str) -> &str {
    let (_, rest) = script.split_once("\nname=\n").unwrap();
    rest.split_once("\nhave() ").unwrap().0
}

/// The drop-in as the script writes it.
fn drop_in(script: &str) -> String {
    let (_, rest) = script.split_once("<<'UNIT'\n").unwrap();
    rest.split_once("UNIT\n").unwrap().0.to_owned()
}

/// The configuration of the kubelet as the script writes it.
fn kubelet_config(data: &Rendered) -> String {
    let script = staged(data, "join.sh");
    let (_, rest) = script.split_once("<<'CONFIG'\n").unwrap();
    rest.split_once("\nCONFIG\n").unwrap().0.to_owned() + "\n"
}

/// One quoted argument as systemd reads it.
fn unquoted(argument: &str) -> String {
    let inner = argument
        .trim()
        .trim_end_matches(" \\")
        .strip_prefix('"')
        .unwrap()
        .strip_suffix('"')
        .unwrap();
    let mut text = String::new();
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.push(match characters.next().unwrap() {
                't' => '\t',
                other => other,
            }),
            '%' | '$' => {
                assert_eq!(characters.next(), Some(character));
                text.push(character);
            }
            other => text.push(other),
        }
    }
    text
}

fn hostile() -> impl Strategy<Value = String> {
    let samples = [
        "\"\n- rm -rf /",
        ": ",
        "# comment",
        "%n%%",
        "it's",
        "a\u{2028}b",
        "@at",
        "*star",
        "!tag",
        "{{ x }}",
        "$(reboot) `reboot` $HOME",
        "\\",
        "yes",
        "0644",
        "12:30",
        "1_000",
        "0b1010",
        "2026-01-01",
        "~",
        "null",
        "1e5",
        "- a\n- b\n",
        "\t",
        " lead",
        "trail ",
        "\u{85}",
        "\u{1f600}",
        "---\n...",
        "EOF\n",
        "=",
        "<<",
    ];
    prop_oneof![
        proptest::sample::select(samples.map(str::to_owned).to_vec()),
        "\\PC{0,40}",
        "[\\x20-\\x7e\n\t]{0,80}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn bootstrap_40_hostile_text_arrives_as_it_was_given(
        texts in proptest::collection::vec(hostile(), 12),
    ) {
        let text = |at: usize| texts[at].clone();
        let line = |at: usize| texts[at].replace(['\n', '\u{85}', '\u{2028}'], " ");
        let mut spec = KamajiConfigSpec::default();
        spec.files.push(File {
            path: format!("/opt/{}", text(0)),
            owner: Some(text(1)),
            permissions: Some("0640".to_owned()),
            content: Some(text(2)),
            ..File::default()
        });
        spec.users.push(User {
            name: text(3),
            gecos: Some(text(4)),
            sudo: Some(text(5)),
            passwd: Some(text(6)),
            ssh_authorized_keys: vec![text(7)],
            ..User::default()
        });
        spec.pre_join_commands = vec![text(8)];
        spec.kubelet.config.insert("hostile".to_owned(), Value::String(text(9)));
        spec.kubelet.path = Some(text(10));
        spec.node_registration.kubelet_extra_args = vec![KubeletArg { name: "x".to_owned(), value: line(11) }];
        // Rendering itself compares the whole text with the plan.
        let data = rendered(&spec);
        let document: Value = serde_yaml::from_str(&data.text).unwrap();
        prop_assert_eq!(document.as_object().unwrap().len(), 3);
        prop_assert_eq!(document["users"][0]["gecos"].as_str().unwrap(), &texts[4]);
        let found = files(&data);
        prop_assert_eq!(&found[&format!("/opt/{}", texts[0])], texts[2].as_bytes());
        prop_assert_eq!(staged(&data, "pre.d/0000"), format!("{}\n", texts[8]));
        let config: Value = serde_yaml::from_str(&kubelet_config(&data)).unwrap();
        prop_assert_eq!(config["hostile"].as_str().unwrap(), &texts[9]);
        let unit = drop_in(&staged(&data, "join.sh"));
        let flag = unit.lines().find(|l| l.starts_with("  \"--x=")).unwrap();
        prop_assert_eq!(unquoted(flag), format!("--x={}", line(11)));
        prop_assert_eq!(unit.lines().count(), 18);
    }
}

#[test]
fn bootstrap_40_the_shell_reads_the_values_that_were_given() {
    for value in [
        "it's",
        "$(exit 3)",
        "`exit 3`",
        "a\nb",
        "\\",
        "\"",
        "*",
        "~",
        "a b",
    ] {
        let mut spec = KamajiConfigSpec::default();
        spec.kubelet.path = Some(value.to_owned());
        let script = staged(&rendered(&spec), "join.sh");
        let environment = values(&script);
        let output = Command::new("sh")
            .args([
                "-eu",
                "-c",
                &format!("{environment}\nprintf '%s' \"$KUBELET_PATHS\""),
            ])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), value);
    }
}

/// The texts of the default, so that a change of them is reviewed.
#[test]
fn default_texts() {
    let data = rendered(&KamajiConfigSpec::default());
    insta::assert_snapshot!("config.yaml", kubelet_config(&data));
    insta::assert_snapshot!("bootstrap.conf", staged(&data, "bootstrap.conf"));
    let script = staged(&data, "join.sh");
    insta::assert_snapshot!("plan", values(&script));
    insta::assert_snapshot!("90-kamaji.conf", drop_in(&script));
}
