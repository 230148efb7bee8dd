//! Handshakes are shaken beside the packets' thread: a signature takes as long as a hundred packets.
//!
//! ```text
//!            datagram                 poll_errand               handle_errand
//!  at home ───────────▶ waiting ────────────────────▶ away ─────────────────────▶ at home
//!                                                    ╰─ more datagrams wait ─╯      (or waiting, if more came)
//! ```
//!
//! An [`Errand`] is an association with the datagrams that wait for it. While it is away, what comes for it waits, within bounds,
//! and its timers rest. An established association never goes away: its packets are opened where they arrive.

use std::collections::VecDeque;

use ringfort_dtls::{Association, Received};
use ringfort_types::SessionId;

use super::Gateway;
use super::sessions::{Phase, Session};
use crate::machine::Now;

/// Datagrams that wait for one handshake: a chain of 10 KiB over a path of 300 bytes is 40 of them.
const WAITING_MAX: usize = 64;
/// Their bytes.
const WAITING_BYTES_MAX: usize = 32 * 1024;

/// A handshake on its way to or from another thread.
#[derive(Debug)]
pub struct Errand {
    index: usize,
    session: SessionId,
    association: Association,
    datagrams: VecDeque<Box<[u8]>>,
    heard: Heard,
    ran: Option<Now>,
}

/// What came beside the handshake.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    /// Records of which nothing was to be had.
    discarded: u64,
    /// Packets behind the end of the handshake: nobody has rules by then.
    unbound: u64,
}

impl crate::machine::Errand for Errand {
    fn run(&mut self, now: Now) {
        self.heard = take_all(&mut self.association, &mut self.datagrams, now);
        self.ran = Some(now);
    }
}

/// Gives an association its datagrams.
fn take_all(association: &mut Association, datagrams: &mut VecDeque<Box<[u8]>>, now: Now) -> Heard {
    let mut heard = Heard::default();
    for mut datagram in datagrams.drain(..) {
        association.handle_datagram(&mut datagram, now.boot, |received| match received {
            Received::Packet { .. } => heard.unbound += 1,
            Received::Discarded(_) => heard.discarded += 1,
        });
    }
    heard
}

impl Session {
    /// Puts a datagram to those that wait for the handshake; `None` if there is no room, else whether it is the first one.
    fn wait(&mut self, datagram: &[u8]) -> Option<bool> {
        let Phase::Handshaking { waiting, .. } = &mut self.phase else { return None };
        let bytes: usize = waiting.iter().map(|datagram| datagram.len()).sum();
        if waiting.len() >= WAITING_MAX || bytes + datagram.len() > WAITING_BYTES_MAX {
            return None;
        }
        waiting.push_back(datagram.into());
        Some(waiting.len() == 1)
    }
}

impl Gateway {
    pub(super) fn handshake_datagram(&mut self, index: usize, datagram: &[u8]) {
        let Some(session) = self.sessions.slots[index].as_mut() else { return };
        match session.wait(datagram) {
            None => self.counters.handshake_datagrams_dropped += 1,
            Some(true) if session.association.is_some() => self.setting_out.push_back((index, session.id)),
            Some(_) => {}
        }
    }

    pub(super) fn next_errand(&mut self) -> Option<Errand> {
        while let Some((index, id)) = self.setting_out.pop_front() {
            let session = self.sessions.slots.get_mut(index).and_then(Option::as_mut);
            let Some(session) = session.filter(|session| session.id == id) else { continue };
            let Phase::Handshaking { waiting, .. } = &mut session.phase else { continue };
            let Some(association) = session.association.take() else { continue };
            let datagrams = std::mem::take(waiting);
            return Some(Errand { index, session: id, association, datagrams, heard: Heard::default(), ran: None });
        }
        None
    }

    pub(super) fn take_back(&mut self, errand: Errand, now: Now) {
        let Errand { index, session: id, association, heard, ran, .. } = errand;
        self.count(heard);
        // Its clock may be ahead of the moment at which this turn began, and time goes forwards only.
        let now = ran.filter(|ran| ran.boot > now.boot).unwrap_or(now);
        let session = self.sessions.slots.get_mut(index).and_then(Option::as_mut);
        // It may have ended meanwhile.
        let Some(session) = session.filter(|session| session.id == id) else { return };
        session.association = Some(association);
        if let Phase::Handshaking { waiting, .. } = &session.phase
            && !waiting.is_empty()
        {
            self.setting_out.push_back((index, id));
        }
        self.after_association(index, now);
    }

    /// What came for a handshake while the last of it was under way elsewhere, now that it is finished.
    pub(super) fn take_waiting(&mut self, index: usize, mut waiting: VecDeque<Box<[u8]>>, now: Now) {
        let Some(session) = self.sessions.slots[index].as_mut() else { return };
        let Some(association) = &mut session.association else { return };
        let heard = take_all(association, &mut waiting, now);
        session.transmit(&mut self.output.outside);
        self.count(heard);
    }

    fn count(&mut self, heard: Heard) {
        self.counters.records_discarded += heard.discarded;
        self.counters.packets_unbound += heard.unbound;
    }
}
