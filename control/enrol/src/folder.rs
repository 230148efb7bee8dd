//! The private folder of a role: key, certificate, trust, and what else it keeps.

use std::borrow::Cow;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::Deref;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ringfort_identity::{ConfigError, Credentials, Hostname, NameError, Role, Side, Trust, VerifyError};
use ringfort_token::{KeyRefused, KeySet};
use ringfort_types::UnixSeconds;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::key::{KeyFailed, PrivateKey};

/// Longest file in a folder. The longest that there is are 100,000 revocations, of some 200 bytes each.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// Names of the files that every role has. A host calls the three that show who it is otherwise ([`super::Folder::of_host`]).
pub mod file {
    /// Who we are ([`super::Identity`]).
    pub const IDENTITY: &str = "identity.toml";
    /// The private key, PKCS#8.
    pub const KEY: &str = "key.pem";
    /// Our certificate chain, the leaf first.
    pub const CHAIN: &str = "chain.pem";
    /// The key and the chain that will follow ours, in one file.
    pub const NEXT: &str = "next.pem";
    /// A chain for our key that will follow ours: what came before keys changed with their certificates.
    pub const NEXT_CHAIN: &str = "chain-next.pem";
    /// Locked by whoever writes several files that belong together; it says nothing.
    pub const LOCK: &str = "lock";
    /// The root, and the intermediates behind it.
    pub const CA: &str = "ca.pem";
    /// Certificates of the keys that sign tokens.
    pub const SIGNERS: &str = "signers.pem";
    /// The root, in the folder of a Controller and of a host (W1).
    pub const ROOT: &str = "rootCA.pem";
    /// A Controller's intermediate.
    pub const INTERMEDIATE: &str = "intermediate.pem";
    /// The key of a Controller's intermediate, PKCS#8.
    pub const INTERMEDIATE_KEY: &str = "intermediate.key";
}

/// What a folder calls the files that show who its owner is.
#[derive(Clone, Debug)]
struct Names {
    key: Cow<'static, str>,
    chain: Cow<'static, str>,
    ca: &'static str,
}

impl Names {
    const USUAL: Self = Self { key: Cow::Borrowed(file::KEY), chain: Cow::Borrowed(file::CHAIN), ca: file::CA };
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrecy {
    /// Its owner only (0600).
    Secret,
    /// Anybody who gets into the folder (0644).
    Public,
}

/// What kind of thing joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A Gateway.
    Gateway,
    /// A user's machine.
    Device,
    /// Another Controller of the same database.
    Controller,
    /// A host that registers itself.
    Host,
    /// A program's machine, whose certificate is its login (X12).
    Service,
    /// A Relay, whose id is its FQDN.
    Relay,
}

/// Who we are, as the Controller said when we joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The organisation's id.
    pub organisation: String,
    /// What we are.
    pub kind: Kind,
    /// A Gateway's id, a device's client id (A4), a host's name.
    pub id: String,
    /// A Gateway's site.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub site: String,
    /// Login name of a device's user.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `host:port` of each Controller.
    pub controllers: Vec<String>,
}

/// What is wrong with a folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Others may look into it.
    #[error("{}: expected a folder that only its owner may enter, found mode {mode:03o}; run chmod 700", path.display())]
    Open {
        /// Which folder.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Somebody has joined with it already (I10).
    #[error("{}: expected a folder with which nobody has joined yet; choose another, or remove this one if that identity is not needed any more", path.display())]
    Taken {
        /// Which folder.
        path: PathBuf,
    },
    /// Nobody has joined with it.
    #[error("{}: nobody has joined with this folder yet; run `ringfort join` or `ringfort login` first", path.display())]
    NotJoined {
        /// Which folder.
        path: PathBuf,
    },
    /// A file is not what it should be.
    #[error("{}: {why}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What was expected and what came.
        why: String,
    },
}

/// A private folder.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    names: Names,
}

/// A folder that no other process, nor another place in this one, has locked. The lock ends when this is dropped, or with the process.
#[derive(Debug)]
pub struct LockedFolder {
    folder: Folder,
    _lock: File,
}

impl Deref for LockedFolder {
    type Target = Folder;

    fn deref(&self) -> &Folder {
        &self.folder
    }
}

