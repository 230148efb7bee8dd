//! Workers with a toy machine, on loopback sockets and a pair of Unix sockets in place of the TUN device.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket as StdSocket};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use ringfort_engine::{Errand, Machine, Now, Outbox, Output};
use ringfort_io::{BackendChoice, PortSharing, TunQueue, UdpSocket, VNET_HEADER_BYTES};
use ringfort_packet::build;
use ringfort_packet::coalesce::{Coalescer, Offloads, Piece};
use ringfort_packet::parse::parse;
use ringfort_types::{BootInstant, WorkerIndex};
use ringfort_worker::{Report, Sink, Worker, WorkerError, Workers, now, spawn, usable_cores};

const PATIENCE: Duration = Duration::from_secs(10);

/// Passes packets between socket and queue as they are. Those with an odd destination port are worker 1's.
struct Toy {
    index: WorkerIndex,
    peer: Option<SocketAddr>,
    output: Output,
    events: VecDeque<String>,
    wake: Option<BootInstant>,
    errands: VecDeque<Sum>,
}

/// An errand that takes its time.
struct Sum {
    of: Vec<u64>,
    takes: Duration,
    result: Option<(u64, String)>,
}

impl Errand for Sum {
    fn run(&mut self, _: Now) {
        std::thread::sleep(self.takes);
        assert!(!self.of.is_empty(), "as the test asked");
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        self.result = Some((self.of.iter().sum(), thread));
    }
}

#[derive(Clone)]
enum Command {
    Add { of: Vec<u64>, takes: Duration },
    Say(String),
    WakeIn(Duration),
    Panic,
}

impl Toy {
    fn new(index: WorkerIndex) -> Self {
        let output = Output { outside: Outbox::default(), inside: Coalescer::new(Offloads { uso: false }) };
        Self { index, peer: None, output, events: VecDeque::new(), wake: None, errands: VecDeque::new() }
    }

    fn owner(&self, packet: &[u8]) -> Option<WorkerIndex> {
        let odd = parse(packet).unwrap().flow_key().unwrap().destination_port() % 2 == 1;
        Some(WorkerIndex(u8::from(odd))).filter(|owner| *owner != self.index)
    }
}

impl Machine for Toy {
    type Command = Command;
    type Event = String;
    type Errand = Sum;

    fn handle_outside(
        &mut self,
        slot: u16,
        from: SocketAddr,
        datagrams: &mut [u8],
        _: usize,
        _: Now,
    ) -> Option<WorkerIndex> {
        if let Some(owner) = self.owner(datagrams) {
            return Some(owner);
        }
        self.peer = Some(from);
        let piece = Piece { slot, start: 0, len: datagrams.len() as u32 };
        self.output.inside.push(datagrams, &parse(datagrams).unwrap(), piece);
        None
    }

    fn handle_inside(&mut self, frame: &mut [u8], _: Now) -> Option<WorkerIndex> {
        let packet = &frame[VNET_HEADER_BYTES..];
        if let Some(owner) = self.owner(packet) {
            return Some(owner);
        }
        self.output.outside.append(self.peer, packet.len(), |space| {
            space[..packet.len()].copy_from_slice(packet);
            Some(packet.len())
        });
        None
    }

    fn handle_command(&mut self, command: Command, now: Now) {
        match command {
            Command::Add { of, takes } => self.errands.push_back(Sum { of, takes, result: None }),
            Command::Say(text) => self.events.push_back(text),
            Command::WakeIn(time) => self.wake = Some(now.boot + time),
            Command::Panic => panic!("as the test asked"),
        }
    }

    fn poll_errand(&mut self) -> Option<Sum> {
        self.errands.pop_front()
    }

    fn handle_errand(&mut self, errand: Sum, _: Now) {
        let (sum, thread) = errand.result.unwrap();
        self.events.push_back(format!("{sum} by {thread}"));
    }

    fn handle_timeout(&mut self, _: Now) {
        self.wake = None;
        self.events.push_back("woken".into());
    }

