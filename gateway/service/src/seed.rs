//! The randomness that the machines are given.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

/// A random seed for tables whose keys outsiders choose.
///
/// # Errors
/// When the kernel gives no randomness.
pub fn seed() -> io::Result<u64> {
    let mut bytes = [0; 8];
    let filled = getrandom(&mut bytes, GetRandomFlags::empty())?;
    if filled < bytes.len() {
        return Err(io::Error::other("the kernel gave too few random bytes"));
    }
    Ok(u64::from_ne_bytes(bytes))
}
