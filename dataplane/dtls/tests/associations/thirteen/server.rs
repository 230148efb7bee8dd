//! Our client, and a server that is written out here and can be told to do wrong (RFC 8446 §4.1.3, §4.1.4, §4.3, §4.4).

use std::sync::Arc;

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey};
use ringfort_dtls::record::{ContentType, Open, RecordLayer, Secret, Suite, Version};
use ringfort_dtls::{Alert, Association, Event, Group, Settings};
use ringfort_identity::Credentials;
use rustls::SignatureScheme;
use rustls::sign::SigningKey;

use super::client::{
    CERTIFICATE, CERTIFICATE_REQUEST, CERTIFICATE_VERIFY, FINISHED, KEY_UPDATE, NEW_SESSION_TICKET, SUITE, expand,
    extract, message, sha256, vec8, vec16, vec24,
};
use crate::world::{Ca, Ends, START, UNIX};

const SERVER_HELLO: u8 = 2;
const ENCRYPTED_EXTENSIONS: u8 = 8;
const RETRY_RANDOM: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11,
    0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// What a ServerHello or HelloRetryRequest says.
#[derive(Clone)]
struct Hello {
    version: u16,
    random: [u8; 32],
    session_id: Vec<u8>,
    suite: u16,
    compression: u8,
    extensions: Vec<(u16, Vec<u8>)>,
}

impl Hello {
    fn retry() -> Self {
        Self {
            version: 0xfefd,
            random: RETRY_RANDOM,
            session_id: Vec::new(),
            suite: 0x1301,
            compression: 0,
            extensions: vec![(43, vec![0xfe, 0xfc]), (51, vec![0, 29]), (44, vec16(b"cookie"))],
        }
    }

    fn set(&mut self, number: u16, content: &[u8]) {
        self.extensions.retain(|(of, _)| *of != number);
        self.extensions.push((number, content.to_vec()));
    }

    fn remove(&mut self, number: u16) {
        self.extensions.retain(|(of, _)| *of != number);
    }

    fn body(&self) -> Vec<u8> {
        let extensions: Vec<u8> = self
            .extensions
            .iter()
            .flat_map(|(number, content)| [&number.to_be_bytes()[..], &vec16(content)].concat())
            .collect();
        [
            &self.version.to_be_bytes()[..],
            &self.random,
            &vec8(&self.session_id),
            &self.suite.to_be_bytes(),
            &[self.compression],
            &vec16(&extensions),
        ]
        .concat()
    }
}

struct Server {
    client: Association,
    records: RecordLayer,
    chain: Vec<Vec<u8>>,
    key: Arc<dyn SigningKey>,
    transcript: Vec<u8>,
    /// The share of the client's newest hello.
    share: Vec<u8>,
    next_out: u16,
    next_in: u16,
    handshake: Vec<u8>,
    server_handshake: Vec<u8>,
    client_handshake: Vec<u8>,
    server_application: Vec<u8>,
    clear_alerts: Vec<u8>,
    alerts: Vec<[u8; 2]>,
    events: Vec<Event>,
}

impl Server {
    fn new(ends: &Ends, credentials: &Credentials) -> Self {
        let mut server = Self {
            client: Association::client(&ends.client, None, [3; 32], START, UNIX),
            records: RecordLayer::new(),
            chain: credentials.chain().iter().map(|der| der.to_vec()).collect(),
            key: Arc::clone(credentials.signing_key()),
            transcript: Vec::new(),
            share: Vec::new(),
            next_out: 0,
            next_in: 0,
            handshake: Vec::new(),
            server_handshake: Vec::new(),
            client_handshake: Vec::new(),
            server_application: Vec::new(),
            clear_alerts: Vec::new(),
            alerts: Vec::new(),
            events: Vec::new(),
        };
        server.take();
        server
    }

    fn add(&mut self, kind: u8, body: &[u8]) {
        self.transcript.push(kind);
        self.transcript.extend_from_slice(&vec24(body));
    }

