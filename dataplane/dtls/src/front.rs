//! What is done with a datagram from an address where nobody is known: next to nothing, and nothing is kept.
//!
//! A ClientHello without cookie is answered by one that asks for it, with one with a good cookie an association may begin.
//! Clients of DTLS 1.3 are asked by a HelloRetryRequest (RFC 9147 §5.1): all there is to know of the first hello comes back
//! inside the cookie. Those of DTLS 1.2 are asked by a HelloVerifyRequest (RFC 6347 §4.2.1): of their first hello nothing need
//! be known, and the cookie comes back in a field of its own. An answer is one datagram, never longer than what it answers: who
//! forges addresses gains nothing. That goes for a cookie that is not good, too: it may be a client's that was slow, and that
//! begins anew once it knows.
//!
//! A hello may come in fragments (RFC 9147 §5.5). Of the first hello the hash is needed, so that it must be whole in its
//! datagram; of the second one the fragment with the cookie is enough, from which the association goes on. A client whose
//! first hello is longer than a datagram, or whose cookie is in a later fragment, is not served where cookies are asked for.

use std::net::SocketAddr;

use ringfort_types::BootInstant;

use crate::alert::{Alert, Fatal};
use crate::config::{AddressValidation, ProtocolVersion, ServerConfig};
use crate::cookie::{Cookies, Parameters, Remembered};
use crate::crypto::Transcript;
use crate::handshake::choice12::Choice12;
use crate::handshake::server::{Echo, choose_version};
use crate::handshake::server12::Verified;
use crate::handshake::server13::{Choice, GroupChoice, Retried};
use crate::handshake::suite_number;
use crate::record::{ContentType, Header, Version, write_plaintext};
use crate::wire::hello::{ClientHello, DTLS_1_3, write_hello_retry_request};
use crate::wire::messages::{Fragment, HEADER_BYTES, MessageType};
use crate::wire::messages12::write_hello_verify_request;

/// The longest ClientHello: with hybrid key shares and a cookie they stay below 2 KiB.
const HELLO_BYTES_MAX: usize = 8_192;

/// A ClientHello with which an association may begin.
#[derive(Clone, Debug)]
pub struct Opening {
    pub(crate) echo: Echo,
    /// Numbers of the message and of its record, from which ours go on.
    pub(crate) message_sequence: u16,
    pub(crate) record_sequence: u64,
    random: [u8; 32],
}

impl Opening {
    /// The opening of a datagram from a peer whose address needs no cookie: something else has made sure of it
    /// ([`AddressValidation::None`]). `None` if it does not begin with a ClientHello. Of one that comes in pieces too small to see its
    /// random, that is taken to be zeros.
    #[must_use]
    pub fn unvalidated(datagram: &[u8]) -> Option<Self> {
        let (fragment, record_sequence) = first_fragment(datagram)?;
        let random = match ClientHello::parse_start(fragment.bytes, fragment.length) {
            Ok(hello) => hello.random,
            Err(_) if fragment.bytes.len() < fragment.length => [0; 32],
            Err(_) => return None,
        };
        let (is_first, message_sequence) = (fragment.offset == 0, fragment.sequence);
        is_first.then_some(Self { echo: Echo::Nothing, message_sequence, record_sequence, random })
    }

    /// The random of the hello. Repetitions have the same, another attempt has another.
    #[must_use]
    pub const fn random(&self) -> &[u8; 32] {
        &self.random
    }
}

/// What to do with a datagram.
#[derive(Debug)]
pub enum Screened {
    /// Begin an association and give it the datagram.
    Opening(Box<Opening>),
    /// Send the first so many bytes of the buffer back.
    Reply {
        /// How many.
        bytes: usize,
        /// What they say.
        reply: Reply,
    },
    /// Nothing, and count it.
    Dropped(Unwelcome),
}

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// That the hello is to be sent again with a cookie.
    Cookie,
    /// That its cookie is not ours, of another address, or too old: by an `illegal_parameter` alert (RFC 9147 §5.1), or by asking
    /// for another one (RFC 6347 §4.2.1).
    OtherCookie,
    /// That there can be no association.
    Refusal(Alert),
}

