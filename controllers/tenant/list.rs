//! The first objects of a list, page by page: of each only what is needed is kept.

use std::fmt::Debug;

use kube::{Api, api::ListParams};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{
    client::{ANSWER, within},
    error::Error,
};

/// What was read of a list.
#[derive(Debug)]
pub struct Listed<T> {
    /// What is kept.
    pub kept: Vec<T>,
    /// Number of objects that were read.
    pub read: u32,
    /// These are all objects of the list.
    pub is_whole: bool,
}

/// What `keep` makes of the first objects of a list, `most` of them. A list that takes longer than one answer may take ends
/// with the page that came then. `action` names the request in the error, for example `list Nodes`.
///
/// # Errors
/// When a page cannot be read.
pub async fn first<K, T>(
    action: &str,
    api: Api<K>,
    page: ListParams,
    most: u32,
    mut keep: impl FnMut(K) -> T,
) -> Result<Vec<T>, Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    let listed = until(action, api, page, most, |object| Some(keep(object)), |_, _| false).await?;
    Ok(listed.kept)
}

/// What `keep` makes of the first objects of a list: of `most` of them, or fewer, where `is_enough` says so of the number of
/// objects that were read and what is kept of them. A list that takes longer than one answer may take ends with the page
/// that came then. `action` names the request in the error, for example `list Nodes`.
///
/// # Errors
/// When a page cannot be read.
pub async fn until<K, T>(
    action: &str,
    api: Api<K>,
    mut page: ListParams,
    most: u32,
    mut keep: impl FnMut(K) -> Option<T>,
    is_enough: impl Fn(u32, &[T]) -> bool,
) -> Result<Listed<T>, Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    let begin = Instant::now();
    let mut listed = Listed {
        kept: Vec::new(),
        read: 0,
        is_whole: false,
    };
    loop {
        page.limit = Some(most.saturating_sub(listed.read));
        let found = within(action, api.list(&page)).await?;
        let count = u32::try_from(found.items.len()).unwrap_or(u32::MAX);
        listed.read = listed.read.saturating_add(count);
        listed.kept.extend(found.items.into_iter().filter_map(&mut keep));
        page.continue_token = found.metadata.continue_.filter(|token| !token.is_empty());
        listed.is_whole = page.continue_token.is_none();
        let is_over = listed.is_whole || listed.read >= most || begin.elapsed() > ANSWER;
        if is_over || is_enough(listed.read, &listed.kept) {
            return Ok(listed);
        }
    }
}
