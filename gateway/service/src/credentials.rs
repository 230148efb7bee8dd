//! Credentials from PEM files.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ringfort_identity::{Credentials, Trust};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::file::{FileError, read};

/// Reads a certificate chain, the leaf first, and the leaf's PKCS#8 key. The key file must be readable by its owner only.
///
/// # Errors
/// [`FileError`], naming the file at fault and what was expected in it.
pub fn load(certificate: &Path, key: &Path) -> Result<Credentials, FileError> {
    let chain = read_certificates(certificate)?;
    let mode =
        std::fs::metadata(key).map_err(|source| FileError::Read { path: key.into(), source })?.permissions().mode();
    if mode & 0o077 != 0 {
        let why = format!(
            "expected a private key that only its owner may read, found mode {:03o}; run chmod 600",
            mode & 0o777
        );
        return Err(FileError::Content { path: key.into(), why });
    }
    let private_key = PrivatePkcs8KeyDer::from_pem_slice(&read(key)?)
        .map_err(|error| content(key, format!("expected a PEM private key in PKCS#8 form: {error}")))?;
    Credentials::new(chain, private_key).map_err(|error| content(certificate, error.to_string()))
}

/// Reads a root certificate, and behind it in the same file any intermediates.
///
/// # Errors
/// [`FileError`], naming the file at fault and what was expected in it.
pub fn load_trust(path: &Path) -> Result<Trust, FileError> {
    let mut certificates = read_certificates(path)?.into_iter();
    let root = certificates.next().ok_or_else(|| content(path, "expected a PEM certificate, found none".into()))?;
    Trust::new(&root, certificates).map_err(|error| content(path, error.to_string()))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let bytes = read(path)?;
    let certificates = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    certificates.map_err(|error| content(path, format!("expected PEM certificates: {error}")))
}

fn content(path: &Path, why: String) -> FileError {
    FileError::Content { path: path.into(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("a.pem"), folder.path().join("a.key"));
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(load(&certificate, &key).unwrap_err().to_string().contains("chmod 600"));
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        load(&certificate, &key).unwrap();
        load_trust(&certificate).unwrap();
        std::fs::write(&certificate, "nothing").unwrap();
        assert!(load(&certificate, &key).unwrap_err().to_string().contains("a.pem"));
        assert!(load_trust(&certificate).is_err());
    }
}