    fn hash(&self) -> Vec<u8> {
        sha256(&self.transcript)
    }

    /// Takes what the client has sent; its hellos are whole in a datagram here.
    fn take(&mut self) {
        while let Some(mut datagram) = self.client.poll_transmit() {
            let mut offset = 0;
            loop {
                match self.records.open(&mut datagram, &mut offset) {
                    Open::End => break,
                    Open::Plaintext(record) => {
                        let content = datagram[record.content.clone()].to_vec();
                        match record.content_type {
                            ContentType::Alert => self.clear_alerts.push(content[1]),
                            _ if u16::from_be_bytes([content[4], content[5]]) == self.next_in => {
                                self.next_in += 1;
                                self.add(content[0], &content[12..]);
                                let at = content.windows(6).position(|six| six[..2] == [0, 29] && six[2..4] == [0, 32]);
                                self.share = at.map(|at| content[at + 4..at + 36].to_vec()).unwrap_or_default();
                            }
                            _ => {}
                        }
                    }
                    Open::Record(record) if record.content_type == ContentType::Alert => {
                        let content = &datagram[record.content];
                        self.alerts.push([content[0], content[1]]);
                    }
                    Open::Record(_) | Open::Dropped(_) => {}
                }
            }
        }
        self.events.extend(std::iter::from_fn(|| self.client.poll_event()));
    }

    fn send(&mut self, mut record: Vec<u8>) {
        self.client.handle_datagram(&mut record, START, |_| ());
        self.take();
    }

    fn say_hello(&mut self, hello: &Hello) {
        let body = hello.body();
        if hello.random == RETRY_RANDOM {
            self.transcript = [&[254, 0, 0, 32], &self.hash()[..]].concat();
        }
        self.add(SERVER_HELLO, &body);
        let message = message(SERVER_HELLO, self.next_out, &body);
        self.next_out += 1;
        let mut record = vec![0; message.len() + 13];
        self.records.seal_plaintext(ContentType::Handshake, Version::DTLS_1_2, &message, &mut record).unwrap();
        // The keys come before the client's answer.
        if hello.random != RETRY_RANDOM && !self.handshake.is_empty() {
            self.client_handshake = expand(&self.handshake, "c hs traffic", &self.hash());
            self.server_handshake = expand(&self.handshake, "s hs traffic", &self.hash());
            self.records.install_tx(2, SUITE, &Secret::new(&self.server_handshake).unwrap()).unwrap();
            self.records.install_rx(2, SUITE, &Secret::new(&self.client_handshake).unwrap()).unwrap();
        }
        self.send(record);
    }

    /// The ServerHello that fits the client's share.
    fn hello(&mut self) -> Hello {
        let ours = PrivateKey::generate(&agreement::X25519).unwrap();
        let public = ours.compute_public_key().unwrap();
        if !self.share.is_empty() {
            let peer = UnparsedPublicKey::new(&agreement::X25519, &self.share);
            let shared = agreement::agree(&ours, peer, (), |secret| Ok(secret.to_vec())).unwrap();
            let derived = expand(&extract(&[0; 32], &[0; 32]), "derived", &sha256(&[]));
            self.handshake = extract(&derived, &shared);
        }
        let mut hello = Hello { random: [9; 32], ..Hello::retry() };
        hello.remove(44);
        hello.set(51, &[&[0, 29], &vec16(public.as_ref())[..]].concat());
        hello
    }

    fn say(&mut self, kind: u8, body: &[u8]) {
        self.add(kind, body);
        self.repeat(kind, body);
    }

    fn repeat(&mut self, kind: u8, body: &[u8]) {
        let message = message(kind, self.next_out, body);
        self.next_out += 1;
        let mut record = vec![0; message.len() + 64];
        let length = self.records.seal(ContentType::Handshake, &message, &mut record).unwrap();
        record.truncate(length);
        self.send(record);
    }

