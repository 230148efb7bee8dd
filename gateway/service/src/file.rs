//! Reading of small files, bounded before they are parsed.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// Largest configuration or credential file.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Why a file was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is longer than any such file may be.
    #[error("{} is longer than {FILE_BYTES_MAX} bytes; is it the right file?", path.display())]
    TooLong {
        /// Which file.
        path: PathBuf,
    },
    /// It is not what was expected.
    #[error("{}: {why}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What was expected and what came.
        why: String,
    },
}

/// Reads a whole file of at most 4 MiB.
///
/// # Errors
/// [`FileError::Read`], [`FileError::TooLong`].
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let failed = |source| FileError::Read { path: path.into(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(FileError::TooLong { path: path.into() });
    }
    Ok(bytes)
}

/// Reads a TOML file.
///
/// # Errors
/// As [`read`], and [`FileError::Content`] with the place and what is wrong there.
pub fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<T, FileError> {
    let content = |why: String| FileError::Content { path: path.into(), why };
    let text = String::from_utf8(read(path)?).map_err(|_| content("expected UTF-8 text".into()))?;
    toml::from_str(&text).map_err(|error| content(error.to_string()))
}

/// `path` as seen from the folder of `file`: what a configuration file names is relative to itself.
#[must_use]
pub fn beside(file: &Path, path: &Path) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_bounded_and_errors_name_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        assert!(read(&path).unwrap_err().to_string().contains("a.toml"));
        std::fs::write(&path, vec![b' '; FILE_BYTES_MAX as usize + 1]).unwrap();
        assert!(matches!(read(&path), Err(FileError::TooLong { .. })));
        std::fs::write(&path, "x = [").unwrap();
        let error = read_toml::<toml::Table>(&path).unwrap_err().to_string();
        assert!(error.contains("a.toml") && error.contains("line 1"), "{error}");
        std::fs::write(&path, "x = 1").unwrap();
        assert_eq!(read_toml::<toml::Table>(&path).unwrap()["x"].as_integer(), Some(1));
        assert_eq!(beside(&path, Path::new("b.pem")), folder.path().join("b.pem"));
        assert_eq!(beside(&path, Path::new("/etc/b.pem")), Path::new("/etc/b.pem"));
    }
}
