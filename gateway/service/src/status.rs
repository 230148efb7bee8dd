//! A role's state, asked for on a local socket: connect, read one JSON document to the end.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

/// Largest document that [`query`] takes.
const DOCUMENT_BYTES_MAX: u64 = 16 << 20;
/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
    remove_stale(path)?;
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    std::thread::Builder::new().name("status".into()).spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                // No descriptors left, most likely: others need the core more than we do.
                std::thread::sleep(ACCEPT_PAUSE);
                continue;
            };
            let Some(document) = document() else { return };
            // A reader that went away wants nothing more.
            drop(answer(stream, &document));
        }
    })?;
    Ok(StatusSocket { path: path.into() })
}

/// Removes a socket on which nobody listens any more, and nothing else.
fn remove_stale(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let taken = |what| Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
    if !found.file_type().is_socket() {
        return taken("there is a file of that name, and it is no socket");
    }
    match UnixStream::connect(path) {
        Ok(_) => taken("another process answers there"),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
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
    }

    #[test]
    fn only_a_stale_socket_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let socket = serve(&path, || Some(serde_json::json!({ "a": 2 }))).unwrap();
        assert_eq!(query(&path).unwrap()["a"], 2);
        assert_eq!(serve(&path, || None).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(query(&path).unwrap()["a"], 2, "the first one still answers");
        drop(socket);
        fs::write(&path, "a key, say").unwrap();
        assert_eq!(serve(&path, || None).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "a key, say");
    }
}
