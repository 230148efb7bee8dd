//! What a gigabyte of UDP costs in CPU time, by backend: receiving with UDP GRO and sending with `UDP_SEGMENT`,
//! over loopback, the sender on core 0 and the receiver on core 1.
//!
//! `cargo run --release -p ringfort-micro --bin udp_blast -- [seconds per run]`
//!
//! Figures are CPU time of the measured thread (`CLOCK_THREAD_CPUTIME_ID`) per 10⁹ payload bytes. On loopback the
//! sender's thread also delivers, so its figure includes the receive path up to the socket.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use ringfort_io::{
    Arrivals, Backend, BackendChoice, Departures, NoDepartures, PacketIo, PortSharing, Send, TunQueue, UdpSocket, Wait,
    Waker, open,
};

const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// Sends per turn.
const BATCH: usize = 16;

/// One kind of traffic.
#[derive(Clone, Copy)]
struct Traffic {
    name: &'static str,
    datagram_bytes: usize,
    /// Datagrams per `UDP_SEGMENT` send.
    segments: usize,
}

const TRAFFIC: [Traffic; 3] = [
    Traffic { name: "46 x 1400 B", datagram_bytes: 1400, segments: 46 },
    Traffic { name: "64 x 64 B", datagram_bytes: 64, segments: 64 },
    Traffic { name: "1400 B singly", datagram_bytes: 1400, segments: 1 },
];

fn main() {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(2);
    let time = Duration::from_secs(seconds);
    println!(
        "{:<14} {:<9} {:>9} {:>13} {:>13} {:>15}",
        "traffic", "backend", "Gbit/s", "CPU s/GB", "ns/datagram", "calls/1000 dg"
    );
    for traffic in TRAFFIC {
        for choice in [BackendChoice::Epoll, BackendChoice::IoUring] {
            let (send, receive) = blast(traffic, choice, time);
            send.print(traffic.name, "send");
            receive.print(traffic.name, "receive");
        }
    }
}

/// What one thread did.
struct Work {
    backend: Backend,
    elapsed: Duration,
    cpu: Duration,
    bytes: u64,
    datagrams: u64,
    system_calls: u64,
}

impl Work {
    fn print(&self, traffic: &str, side: &str) {
        let gigabytes = self.bytes as f64 / 1e9;
        println!(
            "{traffic:<14} {:<9} {:>9.1} {:>13.4} {:>13.1} {:>15.2}  {side}",
            self.backend.to_string(),
            gigabytes * 8.0 / self.elapsed.as_secs_f64(),
            self.cpu.as_secs_f64() / gigabytes,
            self.cpu.as_nanos() as f64 / self.datagrams as f64,
            self.system_calls as f64 * 1e3 / self.datagrams as f64,
        );
    }
}

/// Sends for `time` and receives, on a core each.
fn blast(traffic: Traffic, choice: BackendChoice, time: Duration) -> (Work, Work) {
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    let sink = UdpSocket::bind(any, PortSharing::Exclusive, SOCKET_BUFFER_BYTES).unwrap();
    let to = sink.local_addr().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let waker = Waker::new().unwrap();
    let receiver = {
        let (stop, waker) = (Arc::clone(&stop), waker.clone());
        thread::spawn(move || receive(choice, sink, &waker, &stop))
    };
    let sent = thread::spawn(move || send(traffic, choice, to, time)).join().unwrap();
    stop.store(true, Ordering::Release);
    waker.wake();
    (sent, receiver.join().unwrap())
}

fn send(traffic: Traffic, choice: BackendChoice, to: SocketAddr, time: Duration) -> Work {
    pin(0);
    let udp = UdpSocket::bind(([127, 0, 0, 1], 0).into(), PortSharing::Exclusive, SOCKET_BUFFER_BYTES).unwrap();
    let (mut io, _far) = worker(choice, udp, &Waker::new().unwrap());
    let load = Load { bytes: vec![7; traffic.datagram_bytes * traffic.segments], traffic, to };
    let mut arrivals = Arrivals::new(1, 1);
    measure(&mut *io, |io| {
        let started = Instant::now();
        while started.elapsed() < time {
            io.turn(&load, &mut arrivals, Wait::Poll).unwrap();
        }
        io.counters().datagrams_out * traffic.datagram_bytes as u64
    })
}

fn receive(choice: BackendChoice, sink: UdpSocket, waker: &Waker, stop: &AtomicBool) -> Work {
    pin(1);
    let (mut io, _far) = worker(choice, sink, waker);
    let mut arrivals = Arrivals::new(8, 1);
    measure(&mut *io, |io| {
        let mut bytes = 0;
        while !stop.load(Ordering::Acquire) {
            arrivals.clear();
            io.turn(&NoDepartures, &mut arrivals, Wait::Forever).unwrap();
            bytes += arrivals.outside().map(|(_, batch)| batch.bytes.len() as u64).sum::<u64>();
        }
        bytes
    })
}

/// Runs `body`, which returns the payload bytes it moved.
fn measure(io: &mut dyn PacketIo, body: impl FnOnce(&mut dyn PacketIo) -> u64) -> Work {
    let (started, cpu) = (Instant::now(), thread_time());
    let bytes = body(io);
    let counters = *io.counters();
    Work {
        backend: io.backend(),
        elapsed: started.elapsed(),
        cpu: thread_time() - cpu,
        bytes,
        datagrams: counters.datagrams_in + counters.datagrams_out,
        system_calls: counters.system_calls,
    }
}

/// The far end of the queue must stay open as long as the worker.
fn worker(choice: BackendChoice, udp: UdpSocket, waker: &Waker) -> (Box<dyn PacketIo>, UnixDatagram) {
    let (near, far) = UnixDatagram::pair().unwrap();
    let (io, _) = open(choice, udp, TunQueue::from_fd(near.into()).unwrap(), waker).unwrap();
    (io, far)
}

fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

fn pin(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core).unwrap();
    sched_setaffinity(Pid::from_raw(0), &cores).unwrap();
}

struct Load {
    bytes: Vec<u8>,
    traffic: Traffic,
    to: SocketAddr,
}

impl Departures for Load {
    fn sends(&self) -> usize {
        BATCH
    }

    fn send(&self, _: usize) -> Send<'_> {
        Send { bytes: &self.bytes, segment_bytes: self.traffic.datagram_bytes, to: Some(self.to) }
    }

    fn writes(&self) -> usize {
        0
    }

    fn pieces(&self, _: usize) -> usize {
        0
    }

    fn piece(&self, _: usize, _: usize) -> &[u8] {
        &[]
    }
}
