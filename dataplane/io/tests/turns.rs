//! Turns on both backends, over loopback. A pair of Unix datagram sockets stands in for the TUN queue: like it, it
//! carries one frame per read and write; `tun.rs` tests the real one.

#![expect(unsafe_code, reason = "a socket option std does not offer")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::{Duration, Instant};

use common::{Load, on_both_backends};
use ringfort_io::{
    Arrivals, BackendChoice, NoDepartures, PacketIo, PortSharing, SEGMENTS_MAX, SEND_BYTES_MAX, TunQueue, UdpSocket,
    Wait, Waker, open,
};

/// A turn that takes longer blocked although it must not have.
const PROMPT: Duration = Duration::from_secs(2);
/// Far longer than `PROMPT`, so that a wrong wait is seen, and bounded, so that it ends.
const LONG: Wait = Wait::For(Duration::from_secs(10));
const LOOPBACK: &str = "127.0.0.1:0";

/// A worker's end with the far side of its queue.
struct Worker {
    io: Box<dyn PacketIo>,
    address: SocketAddr,
    far: UnixDatagram,
    waker: Waker,
}

impl Worker {
    fn new(choice: BackendChoice) -> Self {
        Self::around(choice, UdpSocket::bind(LOOPBACK.parse().unwrap(), PortSharing::Exclusive, 4 << 20).unwrap())
    }

    fn around(choice: BackendChoice, udp: UdpSocket) -> Self {
        let address = udp.local_addr().unwrap();
        let (near, far) = UnixDatagram::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        let waker = Waker::new().unwrap();
        let (io, refusal) = open(choice, udp, TunQueue::from_fd(near.into()).unwrap(), &waker).unwrap();
        assert_eq!(refusal, None);
        Self { io, address, far, waker }
    }

    /// A turn that must not block.
    fn prompt_turn(&mut self, load: &Load, arrivals: &mut Arrivals, wait: Wait) {
        let started = Instant::now();
        self.io.turn(load, arrivals, wait).unwrap();
        assert!(started.elapsed() < PROMPT, "blocked although something was pending");
    }

    fn write(&mut self, load: &Load) {
        self.prompt_turn(load, &mut Arrivals::new(1, 1), Wait::Poll);
    }

    /// Turns until `datagrams` came in; all of them as (segment size, bytes of a batch).
    fn receive(&mut self, datagrams: u64) -> Vec<(usize, Vec<u8>)> {
        let mut arrivals = Arrivals::new(8, 8);
        let mut all = Vec::new();
        let goal = self.io.counters().datagrams_in + datagrams;
        while self.io.counters().datagrams_in < goal {
            arrivals.clear();
            self.prompt_turn(&Load::default(), &mut arrivals, LONG);
            all.extend(arrivals.outside().map(|(_, batch)| (batch.segment_bytes, batch.bytes.to_vec())));
        }
        all
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 + i / 251) as u8).collect()
}

#[test]
fn a_segmented_send_arrives_as_one_batch_with_equal_bytes() {
    on_both_backends(|choice| {
        let (mut a, mut b) = (Worker::new(choice), Worker::new(choice));
        let bytes = pattern(40 * 1200 + 17);
        a.write(&Load::send(&bytes, 1200, b.address));
        let mut arrivals = Arrivals::new(4, 4);
        b.prompt_turn(&Load::default(), &mut arrivals, LONG);
        let batch = arrivals.outside_slot(0).unwrap();
        assert_eq!((batch.segment_bytes, batch.from), (1200, a.address));
        assert!(batch.bytes == bytes);
        assert_eq!((a.io.counters().sends_out, a.io.counters().datagrams_out), (1, 41));
        assert_eq!((b.io.counters().datagram_batches_in, b.io.counters().datagrams_in), (1, 41));
    });
}