    fn handle_stop(&mut self, _: Now) -> bool {
        self.events.push_back("stopping".into());
        false
    }

    fn poll_timeout(&self) -> Option<BootInstant> {
        self.wake
    }

    fn poll_event(&mut self) -> Option<String> {
        self.events.pop_front()
    }

    fn output(&mut self) -> &Output {
        self.output.inside.finish();
        &self.output
    }

    fn clear_output(&mut self) {
        self.output.outside.clear();
        self.output.inside.clear();
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&'static str, u64)) {
        visit("answer", 42);
    }
}

/// Two workers, each with a socket of its own and a queue whose other end the test holds.
struct Stage {
    workers: Option<Workers<Toy>>,
    reports: mpsc::Receiver<(WorkerIndex, Report<String>)>,
    outside: Vec<SocketAddr>,
    inside: Vec<UnixDatagram>,
}

impl Stage {
    fn new(choice: BackendChoice) -> Self {
        let (send, reports) = mpsc::channel();
        Self::with_sink(
            choice,
            Arc::new(move |worker, report| send.send((worker, report)).map_err(|error| error.0.1)),
            reports,
        )
    }

    fn with_sink(
        choice: BackendChoice,
        sink: Sink<String>,
        reports: mpsc::Receiver<(WorkerIndex, Report<String>)>,
    ) -> Self {
        let core = usable_cores().unwrap()[0];
        let (mut outside, mut inside, mut workers) = (Vec::new(), Vec::new(), Vec::new());
        for index in [WorkerIndex(0), WorkerIndex(1)] {
            let (ours, theirs) = UnixDatagram::pair().unwrap();
            ours.set_read_timeout(Some(PATIENCE)).unwrap();
            let udp = UdpSocket::bind(([127, 0, 0, 1], 0).into(), PortSharing::Exclusive, 1 << 20).unwrap();
            outside.push(udp.local_addr().unwrap());
            inside.push(ours);
            let tun = TunQueue::from_fd(theirs.into()).unwrap();
            workers.push(Worker { machine: Toy::new(index), udp, tun, core: Some(core) });
        }
        Self { workers: Some(spawn(workers, choice, 2, &sink).unwrap()), reports, outside, inside }
    }

    fn workers(&self) -> &Workers<Toy> {
        self.workers.as_ref().unwrap()
    }

    /// The next event of a worker, past the report of its start.
    fn event(&self) -> (WorkerIndex, String) {
        loop {
            match self.reports.recv_timeout(PATIENCE).unwrap() {
                (worker, Report::Event(event)) => return (worker, event),
                (_, Report::Started { .. }) => {}
                (worker, Report::Ended(result)) => panic!("{worker} ended: {result:?}"),
            }
        }
    }
}

fn packet(port: u16, length: usize) -> Vec<u8> {
    build::udp("10.97.0.10:4000".parse().unwrap(), SocketAddr::from(([10, 98, 0, 10], port)), &vec![7; length])
}

fn received(inside: &UnixDatagram) -> Vec<u8> {
    let mut frame = vec![0; 70_000];
    let length = inside.recv(&mut frame).unwrap();
    frame[VNET_HEADER_BYTES..length].to_vec()
}

fn on_both(test: impl Fn(BackendChoice)) {
    for choice in [BackendChoice::IoUring, BackendChoice::Epoll] {
        test(choice);
    }
}

#[test]
fn packets_pass_both_ways() {
    on_both(|choice| {
        let stage = Stage::new(choice);
        let peer = StdSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        for length in [1, 100, 1_300] {
            let there = packet(80, length);
            peer.send_to(&there, stage.outside[0]).unwrap();
            assert_eq!(received(&stage.inside[0]), there);
            let mut frame = vec![0; VNET_HEADER_BYTES];
            frame.extend_from_slice(&there);
            stage.inside[0].send(&frame).unwrap();
            let mut back = vec![0; 2_000];
            let got = peer.recv(&mut back).unwrap();
            assert_eq!(&back[..got], &there);
        }
    });
}

