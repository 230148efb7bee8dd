//! A client of DTLS 1.2 that is written out step by step, so that a test can change any of them. Its key schedule is aws-lc's,
//! not ours; of ours it has the record layer.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey};
use aws_lc_rs::{digest, tls_prf};
use ringfort_dtls::Group;
use ringfort_dtls::cid::ConnectionId;
use ringfort_dtls::record::{ContentType, Keys12, Open, RecordLayer, Suite};
use ringfort_identity::Credentials;
use rustls::SignatureScheme;
use rustls::sign::SigningKey;
use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;
use webpki::aws_lc_rs as algorithms;

pub(crate) const HELLO: u8 = 1;
pub(crate) const HELLO_VERIFY_REQUEST: u8 = 3;
pub(crate) const CERTIFICATE: u8 = 11;
pub(crate) const CERTIFICATE_REQUEST: u8 = 13;
pub(crate) const CERTIFICATE_VERIFY: u8 = 15;
pub(crate) const CLIENT_KEY_EXCHANGE: u8 = 16;
pub(crate) const FINISHED: u8 = 20;

/// What a ClientHello offers.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    pub(crate) version: u16,
    pub(crate) random: [u8; 32],
    pub(crate) session_id: Vec<u8>,
    pub(crate) suites: Vec<u16>,
    pub(crate) compression: Vec<u8>,
    /// Extensions with their content.
    pub(crate) extensions: BTreeMap<u16, Vec<u8>>,
}

impl Default for Offer {
    fn default() -> Self {
        let mut offer = Self {
            version: 0xfefd,
            random: [0x5a; 32],
            session_id: Vec::new(),
            suites: vec![0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8],
            compression: vec![0],
            extensions: BTreeMap::from([(23, vec![]), (0xff01, vec![0]), (11, vec![1, 0])]),
        };
        offer.groups(&[29, 23, 24]);
        offer.schemes(&[0x0403, 0x0807, 0x0503, 0x0804, 0x0805, 0x0806]);
        offer
    }
}

impl Offer {
    pub(crate) fn groups(&mut self, groups: &[u16]) {
        self.extensions.insert(10, list(groups));
    }

    pub(crate) fn schemes(&mut self, schemes: &[u16]) {
        self.extensions.insert(13, list(schemes));
    }

    pub(crate) fn cid(&mut self, id: &[u8]) {
        self.extensions.insert(54, [&[id.len() as u8], id].concat());
    }

    fn body(&self, cookie: &[u8]) -> Vec<u8> {
        let suites: Vec<u8> = self.suites.iter().flat_map(|suite| suite.to_be_bytes()).collect();
        let mut extensions = Vec::new();
        for (number, content) in &self.extensions {
            extensions.extend_from_slice(&number.to_be_bytes());
            extensions.extend_from_slice(&vec16(content));
        }
        [
            &self.version.to_be_bytes()[..],
            &self.random,
            &vec8(&self.session_id),
            &vec8(cookie),
            &vec16(&suites),
            &vec8(&self.compression),
            &vec16(&extensions),
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

fn vec24(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u32).to_be_bytes()[1..], content].concat()
}

fn list(numbers: &[u16]) -> Vec<u8> {
    vec16(&numbers.iter().flat_map(|number| number.to_be_bytes()).collect::<Vec<_>>())
}

/// A message, or a fragment of it, with its header.
pub(crate) fn fragment(kind: u8, sequence: u16, body: &[u8], at: std::ops::Range<usize>) -> Vec<u8> {
    let number = |number: usize| (number as u32).to_be_bytes()[1..].to_vec();
    let header = [vec![kind], number(body.len()), sequence.to_be_bytes().to_vec(), number(at.start), number(at.len())];
    [&header.concat(), &body[at]].concat()
}

pub(crate) fn message(kind: u8, sequence: u16, body: &[u8]) -> Vec<u8> {
    fragment(kind, sequence, body, 0..body.len())
}

/// A step of the client's second flight.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    InTheClear(Vec<u8>),
    ChangeCipherSpec,
    Sealed(Vec<u8>),
}

/// What the server has chosen.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    pub(crate) random: [u8; 32],
    pub(crate) suite: u16,
    pub(crate) session_id: Vec<u8>,
    pub(crate) extensions: BTreeMap<u16, Vec<u8>>,
    pub(crate) group: u16,
    pub(crate) scheme: u16,
    point: Vec<u8>,
}

