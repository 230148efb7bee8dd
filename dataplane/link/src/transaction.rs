//! One request to the kernel and its answers, over a netlink socket of the `route` family (RFC 3549).

use std::io;

use rtnetlink::{
    packet_core::{
        NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, NlasIterator,
    },
    packet_route::RouteNetlinkMessage,
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

/// Room for one datagram from the kernel in bytes. The kernel fills dumps in pieces of at most 32 KiB.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Answers read for one request before it is given up; a full Internet table of routes is never asked for.
const ANSWERS_MAX: usize = 1 << 20;

/// Length in bytes of the header of a netlink message, which a refusal repeats before the kernel's explanation.
const HEADER_BYTES: usize = 16;

/// `NLMSGERR_ATTR_MSG`: the kernel's explanation as a sentence (linux/netlink.h).
const EXPLANATION: u16 = 1;

/// A netlink socket and the number of the last request sent on it.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// Why a request has no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The kernel refused, or the socket failed.
    Refused(io::Error, Option<String>),
    /// The answer could not be parsed.
    Malformed(String),
}

impl Channel {
    /// Opens a socket in the calling thread's network namespace, connected to the kernel, so that no other process can
    /// put answers into it.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = Socket::new(NETLINK_ROUTE)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        socket.set_cap_ack(true)?;
        socket.set_ext_ack(true)?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(ANSWER_BYTES_MAX) })
    }

    /// Sends `message` with `flags` beside `NLM_F_REQUEST | NLM_F_ACK`, and hands each answer to `take`.
    pub(crate) fn transact(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        mut take: impl FnMut(RouteNetlinkMessage),
    ) -> Result<(), Failure> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map_err(|error| Failure::Refused(error, None))?;

        for _ in 0..ANSWERS_MAX {
            self.buffer.clear();
            let length = self.socket.recv(&mut self.buffer, 0).map_err(|error| Failure::Refused(error, None))?;
            let mut rest = self.buffer.get(..length).unwrap_or_default();
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|error| Failure::Malformed(format!("could not be parsed: {error}")))?;
                // Messages are padded to four bytes; the last one of a datagram need not be.
                let step = (answer.header.length as usize).next_multiple_of(4).max(HEADER_BYTES);
                rest = rest.get(step..).unwrap_or_default();
                if answer.header.sequence_number != self.sequence {
                    continue;
                }
                match answer.payload {
                    NetlinkPayload::InnerMessage(inner) => take(inner),
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(()),
                    NetlinkPayload::Error(error) => {
                        return Err(Failure::Refused(error.to_io(), explanation(answer.header.flags, &error.header)));
                    }
                    NetlinkPayload::Overrun(_) => return Err(Failure::Malformed("was overrun".into())),
                    _ => {}
                }
            }
        }
        Err(Failure::Malformed(format!("has more than {ANSWERS_MAX} parts")))
    }
}

/// The kernel's sentence in a refusal: attributes after the header of the refused request.
fn explanation(flags: u16, payload: &[u8]) -> Option<String> {
    let described = flags & NLM_F_ACK_TLVS != 0 && flags & NLM_F_CAPPED != 0;
    let attributes = payload.get(HEADER_BYTES..).filter(|_| described)?;
    let text = NlasIterator::new(attributes).map_while(Result::ok).find(|nla| nla.kind() == EXPLANATION)?;
    let text = String::from_utf8_lossy(text.value()).trim_end_matches('\0').to_owned();
    (!text.is_empty()).then_some(text)
}
