//! A client of DTLS 1.3 that is written out step by step, so that a test can change any of them. Its key schedule is written
//! here, from aws-lc's HMAC; of ours it has the record layer.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey};
use aws_lc_rs::{digest, hmac};
use ringfort_dtls::Event;
use ringfort_dtls::cid::ConnectionId;
use ringfort_dtls::record::{ContentType, Open, RecordLayer, Secret, Suite, Version};
use ringfort_identity::Credentials;
use ringfort_types::BootInstant;
use rustls::SignatureScheme;
use rustls::sign::SigningKey;

use crate::world::{Ends, START, Server};

pub(crate) const HELLO: u8 = 1;
pub(crate) const NEW_SESSION_TICKET: u8 = 4;
pub(crate) const CERTIFICATE: u8 = 11;
pub(crate) const CERTIFICATE_REQUEST: u8 = 13;
pub(crate) const CERTIFICATE_VERIFY: u8 = 15;
pub(crate) const FINISHED: u8 = 20;
pub(crate) const KEY_UPDATE: u8 = 24;

pub(super) const SUITE: Suite = Suite::Aes128GcmSha256;

/// What a ClientHello says.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    pub(crate) version: u16,
    pub(crate) session_id: Vec<u8>,
    pub(crate) legacy_cookie: Vec<u8>,
    pub(crate) suites: Vec<u16>,
    pub(crate) compression: Vec<u8>,
    /// Extensions with their content, in their order.
    pub(crate) extensions: Vec<(u16, Vec<u8>)>,
    /// Bytes behind everything else.
    pub(crate) trailing: Vec<u8>,
}

impl Default for Offer {
    fn default() -> Self {
        Self {
            version: 0xfefd,
            session_id: Vec::new(),
            legacy_cookie: Vec::new(),
            suites: vec![0x1301],
            compression: vec![0],
            extensions: vec![
                (43, vec![2, 0xfe, 0xfc]),
                (10, vec![0, 2, 0, 29]),
                (13, vec![0, 4, 4, 3, 8, 7]),
                (51, vec![0, 0]),
                // So that the answer with a cookie is no longer.
                (21, vec![0; 100]),
            ],
            trailing: Vec::new(),
        }
    }
}

impl Offer {
    pub(crate) fn set(&mut self, number: u16, content: &[u8]) {
        match self.extensions.iter_mut().find(|(of, _)| *of == number) {
            Some((_, there)) => *there = content.to_vec(),
            None => self.extensions.push((number, content.to_vec())),
        }
    }

    pub(crate) fn remove(&mut self, number: u16) {
        self.extensions.retain(|(of, _)| *of != number);
    }

    pub(crate) fn body(&self, random: [u8; 32]) -> Vec<u8> {
        let suites: Vec<u8> = self.suites.iter().flat_map(|suite| suite.to_be_bytes()).collect();
        let extensions: Vec<u8> = self
            .extensions
            .iter()
            .flat_map(|(number, content)| [&number.to_be_bytes()[..], &vec16(content)].concat())
            .collect();
        [
            &self.version.to_be_bytes()[..],
            &random,
            &vec8(&self.session_id),
            &vec8(&self.legacy_cookie),
            &vec16(&suites),
            &vec8(&self.compression),
            &vec16(&extensions),
            &self.trailing,
        ]
        .concat()
    }
}

pub(crate) fn vec8(content: &[u8]) -> Vec<u8> {
    [&[content.len() as u8], content].concat()
}

pub(crate) fn vec16(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u16).to_be_bytes(), content].concat()
}

pub(crate) fn vec24(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u32).to_be_bytes()[1..], content].concat()
}

/// A fragment of a message with its header.
pub(crate) fn fragment(kind: u8, sequence: u16, body: &[u8], at: std::ops::Range<usize>) -> Vec<u8> {
    let number = |number: usize| (number as u32).to_be_bytes()[1..].to_vec();
    let header = [vec![kind], number(body.len()), sequence.to_be_bytes().to_vec(), number(at.start), number(at.len())];
    [&header.concat(), &body[at]].concat()
}

pub(crate) fn message(kind: u8, sequence: u16, body: &[u8]) -> Vec<u8> {
    fragment(kind, sequence, body, 0..body.len())
}

pub(super) fn expand(secret: &[u8], label: &str, context: &[u8]) -> Vec<u8> {
    let label = [b"dtls13", label.as_bytes()].concat();
    let info = [&[0, 32], &vec8(&label)[..], &vec8(context), &[1]].concat();
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), &info).as_ref().to_vec()
}

pub(super) fn extract(salt: &[u8], input: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, salt), input).as_ref().to_vec()
}

pub(super) fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, bytes).as_ref().to_vec()
}