#[test]
fn a_batch_above_the_kernels_limits_is_cut() {
    on_both_backends(|choice| {
        let (mut a, mut b) = (Worker::new(choice), Worker::new(choice));
        // By bytes: 65,507 hold 54 segments of 1,200. By count: 64 of 100.
        for (segment_bytes, per_send) in [(1200, SEND_BYTES_MAX / 1200), (100, SEGMENTS_MAX)] {
            let before = *a.io.counters();
            let bytes = pattern(segment_bytes * 200 + 1);
            a.write(&Load::send(&bytes, segment_bytes, b.address));
            let received: Vec<u8> = b.receive(201).into_iter().flat_map(|(_, bytes)| bytes).collect();
            assert!(received == bytes);
            assert_eq!(a.io.counters().sends_out - before.sends_out, 201usize.div_ceil(per_send) as u64);
        }
    });
}

#[test]
fn singles_of_many_sizes_arrive_in_order() {
    on_both_backends(|choice| {
        let (mut a, mut b) = (Worker::new(choice), Worker::new(choice));
        let datagrams: Vec<_> = [1, 0, 64, 1300, 9000, SEND_BYTES_MAX, 0, 2].map(pattern).into();
        let mut load = Load::default();
        load.sends.extend(datagrams.iter().map(|bytes| (bytes.clone(), bytes.len(), Some(b.address))));
        a.write(&load);
        let received: Vec<_> = b.receive(8).into_iter().map(|(_, bytes)| bytes).collect();
        assert!(received == datagrams);
        assert_eq!((a.io.counters().sends_out, a.io.counters().datagrams_out), (8, 8));
    });
}

#[test]
fn a_frame_of_pieces_is_written_as_one_and_frames_are_read() {
    on_both_backends(|choice| {
        let mut a = Worker::new(choice);
        a.write(&Load::frame(&[b"header", b"", b"first", b"second"]));
        let mut frame = [0; 64];
        let length = a.far.recv(&mut frame).unwrap();
        assert_eq!(&frame[..length], b"headerfirstsecond");

        a.far.send(b"one").unwrap();
        a.far.send(b"two").unwrap();
        let mut arrivals = Arrivals::new(1, 8);
        while arrivals.inside_len() < 2 {
            a.prompt_turn(&Load::default(), &mut arrivals, LONG);
        }
        let frames: Vec<_> = arrivals.inside().map(|(_, frame)| frame.to_vec()).collect();
        assert_eq!(frames, [b"one", b"two"]);
        assert_eq!((a.io.counters().frames_out, a.io.counters().frames_in), (1, 2));
        assert_eq!(a.io.counters().cancelled, 0);
    });
}

#[test]
fn a_burst_of_singles_costs_far_less_than_a_system_call_each() {
    on_both_backends(|choice| {
        let (mut a, mut b) = (Worker::new(choice), Worker::new(choice));
        let mut load = Load::default();
        load.sends.extend((0..1000).map(|_| (pattern(64), 64, Some(b.address))));
        a.write(&load);
        assert_eq!(a.io.counters().datagrams_out, 1000);
        let calls = a.io.counters().system_calls;
        assert!(calls <= 20, "{calls} system calls for 1,000 sends");

        let mut arrivals = Arrivals::new(64, 64);
        while b.io.counters().datagrams_in < 1000 {
            arrivals.clear();
            b.prompt_turn(&Load::default(), &mut arrivals, LONG);
        }
        let calls = b.io.counters().system_calls;
        println!("{}: {calls} system calls for 1,000 datagrams received", b.io.backend());
        assert!(calls <= if choice == BackendChoice::Epoll { 200 } else { 40 }, "{calls} system calls");
    });
}

