//! Messages (RFC 4511 §4): the requests that we send and the responses that there are to them.

use zeroize::Zeroizing;

use super::ber::{BOOLEAN, BerError, ENUMERATED, INTEGER, OCTET_STRING, Reader, SEQUENCE, SET, Writer};
use super::filter::Filter;
use crate::Reason;

/// Longest distinguished name that is listened to, in bytes.
const DN_BYTES_MAX: usize = 2_048;
/// Longest name of an attribute, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// Attributes of one entry. One that was asked for comes with its subtypes (RFC 4512 §2.5.2).
const ATTRIBUTES_MAX: usize = 64;
/// Values of one attribute: the groups of one user.
const VALUES_MAX: usize = 4_096;
/// Of the object identifier of an extended response.
const OID_BYTES_MAX: usize = 128;

/// Object identifier of StartTLS (§4.14).
pub(super) const START_TLS: &str = "1.3.6.1.4.1.1466.20037";
/// resultCode (§4.1.9).
pub(super) const SUCCESS: u32 = 0;
pub(super) const SIZE_LIMIT_EXCEEDED: u32 = 4;
pub(super) const INVALID_CREDENTIALS: u32 = 49;
pub(super) const BUSY: u32 = 51;
pub(super) const UNAVAILABLE: u32 = 52;

/// Tags of protocolOp (§4.2 to §4.13) and of what is in them.
const BIND_REQUEST: u8 = 0x60;
const BIND_RESPONSE: u8 = 0x61;
const UNBIND_REQUEST: u8 = 0x42;
const SEARCH_REQUEST: u8 = 0x63;
const SEARCH_ENTRY: u8 = 0x64;
const SEARCH_DONE: u8 = 0x65;
const SEARCH_REFERENCE: u8 = 0x73;
const EXTENDED_REQUEST: u8 = 0x77;
const EXTENDED_RESPONSE: u8 = 0x78;
const SIMPLE: u8 = 0x80;
const REQUEST_NAME: u8 = 0x80;
const REFERRAL: u8 = 0xa3;
const RESPONSE_NAME: u8 = 0x8a;

const VERSION: u32 = 3;
const WHOLE_SUBTREE: u32 = 2;
const NEVER_DEREF_ALIASES: u32 = 0;

/// What is asked of a directory.
pub(super) enum Request<'a> {
    /// To be who `dn` is.
    Bind { dn: &'a str, password: &'a str },
    /// For entries.
    Search(Search<'a>),
    /// For TLS on this connection.
    StartTls,
    /// For nothing more.
    Unbind,
}

/// Which entries below `base`, and what of them.
#[derive(Clone, Copy)]
pub(super) struct Search<'a> {
    pub(super) base: &'a str,
    pub(super) filter: &'a Filter,
    /// For the filter's places.
    pub(super) value: &'a str,
    pub(super) attributes: &'a [&'a str],
    pub(super) entries_max: u32,
    pub(super) seconds_max: u32,
}

impl Request<'_> {
    /// The message; `None` for one that is too long.
    pub(super) fn encode(&self, id: u32) -> Option<Zeroizing<Vec<u8>>> {
        let mut writer = Writer::new();
        writer.nested(SEQUENCE, |message| {
            message.number(INTEGER, id);
            match self {
                Self::Bind { dn, password } => message.nested(BIND_REQUEST, |bind| {
                    bind.number(INTEGER, VERSION);
                    bind.element(OCTET_STRING, dn.as_bytes());
                    bind.element(SIMPLE, password.as_bytes());
                }),
                Self::Search(search) => message.nested(SEARCH_REQUEST, |to| search.write(to)),
                Self::StartTls => {
                    message.nested(EXTENDED_REQUEST, |extended| extended.element(REQUEST_NAME, START_TLS.as_bytes()));
                }
                Self::Unbind => message.element(UNBIND_REQUEST, &[]),
            }
        });
        writer.finish()
    }
}

impl Search<'_> {
    fn write(&self, to: &mut Writer) {
        to.element(OCTET_STRING, self.base.as_bytes());
        to.number(ENUMERATED, WHOLE_SUBTREE);
        to.number(ENUMERATED, NEVER_DEREF_ALIASES);
        to.number(INTEGER, self.entries_max);
        to.number(INTEGER, self.seconds_max);
        to.boolean(BOOLEAN, false);
        self.filter.write(to, self.value);
        to.nested(SEQUENCE, |names| {
            self.attributes.iter().for_each(|name| names.element(OCTET_STRING, name.as_bytes()))
        });
    }
}