    fn certificate_body(&self) -> Vec<u8> {
        let list: Vec<u8> = self.chain.iter().flat_map(|der| [vec24(der), vec![0, 0]].concat()).collect();
        [vec8(&[]), vec24(&list)].concat()
    }

    fn verify_body(&self, scheme: u16, who: &str) -> Vec<u8> {
        let content =
            [&[b' '; 64][..], format!("TLS 1.3, {who} CertificateVerify\0").as_bytes(), &self.hash()].concat();
        let signer = self.key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]).unwrap();
        [&scheme.to_be_bytes()[..], &vec16(&signer.sign(&content).unwrap())].concat()
    }

    fn finished_body(&self) -> Vec<u8> {
        extract(&expand(&self.server_handshake, "finished", &[]), &self.hash())
    }

    /// Everything as it should be, up to the message `last`.
    fn say_all(&mut self, last: u8) {
        self.say_hello(&Hello::retry());
        let hello = self.hello();
        self.say_hello(&hello);
        for kind in [ENCRYPTED_EXTENSIONS, CERTIFICATE_REQUEST, CERTIFICATE, CERTIFICATE_VERIFY, FINISHED] {
            if last == SERVER_HELLO {
                return;
            }
            let body = match kind {
                ENCRYPTED_EXTENSIONS => vec![0, 0],
                CERTIFICATE_REQUEST => vec![0, 0, 8, 0, 13, 0, 4, 0, 2, 4, 3],
                CERTIFICATE => self.certificate_body(),
                CERTIFICATE_VERIFY => self.verify_body(0x0403, "server"),
                _ => self.finished_body(),
            };
            self.say(kind, &body);
            if kind == last {
                break;
            }
        }
        if last == FINISHED {
            let derived = expand(&self.handshake, "derived", &sha256(&[]));
            let master = extract(&derived, &[0; 32]);
            // The client's flight is in no transcript that this needs.
            self.server_application = expand(&master, "s ap traffic", &self.hash());
            let client_application = expand(&master, "c ap traffic", &self.hash());
            self.records.install_tx(3, SUITE, &Secret::new(&self.server_application).unwrap()).unwrap();
            self.records.install_rx(3, SUITE, &Secret::new(&client_application).unwrap()).unwrap();
        }
    }
}

fn usual() -> (Ends, Credentials) {
    let ca = Ca::root();
    let (gateway, device) = (ca.gateway(), ca.device());
    let theirs = Settings {
        groups: vec![Group::X25519],
        suites: vec![SUITE, Suite::ChaCha20Poly1305Sha256],
        ..Settings::default()
    };
    (Ends::with(&ca, &gateway, &device, Settings::default(), theirs), gateway)
}

#[test]
fn a_server_that_does_right_is_taken() {
    let (ends, gateway) = usual();
    let mut server = Server::new(&ends, &gateway);
    server.say_all(FINISHED);
    assert!(matches!(server.events.as_slice(), [Event::Established(Some(_))]), "{:?}", server.events);
    // Tickets are for nothing here (RFC 8446 §4.6.1).
    server.repeat(NEW_SESSION_TICKET, &[&[0; 8][..], &[1, 0], &[0, 1, 7], &[0, 0]].concat());
    server.repeat(KEY_UPDATE, &[0]);
    assert!(server.alerts.is_empty() && server.events.len() == 1, "{:?}", server.events);
}

type Act = Box<dyn Fn(&mut Server)>;

fn retry(change: impl Fn(&mut Hello) + 'static) -> Act {
    Box::new(move |server| {
        let mut hello = Hello::retry();
        change(&mut hello);
        server.say_hello(&hello);
    })
}

fn hello(change: impl Fn(&mut Hello) + 'static) -> Act {
    Box::new(move |server| {
        server.say_hello(&Hello::retry());
        let mut hello = server.hello();
        change(&mut hello);
        server.handshake.clear();
        server.say_hello(&hello);
    })
}