impl Folder {
    /// Makes the folder (0700), or takes one that is there, as long as nobody has joined with it.
    ///
    /// # Errors
    /// [`FolderError::Taken`], [`FolderError::Open`], [`FolderError::Io`].
    pub fn create(path: &Path) -> Result<Self, FolderError> {
        let failed = |source| FolderError::Io { path: path.into(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let folder = Self::open(path)?;
        if folder.has(file::IDENTITY) {
            return Err(FolderError::Taken { path: path.into() });
        }
        Ok(folder)
    }

    /// Takes a folder that is there.
    ///
    /// # Errors
    /// [`FolderError::Open`], [`FolderError::Io`].
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let found = fs::metadata(path).map_err(|source| FolderError::Io { path: path.into(), source })?;
        let mode = found.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(FolderError::Open { path: path.into(), mode });
        }
        Ok(Self { path: path.into(), names: Names::USUAL })
    }

    /// The same folder as that of a host, where key, chain and root are called `<hostname>_https.key`, `<hostname>_https.pem` and
    /// `rootCA.pem` (W1).
    #[must_use]
    pub fn of_host(self, hostname: &Hostname) -> Self {
        let names = Names {
            key: format!("{hostname}_https.key").into(),
            chain: format!("{hostname}_https.pem").into(),
            ca: file::ROOT,
        };
        Self { names, ..self }
    }

    /// Takes the folder of somebody who has joined.
    ///
    /// # Errors
    /// [`FolderError::NotJoined`], and as [`Folder::open`] and [`Folder::identity`].
    pub fn open_joined(path: &Path) -> Result<(Self, Identity), FolderError> {
        if !path.join(file::IDENTITY).exists() {
            return Err(FolderError::NotJoined { path: path.into() });
        }
        let folder = Self::open(path)?;
        let identity = folder.identity()?;
        if identity.kind == Kind::Host {
            let hostname = identity.id.parse();
            let hostname = hostname.map_err(|error: NameError| folder.content(file::IDENTITY, error.to_string()))?;
            return Ok((folder.of_host(&hostname), identity));
        }
        Ok((folder, identity))
    }

    /// Locks the folder, waiting while somebody else has it locked: for files that belong together. It keeps out only those who ask.
    ///
    /// # Errors
    /// [`FolderError::Io`].
    pub fn lock(&self) -> Result<LockedFolder, FolderError> {
        // A file of its own, opened for writing: a folder on NFS cannot be locked.
        let path = self.file(file::LOCK);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let lock = lock.and_then(|lock| lock.lock().map(|()| lock));
        let lock = lock.map_err(|source| FolderError::Io { path, source })?;
        Ok(LockedFolder { folder: self.clone(), _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the file `name` is.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whether there is a file of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.file(name).exists()
    }

    /// Writes a file whole: beside, synced, then renamed, so that a crash leaves the old or the new one.
    ///
    /// # Errors
    /// [`FolderError::Io`].
    pub fn write(&self, name: &str, bytes: &[u8], secrecy: Secrecy) -> Result<(), FolderError> {
        self.write_all([(name, bytes, secrecy)])
    }

    /// Writes several files, each whole, in this order; they are on disk when all are written. One that says what it is to say
    /// already stays as it is: most of what a login brings is what the last one brought.
    ///
    /// # Errors
    /// [`FolderError::Io`].
    pub fn write_all<N: AsRef<str>, B: AsRef<[u8]>>(
        &self,
        files: impl IntoIterator<Item = (N, B, Secrecy)>,
    ) -> Result<(), FolderError> {
        for (name, bytes, secrecy) in files {
            let (name, bytes) = (name.as_ref(), bytes.as_ref());
            let mode = match secrecy {
                Secrecy::Secret => 0o600,
                Secrecy::Public => 0o644,
            };
            if !self.is_written(name, bytes, mode) {
                self.replace(name, bytes, mode).map_err(|source| FolderError::Io { path: self.file(name), source })?;
            }
        }
        let synced = File::open(&self.path).and_then(|folder| folder.sync_all());
        synced.map_err(|source| FolderError::Io { path: self.path.clone(), source })
    }

    fn is_written(&self, name: &str, bytes: &[u8], mode: u32) -> bool {
        let has_mode = |found: fs::Metadata| found.is_file() && found.permissions().mode() & 0o777 == mode;
        fs::symlink_metadata(self.file(name)).is_ok_and(has_mode)
            && self.read(name).is_ok_and(|found| **Zeroizing::new(found) == *bytes)
    }

    fn replace(&self, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
        let beside = self.file(&format!(".{name}.new"));
        drop(fs::remove_file(&beside));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, self.file(name))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`FolderError::Io`]; [`FolderError::Content`] for one longer than 32 MiB.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, FolderError> {
        let path = self.file(name);
        let failed = |source| FolderError::Io { path: path.clone(), source };
        let mut bytes = Vec::new();
        let file = File::open(&path).map_err(failed)?;
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(self.content(name, format!("expected at most {FILE_BYTES_MAX} bytes")));
        }
        Ok(bytes)
    }