pub(crate) struct Client {
    pub(crate) offer: Offer,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    key: Option<Arc<dyn SigningKey>>,
    /// The scheme to sign with, where the key leaves a choice.
    pub(crate) scheme: Option<u16>,
    /// What it says to have signed with, if not the truth.
    pub(crate) lies_about_scheme: Option<u16>,
    pub(crate) records: RecordLayer,
    pub(crate) cookie: Vec<u8>,
    pub(crate) next_out: u16,
    next_in: u16,
    transcript: Vec<u8>,
    messages: BTreeMap<u16, (u8, Vec<Option<u8>>)>,
    pub(crate) flight: Vec<(u8, Vec<u8>)>,
    pub(crate) alerts: Vec<u8>,
    pub(crate) sealed_alerts: Vec<[u8; 2]>,
    pub(crate) received: Vec<Vec<u8>>,
    pub(crate) is_connected: bool,
    pub(crate) change_cipher_specs: usize,
    master: Vec<u8>,
    pub(crate) chosen: Option<Chosen>,
}

impl Client {
    pub(crate) fn new(offer: Offer, credentials: Option<&Credentials>) -> Self {
        Self {
            offer,
            chain: credentials.map(|credentials| credentials.chain().to_vec()).unwrap_or_default(),
            key: credentials.map(|credentials| Arc::clone(credentials.signing_key())),
            scheme: None,
            lies_about_scheme: None,
            records: RecordLayer::new(),
            cookie: Vec::new(),
            next_out: 0,
            next_in: 0,
            transcript: Vec::new(),
            messages: BTreeMap::new(),
            flight: Vec::new(),
            alerts: Vec::new(),
            sealed_alerts: Vec::new(),
            received: Vec::new(),
            is_connected: false,
            change_cipher_specs: 0,
            master: Vec::new(),
            chosen: None,
        }
    }

    /// A record in the clear.
    pub(crate) fn clear(&mut self, content_type: ContentType, content: &[u8]) -> Vec<u8> {
        let mut record = vec![0; content.len() + 13];
        let version = ringfort_dtls::record::Version::DTLS_1_2;
        let length = self.records.seal_plaintext(content_type, version, content, &mut record).unwrap();
        record.truncate(length);
        record
    }

    pub(crate) fn seal(&mut self, content_type: ContentType, content: &[u8]) -> Vec<u8> {
        let mut record = vec![0; content.len() + 64];
        let length = self.records.seal(content_type, content, &mut record).unwrap();
        record.truncate(length);
        record
    }

    /// The ClientHello as a message, of which only the last counts.
    pub(crate) fn hello_message(&mut self) -> Vec<u8> {
        let hello = message(HELLO, self.next_out, &self.offer.body(&self.cookie));
        self.transcript.clone_from(&hello);
        self.next_out += 1;
        hello
    }

    pub(crate) fn hello(&mut self) -> Vec<u8> {
        let hello = self.hello_message();
        self.clear(ContentType::Handshake, &hello)
    }

    /// Takes what the server has sent.
    pub(crate) fn handle(&mut self, datagram: &[u8]) {
        let (mut datagram, mut offset) = (datagram.to_vec(), 0);
        loop {
            match self.records.open(&mut datagram, &mut offset) {
                Open::End => break,
                Open::Plaintext(record) => {
                    let content = datagram[record.content.clone()].to_vec();
                    match record.content_type {
                        ContentType::Handshake => self.gather(&content),
                        ContentType::Alert => self.alerts.push(content[1]),
                        ContentType::ChangeCipherSpec => self.change_cipher_specs += 1,
                        other => panic!("{other:?} in the clear"),
                    }
                }
                Open::Record(record) => {
                    let content = &datagram[record.content.clone()];
                    match record.content_type {
                        ContentType::ApplicationData => self.received.push(content.to_vec()),
                        ContentType::Alert => self.sealed_alerts.push([content[0], content[1]]),
                        ContentType::Handshake => self.finished(content),
                        other => panic!("{other:?} sealed"),
                    }
                }
                Open::Dropped(why) => panic!("the server sent what is dropped: {why:?}"),
            }
        }
        self.take_messages();
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
    }

