//! A rendered plan, and the encodings of contents in it. Pure.

use std::io::Write as _;

use base64::Engine as _;
use flate2::{Compression, GzBuilder};
use zeroize::Zeroizing;

/// A plan in some format.
pub struct Document {
    /// The text that the machine reads.
    pub text: Zeroizing<String>,
    /// Path of each file in it, with the bytes that the file takes.
    pub sizes: Vec<(String, usize)>,
}

/// Compresses without a time and at a fixed level, so that equal bytes give equal bytes.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    // Writing to memory does not fail.
    let _ = writer.write_all(bytes);
    writer.finish().unwrap_or_default()
}

/// Standard base64.
pub fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