#[test]
fn what_was_handed_over_is_kept_and_never_waited_beside() {
    on_both_backends(|choice| {
        let mut a = Worker::new(choice);
        let from = "192.0.2.7:9".parse().unwrap();
        let mut arrivals = Arrivals::new(4, 4);
        // Drained and asleep, so that only the hand-over can keep the turn from waiting.
        a.io.turn(&NoDepartures, &mut arrivals, Wait::For(Duration::from_millis(1))).unwrap();
        assert!(arrivals.push_outside(b"foreign", 4, from));
        a.prompt_turn(&Load::default(), &mut arrivals, LONG);
        assert_eq!(arrivals.outside_len(), 1);

        let to_itself = a.address;
        a.prompt_turn(&Load::send(b"own", 3, to_itself), &mut arrivals, LONG);
        let started = Instant::now();
        while arrivals.outside_len() < 2 && started.elapsed() < PROMPT {
            a.prompt_turn(&Load::default(), &mut arrivals, LONG);
        }
        assert_eq!((arrivals.outside_bytes(0), arrivals.outside_bytes(1)), (&b"foreign"[..], &b"own"[..]));

        arrivals.clear();
        assert!(arrivals.push_inside(b"frame"));
        a.far.send(b"read").unwrap();
        a.prompt_turn(&Load::default(), &mut arrivals, LONG);
        assert_eq!((arrivals.inside_bytes(0), arrivals.inside_bytes(1)), (&b"frame"[..], &b"read"[..]));
    });
}

#[test]
fn with_few_slots_nothing_is_lost_or_waited_for() {
    on_both_backends(|choice| {
        let (mut a, mut b) = (Worker::new(choice), Worker::new(choice));
        let mut load = Load::default();
        load.sends.extend((0..5u8).map(|i| (vec![i], 1, Some(b.address))));
        a.write(&load);
        let mut arrivals = Arrivals::new(1, 1);
        let mut seen = Vec::new();
        while seen.len() < 5 {
            arrivals.clear();
            b.prompt_turn(&Load::default(), &mut arrivals, Wait::Forever);
            seen.extend_from_slice(arrivals.outside_bytes(0));
            // All slots are filled: this turn must neither block nor lose what is next.
            b.prompt_turn(&Load::default(), &mut arrivals, Wait::Forever);
        }
        assert_eq!(seen, [0, 1, 2, 3, 4]);
    });
}

#[test]
fn a_wait_ends_in_time_and_does_not_spin() {
    on_both_backends(|choice| {
        let mut a = Worker::new(choice);
        let mut arrivals = Arrivals::new(2, 2);
        let started = Instant::now();
        let mut turns = 0;
        while started.elapsed() < Duration::from_millis(200) {
            a.io.turn(&NoDepartures, &mut arrivals, Wait::For(Duration::from_millis(50))).unwrap();
            turns += 1;
        }
        assert!(started.elapsed() < PROMPT);
        assert!(turns <= 8, "{turns} turns in 200 ms of waits of 50 ms");
        assert!(arrivals.is_empty());

        let started = Instant::now();
        for _ in 0..100 {
            a.io.turn(&NoDepartures, &mut arrivals, Wait::Poll).unwrap();
        }
        assert!(started.elapsed() < Duration::from_millis(500), "Poll must not wait");
    });
}

#[test]
fn a_wake_up_ends_the_current_wait_or_the_next() {
    on_both_backends(|choice| {
        let mut a = Worker::new(choice);
        let mut arrivals = Arrivals::new(2, 2);
        for _ in 0..3 {
            // Before the wait: more than once is as good as once.
            a.waker.wake();
            a.waker.clone().wake();
            a.prompt_turn(&Load::default(), &mut arrivals, LONG);
            // During the wait.
            let waker = a.waker.clone();
            let started = Instant::now();
            let sleeper = thread::spawn(move || {
                thread::sleep(Duration::from_millis(30));
                waker.wake();
            });
            while started.elapsed() < Duration::from_millis(30) {
                a.prompt_turn(&Load::default(), &mut arrivals, Wait::Forever);
            }
            sleeper.join().unwrap();
        }
        // A wake-up is used up by one turn.
        a.io.turn(&NoDepartures, &mut arrivals, Wait::For(Duration::from_millis(1))).unwrap();
        let started = Instant::now();
        for _ in 0..3 {
            a.io.turn(&NoDepartures, &mut arrivals, Wait::For(Duration::from_millis(20))).unwrap();
        }
        assert!(started.elapsed() >= Duration::from_millis(40));
    });
}