/// What a directory says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) id: u32,
    pub(super) response: Response,
}

/// A response.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Response {
    /// To a bind.
    Bound(Outcome),
    /// One entry of a search.
    Entry(Entry),
    /// Other directories that a search may be continued at.
    Reference,
    /// The end of a search.
    Done(Outcome),
    /// To an extended request, or a notice that nobody asked for (§4.4); with its object identifier.
    Extended(Outcome, Option<String>),
}

/// LDAPResult (§4.1.9).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("result {code}{said}")]
pub(super) struct Outcome {
    pub(super) code: u32,
    /// Empty, or a comma and what the directory adds.
    said: Reason,
}

/// An entry, as far as its values are texts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) dn: String,
    attributes: Vec<(String, Vec<String>)>,
}

impl Message {
    /// Reads one message, which is all of `bytes`.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BerError> {
        let mut outer = Reader::new(bytes);
        let mut message = outer.nested(SEQUENCE)?;
        outer.end()?;
        let id = message.number(INTEGER)?;
        let tag = message.peek()?;
        let mut operation = message.nested(tag)?;
        let response = match tag {
            BIND_RESPONSE => Response::Bound(Outcome::decode(&mut operation)?),
            SEARCH_ENTRY => Response::Entry(Entry::decode(&mut operation)?),
            SEARCH_REFERENCE => Response::Reference,
            SEARCH_DONE => Response::Done(Outcome::decode(&mut operation)?),
            EXTENDED_RESPONSE => {
                let outcome = Outcome::decode(&mut operation)?;
                let is_named = !operation.is_empty() && operation.peek()? == RESPONSE_NAME;
                let name = is_named.then(|| operation.text(RESPONSE_NAME, OID_BYTES_MAX)).transpose()?;
                Response::Extended(outcome, name.map(str::to_owned))
            }
            found => return Err(BerError::Tag { expected: BIND_RESPONSE, found }),
        };
        operation.pass_over()?;
        // Controls: we ask for none, and those of a response demand nothing (§4.1.11).
        message.pass_over()?;
        Ok(Self { id, response })
    }
}

impl Outcome {
    fn decode(from: &mut Reader<'_>) -> Result<Self, BerError> {
        let code = from.number(ENUMERATED)?;
        from.text(OCTET_STRING, DN_BYTES_MAX)?;
        // People read it; it is bounded where it is kept.
        let said = String::from_utf8_lossy(from.content(OCTET_STRING)?);
        // Referrals are not followed.
        from.optional(REFERRAL)?;
        let said = if said.is_empty() { Reason::default() } else { format!(", {said}").into() };
        Ok(Self { code, said })
    }
}

impl Entry {
    fn decode(from: &mut Reader<'_>) -> Result<Self, BerError> {
        let dn = from.text(OCTET_STRING, DN_BYTES_MAX)?.to_owned();
        let mut list = from.nested(SEQUENCE)?;
        let mut attributes = Vec::new();
        while !list.is_empty() {
            if attributes.len() >= ATTRIBUTES_MAX {
                return Err(BerError::TooMany(ATTRIBUTES_MAX, "attributes"));
            }
            let mut attribute = list.nested(SEQUENCE)?;
            let name = attribute.text(OCTET_STRING, NAME_BYTES_MAX)?.to_owned();
            let values = texts(attribute.nested(SET)?)?;
            attribute.pass_over()?;
            attributes.push((name, values));
        }
        Ok(Self { dn, attributes })
    }

    /// The values of an attribute, whose name has no case (RFC 4512 §2.5).
    pub(super) fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let found = self.attributes.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.into_iter().flat_map(|(_, values)| values.iter().map(String::as_str))
    }
}

