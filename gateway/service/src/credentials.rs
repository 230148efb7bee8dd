//! Credentials from PEM files.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ringfort_dtls::{Credentials, TrustAnchor};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::file::{FileError, read};

/// Reads a leaf certificate and its PKCS#8 key. The key file must be readable by its owner only.
///
/// # Errors
/// [`FileError`], naming the file at fault and what was expected in it.
pub fn load(certificate: &Path, key: &Path) -> Result<Credentials, FileError> {
    let leaf = read_certificate(certificate)?;
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
    Credentials::new(&leaf, private_key).map_err(|error| content(certificate, error.to_string()))
}

/// Reads a CA certificate.
///
/// # Errors
/// [`FileError`], naming the file at fault and what was expected in it.
pub fn load_anchor(path: &Path) -> Result<TrustAnchor, FileError> {
    TrustAnchor::new(&read_certificate(path)?).map_err(|error| content(path, error.to_string()))
}

fn read_certificate(path: &Path) -> Result<CertificateDer<'static>, FileError> {
    CertificateDer::from_pem_slice(&read(path)?)
        .map_err(|error| content(path, format!("expected a PEM certificate: {error}")))
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
        load_anchor(&certificate).unwrap();
        std::fs::write(&certificate, "nothing").unwrap();
        assert!(load(&certificate, &key).unwrap_err().to_string().contains("a.pem"));
        assert!(load_anchor(&certificate).is_err());
    }
}
