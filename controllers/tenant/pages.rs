//! How many objects of a list are asked for at a time. The admin of a tenant decides how large its objects are, so a list
//! begins with a few, and goes on with as many as fit. A page that is too large all the same is asked for again with half as
//! many, down to a single object. Pure.

use std::collections::HashMap;

use http::Uri;

/// Bytes of a page with more than one object. What is decoded may take several times as much memory.
pub const MAX_PAGE: usize = 4 * 1024 * 1024;
/// Most objects of a page. A Node has some ten kilobytes.
pub const PAGE: u32 = 50;
/// Objects of the first page of a list. The API server of a tenant takes seconds for fifty of a megabyte.
const FIRST: u32 = 10;
/// How much larger the next page is, at most: the next objects may be larger.
const GROWTH: u32 = 4;
/// Bytes that a page is meant to have.
const MEANT: usize = MAX_PAGE / 4 * 3;

/// Sizes of the pages of one tenant.
#[derive(Debug, Default)]
pub struct Pages {
    /// By the path of a list.
    sizes: HashMap<String, u32>,
}

impl Pages {
    fn known(&self, list: &str) -> u32 {
        self.sizes.get(list).copied().unwrap_or(FIRST)
    }

    /// Objects to ask for, where the caller asked for `asked`.
    pub fn size(&self, list: &str, asked: u32) -> u32 {
        asked.min(self.known(list))
    }

    /// A page of `size` objects was too large. Returns how many to ask for instead; `None` where it was a single object.
    pub fn too_large(&mut self, list: &str, size: u32) -> Option<u32> {
        let half = size / 2;
        if half == 0 {
            return None;
        }
        self.sizes.insert(list.to_owned(), half);
        Some(half)
    }

    /// A page of `size` objects had so many bytes. The next one is larger, where that leaves room.
    pub fn fitted(&mut self, list: &str, size: u32, bytes: usize) {
        // The last page of a list may have been asked for with fewer.
        if size < self.known(list) {
            return;
        }
        let each = bytes / size.max(1) as usize;
        let fit = u32::try_from(MEANT / each.max(1)).unwrap_or(PAGE);
        let next = fit.min(size.saturating_mul(GROWTH)).min(PAGE).max(size);
        self.sizes.insert(list.to_owned(), next);
    }
}

/// Objects that a request for a page asks for; `None` for any other request.
pub fn asked(uri: &Uri) -> Option<u32> {
    pairs(uri)
        .find_map(|pair| pair.strip_prefix(LIMIT))
        .and_then(|limit| limit.parse().ok())
}

/// The request opens a watch.
pub fn is_watch(uri: &Uri) -> bool {
    pairs(uri).any(|pair| pair == "watch=true")
}

/// The request for a page, with another number of objects.
///
/// # Errors
/// Never, for a URI that can be requested.
pub fn resized(uri: &Uri, size: u32) -> Result<Uri, http::Error> {
    let query: Vec<_> = pairs(uri)
        .map(|pair| {
            if pair.starts_with(LIMIT) {
                format!("{LIMIT}{size}")
            } else {
                pair.to_owned()
            }
        })
        .collect();
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(format!("{}?{}", uri.path(), query.join("&")).parse()?);
    Ok(Uri::from_parts(parts)?)
}

const LIMIT: &str = "limit=";

fn pairs(uri: &Uri) -> impl Iterator<Item = &str> {
    uri.query().unwrap_or_default().split('&')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_usual_objects_takes_one_more_page_and_only_the_first_time() {
        let mut pages = Pages::default();
        assert_eq!(pages.size("nodes", PAGE), 10);
        pages.fitted("nodes", 10, 10 * 15_000);
        assert_eq!(pages.size("nodes", PAGE), 40);
        pages.fitted("nodes", 40, 40 * 15_000);
        assert_eq!(pages.size("nodes", PAGE), PAGE);
        pages.fitted("nodes", 7, 7 * 15_000);
        assert_eq!(pages.size("nodes", PAGE), PAGE, "a shorter page says nothing");
        assert_eq!(pages.size("pods", PAGE), 10, "each list has its own");
        assert_eq!(pages.size("nodes", 7), 7, "never more than was asked for");
    }

    #[test]
    fn a_page_shrinks_to_one_object_and_grows_again_where_objects_are_small() {
        let mut pages = Pages::default();
        let mut sizes = Vec::new();
        while let Some(size) = pages.too_large("nodes", pages.size("nodes", PAGE)) {
            sizes.push(size);
        }
        assert_eq!(sizes, [5, 2, 1]);
        pages.fitted("nodes", 1, MAX_PAGE);
        assert_eq!(pages.size("nodes", PAGE), 1);
        pages.fitted("nodes", 1, 1_000_000);
        assert_eq!(pages.size("nodes", PAGE), 3, "as many as fit");
        pages.fitted("nodes", 3, 300);
        assert_eq!(pages.size("nodes", PAGE), 12);
        assert_eq!(pages.too_large("nodes", 12), Some(6));
    }

    #[test]
    fn of_a_request_for_a_page_only_the_number_of_objects_changes() {
        let uri: Uri = "/api/v1/nodes?&limit=50&continue=a%3Dlimit%3D9&labelSelector=a%3Db"
            .parse()
            .unwrap();
        assert_eq!(asked(&uri), Some(50));
        assert_eq!(
            resized(&uri, 25).unwrap(),
            "/api/v1/nodes?&limit=25&continue=a%3Dlimit%3D9&labelSelector=a%3Db"
        );
        assert!(!is_watch(&uri));
        for other in ["/api/v1/nodes/m", "/api/v1/nodes?watch=true&timeoutSeconds=290"] {
            assert_eq!(asked(&other.parse().unwrap()), None);
        }
        assert!(is_watch(
            &"/api/v1/nodes?&watch=true&resourceVersion=1".parse().unwrap()
        ));
    }
}
