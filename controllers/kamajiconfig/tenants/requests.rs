//! Certificate requests that nobody has decided about yet, by the token that authenticated them. Clients of the workload
//! cluster can create many and large ones, so that number and size are bounded here. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kamaji_api::labels::ours;
use kube::ResourceExt as _;

use crate::{kamajiconfig::token, tenant::bootstrap_role::CLIENT_SIGNER};

/// Largest request in bytes: that of a kubelet has two or three kilobytes.
pub const MOST_BYTES: usize = 16 * 1024;
/// Most requests that are kept for a token of one Machine, or of no known config: a kubelet creates fewer.
const MOST_OF_A_MACHINE: usize = 20;
/// How many are kept at least for a token that machines share: a pool may grow before its size is known here.
const LEAST_OF_A_POOL: usize = 500;
/// How many are kept for each machine that shares the token.
const EACH_OF_A_POOL: usize = 2;
/// Most bytes that are kept in one workload cluster: some thousand machines that join at once.
const MOST_IN_ALL: usize = 8 * 1024 * 1024;
/// Most bytes that are kept for one token: who has the token of a pool leaves room for the other machines of the cluster.
const MOST_BYTES_OF_A_TOKEN: usize = MOST_IN_ALL / 4;
/// Most tokens of which it is known that requests were left out.
const MOST_INCOMPLETE: usize = 1000;

/// ID of the token that authenticated the request, if that is a token of this provider and nobody has decided about the
/// request yet.
pub fn token_of(request: &CertificateSigningRequest) -> Option<&str> {
    let spec = &request.spec;
    let decided = request.status.as_ref().is_some_and(|status| {
        status.certificate.is_some() || status.conditions.as_ref().is_some_and(|list| !list.is_empty())
    });
    let group = spec
        .groups
        .iter()
        .flatten()
        .any(|group| group == ours::NODE_BOOTSTRAP_GROUP);
    if decided || !group || spec.signer_name != CLIENT_SIGNER {
        return None;
    }
    token::id_of_user(spec.username.as_deref()?)
}

/// Most requests that are kept for one token that so many machines share; one while no config is known for it.
pub fn most_of_a_token(sharers: usize) -> usize {
    match sharers {
        0 | 1 => MOST_OF_A_MACHINE,
        many => LEAST_OF_A_POOL.max(EACH_OF_A_POOL * many),
    }
}

/// The requests.
#[derive(Default)]
pub struct Requests {
    /// By token id, then by name. No list is empty.
    lists: HashMap<String, BTreeMap<String, Entry>>,
    /// Token id by name of the request.
    tokens: HashMap<String, String>,
    bytes: usize,
    /// Ids of tokens with requests that were left out for lack of room.
    incomplete: BTreeSet<String>,
}

struct Entry {
    request: CertificateSigningRequest,
    bytes: usize,
}

/// Whether a request is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Kept {
    /// It is.
    Yes,
    /// Its token has too many, or too large ones.
    TooMany,
    /// All together are too large.
    NoRoom,
    /// It has more than [`MOST_BYTES`].
    TooLarge,
}

impl Requests {
    /// Those of this token.
    pub fn of(&self, token: &str) -> Vec<CertificateSigningRequest> {
        let list = self.lists.get(token).into_iter().flat_map(BTreeMap::values);
        list.map(|kept| kept.request.clone()).collect()
    }

    /// The request of this name.
    pub fn get(&self, name: &str) -> Option<&CertificateSigningRequest> {
        let list = self.lists.get(self.tokens.get(name)?)?;
        list.get(name).map(|kept| &kept.request)
    }

    /// Keeps a request of `token`, of which at most `most` are kept, if it is within the limits.
    pub fn keep(&mut self, token: &str, most: usize, request: CertificateSigningRequest) -> Kept {
        let name = request.name_any();
        self.remove(&name);
        let bytes = size(&request);
        let of_token = self.lists.get(token).map_or(0, BTreeMap::len);
        let is_large = bytes > MOST_BYTES;
        let too_many = of_token >= most || self.bytes_of(token) + bytes > MOST_BYTES_OF_A_TOKEN;
        if is_large || too_many || self.bytes + bytes > MOST_IN_ALL {
            tracing::debug!(
                request = name,
                bytes,
                of_token,
                "ignores a certificate request beyond the limits"
            );
            if is_large {
                return Kept::TooLarge;
            }
            if self.incomplete.len() < MOST_INCOMPLETE {
                self.incomplete.insert(token.to_owned());
            }
            return if too_many { Kept::TooMany } else { Kept::NoRoom };
        }
        self.bytes += bytes;
        self.tokens.insert(name.clone(), token.to_owned());
        let list = self.lists.entry(token.to_owned()).or_default();
        list.insert(name, Entry { request, bytes });
        Kept::Yes
    }

    /// Tokens with requests that were left out.
    pub fn incomplete(&self) -> impl Iterator<Item = &str> {
        self.incomplete.iter().map(String::as_str)
    }

    /// There is room for half of what `token` may have, and for a quarter of what all may have.
    pub fn has_room(&self, token: &str, most: usize) -> bool {
        let of_token = self.lists.get(token).map_or(0, BTreeMap::len);
        of_token * 2 <= most
            && self.bytes_of(token) * 2 <= MOST_BYTES_OF_A_TOKEN
            && self.bytes * 4 <= MOST_IN_ALL * 3
    }

