//! Random names.

use std::io;

use ringfort_service::seed;

/// 128 random bits in hexadecimal: a client id (A4), the id of a proof.
pub(crate) fn random_hex() -> io::Result<String> {
    Ok(format!("{:016x}{:016x}", seed()?, seed()?))
}
