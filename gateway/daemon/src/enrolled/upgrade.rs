//! Takes a signed package of a newer version, for an installer that is not this process (K6).
//!
//! The site's own file says whose signature counts, where packages are fetched and where they are laid. The Controller says only
//! which version and which digest it means: neither names a place, and no file that the site's keys have not signed is laid
//! anywhere. The Gateway never replaces its own program: it has no right to, and whoever takes it over gets none.
//!
//! The place has, beside the packages, `SHA256.sig`: lines `SHA256 (file) = digest`, signed as OpenBSD's signify does
//! (`signify -S -e -s release.sec -m SHA256 -x SHA256.sig`). The file's name has the version in it, so that an older package cannot be
//! passed off as a newer one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use aws_lc_rs::constant_time;
use aws_lc_rs::digest::{self, SHA256};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ringfort_proto::api::parse_sha256;
use serde::Deserialize;

use super::operate::NotDone;

/// Name of the signed list.
const LIST: &str = "SHA256.sig";
/// Longest list, in bytes: some hundred lines.
const LIST_BYTES_MAX: u64 = 64 << 10;
/// Longest package, in bytes, unless the file says otherwise.
const PACKAGE_BYTES_MAX: u64 = 256 << 20;
/// Keys that may sign: the one in use, and those that follow it.
const KEYS_MAX: usize = 8;
/// What signify calls Ed25519.
const ALGORITHM: &[u8; 2] = b"Ed";
/// Where the version stands in the file's name.
const VERSION_MARK: &str = "{version}";

/// What the site's file says of upgrades; without it there are none.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Upgrade {
    /// Public keys of whoever releases, as signify writes them: the second line of the `.pub` file.
    keys: Vec<ReleaseKey>,
    /// The folder where packages are found, a mirror's copy or a mount.
    from: PathBuf,
    /// The folder where a package is laid once it is known to be good, and which the installer watches.
    into: PathBuf,
    /// Name of a package, with `{version}` in it.
    file: String,
    /// Longest package, in bytes.
    #[serde(default = "package_bytes_max")]
    bytes_max: u64,
    /// Whether a version that is not newer than this one may be taken.
    #[serde(default)]
    allow_older: bool,
}

const fn package_bytes_max() -> u64 {
    PACKAGE_BYTES_MAX
}

/// An Ed25519 public key with the number by which signatures name it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct ReleaseKey {
    number: [u8; 8],
    key: [u8; 32],
}

impl TryFrom<String> for ReleaseKey {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let wrong = || format!("expected a public key as signify writes it, which begins with RW, found {text:?}");
        let bytes = STANDARD.decode(text.trim()).map_err(|_| wrong())?;
        let (algorithm, rest) = bytes.split_first_chunk().ok_or_else(wrong)?;
        let (number, key) = rest.split_first_chunk().ok_or_else(wrong)?;
        let key = key.try_into().map_err(|_| wrong())?;
        if algorithm != ALGORITHM {
            return Err(wrong());
        }
        Ok(Self { number: *number, key })
    }
}

/// A version: three numbers. What is not yet released has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version([u32; 3]);

impl FromStr for Version {
    type Err = NotDone;

    fn from_str(text: &str) -> Result<Self, NotDone> {
        let wrong = || NotDone::new("upgrade_malformed", format!("expected a version such as 1.2.3, found {text:?}"));
        let number = |part: &str| {
            let is_number = (1..=9).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
            part.parse().ok().filter(|_| is_number && (part == "0" || !part.starts_with('0')))
        };
        let parts: Option<Vec<u32>> = text.split('.').map(number).collect();
        parts.and_then(|parts| parts.try_into().ok()).map(Self).ok_or_else(wrong)
    }
}