    /// Reads a file as text.
    ///
    /// # Errors
    /// As [`Folder::read`], and [`FolderError::Content`] when it is no UTF-8.
    pub fn read_text(&self, name: &str) -> Result<String, FolderError> {
        String::from_utf8(self.read(name)?).map_err(|_| self.content(name, "expected UTF-8 text".into()))
    }

    /// Removes a file, if it is there.
    ///
    /// # Errors
    /// [`FolderError::Io`].
    pub fn remove(&self, name: &str) -> Result<(), FolderError> {
        let path = self.file(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(FolderError::Io { path, source }),
            _ => Ok(()),
        }
    }

    /// Gives a file another name, in place of what has that.
    ///
    /// # Errors
    /// [`FolderError::Io`].
    pub fn rename(&self, from: &str, to: &str) -> Result<(), FolderError> {
        let path = self.file(from);
        fs::rename(&path, self.file(to)).map_err(|source| FolderError::Io { path, source })
    }

    /// Who we are.
    ///
    /// # Errors
    /// As [`Folder::read_text`], and [`FolderError::Content`].
    pub fn identity(&self) -> Result<Identity, FolderError> {
        let text = self.read_text(file::IDENTITY)?;
        toml::from_str(&text).map_err(|error| self.content(file::IDENTITY, error.to_string()))
    }

    /// Writes who we are: the last file when joining, so that what is half-joined is not joined.
    ///
    /// # Errors
    /// [`FolderError::Io`].
    pub fn write_identity(&self, identity: &Identity) -> Result<(), FolderError> {
        let text = toml::to_string(identity).map_err(|error| self.content(file::IDENTITY, error.to_string()))?;
        self.write(file::IDENTITY, text.as_bytes(), Secrecy::Public)
    }

    /// The private key. A file that others may read is refused.
    ///
    /// # Errors
    /// As [`Folder::read_text`], and [`FolderError::Content`].
    pub fn key(&self) -> Result<PrivateKey, FolderError> {
        let name = &self.names.key;
        let text = self.read_secret(name)?;
        PrivateKey::from_pem(&text).map_err(|error: KeyFailed| self.content(name, error.to_string()))
    }

