//! A second `hack/quickstart` changes nothing: it succeeds, with the same CA and the same Nodes.

use std::{collections::BTreeMap, path::Path, process::Stdio};

use anyhow::Result;
use e2e::lab::{
    access::Lab,
    clusters::{QUICKSTART, nodes},
};
use kube::ResourceExt as _;

async fn identity(lab: &Lab) -> Result<(Vec<u8>, BTreeMap<String, Option<String>>)> {
    let uids = nodes(&QUICKSTART.client(lab).await?)
        .await?
        .iter()
        .map(|node| (node.name_any(), node.uid()))
        .collect();
    Ok((QUICKSTART.ca(lab).await?.0, uids))
}

#[tokio::test]
async fn a_second_quickstart_changes_no_ca_and_no_node() -> Result<()> {
    let lab = Lab::open().await?;
    let before = identity(&lab).await?;
    assert!(!before.1.is_empty(), "there are no nodes");
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .with_file_name("hack")
        .join("quickstart");
    let output = tokio::process::Command::new(script)
        .stdin(Stdio::null())
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned() + &said;
    assert_eq!(before, identity(&lab).await?);
    for node in before.1.keys() {
        assert!(
            printed.contains(node),
            "{node} is not in what it printed: {printed}"
        );
    }
    Ok(())
}
