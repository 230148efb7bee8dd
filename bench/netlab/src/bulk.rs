//! Bulk data over TCP, counted by the receiver.
//!
//! Either side may connect and either may send, so both directions through a stateful firewall can be measured from
//! connections that the client opened. Congestion control is cubic on every socket: measured through namespaces, BBR
//! paces to less than a third of the rate and hides what is being measured.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Bytes handed to the kernel, or taken from it, in one call.
const PIECE_BYTES: usize = 256 * 1024;

/// How long a stream may stand still, or a listener wait, before it is an error.
const STALL_MAX: Duration = Duration::from_secs(5);

/// What a receiver counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Received {
    /// Bytes of payload.
    pub bytes: u64,
    /// Time from the first byte to the end of the stream.
    pub elapsed: Duration,
}

impl Received {
    /// The rate in Gbit/s (10⁹ bits); 0 if nothing came.
    pub fn gbit_per_second(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { self.bytes as f64 * 8.0 / seconds / 1e9 } else { 0.0 }
    }
}

/// Connects to `addr` within `limit`.
///
/// # Errors
/// As [`TcpStream::connect_timeout`]; `ENOENT` or `EPERM` if the kernel has no cubic or does not allow it.
pub fn connect(addr: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    prepare(&socket)?;
    socket.connect_timeout(&addr.into(), limit)?;
    Ok(socket.into())
}

/// Takes the next connection of `listener`.
///
/// # Errors
/// `WouldBlock` or `TimedOut` if none comes within five seconds; otherwise as [`connect`].
pub fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    SockRef::from(listener).set_read_timeout(Some(STALL_MAX))?;
    let (stream, _) = listener.accept()?;
    prepare(&SockRef::from(&stream))?;
    Ok(stream)
}

/// Sends on `stream` for `duration`, then ends the stream in this direction.
///
/// # Errors
/// As [`Write::write`]; `WouldBlock` or `TimedOut` if the other side takes nothing for five seconds.
pub fn send(mut stream: TcpStream, duration: Duration) -> io::Result<()> {
    let piece = vec![0x5a; PIECE_BYTES];
    let deadline = Instant::now() + duration;
    while Instant::now() < deadline {
        match stream.write(&piece) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    stream.shutdown(Shutdown::Write)?;
    // The receiver closes when it has everything. Closing before it would reset what is still under way.
    while stream.read(&mut [0; 64])? > 0 {}
    Ok(())
}

/// Receives on `stream` until its end and counts.
///
/// # Errors
/// As [`Read::read`]; `WouldBlock` or `TimedOut` if nothing comes for five seconds.
pub fn receive(mut stream: TcpStream) -> io::Result<Received> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut bytes = 0;
    let mut started = None;
    loop {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => bytes += length as u64,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        started.get_or_insert_with(Instant::now);
    }
    Ok(Received { bytes, elapsed: started.map_or(Duration::ZERO, |started| started.elapsed()) })
}

fn prepare(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_congestion(b"cubic")?;
    socket.set_read_timeout(Some(STALL_MAX))?;
    socket.set_write_timeout(Some(STALL_MAX))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn rate_is_of_bits() {
        let received = Received { bytes: 250_000_000, elapsed: Duration::from_secs(2) };
        assert!((received.gbit_per_second() - 1.0).abs() < 1e-9);
        assert_eq!(Received { bytes: 0, elapsed: Duration::ZERO }.gbit_per_second(), 0.0);
    }

    #[test]
    fn the_receiver_counts_what_came_over_loopback() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let sender = thread::spawn(move || {
            send(connect(addr, STALL_MAX).unwrap(), Duration::from_millis(50)).unwrap();
        });
        let received = receive(accept(&listener).unwrap()).unwrap();
        sender.join().unwrap();
        assert!(received.bytes >= PIECE_BYTES as u64 && received.elapsed > Duration::ZERO, "{received:?}");
    }

    #[test]
    fn nobody_listening_is_an_error() {
        let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(connect(unused, STALL_MAX).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
}