#[test]
fn no_wake_up_is_lost_while_senders_and_worker_race() {
    on_both_backends(|choice| {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicU64, Ordering};
        const MESSAGES: u64 = 20_000;
        let mut a = Worker::new(choice);
        let mailbox = Arc::new(AtomicU64::new(0));
        let sender = {
            let (mailbox, waker) = (Arc::clone(&mailbox), a.waker.clone());
            thread::spawn(move || {
                for i in 0..MESSAGES {
                    mailbox.fetch_add(1, Ordering::Relaxed);
                    waker.wake();
                    // Now and then the worker gets the time to fall asleep.
                    if i % 256 == 0 {
                        thread::sleep(Duration::from_micros(200));
                    }
                }
            })
        };
        let mut arrivals = Arrivals::new(1, 1);
        let mut taken = 0;
        while taken < MESSAGES {
            a.prompt_turn(&Load::default(), &mut arrivals, LONG);
            taken += mailbox.swap(0, Ordering::Relaxed);
        }
        sender.join().unwrap();
    });
}

/// An arrival between a receive that finds nothing and the end of its turn must end the next wait. A frame and a
/// datagram a few microseconds apart meet that moment now and then; both must be through before the next pair, so
/// that nothing else helps a lost one out.
#[test]
fn no_arrival_is_overlooked_while_peers_and_worker_race() {
    on_both_backends(|choice| {
        use std::hint::spin_loop;
        use std::sync::Arc;
        use std::sync::atomic::{AtomicU32, Ordering};
        const PAIRS: u32 = 10_000;
        let mut a = Worker::new(choice);
        let through = Arc::new(AtomicU32::new(0));
        let peer = {
            let (through, far, address) = (Arc::clone(&through), a.far.try_clone().unwrap(), a.address);
            thread::spawn(move || {
                let socket = std::net::UdpSocket::bind(LOOPBACK).unwrap();
                let mut random = Random(1);
                for pair in 0..PAIRS {
                    let gap = random.below(4000);
                    if pair % 2 == 0 {
                        far.send(b"frame").unwrap();
                        (0..gap).for_each(|_| spin_loop());
                        socket.send_to(b"datagram", address).unwrap();
                    } else {
                        socket.send_to(b"datagram", address).unwrap();
                        (0..gap).for_each(|_| spin_loop());
                        far.send(b"frame").unwrap();
                    }
                    let sent = Instant::now();
                    while through.load(Ordering::Acquire) <= pair {
                        assert!(sent.elapsed() < 10 * PROMPT, "overlooked");
                        spin_loop();
                    }
                }
            })
        };
        let mut arrivals = Arrivals::new(4, 4);
        let (mut datagrams, mut frames) = (0, 0);
        while datagrams < PAIRS as usize || frames < PAIRS as usize {
            arrivals.clear();
            a.prompt_turn(&Load::default(), &mut arrivals, LONG);
            datagrams += arrivals.outside_len();
            frames += arrivals.inside_len();
            through.store(datagrams.min(frames) as u32, Ordering::Release);
        }
        peer.join().unwrap();
    });
}

#[test]
fn a_dual_stack_socket_speaks_plain_ipv4() {
    on_both_backends(|choice| {
        let Ok(udp) = UdpSocket::bind("[::]:0".parse().unwrap(), PortSharing::ReusePort, 1 << 20) else {
            println!("skipped: no IPv6 here");
            return;
        };
        let mut a = Worker::around(choice, udp);
        let peer = std::net::UdpSocket::bind(LOOPBACK).unwrap();
        peer.set_read_timeout(Some(PROMPT)).unwrap();
        peer.send_to(b"question", ("127.0.0.1", a.address.port())).unwrap();
        let mut arrivals = Arrivals::new(2, 2);
        while arrivals.is_empty() {
            a.prompt_turn(&Load::default(), &mut arrivals, LONG);
        }
        let from = arrivals.outside_slot(0).unwrap().from;
        assert_eq!(from, peer.local_addr().unwrap());
        a.write(&Load::send(b"answer", 6, from));
        let mut answer = [0; 16];
        assert_eq!(peer.recv(&mut answer).unwrap(), 6);
    });
}