    fn read_secret(&self, name: &str) -> Result<Zeroizing<String>, FolderError> {
        let path = self.file(name);
        let found = fs::metadata(&path).map_err(|source| FolderError::Io { path, source })?;
        let mode = found.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let why = format!("expected a key that only its owner may read, found mode {mode:03o}; run chmod 600");
            return Err(self.content(name, why));
        }
        Ok(Zeroizing::new(self.read_text(name)?))
    }

    /// The private key, or a new one where there is none.
    ///
    /// # Errors
    /// As [`Folder::key`].
    pub fn key_or_new(&self) -> Result<PrivateKey, FolderError> {
        let name = &self.names.key;
        if self.has(name) {
            return self.key();
        }
        let key = PrivateKey::generate().map_err(|error: KeyFailed| self.content(name, error.to_string()))?;
        self.write(name, key.to_pem().as_bytes(), Secrecy::Secret)?;
        Ok(key)
    }

    /// Our certificate chain and key.
    ///
    /// # Errors
    /// [`FolderError`], naming the file at fault.
    pub fn credentials(&self) -> Result<Credentials, FolderError> {
        let refused = |error: ConfigError| self.content(&self.names.chain, error.to_string());
        Credentials::new(self.certificates(&self.names.chain)?, self.key()?.to_pkcs8()).map_err(refused)
    }

    /// Keeps a new key with its chain (DER, the leaf first), whole and in one file, until [`Folder::use_next`]. What was kept so before
    /// goes.
    ///
    /// # Errors
    /// [`FolderError::Content`] when the chain is not the key's, and nothing is kept then; [`FolderError::Io`].
    pub fn write_next(&self, key: &PrivateKey, chain: &[CertificateDer<'static>]) -> Result<(), FolderError> {
        let refused = |error: ConfigError| self.content(file::NEXT, error.to_string());
        Credentials::new(chain.to_vec(), key.to_pkcs8()).map_err(refused)?;
        let (key, chain) = (key.to_pem(), to_pem(chain));
        // All at once: a text that grows leaves copies behind.
        let mut text = Zeroizing::new(String::with_capacity(key.len() + chain.len()));
        text.push_str(&key);
        text.push_str(&chain);
        self.write(file::NEXT, text.as_bytes(), Secrecy::Secret)?;
        self.remove(file::NEXT_CHAIN)
    }

    /// The key and the chain that will follow ours, where some are kept.
    ///
    /// # Errors
    /// [`FolderError`], naming the file at fault.
    pub fn next(&self) -> Result<Option<Credentials>, FolderError> {
        Ok(self.read_next()?.map(|(_, credentials)| credentials))
    }

    fn read_next(&self) -> Result<Option<(PrivateKey, Credentials)>, FolderError> {
        let (name, key) = if self.has(file::NEXT) {
            let key = PrivateKey::from_pem(&self.read_secret(file::NEXT)?);
            (file::NEXT, key.map_err(|error: KeyFailed| self.content(file::NEXT, error.to_string()))?)
        } else if self.has(file::NEXT_CHAIN) {
            (file::NEXT_CHAIN, self.key()?)
        } else {
            return Ok(None);
        };
        let credentials = Credentials::new(self.certificates(name)?, key.to_pkcs8());
        let credentials = credentials.map_err(|error: ConfigError| self.content(name, error.to_string()))?;
        Ok(Some((key, credentials)))
    }

    /// Makes the key and the chain that are kept beside ours our own, and gives them. A crash on the way leaves what
    /// [`Folder::finish_next`] finishes: what is kept beside goes last.
    ///
    /// # Errors
    /// [`FolderError`], naming the file at fault; [`FolderError::Content`] when none are kept.
    pub fn use_next(&self) -> Result<Credentials, FolderError> {
        let none = || self.content(file::NEXT, "expected a key and its chain, found no file".into());
        let (key, credentials) = self.read_next()?.ok_or_else(none)?;
        self.write(&self.names.key, key.to_pem().as_bytes(), Secrecy::Secret)?;
        self.write_chain(credentials.chain())?;
        // This one last: with it a change that was cut off is finished.
        self.remove(file::NEXT_CHAIN)?;
        self.remove(file::NEXT)?;
        Ok(credentials)
    }

    /// Finishes what a crash has cut off in [`Folder::use_next`], so that key and chain belong together. To be called first of all by
    /// the one process that the folder is for.
    ///
    /// # Errors
    /// [`FolderError`], naming the file at fault.
    pub fn finish_next(&self) -> Result<(), FolderError> {
        let (key, chain) = (self.key()?, self.certificates(&self.names.chain)?);
        // A next one that cannot be read serves nobody, and is fetched again.
        let Ok(Some(next)) = self.next() else { return Ok(()) };
        if chain == next.chain() || Credentials::new(chain, key.to_pkcs8()).is_err() {
            self.use_next()?;
        }
        Ok(())
    }

    /// Whom to believe: who stands under the root and the intermediates.
    ///
    /// # Errors
    /// [`FolderError`], naming the file at fault.
    pub fn trust(&self) -> Result<Trust, FolderError> {
        let (root, intermediates) = self.ca()?;
        Trust::new(&root, intermediates).map_err(|error| self.content(self.names.ca, error.to_string()))
    }

    /// The root, and the intermediates behind it.
    ///
    /// # Errors
    /// [`FolderError`], naming the file at fault.
    pub fn ca(&self) -> Result<(CertificateDer<'static>, Vec<CertificateDer<'static>>), FolderError> {
        let mut certificates = self.certificates(self.names.ca)?.into_iter();
        let root = certificates.next().ok_or_else(|| self.content(self.names.ca, "expected a certificate".into()))?;
        Ok((root, certificates.collect()))
    }

    /// The keys that sign tokens, those whose certificates stand under `trust` at `now`.
    ///
    /// # Errors
    /// [`FolderError`], naming the file at fault.
    pub fn token_keys(&self, trust: &Trust, now: UnixSeconds) -> Result<KeySet, FolderError> {
        let signers = self.certificates(file::SIGNERS)?;
        token_keys(&signers, trust, now).map_err(|error| self.content(file::SIGNERS, error.to_string()))
    }

    /// The certificates in a PEM file.
    ///
    /// # Errors
    /// As [`Folder::read`], and [`FolderError::Content`].
    pub fn certificates(&self, name: &str) -> Result<Vec<CertificateDer<'static>>, FolderError> {
        let bytes = self.read(name)?;
        let certificates = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
        certificates.map_err(|error| self.content(name, format!("expected PEM certificates: {error}")))
    }

    /// Writes our chain (DER), the leaf first.
    ///
    /// # Errors
    /// [`FolderError::Io`].
    pub fn write_chain<C: AsRef<[u8]>>(&self, chain: impl IntoIterator<Item = C>) -> Result<(), FolderError> {
        self.write_certificates(&self.names.chain, chain)
    }

    /// Writes the root (DER), and the intermediates behind it.
    ///
    /// # Errors
    /// [`FolderError::Io`].
    pub fn write_ca<C: AsRef<[u8]>>(&self, certificates: impl IntoIterator<Item = C>) -> Result<(), FolderError> {
        self.write_certificates(self.names.ca, certificates)
    }

    /// Writes certificates (DER) as PEM.
    ///
    /// # Errors
    /// [`FolderError::Io`].
    pub fn write_certificates<C: AsRef<[u8]>>(
        &self,
        name: &str,
        certificates: impl IntoIterator<Item = C>,
    ) -> Result<(), FolderError> {
        self.write(name, to_pem(certificates).as_bytes(), Secrecy::Public)
    }

    fn content(&self, name: &str, why: String) -> FolderError {
        FolderError::Content { path: self.file(name), why }
    }
}

