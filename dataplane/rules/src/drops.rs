//! Why packets are dropped without an answer, and how often.

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident => $name:literal,)+) => {
        /// Why a packet was dropped silently. Each has its counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl DropReason {
            /// Every reason, in the order of the counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in metrics and logs; does not change between releases.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

drop_reasons! {
    /// The session's rules are past their deadline (computed at the packet).
    Expired => "expired",
    /// To the site: the source is not the session's own inner address.
    SpoofedSource => "spoofed_source",
    /// To the client: the destination is not the session's inner address.
    ForeignDestination => "foreign_destination",
    /// Source and destination are of different families; no parsed packet is like that.
    AddressFamilyMismatch => "address_family_mismatch",
    /// A later fragment of a packet whose first fragment did not pass, or passed too long ago, or under other rules.
    FragmentWithoutFirst => "fragment_without_first",
    /// A second first fragment of a packet of which fragments are still awaited.
    DuplicateFirstFragment => "duplicate_first_fragment",
    /// A first fragment with extension headers behind its fragment header: a later fragment could overlay the
    /// ports that were judged (RFC 5722).
    FragmentHidesTransport => "fragment_hides_transport",
    /// A first fragment while the worker awaits fragments of as many packets as it may.
    FragmentTableFull => "fragment_table_full",
    /// A first fragment while the worker awaits fragments of as many packets of this session as it may.
    SessionFragmentLimit => "session_fragment_limit",
    /// An ICMP error that quotes no packet of a live, allowed flow of the session, or goes elsewhere than to the
    /// sender of that packet.
    UnrelatedIcmpError => "unrelated_icmp_error",
    /// An ICMP message that is neither echo nor error.
    UnsupportedIcmp => "unsupported_icmp",
    /// To the site: an echo reply to no request.
    UnsolicitedEchoReply => "unsolicited_echo_reply",
    /// To the client: no flow is open and no rule lets the site open it.
    NoFlow => "no_flow",
    /// A new flow while the worker's flow table is full.
    FlowTableFull => "flow_table_full",
    /// A new flow while the session has as many as it may.
    SessionFlowLimit => "session_flow_limit",
}

/// Packets dropped, by reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropCounters {
    packets: [u64; DropReason::ALL.len()],
}

impl DropCounters {
    /// Packets dropped for `reason`.
    #[must_use]
    pub const fn get(&self, reason: DropReason) -> u64 {
        self.packets[reason as usize]
    }

    /// Every reason with its packets.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|reason| (*reason, self.get(*reason)))
    }

    pub(crate) const fn count(&mut self, reason: DropReason) {
        self.packets[reason as usize] += 1;
    }
}

impl Default for DropCounters {
    fn default() -> Self {
        Self { packets: [0; DropReason::ALL.len()] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_stand_at_their_counters_and_have_names_of_their_own() {
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert!(reason.name().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
            assert_eq!(DropReason::ALL.iter().filter(|other| other.name() == reason.name()).count(), 1);
        }
    }
}
