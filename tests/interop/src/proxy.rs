//! A bad network on loopback: datagrams are lost, doubled, delayed past others, or too long, by a seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;

/// What the network does.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    pub seed: u64,
    pub loss_percent: u64,
    pub double_percent: u64,
    /// So many are held back for 20 to 80 ms, in which others overtake them.
    pub delay_percent: u64,
    /// Longer datagrams vanish.
    pub datagram_bytes_max: usize,
}

/// A network between one client and one server, for as long as it is kept.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    diary: Diary,
    thread: Option<JoinHandle<()>>,
}

/// What became of each datagram, one line each.
type Diary = Arc<Mutex<Vec<String>>>;

/// Lines past this are not kept.
const DIARY_LINES_MAX: usize = 500;

impl Proxy {
    /// A network in front of `server`.
    pub fn start(server: SocketAddr, weather: Weather) -> Result<Self> {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        front.set_read_timeout(Some(Duration::from_millis(1)))?;
        back.set_read_timeout(Some(Duration::from_millis(1)))?;
        let address = front.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let diary = Diary::default();
        let (stopped, written) = (Arc::clone(&stop), Arc::clone(&diary));
        let thread = std::thread::spawn(move || carry(&front, &back, server, weather, &stopped, &written));
        Ok(Self { address, stop, diary, thread: Some(thread) })
    }

    /// Where clients send to.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What became of each datagram so far.
    pub fn diary(&self) -> String {
        self.diary.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// When, in which order, to the server or not, what.
type Due = Reverse<(Instant, u64, bool, Vec<u8>)>;

fn carry(front: &UdpSocket, back: &UdpSocket, server: SocketAddr, weather: Weather, stop: &AtomicBool, diary: &Diary) {
    let began = Instant::now();
    let write = |is_up: bool, datagram: &[u8], fate: &str| {
        let mut diary = diary.lock().unwrap_or_else(PoisonError::into_inner);
        if diary.len() < DIARY_LINES_MAX {
            let start: String = datagram.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
            let (at, way) = (began.elapsed().as_millis(), if is_up { "up" } else { "down" });
            diary.push(format!("{at:6} ms {way:4} {:5} bytes {start} {fate}", datagram.len()));
        }
    };
    let mut chance = Chance(weather.seed);
    let mut client = None;
    let mut due: BinaryHeap<Due> = BinaryHeap::new();
    let mut count = 0;
    let mut buffer = vec![0; 65_535];
    while !stop.load(Ordering::Relaxed) {
        for (socket, is_up) in [(front, true), (back, false)] {
            let (length, from) = match socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                // A refusal of an earlier datagram, which is a loss like others.
                Err(_) => continue,
            };
            if is_up {
                client = Some(from);
            }
            let datagram = &buffer[..length];
            if length > weather.datagram_bytes_max {
                write(is_up, datagram, "too long");
                continue;
            }
            if chance.percent() < weather.loss_percent {
                write(is_up, datagram, "lost");
                continue;
            }
            let copies = if chance.percent() < weather.double_percent { 2 } else { 1 };
            for _ in 0..copies {
                let is_late = chance.percent() < weather.delay_percent;
                let delay = if is_late { Duration::from_millis(20 + chance.next() % 60) } else { Duration::ZERO };
                count += 1;
                write(is_up, datagram, &format!("after {} ms", delay.as_millis()));
                due.push(Reverse((Instant::now() + delay, count, is_up, datagram.to_vec())));
            }
        }
        while due.peek().is_some_and(|Reverse((at, ..))| *at <= Instant::now()) {
            let Some(Reverse((_, _, is_up, datagram))) = due.pop() else { break };
            drop(match (is_up, client) {
                (true, _) => back.send_to(&datagram, server),
                (false, Some(client)) => front.send_to(&datagram, client),
                (false, None) => Ok(0),
            });
        }
    }
}

/// Numbers from a seed (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn percent(&mut self) -> u64 {
        self.next() % 100
    }
}
