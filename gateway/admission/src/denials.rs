//! What was denied, gathered for whoever asks.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use ringfort_packet::flow::{FlowKey, protocol};
use ringfort_types::RuleId;

/// Different denials remembered; the oldest is forgotten first.
pub const DENIALS_MAX: usize = 256;

/// What was denied to whom, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The user's name.
    pub user: Arc<str>,
    /// The first flow of its kind. The client's port changes with every attempt and says nothing; all attempts are one denial.
    pub flow: FlowKey,
    /// The rule that said so; `None` is the default.
    pub rule: Option<RuleId>,
    /// How often.
    pub count: u64,
}

/// The last [`DENIALS_MAX`] different denials.
#[derive(Clone, Debug, Default)]
pub struct Denials {
    entries: VecDeque<Denial>,
}

impl Denials {
    /// Remembers that a packet of `flow` was denied to `user` by `rule`.
    pub fn record(&mut self, user: &Arc<str>, flow: FlowKey, rule: Option<RuleId>) {
        let same = |denial: &&mut Denial| {
            denial.user == *user
                && denial.rule == rule
                && denial.flow.destination() == flow.destination()
                && denial.flow.destination_port() == flow.destination_port()
                && denial.flow.protocol() == flow.protocol()
        };
        if let Some(denial) = self.entries.iter_mut().find(same) {
            denial.count += 1;
            return;
        }
        if self.entries.len() == DENIALS_MAX {
            self.entries.pop_front();
        }
        self.entries.push_back(Denial { user: Arc::clone(user), flow, rule, count: 1 });
    }

    /// All of them, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Denial> {
        self.entries.iter()
    }
}

/// Where a flow goes, as people write it: `tcp/10.98.0.20:80`, `icmp/10.98.0.20`.
#[must_use]
pub fn destination(flow: &FlowKey) -> String {
    let address = match flow.destination() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    match flow.protocol() {
        protocol::TCP => format!("tcp/{address}:{}", flow.destination_port()),
        protocol::UDP => format!("udp/{address}:{}", flow.destination_port()),
        protocol::ICMP | protocol::ICMPV6 => format!("icmp/{address}"),
        other => format!("protocol-{other}/{address}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(to: &str, protocol: u8, from_port: u16, port: u16) -> FlowKey {
        let to: IpAddr = to.parse().unwrap();
        let from = if to.is_ipv4() { "10.97.0.1" } else { "fd97::1" };
        FlowKey::new(from.parse().unwrap(), to, protocol, from_port, port).unwrap()
    }

    #[test]
    fn denials_are_gathered_whatever_port_they_come_from() {
        let (mut denials, alice) = (Denials::default(), "alice".into());
        for port in [4_000, 4_001, 4_002] {
            denials.record(&alice, flow("10.98.0.20", protocol::TCP, port, 80), None);
        }
        denials.record(&alice, flow("10.98.0.20", protocol::TCP, 4_000, 80), Some(RuleId(3)));
        denials.record(&"bob".into(), flow("10.98.0.20", protocol::TCP, 4_000, 80), None);
        assert_eq!(denials.iter().map(|denial| denial.count).collect::<Vec<_>>(), [3, 1, 1]);
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let (mut denials, alice) = (Denials::default(), "alice".into());
        for port in 0..=u16::try_from(DENIALS_MAX).unwrap() {
            denials.record(&alice, flow("10.98.0.20", protocol::TCP, 4_000, port), None);
        }
        assert_eq!(denials.iter().count(), DENIALS_MAX);
        assert_eq!(denials.iter().next().unwrap().flow.destination_port(), 1);
    }

    #[test]
    fn destinations_read_as_people_write_them() {
        let written = |to, protocol, port| destination(&flow(to, protocol, 1, port));
        assert_eq!(written("10.98.0.20", protocol::TCP, 80), "tcp/10.98.0.20:80");
        assert_eq!(written("fd98::20", protocol::UDP, 53), "udp/[fd98::20]:53");
        assert_eq!(written("10.98.0.20", protocol::ICMP, 7), "icmp/10.98.0.20");
        assert_eq!(written("10.98.0.20", 47, 0), "protocol-47/10.98.0.20");
    }
}
