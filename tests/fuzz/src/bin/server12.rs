//! A whole server of DTLS 1.2 against a peer that has the keys: an honest flight, changed, repeated and withheld, among fragments of
//! anything in the clear, and records with anything in them under the keys of the handshake.
//!
//! Held: nobody is established but the holder of the device's key, once; nothing is handed out before that or after the end; what is
//! sent is bounded; nothing panics.

#![no_main]

use std::cell::RefCell;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use ringfort_dtls::record::ContentType;
use ringfort_dtls::{Association, Event, Group, Opening, Received, Settings};
use ringfort_identity::Credentials;
use ringfort_types::BootInstant;

#[path = "../../../../dataplane/dtls/tests/associations/twelve/client.rs"]
#[allow(dead_code)]
mod client;
#[path = "../../../../dataplane/dtls/tests/associations/world.rs"]
#[allow(dead_code)]
mod world;

use client::{Client, Offer, fragment};
use world::{Ca, Ends, START, UNIX};

struct Kinds {
    ends: [Ends; 2],
    device: Credentials,
}

thread_local!(static KINDS: RefCell<Kinds> = RefCell::new(kinds()));

fn kinds() -> Kinds {
    let ca = Ca::root();
    let (gateway, device) = (ca.gateway(), ca.device());
    let fast = Settings { groups: vec![Group::X25519], ..Settings::default() };
    let small = Settings { handshake_datagram_bytes_max: 300, ..fast.clone() };
    let ends = [fast, small].map(|settings| Ends::with(&ca, &gateway, &device, settings.clone(), settings));
    Kinds { ends, device }
}

struct Case<'a> {
    rest: &'a [u8],
    server: Association,
    client: Client,
    now: BootInstant,
    established: u32,
    ended: bool,
    /// What the server says still interests the client: up to its first flight.
    listens: bool,
    /// The records of the client's flight that have not been delivered, and the last that was.
    waiting: Vec<Vec<u8>>,
    last: Vec<u8>,
    has_keys: bool,
}

impl<'a> Case<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        *first
    }

    fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    fn reaches_server(&mut self, datagram: &mut [u8]) {
        let mut handed_out = 0;
        let was_over = self.ended;
        self.server.handle_datagram(datagram, self.now, |received| {
            handed_out += u32::from(matches!(received, Received::Packet { .. }));
        });
        self.hear();
        assert!(handed_out == 0 || (self.established > 0 && !was_over), "handed out before or after its time");
    }

    fn hear(&mut self) {
        while let Some(event) = self.server.poll_event() {
            assert!(!self.ended, "{event:?} after the end");
            match event {
                Event::Established(peer) => {
                    assert_eq!(peer.expect("a peer without a name").id(), "alice");
                    self.established += 1;
                    assert!(self.established == 1 && self.has_keys);
                }
                Event::ConnectionIdsWanted(_) => panic!("DTLS 1.2 has no such message"),
                Event::Ended(_) => self.ended = true,
            }
        }
        let mut sent = 0;
        while let Some(datagram) = self.server.poll_transmit() {
            sent += 1;
            assert!(sent <= 256 && datagram.len() <= 1_500, "{sent} datagrams, {} bytes", datagram.len());
            if self.listens {
                self.client.handle(&datagram);
            }
        }
        if self.listens && self.client.has_flight() {
            let flight = self.client.second_flight();
            self.waiting = self.client.write(&flight);
            (self.listens, self.has_keys) = (false, true);
        }
    }

    fn step(&mut self) {
        match self.byte() % 12 {
            0 | 1 => self.deliver(0),
            2 => {
                let bits = self.byte();
                self.deliver(bits);
            }
            3 => {
                for _ in 0..self.waiting.len() {
                    self.deliver(0);
                }
            }
            4 if !self.waiting.is_empty() => {
                let which = usize::from(self.byte()) % self.waiting.len();
                let record = self.waiting.remove(which);
                self.waiting.push(record);
            }
            5 => {
                let mut again = self.last.clone();
                self.reaches_server(&mut again);
            }
            6 => {
                let length = usize::from(self.byte());
                let mut datagram = self.bytes(length).to_vec();
                self.reaches_server(&mut datagram);
            }
            // A fragment of a handshake message, in the clear or sealed.
            7 | 8 | 9 => {
                let (how, kind, number, length) = (self.byte(), self.byte(), self.byte(), self.byte());
                let body = self.bytes(usize::from(length)).to_vec();
                let (from, to) =
                    (usize::from(self.byte()) % (body.len() + 1), usize::from(self.byte()) % (body.len() + 1));
                let content = fragment(kind, number.into(), &body, from.min(to)..from.max(to));
                if how & 1 == 0 || !self.has_keys {
                    let mut record = self.client.clear(ContentType::Handshake, &content);
                    self.reaches_server(&mut record);
                } else {
                    let mut record = self.client.seal(ContentType::Handshake, &content);
                    self.reaches_server(&mut record);
                }
            }
            10 if self.has_keys => {
                let kinds = [
                    ContentType::Alert,
                    ContentType::Handshake,
                    ContentType::ApplicationData,
                    ContentType::ChangeCipherSpec,
                    ContentType::Ack,
                ];
                let kind = kinds[usize::from(self.byte()) % kinds.len()];
                let length = usize::from(self.byte());
                let content = self.bytes(length);
                let mut record = self.client.seal(kind, content);
                self.reaches_server(&mut record);
            }
            _ => {
                self.now = self.now + Duration::from_millis(u64::from(self.byte()) * 20);
                if self.server.poll_timeout().is_some_and(|at| at <= self.now) {
                    self.server.handle_timeout(self.now);
                }
                if self.byte() == 255 {
                    self.server.close();
                }
                self.hear();
            }
        }
    }

    /// The next honest record arrives, changed by these bits in one byte.
    fn deliver(&mut self, bits: u8) {
        if self.waiting.is_empty() {
            return;
        }
        let mut record = self.waiting.remove(0);
        if bits != 0 {
            // The honest one stays, to be repeated.
            self.waiting.push(record.clone());
            let at = usize::from(self.byte()) * 3 % record.len();
            record[at] ^= bits;
        }
        self.last.clone_from(&record);
        self.reaches_server(&mut record);
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    KINDS.with_borrow(|kinds| {
        let ends = &kinds.ends[usize::from(first & 1)];
        let mut offer = Offer::default();
        if first & 2 != 0 {
            offer.cid(&[]);
        }
        let mut client = Client::new(offer, Some(&kinds.device));
        let mut hello = client.hello();
        let opening = Opening::unvalidated(&hello).unwrap();
        let server = Association::server(&ends.server, &opening, ends.server_cid, [2; 32], START, UNIX);
        let mut case = Case {
            rest,
            server,
            client,
            now: START,
            established: 0,
            ended: false,
            listens: true,
            waiting: Vec::new(),
            last: Vec::new(),
            has_keys: false,
        };
        case.reaches_server(&mut hello);
        for _ in 0..64 {
            if case.rest.is_empty() {
                return;
            }
            case.step();
        }
    });
});