// Covers: K2 allow
#[test]
fn what_belongs_to_another_worker_reaches_it() {
    on_both(|choice| {
        let stage = Stage::new(choice);
        let peer = StdSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        // In at worker 0's socket, out at worker 1's queue.
        peer.send_to(&packet(81, 100), stage.outside[0]).unwrap();
        assert_eq!(received(&stage.inside[1]), packet(81, 100));
        // In at worker 0's queue, out at worker 1's socket.
        let mut frame = vec![0; VNET_HEADER_BYTES];
        frame.extend_from_slice(&packet(81, 200));
        stage.inside[0].send(&frame).unwrap();
        let mut back = vec![0; 2_000];
        let (got, from) = peer.recv_from(&mut back).unwrap();
        assert_eq!((&back[..got], from), (&packet(81, 200)[..], stage.outside[1]));
    });
}

#[test]
fn commands_timers_and_snapshots_are_answered_by_a_sleeping_worker() {
    on_both(|choice| {
        let stage = Stage::new(choice);
        for round in 0..50 {
            stage.workers().broadcast(&Command::Say(round.to_string())).unwrap();
            let mut heard = [stage.event(), stage.event()];
            heard.sort_by_key(|(worker, _)| *worker);
            assert_eq!(heard, [(WorkerIndex(0), round.to_string()), (WorkerIndex(1), round.to_string())]);
        }
        let begun = now().boot;
        stage.workers().broadcast(&Command::WakeIn(Duration::from_millis(30))).unwrap();
        assert_eq!(stage.event().1, "woken");
        assert!(now().boot.saturating_since(begun) >= Duration::from_millis(30), "woken too early");
        let snapshots = stage.workers().snapshot();
        assert_eq!(snapshots.len(), 2);
        for snapshot in snapshots {
            assert!(snapshot.counters.contains(&("answer", 42)));
            assert!(snapshot.counters.iter().any(|(name, count)| *name == "system_calls" && *count > 0));
        }
    });
}

/// Errands run on threads of their own: packets pass while they do, each comes back once, and one that panics takes nobody along.
#[test]
fn errands_keep_no_packet_waiting() {
    let add = |of: &[u64], takes| Command::Add { of: of.to_vec(), takes };
    on_both(|choice| {
        let stage = Stage::new(choice);
        stage.workers().broadcast(&add(&[], Duration::ZERO)).unwrap();
        stage.workers().broadcast(&add(&[1, 2], Duration::from_secs(1))).unwrap();
        // More than there is room for.
        for round in 0..200 {
            stage.workers().broadcast(&add(&[round], Duration::ZERO)).unwrap();
        }
        let begun = Instant::now();
        let peer = StdSocket::bind("127.0.0.1:0").unwrap();
        peer.send_to(&packet(80, 100), stage.outside[0]).unwrap();
        assert_eq!(received(&stage.inside[0]), packet(80, 100));
        assert!(begun.elapsed() < Duration::from_millis(900), "the packet waited for the errands");
        let mut sums: Vec<(WorkerIndex, u64)> = Vec::new();
        while sums.len() < 2 * 201 {
            let (worker, text) = stage.event();
            let (sum, thread) = text.split_once(" by ").unwrap();
            assert!(thread.starts_with("helper-"), "{thread}");
            sums.push((worker, sum.parse().unwrap()));
        }
        for worker in [WorkerIndex(0), WorkerIndex(1)] {
            let mut of: Vec<u64> = sums.iter().filter(|(by, _)| *by == worker).map(|(_, sum)| *sum).collect();
            of.sort_unstable();
            let mut expected: Vec<u64> = (0..200).chain([3]).collect();
            expected.sort_unstable();
            assert_eq!(of, expected);
        }
        let postponed = |snapshot: &ringfort_worker::Snapshot| {
            snapshot.counters.iter().find(|(name, _)| *name == "errands_postponed").unwrap().1
        };
        assert!(stage.workers().snapshot().iter().map(postponed).sum::<u64>() > 0);
    });
}

