//! The client: one association, packets from the command line or from standard input, and what comes back.

use std::collections::VecDeque;
use std::io::BufRead;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::Duration;

use ringfort_dtls::record::CONTENT_BYTES_MAX;
use ringfort_dtls::{Association, Ended, Event, Received};
use ringfort_types::BootInstant;

use crate::hello::Chosen;
use crate::options::{ClientOptions, Version};
use crate::policy::Policy;
use crate::server::{cid_text, print_exporter};
use crate::socket::{DATAGRAM_BYTES_MAX, Socket, randomness, readable};
use crate::{Failed, Outcome};

/// A packet that has not come back in this time is sent again: datagrams get lost.
const RESEND_AFTER: Duration = Duration::from_millis(500);
/// So often it is sent in all.
const SENDS_MAX: u32 = 12;
/// What comes in at the end is still shown, and the port is kept so long after it.
const LINGER: Duration = Duration::from_millis(300);
/// Lines of standard input that wait for their turn.
const LINES_MAX: usize = 16;

struct Client<'a> {
    options: &'a ClientOptions,
    policy: Arc<Policy>,
    socket: Socket,
    association: Association,
    chosen: Chosen,
    subject: Option<String>,
    is_established: bool,
    sealed: u32,
    input: Input,
    /// The packet that has been sent and has not come back.
    awaited: Option<Awaited>,
    end: Option<Ended>,
}

struct Awaited {
    packet: Vec<u8>,
    sends: u32,
    again_at: BootInstant,
}

/// Where packets come from.
enum Input {
    /// The command line: the text, so many times.
    Text { text: String, left: u32 },
    /// Lines of standard input, read by a thread, since a read of it cannot be given up.
    Lines { lines: Receiver<String>, ready: VecDeque<String> },
    /// There are no more; the client leaves then.
    Nothing { since: BootInstant },
}

