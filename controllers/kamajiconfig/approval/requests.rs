//! Certificate requests that nobody decided yet, by the token they were made with. Whoever may write them in a tenant
//! can write many and large ones, so both are bounded here. Pure.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::ResourceExt as _;

/// Largest request that is looked at: a kubelet's has two or three kilobytes.
const MOST_BYTES: usize = 16 * 1024;
/// Most requests that are kept for one token: whoever posts more is not a kubelet.
const MOST_OF_A_TOKEN: usize = 20;
/// The most that is kept in all: some thousand machines that join at once.
const MOST_IN_ALL: usize = 8 * 1024 * 1024;

/// The requests.
#[derive(Default)]
pub struct Requests {
    /// By token id, then by name. No list is empty.
    lists: HashMap<String, BTreeMap<String, Kept>>,
    /// Token id by name of the request.
    tokens: HashMap<String, String>,
    bytes: usize,
}

struct Kept {
    request: CertificateSigningRequest,
    bytes: usize,
}

impl Requests {
    /// Those made with this token.
    pub fn of(&self, token: &str) -> Vec<CertificateSigningRequest> {
        let list = self.lists.get(token).into_iter().flat_map(BTreeMap::values);
        list.map(|kept| kept.request.clone()).collect()
    }

    /// The request of this name.
    pub fn get(&self, name: &str) -> Option<&CertificateSigningRequest> {
        let list = self.lists.get(self.tokens.get(name)?)?;
        list.get(name).map(|kept| &kept.request)
    }

    /// Keeps a request of `token`, where there is room; whether it is there now.
    pub fn keep(&mut self, token: &str, request: CertificateSigningRequest) -> bool {
        let name = request.name_any();
        self.remove(&name);
        let bytes = size(&request);
        let of_token = self.lists.get(token).map_or(0, BTreeMap::len);
        if bytes > MOST_BYTES || of_token >= MOST_OF_A_TOKEN || self.bytes + bytes > MOST_IN_ALL {
            tracing::debug!(
                request = name,
                bytes,
                of_token,
                "no room for a certificate request"
            );
            return false;
        }
        self.bytes += bytes;
        self.tokens.insert(name.clone(), token.to_owned());
        let list = self.lists.entry(token.to_owned()).or_default();
        list.insert(name, Kept { request, bytes });
        true
    }

    /// Forgets the request of this name.
    pub fn remove(&mut self, name: &str) {
        let Some(token) = self.tokens.remove(name) else {
            return;
        };
        let Some(list) = self.lists.get_mut(&token) else {
            return;
        };
        if let Some(kept) = list.remove(name) {
            self.bytes -= kept.bytes;
        }
        if list.is_empty() {
            self.lists.remove(&token);
        }
    }

    /// Forgets those of this token.
    pub fn remove_all(&mut self, token: &str) {
        for (name, kept) in self.lists.remove(token).into_iter().flatten() {
            self.tokens.remove(&name);
            self.bytes -= kept.bytes;
        }
    }
}

/// Everything about it counts, not only the request itself: labels, annotations and the requester's groups as well.
fn size(request: &CertificateSigningRequest) -> usize {
    serde_json::to_vec(request).map_or(usize::MAX, |text| text.len())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn request(name: &str, bytes: usize) -> CertificateSigningRequest {
        let mut request = CertificateSigningRequest::default();
        request.metadata.name = Some(name.to_owned());
        request.spec.request = ByteString(vec![b'x'; bytes]);
        request
    }

    fn is_empty(requests: &Requests) -> bool {
        requests.lists.is_empty() && requests.tokens.is_empty() && requests.bytes == 0
    }

    #[test]
    fn what_is_answered_leaves_nothing_behind() {
        let mut requests = Requests::default();
        assert!(requests.keep("aaaaaa", request("one", 100)));
        assert!(requests.keep("aaaaaa", request("two", 100)));
        assert!(requests.keep("aaaaaa", request("two", 200)), "it changed");
        assert_eq!(requests.of("aaaaaa").len(), 2);
        assert_eq!(requests.get("two").unwrap().spec.request.0.len(), 200);
        requests.remove("one");
        requests.remove("one");
        requests.remove("two");
        assert!(is_empty(&requests));
        assert!(requests.keep("aaaaaa", request("one", 100)));
        requests.remove_all("aaaaaa");
        assert!(is_empty(&requests));
    }

    #[test]
    fn no_number_and_no_size_of_requests_exhausts_memory() {
        let mut requests = Requests::default();
        assert!(!requests.keep("aaaaaa", request("large", 20_000)));
        let mut annotated = request("annotated", 10);
        annotated
            .annotations_mut()
            .insert("a".to_owned(), "x".repeat(20_000));
        assert!(!requests.keep("aaaaaa", annotated));
        assert!(is_empty(&requests), "what is refused takes no room");
        let kept = (0..50)
            .filter(|n| requests.keep("aaaaaa", request(&format!("a{n}"), 10)))
            .count();
        assert_eq!(kept, MOST_OF_A_TOKEN);
        let kept = (0..5_000)
            .filter(|n| requests.keep(&format!("{n:06}"), request(&format!("b{n}"), 9_000)))
            .count();
        assert!((500..1_000).contains(&kept), "{kept}");
        assert!(requests.bytes <= MOST_IN_ALL && requests.lists.len() == kept + 1);
    }
}
