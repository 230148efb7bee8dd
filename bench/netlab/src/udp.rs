//! A UDP echo, and round trips to one.

use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How often a waiting echo looks whether it has been dropped.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Longest datagram that is echoed, in bytes: the longest there is.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// Round trips measured in one call; more are cut off.
const ROUND_TRIPS_MAX: u32 = 1_000_000;

/// A running echo. Dropping it stops it.
#[derive(Debug)]
pub struct Echo {
    stop: Arc<AtomicBool>,
    echoed: Arc<AtomicU64>,
    worker: Option<JoinHandle<()>>,
}

impl Echo {
    /// Datagrams sent back so far.
    pub fn echoed(&self) -> u64 {
        self.echoed.load(Ordering::Relaxed)
    }
}

/// Sends every datagram that `socket` receives back to where it came from. The socket stays in the network namespace it
/// was opened in.
///
/// # Errors
/// If no thread can be started.
pub fn echo(socket: UdpSocket) -> io::Result<Echo> {
    socket.set_read_timeout(Some(LOOK_INTERVAL))?;
    let (stop, echoed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (stopped, count) = (Arc::clone(&stop), Arc::clone(&echoed));
    let worker = thread::Builder::new().name("udp echo".into()).spawn(move || {
        let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
        while !stopped.load(Ordering::Relaxed) {
            // An error is the end of the interval, or an ICMP error that an earlier answer met.
            let Ok((length, peer)) = socket.recv_from(&mut datagram) else { continue };
            if socket.send_to(datagram.get(..length).unwrap_or_default(), peer).is_ok() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    })?;
    Ok(Echo { stop, echoed, worker: Some(worker) })
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

/// Times of round trips.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoundTrips {
    /// Datagrams sent.
    pub sent: u32,
    /// Times of those that came back in time, ascending.
    times: Vec<Duration>,
}

impl RoundTrips {
    /// Datagrams that came back in time.
    pub fn returned(&self) -> usize {
        self.times.len()
    }

    /// The time below which `percent` of the round trips lie (nearest rank); `None` if nothing came back.
    pub fn percentile(&self, percent: u32) -> Option<Duration> {
        let last = self.times.len().checked_sub(1)?;
        let rank = (self.times.len() * percent as usize).div_ceil(100).saturating_sub(1);
        self.times.get(rank.min(last)).copied()
    }

    /// The middle of the times; `None` if nothing came back.
    pub fn median(&self) -> Option<Duration> {
        self.percentile(50)
    }
}

/// Sends `count` numbered datagrams of `payload_bytes` (at least 8) from `socket` to the echo at `addr`, one after the
/// other, each when the last one came back or `limit` has passed without it.
///
/// # Errors
/// If the socket fails for another reason than an ICMP error, which counts as a datagram that did not come back.
pub fn round_trips(
    socket: &UdpSocket,
    addr: SocketAddr,
    count: u32,
    payload_bytes: usize,
    limit: Duration,
) -> io::Result<RoundTrips> {
    let count = count.min(ROUND_TRIPS_MAX);
    let mut payload = vec![0; payload_bytes.clamp(8, DATAGRAM_BYTES_MAX)];
    let mut answer = vec![0; DATAGRAM_BYTES_MAX];
    let mut times = Vec::new();
    for number in 0..u64::from(count) {
        if let Some(head) = payload.first_chunk_mut() {
            *head = number.to_be_bytes();
        }
        let sent = Instant::now();
        if !sent_out(socket.send_to(&payload, addr))? {
            continue;
        }
        times.extend(answered(socket, addr, &payload, &mut answer, sent, limit)?);
    }
    times.sort_unstable();
    Ok(RoundTrips { sent: count, times })
}

/// Waits for the echo of `payload`; echoes of earlier ones, come too late, are passed over.
fn answered(
    socket: &UdpSocket,
    addr: SocketAddr,
    payload: &[u8],
    answer: &mut [u8],
    sent: Instant,
    limit: Duration,
) -> io::Result<Option<Duration>> {
    loop {
        let left = limit.saturating_sub(sent.elapsed());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.recv_from(answer) {
            Ok((length, from)) if from == addr && answer.get(..length) == Some(payload) => {
                return Ok(Some(sent.elapsed()));
            }
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
            Err(error) if is_icmp(&error) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn sent_out(result: io::Result<usize>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if is_icmp(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_icmp(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::PermissionDenied
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets() -> (UdpSocket, UdpSocket, SocketAddr) {
        let (near, far) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let addr = far.local_addr().unwrap();
        (near, far, addr)
    }

    #[test]
    fn datagrams_come_back_in_measured_time() {
        let (near, far, addr) = sockets();
        let echo = echo(far).unwrap();
        let trips = round_trips(&near, addr, 20, 100, Duration::from_secs(2)).unwrap();
        assert_eq!((trips.sent, trips.returned()), (20, 20));
        // The last answer may be here before the echo has counted it.
        let begun = Instant::now();
        while echo.echoed() < 20 && begun.elapsed() < Duration::from_secs(2) {
            std::thread::yield_now();
        }
        assert_eq!(echo.echoed(), 20);
        assert!(trips.percentile(0).unwrap() <= trips.median().unwrap());
        assert!(trips.median().unwrap() <= trips.percentile(100).unwrap());
    }

    #[test]
    fn what_is_not_echoed_is_counted_as_not_returned() {
        let (near, _far, addr) = sockets();
        let trips = round_trips(&near, addr, 2, 8, Duration::from_millis(10)).unwrap();
        assert_eq!((trips.sent, trips.returned(), trips.median()), (2, 0, None));
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let times = (1..=4).map(Duration::from_millis).collect();
        let trips = RoundTrips { sent: 4, times };
        let of = |percent| trips.percentile(percent).unwrap().as_millis();
        assert_eq!([of(0), of(25), of(50), of(51), of(99), of(100), of(1000)], [1, 1, 2, 3, 4, 4, 4]);
    }
}