pub(crate) struct Client {
    pub(crate) server: Server,
    pub(crate) now: BootInstant,
    pub(crate) offer: Offer,
    pub(crate) random: [u8; 32],
    pub(crate) chain: Vec<Vec<u8>>,
    key: Option<Arc<dyn SigningKey>>,
    pub(crate) records: RecordLayer,
    pub(crate) next_out: u16,
    pub(crate) next_in: u16,
    transcript: Vec<u8>,
    share: Option<PrivateKey>,
    client_handshake: Vec<u8>,
    server_handshake: Vec<u8>,
    client_application: Vec<u8>,
    server_application: Vec<u8>,
    handshake: Vec<u8>,
    messages: BTreeMap<u16, (u8, Vec<Option<u8>>)>,
    /// The server's messages, in order.
    pub(crate) said: Vec<(u8, Vec<u8>)>,
    pub(crate) clear_alerts: Vec<u8>,
    pub(crate) alerts: Vec<[u8; 2]>,
    pub(crate) acks: Vec<Vec<(u64, u64)>>,
    pub(crate) received: Vec<Vec<u8>>,
    pub(crate) events: Vec<Event>,
    /// What the server delivered.
    pub(crate) delivered: Vec<Vec<u8>>,
}

impl Client {
    pub(crate) fn new(ends: &Ends, offer: Offer, credentials: Option<&Credentials>) -> Self {
        Self {
            server: Server::new(ends),
            now: START,
            offer,
            random: [0x5a; 32],
            chain: credentials
                .map(|credentials| credentials.chain().iter().map(|der| der.to_vec()).collect())
                .unwrap_or_default(),
            key: credentials.map(|credentials| Arc::clone(credentials.signing_key())),
            records: RecordLayer::new(),
            next_out: 0,
            next_in: 0,
            transcript: Vec::new(),
            share: None,
            client_handshake: Vec::new(),
            server_handshake: Vec::new(),
            client_application: Vec::new(),
            server_application: Vec::new(),
            handshake: Vec::new(),
            messages: BTreeMap::new(),
            said: Vec::new(),
            clear_alerts: Vec::new(),
            alerts: Vec::new(),
            acks: Vec::new(),
            received: Vec::new(),
            events: Vec::new(),
            delivered: Vec::new(),
        }
    }

    /// A record in the clear.
    pub(crate) fn clear(&mut self, content_type: ContentType, content: &[u8]) -> Vec<u8> {
        let mut record = vec![0; content.len() + 13];
        let length = self.records.seal_plaintext(content_type, Version::DTLS_1_2, content, &mut record).unwrap();
        record.truncate(length);
        record
    }

    /// A record under the newest keys.
    pub(crate) fn seal(&mut self, content_type: ContentType, content: &[u8]) -> Vec<u8> {
        let epoch = self.records.tx_epoch();
        self.seal_in(epoch, content_type, content)
    }

    pub(crate) fn seal_in(&mut self, epoch: u64, content_type: ContentType, content: &[u8]) -> Vec<u8> {
        let mut record = vec![0; content.len() + 64];
        let length = self.records.seal_in(epoch, content_type, content, &mut record).unwrap();
        record.truncate(length);
        record
    }

    /// Gives the server a datagram and takes what it answers.
    pub(crate) fn send(&mut self, datagram: &[u8]) {
        let (mut datagram, delivered) = (datagram.to_vec(), &mut self.delivered);
        self.server.handle(&mut datagram, self.now, |received| {
            if let ringfort_dtls::Received::Packet { bytes, .. } = received {
                delivered.push(bytes.to_vec());
            }
        });
        self.take();
    }

    /// Takes what the server has sent and said.
    pub(crate) fn take(&mut self) {
        for datagram in self.server.transmits() {
            self.handle(&datagram);
        }
        if let Some(association) = &mut self.server.association {
            self.events.extend(std::iter::from_fn(|| association.poll_event()));
        }
    }

    pub(crate) fn pass(&mut self, time: std::time::Duration) {
        self.now = self.now + time;
        if let Some(association) = &mut self.server.association
            && association.poll_timeout().is_some_and(|at| at <= self.now)
        {
            association.handle_timeout(self.now);
        }
        self.take();
    }

    /// The ClientHello as a message.
    pub(crate) fn hello_body(&mut self) -> Vec<u8> {
        let body = self.offer.body(self.random);
        self.add(HELLO, &body);
        body
    }

    pub(crate) fn hello(&mut self) -> Vec<u8> {
        let body = self.hello_body();
        let message = message(HELLO, self.next_out, &body);
        self.next_out += 1;
        self.clear(ContentType::Handshake, &message)
    }

