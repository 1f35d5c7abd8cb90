//! A free port of the loopback interface.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};

/// Below the ports the system hands to outgoing connections (Linux: from 32768, macOS: from 49152), so that none of
/// these takes a stopped server's port, and no client that knocks at it ends up connected to itself.
const PORTS: std::ops::Range<u16> = 10_240..32_768;

const ATTEMPTS: usize = 100;

/// A port nobody listens on just now. Somebody may before the server does: the caller has to be ready to try again.
pub(crate) fn free() -> Option<u16> {
    (0..ATTEMPTS).map(|_| random()).find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
}

fn random() -> u16 {
    // The standard library's own source of randomness: each `RandomState` has other keys.
    let number = RandomState::new().build_hasher().finish() % u64::from(PORTS.end - PORTS.start);
    // The remainder is below 22528, so the conversion cannot fail.
    PORTS.start + u16::try_from(number).unwrap_or_default()
}
