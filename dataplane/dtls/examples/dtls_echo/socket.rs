//! The socket, the clock and the kernel's randomness: what the engine wants to be given.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringfort_dtls::Randomness;
use ringfort_types::BootInstant;

use crate::Failed;

/// The longest datagram there is.
pub(crate) const DATAGRAM_BYTES_MAX: usize = 65_535;
/// A read waits no longer, so that the time limit is noticed.
const WAIT_MAX: Duration = Duration::from_millis(200);

/// One socket with the time beside it.
pub(crate) struct Socket {
    socket: UdpSocket,
    started: Instant,
    limit: Option<Duration>,
}

impl Socket {
    /// Bound to `address`; the time runs from now, up to `limit`.
    pub(crate) fn bind(address: SocketAddr, limit: Option<Duration>) -> Result<Self, Failed> {
        let socket = UdpSocket::bind(address).map_err(|error| format!("cannot bind to {address}: {error}"))?;
        Ok(Self { socket, started: Instant::now(), limit })
    }

    pub(crate) fn address(&self) -> Result<SocketAddr, Failed> {
        Ok(self.socket.local_addr()?)
    }

    /// The time as the engine counts it, from an hour after zero: it may look back.
    pub(crate) fn now(&self) -> BootInstant {
        BootInstant::from_nanos(3_600_000_000_000) + self.started.elapsed()
    }

    pub(crate) fn unix_time() -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    /// Whether the time limit has passed.
    pub(crate) fn is_time_out(&self) -> bool {
        self.limit.is_some_and(|limit| self.started.elapsed() >= limit)
    }

    /// The next datagram, or `None` when none comes before `until`, if that is given, and in any case soon.
    pub(crate) fn receive(
        &self,
        buffer: &mut [u8],
        until: Option<BootInstant>,
    ) -> Result<Option<(usize, SocketAddr)>, Failed> {
        let wait = until.map_or(WAIT_MAX, |until| until.saturating_since(self.now()).min(WAIT_MAX));
        // A time of zero would wait for ever.
        self.socket.set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
        match self.socket.recv_from(buffer) {
            Ok(received) => Ok(Some(received)),
            // The kernel tells of an ICMP error of an earlier datagram by refusing a read: anybody can send those.
            Err(error) if is_passing(error.kind()) => Ok(None),
            Err(error) => Err(format!("cannot receive: {error}").into()),
        }
    }

    /// Sends one datagram. One that cannot be sent is lost, as any may be.
    pub(crate) fn send(&self, datagram: &[u8], to: SocketAddr) {
        if let Err(error) = self.socket.send_to(datagram, to)
            && !is_passing(error.kind())
        {
            eprintln!("cannot send to {to}: {error}");
        }
    }
}

fn is_passing(kind: ErrorKind) -> bool {
    use ErrorKind::{ConnectionRefused, ConnectionReset, Interrupted, TimedOut, WouldBlock};
    matches!(kind, WouldBlock | TimedOut | Interrupted | ConnectionRefused | ConnectionReset)
}

/// Numbers from the kernel's generator.
pub(crate) fn randomness() -> Result<Randomness, Failed> {
    let mut seed = [0; 32];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut seed))?;
    Ok(Randomness::new(&seed))
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A packet for a person to read: text as it is, other bytes in hexadecimal.
pub(crate) fn readable(packet: &[u8]) -> String {
    match std::str::from_utf8(packet) {
        Ok(text) => format!("text={text:?}"),
        Err(_) => format!("hex={}", hex(packet)),
    }
}