#[test]
fn a_refused_connection_is_counted_and_forgotten() {
    on_both_backends(|choice| {
        let closed = std::net::UdpSocket::bind(LOOPBACK).unwrap();
        let nobody = closed.local_addr().unwrap();
        drop(closed);
        let udp = UdpSocket::bind(LOOPBACK.parse().unwrap(), PortSharing::Exclusive, 1 << 20).unwrap();
        udp.connect(nobody).unwrap();
        let mut a = Worker::around(choice, udp);
        let mut load = Load::default();
        load.sends.push((b"hello".to_vec(), 5, None));
        for _ in 0..4 {
            a.write(&load);
        }
        assert!(a.io.counters().remote_errors > 0);
        let peer = std::net::UdpSocket::bind(nobody).unwrap();
        peer.send_to(b"back", a.address).unwrap();
        assert_eq!(a.receive(1), [(4, b"back".to_vec())]);
    });
}

#[test]
fn what_cannot_be_sent_is_dropped_and_counted_by_its_reason() {
    on_both_backends(|choice| {
        let (mut a, mut b) = (Worker::new(choice), Worker::new(choice));
        let mut load = Load::default();
        load.sends.push((pattern(SEND_BYTES_MAX + 1), 0, Some(b.address)));
        load.sends.push((b"to a family it does not have".to_vec(), 0, Some("[2001:db8::7]:1".parse().unwrap())));
        load.sends.push((b"fine".to_vec(), 0, Some(b.address)));
        load.frames.push(vec![vec![1]; 1025]);
        load.frames.push(vec![]);
        a.write(&load);
        assert_eq!(b.receive(1), [(4, b"fine".to_vec())]);
        let counters = a.io.counters();
        assert_eq!((counters.send_too_big, counters.send_errors, counters.write_errors), (1, 1, 2));
        assert_eq!((counters.sends_out, counters.frames_out), (1, 0));
    });
}

#[test]
fn a_full_queue_drops_and_counts() {
    on_both_backends(|choice| {
        let mut a = Worker::new(choice);
        let load = Load { frames: vec![vec![pattern(1000)]; 2000], ..Load::default() };
        a.write(&load);
        let counters = a.io.counters();
        assert!(counters.write_would_block > 0);
        assert_eq!(counters.frames_out + counters.write_would_block, 2000);
        assert_eq!(counters.cancelled, 0, "a write that would block must fail at once");
    });
}

#[test]
fn where_segmentation_is_refused_datagrams_go_out_singly() {
    on_both_backends(|choice| {
        let udp = UdpSocket::bind(LOOPBACK.parse().unwrap(), PortSharing::Exclusive, 1 << 20).unwrap();
        let (one, length) = (1, size_of::<libc::c_int>() as libc::socklen_t);
        let option: *const libc::c_int = &raw const one;
        // The kernel refuses to segment for a socket without checksums. It says EINVAL, as older kernels do of segments
        // beyond one peer's path, so each batch is tried anew.
        // SAFETY: the kernel reads one `int` that lives until the call returns.
        let set = unsafe {
            libc::setsockopt(udp.as_fd().as_raw_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, option.cast(), length)
        };
        assert_eq!(set, 0);
        let (mut a, mut b) = (Worker::around(choice, udp), Worker::new(choice));
        let bytes = pattern(10 * 500);
        for _ in 0..3 {
            a.write(&Load::send(&bytes, 500, b.address));
            let received: Vec<u8> = b.receive(10).into_iter().flat_map(|(_, bytes)| bytes).collect();
            assert!(received == bytes);
        }
        let counters = a.io.counters();
        assert_eq!(counters.send_segmentation_refused, 3);
        assert_eq!((counters.sends_out, counters.datagrams_out), (30, 30));
    });
}

