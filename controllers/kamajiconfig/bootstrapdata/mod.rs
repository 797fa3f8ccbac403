//! Bootstrap data: what a machine is given for its first boot. Pure.
//!
//! [`inputs`] holds what it is computed from. [`plan`] decides which files, users, units and commands the machine gets (the
//! types are in [`node`]), with texts from [`join`] and [`kubelet`] and the user's files and users from [`content`].
//! [`render()`] writes a plan in the format that the infrastructure provider passes to the machine, within what [`delivery`]
//! knows of the infrastructure.
//!
//! A new format is a variant of [`Format`], an arm in [`render`](mod@render), and a module beside [`cloudinit`].
//!
//! [`Format`]: kamaji_api::bootstrap::Format

pub mod cloudinit;
pub mod content;
pub mod delivery;
pub mod document;
mod facts;
pub mod inputs;
pub mod join;
pub mod kubelet;
pub mod kubelet_versions;
pub mod node;
pub mod plan;
pub mod render;
pub mod text;

pub use render::render;
