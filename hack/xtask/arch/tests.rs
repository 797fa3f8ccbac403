//! Tests of the rules on single files, and that this repository keeps all rules.

use super::*;

fn broken(path: &str, text: &str) -> Vec<String> {
    violations(&Source::new(path, &format!("//! Head.\n{text}")))
}

#[test]
fn this_repository_keeps_the_rules() {
    let broken = check(&checkout::root()).unwrap();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn thinking_is_pure_by_file_name_and_by_folder() {
    let text = "async fn f() {}\n";
    for path in [
        "controllers/kamajiconfig/desired.rs",
        "controllers/hosting/tenantcontrolplane/desired/service.rs",
        "controllers/pki/policy.rs",
        "controllers/kamajiconfig/desired_files.rs",
    ] {
        assert_eq!(broken(path, text).len(), 1, "{path}");
    }
    assert!(broken("controllers/kamajiconfig/observe.rs", text).is_empty());
    assert!(broken("e2e/names.rs", text).is_empty());
}

#[test]
fn thinking_is_pure_where_the_head_says_so() {
    let text = |head: &str| format!("//! {head}\nasync fn f() {{}}\n");
    for head in [
        "Sizes. Pure.",
        "Pure: time is an argument.",
        "What is due,\n//! and why. Pure.",
    ] {
        let source = Source::new("controllers/hosting/usage.rs", &text(head));
        assert_eq!(violations(&source).len(), 1, "{head}");
    }
    for head in ["What is pure: [`plan`].", "Impure."] {
        let source = Source::new("controllers/hosting/usage.rs", &text(head));
        assert!(violations(&source).is_empty(), "{head}");
    }
}

#[test]
fn few_files_write() {
    let text = "use kube::api::PatchParams;\n";
    assert_eq!(broken("controllers/kamajicontrolplane/mod.rs", text).len(), 1);
    assert!(broken("controllers/k8s/apply/others.rs", text).is_empty());
    assert!(broken("controllers/tenant/addons.rs", text).is_empty());
}

#[test]
fn controllers_do_not_know_each_other() {
    for (path, text) in [
        ("controllers/kamajiconfig/mod.rs", "use crate::hosting::x;\n"),
        (
            "controllers/hosting/mod.rs",
            "use crate::{k8s, kamajiconfig::y};\n",
        ),
        ("controllers/k8s/index.rs", "use crate::runtime;\n"),
        (
            "controllers/kamajiconfig/mod.rs",
            "use crate::{\n    k8s::{apply, row},\n    hosting::engine,\n};\n",
        ),
        (
            "controllers/kamajiconfig/mod.rs",
            "pub(crate) use crate::{\n    k8s,\n    hosting,\n};\n",
        ),
        (
            "controllers/kamajiconfig/mod.rs",
            "fn f() {\n    crate::hosting::x();\n}\n",
        ),
    ] {
        assert_eq!(broken(path, text).len(), 1, "{path}");
    }
    assert!(broken("controllers/kamajiconfig/mod.rs", "use crate::{k8s, capi};\n").is_empty());
    let inner = "use crate::{\n    k8s::{\n        hosting,\n        row,\n    },\n    hosting_words,\n};\n";
    assert!(broken("controllers/kamajiconfig/mod.rs", inner).is_empty());
    assert!(broken("controllers/lib.rs", "use crate::hosting;\n").is_empty());
}

#[test]
fn names_heads_and_sizes() {
    assert_eq!(broken("controllers/k8s/event_handler.rs", "").len(), 1);
    assert_eq!(violations(&Source::new("e2e/x.rs", "fn f() {}\n")).len(), 1);
    assert_eq!(broken("controllers/main.rs", &"\n".repeat(40)).len(), 1);
    let long = "let a = 1;\n".repeat(400);
    assert!(broken("e2e/x.rs", &format!("{long}\n// one more\n")).is_empty());
    assert_eq!(broken("e2e/x.rs", &format!("{long}let b = 2;\n")).len(), 1);
    assert_eq!(broken("e2e/x.rs", "#[allow(dead_code)]\nfn f() {}\n").len(), 1);
}