/// What is in the clear and wrong is told in the clear, and ends nothing: it may not have been the server.
#[test]
fn a_hello_that_cannot_be_is_told_so() {
    let cases: Vec<(&str, Alert, Act)> = vec![
        (
            "a hello to one without shares",
            Alert::ILLEGAL_PARAMETER,
            Box::new(|s| {
                let hello = s.hello();
                s.say_hello(&hello);
            }),
        ),
        ("a retry of another suite", Alert::ILLEGAL_PARAMETER, retry(|h| h.suite = 0x1302)),
        ("a retry for another group", Alert::ILLEGAL_PARAMETER, retry(|h| h.set(51, &[0, 23]))),
        (
            "a retry for nothing",
            Alert::ILLEGAL_PARAMETER,
            retry(|h| {
                h.remove(51);
                h.remove(44);
            }),
        ),
        ("a retry with an id", Alert::ILLEGAL_PARAMETER, retry(|h| h.set(54, &[1, 1]))),
        ("a retry of another version", Alert::ILLEGAL_PARAMETER, retry(|h| h.set(43, &[0xfe, 0xfd]))),
        (
            "a second retry",
            Alert::UNEXPECTED_MESSAGE,
            Box::new(|s| {
                s.say_hello(&Hello::retry());
                s.say_hello(&Hello::retry());
            }),
        ),
        ("another suite than the retry's", Alert::ILLEGAL_PARAMETER, hello(|h| h.suite = 0x1303)),
        ("another group", Alert::ILLEGAL_PARAMETER, hello(|h| h.set(51, &[&[0, 23], &vec16(&[4; 65])[..]].concat()))),
        ("no share", Alert::MISSING_EXTENSION, hello(|h| h.remove(51))),
        (
            "a share of zeros",
            Alert::ILLEGAL_PARAMETER,
            hello(|h| h.set(51, &[&[0, 29], &vec16(&[0; 32])[..]].concat())),
        ),
        ("a short share", Alert::ILLEGAL_PARAMETER, hello(|h| h.set(51, &[0, 29, 0, 1, 1]))),
        ("DTLS 1.2", Alert::PROTOCOL_VERSION, hello(|h| h.extensions = vec![(23, vec![])])),
        ("a session id", Alert::ILLEGAL_PARAMETER, hello(|h| h.session_id = vec![1])),
        ("compression", Alert::ILLEGAL_PARAMETER, hello(|h| h.compression = 1)),
        ("an id that was not offered", Alert::UNSUPPORTED_EXTENSION, hello(|h| h.set(54, &[1, 1]))),
        ("a PSK that was not offered", Alert::UNSUPPORTED_EXTENSION, hello(|h| h.set(41, &[0, 0]))),
        ("a cookie", Alert::ILLEGAL_PARAMETER, hello(|h| h.set(44, &[0, 1, 1]))),
    ];
    let mut wrong = Vec::new();
    for (case, alert, act) in cases {
        let (ends, gateway) = usual();
        let mut server = Server::new(&ends, &gateway);
        act(&mut server);
        if server.clear_alerts != [alert.0] || !server.events.is_empty() {
            wrong.push(format!("{case}: {:?}, not {alert}; {:?}", server.clear_alerts, server.events));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_flight_that_cannot_be_is_told_so() {
    let behind = |last: u8, kind: u8, body: &'static [u8]| -> Act {
        Box::new(move |s| {
            s.say_all(last);
            s.repeat(kind, body);
        })
    };
    let (hello, extensions) = (SERVER_HELLO, ENCRYPTED_EXTENSIONS);
    let cases: Vec<(&str, Alert, Act)> = vec![
        ("a certificate first", Alert::UNEXPECTED_MESSAGE, behind(hello, CERTIFICATE, &[0, 0, 0, 0])),
        ("a share in EncryptedExtensions", Alert::ILLEGAL_PARAMETER, behind(hello, extensions, &[0, 4, 0, 51, 0, 0])),
        ("early data", Alert::UNSUPPORTED_EXTENSION, behind(hello, extensions, &[0, 4, 0, 42, 0, 0])),
        ("another protocol", Alert::ILLEGAL_PARAMETER, behind(hello, extensions, &[0, 8, 0, 16, 0, 4, 0, 2, 1, b'x'])),
        ("trailing bytes", Alert::DECODE_ERROR, behind(hello, extensions, &[0, 0, 0])),
        (
            "a context",
            Alert::ILLEGAL_PARAMETER,
            behind(extensions, CERTIFICATE_REQUEST, &[1, 1, 0, 8, 0, 13, 0, 4, 0, 2, 4, 3]),
        ),
        ("a request without schemes", Alert::MISSING_EXTENSION, behind(extensions, CERTIFICATE_REQUEST, &[0, 0, 0])),
        (
            "schemes that our key has not",
            Alert::HANDSHAKE_FAILURE,
            Box::new(|s| {
                s.say_all(ENCRYPTED_EXTENSIONS);
                s.say(CERTIFICATE_REQUEST, &[0, 0, 8, 0, 13, 0, 4, 0, 2, 8, 4]);
                for kind in [CERTIFICATE, CERTIFICATE_VERIFY, FINISHED] {
                    let body = match kind {
                        CERTIFICATE => s.certificate_body(),
                        CERTIFICATE_VERIFY => s.verify_body(0x0403, "server"),
                        _ => s.finished_body(),
                    };
                    s.say(kind, &body);
                }
            }),
        ),
        (
            "two requests",
            Alert::UNEXPECTED_MESSAGE,
            behind(CERTIFICATE_REQUEST, CERTIFICATE_REQUEST, &[0, 0, 8, 0, 13, 0, 4, 0, 2, 4, 3]),
        ),
        ("no certificate", Alert::DECODE_ERROR, behind(CERTIFICATE_REQUEST, CERTIFICATE, &[0, 0, 0, 0])),
        ("a signature missing", Alert::UNEXPECTED_MESSAGE, behind(CERTIFICATE, FINISHED, &[0; 32])),
        (
            "another scheme",
            Alert::ILLEGAL_PARAMETER,
            Box::new(|s| {
                s.say_all(CERTIFICATE);
                let body = s.verify_body(0x0401, "server");
                s.say(CERTIFICATE_VERIFY, &body);
            }),
        ),
        (
            "a client's signature",
            Alert::DECRYPT_ERROR,
            Box::new(|s| {
                s.say_all(CERTIFICATE);
                let body = s.verify_body(0x0403, "client");
                s.say(CERTIFICATE_VERIFY, &body);
            }),
        ),
        ("another Finished", Alert::DECRYPT_ERROR, behind(CERTIFICATE_VERIFY, FINISHED, &[0; 32])),
        ("a short Finished", Alert::DECODE_ERROR, behind(CERTIFICATE_VERIFY, FINISHED, &[0; 12])),
        ("a hello behind the handshake", Alert::UNEXPECTED_MESSAGE, behind(FINISHED, 1, &[0; 40])),
        ("HelloRequest", Alert::UNEXPECTED_MESSAGE, behind(FINISHED, 0, &[])),
        (
            "a request behind the handshake",
            Alert::UNEXPECTED_MESSAGE,
            behind(FINISHED, CERTIFICATE_REQUEST, &[1, 1, 0, 8, 0, 13, 0, 4, 0, 2, 4, 3]),
        ),
    ];
    let mut wrong = Vec::new();
    for (case, alert, act) in cases {
        let (ends, gateway) = usual();
        let mut server = Server::new(&ends, &gateway);
        act(&mut server);
        if server.alerts != [[2, alert.0]] || !matches!(server.events.last(), Some(Event::Ended(_))) {
            wrong.push(format!("{case}: {:?}, not {alert}; {:?}", server.alerts, server.events));
        }
        assert!(server.clear_alerts.is_empty(), "{case}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