impl Upgrade {
    /// What is wrong with it, if anything.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.keys.is_empty() || self.keys.len() > KEYS_MAX {
            return Err(format!("upgrade.keys: expected 1 to {KEYS_MAX} keys, found {}", self.keys.len()));
        }
        let is_name = self.file.matches(VERSION_MARK).count() == 1 && !self.file.contains('/');
        if !is_name || self.file.starts_with('.') {
            return Err(format!(
                "upgrade.file: expected a file's name with {VERSION_MARK} in it, found {:?}",
                self.file
            ));
        }
        for (name, folder) in [("from", &self.from), ("into", &self.into)] {
            if !folder.is_absolute() {
                return Err(format!("upgrade.{name}: expected an absolute path, found {}", folder.display()));
            }
        }
        Ok(())
    }

    /// Takes the package of `version` with this digest, on a Gateway of the version `ours`; gives where it lies.
    pub(super) fn take(&self, version: &str, sha256: &[u8], ours: &str) -> Result<PathBuf, NotDone> {
        let (wanted, running) = (version.parse::<Version>()?, ours.parse::<Version>()?);
        if wanted <= running && !self.allow_older {
            let detail = format!("expected a version newer than {ours}, which runs here, found {version}");
            return Err(NotDone::new("upgrade_not_newer", detail));
        }
        let name = self.file.replace(VERSION_MARK, version);
        let path = self.from.join(LIST);
        let list = read_list(&path).map_err(|error| unreadable(&path, &error))?;
        let listed = self.listed(&list, &name)?;
        if constant_time::verify_slices_are_equal(&listed, sha256).is_err() {
            let detail = format!("expected the digest that is signed for {name}, found another: name the right one");
            return Err(NotDone::new("upgrade_mismatch", detail));
        }
        self.lay(&name, &listed)
    }

    /// The digest that is signed for the file `name`.
    fn listed(&self, list: &[u8], name: &str) -> Result<[u8; 32], NotDone> {
        let unsigned = |detail: String| NotDone::new("upgrade_unsigned", detail);
        let mut parts = list.splitn(3, |byte| *byte == b'\n');
        let (Some(comment), Some(signature), Some(message)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(unsigned(format!("{LIST}: expected a comment, a signature and a list, found less")));
        };
        if !comment.starts_with(b"untrusted comment:") {
            return Err(unsigned(format!("{LIST}: expected a list that signify signed (-S -e), found something else")));
        }
        let signature = STANDARD.decode(signature).unwrap_or_default();
        let (algorithm, number, signature) = match (signature.get(..2), signature.get(2..10), signature.get(10..)) {
            (Some(algorithm), Some(number), Some(signature)) if signature.len() == 64 => (algorithm, number, signature),
            _ => return Err(unsigned(format!("{LIST}: expected a signature of 74 bytes in base64"))),
        };
        let known = self.keys.iter().find(|key| key.number == number && algorithm == ALGORITHM);
        let Some(known) = known else {
            return Err(unsigned(format!("{LIST}: expected a signature by a key of upgrade.keys, found another's")));
        };
        let key = UnparsedPublicKey::new(&ED25519, known.key);
        key.verify(message, signature).map_err(|_| unsigned(format!("{LIST}: the signature is not of this list")))?;
        let text = String::from_utf8_lossy(message);
        let prefix = format!("SHA256 ({name}) = ");
        let digest = text.lines().find_map(|line| line.strip_prefix(&prefix)).and_then(parse_sha256);
        digest.ok_or_else(|| unsigned(format!("{LIST}: expected a line for {name}, found none")))
    }

    /// Copies the package to where the installer finds it, unless it is another or too long.
    fn lay(&self, name: &str, sha256: &[u8; 32]) -> Result<PathBuf, NotDone> {
        let (from, into) = (self.from.join(name), self.into.join(name));
        // Names with a dot in front are none that an installer takes.
        let part = self.into.join(format!(".{name}.part"));
        let source = File::open(&from).map_err(|error| unreadable(&from, &error))?;
        let unwritable = |error: &io::Error| {
            NotDone::new("upgrade_unwritable", format!("{}: {error}; let this Gateway write there", part.display()))
        };
        match fs::remove_file(&part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unwritable(&error)),
            _ => {}
        }
        let target = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&part);
        let target = target.map_err(|error| unwritable(&error))?;
        let done = self.copy(source, target, sha256, name).and_then(|()| {
            fs::rename(&part, &into)
                .and_then(|()| File::open(&self.into)?.sync_all())
                .map_err(|error| unwritable(&error))
        });
        if done.is_err() {
            drop(fs::remove_file(&part));
        }
        done.map(|()| into)
    }

    fn copy(&self, source: File, mut target: File, sha256: &[u8; 32], name: &str) -> Result<(), NotDone> {
        let failed = |error: &io::Error| NotDone::new("upgrade_unreadable", format!("{name}: {error}"));
        let mut source = source.take(self.bytes_max.saturating_add(1));
        let (mut context, mut length, mut buffer) = (digest::Context::new(&SHA256), 0, vec![0; 1 << 20]);
        loop {
            let count = source.read(&mut buffer).map_err(|error| failed(&error))?;
            let piece = &buffer[..count];
            if count == 0 {
                break;
            }
            length += count as u64;
            if length > self.bytes_max {
                let detail = format!("{name}: expected at most {} bytes, found more", self.bytes_max);
                return Err(NotDone::new("upgrade_too_long", detail));
            }
            context.update(piece);
            target.write_all(piece).map_err(|error| failed(&error))?;
        }
        if constant_time::verify_slices_are_equal(context.finish().as_ref(), sha256).is_err() {
            let detail = format!("{name}: expected the package whose digest is signed, found another");
            return Err(NotDone::new("upgrade_mismatch", detail));
        }
        target.sync_all().map_err(|error| failed(&error))
    }
}

