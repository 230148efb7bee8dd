//! Against dimpl, an implementation by others: both roles, packets both ways, new keys, and the end.

#![expect(clippy::disallowed_methods, reason = "dimpl counts on the system's clock")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use dimpl::{Config, Dtls, DtlsCertificate, Output};
use ringfort_dtls::{Association, Ended, Event};
use ringfort_identity::Credentials;

use crate::world::{Ca, Ends, Pair, START, ended};

/// dimpl's end.
pub(crate) struct Other {
    dtls: Dtls,
    begun: Instant,
    pub(crate) is_connected: bool,
    pub(crate) is_closed: bool,
    pub(crate) received: Vec<Vec<u8>>,
    pub(crate) out: Vec<Vec<u8>>,
}

impl Other {
    fn new(credentials: &Credentials, is_client: bool) -> Self {
        Self::with(Dtls::new_13, credentials, is_client)
    }

    /// A client of DTLS 1.2.
    pub(crate) fn client_12(credentials: &Credentials) -> Self {
        Self::with(Dtls::new_12, credentials, true)
    }

    fn with(
        version: fn(Arc<Config>, DtlsCertificate, Instant) -> Dtls,
        credentials: &Credentials,
        is_client: bool,
    ) -> Self {
        let config = Config::builder()
            .mtu(1_200)
            .require_client_certificate(true)
            .use_server_cookie(false)
            .flight_retries(20)
            .handshake_timeout(Duration::from_secs(60));
        let certificate = DtlsCertificate {
            certificate: credentials.leaf().to_vec(),
            private_key: credentials.private_key().secret_pkcs8_der().to_vec(),
        };
        let now = Instant::now();
        let mut dtls = version(Arc::new(config.build().unwrap()), certificate, now);
        dtls.set_active(is_client);
        dtls.handle_timeout(now).unwrap();
        let (received, out) = (Vec::new(), Vec::new());
        let mut this = Self { dtls, begun: now, is_connected: false, is_closed: false, received, out };
        this.drain();
        this
    }

    pub(crate) fn handle(&mut self, datagram: &[u8]) {
        self.try_handle(datagram).unwrap();
    }

    /// An error means that it has given up.
    pub(crate) fn try_handle(&mut self, datagram: &[u8]) -> Result<(), dimpl::Error> {
        self.dtls.handle_packet(datagram)?;
        self.drain();
        Ok(())
    }

    /// It is so long after its beginning.
    pub(crate) fn pass(&mut self, time: Duration) -> Result<(), dimpl::Error> {
        self.dtls.handle_timeout(self.begun + time)?;
        self.drain();
        Ok(())
    }

    pub(crate) fn close(&mut self) {
        self.dtls.close().unwrap();
        self.drain();
    }

    pub(crate) fn send(&mut self, packet: &[u8]) {
        self.dtls.send_application_data(packet).unwrap();
        self.drain();
    }

    fn drain(&mut self) {
        let mut room = vec![0; 1 << 16];
        loop {
            match self.dtls.poll_output(&mut room) {
                Output::Packet(packet) => self.out.push(packet.to_vec()),
                Output::ApplicationData(packet) => self.received.push(packet.to_vec()),
                Output::Connected => self.is_connected = true,
                Output::CloseNotify => self.is_closed = true,
                Output::Timeout(_) => return,
                _ => {}
            }
        }
    }
}

#[test]
fn its_client_reaches_our_server() {
    let ca = Ca::root();
    let ends = Ends::of(&ca, &ca.gateway(), &ca.device());
    let mut pair = Pair::new(&ends);
    let mut other = Other::new(&ca.device(), true);
    let carry = |pair: &mut Pair, other: &mut Other| {
        for _ in 0..20 {
            std::mem::take(&mut other.out).into_iter().for_each(|mut datagram| pair.reaches_server(&mut datagram));
            pair.server.transmits().iter().for_each(|datagram| other.handle(datagram));
            pair.take_events();
        }
    };
    carry(&mut pair, &mut other);
    assert!(other.is_connected);
    assert_eq!(pair.server_peer(), Some("alice"));
    let now = pair.now;
    for round in 0..4u8 {
        other.send(&[round; 300]);
        let mut record = [0; 400];
        let length = pair.server_end().seal(&[round; 200], &mut record).unwrap();
        other.handle(&record[..length]);
        carry(&mut pair, &mut other);
        assert_eq!(pair.delivered.pop(), Some(vec![round; 300]));
        assert_eq!(other.received.pop(), Some(vec![round; 200]));
        pair.server_end().update_keys(now);
        carry(&mut pair, &mut other);
    }
    pair.server_end().close();
    carry(&mut pair, &mut other);
    assert!(other.is_closed);
}

#[test]
fn our_client_reaches_its_server() {
    let ca = Ca::root();
    let ends = Ends::of(&ca, &ca.gateway(), &ca.device());
    let mut other = Other::new(&ca.gateway(), false);
    let unix = crate::world::UNIX;
    let mut client = Association::client(&ends.client, None, [1; 32], START, unix);
    let (mut events, mut delivered) = (Vec::new(), Vec::new());
    let mut carry = |client: &mut Association, other: &mut Other| {
        for _ in 0..20 {
            while let Some(datagram) = client.poll_transmit() {
                other.handle(&datagram);
            }
            for mut datagram in std::mem::take(&mut other.out) {
                client.handle_datagram(&mut datagram, START, |received| {
                    if let ringfort_dtls::Received::Packet { bytes, .. } = received {
                        delivered.push(bytes.to_vec());
                    }
                });
            }
            events.extend(std::iter::from_fn(|| client.poll_event()));
        }
    };
    carry(&mut client, &mut other);
    assert!(other.is_connected);
    for round in 0..4u8 {
        other.send(&[round; 300]);
        let mut record = [0; 400];
        let length = client.seal(&[round; 200], &mut record).unwrap();
        other.handle(&record[..length]);
        carry(&mut client, &mut other);
        assert_eq!(other.received.pop(), Some(vec![round; 200]));
        client.update_keys(START);
        carry(&mut client, &mut other);
    }
    other.close();
    carry(&mut client, &mut other);
    assert_eq!(delivered, (0..4u8).map(|round| vec![round; 300]).collect::<Vec<_>>());
    assert!(
        matches!(events.as_slice(), [Event::Established(Some(peer)), Event::Ended(Ended::ClosedByPeer)] if peer.id() == "g1")
    );
    assert!(ended(&events).is_some());
}
