//! A role's state, asked for on a local socket: connect, read one JSON document to the end.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

/// Largest document that [`query`] takes.
const DOCUMENT_BYTES_MAX: u64 = 16 << 20;
/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(5);

/// A socket that answers; the file goes when it is dropped.
#[derive(Debug)]
pub struct StatusSocket {
    path: PathBuf,
}

/// Answers on `path` from a thread of its own with what `document` gives. A stale file of an earlier run is replaced; only
/// the owner may connect.
///
/// # Errors
/// When the socket cannot be made.
pub fn serve(path: &Path, document: impl Fn() -> Option<Value> + Send + 'static) -> io::Result<StatusSocket> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    std::thread::Builder::new().name("status".into()).spawn(move || {
        for stream in listener.incoming() {
            let Some(document) = document() else { return };
            // A reader that went away wants nothing more.
            drop(stream.and_then(|stream| answer(stream, &document)));
        }
    })?;
    Ok(StatusSocket { path: path.into() })
}

fn answer(mut stream: UnixStream, document: &Value) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(document.to_string().as_bytes())
}

/// Asks the role that answers on `path`.
///
/// # Errors
/// When nobody answers within 5 s, or not with JSON.
pub fn query(path: &Path) -> io::Result<Value> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.take(DOCUMENT_BYTES_MAX).read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text)?)
}

impl Drop for StatusSocket {
    fn drop(&mut self) {
        // It may be gone already.
        drop(fs::remove_file(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_goes_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let socket = serve(&path, || Some(serde_json::json!({ "a": 1 }))).unwrap();
        assert_eq!(query(&path).unwrap()["a"], 1);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(socket);
        assert!(query(&path).is_err());
        let replaced = serve(&path, || Some(serde_json::json!({ "a": 2 }))).unwrap();
        assert_eq!(query(&path).unwrap()["a"], 2);
        drop(replaced);
    }
}
