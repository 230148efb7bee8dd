//! The real TUN device, in a network namespace of this process's own, on both backends.
//!
//! A process can only enter a user namespace while it has one thread, so this is a `main` that does so first and then
//! runs the cases, one at a time since they share the namespace.

#![expect(unsafe_code, reason = "interfaces are configured by ioctl")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::ffi::c_short;
use std::fs;
use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use common::{Load, on_both_backends};
use libtest_mimic::{Arguments, Trial};
use nix::sched::{CloneFlags, unshare};
use ringfort_io::{
    Arrivals, BackendChoice, NoDepartures, PacketIo, PortSharing, Tun, TunError, TunQueue, UdpSocket,
    VNET_HEADER_BYTES, Wait, Waker, open,
};

/// The interface's address and one behind it.
const NEAR: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
/// Waits of a case end here; none comes near it.
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    if let Err(error) = enter_namespace() {
        if std::env::var_os("CI").is_some_and(|ci| ci == "true") {
            eprintln!("no network namespace can be made here: {error}");
            return ExitCode::FAILURE;
        }
        println!("skipped: no network namespace can be made here: {error}");
        return ExitCode::SUCCESS;
    }
    let cases: [(&str, fn()); 7] = [
        ("the_kernel_answers_an_echo_through_either_queue", the_kernel_answers_an_echo_through_either_queue),
        ("super_frames_pass_in_both_directions", super_frames_pass_in_both_directions),
        ("a_burst_of_frames_costs_few_calls_on_a_ring", a_burst_of_frames_costs_few_calls_on_a_ring),
        ("frames_to_an_interface_that_is_down_are_counted", frames_to_an_interface_that_is_down_are_counted),
        ("a_busy_interface_is_waited_for", a_busy_interface_is_waited_for),
        ("a_dropped_worker_frees_its_interface_at_once", a_dropped_worker_frees_its_interface_at_once),
        ("names_are_checked_and_chosen", names_are_checked_and_chosen),
    ];
    let trial = |(name, case): (&str, fn())| {
        Trial::test(name, move || {
            case();
            Ok(())
        })
    };
    libtest_mimic::run(&arguments, cases.map(trial).into()).exit_code()
}

/// A network namespace in a user namespace of its own; as root, where user namespaces are forbidden, a bare one.
fn enter_namespace() -> io::Result<()> {
    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).is_ok() {
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
        fs::write("/proc/self/gid_map", format!("0 {group} 1"))?;
    } else {
        unshare(CloneFlags::CLONE_NEWNET)?;
    }
    // Some distributions grant the namespaces but no capabilities in them.
    Tun::open("rftest%d", 1, Duration::ZERO).map(drop).map_err(io::Error::other)
}

fn the_kernel_answers_an_echo_through_either_queue() {
    on_both_backends(|choice| {
        let mut workers = workers(choice, "rfecho", 2);
        let request = echo_request();
        for writer in 0..2 {
            let started = Instant::now();
            let (header, packet) = request.split_at(VNET_HEADER_BYTES);
            let mut load = Load::frame(&[header, packet]);
            let mut arrivals = Arrivals::new(2, 8);
            // The answer comes out of the queue that the kernel's flow table chooses.
            let answered = 'answered: loop {
                assert!(started.elapsed() < PATIENCE, "no answer");
                for index in [writer, 1 - writer] {
                    arrivals.clear();
                    workers[index].turn(&load, &mut arrivals, Wait::For(Duration::from_millis(5))).unwrap();
                    load = Load::default();
                    if let Some((_, frame)) = arrivals.inside().find(|(_, frame)| protocol(frame) == Some(ICMP)) {
                        break 'answered frame.to_vec();
                    }
                }
            };
            let packet = &answered[VNET_HEADER_BYTES..];
            assert_eq!(packet[12..16], NEAR.octets(), "source");
            assert_eq!(packet[16..20], FAR.octets(), "destination");
            assert_eq!(packet[20], 0, "an echo reply");
            assert_eq!(packet[24..], request[VNET_HEADER_BYTES + 24..], "identifier, sequence and data");
        }
        assert!(workers.iter().all(|worker| worker.counters().cancelled == 0));
    });
}