    fn take_messages(&mut self) {
        while let Some((kind, body)) = self.messages.get(&self.next_in) {
            let Some(body) = body.iter().copied().collect::<Option<Vec<u8>>>() else { return };
            let kind = *kind;
            if kind == HELLO_VERIFY_REQUEST {
                assert_eq!((&body[..2], usize::from(body[2])), (&[0xfe, 0xff][..], body.len() - 3));
                self.cookie = body[3..].to_vec();
            } else {
                self.transcript.extend_from_slice(&message(kind, self.next_in, &body));
                self.flight.push((kind, body));
            }
            self.next_in += 1;
        }
    }

    /// Whether the server's flight is whole.
    pub(crate) fn has_flight(&self) -> bool {
        self.flight.last().is_some_and(|(kind, _)| *kind == 14)
    }

    pub(crate) fn said(&self, kind: u8) -> Option<&[u8]> {
        self.flight.iter().find(|(of, _)| *of == kind).map(|(_, body)| body.as_slice())
    }

    /// Reads the server's flight and checks its signature.
    pub(crate) fn choose(&mut self) -> Chosen {
        let hello = self.said(2).unwrap();
        let session_end = 35 + usize::from(hello[34]);
        assert_eq!((&hello[..2], hello[session_end + 2]), (&[0xfe, 0xfd][..], 0));
        let mut extensions = BTreeMap::new();
        let mut rest = &hello[session_end + 5..];
        while let [a, b, high, low, tail @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            extensions.insert(u16::from_be_bytes([*a, *b]), tail[..length].to_vec());
            rest = &tail[length..];
        }
        let exchange = self.said(12).unwrap();
        assert_eq!(exchange[0], 3, "a named curve");
        let parameters = 4 + usize::from(exchange[3]);
        let scheme = u16::from_be_bytes([exchange[parameters], exchange[parameters + 1]]);
        let random: [u8; 32] = hello[2..34].try_into().unwrap();
        let signed = [&self.offer.random[..], &random, &exchange[..parameters]].concat();
        let leaf = self.said(CERTIFICATE).unwrap();
        let length = u32::from_be_bytes([0, leaf[3], leaf[4], leaf[5]]) as usize;
        let leaf = CertificateDer::from(leaf[6..6 + length].to_vec());
        let algorithm = match scheme {
            0x0403 => algorithms::ECDSA_P256_SHA256,
            0x0503 => algorithms::ECDSA_P384_SHA384,
            0x0807 => algorithms::ED25519,
            0x0804 => algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
            0x0806 => algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
            0x0401 => algorithms::RSA_PKCS1_2048_8192_SHA256,
            0x0601 => algorithms::RSA_PKCS1_2048_8192_SHA512,
            other => panic!("{other:#06x}"),
        };
        let leaf = EndEntityCert::try_from(&leaf).unwrap();
        leaf.verify_signature(algorithm, &signed, &exchange[parameters + 4..]).unwrap();
        let chosen = Chosen {
            random,
            suite: u16::from_be_bytes([hello[session_end], hello[session_end + 1]]),
            session_id: hello[35..session_end].to_vec(),
            extensions,
            group: u16::from_be_bytes([exchange[1], exchange[2]]),
            scheme,
            point: exchange[4..parameters].to_vec(),
        };
        self.chosen = Some(chosen.clone());
        chosen
    }

