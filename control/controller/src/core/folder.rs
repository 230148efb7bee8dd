//! The state folder: private, and every file in it written whole.
//!
//! Keys may come from elsewhere: systemd hands those to a service that its unit names as credentials, decrypted for it alone
//! (systemd.exec(5), `LoadCredentialEncrypted`). One of a key's name counts instead of the file. The key that signs tokens is not
//! among them: a restore makes a new one, and the old one must not come back.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

/// Largest file that is read: a chain of a few certificates has some kilobytes.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Where systemd puts a service's credentials.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
/// The keys that may be credentials.
const CREDENTIAL_KEYS: [&str; 4] = ["rootCA.key", "intermediate.key", "https.key", "sealing.key"];

/// A state folder.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    credentials: Option<PathBuf>,
}

impl Folder {
    /// Makes the folder, or takes it if it is nobody else's to enter.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("make {}", path.display()))?;
        let mode = fs::metadata(path).with_context(|| format!("look at {}", path.display()))?.permissions().mode();
        if mode & 0o077 != 0 {
            bail!(
                "expected a folder that only its owner may enter, found mode {:o} of {}: chmod 700 it",
                mode & 0o777,
                path.display()
            );
        }
        Ok(Self { path: path.to_owned(), credentials: std::env::var_os(CREDENTIALS).map(PathBuf::from) })
    }

    /// Where the key `name` is, or is to be: with the service's credentials, or in the folder.
    pub(crate) fn key_path(&self, name: &str) -> PathBuf {
        let credential = self.credentials.as_ref().filter(|_| CREDENTIAL_KEYS.contains(&name));
        credential.map(|place| place.join(name)).filter(|path| path.exists()).unwrap_or_else(|| self.path(name))
    }

    /// All of a key's file, if there is one.
    pub(crate) fn read_key(&self, name: &str) -> anyhow::Result<Option<Zeroizing<Vec<u8>>>> {
        read(&self.key_path(name))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A certificate, if there is one.
    pub(crate) fn certificate(&self, name: &str) -> anyhow::Result<Option<CertificateDer<'static>>> {
        let Some(pem) = self.read(name)? else { return Ok(None) };
        let read = CertificateDer::from_pem_slice(&pem);
        read.map(Some)
            .map_err(|error| anyhow::anyhow!("expected a certificate in {}: {error}", self.path(name).display()))
    }

    /// A private key in PKCS#8 form, if there is one.
    pub(crate) fn key(&self, name: &str) -> anyhow::Result<Option<PrivatePkcs8KeyDer<'static>>> {
        let Some(pem) = self.read_key(name)? else { return Ok(None) };
        let read = PrivatePkcs8KeyDer::from_pem_slice(&pem);
        read.map(Some)
            .map_err(|error| anyhow::anyhow!("expected a PKCS#8 key in {}: {error}", self.key_path(name).display()))
    }

    /// Writes a file whole and readable by its owner only: beside its place, synced, then renamed.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        let (path, beside) = (self.path(name), self.path(&format!("{name}.new")));
        let written = || -> std::io::Result<()> {
            // What an earlier attempt left may have another mode, which opening would keep.
            match fs::remove_file(&beside) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            File::open(&self.path)?.sync_all()
        };
        written().with_context(|| format!("write {}", path.display()))
    }

    /// Removes a file, if it is there.
    pub(crate) fn remove(&self, name: &str) -> anyhow::Result<()> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", self.path(name).display()))
            }
            _ => Ok(File::open(&self.path)?.sync_all()?),
        }
    }

    /// All of a file, if there is one.
    pub(crate) fn read(&self, name: &str) -> anyhow::Result<Option<Zeroizing<Vec<u8>>>> {
        read(&self.path(name))
    }
}

/// All of a file, if there is one.
fn read(path: &Path) -> anyhow::Result<Option<Zeroizing<Vec<u8>>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.with_context(|| format!("open {}", path.display()))?,
    };
    let mut content = Zeroizing::new(Vec::new());
    file.take(FILE_BYTES_MAX).read_to_end(&mut content).with_context(|| format!("read {}", path.display()))?;
    Ok(Some(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_a_credential_counts_instead_of_the_file() {
        let place = tempfile::tempdir().unwrap();
        let credentials = place.path().join("credentials");
        fs::create_dir(&credentials).unwrap();
        let own = Folder { credentials: None, ..Folder::open(&place.path().join("state")).unwrap() };
        let folder = Folder { credentials: Some(credentials.clone()), ..own.clone() };
        let read = |folder: &Folder, name| folder.read_key(name).unwrap().map(|content| content.to_vec());
        assert_eq!(read(&folder, "sealing.key"), None);
        folder.write("sealing.key", b"own").unwrap();
        assert_eq!(read(&folder, "sealing.key").unwrap(), b"own");
        for name in ["sealing.key", "signer.key", "rootCA.pem"] {
            fs::write(credentials.join(name), "credential").unwrap();
        }
        assert_eq!(read(&folder, "sealing.key").unwrap(), b"credential");
        assert_eq!(read(&own, "sealing.key").unwrap(), b"own");
        assert_eq!(read(&folder, "signer.key"), None, "a restore must be able to replace it");
        assert_eq!(folder.certificate("rootCA.pem").unwrap(), None, "no certificate is a credential");
        // What is there and is no key is an error, and not passed over for the file.
        fs::write(credentials.join("https.key"), "nothing").unwrap();
        let error = folder.key("https.key").unwrap_err().to_string();
        assert!(error.contains("credentials/https.key"), "{error}");
    }
}
