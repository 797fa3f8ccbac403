//! The one way from a plan to bootstrap data, whatever its format. Pure, and byte-deterministic: the same plan always
//! gives the same bytes.

use data_encoding::HEXLOWER;
use kamaji_api::{bootstrap::Format, conditions::Reason};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{
    cloudinit,
    delivery::{Delivery, Size},
    document::{Document, gzip},
    inputs::RenderError,
    node::NodePlan,
};

/// Bootstrap data and its figures.
pub struct Rendered {
    /// The data in its format.
    pub text: Zeroizing<String>,
    /// SHA-256 of `text`, hexadecimal.
    pub sha256: String,
    /// Size of `text` in bytes, compressed with gzip.
    pub gzip_bytes: usize,
    /// Its size as the infrastructure counts it.
    pub size: Size,
    /// Fields of `spec.kubelet.config` that the kubelet ignores, each with the fix.
    pub unknown: Vec<String>,
}

impl Rendered {
    /// What works and may surprise, for Events.
    pub fn warnings(&self) -> impl Iterator<Item = (Reason, &str)> {
        let size = self
            .size
            .warning
            .iter()
            .map(|text| (Reason::UserDataNearLimit, text));
        let unknown = self
            .unknown
            .iter()
            .map(|text| (Reason::UnknownKubeletField, text));
        size.chain(unknown).map(|(reason, text)| (reason, text.as_str()))
    }
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

/// Renders `plan` in `format`, as it gets to the machine.
///
/// # Errors
/// When the format is not supported, the data is too large, or it does not read back as the plan.
pub fn render(format: Format, plan: &NodePlan, delivery: &Delivery) -> Result<Rendered, RenderError> {
    let Document { text, sizes } = match format {
        Format::CloudConfig => cloudinit::render(plan, delivery.style)?,
        Format::Ignition => return Err(RenderError::Format("ignition")),
    };
    let gzip_bytes = gzip(text.as_bytes()).len();
    let size = delivery
        .measure(text.len(), gzip_bytes)
        .map_err(|size| RenderError::TooLarge {
            size,
            largest: largest(sizes),
        })?;
    Ok(Rendered {
        sha256: HEXLOWER.encode(&Sha256::digest(text.as_bytes())),
        gzip_bytes,
        text,
        size,
        unknown: Vec::new(),
    })
}

/// The five largest entries, for a message.
pub fn largest(mut sizes: Vec<(String, usize)>) -> String {
    sizes.sort_by(|(path, bytes), (other, than)| than.cmp(bytes).then_with(|| other.cmp(path)));
    let named: Vec<_> = sizes
        .iter()
        .take(5)
        .map(|(path, bytes)| format!("{path} ({bytes})"))
        .collect();
    named.join(", ")
}
