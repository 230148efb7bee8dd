//! Two associations back to back: what is established, what is refused, and that refused peers see no data.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]
#![expect(clippy::disallowed_methods, reason = "a test is the shell and has a clock")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use ringfort_dtls::{Association, ClientConfig, Ended, Event, RECORD_OVERHEAD_BYTES, ServerConfig, opening_random};
use ringfort_identity::{ConfigError, Credentials, Trust};
use ringfort_types::BootInstant;
use rustls_pki_types::PrivatePkcs8KeyDer;

const START: BootInstant = BootInstant::from_nanos(1_000_000_000_000);

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    anchor: Trust,
}

fn ca() -> Ca {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    Ca { anchor: Trust::new(certificate.der(), []).unwrap(), issuer: Issuer::new(params, key) }
}

fn leaf(ca: &Ca, uri: &str, usage: ExtendedKeyUsagePurpose, expired: bool) -> Credentials {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.extended_key_usages = vec![usage];
    if expired {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    }
    let certificate = params.signed_by(&key, &ca.issuer).unwrap();
    Credentials::new(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der())).unwrap()
}

fn gateway(ca: &Ca) -> Credentials {
    leaf(ca, "ringfort://example/gateway/g1", ExtendedKeyUsagePurpose::ServerAuth, false)
}

fn device(ca: &Ca) -> Credentials {
    leaf(ca, "ringfort://example/device/alice", ExtendedKeyUsagePurpose::ClientAuth, false)
}

struct Pair {
    client: Association,
    server: Association,
    now: BootInstant,
    client_events: Vec<Event>,
    server_events: Vec<Event>,
    delivered: usize,
}

impl Pair {
    fn new(server: (&Credentials, &Ca), client: (&Credentials, &Ca)) -> Self {
        let epoch = (START, Instant::now());
        let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let server = Arc::new(ServerConfig::new(server.0, server.1.anchor.clone(), epoch).unwrap());
        let client = Arc::new(ClientConfig::new(client.0, client.1.anchor.clone(), epoch).unwrap());
        Self {
            client: Association::client(&client, START, unix),
            server: Association::server(&server, START, unix),
            now: START,
            client_events: Vec::new(),
            server_events: Vec::new(),
            delivered: 0,
        }
    }

    /// Carries datagrams to and fro until neither side has any, at most 100 times.
    fn run(&mut self) {
        for _ in 0..100 {
            let mut moved = false;
            while let Some(mut datagram) = self.client.poll_transmit() {
                moved = true;
                self.server.handle_datagram(&mut datagram, self.now, |_, _| self.delivered += 1);
            }
            while let Some(mut datagram) = self.server.poll_transmit() {
                moved = true;
                self.client.handle_datagram(&mut datagram, self.now, |_, _| self.delivered += 1);
            }
            self.client_events.extend(std::iter::from_fn(|| self.client.poll_event()));
            self.server_events.extend(std::iter::from_fn(|| self.server.poll_event()));
            if !moved {
                self.now = self.now + Duration::from_millis(5);
                self.client.handle_timeout(self.now);
                self.server.handle_timeout(self.now);
            }
        }
    }
}

fn established(events: &[Event]) -> Option<&str> {
    match events.first() {
        Some(Event::Established(peer)) => Some(peer.id()),
        _ => None,
    }
}

