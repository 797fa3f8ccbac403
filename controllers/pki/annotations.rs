//! Annotations written beside key material, so that nobody has to fetch the bytes to judge them.

pub use kamaji_api::labels::ours::{
    CA_FINGERPRINT, CONTENT_HASH, ENDS_WITH_AUTHORITY, INPUTS_HASH, NOT_AFTER, NOT_BEFORE,
};
