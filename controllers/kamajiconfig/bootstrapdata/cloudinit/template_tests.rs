//! Templates among the files: cloud-init evaluates the whole text, not the templates alone.

use kamaji_api::{
    bootstrap::{ContentFormat, Encoding, File, KamajiConfigSpec, User},
    conditions::Reason,
};
use rstest::rstest;
use semver::Version;

use super::tests::{files, rendered, rendered_with, target, token};
use crate::kamajiconfig::{
    bootstrapdata::{delivery::LIMIT, inputs::Inputs, plan},
    owner::Owner,
};

/// A spec whose only file is this template.
fn with_template(content: &str) -> KamajiConfigSpec {
    let mut spec = KamajiConfigSpec::default();
    spec.files.push(File {
        path: "/opt/jinja".to_owned(),
        content: Some(content.to_owned()),
        content_format: ContentFormat::Jinja,
        ..File::default()
    });
    spec
}

#[rstest]
#[case::one_line("{{ ds['meta_data']['x'] | default('') }}")]
#[case::one_line_that_ends("{{ ds[\"a\"] }}\n")]
#[case::lines("a: {{ x['y'] }}\n\n  b: \"{{ z }}\"\n# {# it's #}")]
#[case::blank_first("\n{% if x %}\ny\n{% endif %}\n\n")]
#[case::indented_first("  {{ x }}\n{{ y }}\n")]
#[case::marks_of_yaml("- {{ x }}: [a, 'b']\n!tag &a *b | > %\n")]
fn bootstrap_39_a_template_is_in_the_data_byte_for_byte(#[case] content: &str) {
    let data = rendered(&with_template(content));
    assert!(data.text.starts_with("## template: jinja\n"));
    for line in content.lines().filter(|line| !line.is_empty()) {
        assert!(
            data.text.lines().any(|found| found == format!("    {line}")),
            "{line}\n{}",
            *data.text
        );
    }
    let arrived = files(&data)["/opt/jinja"].clone();
    assert_eq!(
        String::from_utf8(arrived).unwrap().trim_end_matches('\n'),
        content.trim_end_matches('\n')
    );
}

#[rstest]
#[case::space_at_the_end("{{ x }} \ny\n")]
#[case::tab("\t{{ x }}\ny\n")]
#[case::carriage_return("{{ x }}\r\ny\n")]
#[case::separator("{{ x }}\u{2028}y\n")]
fn bootstrap_39_a_template_that_would_need_quotes_is_refused(#[case] content: &str) {
    let error = rendered_with(&with_template(content), &target(), LIMIT)
        .err()
        .unwrap();
    assert_eq!(error.reason(), Reason::InvalidSpec);
    assert!(
        error
            .to_string()
            .starts_with("files[0] cannot be carried as a template: "),
        "{error}"
    );
}

#[test]
fn with_a_template_no_other_value_is_an_expression() {
    let refused = |spec: &KamajiConfigSpec, field: &str| {
        let error = rendered_with(spec, &target(), LIMIT).err().unwrap();
        assert_eq!(error.reason(), Reason::InvalidSpec);
        assert!(error.to_string().starts_with(field), "{error}");
    };
    let mut spec = with_template("{{ x }}\n");
    spec.files.push(File {
        path: "/opt/{{ y }}".to_owned(),
        content: Some(String::new()),
        ..File::default()
    });
    refused(&spec, "files[1].path ");
    spec.files.pop();
    spec.users.push(User {
        name: "ops".to_owned(),
        gecos: Some("{% y %}".to_owned()),
        ..User::default()
    });
    refused(&spec, "users[0] ");
}

#[test]
fn values_of_secrets_are_checked_before_they_are_rendered() {
    let refused = |file: File, password: &str, bytes: &[u8]| {
        let spec = KamajiConfigSpec {
            files: vec![file],
            users: vec![User {
                name: "ops".to_owned(),
                ..User::default()
            }],
            ..KamajiConfigSpec::default()
        };
        let (version, token) = (Version::new(1, 36, 3), token());
        let (passwords, files) = (
            [("ops".to_owned(), password.to_owned())].into(),
            [Some(bytes.to_vec())],
        );
        let plan = plan::plan(&Inputs {
            name: "m",
            uid: "u",
            spec: &spec,
            owner: Owner::Machine("m"),
            version: &version,
            target: &target(),
            token: &token,
            files: &files,
            passwords: &passwords,
        });
        plan.err().map(|error| error.to_string())
    };
    let file = |encoding, content_format| File {
        path: "/opt/a".to_owned(),
        encoding,
        content_format,
        ..File::default()
    };
    let raw = |encoding| file(encoding, ContentFormat::Raw);
    let begins = |message: Option<String>, words: &str| {
        assert!(
            message
                .as_deref()
                .is_some_and(|message| message.starts_with(words)),
            "{message:?}"
        );
    };
    assert_eq!(
        refused(raw(Some(Encoding::Base64)), "$6$x$y", b"aGVs\nbG8=\n"),
        None
    );
    begins(
        refused(raw(Some(Encoding::Base64)), "x", b"{{ x }}"),
        "files[0] is not base64",
    );
    begins(
        refused(raw(Some(Encoding::GzipBase64)), "x", b"aGVsbG8="),
        "files[0] is not compressed",
    );
    begins(
        refused(raw(Some(Encoding::Gzip)), "x", b"hello"),
        "files[0] is not compressed",
    );
    begins(
        refused(file(None, ContentFormat::Jinja), "x", b"\xff{{ x }}"),
        "files[0] is not text",
    );
    begins(
        refused(file(None, ContentFormat::Jinja), "x", b"{{ x"),
        "files[0] has a {{",
    );
    begins(refused(raw(None), "{{ x }}", b""), "users[0].passwdFrom ");
    begins(refused(raw(None), "a\nb", b""), "users[0].passwdFrom ");
}

#[test]
fn encoded_content_arrives_decoded() {
    let mut spec = KamajiConfigSpec::default();
    spec.files.push(File {
        path: "/opt/a".to_owned(),
        encoding: Some(Encoding::Base64),
        content: Some("aGVs\nbG8=\n".to_owned()),
        ..File::default()
    });
    assert_eq!(files(&rendered(&spec))["/opt/a"], b"hello");
}