/// Certificates (DER) as PEM.
pub fn to_pem<C: AsRef<[u8]>>(certificates: impl IntoIterator<Item = C>) -> String {
    let blocks: Vec<pem::Pem> =
        certificates.into_iter().map(|der| pem::Pem::new("CERTIFICATE", der.as_ref())).collect();
    pem::encode_many(&blocks)
}

/// A certificate that is not one of a key that signs tokens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignerRefused {
    /// The certificate does not stand under the CA as a signer.
    #[error(transparent)]
    Certificate(#[from] VerifyError),
    /// Its key is none for tokens.
    #[error(transparent)]
    Key(#[from] KeyRefused),
    /// It cannot be read.
    #[error("expected an X.509 certificate")]
    Form,
}

/// The keys in `signers`, each of whose certificates must stand under `trust` at `now` in the role `signer`. One that has
/// expired is passed over: whoever was away for long may know of others that have not.
///
/// # Errors
/// [`SignerRefused`] for the first that does not stand there, and where all have expired; nothing is believed then.
pub fn token_keys(signers: &[CertificateDer<'_>], trust: &Trust, now: UnixSeconds) -> Result<KeySet, SignerRefused> {
    let (mut keys, mut expired) = (KeySet::default(), None);
    for signer in signers {
        match trust.verify(signer, Side::Signer, Role::Signer, now) {
            Ok(_) => keys.add(&crate::tls::public_key_of(signer).ok_or(SignerRefused::Form)?)?,
            Err(refused) if refused.is_expired() => expired = Some(refused),
            Err(refused) => return Err(refused.into()),
        }
    }
    match expired {
        Some(refused) if keys.is_empty() => Err(refused.into()),
        _ => Ok(keys),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_private_and_files_are_whole() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("state");
        let folder = Folder::create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        folder.write("a", b"one", Secrecy::Secret).unwrap();
        folder.write("a", b"two", Secrecy::Secret).unwrap();
        assert_eq!(folder.read_text("a").unwrap(), "two");
        let mode = || fs::metadata(folder.file("a")).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        fs::set_permissions(folder.file("a"), fs::Permissions::from_mode(0o644)).unwrap();
        folder.write("a", b"two", Secrecy::Secret).unwrap();
        assert_eq!(mode(), 0o600, "the same content with other permissions is not the same file");
        let files = [("a", "two", Secrecy::Secret), ("b", "three", Secrecy::Public)];
        folder.write_all(files).unwrap();
        assert_eq!((folder.read_text("a").unwrap(), folder.read_text("b").unwrap()), ("two".into(), "three".into()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        assert!(Folder::open(&path).unwrap_err().to_string().contains("chmod 700"));
    }

    #[test]
    fn a_folder_is_locked_by_one_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::create(&place.path().join("state")).unwrap();
        let locked = folder.lock().unwrap();
        let other = folder.clone();
        let waits = std::thread::spawn(move || other.lock().unwrap().read_text("a").unwrap());
        locked.write("a", b"whole", Secrecy::Secret).unwrap();
        drop(locked);
        assert_eq!(waits.join().unwrap(), "whole");
        fs::remove_dir_all(folder.path()).unwrap();
        assert!(folder.lock().unwrap_err().to_string().contains("state"));
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::create(&place.path().join("state")).unwrap();
        let key = folder.key_or_new().unwrap();
        assert_eq!(folder.key_or_new().unwrap().thumbprint(), key.thumbprint());
        fs::set_permissions(folder.file(file::KEY), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(folder.key().unwrap_err().to_string().contains("chmod 600"));
    }

    /// A key, and a chain of one certificate for it.
    fn pair() -> (PrivateKey, Vec<CertificateDer<'static>>) {
        let key = PrivateKey::generate().unwrap();
        let pem = rcgen::KeyPair::from_pem(&key.to_pem()).unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&pem).unwrap();
        (key, vec![certificate.der().clone()])
    }

    /// A folder with a pair in use, and another one kept beside it.
    fn with_next(place: &Path) -> (Folder, [(PrivateKey, Vec<CertificateDer<'static>>); 2]) {
        let folder = Folder::create(&place.join("state")).unwrap();
        let [ours, next] = [pair(), pair()];
        folder.write(file::KEY, ours.0.to_pem().as_bytes(), Secrecy::Secret).unwrap();
        folder.write_chain(&ours.1).unwrap();
        folder.write_next(&next.0, &next.1).unwrap();
        (folder, [ours, next])
    }

    fn in_use(folder: &Folder) -> Vec<CertificateDer<'static>> {
        folder.credentials().unwrap().chain().to_vec()
    }

    #[test]
    fn a_next_key_waits_beside_ours_and_follows_it_with_its_chain() {
        let place = tempfile::tempdir().unwrap();
        let (folder, [ours, next]) = with_next(place.path());
        let mode = fs::metadata(folder.file(file::NEXT)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "it has a key in it");
        folder.finish_next().unwrap();
        assert_eq!(in_use(&folder), ours.1, "it waits");
        assert_eq!(folder.use_next().unwrap().chain(), next.1);
        assert_eq!((in_use(&folder), folder.next().unwrap().is_none()), (next.1, true));
        assert_eq!(folder.key().unwrap().thumbprint(), next.0.thumbprint());
        assert!(folder.use_next().unwrap_err().to_string().contains("next.pem"));
        // A chain that is not the key's is not kept, and what was kept stays.
        let [(key, chain), (other, _)] = [pair(), pair()];
        folder.write_next(&key, &chain).unwrap();
        assert!(folder.write_next(&other, &chain).is_err());
        assert_eq!(folder.next().unwrap().unwrap().chain(), chain);
        fs::set_permissions(folder.file(file::NEXT), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(folder.next().unwrap_err().to_string().contains("chmod 600"));
    }

    /// Whatever is written when the power goes: a start finds a key and its own chain.
    #[test]
    fn a_change_that_was_cut_off_is_finished() {
        for (has_key, has_chain) in [(true, false), (false, true), (true, true)] {
            let place = tempfile::tempdir().unwrap();
            let (folder, [_, next]) = with_next(place.path());
            if has_key {
                folder.write(file::KEY, next.0.to_pem().as_bytes(), Secrecy::Secret).unwrap();
            }
            if has_chain {
                folder.write_chain(&next.1).unwrap();
            }
            folder.finish_next().unwrap();
            assert_eq!(in_use(&folder), next.1, "{has_key}, {has_chain}");
            assert!(folder.next().unwrap().is_none(), "{has_key}, {has_chain}");
        }
        // Half of a file beside ours is none of ours.
        let place = tempfile::tempdir().unwrap();
        let (folder, [ours, _]) = with_next(place.path());
        folder.write(file::NEXT, b"-----BEGIN PRIVATE KEY-----", Secrecy::Secret).unwrap();
        folder.finish_next().unwrap();
        assert_eq!(in_use(&folder), ours.1);
    }

    #[test]
    fn a_chain_for_our_key_from_an_earlier_version_follows_ours() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::create(&place.path().join("state")).unwrap();
        let (key, ours) = pair();
        folder.write(file::KEY, key.to_pem().as_bytes(), Secrecy::Secret).unwrap();
        folder.write_chain(&ours).unwrap();
        let pem = rcgen::KeyPair::from_pem(&key.to_pem()).unwrap();
        let params = rcgen::CertificateParams::new(["later".to_owned()]).unwrap();
        let later = vec![params.self_signed(&pem).unwrap().der().clone()];
        folder.write_certificates(file::NEXT_CHAIN, &later).unwrap();
        folder.finish_next().unwrap();
        assert_eq!(in_use(&folder), ours, "it waits");
        folder.use_next().unwrap();
        assert_eq!((in_use(&folder), folder.has(file::NEXT_CHAIN)), (later, false));
        assert_eq!(folder.key().unwrap().thumbprint(), key.thumbprint());
    }

    // Covers: W1 allow
    // Covers: W1 refuse
    #[test]
    fn a_hosts_files_are_called_by_its_name() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("state");
        let hostname = "nas.example".parse().unwrap();
        let folder = Folder::create(&path).unwrap().of_host(&hostname);
        let key = folder.key_or_new().unwrap();
        folder.write_ca([b"root"]).unwrap();
        folder.write_chain([b"leaf"]).unwrap();
        for name in ["nas.example_https.key", "nas.example_https.pem", "rootCA.pem"] {
            assert!(path.join(name).is_file(), "{name}");
        }
        let identity = |id: &str| Identity {
            organisation: "o".into(),
            kind: Kind::Host,
            id: id.into(),
            site: String::new(),
            user: String::new(),
            controllers: Vec::new(),
        };
        folder.write_identity(&identity("nas.example")).unwrap();
        let (folder, _) = Folder::open_joined(&path).unwrap();
        assert_eq!(folder.key().unwrap().thumbprint(), key.thumbprint());
        // Another host's files are none of ours, and a name is no way out of the folder.
        folder.write_identity(&identity("other")).unwrap();
        let error = Folder::open_joined(&path).unwrap().0.credentials().unwrap_err().to_string();
        assert!(error.contains("other_https.pem"), "{error}");
        folder.write_identity(&identity("../other")).unwrap();
        assert!(Folder::open_joined(&path).unwrap_err().to_string().contains("hostname"));
        fs::set_permissions(folder.file("nas.example_https.key"), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(folder.key().unwrap_err().to_string().contains("chmod 600"));
    }

    // Covers: I10 refuse
    #[test]
    fn an_identity_is_never_overwritten() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("state");
        assert!(Folder::open_joined(&path).unwrap_err().to_string().contains("ringfort join"));
        let folder = Folder::create(&path).unwrap();
        let identity = Identity {
            organisation: "o".into(),
            kind: Kind::Gateway,
            id: "g".into(),
            site: "s".into(),
            user: String::new(),
            controllers: vec!["192.0.2.1:443".into()],
        };
        folder.write_identity(&identity).unwrap();
        assert_eq!(Folder::open_joined(&path).unwrap().1, identity);
        assert!(matches!(Folder::create(&path), Err(FolderError::Taken { .. })));
    }
}
