//! Labels or annotations of a row, packed into one allocation. Pure.
//!
//! A `BTreeMap<String, String>` of five entries takes about a kilobyte; an index holds two of them for each of a hundred
//! thousand rows. Keys that the engine writes on everything it makes are one byte here.

use std::{collections::BTreeMap, fmt};

use kamaji_api::labels::{capi, kamaji, ours};

/// Frequent keys, by number. Other keys are spelled out: the list only saves memory.
const FREQUENT: [&str; 14] = [
    kamaji::PROJECT,
    kamaji::NAME,
    kamaji::COMPONENT,
    kamaji::CERTIFICATE_LIFECYCLE,
    kamaji::CHECKSUM,
    capi::CLUSTER_NAME,
    ours::MANAGED_BY,
    ours::DATASTORE,
    ours::DIGEST,
    ours::INPUTS_HASH,
    ours::NOT_BEFORE,
    ours::NOT_AFTER,
    ours::CONTENT_HASH,
    ours::CA_FINGERPRINT,
];
/// Precedes a key that is spelled out.
const SPELLED: u8 = u8::MAX;

/// Keys with values, in no particular order.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Notes(Box<[u8]>);

impl Notes {
    /// Packs those of `map` whose key `keep` accepts.
    pub fn of(map: Option<&BTreeMap<String, String>>, keep: impl Fn(&str) -> bool) -> Self {
        let mut bytes = Vec::new();
        for (key, value) in map.into_iter().flatten().filter(|(key, _)| keep(key)) {
            let frequent = FREQUENT.iter().position(|frequent| frequent == key);
            let number = frequent.and_then(|at| u8::try_from(at).ok()).unwrap_or(SPELLED);
            bytes.push(number);
            if number == SPELLED {
                push(&mut bytes, key);
            }
            push(&mut bytes, value);
        }
        Self(bytes.into_boxed_slice())
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter()
            .find(|(known, _)| *known == key)
            .map(|(_, value)| value)
    }

    /// Whether `key` has a value.
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// All keys with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let (&first, tail) = rest.split_first()?;
            rest = tail;
            let key = match FREQUENT.get(usize::from(first)) {
                Some(key) => key,
                None => pull(&mut rest)?,
            };
            Some((key, pull(&mut rest)?))
        })
    }

    /// The labels or annotations as a map.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        self.iter().map(owned).collect()
    }
}

impl fmt::Debug for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Appends the length, seven bits a byte and the lowest first, and the text.
fn push(bytes: &mut Vec<u8>, text: &str) {
    let mut left = text.len();
    while left >= 0x80 {
        bytes.push(u8::try_from(left & 0x7f).unwrap_or_default() | 0x80);
        left >>= 7;
    }
    bytes.push(u8::try_from(left).unwrap_or_default());
    bytes.extend_from_slice(text.as_bytes());
}

/// Removes from the front what [`push`] appended.
fn pull<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let (mut length, mut shift) = (0_usize, 0);
    loop {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    std::str::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_is_found_whatever_its_key_and_length() {
        let map = BTreeMap::from(
            [
                (kamaji::NAME, "alpha".to_owned()),
                (ours::CONTENT_HASH, "ä".repeat(9000)),
                ("capi-kamaji.io/rare", String::new()),
                ("app", "left out".to_owned()),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
        let notes = Notes::of(Some(&map), |key| key != "app");
        let kept: BTreeMap<_, _> = map.into_iter().filter(|(key, _)| key != "app").collect();
        assert_eq!(notes.to_map(), kept);
        assert_eq!(notes.get(kamaji::NAME), Some("alpha"));
        assert_eq!(notes.get("capi-kamaji.io/rare"), Some(""));
        assert!(!notes.contains_key("app"));
        assert_eq!(Notes::of(None, |_| true), Notes::default());
    }
}