/// A segmented send into the interface is read as one super-frame with its vnet header; the same frame with source
/// and destination exchanged is written back in pieces and received as one batch.
fn super_frames_pass_in_both_directions() {
    on_both_backends(|choice| {
        let (tun, udp) = interface("rfsuper", 1);
        let uso = tun.offloads().uso;
        let queue = tun.into_queues().remove(0);
        let (mut io, _) = open(choice, udp, queue, &Waker::new().unwrap()).unwrap();
        let payload: Vec<u8> = (0..20 * 1000 + 7).map(|i| (i % 251) as u8).collect();
        let mut load = Load::send(&payload, 1000, SocketAddr::new(FAR.into(), 9));
        let mut mirrored = Load::default();
        let mut arrivals = Arrivals::new(8, 64);
        let started = Instant::now();
        let mut frames = 0;
        while frames < if uso { 1 } else { 21 } {
            assert!(started.elapsed() < PATIENCE);
            arrivals.clear();
            io.turn(&load, &mut arrivals, Wait::For(Duration::from_millis(5))).unwrap();
            load = Load::default();
            for (_, frame) in arrivals.inside().filter(|(_, frame)| protocol(frame) == Some(UDP)) {
                frames += 1;
                if uso {
                    assert_eq!(frame[1], GSO_UDP_L4, "gso_type");
                    assert_eq!(frame[4..6], 1000u16.to_ne_bytes(), "gso_size");
                    assert!(frame[VNET_HEADER_BYTES + 28..] == payload);
                }
                mirrored.frames.push(mirror(frame));
            }
        }
        let mut received = Vec::new();
        let mut batches = 0;
        while received.len() < payload.len() {
            assert!(started.elapsed() < PATIENCE);
            arrivals.clear();
            io.turn(&mirrored, &mut arrivals, Wait::For(Duration::from_millis(5))).unwrap();
            mirrored = Load::default();
            for (_, batch) in arrivals.outside() {
                batches += 1;
                assert_eq!((batch.segment_bytes, batch.from), (1000, SocketAddr::new(FAR.into(), 9)));
                received.extend_from_slice(batch.bytes);
            }
        }
        assert!(received == payload);
        assert!(!uso || batches == 1, "{batches} batches");
        assert_eq!((io.counters().write_errors, io.counters().cancelled), (0, 0));
    });
}

fn a_burst_of_frames_costs_few_calls_on_a_ring() {
    const BURST: u64 = 400;
    on_both_backends(|choice| {
        let mut worker = workers(choice, "rfburst", 1).remove(0);
        let sender = std::net::UdpSocket::bind((NEAR, 0)).unwrap();
        for _ in 0..BURST {
            sender.send_to(&[7; 64], (FAR, 9)).unwrap();
        }
        let mut arrivals = Arrivals::new(1, 64);
        let started = Instant::now();
        while worker.counters().frames_in < BURST {
            assert!(started.elapsed() < PATIENCE);
            arrivals.clear();
            worker.turn(&NoDepartures, &mut arrivals, Wait::For(Duration::from_millis(5))).unwrap();
        }
        let calls = worker.counters().system_calls;
        println!("{}: {calls} system calls for {BURST} frames read", worker.backend());
        assert!(choice == BackendChoice::Epoll || calls < BURST / 10);

        let before = calls;
        let load = Load { frames: vec![vec![echo_request()]; BURST as usize], ..Load::default() };
        arrivals.clear();
        worker.turn(&load, &mut arrivals, Wait::Poll).unwrap();
        let calls = worker.counters().system_calls - before;
        println!("{}: {calls} system calls for {BURST} frames written", worker.backend());
        assert_eq!(worker.counters().frames_out, BURST);
        assert!(choice == BackendChoice::Epoll || calls < BURST / 10);
    });
}

fn frames_to_an_interface_that_is_down_are_counted() {
    on_both_backends(|choice| {
        let tun = Tun::open("rfdown", 1, Duration::ZERO).unwrap();
        let udp = UdpSocket::bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0), PortSharing::Exclusive, 1).unwrap();
        let queue = tun.into_queues().remove(0);
        let (mut io, _) = open(choice, udp, queue, &Waker::new().unwrap()).unwrap();
        let load = Load { frames: vec![vec![echo_request()]; 50], ..Load::default() };
        for wait in [Wait::Poll, Wait::For(Duration::from_millis(20)), Wait::For(Duration::from_millis(20))] {
            io.turn(&load, &mut Arrivals::new(1, 1), wait).unwrap();
        }
        assert_eq!((io.counters().write_errors, io.counters().frames_out, io.counters().cancelled), (150, 0, 0));
    });
}

fn a_busy_interface_is_waited_for() {
    let held = Tun::open("rfbusy", 2, Duration::ZERO).unwrap();
    let refused = Tun::open("rfbusy", 1, Duration::ZERO).unwrap_err();
    assert!(matches!(&refused, TunError::Busy { name } if name == "rfbusy"));
    assert!(refused.to_string().contains("ip link delete rfbusy"), "{refused}");

    let started = Instant::now();
    Tun::open("rfbusy", 1, Duration::from_millis(30)).unwrap_err();
    assert!(started.elapsed() >= Duration::from_millis(30), "gave up early");

    let holder = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        drop(held);
    });
    Tun::open("rfbusy", 1, PATIENCE).unwrap();
    assert!(started.elapsed() < PATIENCE);
    holder.join().unwrap();
}

