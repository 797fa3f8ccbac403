//! What clusterctl makes of the templates. Several tests ask for the same, so each answer is kept.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{LazyLock, Mutex},
};

use anyhow::Result;
use e2e::clusterctl::{Clusterctl, Variables};

use super::files::File;

/// A file and the values of its variables.
type Question = (String, BTreeMap<String, String>);

static ANSWERS: LazyLock<Mutex<HashMap<Question, String>>> = LazyLock::new(Mutex::default);
static VARIABLES: LazyLock<Mutex<HashMap<String, Variables>>> = LazyLock::new(Mutex::default);

/// What `clusterctl generate cluster --from` prints.
///
/// # Errors
/// When it fails, with what it wrote to standard error.
pub async fn generated(
    clusterctl: &Clusterctl,
    file: &File,
    set: &BTreeMap<String, String>,
) -> Result<String> {
    let question = (file.name.clone(), set.clone());
    let known = ANSWERS
        .lock()
        .ok()
        .and_then(|answers| answers.get(&question).cloned());
    if let Some(known) = known {
        return Ok(known);
    }
    let answer = clusterctl.generate(&file.path, set).await?;
    if let Ok(mut answers) = ANSWERS.lock() {
        answers.insert(question, answer.clone());
    }
    Ok(answer)
}

/// The variables of a file.
///
/// # Errors
/// When clusterctl fails.
pub async fn variables(clusterctl: &Clusterctl, file: &File) -> Result<Variables> {
    let known = VARIABLES
        .lock()
        .ok()
        .and_then(|known| known.get(&file.name).cloned());
    if let Some(known) = known {
        return Ok(known);
    }
    let found = clusterctl.variables(&file.path).await?;
    if let Ok(mut known) = VARIABLES.lock() {
        known.insert(file.name.clone(), found.clone());
    }
    Ok(found)
}