// Covers: K4 allow
#[test]
fn both_sides_learn_the_other_and_carry_packets() {
    let ca = ca();
    let (server, client) = (gateway(&ca), device(&ca));
    let mut pair = Pair::new((&server, &ca), (&client, &ca));
    assert!(pair.server.seal(b"early", &mut [0; 100]).is_none(), "nothing may be sealed before the handshake");
    pair.run();
    assert_eq!(established(&pair.server_events), Some("alice"));
    assert_eq!(established(&pair.client_events), Some("g1"));
    for length in [1, 64, 1_400] {
        let packet: Vec<u8> = (0..length).map(|i| i as u8).collect();
        let mut record = vec![0; length + RECORD_OVERHEAD_BYTES];
        let sealed = pair.client.seal(&packet, &mut record).unwrap();
        assert_eq!(sealed, record.len());
        let mut opened = Vec::new();
        let mut again = record.clone();
        pair.server.handle_datagram(&mut record, pair.now, |offset, bytes| opened.push((offset, bytes.to_vec())));
        assert_eq!(opened, [(0, packet.clone())]);
        assert_eq!(&record[..length], &packet, "the plaintext lies in the datagram's own bytes");
        pair.server.handle_datagram(&mut again, pair.now, |_, _| panic!("a replayed record was delivered"));
    }
    let mut short = [0; 100 + RECORD_OVERHEAD_BYTES - 1];
    assert!(pair.client.seal(&[0; 100], &mut short).is_none());
}

#[test]
fn several_records_of_one_datagram_are_all_delivered() {
    let ca = ca();
    let (server, client) = (gateway(&ca), device(&ca));
    let mut pair = Pair::new((&server, &ca), (&client, &ca));
    pair.run();
    let mut datagram = Vec::new();
    for byte in 1..=3u8 {
        let mut record = [0; 200];
        let n = pair.client.seal(&[byte; 50], &mut record).unwrap();
        datagram.extend_from_slice(&record[..n]);
    }
    let mut opened = Vec::new();
    pair.server.handle_datagram(&mut datagram, pair.now, |_, bytes| opened.push(bytes.to_vec()));
    assert_eq!(opened, [vec![1; 50], vec![2; 50], vec![3; 50]]);
}

#[test]
fn a_close_reaches_the_peer_and_ends_both() {
    let ca = ca();
    let (server, client) = (gateway(&ca), device(&ca));
    let mut pair = Pair::new((&server, &ca), (&client, &ca));
    pair.run();
    pair.client.close();
    pair.run();
    assert_eq!(pair.client_events.last(), Some(&Event::Ended(Ended::Closed)));
    assert_eq!(pair.server_events.last(), Some(&Event::Ended(Ended::ClosedByPeer)));
    assert!(pair.server.seal(b"late", &mut [0; 100]).is_none());
    assert_eq!(pair.server.poll_timeout(), None);
}

// Covers: K4 refuse, A2 refuse
#[test]
fn a_client_without_the_right_certificate_is_refused_before_any_data() {
    let (ca, other) = (ca(), ca());
    let server = gateway(&ca);
    let role = |uri: &str, usage| leaf(&ca, uri, usage, false);
    let cases = [
        ("foreign CA", leaf(&other, "ringfort://example/device/eve", ExtendedKeyUsagePurpose::ClientAuth, false)),
        ("expired", leaf(&ca, "ringfort://example/device/old", ExtendedKeyUsagePurpose::ClientAuth, true)),
        ("serverAuth only", role("ringfort://example/device/eve", ExtendedKeyUsagePurpose::ServerAuth)),
        ("gateway role", role("ringfort://example/gateway/g2", ExtendedKeyUsagePurpose::ClientAuth)),
        ("no ringfort URI", role("https://example.org/device/eve", ExtendedKeyUsagePurpose::ClientAuth)),
    ];
    for (name, client) in cases {
        let mut pair = Pair::new((&server, &ca), (&client, &ca));
        pair.run();
        assert!(
            matches!(pair.server_events.first(), Some(Event::Ended(Ended::PeerRefused(_)))),
            "{name}: {:?}",
            pair.server_events
        );
        let mut record = [0; 200];
        if let Some(n) = pair.client.seal(b"let me in", &mut record) {
            pair.server.handle_datagram(&mut record[..n], pair.now, |_, _| panic!("{name}: data was delivered"));
        }
        assert!(pair.server.seal(b"leak", &mut [0; 100]).is_none());
        assert_eq!(pair.delivered, 0);
    }
}