fn a_dropped_worker_frees_its_interface_at_once() {
    on_both_backends(|choice| {
        for _ in 0..20 {
            let mut worker = workers(choice, "rfdrop", 1).remove(0);
            worker.turn(&NoDepartures, &mut Arrivals::new(1, 1), Wait::For(Duration::from_millis(1))).unwrap();
            drop(worker);
            drop(Tun::open("rfdrop", 1, Duration::ZERO).unwrap());
        }
    });
}

fn names_are_checked_and_chosen() {
    for name in ["", "sixteen-bytes-ab", "a/b", "a b", "a:b", "a\0b"] {
        assert!(matches!(Tun::open(name, 1, Duration::ZERO), Err(TunError::Name(_))), "{name:?}");
    }
    let chosen = Tun::open("rfn%d", 1, Duration::ZERO).unwrap();
    assert_eq!(chosen.name(), "rfn0");
    let queues: Vec<TunQueue> = Tun::open("rfqueues", 4, Duration::ZERO).unwrap().into_queues();
    assert_eq!(queues.len(), 4);
}

/// Workers on the queues of an interface that is up. Their sockets are there because workers have one.
fn workers(choice: BackendChoice, name: &str, queues: usize) -> Vec<Box<dyn PacketIo>> {
    let (tun, _) = interface(name, queues);
    let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    tun.into_queues()
        .into_iter()
        .map(|queue| {
            let udp = UdpSocket::bind(any, PortSharing::Exclusive, 1 << 20).unwrap();
            open(choice, udp, queue, &Waker::new().unwrap()).unwrap().0
        })
        .collect()
}

/// An interface that is up with its address, and a socket bound to that address.
fn interface(name: &str, queues: usize) -> (Tun, UdpSocket) {
    let tun = Tun::open(name, queues, PATIENCE).unwrap();
    configure("lo", None);
    configure(name, Some(NEAR));
    let udp = UdpSocket::bind(SocketAddr::new(NEAR.into(), 0), PortSharing::Exclusive, 1 << 20).unwrap();
    (tun, udp)
}

/// Gives an interface its address, of a /24, and sets it up.
fn configure(name: &str, address: Option<Ipv4Addr>) {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let control = |request: libc::Ioctl, fill: &dyn Fn(&mut libc::ifreq)| {
        // SAFETY: a struct of integers and bytes, for which all-zero is valid.
        let mut interface: libc::ifreq = unsafe { mem::zeroed() };
        for (to, from) in interface.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        fill(&mut interface);
        // SAFETY: these requests read one `ifreq`, which lives until the call returns.
        let result = unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut interface) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
    };
    let with_address = |interface: &mut libc::ifreq, address: Ipv4Addr| {
        let mut bytes = [0; 14];
        for (to, from) in bytes[2..6].iter_mut().zip(address.octets()) {
            *to = from as libc::c_char;
        }
        interface.ifr_ifru.ifru_addr = libc::sockaddr { sa_family: libc::AF_INET as u16, sa_data: bytes };
    };
    if let Some(address) = address {
        control(libc::SIOCSIFADDR, &|interface| with_address(interface, address));
        control(libc::SIOCSIFNETMASK, &|interface| with_address(interface, Ipv4Addr::new(255, 255, 255, 0)));
    }
    control(libc::SIOCSIFFLAGS, &|interface| {
        interface.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as c_short;
    });
}

const ICMP: u8 = 1;
const UDP: u8 = 17;
/// `VIRTIO_NET_HDR_GSO_UDP_L4`.
const GSO_UDP_L4: u8 = 5;

/// The protocol of an IPv4 packet behind its vnet header.
fn protocol(frame: &[u8]) -> Option<u8> {
    let packet = frame.get(VNET_HEADER_BYTES..)?;
    (packet.first()? >> 4 == 4).then(|| packet.get(9).copied())?
}

/// Exchanges source and destination of an IPv4/UDP frame, as pieces. Both checksums stay right, being sums.
fn mirror(frame: &[u8]) -> Vec<Vec<u8>> {
    let (vnet, packet) = frame.split_at(VNET_HEADER_BYTES);
    let (ip, udp) = packet.split_at(20);
    let (mut ip, mut udp) = (ip.to_vec(), udp.to_vec());
    ip[12..].rotate_left(4);
    udp[..4].rotate_left(2);
    let data = udp.split_off(8);
    let (first, rest) = data.split_at(data.len() / 3);
    vec![vnet.to_vec(), ip, udp, first.to_vec(), rest.to_vec()]
}

/// An echo request from `FAR` to `NEAR`, behind an empty vnet header.
fn echo_request() -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 60, 0, 1, 0x40, 0, 64, ICMP, 0, 0];
    packet.extend(FAR.octets());
    packet.extend(NEAR.octets());
    packet.extend([8, 0, 0, 0, 0x12, 0x34, 0, 1]);
    packet.extend(0..32u8);
    let sum = checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum);
    let sum = checksum(&packet[20..]);
    packet[22..24].copy_from_slice(&sum);
    [vec![0; VNET_HEADER_BYTES], packet].concat()
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let mut sum: u32 = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}