fn read_list(path: &Path) -> io::Result<Vec<u8>> {
    let mut list = Vec::new();
    File::open(path)?.take(LIST_BYTES_MAX + 1).read_to_end(&mut list)?;
    if list.len() as u64 > LIST_BYTES_MAX {
        return Err(io::Error::other(format!("expected at most {LIST_BYTES_MAX} bytes, found more")));
    }
    Ok(list)
}

fn unreadable(path: &Path, error: &io::Error) -> NotDone {
    NotDone::new("upgrade_unreadable", format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
    use std::fmt::Write as _;

    use super::*;

    const OURS: &str = "1.2.3";
    const NUMBER: [u8; 8] = *b"release1";

    struct World {
        place: tempfile::TempDir,
        key: Ed25519KeyPair,
        upgrade: Upgrade,
    }

    impl World {
        fn new() -> Self {
            let (place, key) = (tempfile::tempdir().unwrap(), Ed25519KeyPair::generate().unwrap());
            let (from, into) = (place.path().join("from"), place.path().join("into"));
            for folder in [&from, &into] {
                fs::create_dir(folder).unwrap();
            }
            let text = STANDARD.encode([&ALGORITHM[..], &NUMBER, key.public_key().as_ref()].concat());
            let keys = vec![ReleaseKey::try_from(text).unwrap()];
            let file = "ringfort-{version}.deb".to_owned();
            let upgrade = Upgrade { keys, from, into, file, bytes_max: 1_000, allow_older: false };
            upgrade.check().unwrap();
            Self { place, key, upgrade }
        }

        /// Releases packages under these names, and signs the list of what they are said to be.
        fn release(&self, packages: &[(&str, &[u8])]) {
            let mut list = String::new();
            for (name, bytes) in packages {
                fs::write(self.upgrade.from.join(name), bytes).unwrap();
                writeln!(list, "SHA256 ({name}) = {}", hex(&sha256(bytes))).unwrap();
            }
            self.sign(&list, NUMBER);
        }

        fn sign(&self, list: &str, number: [u8; 8]) {
            let signature = [&ALGORITHM[..], &number, self.key.sign(list.as_bytes()).as_ref()].concat();
            let text = format!("untrusted comment: verify with release.pub\n{}\n{list}", STANDARD.encode(signature));
            fs::write(self.upgrade.from.join(LIST), text).unwrap();
        }

        fn take(&self, version: &str, bytes: &[u8]) -> Result<PathBuf, &'static str> {
            self.upgrade.take(version, &sha256(bytes), OURS).map_err(|refused| refused.code)
        }

        fn laid(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.upgrade.into).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        }
    }

    fn sha256(bytes: &[u8]) -> Vec<u8> {
        digest::digest(&SHA256, bytes).as_ref().to_vec()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    // Covers: K6 allow
    #[test]
    fn a_newer_package_that_is_signed_is_laid_for_the_installer() {
        let world = World::new();
        world.release(&[("ringfort-1.2.4.deb", b"new"), ("ringfort-1.10.0.deb", b"newer")]);
        let path = world.take("1.10.0", b"newer").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"newer");
        assert_eq!(world.laid(), ["ringfort-1.10.0.deb"], "nothing else lies there");
        // Again, over what is left of an attempt that was cut short.
        fs::write(world.upgrade.into.join(".ringfort-1.2.4.deb.part"), "half").unwrap();
        world.take("1.2.4", b"new").unwrap();
        assert_eq!(world.laid().len(), 2);
        assert!(world.place.path().exists());
    }

    // Covers: K6 refuse
    #[test]
    fn whatever_is_wrong_with_a_package_nothing_is_laid() {
        let world = World::new();
        world.release(&[
            ("ringfort-1.2.2.deb", b"old"),
            ("ringfort-1.2.3.deb", b"same"),
            ("ringfort-1.2.4.deb", b"new"),
            ("ringfort-1.2.5.deb", &[7; 1_001]),
        ]);
        assert_eq!(world.take("1.2.2", b"old"), Err("upgrade_not_newer"));
        assert_eq!(world.take("1.2.3", b"same"), Err("upgrade_not_newer"));
        assert_eq!(world.take("1.2.4", b"other"), Err("upgrade_mismatch"));
        assert_eq!(world.take("1.2.5", &[7; 1_001]), Err("upgrade_too_long"));
        assert_eq!(world.take("1.2.6", b"new"), Err("upgrade_unsigned"), "it is not in the list");
        for version in ["", "1.2", "1.2.3.4", "1.2.x", "1.2.04", "../../1.2.4", "1.2.9999999999"] {
            assert_eq!(world.take(version, b"new"), Err("upgrade_malformed"), "{version}");
        }
        // The digest is of the list, the bytes are others: the copy is made, and taken away again.
        fs::write(world.upgrade.from.join("ringfort-1.2.4.deb"), "changed").unwrap();
        assert_eq!(world.take("1.2.4", b"new"), Err("upgrade_mismatch"));
        // An older package under a newer name.
        fs::write(world.upgrade.from.join("ringfort-1.2.9.deb"), "old").unwrap();
        assert_eq!(world.take("1.2.9", b"old"), Err("upgrade_unsigned"));
        fs::remove_file(world.upgrade.from.join("ringfort-1.2.4.deb")).unwrap();
        assert_eq!(world.take("1.2.4", b"new"), Err("upgrade_unreadable"));
        assert_eq!(world.laid(), Vec::<String>::new());
    }

    // Covers: K6 refuse
    #[test]
    fn a_list_that_no_key_of_the_site_has_signed_says_nothing() {
        let world = World::new();
        world.release(&[("ringfort-1.2.4.deb", b"new")]);
        let path = world.upgrade.from.join(LIST);
        let good = fs::read_to_string(&path).unwrap();
        let with = |text: &str| {
            fs::write(&path, text).unwrap();
            world.take("1.2.4", b"new")
        };
        assert!(with(&good).is_ok());
        for wrong in [
            good.replace("1.2.4", "1.2.5"),
            format!("{good}\n"),
            good.replace("untrusted comment", "comment"),
            good.lines().take(2).collect::<Vec<_>>().join("\n"),
            good.replacen('\n', "\n=", 1),
            String::new(),
        ] {
            assert_eq!(with(&wrong), Err("upgrade_unsigned"), "{wrong}");
        }
        assert_eq!(with(&format!("{good}{}", "x".repeat(LIST_BYTES_MAX as usize))), Err("upgrade_unreadable"));
        // Another's key, whatever number it gives itself.
        let stranger = World { key: Ed25519KeyPair::generate().unwrap(), ..World::new() };
        let other = World { upgrade: world.upgrade.clone(), ..stranger };
        other.release(&[("ringfort-1.2.4.deb", b"new")]);
        assert_eq!(world.take("1.2.4", b"new"), Err("upgrade_unsigned"));
        world.sign(&format!("SHA256 (ringfort-1.2.4.deb) = {}\n", hex(&sha256(b"new"))), *b"release2");
        assert_eq!(world.take("1.2.4", b"new"), Err("upgrade_unsigned"));
    }

    #[test]
    fn a_site_may_let_older_ones_in() {
        let world = World::new();
        world.release(&[("ringfort-1.2.2.deb", b"old")]);
        let lenient = Upgrade { allow_older: true, ..world.upgrade.clone() };
        assert!(lenient.take("1.2.2", &sha256(b"old"), OURS).is_ok());
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let world = World::new();
        let good = || world.upgrade.clone();
        for (wrong, what) in [
            (Upgrade { keys: Vec::new(), ..good() }, "keys"),
            (Upgrade { file: "ringfort.deb".into(), ..good() }, "file"),
            (Upgrade { file: "../{version}".into(), ..good() }, "file"),
            (Upgrade { file: ".{version}".into(), ..good() }, "file"),
            (Upgrade { from: "here".into(), ..good() }, "from"),
            (Upgrade { into: "there".into(), ..good() }, "into"),
        ] {
            assert!(wrong.check().unwrap_err().contains(what));
        }
        for text in ["", "RWQ", "nonsense", &STANDARD.encode([0; 42]), &STANDARD.encode(b"Ed")] {
            assert!(ReleaseKey::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