#[test]
fn a_batch_to_a_bad_address_does_not_end_segmentation_for_others() {
    on_both_backends(|choice| {
        let (mut a, mut b) = (Worker::new(choice), Worker::new(choice));
        a.write(&Load::send(&pattern(1000), 100, "127.0.0.1:0".parse().unwrap()));
        assert_eq!((a.io.counters().send_segmentation_refused, a.io.counters().send_errors), (1, 1));
        a.write(&Load::send(&pattern(1000), 100, b.address));
        b.receive(10);
        assert_eq!((a.io.counters().sends_out, a.io.counters().datagrams_out), (1, 10));
    });
}

/// Random interleavings of sends, frames, wake-ups, hand-overs and turns against a model that knows what is pending:
/// a turn must not block while anything is, and everything arrives once and in order.
#[test]
fn random_interleavings_never_block_nor_lose() {
    on_both_backends(|choice| {
        for seed in 1..=4u64 {
            interleave(choice, seed);
        }
    });
}

fn interleave(choice: BackendChoice, seed: u64) {
    const STEPS: usize = 2000;
    // Fewer than a Unix socket queues.
    const FRAMES_PENDING_MAX: u32 = 8;
    const DATAGRAMS_PENDING_MAX: u32 = 500;
    let mut random = Random(seed);
    let mut a = Worker::new(choice);
    let peer = std::net::UdpSocket::bind(LOOPBACK).unwrap();
    let mut arrivals = Arrivals::new(4, 3);
    let (mut sent, mut received) = (0u32, 0u32);
    let (mut framed, mut read) = (0u32, 0u32);
    let (mut woken, mut seen) = (false, (0, 0));
    for _ in 0..STEPS {
        match random.below(8) {
            0 | 1 => {
                for _ in 0..random.below(20).min(DATAGRAMS_PENDING_MAX - (sent - received)) {
                    peer.send_to(&sent.to_be_bytes(), a.address).unwrap();
                    sent += 1;
                }
            }
            2 => {
                for _ in 0..random.below(4).min(FRAMES_PENDING_MAX - (framed - read)) {
                    a.far.send(&framed.to_be_bytes()).unwrap();
                    framed += 1;
                }
            }
            3 => {
                a.waker.wake();
                woken = true;
            }
            4 => {
                arrivals.clear();
                seen = (0, 0);
            }
            _ => {
                let pending = sent > received || framed > read || woken || !arrivals.is_empty();
                let wait = match random.below(3) {
                    0 => Wait::Poll,
                    _ if pending => LONG,
                    _ => Wait::For(Duration::from_micros(100)),
                };
                a.prompt_turn(&Load::default(), &mut arrivals, wait);
                woken = false;
                for slot in seen.0..arrivals.outside_len() {
                    assert_eq!(arrivals.outside_bytes(slot as u16), received.to_be_bytes());
                    received += 1;
                }
                for slot in seen.1..arrivals.inside_len() {
                    assert_eq!(arrivals.inside_bytes(slot as u16), read.to_be_bytes());
                    read += 1;
                }
                seen = (arrivals.outside_len(), arrivals.inside_len());
            }
        }
    }
    assert!(received > 0 && read > 0);
    while sent > received || framed > read {
        arrivals.clear();
        a.prompt_turn(&Load::default(), &mut arrivals, LONG);
        received += arrivals.outside_len() as u32;
        read += arrivals.inside_len() as u32;
    }
    assert_eq!(a.io.counters().cancelled, 0);
}

/// xorshift64: enough to vary interleavings, the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % u64::from(bound)) as u32
    }
}
