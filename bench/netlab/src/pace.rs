//! A flow of datagrams both ways at a steady rate, stamped by its senders and recorded by its receivers: for saying to the
//! millisecond when a flow began to pass, and when its last packet did.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use socket2::SockRef;

/// How often a waiting receiver looks whether it is to stop.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// Pause of a sender between two bursts.
const BURST_EVERY: Duration = Duration::from_micros(500);
/// A sender that was held up sends at most so many at once; what it missed beyond is left out, not made up for.
const BURST_MAX: u64 = 200;
/// Receive buffers, so that a receiver that was held up loses nothing.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
/// A datagram: number and stamp, and some more as real ones have.
const DATAGRAM_BYTES: usize = 64;

/// The time on `CLOCK_MONOTONIC`, which all namespaces of a machine share.
///
/// # Errors
/// What the system says; it never does.
pub fn monotonic() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC)?.into())
}

/// What went one way.
#[derive(Debug, Default)]
pub struct Way {
    sent: AtomicU64,
    received: AtomicU64,
    last_received: AtomicU64,
    last_stamp: AtomicU64,
    /// Numbers of datagrams, plus one, so that zero is none.
    first: AtomicU64,
    highest: AtomicU64,
}

impl Way {
    /// Datagrams sent so far, whether the network took them or not.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    /// Datagrams received so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Acquire)
    }

    /// Datagrams between the first and the newest received that did not arrive, or not yet.
    pub fn missing(&self) -> u64 {
        let (first, highest) = (self.first.load(Ordering::Acquire), self.highest.load(Ordering::Acquire));
        // Read last: what arrives in between is not taken for missing.
        let received = self.received();
        if first == 0 { 0 } else { (highest + 1).saturating_sub(first + received) }
    }

    /// When the last one arrived, on [`monotonic`]'s clock; zero before the first.
    pub fn last_received(&self) -> Duration {
        Duration::from_nanos(self.last_received.load(Ordering::Acquire))
    }

    /// When the last one that arrived was sent.
    pub fn last_stamp(&self) -> Duration {
        Duration::from_nanos(self.last_stamp.load(Ordering::Acquire))
    }
}

