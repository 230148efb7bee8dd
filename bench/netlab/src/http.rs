//! A web server of one page, and a client that tells apart how it failed to get it.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use socket2::SockRef;

/// Connections served at the same time; further ones are closed unanswered.
const CONNECTIONS_MAX: usize = 64;

/// Bytes of a request's head; a longer one is closed unanswered.
const REQUEST_BYTES_MAX: usize = 8 * 1024;

/// Bytes of a whole answer; a longer one is an error.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// How long a connection may say nothing before the server closes it.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct Server {
    listener: Arc<TcpListener>,
    acceptor: Option<JoinHandle<()>>,
}

/// Serves [`page`] to every request on `listener`, which stays in the network namespace it was opened in.
///
/// # Errors
/// If no thread can be started.
pub fn serve(listener: TcpListener, name: &str) -> io::Result<Server> {
    let listener = Arc::new(listener);
    let (accepting, name) = (Arc::clone(&listener), Arc::from(name));
    let acceptor = thread::Builder::new().name(format!("http {name}")).spawn(move || accept(&accepting, &name))?;
    Ok(Server { listener, acceptor: Some(acceptor) })
}

/// The page of the service called `name` as it is served to `peer`: one line.
pub fn page(name: &str, peer: SocketAddr) -> String {
    format!("This is {name}. You come from {}.\n", peer.ip())
}

/// Gets `http://ADDR/` and answers the body. All together takes at most `limit`.
///
/// # Errors
/// See [`HttpError`].
pub fn get(addr: SocketAddr, limit: Duration) -> Result<String, HttpError> {
    let deadline = Instant::now() + limit;
    let mut stream = TcpStream::connect_timeout(&addr, limit)?;
    let request = format!("GET / HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    stream.set_write_timeout(Some(remaining(deadline)?))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        stream.set_read_timeout(Some(remaining(deadline)?))?;
        let length = stream.read(&mut piece)?;
        if length == 0 {
            return body(&answer);
        }
        answer.extend_from_slice(piece.get(..length).unwrap_or_default());
        if answer.len() > ANSWER_BYTES_MAX {
            return Err(HttpError::Malformed("it is too long"));
        }
    }
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The host answered that nobody listens (TCP reset).
    #[error("connection refused")]
    Refused,
    /// There is no route, or a router said that the host or network cannot be reached or that it is prohibited.
    #[error("unreachable: {0}")]
    Unreachable(#[source] io::Error),
    /// Nothing came back within the limit: what a silent drop looks like.
    #[error("timed out")]
    TimedOut,
    /// The answer is no HTTP answer, or is cut short.
    #[error("the answer cannot be understood: {0}")]
    Malformed(&'static str),
    /// The server answered with another status than 200.
    #[error("status {0}")]
    Status(u16),
    /// Anything else.
    #[error("{0}")]
    Other(#[source] io::Error),
}

impl From<io::Error> for HttpError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::Refused,
            // IPv6 reports "administratively prohibited" (RFC 4443, section 3.1) as EACCES.
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::PermissionDenied => {
                Self::Unreachable(error)
            }
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Self::TimedOut,
            _ => Self::Other(error),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Wakes the acceptor, whose accept then fails. An error means that it has ended by itself.
        let _ = SockRef::from(&*self.listener).shutdown(std::net::Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn accept(listener: &TcpListener, name: &Arc<str>) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let (stream, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
            Err(_) => return,
        };
        if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (counted, name) = (Arc::clone(&open), Arc::clone(name));
        let served = thread::Builder::new().spawn(move || {
            // The client sees what went wrong; the server has nobody to tell.
            let _ = answer(stream, &name, peer);
            counted.fetch_sub(1, Ordering::Relaxed);
        });
        if served.is_err() {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn answer(mut stream: TcpStream, name: &str, peer: SocketAddr) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    while !head.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        let length = stream.read(&mut piece)?;
        if length == 0 || head.len() + length > REQUEST_BYTES_MAX {
            return Ok(());
        }
        head.extend_from_slice(piece.get(..length).unwrap_or_default());
    }
    let page = page(name, peer);
    let headers = "Content-Type: text/plain; charset=utf-8\r\nConnection: close";
    write!(stream, "HTTP/1.1 200 OK\r\n{headers}\r\nContent-Length: {}\r\n\r\n{page}", page.len())
}

fn body(answer: &[u8]) -> Result<String, HttpError> {
    let text = std::str::from_utf8(answer).map_err(|_| HttpError::Malformed("it is no text"))?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(HttpError::Malformed("its head does not end"))?;
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
    match status.ok_or(HttpError::Malformed("it has no status"))? {
        200 => {}
        status => return Err(HttpError::Status(status)),
    }
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse::<usize>().ok());
    if length.is_some_and(|length| length != body.len()) {
        return Err(HttpError::Malformed("its length differs from what it says"));
    }
    Ok(body.to_owned())
}

fn remaining(deadline: Instant) -> Result<Duration, HttpError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(HttpError::TimedOut) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    fn loopback() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        (listener, addr)
    }

    #[test]
    fn the_page_names_service_and_peer_until_the_server_is_dropped() {
        let (listener, addr) = loopback();
        let server = serve(listener, "wiki").unwrap();
        assert_eq!(get(addr, LIMIT).unwrap(), "This is wiki. You come from 127.0.0.1.\n");
        drop(server);
        assert!(matches!(get(addr, LIMIT), Err(HttpError::Refused)));
    }

    #[test]
    fn silence_times_out() {
        let (_listener, addr) = loopback();
        assert!(matches!(get(addr, Duration::from_millis(50)), Err(HttpError::TimedOut)));
    }

    #[test]
    fn other_answers_are_told_apart() {
        assert!(matches!(body(b"HTTP/1.1 403 Forbidden\r\n\r\n"), Err(HttpError::Status(403))));
        let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc";
        for text in [&b"nonsense"[..], b"HTTP/1.1 x\r\n\r\n", &[0xff], cut] {
            assert!(matches!(body(text), Err(HttpError::Malformed(_))), "{text:?}");
        }
    }

    #[test]
    fn connections_over_the_limit_are_closed_and_the_server_goes_on() {
        let (listener, addr) = loopback();
        let _server = serve(listener, "wiki").unwrap();
        let held: Vec<TcpStream> = (0..CONNECTIONS_MAX).map(|_| TcpStream::connect(addr).unwrap()).collect();
        assert!(get(addr, LIMIT).is_err());
        drop(held);
        let deadline = Instant::now() + LIMIT;
        while get(addr, LIMIT).is_err() {
            assert!(Instant::now() < deadline, "the server did not recover");
        }
    }
}