#[test]
fn a_full_sink_loses_nothing() {
    on_both(|choice| {
        let (send, reports) = mpsc::channel();
        let refused = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&refused);
        // Refuses each event twice before it takes it.
        let sink: Sink<String> = Arc::new(move |worker, report| {
            if matches!(report, Report::Event(_)) && count.fetch_add(1, Ordering::Relaxed) % 3 != 2 {
                return Err(report);
            }
            send.send((worker, report)).map_err(|error| error.0.1)
        });
        let stage = Stage::with_sink(choice, sink, reports);
        for round in 0..20 {
            stage.workers().broadcast(&Command::Say(round.to_string())).unwrap();
        }
        let mut heard: Vec<_> = (0..40).map(|_| stage.event()).collect();
        heard.sort_by_key(|(worker, _)| *worker);
        for (index, (_, text)) in heard.iter().enumerate() {
            assert_eq!(*text, (index % 20).to_string(), "in order and each once");
        }
        assert!(refused.load(Ordering::Relaxed) >= 80);
    });
}

#[test]
fn stopping_waits_for_the_goodbye() {
    on_both(|choice| {
        let mut stage = Stage::new(choice);
        drop(stage.workers.take());
        let reports: Vec<_> = stage.reports.try_iter().collect();
        for index in [WorkerIndex(0), WorkerIndex(1)] {
            let of: Vec<_> = reports.iter().filter(|(worker, _)| *worker == index).map(|(_, report)| report).collect();
            assert!(matches!(of[..], [Report::Started { .. }, Report::Event(_), Report::Ended(Ok(()))]), "{of:?}");
        }
    });
}

#[test]
fn a_panic_is_reported() {
    let stage = Stage::new(BackendChoice::Auto);
    stage.workers().broadcast(&Command::Panic).unwrap();
    let ended = |report: &_| matches!(report, Report::Ended(Err(WorkerError::Panicked)));
    let reports: Vec<_> = (0..4).map(|_| stage.reports.recv_timeout(PATIENCE).unwrap().1).collect();
    assert_eq!(reports.iter().filter(|report| ended(report)).count(), 2, "{reports:?}");
}

/// Far more than one turn's worth, and none of it is lost.
#[test]
fn handed_over_datagrams_wait_for_their_turn() {
    on_both(|choice| {
        let stage = Stage::new(choice);
        let peer = StdSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..10 {
            for length in 1..=60 {
                peer.send_to(&packet(81, length), stage.outside[0]).unwrap();
                peer.send_to(&packet(81, 100 + length), stage.outside[1]).unwrap();
            }
            let mut lengths: Vec<usize> = (0..120).map(|_| received(&stage.inside[1]).len() - 28).collect();
            lengths.sort_unstable();
            assert!(lengths.into_iter().eq((1..=60).chain(101..=160)));
        }
    });
}

// Covers: K2 refuse
#[test]
fn a_core_that_is_not_there_ends_the_worker_with_an_error() {
    let (send, reports) = mpsc::channel();
    let sink: Sink<String> = Arc::new(move |worker, report| send.send((worker, report)).map_err(|error| error.0.1));
    let (_ours, theirs) = UnixDatagram::pair().unwrap();
    let udp = UdpSocket::bind(([127, 0, 0, 1], 0).into(), PortSharing::Exclusive, 1 << 20).unwrap();
    let worker = Worker {
        machine: Toy::new(WorkerIndex(0)),
        udp,
        tun: TunQueue::from_fd(theirs.into()).unwrap(),
        core: Some(1_000),
    };
    let workers = spawn(vec![worker], BackendChoice::Auto, 0, &sink).unwrap();
    let begun = Instant::now();
    match reports.recv_timeout(PATIENCE).unwrap() {
        (_, Report::Ended(Err(error))) => assert!(error.to_string().contains("core 1000"), "{error}"),
        (_, report) => panic!("{report:?} after {:?}", begun.elapsed()),
    }
    drop(workers);
}
