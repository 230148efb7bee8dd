//! The randomness that the machines are given.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// A random seed for tables whose keys outsiders choose.
///
/// # Errors
/// When the kernel gives no randomness.
pub fn seed() -> io::Result<u64> {
    random().map(u64::from_ne_bytes)
}

/// Random bytes.
///
/// # Errors
/// As [`seed`].
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let filled = getrandom(&mut bytes, GetRandomFlags::empty())?;
    if filled < bytes.len() {
        return Err(io::Error::other("the kernel gave too few random bytes"));
    }
    Ok(bytes)
}
