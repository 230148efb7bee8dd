//! Our end.

use std::time::Duration;

use ringfort_dtls::{Association, Event, Received};
use ringfort_types::BootInstant;

use super::world::{Ends, START, Server, UNIX};
use crate::peers;

/// Our end of one association: a server with what screens strangers, or a client.
pub enum End {
    Server(Box<Server>),
    Client(Box<Association>),
}

pub struct Our {
    end: End,
    now: BootInstant,
    pub events: Vec<Event>,
    /// What it has received.
    pub packets: Vec<Vec<u8>>,
}

impl Our {
    pub fn new(role: peers::Ours, ends: &Ends) -> Self {
        let end = match role {
            peers::Ours::Server => End::Server(Box::new(Server::new(ends))),
            peers::Ours::Client => {
                End::Client(Box::new(Association::client(&ends.client, ends.client_cid, [ends.seed; 32], START, UNIX)))
            }
        };
        Self { end, now: START, events: Vec::new(), packets: Vec::new() }
    }

    fn association(&mut self) -> Option<&mut Association> {
        match &mut self.end {
            End::Server(server) => server.association.as_mut(),
            End::Client(association) => Some(association),
        }
    }

    fn take_events(&mut self) {
        while let Some(event) = self.association().and_then(Association::poll_event) {
            self.events.push(event);
        }
    }

    /// Lets it be `time` after the beginning, and does what is due by then.
    pub fn tick(&mut self, time: Duration) {
        self.now = START + time;
        let now = self.now;
        if let Some(association) = self.association()
            && association.poll_timeout().is_some_and(|at| at <= now)
        {
            association.handle_timeout(now);
        }
        self.take_events();
    }

    pub fn receive(&mut self, datagram: &mut [u8]) {
        // An association that is established stays until another one is, whatever hellos come.
        let is_established = self.is_established();
        let packets = &mut self.packets;
        let keep = |received: Received<'_>| {
            if let Received::Packet { bytes, .. } = received {
                packets.push(bytes.to_vec());
            }
        };
        match &mut self.end {
            End::Server(server) => match &mut server.association {
                Some(association) if is_established => association.handle_datagram(datagram, self.now, keep),
                _ => server.handle(datagram, self.now, keep),
            },
            End::Client(association) => association.handle_datagram(datagram, self.now, keep),
        }
        self.take_events();
    }

    /// What it sends now.
    pub fn transmits(&mut self) -> Vec<Box<[u8]>> {
        match &mut self.end {
            End::Server(server) => server.transmits(),
            End::Client(association) => std::iter::from_fn(|| association.poll_transmit()).collect(),
        }
    }

    /// The record of a packet.
    pub fn seal(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let association = self.association()?;
        let mut record = vec![0; packet.len() + association.overhead()];
        let length = association.seal(packet, &mut record)?;
        record.truncate(length);
        Some(record)
    }

    /// Its newest association is established, and not over.
    pub fn is_established(&self) -> bool {
        matches!(self.events.last(), Some(Event::Established(_)))
    }

    /// Why its newest association is over, or `None` if it is not.
    pub fn ended(&self) -> Option<String> {
        match self.events.last() {
            Some(Event::Ended(why)) => Some(why.to_string()),
            _ => None,
        }
    }

    /// Nothing is under way.
    pub fn is_at_rest(&mut self) -> bool {
        self.is_established() || self.association().is_none_or(|association| association.poll_timeout().is_none())
    }
}