    fn bytes_of(&self, token: &str) -> usize {
        let list = self.lists.get(token).into_iter().flat_map(BTreeMap::values);
        list.map(|kept| kept.bytes).sum()
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
        self.incomplete.remove(token);
        for (name, kept) in self.lists.remove(token).into_iter().flatten() {
            self.tokens.remove(&name);
            self.bytes -= kept.bytes;
        }
    }
}

/// Size of all of it, with labels, annotations and the groups of the client.
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
    fn answered_requests_are_forgotten() {
        let mut requests = Requests::default();
        assert_eq!(
            requests.keep("aaaaaa", MOST_OF_A_MACHINE, request("one", 100)),
            Kept::Yes
        );
        assert_eq!(
            requests.keep("aaaaaa", MOST_OF_A_MACHINE, request("two", 100)),
            Kept::Yes
        );
        assert_eq!(
            requests.keep("aaaaaa", MOST_OF_A_MACHINE, request("two", 200)),
            Kept::Yes,
            "it changed"
        );
        assert_eq!(requests.of("aaaaaa").len(), 2);
        assert_eq!(requests.get("two").unwrap().spec.request.0.len(), 200);
        requests.remove("one");
        requests.remove("one");
        requests.remove("two");
        assert!(is_empty(&requests));
        assert_eq!(
            requests.keep("aaaaaa", MOST_OF_A_MACHINE, request("one", 100)),
            Kept::Yes
        );
        requests.remove_all("aaaaaa");
        assert!(is_empty(&requests));
    }

    #[test]
    fn requests_that_were_left_out_are_remembered_by_their_token_until_there_is_room() {
        let mut requests = Requests::default();
        for number in 0..=LEAST_OF_A_POOL {
            let kept = requests.keep("aaaaaa", most_of_a_token(2), request(&format!("r{number}"), 10));
            assert_eq!(kept == Kept::Yes, number < LEAST_OF_A_POOL);
        }
        assert_eq!(requests.incomplete().collect::<Vec<_>>(), ["aaaaaa"]);
        assert!(!requests.has_room("aaaaaa", most_of_a_token(2)));
        assert!(
            requests.has_room("aaaaaa", most_of_a_token(LEAST_OF_A_POOL)),
            "the pool has grown"
        );
        for number in 0..LEAST_OF_A_POOL / 2 {
            requests.remove(&format!("r{number}"));
        }
        assert!(
            requests.has_room("aaaaaa", most_of_a_token(2)),
            "half of them was answered"
        );
        requests.remove_all("aaaaaa");
        assert_eq!(requests.incomplete().count(), 0);
        for number in 0..2 * MOST_INCOMPLETE {
            let _ = requests.keep(&number.to_string(), 0, request("r", 10));
        }
        assert_eq!(requests.incomplete().count(), MOST_INCOMPLETE);
    }

    #[test]
    fn who_has_both_tokens_of_a_pool_leaves_room_for_the_machines_of_others() {
        let mut requests = Requests::default();
        for token in ["former", "latest"] {
            let most = most_of_a_token(1_000);
            let last = (0..most)
                .map(|number| requests.keep(token, most, request(&format!("{token}-{number}"), 9_000)))
                .last();
            assert_eq!(last, Some(Kept::TooMany));
        }
        let other = requests.keep("others", MOST_OF_A_MACHINE, request("m", 3_000));
        assert_eq!(other, Kept::Yes);
        assert!(requests.has_room("others", MOST_OF_A_MACHINE));
        // Machines of a large pool that ask at once, with requests as kubelets make them.
        let kept = (0..600).filter(|number| {
            let request = request(&format!("honest-{number}"), 1_000);
            requests.keep("honest", most_of_a_token(600), request) == Kept::Yes
        });
        assert_eq!(kept.count(), 600);
    }

    #[test]
    fn number_and_size_of_requests_are_bounded() {
        let mut requests = Requests::default();
        let keep = |requests: &mut Requests, request| requests.keep("aaaaaa", MOST_OF_A_MACHINE, request);
        assert_eq!(keep(&mut requests, request("large", 20_000)), Kept::TooLarge);
        let mut annotated = request("annotated", 10);
        annotated
            .annotations_mut()
            .insert("a".to_owned(), "x".repeat(20_000));
        assert_eq!(keep(&mut requests, annotated), Kept::TooLarge);
        assert!(is_empty(&requests), "what is ignored takes no memory");
        let kept = (0..50)
            .filter(|n| keep(&mut requests, request(&format!("a{n}"), 10)) == Kept::Yes)
            .count();
        assert_eq!(kept, MOST_OF_A_MACHINE);
        let kept = (0..5_000)
            .filter(|n| {
                let request = request(&format!("b{n}"), 9_000);
                requests.keep(&format!("{n:06}"), MOST_OF_A_MACHINE, request) == Kept::Yes
            })
            .count();
        assert!((500..1_000).contains(&kept), "{kept}");
        assert!(requests.bytes <= MOST_IN_ALL && requests.lists.len() == kept + 1);
    }
}
