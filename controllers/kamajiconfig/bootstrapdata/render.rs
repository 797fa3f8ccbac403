//! The one way from a plan to bootstrap data, whatever its format. Pure, and byte-deterministic: the same plan always
//! gives the same bytes.

use data_encoding::HEXLOWER;
use kamaji_api::bootstrap::Format;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{
    cloudinit,
    document::{Document, gzip},
    inputs::RenderError,
    node::NodePlan,
};

/// Largest bootstrap data in bytes. A Secret holds 1 MiB (<https://kubernetes.io/docs/concepts/configuration/secret/>);
/// the rest is room for its other keys.
pub const LIMIT: usize = 1_000_000;

/// Bootstrap data and its figures.
pub struct Rendered {
    /// The data in its format.
    pub text: Zeroizing<String>,
    /// SHA-256 of `text`, hexadecimal.
    pub sha256: String,
    /// Size of `text` in bytes, compressed with gzip.
    pub gzip_bytes: usize,
}

/// Whether bootstrap data can be written in this format.
///
/// # Errors
/// The format to use instead.
pub const fn is_supported(format: Format) -> Result<(), &'static str> {
    match format {
        Format::CloudConfig => Ok(()),
        Format::Ignition => Err("format: ignition is not supported yet; use cloud-config"),
    }
}

/// Renders `plan` in `format`, within [`LIMIT`].
///
/// # Errors
/// When the format is not supported, the data is too large, or it does not read back as the plan.
pub fn render(format: Format, plan: &NodePlan) -> Result<Rendered, RenderError> {
    within(LIMIT, format, plan)
}

/// Renders `plan` in `format`, in at most `limit` bytes.
///
/// # Errors
/// Those of [`render`].
pub fn within(limit: usize, format: Format, plan: &NodePlan) -> Result<Rendered, RenderError> {
    let Document { text, sizes } = match format {
        Format::CloudConfig => cloudinit::render(plan)?,
        Format::Ignition => return Err(RenderError::Format("ignition")),
    };
    if text.len() > limit {
        return Err(RenderError::TooLarge {
            bytes: text.len(),
            limit,
            largest: largest(sizes),
        });
    }
    Ok(Rendered {
        sha256: HEXLOWER.encode(&Sha256::digest(text.as_bytes())),
        gzip_bytes: gzip(text.as_bytes()).len(),
        text,
    })
}

/// The five largest files, for a message.
pub fn largest(mut sizes: Vec<(String, usize)>) -> String {
    sizes.sort_by(|(path, bytes), (other, than)| than.cmp(bytes).then_with(|| other.cmp(path)));
    let named: Vec<_> = sizes
        .iter()
        .take(5)
        .map(|(path, bytes)| format!("{path} ({bytes})"))
        .collect();
    named.join(", ")
}