/// Why a datagram is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unwelcome {
    /// It begins with no ClientHello, or one that cannot be read.
    NoHello,
    /// A first hello that does not fit into its datagram, or a later fragment.
    Fragment,
    /// An answer would be longer than what it answers.
    Amplification,
}

impl Unwelcome {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 3] = [Self::NoHello, Self::Fragment, Self::Amplification];

    /// The reason's name in a counter.
    #[must_use]
    pub const fn counter(self) -> &'static str {
        match self {
            Self::NoHello => "hello_none",
            Self::Fragment => "hello_fragment",
            Self::Amplification => "hello_too_short_to_answer",
        }
    }
}

/// Screens datagrams from unknown addresses.
#[derive(Debug)]
pub struct Front {
    cookies: Cookies,
}

impl Front {
    /// A front whose cookies are made from `seed`: 32 random bytes, the same for all workers of one Gateway.
    #[must_use]
    pub fn new(seed: &[u8; 32]) -> Self {
        Self { cookies: Cookies::new(seed) }
    }

    /// Looks at a datagram that came from `from`. An answer is written to `reply`, which has room for a datagram of the same
    /// length.
    pub fn screen(
        &mut self,
        config: &ServerConfig,
        datagram: &[u8],
        from: SocketAddr,
        now: BootInstant,
        reply: &mut [u8],
    ) -> Screened {
        let Some((fragment, record_sequence)) = first_fragment(datagram) else {
            return Screened::Dropped(Unwelcome::NoHello);
        };
        if fragment.offset != 0 {
            return Screened::Dropped(Unwelcome::Fragment);
        }
        let answer = Answer { datagram, reply, message_sequence: fragment.sequence, record_sequence };
        let is_whole = fragment.bytes.len() == fragment.length;
        let is_trusted = config.settings.address_validation == AddressValidation::None;
        let hello = match ClientHello::parse_start(fragment.bytes, fragment.length) {
            Err(fatal) if is_whole => return answer.refuse(&fatal),
            _ if is_trusted => {
                let opening = Opening::unvalidated(datagram).map(Box::new);
                return opening.map_or(Screened::Dropped(Unwelcome::Fragment), Screened::Opening);
            }
            Ok(hello) => hello,
            Err(_) => return Screened::Dropped(Unwelcome::Fragment),
        };
        let opening = |echo| {
            let (message_sequence, random) = (fragment.sequence, hello.random);
            Screened::Opening(Box::new(Opening { echo, message_sequence, record_sequence, random }))
        };
        if let Some(cookie) = hello.cookie {
            return match self.cookies.judge(cookie, from, now) {
                Some(Remembered { suite, group, hello_hash }) => {
                    opening(Echo::Retry(Retried { suite, group, hello_hash, cookie: Some(cookie.to_vec()) }))
                }
                None => answer.refuse_cookie(),
            };
        }
        let speaks_12 = config.settings.min_version == ProtocolVersion::Dtls12;
        let has_cookie_12 = speaks_12 && !hello.legacy_cookie.is_empty() && !hello.offers(DTLS_1_3);
        if has_cookie_12 {
            let (cookie, parameters) = (hello.legacy_cookie.to_vec(), Parameters::of(&hello));
            if self.cookies.judge_12(&cookie, &parameters, from, now) {
                return opening(Echo::Verify(Verified { cookie, parameters }));
            }
        }
        if !is_whole {
            return Screened::Dropped(Unwelcome::Fragment);
        }
        let choice = match choose_version(&hello, config) {
            Ok(ProtocolVersion::Dtls13) => Choice::make(&hello, config),
            Ok(ProtocolVersion::Dtls12) => {
                if let Err(fatal) = Choice12::make(&hello, config) {
                    return answer.refuse(&fatal);
                }
                let cookie = self.cookies.make_12(&Parameters::of(&hello), from, now);
                let reply = if has_cookie_12 { Reply::OtherCookie } else { Reply::Cookie };
                return answer.verify(&write_hello_verify_request(&cookie), reply);
            }
            Err(fatal) => Err(fatal),
        };
        let choice = match choice {
            Ok(choice) => choice,
            Err(fatal) => return answer.refuse(&fatal),
        };
        let remembered = Remembered {
            suite: choice.suite,
            group: match choice.group {
                GroupChoice::Shared(_) => None,
                GroupChoice::Ask(group) => Some(group),
            },
            hello_hash: Transcript::hash_of(choice.suite, MessageType::CLIENT_HELLO, fragment.bytes)
                .as_bytes()
                .to_vec(),
        };
        let cookie = self.cookies.make(&remembered, from, now);
        let group = remembered.group.map(crate::crypto::Group::number);
        answer.ask(&write_hello_retry_request(suite_number(choice.suite), group, Some(&cookie)))
    }
}

