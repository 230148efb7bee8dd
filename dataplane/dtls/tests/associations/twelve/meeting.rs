//! The written-out client and our server, and the datagrams between them.

use ringfort_dtls::{Ended, Event, ProtocolVersion};
use ringfort_identity::Credentials;

use super::client::{Client, Offer, Said};
use crate::world::{Ends, Pair, ended};

pub(crate) struct Meeting {
    pub(crate) client: Client,
    pub(crate) pair: Pair,
}

impl Meeting {
    pub(crate) fn new(ends: &Ends, offer: Offer, credentials: Option<&Credentials>) -> Self {
        Self { client: Client::new(offer, credentials), pair: Pair::new(ends) }
    }

    /// Up to the server's first flight, with a cookie if one is asked for.
    pub(crate) fn greeted(ends: &Ends, offer: Offer, credentials: Option<&Credentials>) -> Self {
        let mut this = Self::new(ends, offer, credentials);
        this.greet();
        assert!(this.client.has_flight(), "{:?} {:?}", this.client.alerts, this.pair.server_events);
        this
    }

    pub(crate) fn greet(&mut self) {
        for _ in 0..2 {
            if self.client.flight.is_empty() {
                let hello = self.client.hello();
                self.up(&hello);
            }
        }
    }

    /// All of the handshake.
    pub(crate) fn established(ends: &Ends, offer: Offer, credentials: Option<&Credentials>) -> Self {
        let mut this = Self::greeted(ends, offer, credentials);
        let flight = this.client.second_flight();
        this.say(&flight);
        this.assert_established();
        this
    }

    pub(crate) fn assert_established(&mut self) {
        assert!(self.client.is_connected, "{:?} {:?}", self.client.alerts, self.pair.server_events);
        assert!(matches!(self.pair.server_events.as_slice(), [Event::Established(_)]), "{:?}", self.pair.server_events);
        assert_eq!(self.pair.server_end().version(), Some(ProtocolVersion::Dtls12));
        self.assert_alive();
    }

    pub(crate) fn say(&mut self, flight: &[Said]) {
        for record in self.client.write(flight) {
            self.up(&record);
        }
    }

    /// A datagram to the server, and what it answers back.
    pub(crate) fn up(&mut self, datagram: &[u8]) {
        self.pair.reaches_server(&mut datagram.to_vec());
        self.down();
    }

    pub(crate) fn down(&mut self) {
        self.pair.server.transmits().iter().for_each(|datagram| self.client.handle(datagram));
        self.pair.take_events();
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, time: std::time::Duration) {
        let end = self.pair.now + time;
        while self.pair.now < end {
            self.pair.now = self.pair.now + std::time::Duration::from_millis(50);
            self.pair.tick();
            self.down();
        }
    }

    pub(crate) fn ended(&self) -> Option<&Ended> {
        ended(&self.pair.server_events)
    }

    /// Packets pass both ways.
    pub(crate) fn assert_alive(&mut self) {
        self.pair.delivered.clear();
        self.client.received.clear();
        let record = self.client.seal(ringfort_dtls::record::ContentType::ApplicationData, b"up");
        self.up(&record);
        let mut record = [0; 200];
        let length = self.pair.server_end().seal(b"down", &mut record).unwrap();
        assert_eq!(length, 4 + self.pair.server_end().overhead());
        self.client.handle(&record[..length]);
        assert_eq!(
            (&self.pair.delivered[..], &self.client.received[..]),
            (&[b"up".to_vec()][..], &[b"down".to_vec()][..])
        );
    }
}