/// Those values that are texts.
fn texts(mut set: Reader<'_>) -> Result<Vec<String>, BerError> {
    let (mut texts, mut count) = (Vec::new(), 0);
    while !set.is_empty() {
        count += 1;
        if count > VALUES_MAX {
            return Err(BerError::TooMany(VALUES_MAX, "values of an attribute"));
        }
        texts.extend(std::str::from_utf8(set.content(OCTET_STRING)?).ok().map(str::to_owned));
    }
    Ok(texts)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a directory would send.
    pub(crate) fn sent(id: u32, tag: u8, operation: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.nested(SEQUENCE, |message| {
            message.number(INTEGER, id);
            message.nested(tag, operation);
        });
        writer.finish().unwrap().to_vec()
    }

    fn result(to: &mut Writer, code: u32, said: &str) {
        to.number(ENUMERATED, code);
        to.element(OCTET_STRING, b"");
        to.element(OCTET_STRING, said.as_bytes());
    }

    pub(crate) fn bound(id: u32, code: u32) -> Vec<u8> {
        sent(id, BIND_RESPONSE, |to| result(to, code, "said so"))
    }

    pub(crate) fn done(id: u32, code: u32) -> Vec<u8> {
        sent(id, SEARCH_DONE, |to| result(to, code, ""))
    }

    pub(crate) fn reference(id: u32) -> Vec<u8> {
        sent(id, SEARCH_REFERENCE, |to| to.element(OCTET_STRING, b"ldap://other.example/dc=example"))
    }

    pub(crate) fn extended(id: u32, code: u32, name: Option<&str>) -> Vec<u8> {
        sent(id, EXTENDED_RESPONSE, |to| {
            result(to, code, "");
            if let Some(name) = name {
                to.element(RESPONSE_NAME, name.as_bytes());
            }
        })
    }

    pub(crate) fn entry(id: u32, dn: &str, attributes: &[(&str, Vec<&[u8]>)]) -> Vec<u8> {
        sent(id, SEARCH_ENTRY, |to| {
            to.element(OCTET_STRING, dn.as_bytes());
            to.nested(SEQUENCE, |list| {
                for (name, values) in attributes {
                    list.nested(SEQUENCE, |attribute| {
                        attribute.element(OCTET_STRING, name.as_bytes());
                        attribute.nested(SET, |set| values.iter().for_each(|value| set.element(OCTET_STRING, value)));
                    });
                }
            });
        })
    }

    #[test]
    fn requests_are_those_of_the_protocol() {
        let bind = Request::Bind { dn: "cn=a", password: "p" }.encode(1).unwrap();
        assert_eq!(*bind, b"\x30\x11\x02\x01\x01\x60\x0c\x02\x01\x03\x04\x04cn=a\x80\x01p");
        assert_eq!(*Request::Unbind.encode(2).unwrap(), b"\x30\x05\x02\x01\x02\x42\x00");
        let expected = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";
        assert_eq!(*Request::StartTls.encode(1).unwrap(), expected);
        let filter = Filter::parse("(a={})").unwrap();
        let search =
            Search { base: "o", filter: &filter, value: "x", attributes: &["m"], entries_max: 2, seconds_max: 5 };
        let expected =
            b"\x30\x24\x02\x01\x03\x63\x1f\x04\x01o\x0a\x01\x02\x0a\x01\x00\x02\x01\x02\x02\x01\x05\x01\x01\x00\
                         \xa3\x06\x04\x01a\x04\x01x\x30\x03\x04\x01m";
        assert_eq!(*Request::Search(search).encode(3).unwrap(), expected);
        let long = "x".repeat(super::super::ber::REQUEST_BYTES_MAX);
        assert!(Request::Bind { dn: &long, password: "p" }.encode(1).is_none());
    }

    #[test]
    fn responses_are_read() {
        let outcome = |code, said: &str| Outcome { code, said: said.into() };
        let read = |bytes: &[u8]| Message::decode(bytes).unwrap();
        let expected = Message { id: 1, response: Response::Bound(outcome(49, ", said so")) };
        assert_eq!(read(&bound(1, 49)), expected);
        assert_eq!(outcome(49, ", said so").to_string(), "result 49, said so");
        assert_eq!(read(&done(7, 0)), Message { id: 7, response: Response::Done(outcome(0, "")) });
        assert_eq!(read(&reference(7)).response, Response::Reference);
        let name = Some(START_TLS.to_owned());
        assert_eq!(read(&extended(0, 0, Some(START_TLS))).response, Response::Extended(outcome(0, ""), name));
        let entry = entry(2, "cn=a", &[("MAIL", vec![b"a@example.org", b"\xff", b"b"]), ("memberOf", vec![])]);
        let Response::Entry(entry) = read(&entry).response else { panic!("no entry") };
        assert_eq!(entry.dn, "cn=a");
        assert_eq!(entry.values("mail").collect::<Vec<_>>(), ["a@example.org", "b"]);
        assert_eq!((entry.values("memberof").count(), entry.values("cn").count()), (0, 0));
    }

    #[test]
    fn what_a_directory_adds_is_passed_over_if_it_is_well_formed() {
        // serverSaslCreds, and a component that no version has yet.
        let more = |tail: &'static [u8]| {
            sent(1, BIND_RESPONSE, move |to| {
                result(to, 0, "");
                to.element(REFERRAL, b"\x04\x01x");
                to.element(0x87, b"credentials");
                to.put(tail);
            })
        };
        assert!(matches!(Message::decode(&more(b"\x89\x01x")).unwrap().response, Response::Bound(_)));
        assert_eq!(Message::decode(&more(b"\x89\x05x")).unwrap_err(), BerError::Truncated);
    }

    #[test]
    fn malformed_messages_are_refused() {
        let many = vec![("a", vec![]); ATTRIBUTES_MAX + 1];
        let values: Vec<&[u8]> = vec![b""; VALUES_MAX + 1];
        let long = format!("cn={}", "a".repeat(DN_BYTES_MAX));
        for (bad, error) in [
            (bound(1, 0)[..10].to_vec(), BerError::Truncated),
            ([bound(1, 0), bound(1, 0)].concat(), BerError::Trailing),
            (b"\x30\x00".to_vec(), BerError::Truncated),
            (b"\x30\x03\x02\x01\x01".to_vec(), BerError::Truncated),
            (sent(1, 0x79, |_| ()), BerError::Tag { expected: BIND_RESPONSE, found: 0x79 }),
            (
                sent(1, BIND_RESPONSE, |to| to.number(INTEGER, 0)),
                BerError::Tag { expected: ENUMERATED, found: INTEGER },
            ),
            (sent(1, BIND_RESPONSE, |to| to.element(ENUMERATED, b"")), BerError::Number),
            (sent(1, SEARCH_ENTRY, |to| to.element(OCTET_STRING, b"\xff")), BerError::Text(DN_BYTES_MAX)),
            (entry(1, &long, &[]), BerError::Text(DN_BYTES_MAX)),
            (entry(1, "a", &many), BerError::TooMany(ATTRIBUTES_MAX, "attributes")),
            (entry(1, "a", &[("b", values)]), BerError::TooMany(VALUES_MAX, "values of an attribute")),
        ] {
            assert_eq!(Message::decode(&bad).unwrap_err(), error, "{bad:02x?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_a_message_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            drop(Message::decode(&bytes));
        }

        /// Few random bytes are messages; messages with a few of them changed get further.
        #[test]
        fn a_changed_message_is_one_or_refused(
            which in 0..5_usize,
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            length in any::<prop::sample::Index>(),
        ) {
            let attributes: &[(&str, Vec<&[u8]>)] = &[("mail", vec![b"a@example.org"]), ("memberOf", vec![b"cn=a", b"b"])];
            let mut bytes = match which {
                0 => bound(1, 49),
                1 => entry(2, "cn=alice,dc=example", attributes),
                2 => done(2, 0),
                3 => reference(2),
                _ => extended(0, 52, Some("1.3.6.1.4.1.1466.20036")),
            };
            for (index, byte) in changes {
                *index.get_mut(&mut bytes) = byte;
            }
            drop(Message::decode(&bytes));
            drop(Message::decode(&bytes[..length.index(bytes.len())]));
        }

        #[test]
        fn an_entry_is_read_as_it_was_written(
            dn in ".{0,60}",
            attributes in proptest::collection::btree_map("[a-z]{1,8}", proptest::collection::vec(".{0,30}", 0..5), 0..5),
        ) {
            let list: Vec<(&str, Vec<&[u8]>)> =
                attributes.iter().map(|(name, values)| (name.as_str(), values.iter().map(String::as_bytes).collect())).collect();
            let message = Message::decode(&entry(9, &dn, &list)).unwrap();
            let attributes = attributes.into_iter().collect();
            prop_assert_eq!(message, Message { id: 9, response: Response::Entry(Entry { dn, attributes }) });
        }
    }
}