    /// Adds a message to the transcript, which has no more of its header than TLS has.
    pub(crate) fn add(&mut self, kind: u8, body: &[u8]) {
        self.transcript.push(kind);
        self.transcript.extend_from_slice(&vec24(body));
    }

    /// The hash of what was said so far.
    pub(crate) fn hash(&self) -> Vec<u8> {
        sha256(&self.transcript)
    }

    /// Says hello, takes the request for a cookie and says hello again as it asks; `change` has the last word.
    pub(crate) fn greet(&mut self, change: impl FnOnce(&mut Offer)) {
        let hello = self.hello();
        self.send(&hello);
        self.retry(change);
        let hello = self.hello();
        self.send(&hello);
    }

    /// Prepares the second hello.
    pub(crate) fn retry(&mut self, change: impl FnOnce(&mut Offer)) {
        let (kind, body) = self.said.pop().expect("no HelloRetryRequest");
        assert_eq!((kind, &body[2..6]), (2, &[0xcf, 0x21, 0xad, 0x74][..]));
        let first = self.hash_before_retry();
        self.transcript = [&[254, 0, 0, 32], &first[..]].concat();
        self.add(2, &body);
        let cookie = extension(&body, 44).unwrap();
        self.share = Some(PrivateKey::generate(&agreement::X25519).unwrap());
        let public = self.share.as_ref().unwrap().compute_public_key().unwrap();
        self.offer.extensions.insert(0, (44, cookie));
        self.offer.set(51, &vec16(&[&[0, 29], &vec16(public.as_ref())[..]].concat()));
        change(&mut self.offer);
    }

    /// The request is in the transcript by now; what stands before it counts.
    fn hash_before_retry(&self) -> Vec<u8> {
        let length = 4 + u32::from_be_bytes([0, self.transcript[1], self.transcript[2], self.transcript[3]]) as usize;
        sha256(&self.transcript[..length])
    }

    fn handle(&mut self, datagram: &[u8]) {
        let (mut datagram, mut offset) = (datagram.to_vec(), 0);
        loop {
            match self.records.open(&mut datagram, &mut offset) {
                Open::End => break,
                Open::Plaintext(record) => {
                    let content = datagram[record.content.clone()].to_vec();
                    match record.content_type {
                        ContentType::Handshake => self.gather(&content),
                        ContentType::Alert => self.clear_alerts.push(content[1]),
                        other => panic!("{other:?} in the clear"),
                    }
                }
                Open::Record(record) => {
                    let content = datagram[record.content.clone()].to_vec();
                    match record.content_type {
                        ContentType::ApplicationData => self.received.push(content),
                        ContentType::Alert => self.alerts.push([content[0], content[1]]),
                        ContentType::Handshake => self.gather(&content),
                        ContentType::Ack => {
                            let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
                            let numbers = content[2..].chunks(16).map(|one| (number(&one[..8]), number(&one[8..])));
                            self.acks.push(numbers.collect());
                        }
                        other => panic!("{other:?} sealed"),
                    }
                }
                Open::Dropped(why) => panic!("the server sent what is dropped: {why:?}"),
            }
        }
    }

    fn gather(&mut self, mut content: &[u8]) {
        while let Some((header, rest)) = content.split_first_chunk::<12>() {
            let number = |at: usize| u32::from_be_bytes([0, header[at], header[at + 1], header[at + 2]]) as usize;
            let (length, offset, bytes) = (number(1), number(6), number(9));
            let sequence = u16::from_be_bytes([header[4], header[5]]);
            let (_, body) = self.messages.entry(sequence).or_insert_with(|| (header[0], vec![None; length]));
            for (place, byte) in body[offset..offset + bytes].iter_mut().zip(rest) {
                *place = Some(*byte);
            }
            content = &rest[bytes..];
        }
        while let Some((kind, body)) = self.messages.get(&self.next_in) {
            let Some(body) = body.iter().copied().collect::<Option<Vec<u8>>>() else { return };
            let kind = *kind;
            self.next_in += 1;
            self.take_message(kind, body);
        }
    }

    fn take_message(&mut self, kind: u8, body: Vec<u8>) {
        let is_retry = kind == 2 && body[2..6] == [0xcf, 0x21, 0xad, 0x74];
        if !is_retry && matches!(kind, 2 | 8 | 11 | 13 | 15 | 20) {
            if kind == FINISHED {
                let key = expand(&self.server_handshake, "finished", &[]);
                assert_eq!(extract(&key, &self.hash()), body, "the server's Finished");
            }
            self.add(kind, &body);
        }
        if kind == 2 && !is_retry {
            self.server_hello(&body);
        }
        if kind == FINISHED {
            let derived = expand(&self.handshake, "derived", &sha256(&[]));
            let master = extract(&derived, &[0; 32]);
            self.client_application = expand(&master, "c ap traffic", &self.hash());
            self.server_application = expand(&master, "s ap traffic", &self.hash());
            self.records.install_rx(3, SUITE, &Secret::new(&self.server_application).unwrap()).unwrap();
        }
        self.said.push((kind, body));
    }