/// A flow that goes on until it is dropped, whatever becomes of its datagrams.
#[derive(Debug)]
pub struct Flow {
    up: Arc<Way>,
    down: Arc<Way>,
    sending: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Flow {
    /// Sends `per_second` datagrams each way between `near`, which is connected to `far`'s address, and `far`, which answers
    /// whoever was heard first. Sockets stay in the namespaces that they were opened in.
    ///
    /// # Errors
    /// If a thread cannot be started or a socket not be set up.
    pub fn start(near: UdpSocket, far: UdpSocket, per_second: u32) -> io::Result<Self> {
        let (up, down) = (Arc::new(Way::default()), Arc::new(Way::default()));
        let (sending, stop) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let peer: Arc<OnceLock<SocketAddr>> = Arc::default();
        for socket in [&near, &far] {
            socket.set_read_timeout(Some(LOOK_INTERVAL))?;
            // The kernel may give less.
            drop(SockRef::from(socket).set_recv_buffer_size(RECEIVE_BUFFER_BYTES));
        }
        let (near_too, far_too) = (near.try_clone()?, far.try_clone()?);
        let mut flow = Self { up, down, sending, stop, threads: Vec::new() };
        let heard = Arc::clone(&peer);
        let (up, down) = (Arc::clone(&flow.up), Arc::clone(&flow.down));
        flow.spawn("flow up", move |sending, _| send(sending, &up, per_second, |bytes| drop(near.send(bytes))))?;
        flow.spawn("flow down", move |sending, _| {
            send(sending, &down, per_second, |bytes| {
                if let Some(peer) = peer.get() {
                    drop(far.send_to(bytes, peer));
                }
            });
        })?;
        let (up, down) = (Arc::clone(&flow.up), Arc::clone(&flow.down));
        flow.spawn("flow far", move |_, stop| receive(stop, &far_too, &up, &heard))?;
        flow.spawn("flow near", move |_, stop| receive(stop, &near_too, &down, &OnceLock::new()))?;
        Ok(flow)
    }

    /// From the connected socket to the other.
    pub fn up(&self) -> &Way {
        &self.up
    }

    /// The other way.
    pub fn down(&self) -> &Way {
        &self.down
    }

    /// Ends the sending, while receivers go on: what is under way still arrives.
    pub fn stop_sending(&self) {
        self.sending.store(false, Ordering::Release);
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce(&AtomicBool, &AtomicBool) + Send + 'static) -> io::Result<()> {
        let (sending, stop) = (Arc::clone(&self.sending), Arc::clone(&self.stop));
        self.threads.push(thread::Builder::new().name(name.into()).spawn(move || work(&sending, &stop))?);
        Ok(())
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stop_sending();
        self.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

fn send(sending: &AtomicBool, way: &Way, per_second: u32, send: impl Fn(&[u8])) {
    let Ok(begun) = monotonic() else { return };
    let (mut number, mut skipped) = (0, 0);
    while sending.load(Ordering::Acquire) {
        let Ok(now) = monotonic() else { return };
        let due = (now - begun).as_micros() as u64 * u64::from(per_second) / 1_000_000;
        let burst = due.saturating_sub(number + skipped);
        skipped += burst.saturating_sub(BURST_MAX);
        for _ in 0..burst.min(BURST_MAX) {
            let mut datagram = [0; DATAGRAM_BYTES];
            let stamp = monotonic().unwrap_or(now).as_nanos() as u64;
            datagram[..8].copy_from_slice(&u64::to_be_bytes(number));
            datagram[8..16].copy_from_slice(&stamp.to_be_bytes());
            send(&datagram);
            number += 1;
            way.sent.store(number, Ordering::Release);
        }
        thread::sleep(BURST_EVERY);
    }
}

fn receive(stop: &AtomicBool, socket: &UdpSocket, way: &Way, peer: &OnceLock<SocketAddr>) {
    let mut datagram = [0; DATAGRAM_BYTES];
    while !stop.load(Ordering::Acquire) {
        // An error is the end of the interval, or an ICMP error that an earlier datagram met.
        let Ok((DATAGRAM_BYTES, from)) = socket.recv_from(&mut datagram) else { continue };
        let Ok(now) = monotonic() else { return };
        peer.get_or_init(|| from);
        let field = |at: usize| datagram[at..at + 8].try_into().map(u64::from_be_bytes).unwrap_or_default();
        let (number, stamp) = (field(0) + 1, field(8));
        // One receiver per way, so nothing races.
        let _ = way.first.compare_exchange(0, number, Ordering::AcqRel, Ordering::Acquire);
        way.highest.fetch_max(number, Ordering::AcqRel);
        way.last_stamp.store(stamp, Ordering::Release);
        way.last_received.store(now.as_nanos() as u64, Ordering::Release);
        way.received.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_arrives_whole_and_ends_when_it_is_cut() {
        let far = UdpSocket::bind("127.0.0.1:0").unwrap();
        let near = UdpSocket::bind("127.0.0.1:0").unwrap();
        near.connect(far.local_addr().unwrap()).unwrap();
        let flow = Flow::start(near, far, 5_000).unwrap();
        let limit = monotonic().unwrap() + Duration::from_secs(10);
        while flow.down().received() < 100 && monotonic().unwrap() < limit {
            thread::sleep(Duration::from_millis(5));
        }
        flow.stop_sending();
        thread::sleep(Duration::from_millis(100));
        let (up, down) = (flow.up(), flow.down());
        assert!(down.received() >= 100 && up.received() >= 100);
        assert_eq!((up.sent(), up.missing(), down.missing()), (up.received(), 0, 0));
        assert!(up.last_stamp() <= up.last_received() && up.last_received() <= monotonic().unwrap());
        let received = up.received();
        thread::sleep(Duration::from_millis(50));
        assert_eq!(up.received(), received, "nobody sends any more");
    }
}
