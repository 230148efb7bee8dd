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
        /// ClientHellos dropped because too many handshakes were under way.
        handshakes_refused,
        /// Handshakes begun.
        handshakes_begun,
        /// Handshakes finished by an authenticated peer.
        handshakes_finished,
        /// Handshakes that came to nothing.
        handshakes_failed,
        /// Packets from a peer whose session has no rules yet.
        packets_unbound,
        /// Packets from a tunnel that are not well-formed IP.
        packets_malformed,
        /// Frames from the TUN queue that could not be read or cut.
        frames_malformed,
        /// Packets from inside for an address without a session.
        packets_homeless,
        /// Packets from inside for a session that could not take them: not established, or the send buffers were full.
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
