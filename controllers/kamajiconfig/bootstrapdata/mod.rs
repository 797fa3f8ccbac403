//! Bootstrap data: what a machine is given on its first boot. [`plan`] decides what, [`join`] and [`kubelet`] make the
//! texts, [`cloudinit`] puts them into the format that the infrastructure provider hands to the machine. Pure.

pub mod cloudinit;
pub mod inputs;
pub mod join;
pub mod kubelet;
pub mod plan;
pub mod text;