#[test]
fn a_gateway_without_the_right_certificate_is_refused_by_the_client() {
    let (ca, other) = (ca(), ca());
    let client = device(&ca);
    for server in
        [gateway(&other), leaf(&ca, "ringfort://example/device/x", ExtendedKeyUsagePurpose::ServerAuth, false)]
    {
        let mut pair = Pair::new((&server, &ca), (&client, &ca));
        pair.run();
        assert!(
            matches!(pair.client_events.first(), Some(Event::Ended(Ended::PeerRefused(_)))),
            "{:?}",
            pair.client_events
        );
        assert!(established(&pair.server_events).is_none());
    }
}

#[test]
fn a_key_that_is_not_the_certificates_is_refused() {
    let ca = ca();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::default().signed_by(&key, &ca.issuer).unwrap();
    let other = PrivatePkcs8KeyDer::from(KeyPair::generate().unwrap().serialize_der());
    assert!(matches!(Credentials::new(vec![certificate.der().clone()], other), Err(ConfigError::KeyMismatch)));
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let wrong = PrivatePkcs8KeyDer::from(p384.serialize_der());
    assert!(matches!(Credentials::new(vec![certificate.der().clone()], wrong), Err(ConfigError::PrivateKey)));
}

#[test]
fn only_a_first_client_hello_opens_an_association() {
    let ca = ca();
    let client = device(&ca);
    let epoch = (START, Instant::now());
    let config = Arc::new(ClientConfig::new(&client, ca.anchor.clone(), epoch).unwrap());
    let hello = || {
        let mut client = Association::client(&config, START, Duration::from_secs(1_800_000_000));
        client.poll_transmit().unwrap().into_vec()
    };
    let (first, another) = (hello(), hello());
    let random = opening_random(&first);
    assert!(random.is_some());
    assert_eq!(random.unwrap(), first[27..59]);
    assert_ne!(random, opening_random(&another));
    // Not a handshake record, not of epoch 0, lengths that do not fit, not a ClientHello, the second message, and not a
    // beginning.
    for at in [0, 4, 11, 12, 13, 14, 18, 19, 21, 24] {
        let mut other = first.clone();
        other[at] ^= 3;
        assert_eq!(opening_random(&other), None, "byte {at}");
    }
    for length in 0..first.len() {
        assert_eq!(opening_random(&first[..length]), None, "{length} bytes");
    }
    assert_eq!(opening_random(&[0x2f; 100]), None);
}

#[test]
fn noise_ends_nothing_that_is_established() {
    let ca = ca();
    let (server, client) = (gateway(&ca), device(&ca));
    let mut pair = Pair::new((&server, &ca), (&client, &ca));
    pair.run();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for length in (0..1_500).step_by(7) {
        let mut noise: Vec<u8> = (0..length)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 56) as u8
            })
            .collect();
        if let Some(first) = noise.first_mut() {
            *first = 0x2c | (*first & 3);
        }
        pair.server.handle_datagram(&mut noise, pair.now, |_, _| panic!("noise was delivered"));
    }
    assert_eq!(pair.server.poll_event(), None);
    let mut record = [0; 100];
    let n = pair.client.seal(b"still here", &mut record).unwrap();
    let mut delivered = 0;
    pair.server.handle_datagram(&mut record[..n], pair.now, |_, _| delivered += 1);
    assert_eq!(delivered, 1);
}

/// Plaintext handshake messages that anybody could have sent, after a record of noise that looks protected.
fn forged(noise: bool) -> Vec<u8> {
    let mut forged = if noise { [&[0x2f, 0, 0, 0, 17][..], &[0xaa; 17]].concat() } else { Vec::new() };
    for n in 0..15u8 {
        forged.extend_from_slice(&[22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 1, n, 0, 13]);
        forged.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    }
    forged
}

