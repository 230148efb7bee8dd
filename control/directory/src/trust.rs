//! Whom a connection to a provider trusts: a given CA, or what this machine trusts. Never nobody.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::settings::{SettingsError, read};

/// TLS 1.3 or 1.2 to a server whose name is in its certificate, under the CA in `ca_file`, or under this machine's.
pub(crate) fn tls(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, SettingsError> {
    let roots = match ca_file {
        Some(path) => of_file(path)?,
        None => of_machine(),
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .map_err(|error| SettingsError::Tls(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn of_file(path: &Path) -> Result<RootCertStore, SettingsError> {
    let bad = |why: String| SettingsError::File { path: path.into(), why };
    let bytes = read(path)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|error| bad(format!("expected PEM certificates: {error}")))?;
        roots.add(certificate).map_err(|error| bad(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(bad("expected a PEM certificate, found none".into()));
    }
    Ok(roots)
}

/// This machine's, read once: it has some hundred. A machine without any trusts nobody, and connections say so.
fn of_machine() -> RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    let load = || {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots
    };
    ROOTS.get_or_init(load).clone()
}
