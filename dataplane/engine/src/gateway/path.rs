//! Whether a peer receives at the address where it is heard (X10).
//!
//! A record that is newer than all before it moves its session to where it came from. Whoever can read it on the way can send it on
//! from an address of another's choosing, and so turn what the site sends on somebody who never asked. So a new address is given
//! little until the peer has sent back from there what only somebody who receives there can know: at most three times what came
//! from there (RFC 9000 §8.1 has the same bound). An address that proves nothing in time is left for the last one that did.

use std::net::SocketAddr;
use std::time::Duration;

use ringfort_types::BootInstant;

use crate::message::Token;

/// How many bytes may be sent to an address for each that came from there, until it is proven.
const AMPLIFICATION: u64 = 3;
/// How often the question is repeated, and when it is given up.
const AGAIN_AFTER: Duration = Duration::from_millis(250);
const GIVE_UP_AFTER: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(super) struct Path {
    /// Where the peer has last shown that it receives.
    proven: SocketAddr,
    probe: Option<Box<Probe>>,
}

#[derive(Debug)]
struct Probe {
    token: Token,
    heard_bytes: u64,
    sent_bytes: u64,
    again: BootInstant,
    until: BootInstant,
}

/// What is to be done about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Ask (again).
    Ask(Token),
    /// Go back to this one, which is proven.
    GoBack(SocketAddr),
}

impl Path {
    /// A path to where a handshake came back from.
    pub(super) const fn proven(at: SocketAddr) -> Self {
        Self { proven: at, probe: None }
    }

    /// The peer is heard at `to`. A proven address needs no question.
    pub(super) fn moved(&mut self, to: SocketAddr, token: Token, now: BootInstant) {
        self.probe = (to != self.proven)
            .then(|| Box::new(Probe { token, heard_bytes: 0, sent_bytes: 0, again: now, until: now + GIVE_UP_AFTER }));
    }

    /// Whether the peer has shown that it receives where it is.
    pub(super) const fn is_proven(&self) -> bool {
        self.probe.is_none()
    }

    /// So many bytes of authentic datagrams came from where the peer is.
    pub(super) fn heard(&mut self, bytes: usize) {
        if let Some(probe) = &mut self.probe {
            probe.heard_bytes += bytes as u64;
        }
    }

    /// Whether so many bytes may be sent to where the peer is; they are then counted.
    pub(super) fn may_send(&mut self, bytes: usize) -> bool {
        let Some(probe) = &mut self.probe else { return true };
        let sent = probe.sent_bytes + bytes as u64;
        if sent > AMPLIFICATION * probe.heard_bytes {
            return false;
        }
        probe.sent_bytes = sent;
        true
    }

    /// `token` came back from `outer`, where the peer is. Whether that proves the address.
    pub(super) fn answered(&mut self, token: Token, outer: SocketAddr) -> bool {
        let is_proven = self.probe.as_ref().is_some_and(|probe| probe.token == token);
        if is_proven {
            (self.proven, self.probe) = (outer, None);
        }
        is_proven
    }

    /// What is due at `now`.
    pub(super) fn poll(&mut self, now: BootInstant) -> Option<Due> {
        let probe = self.probe.as_mut()?;
        if now >= probe.until {
            self.probe = None;
            return Some(Due::GoBack(self.proven));
        }
        if now < probe.again {
            return None;
        }
        probe.again = now + AGAIN_AFTER;
        Some(Due::Ask(probe.token))
    }

    /// When [`Path::poll`] has something.
    pub(super) fn next(&self) -> Option<BootInstant> {
        self.probe.as_ref().map(|probe| probe.again.min(probe.until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: Token = [7; 7];

    fn address(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    #[test]
    fn a_new_address_is_given_three_times_what_came_from_it() {
        let now = BootInstant::from_nanos(1);
        let mut path = Path::proven(address(1));
        assert!(path.may_send(1 << 30));
        path.moved(address(2), TOKEN, now);
        assert!(!path.may_send(1));
        path.heard(100);
        assert!(path.may_send(200) && path.may_send(100) && !path.may_send(1));
        assert!(!path.answered([8; 7], address(2)) && !path.may_send(1));
        assert!(path.answered(TOKEN, address(2)) && path.may_send(1 << 30));
        assert!(!path.answered(TOKEN, address(2)), "an answer counts once");
    }

    #[test]
    fn silence_leads_back() {
        let start = BootInstant::from_nanos(1);
        let mut path = Path::proven(address(1));
        path.moved(address(2), TOKEN, start);
        let mut asked = 0;
        let (now, back) = loop {
            let now = path.next().unwrap();
            match path.poll(now).unwrap() {
                Due::Ask(token) => asked += usize::from(token == TOKEN),
                Due::GoBack(to) => break (now, to),
            }
        };
        assert_eq!((back, asked, now), (address(1), 12, start + GIVE_UP_AFTER));
        assert_eq!((path.next(), path.poll(now)), (None, None));
    }

    #[test]
    fn the_way_home_needs_no_question() {
        let now = BootInstant::from_nanos(1);
        let mut path = Path::proven(address(1));
        path.moved(address(2), TOKEN, now);
        path.moved(address(1), TOKEN, now);
        assert_eq!((path.next(), path.may_send(1_000)), (None, true));
    }
}
