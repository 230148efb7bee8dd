//! A whole server of DTLS 1.3 against a peer that has the keys: honest flights, changed, repeated and withheld, among records with
//! anything in them, sealed under the keys of the handshake and behind it.
//!
//! Held: nobody is established but the holder of the device's key, once; nothing is handed out before that or after the end; what is
//! sent is bounded; nothing panics.

#![no_main]

use std::cell::RefCell;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use ringfort_dtls::cid::ConnectionId;
use ringfort_dtls::record::ContentType;
use ringfort_dtls::{Association, Event, Group, Opening, Received, Settings};
use ringfort_types::BootInstant;

#[path = "../../../../dataplane/dtls/tests/associations/world.rs"]
#[allow(dead_code)]
mod world;

use world::{Ca, Ends, START, UNIX};

thread_local!(static KINDS: RefCell<Vec<Ends>> = RefCell::new(kinds()));

fn kinds() -> Vec<Ends> {
    let ca = Ca::root();
    let (gateway, device) = (ca.gateway(), ca.device());
    let fast = Settings { groups: vec![Group::X25519], ..Settings::default() };
    let small = Settings { handshake_datagram_bytes_max: 300, ..fast.clone() };
    let mut kinds = vec![
        Ends::with(&ca, &gateway, &device, fast.clone(), fast.clone()),
        Ends::with(&ca, &gateway, &device, small.clone(), small),
        Ends::with(&ca, &gateway, &device, fast.clone(), fast),
    ];
    (kinds[2].server_cid, kinds[2].client_cid) = (None, None);
    kinds
}

struct Case<'a> {
    rest: &'a [u8],
    server: Association,
    client: Association,
    now: BootInstant,
    established: u32,
    ended: bool,
    /// The client's datagrams that have not been delivered, and the last that was.
    waiting: Vec<Vec<u8>>,
    last: Vec<u8>,
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
        let may = self.established > 0 && !self.ended;
        let mut handed_out = 0;
        self.server.handle_datagram(datagram, self.now, |received| {
            handed_out += u32::from(matches!(received, Received::Packet { .. }));
        });
        self.hear();
        // Its own datagram may have established it, and then what stands behind is the peer's.
        assert!(
            handed_out == 0 || may || self.established > 0,
            "handed out before the peer was known, or after the end"
        );
    }

    fn hear(&mut self) {
        while let Some(event) = self.server.poll_event() {
            assert!(!self.ended, "{event:?} after the end");
            match event {
                Event::Established(peer) => {
                    assert_eq!(peer.expect("a peer without a name").id(), "alice");
                    self.established += 1;
                    assert_eq!(self.established, 1);
                }
                Event::ConnectionIdsWanted(count) => {
                    let ids = (0..count).filter_map(|byte| ConnectionId::new(&[byte; 8]));
                    self.server.give_connection_ids(&ids.collect::<Vec<_>>(), self.now);
                }
                Event::Ended(_) => self.ended = true,
            }
        }
        let mut sent = 0;
        while let Some(mut datagram) = self.server.poll_transmit() {
            sent += 1;
            assert!(sent <= 256 && datagram.len() <= 1_500, "{sent} datagrams, {} bytes", datagram.len());
            self.client.handle_datagram(&mut datagram, self.now, |_| {});
        }
        while let Some(event) = self.client.poll_event() {
            if let Event::ConnectionIdsWanted(_) = event {
                self.client.give_connection_ids(&[], self.now);
            }
        }
        while let Some(datagram) = self.client.poll_transmit() {
            if self.waiting.len() < 32 {
                self.waiting.push(datagram.into());
            }
        }
    }

    fn step(&mut self) {
        match self.byte() % 12 {
            // All that is honest arrives.
            0 | 1 => {
                for mut datagram in std::mem::take(&mut self.waiting) {
                    self.last.clone_from(&datagram);
                    self.reaches_server(&mut datagram);
                }
            }
            // One arrives, changed or not.
            2 => {
                if self.waiting.is_empty() {
                    return;
                }
                let which = usize::from(self.byte()) % self.waiting.len();
                let mut datagram = self.waiting.remove(which);
                let (at, bits) = (usize::from(self.byte()) * 5 % datagram.len(), self.byte());
                datagram[at] ^= bits;
                self.last.clone_from(&datagram);
                self.reaches_server(&mut datagram);
            }
            3 => drop(self.waiting.pop()),
            4 => {
                let mut again = self.last.clone();
                self.reaches_server(&mut again);
            }
            // Anything in the clear.
            5 => {
                let length = usize::from(self.byte());
                let mut datagram = self.bytes(length).to_vec();
                self.reaches_server(&mut datagram);
            }
            // Anything sealed.
            6 => {
                let kinds =
                    [ContentType::Alert, ContentType::Handshake, ContentType::ApplicationData, ContentType::Ack];
                let kind = kinds[usize::from(self.byte()) % kinds.len()];
                let length = usize::from(self.byte());
                let content = self.bytes(length);
                self.sealed(kind, content);
            }
            // A handshake message, sealed: type, number, length, where its fragment begins.
            7 | 8 => {
                let (kind, number, length, at) = (self.byte(), self.byte(), self.byte(), self.byte());
                let body = self.bytes(usize::from(length));
                let total = usize::from(length) + usize::from(at);
                let three = |number: usize| (number as u32).to_be_bytes()[1..].to_vec();
                let header = [vec![kind], three(total), vec![0, number], three(at.into()), three(body.len())].concat();
                self.sealed(ContentType::Handshake, &[&header, body].concat());
            }
            9 => {
                self.now = self.now + Duration::from_millis(u64::from(self.byte()) * 20);
                if self.server.poll_timeout().is_some_and(|at| at <= self.now) {
                    self.server.handle_timeout(self.now);
                }
                if self.client.poll_timeout().is_some_and(|at| at <= self.now) {
                    self.client.handle_timeout(self.now);
                }
                self.hear();
            }
            10 => {
                match self.byte() % 6 {
                    0 => self.server.update_keys(self.now),
                    1 => self.client.update_keys(self.now),
                    2 => self.client.request_connection_ids(3, self.now),
                    3 => drop(self.client.change_connection_id(self.now)),
                    4 => self.client.close(),
                    _ => self.server.close(),
                }
                self.hear();
            }
            _ => {
                let length = usize::from(self.byte());
                let packet = self.bytes(length);
                let mut record = vec![0; packet.len() + 64];
                if let Some(sealed) = self.client.seal(packet, &mut record) {
                    self.reaches_server(&mut record[..sealed]);
                }
            }
        }
    }

    fn sealed(&mut self, kind: ContentType, content: &[u8]) {
        self.client.send_record(kind, content);
        while let Some(mut datagram) = self.client.poll_transmit() {
            self.reaches_server(&mut datagram);
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    KINDS.with_borrow(|kinds| {
        let ends = &kinds[usize::from(*first) % kinds.len()];
        let mut client = Association::client(&ends.client, ends.client_cid, [1; 32], START, UNIX);
        let mut hello = client.poll_transmit().unwrap();
        let opening = Opening::unvalidated(&hello).unwrap();
        let server = Association::server(&ends.server, &opening, ends.server_cid, [2; 32], START, UNIX);
        let (waiting, last) = (Vec::new(), Vec::new());
        let mut case = Case { rest, server, client, now: START, established: 0, ended: false, waiting, last };
        case.reaches_server(&mut hello);
        for _ in 0..64 {
            if case.rest.is_empty() {
                return;
            }
            case.step();
        }
    });
});
