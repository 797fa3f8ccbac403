//! The first objects of a list, page by page: of each only what is needed is kept.

use std::fmt::Debug;

use kube::{Api, api::ListParams};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{
    client::{ANSWER, within},
    error::Error,
};

/// What `keep` makes of the first objects of a list, `most` of them. A list that takes longer than one answer may take ends
/// with the page that came then. `action` names the request in the error, for example `list Nodes`.
///
/// # Errors
/// When a page cannot be read.
pub async fn first<K, T>(
    action: &str,
    api: Api<K>,
    mut page: ListParams,
    most: u32,
    mut keep: impl FnMut(K) -> T,
) -> Result<Vec<T>, Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    let begin = Instant::now();
    let mut kept = Vec::new();
    loop {
        let left = most.saturating_sub(u32::try_from(kept.len()).unwrap_or(u32::MAX));
        page.limit = Some(left);
        let found = within(action, api.list(&page)).await?;
        kept.extend(found.items.into_iter().map(&mut keep));
        page.continue_token = found.metadata.continue_.filter(|token| !token.is_empty());
        if page.continue_token.is_none() || kept.len() >= most as usize || begin.elapsed() > ANSWER {
            return Ok(kept);
        }
    }
}