/// Talks to the server until there is nothing more to say.
pub(crate) fn run(options: &ClientOptions) -> Result<Outcome, Failed> {
    if options.common.min_version < Version::V13 {
        return Err("--min-version: clients of this engine speak DTLS 1.3 only".into());
    }
    let (config, policy) = options.config()?;
    let mut randomness = randomness()?;
    let any: SocketAddr = match options.connect {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = Socket::bind(any, options.common.timeout())?;
    let local_cid = options.common.connection_id(&randomness.draw());
    let association = Association::client(&config, local_cid, randomness.draw(), socket.now(), Socket::unix_time());
    println!("connecting address={}", options.connect);
    let input = match &options.send {
        Some(text) => Input::Text { text: text.clone(), left: options.count },
        None => Input::Lines { lines: read_lines(), ready: VecDeque::new() },
    };
    let mut client = Client {
        options,
        policy,
        socket,
        association,
        chosen: Chosen::default(),
        subject: None,
        is_established: false,
        sealed: 0,
        input,
        awaited: None,
        end: None,
    };
    let outcome = client.talk();
    // The last datagram is on its way: a port that is closed at once would answer the server's next one by an ICMP error, which
    // hides what the last one said.
    std::thread::sleep(LINGER);
    outcome
}

fn read_lines() -> Receiver<String> {
    let (lines, receiver) = sync_channel(LINES_MAX);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

impl Client<'_> {
    fn talk(&mut self) -> Result<Outcome, Failed> {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            self.settle();
            if self.end.is_some() {
                return Ok(self.outcome());
            }
            if self.socket.is_time_out() {
                self.say_goodbye();
                return Ok(Outcome::TimeOut);
            }
            if self.is_established && !self.send_next() {
                self.say_goodbye();
                return Ok(self.outcome());
            }
            let again = self.awaited.as_ref().map(|awaited| awaited.again_at);
            let until = [again, self.association.poll_timeout(), self.input_at()].into_iter().flatten().min();
            if let Some((length, from)) = self.socket.receive(&mut buffer, until)?
                && from == self.options.connect
            {
                self.handle(&mut buffer[..length]);
            }
            let now = self.socket.now();
            if self.association.poll_timeout().is_some_and(|at| at <= now) {
                self.association.handle_timeout(now);
            }
        }
    }

    /// All that was sent has come back, and nothing was refused.
    fn outcome(&self) -> Outcome {
        let is_quiet = self.awaited.is_none() && matches!(self.input, Input::Nothing { .. });
        if self.is_established && is_quiet && matches!(self.end, None | Some(Ended::ClosedByPeer | Ended::Closed)) {
            Outcome::Done
        } else {
            Outcome::Refused
        }
    }

    /// When to look for input again.
    fn input_at(&self) -> Option<BootInstant> {
        let waits = self.is_established && self.awaited.is_none();
        waits.then(|| self.socket.now() + Duration::from_millis(20))
    }

    /// Sends what is due; `false` when there is nothing more to send or to wait for.
    fn send_next(&mut self) -> bool {
        let now = self.socket.now();
        if let Some(awaited) = &mut self.awaited {
            if awaited.again_at > now {
                return true;
            }
            if awaited.sends >= SENDS_MAX {
                eprintln!("error: the packet did not come back, sent {SENDS_MAX} times");
                return false;
            }
            awaited.sends += 1;
            awaited.again_at = now + RESEND_AFTER;
            let packet = awaited.packet.clone();
            self.seal(&packet);
            return true;
        }
        match self.next_packet(now) {
            Some(packet) => {
                println!("sent bytes={} {}", packet.len(), readable(&packet));
                self.seal(&packet);
                self.awaited = Some(Awaited { packet, sends: 1, again_at: now + RESEND_AFTER });
                true
            }
            None => match self.input {
                Input::Nothing { since } => now.saturating_since(since) < LINGER,
                _ => true,
            },
        }
    }

    fn next_packet(&mut self, now: BootInstant) -> Option<Vec<u8>> {
        let next = match &mut self.input {
            Input::Text { text, left } => {
                let next = (*left > 0).then(|| text.clone());
                *left = left.saturating_sub(1);
                next
            }
            Input::Lines { lines, ready } => {
                loop {
                    match lines.try_recv() {
                        Ok(line) => ready.push_back(line),
                        Err(TryRecvError::Empty) if ready.is_empty() => return None,
                        Err(_) => break,
                    }
                }
                ready.pop_front()
            }
            Input::Nothing { .. } => return None,
        };
        if next.is_none() {
            self.input = Input::Nothing { since: now };
        }
        next.map(String::into_bytes)
    }

    fn seal(&mut self, packet: &[u8]) {
        let mut record = vec![0; packet.len().min(CONTENT_BYTES_MAX) + self.association.overhead()];
        let Some(length) = self.association.seal(packet, &mut record) else {
            eprintln!("error: a packet of {} bytes cannot be sealed", packet.len());
            return;
        };
        self.socket.send(&record[..length], self.options.connect);
        self.sealed += 1;
        if self.options.common.key_update_every.is_some_and(|every| self.sealed.is_multiple_of(every)) {
            self.association.update_keys(self.socket.now());
            println!("key-update packets={}", self.sealed);
        }
    }

    fn handle(&mut self, datagram: &mut [u8]) {
        self.chosen.look_at(datagram);
        let (options, awaited) = (self.options, &mut self.awaited);
        self.association.handle_datagram(datagram, self.socket.now(), |received| match received {
            Received::Packet { bytes, .. } => {
                println!("packet bytes={} {}", bytes.len(), readable(bytes));
                if awaited.as_ref().is_some_and(|awaited| options.any_answer || awaited.packet == *bytes) {
                    *awaited = None;
                }
            }
            Received::Discarded(why) => eprintln!("discarded why={}", why.counter()),
        });
        if let Some(subject) = self.policy.take_subject() {
            self.subject = Some(subject);
        }
    }

    /// Sends what the association has to send, and tells what has become of it.
    fn settle(&mut self) {
        while let Some(datagram) = self.association.poll_transmit() {
            self.socket.send(&datagram, self.options.connect);
        }
        while let Some(event) = self.association.poll_event() {
            match event {
                Event::Established(_) => {
                    self.is_established = true;
                    let (chosen, cid) = (&self.chosen, cid_text(&self.association));
                    let (peer, subject) = (self.options.connect, self.subject.as_deref().unwrap_or("none"));
                    println!("established peer={peer} {chosen} subject={subject:?} cid={cid}");
                    print_exporter(&self.association, &self.options.common, peer);
                }
                // It does not move, so that the server has no use for more.
                Event::ConnectionIdsWanted(_) => self.association.give_connection_ids(&[], self.socket.now()),
                Event::Ended(why) => {
                    println!("ended peer={} reason={:?}", self.options.connect, why.to_string());
                    self.end = Some(why);
                }
            }
        }
    }

    fn say_goodbye(&mut self) {
        self.association.close();
        self.settle();
    }
}
