//! What a machine counts.

/// Declares a struct of counters and the visit that names each.
macro_rules! counters {
    ($(#[$outer:meta])* $name:ident { $($(#[$doc:meta])* $field:ident,)* }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl $name {
            /// Calls `visit` with each counter's name and value.
            pub fn visit(&self, visit: &mut dyn FnMut(&'static str, u64)) {
                $(visit(stringify!($field), self.$field);)*
            }
        }
    };
}

counters! {
    /// Counters of one machine since its start. The firewall's drops are counted by the firewall.
    Counters {
        /// Inner packets opened and passed to the TUN queue.
        packets_to_inside,
        /// Their bytes.
        bytes_to_inside,
        /// Inner packets sealed and passed to the socket.
        packets_to_outside,
        /// Their bytes.
        bytes_to_outside,
        /// Datagrams from an address without a session that open none.
        datagrams_unknown,
        /// Hellos from unknown addresses that were asked for a cookie.
        hellos_asked,
        /// Hellos that were told that there is nothing for them here.
        hellos_refused,
        /// Hellos with a cookie that is not ours, of another address, or too old.
        hello_cookies_refused,
        /// Records of sessions that were not authentic, replayed, malformed, or in the clear.
        records_discarded,
        /// Sessions that went on from another address.
        sessions_moved,
        /// Sessions that have shown that they receive at their new address.
        paths_proven,
        /// Sessions that have not, and were taken back to where they were before.
        paths_unproven,
        /// ClientHellos dropped because there were too many sessions.
        handshakes_refused,
        /// Handshakes given up because too many newer ones were under way.
        handshakes_evicted,
        /// Handshakes begun.
        handshakes_begun,
        /// Handshakes finished by an authenticated peer.
        handshakes_finished,
        /// Handshakes that came to nothing.
        handshakes_failed,
        /// Those among them that were not reported, because there were too many.
        failures_unreported,
        /// Datagrams of handshakes that were dropped because too many waited for a thread.
        handshake_datagrams_dropped,
        /// Packets from a peer whose session has no rules yet.
        packets_unbound,
        /// Packets from a tunnel that are not well-formed IP.
        packets_malformed,
        /// Frames from the TUN queue that could not be read or cut.
        frames_malformed,
        /// Packets from inside for an address without a session or, at a client, from an address that is not its own.
        packets_homeless,
        /// Packets from the Gateway that are not for this client or come from where no route of it leads.
        packets_unexpected,
        /// Packets from inside for a session that could not take them: not established, at a new address that is not proven yet, or
        /// the send buffers were full.
        packets_unsent,
        /// Packets that the rules denied.
        packets_denied,
        /// Denials that got no answer and no event, because there were too many.
        denials_unanswered,
        /// Buffers and frames handed to the worker that owns their session.
        handed_over,
        /// Events dropped because nobody fetched them.
        events_dropped,
    }
}
