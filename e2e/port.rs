//! Ports for servers of tests.

use std::net::{IpAddr, TcpListener};

use anyhow::Context as _;

/// Below the ports that the kernel gives to whoever asks for any, outgoing connections included, and below node ports:
/// between the choice and the start of the server, only another test can take it.
const RANGE: std::ops::Range<u16> = 15_000..30_000;

/// A port of `address` that nobody listens on.
///
/// # Errors
/// When none was found.
pub fn free(address: IpAddr) -> anyhow::Result<u16> {
    let mut tries = (0..1000).map(|_| rand::random_range(RANGE));
    tries
        .find(|port| TcpListener::bind((address, *port)).is_ok())
        .with_context(|| format!("{address} has no free port"))
}