    /// The whole of the second flight.
    pub(crate) fn second_flight(&mut self) -> Vec<Said> {
        let chosen = self.choose();
        let suite = suite(chosen.suite);
        let mut flight = Vec::new();
        let say = |client: &mut Self, kind, body: &[u8]| {
            let message = message(kind, client.next_out, body);
            client.next_out += 1;
            client.transcript.extend_from_slice(&message);
            message
        };
        if self.said(CERTIFICATE_REQUEST).is_some() {
            let chain: Vec<u8> = self.chain.iter().flat_map(|certificate| vec24(certificate)).collect();
            flight.push(Said::InTheClear(say(self, CERTIFICATE, &vec24(&chain))));
        }
        let curve = match Group::from_number(chosen.group).unwrap() {
            Group::X25519 => &agreement::X25519,
            Group::P256 => &agreement::ECDH_P256,
            Group::P384 => &agreement::ECDH_P384,
            Group::X25519MlKem768 => panic!("not for DTLS 1.2"),
        };
        let key = PrivateKey::generate(curve).unwrap();
        let public = key.compute_public_key().unwrap();
        flight.push(Said::InTheClear(say(self, CLIENT_KEY_EXCHANGE, &vec8(public.as_ref()))));
        let peer = UnparsedPublicKey::new(curve, &chosen.point);
        let shared = agreement::agree(&key, peer, (), |secret| Ok(secret.to_vec())).unwrap();
        let session_hash = self.hash();
        self.master = self.prf(&shared, b"extended master secret", &session_hash, 48);
        if let Some(key) = self.key.clone().filter(|_| self.said(CERTIFICATE_REQUEST).is_some()) {
            let all = [0x0403, 0x0807, 0x0503, 0x0804].map(SignatureScheme::from);
            let one = self.scheme.map(SignatureScheme::from);
            let offered = one.as_ref().map_or(&all[..], std::slice::from_ref);
            let signer = key.choose_scheme(offered).unwrap();
            let signature = signer.sign(&self.transcript).unwrap();
            let scheme = self.lies_about_scheme.unwrap_or(signer.scheme().into());
            let body = [&scheme.to_be_bytes()[..], &vec16(&signature)].concat();
            flight.push(Said::InTheClear(say(self, CERTIFICATE_VERIFY, &body)));
        }
        let (key_bytes, iv_bytes) = (suite.key_bytes(), suite.fixed_iv_bytes_12());
        let seed = [chosen.random, self.offer.random].concat();
        let block = self.prf(&self.master, b"key expansion", &seed, 2 * (key_bytes + iv_bytes));
        let (keys, ivs) = block.split_at(2 * key_bytes);
        let of = |half: usize| {
            Keys12::new(suite, &keys[half * key_bytes..][..key_bytes], &ivs[half * iv_bytes..][..iv_bytes]).unwrap()
        };
        if let (Some(theirs), Some(ours)) = (chosen.extensions.get(&54), self.offer.extensions.get(&54)) {
            self.records.set_peer_cid(ConnectionId::new(&theirs[1..]).unwrap());
            self.records.set_local_cid(ConnectionId::new(&ours[1..]).unwrap());
        }
        self.records.install_tx12(&of(0)).unwrap();
        self.records.install_rx12(&of(1)).unwrap();
        let data = self.prf(&self.master, b"client finished", &self.hash(), 12);
        flight.push(Said::ChangeCipherSpec);
        flight.push(Said::Sealed(say(self, FINISHED, &data)));
        flight
    }

    /// The records of a flight.
    pub(crate) fn write(&mut self, flight: &[Said]) -> Vec<Vec<u8>> {
        flight
            .iter()
            .map(|said| match said {
                Said::InTheClear(message) => self.clear(ContentType::Handshake, message),
                Said::ChangeCipherSpec => self.clear(ContentType::ChangeCipherSpec, &[1]),
                Said::Sealed(message) => self.seal(ContentType::Handshake, message),
            })
            .collect()
    }

    /// A value as the server's exporter must give it (RFC 5705 §4).
    pub(crate) fn export(&self, label: &str, context: &[u8]) -> Vec<u8> {
        let chosen = self.chosen.as_ref().unwrap();
        let seed = [&self.offer.random[..], &chosen.random, &vec16(context)].concat();
        self.prf(&self.master, label.as_bytes(), &seed, 32)
    }

    fn finished(&mut self, sealed: &[u8]) {
        let expected = self.prf(&self.master, b"server finished", &self.hash(), 12);
        assert_eq!(sealed, message(FINISHED, self.next_in, &expected));
        self.is_connected = true;
    }

    fn hash(&self) -> Vec<u8> {
        let algorithm = match suite(self.chosen.as_ref().unwrap().suite) {
            Suite::Aes256GcmSha384 => &digest::SHA384,
            _ => &digest::SHA256,
        };
        digest::digest(algorithm, &self.transcript).as_ref().to_vec()
    }

    fn prf(&self, secret: &[u8], label: &[u8], seed: &[u8], length: usize) -> Vec<u8> {
        let algorithm = match suite(self.chosen.as_ref().unwrap().suite) {
            Suite::Aes256GcmSha384 => &tls_prf::P_SHA384,
            _ => &tls_prf::P_SHA256,
        };
        let secret = tls_prf::Secret::new(algorithm, secret).unwrap();
        secret.derive(label, seed, length).unwrap().as_ref().to_vec()
    }
}

fn suite(number: u16) -> Suite {
    match number {
        0xc02b | 0xc02f => Suite::Aes128GcmSha256,
        0xc02c | 0xc030 => Suite::Aes256GcmSha384,
        0xcca9 | 0xcca8 => Suite::ChaCha20Poly1305Sha256,
        other => panic!("{other:#06x}"),
    }
}