#[test]
fn forged_datagrams_end_no_association_and_draw_nothing() {
    let ca = ca();
    let (server, client) = (gateway(&ca), device(&ca));
    let mut pair = Pair::new((&server, &ca), (&client, &ca));
    pair.run();
    for noise in [false, true] {
        for _ in 0..20 {
            pair.server.handle_datagram(&mut forged(noise), pair.now, |_, _| panic!("delivered"));
            pair.client.handle_datagram(&mut forged(noise), pair.now, |_, _| panic!("delivered"));
        }
    }
    assert_eq!((pair.server.poll_event(), pair.client.poll_event()), (None, None));
    assert_eq!((pair.server.poll_transmit(), pair.client.poll_transmit()), (None, None));
}

#[test]
fn a_plaintext_alert_ends_no_handshake() {
    let ca = ca();
    let (server, client) = (gateway(&ca), device(&ca));
    let mut pair = Pair::new((&server, &ca), (&client, &ca));
    let mut hello = pair.client.poll_transmit().unwrap();
    pair.server.handle_datagram(&mut hello, pair.now, |_, _| {});
    let alert = [21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40];
    pair.server.handle_datagram(&mut alert.clone(), pair.now, |_, _| {});
    pair.client.handle_datagram(&mut alert.clone(), pair.now, |_, _| {});
    pair.run();
    assert_eq!(established(&pair.server_events), Some("alice"));
}

/// A Gateway's certificate of several datagrams, one of which is lost.
#[test]
fn a_gap_in_the_servers_flight_does_not_make_the_client_spin() {
    let ca = ca();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI("ringfort://example/gateway/g1".try_into().unwrap())];
    let names = (0..60).map(|n| SanType::DnsName(format!("name-{n:04}.gateway.example.org").try_into().unwrap()));
    params.subject_alt_names.extend(names);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&key, &ca.issuer).unwrap();
    let server =
        Credentials::new(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der())).unwrap();
    let client = device(&ca);
    let mut pair = Pair::new((&server, &ca), (&client, &ca));
    let mut gap = false;
    while !gap {
        while let Some(mut datagram) = pair.client.poll_transmit() {
            pair.server.handle_datagram(&mut datagram, pair.now, |_, _| {});
        }
        let flight: Vec<_> = std::iter::from_fn(|| pair.server.poll_transmit()).collect();
        assert!(!flight.is_empty());
        gap = flight.len() >= 3;
        for (index, mut datagram) in flight.into_iter().enumerate() {
            if !(gap && index == 1) {
                pair.client.handle_datagram(&mut datagram, pair.now, |_, _| {});
            }
        }
    }
    pair.now = pair.now + Duration::from_millis(80);
    let mut acks = 0;
    for _ in 0..1_000 {
        if pair.client.poll_timeout().unwrap() > pair.now {
            break;
        }
        pair.client.handle_timeout(pair.now);
        acks += std::iter::from_fn(|| pair.client.poll_transmit()).count();
    }
    assert!(acks < 10, "{acks} datagrams at one instant");
    for _ in 0..50 {
        pair.run();
    }
    assert_eq!(established(&pair.client_events), Some("g1"), "the retransmission fills the gap");
}

#[test]
fn one_client_hello_draws_no_more_than_it_cost() {
    let ca = ca();
    let (server, client) = (gateway(&ca), device(&ca));
    let mut pair = Pair::new((&server, &ca), (&client, &ca));
    let mut hello = pair.client.poll_transmit().unwrap();
    pair.server.handle_datagram(&mut hello, pair.now, |_, _| {});
    let mut drawn = 0;
    for _ in 0..2_400 {
        drawn += std::iter::from_fn(|| pair.server.poll_transmit()).map(|datagram| datagram.len()).sum::<usize>();
        pair.now = pair.now + Duration::from_millis(5);
        pair.server.handle_timeout(pair.now);
    }
    assert!(drawn <= 3 * hello.len(), "{} bytes draw {drawn}", hello.len());
}
