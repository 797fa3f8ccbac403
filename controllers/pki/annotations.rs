//! Annotations written beside key material, so that nobody has to fetch the bytes to judge them.

/// Digest of everything the Secret was made from: names, subjects, usages and the authority.
pub const INPUTS_HASH: &str = "capi-kamaji.io/inputs-hash";
/// Start of validity of what the Secret holds, RFC 3339.
pub const NOT_BEFORE: &str = "capi-kamaji.io/not-before";
/// End of validity of what the Secret holds, RFC 3339. Absent on key pairs without a certificate.
pub const NOT_AFTER: &str = "capi-kamaji.io/not-after";
/// SHA-256 of the authority's certificate: of the one that signed, or of the authority itself where it is stored.
pub const AUTHORITY_FINGERPRINT: &str = "capi-kamaji.io/ca-fingerprint";
/// SHA-256 over the Secret's data: changes exactly when pods that mount it have to see something new.
pub const CONTENT_HASH: &str = "capi-kamaji.io/content-hash";