/// The first fragment of a ClientHello at the start of a datagram, and its record's number.
fn first_fragment(datagram: &[u8]) -> Option<(Fragment<'_>, u64)> {
    let Header::Plain(record) = Header::parse(datagram, 0, 0)? else { return None };
    if record.content_type != ContentType::Handshake || record.epoch != 0 {
        return None;
    }
    let (fragment, _) = Fragment::split_first(datagram.get(record.fragment)?)?;
    let fits = fragment.kind == MessageType::CLIENT_HELLO
        && fragment.length <= HELLO_BYTES_MAX
        && !fragment.bytes.is_empty()
        // The hello is its sender's first message, or its second.
        && fragment.sequence <= 1;
    fits.then_some((fragment, record.sequence))
}

/// An answer in the making.
struct Answer<'a> {
    datagram: &'a [u8],
    reply: &'a mut [u8],
    message_sequence: u16,
    record_sequence: u64,
}

impl Answer<'_> {
    /// Asks by a HelloRetryRequest.
    fn ask(self, request: &[u8]) -> Screened {
        let message = self.message(MessageType::SERVER_HELLO, request);
        self.write(ContentType::Handshake, Version::DTLS_1_2, &message, Reply::Cookie)
    }

    /// Asks by a HelloVerifyRequest, whose record says the same version as itself.
    fn verify(self, request: &[u8], reply: Reply) -> Screened {
        let message = self.message(MessageType::HELLO_VERIFY_REQUEST, request);
        self.write(ContentType::Handshake, Version::DTLS_1_0, &message, reply)
    }

    fn refuse(self, fatal: &Fatal) -> Screened {
        self.write(ContentType::Alert, Version::DTLS_1_2, &fatal.alert.encode(), Reply::Refusal(fatal.alert))
    }

    /// Refuses the cookie of a client of DTLS 1.3.
    fn refuse_cookie(self) -> Screened {
        let alert = Alert::ILLEGAL_PARAMETER.encode();
        self.write(ContentType::Alert, Version::DTLS_1_2, &alert, Reply::OtherCookie)
    }

    fn message(&self, kind: MessageType, body: &[u8]) -> Vec<u8> {
        let header = Fragment::header(kind, body.len(), self.message_sequence, 0, body.len());
        let mut message = Vec::with_capacity(HEADER_BYTES + body.len());
        message.extend_from_slice(&header);
        message.extend_from_slice(body);
        message
    }

    /// One record with the number of the one that it answers: nothing has been kept that could count (RFC 6347 §4.2.1).
    fn write(self, content_type: ContentType, version: Version, content: &[u8], reply: Reply) -> Screened {
        let room = self.reply.len().min(self.datagram.len());
        let space = &mut self.reply[..room];
        match write_plaintext(content_type, version, self.record_sequence, content, space) {
            Ok(bytes) => Screened::Reply { bytes, reply },
            Err(_) => Screened::Dropped(Unwelcome::Amplification),
        }
    }
}