    fn server_hello(&mut self, body: &[u8]) {
        let share = extension(body, 51).unwrap();
        let peer = UnparsedPublicKey::new(&agreement::X25519, &share[4..]);
        let shared = agreement::agree(self.share.as_ref().unwrap(), peer, (), |secret| Ok(secret.to_vec())).unwrap();
        let derived = expand(&extract(&[0; 32], &[0; 32]), "derived", &sha256(&[]));
        self.handshake = extract(&derived, &shared);
        self.client_handshake = expand(&self.handshake, "c hs traffic", &self.hash());
        self.server_handshake = expand(&self.handshake, "s hs traffic", &self.hash());
        if let (Some(theirs), Some((_, ours))) =
            (extension(body, 54), self.offer.extensions.iter().find(|(number, _)| *number == 54))
        {
            self.records.set_peer_cid(ConnectionId::new(&theirs[1..]).unwrap());
            self.records.set_local_cid(ConnectionId::new(&ours[1..]).unwrap());
        }
        self.records.install_rx(2, SUITE, &Secret::new(&self.server_handshake).unwrap()).unwrap();
        self.records.install_tx(2, SUITE, &Secret::new(&self.client_handshake).unwrap()).unwrap();
    }

    /// The next message of ours, which is added to the transcript.
    pub(crate) fn say(&mut self, kind: u8, body: &[u8]) -> Vec<u8> {
        self.add(kind, body);
        self.next_out += 1;
        message(kind, self.next_out - 1, body)
    }

    pub(crate) fn certificate_body(&self) -> Vec<u8> {
        let list: Vec<u8> = self.chain.iter().flat_map(|der| [vec24(der), vec![0, 0]].concat()).collect();
        [vec8(&[]), vec24(&list)].concat()
    }

    /// A CertificateVerify over the transcript so far, that says to be of `scheme`.
    pub(crate) fn verify_body(&self, scheme: u16) -> Vec<u8> {
        let content = [&[b' '; 64][..], b"TLS 1.3, client CertificateVerify\0", &self.hash()].concat();
        let offered = [0x0403, 0x0807, 0x0503, 0x0804].map(SignatureScheme::from);
        let signature = self.key.as_ref().unwrap().choose_scheme(&offered).unwrap().sign(&content).unwrap();
        [&scheme.to_be_bytes()[..], &vec16(&signature)].concat()
    }

    pub(crate) fn finished_body(&self) -> Vec<u8> {
        extract(&expand(&self.client_handshake, "finished", &[]), &self.hash())
    }

    /// Certificate, CertificateVerify and Finished.
    pub(crate) fn flight(&mut self) -> Vec<Vec<u8>> {
        let body = self.certificate_body();
        let certificate = self.say(CERTIFICATE, &body);
        let body = self.verify_body(0x0403);
        let verify = self.say(CERTIFICATE_VERIFY, &body);
        let body = self.finished_body();
        vec![certificate, verify, self.say(FINISHED, &body)]
    }

    /// Seals messages into a datagram each.
    pub(crate) fn send_messages(&mut self, messages: &[Vec<u8>]) {
        for message in messages {
            let record = self.seal(ContentType::Handshake, message);
            self.send(&record);
        }
    }

    /// The keys of the packets.
    pub(crate) fn install_application(&mut self) {
        self.records.install_tx(3, SUITE, &Secret::new(&self.client_application).unwrap()).unwrap();
    }

    /// A client that has shaken hands as it should.
    pub(crate) fn established(ends: &Ends, offer: Offer, credentials: &Credentials) -> Self {
        let mut client = Self::new(ends, offer, Some(credentials));
        client.greet(|_| ());
        let flight = client.flight();
        client.send_messages(&flight);
        assert!(matches!(client.events.as_slice(), [Event::Established(Some(_))]), "{:?}", client.events);
        client.install_application();
        client.events.clear();
        client
    }

    pub(crate) fn assert_alive(&mut self) {
        self.delivered.clear();
        let record = self.seal(ContentType::ApplicationData, b"up");
        self.send(&record);
        assert_eq!(self.delivered, [b"up".to_vec()]);
    }
}

/// The content of an extension of a ServerHello.
pub(crate) fn extension(body: &[u8], number: u16) -> Option<Vec<u8>> {
    let mut rest = &body[35 + usize::from(body[34]) + 5..];
    while let [a, b, high, low, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if u16::from_be_bytes([*a, *b]) == number {
            return Some(tail[..length].to_vec());
        }
        rest = &tail[length..];
    }
    None
}
