//! Annotations on Secrets of key material. [`super::policy`] decides from them, without reading the bytes.

pub use kamaji_api::labels::ours::{
    CA_FINGERPRINT, CONTENT_HASH, ENDS_WITH_AUTHORITY, INPUTS_HASH, NOT_AFTER, NOT_BEFORE,
};
