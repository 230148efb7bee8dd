//! ClientHello, ServerHello and HelloRetryRequest (RFC 9147 §5.3, RFC 8446 §4.1).

use super::{Malformed, Reader, U16List, Writer};
use crate::alert::{Alert, Fatal, fail};

/// DTLS 1.2 as versions are written; also the version that all messages of DTLS 1.3 show (RFC 9147 §5.3).
pub(crate) const DTLS_1_2: u16 = 0xfefd;
/// DTLS 1.3, in the extension `supported_versions` only.
pub(crate) const DTLS_1_3: u16 = 0xfefc;
/// No version of DTLS has a lower number: that would be 15.0.
const LEAST_VERSION: u16 = 0xf000;

/// The random by which a ServerHello is a HelloRetryRequest (RFC 8446 §4.1.3).
pub(crate) const RETRY_RANDOM: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11,
    0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];
/// Extension numbers (RFC 8446 §4.2, RFC 9146 §3, RFC 7627 §5.1, RFC 5746 §3.2).
pub(crate) mod extension {
    pub(crate) const SUPPORTED_GROUPS: u16 = 10;
    pub(crate) const EC_POINT_FORMATS: u16 = 11;
    pub(crate) const SIGNATURE_ALGORITHMS: u16 = 13;
    pub(crate) const ALPN: u16 = 16;
    pub(crate) const PADDING: u16 = 21;
    pub(crate) const EXTENDED_MASTER_SECRET: u16 = 23;
    pub(crate) const PRE_SHARED_KEY: u16 = 41;
    pub(crate) const SUPPORTED_VERSIONS: u16 = 43;
    pub(crate) const COOKIE: u16 = 44;
    pub(crate) const PSK_KEY_EXCHANGE_MODES: u16 = 45;
    pub(crate) const CERTIFICATE_AUTHORITIES: u16 = 47;
    pub(crate) const KEY_SHARE: u16 = 51;
    pub(crate) const CONNECTION_ID: u16 = 54;
    pub(crate) const RENEGOTIATION_INFO: u16 = 65_281;
}

/// Extensions of one message at most; every one costs a comparison with those before it.
const EXTENSIONS_MAX: usize = 64;

/// What a server is told of an extension that does not belong where it stands: one that our hello has says something elsewhere,
/// any other was not asked for (RFC 8446 §4.2).
pub(super) fn misplaced<T>(number: u16, place: &str) -> Result<T, Fatal> {
    let alert = match number {
        extension::SUPPORTED_GROUPS
        | extension::SIGNATURE_ALGORITHMS
        | extension::ALPN
        | extension::PADDING
        | extension::SUPPORTED_VERSIONS
        | extension::COOKIE
        | extension::KEY_SHARE
        | extension::CONNECTION_ID => Alert::ILLEGAL_PARAMETER,
        _ => Alert::UNSUPPORTED_EXTENSION,
    };
    fail(alert, format!("extension {number} in {place}"))
}

/// Walks a block of extensions; refuses a number that comes twice (RFC 8446 §4.2).
pub(super) struct Extensions<'a> {
    reader: Reader<'a>,
    seen: [u16; EXTENSIONS_MAX],
    count: usize,
}

impl<'a> Extensions<'a> {
    pub(super) const fn new(reader: Reader<'a>) -> Self {
        Self { reader, seen: [0; EXTENSIONS_MAX], count: 0 }
    }

    pub(super) fn next(&mut self) -> Result<Option<(u16, &'a [u8])>, Fatal> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let (number, content) = (self.reader.u16()?, self.reader.vec16()?);
        if self.seen[..self.count].contains(&number) {
            return fail(Alert::ILLEGAL_PARAMETER, format!("extension {number} came twice"));
        }
        let Some(place) = self.seen.get_mut(self.count) else {
            return fail(Alert::DECODE_ERROR, format!("expected at most {EXTENSIONS_MAX} extensions"));
        };
        *place = number;
        self.count += 1;
        Ok(Some((number, content)))
    }
}

/// A ClientHello as it came.
#[derive(Clone, Debug)]
pub(crate) struct ClientHello<'a> {
    pub(crate) legacy_version: u16,
    pub(crate) random: [u8; 32],
    pub(crate) legacy_cookie: &'a [u8],
    /// What stands before the legacy cookie and between it and the extensions. A client of DTLS 1.2 that brings a cookie back
    /// changes nothing of it (RFC 6347 §4.2.1).
    pub(crate) around_cookie: [&'a [u8]; 2],
    pub(crate) suites: U16List<'a>,
    pub(crate) compression: &'a [u8],
    pub(crate) versions: Option<U16List<'a>>,
    pub(crate) groups: Option<U16List<'a>>,
    pub(crate) schemes: Option<U16List<'a>>,
    pub(crate) key_shares: Option<KeyShares<'a>>,
    pub(crate) cookie: Option<&'a [u8]>,
    pub(crate) connection_id: Option<&'a [u8]>,
    pub(crate) alpn: Option<&'a [u8]>,
    pub(crate) extended_master_secret: bool,
    pub(crate) renegotiation_info: Option<&'a [u8]>,
    pub(crate) point_formats: Option<&'a [u8]>,
    pub(crate) pre_shared_key: bool,
    pub(crate) psk_modes: bool,
    /// Whether the end of the message was seen.
    pub(crate) whole: bool,
}

impl<'a> ClientHello<'a> {
    /// Reads a message's body.
    ///
    /// # Errors
    /// `decode_error`, and `illegal_parameter` for what RFC 8446 §4 asks it.
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, Fatal> {
        let hello = Self::parse_start(body, body.len())?;
        if hello.whole { Ok(hello) } else { fail(Alert::DECODE_ERROR, "a ClientHello that ends early") }
    }

    /// Reads the start of a body of `length` bytes: what stands before the extensions, and those that are whole.
    ///
    /// # Errors
    /// As [`ClientHello::parse`], for what is there.
    pub(crate) fn parse_start(start: &'a [u8], length: usize) -> Result<Self, Fatal> {
        let mut reader = Reader::new("a ClientHello", start);
        let legacy_version = reader.u16()?;
        let random = reader.array()?;
        let session_id = reader.vec8()?;
        let before_cookie = start.len() - reader.remaining();
        let legacy_cookie = reader.vec8()?;
        let behind_cookie = start.len() - reader.remaining();
        let suites = U16List::parse("a list of cipher suites", reader.vec16()?)?;
        let compression = reader.vec8()?;
        let before_extensions = start.len() - reader.remaining();
        if session_id.len() > 32 {
            return fail(Alert::DECODE_ERROR, "expected a session id of at most 32 bytes");
        }
        let mut hello = Self {
            legacy_version,
            random,
            legacy_cookie,
            around_cookie: [&start[..before_cookie], &start[behind_cookie..before_extensions]],
            suites,
            compression,
            versions: None,
            groups: None,
            schemes: None,
            key_shares: None,
            cookie: None,
            connection_id: None,
            alpn: None,
            extended_master_secret: false,
            renegotiation_info: None,
            point_formats: None,
            pre_shared_key: false,
            psk_modes: false,
            whole: false,
        };
        if reader.is_empty() {
            // TLS 1.2 allows a hello without extensions.
            hello.whole = start.len() == length;
            return Ok(hello);
        }
        let block = usize::from(reader.u16()?);
        if start.len() - reader.remaining() + block != length {
            return fail(Alert::DECODE_ERROR, "extensions that do not end with the ClientHello");
        }
        let is_whole = reader.remaining() == block;
        let mut extensions = Extensions::new(reader);
        loop {
            match extensions.next() {
                Ok(Some((number, content))) => {
                    if hello.pre_shared_key {
                        return fail(Alert::ILLEGAL_PARAMETER, "an extension behind pre_shared_key");
                    }
                    hello.take(number, content)?;
                }
                Ok(None) => break,
                // The next fragment has the rest of it.
                Err(fatal) if !is_whole && fatal.alert == Alert::DECODE_ERROR => return Ok(hello),
                Err(fatal) => return Err(fatal),
            }
        }
        hello.whole = is_whole;
        Ok(hello)
    }

    fn take(&mut self, number: u16, content: &'a [u8]) -> Result<(), Fatal> {
        let mut reader = Reader::new("an extension of a ClientHello", content);
        match number {
            extension::SUPPORTED_VERSIONS => {
                self.versions = Some(U16List::parse("supported_versions", reader.vec8()?)?);
            }
            extension::SUPPORTED_GROUPS => self.groups = Some(U16List::parse("supported_groups", reader.vec16()?)?),
            extension::SIGNATURE_ALGORITHMS => {
                self.schemes = Some(U16List::parse("signature_algorithms", reader.vec16()?)?);
            }
            extension::KEY_SHARE => self.key_shares = Some(KeyShares::parse(reader.vec16()?)?),
            extension::COOKIE => {
                let cookie = reader.vec16()?;
                if cookie.is_empty() {
                    return fail(Alert::DECODE_ERROR, "an empty cookie");
                }
                self.cookie = Some(cookie);
            }
            extension::CONNECTION_ID => self.connection_id = Some(reader.vec8()?),
            extension::ALPN => {
                let list = reader.vec16()?;
                check_protocols(list)?;
                self.alpn = Some(list);
            }
            extension::EXTENDED_MASTER_SECRET => self.extended_master_secret = true,
            extension::RENEGOTIATION_INFO => self.renegotiation_info = Some(reader.vec8()?),
            extension::EC_POINT_FORMATS => self.point_formats = Some(reader.vec8()?),
            extension::PSK_KEY_EXCHANGE_MODES => {
                self.psk_modes = true;
                if reader.vec8()?.is_empty() {
                    return fail(Alert::DECODE_ERROR, "an empty list of psk_key_exchange_modes");
                }
            }
            extension::PRE_SHARED_KEY => {
                self.pre_shared_key = true;
                return Ok(());
            }
            _ => return Ok(()),
        }
        Ok(reader.end()?)
    }

    /// Whether the client speaks `version`.
    pub(crate) fn offers(&self, version: u16) -> bool {
        match self.versions {
            Some(versions) => versions.contains(version),
            // Versions count downwards: a client that says less than 1.2 by this field says a greater number. Numbers far
            // below are TLS's.
            None => version == DTLS_1_2 && (LEAST_VERSION..=DTLS_1_2).contains(&self.legacy_version),
        }
    }

    /// The share for `group`, if there is one.
    pub(crate) fn share(&self, group: u16) -> Option<&'a [u8]> {
        self.key_shares.and_then(|shares| shares.iter().find(|(of, _)| *of == group)).map(|(_, share)| share)
    }
}

/// A list of protocol names, each of at least one byte (RFC 7301 §3.1).
fn check_protocols(list: &[u8]) -> Result<(), Fatal> {
    if list.is_empty() || protocols(list).any(|name| name.is_none_or(<[u8]>::is_empty)) {
        return fail(Alert::DECODE_ERROR, "expected protocol names, each of 1 to 255 bytes");
    }
    Ok(())
}

/// The names of a list; `None` where one is cut off.
pub(crate) fn protocols(list: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut reader = Reader::new("protocol names", list);
    let mut broken = false;
    std::iter::from_fn(move || {
        if broken || reader.is_empty() {
            return None;
        }
        let name = reader.vec8().ok();
        broken = name.is_none();
        Some(name)
    })
}

/// The key shares of a ClientHello (RFC 8446 §4.2.8): groups and public values, checked for form and for a group that comes twice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyShares<'a>(&'a [u8]);

impl<'a> KeyShares<'a> {
    fn parse(list: &'a [u8]) -> Result<Self, Fatal> {
        let shares = Self(list);
        let mut reader = Reader::new("a list of key shares", list);
        let mut seen = Vec::new();
        while !reader.is_empty() {
            let (group, share) = (reader.u16()?, reader.vec16()?);
            if share.is_empty() {
                return fail(Alert::DECODE_ERROR, "an empty key share");
            }
            if seen.len() == EXTENSIONS_MAX || seen.contains(&group) {
                return fail(Alert::ILLEGAL_PARAMETER, format!("two key shares of group {group:#06x}, or too many"));
            }
            seen.push(group);
        }
        Ok(shares)
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut reader = Reader::new("a list of key shares", self.0);
        std::iter::from_fn(move || Some((reader.u16().ok()?, reader.vec16().ok()?)))
    }
}

/// What a ClientHello of ours says.
#[derive(Debug)]
pub(crate) struct ClientOffer<'a> {
    pub(crate) random: [u8; 32],
    pub(crate) cookie: Option<&'a [u8]>,
    pub(crate) suites: &'a [u16],
    pub(crate) groups: &'a [u16],
    pub(crate) schemes: &'a [u16],
    pub(crate) share: Option<(u16, &'a [u8])>,
    pub(crate) connection_id: Option<&'a [u8]>,
    pub(crate) protocol: &'a [u8],
    /// The body is at least so long, so that a server's answer need not be longer (RFC 7685).
    pub(crate) body_bytes_min: usize,
}

impl ClientOffer<'_> {
    /// The body of the ClientHello. The cookie stands first, so that it is in the first fragment and a server can judge that
    /// one without having kept another.
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.u16(DTLS_1_2).bytes(&self.random).u8(0).u8(0);
        w.vec16(|w| w.u16s(self.suites)).vec8(|w| w.u8(0));
        w.vec16(|w| {
            if let Some(cookie) = self.cookie {
                w.extension(extension::COOKIE, |w| w.vec16(|w| w.bytes(cookie)));
            }
            w.extension(extension::SUPPORTED_VERSIONS, |w| w.vec8(|w| w.u16(DTLS_1_3)));
            w.extension(extension::SUPPORTED_GROUPS, |w| w.vec16(|w| w.u16s(self.groups)));
            w.extension(extension::SIGNATURE_ALGORITHMS, |w| w.vec16(|w| w.u16s(self.schemes)));
            if !self.protocol.is_empty() {
                w.extension(extension::ALPN, |w| write_protocol(w, self.protocol));
            }
            if let Some(id) = self.connection_id {
                w.extension(extension::CONNECTION_ID, |w| w.vec8(|w| w.bytes(id)));
            }
            w.extension(extension::KEY_SHARE, |w| {
                w.vec16(|w| match self.share {
                    Some((group, share)) => w.u16(group).vec16(|w| w.bytes(share)),
                    None => w,
                })
            });
            // Behind the header of this extension.
            let so_far = w.0.len() + 4;
            if so_far < self.body_bytes_min {
                let padding = vec![0; self.body_bytes_min - so_far];
                w.extension(extension::PADDING, |w| w.bytes(&padding));
            }
            w
        });
        w.0
    }
}

/// The one protocol of a list (RFC 7301 §3.1).
pub(crate) fn write_protocol<'w>(w: &'w mut Writer, protocol: &[u8]) -> &'w mut Writer {
    w.vec16(|w| w.vec8(|w| w.bytes(protocol)))
}

/// Writes a ServerHello or HelloRetryRequest of DTLS 1.3: no session id is echoed (RFC 9147 §5).
fn server_hello_13(random: &[u8; 32], suite: u16, extensions: impl FnOnce(&mut Writer) -> &mut Writer) -> Vec<u8> {
    let mut w = Writer::default();
    w.u16(DTLS_1_2).bytes(random).u8(0).u16(suite).u8(0);
    w.vec16(|w| extensions(w.extension(extension::SUPPORTED_VERSIONS, |w| w.u16(DTLS_1_3))));
    w.0
}

/// The body of a ServerHello of DTLS 1.3.
pub(crate) fn write_server_hello(
    random: &[u8; 32],
    suite: u16,
    (group, share): (u16, &[u8]),
    connection_id: Option<&[u8]>,
) -> Vec<u8> {
    server_hello_13(random, suite, |w| {
        w.extension(extension::KEY_SHARE, |w| w.u16(group).vec16(|w| w.bytes(share)));
        match connection_id {
            Some(id) => w.extension(extension::CONNECTION_ID, |w| w.vec8(|w| w.bytes(id))),
            None => w,
        }
    })
}

/// The body of a HelloRetryRequest: asks for a share of `group`, if one is given, and for `cookie` back.
pub(crate) fn write_hello_retry_request(suite: u16, group: Option<u16>, cookie: Option<&[u8]>) -> Vec<u8> {
    server_hello_13(&RETRY_RANDOM, suite, |w| {
        if let Some(group) = group {
            w.extension(extension::KEY_SHARE, |w| w.u16(group));
        }
        match cookie {
            Some(cookie) => w.extension(extension::COOKIE, |w| w.vec16(|w| w.bytes(cookie))),
            None => w,
        }
    })
}

/// A ServerHello or HelloRetryRequest of DTLS 1.3 as it came.
#[derive(Clone, Debug)]
pub(crate) struct ServerHello<'a> {
    pub(crate) suite: u16,
    pub(crate) group: u16,
    /// Absent in a HelloRetryRequest.
    pub(crate) share: &'a [u8],
    pub(crate) cookie: Option<&'a [u8]>,
    pub(crate) connection_id: Option<&'a [u8]>,
    pub(crate) is_retry: bool,
    /// Whether the extension was there; a retry may leave it out.
    pub(crate) has_key_share: bool,
}

impl<'a> ServerHello<'a> {
    /// Reads a message's body.
    ///
    /// # Errors
    /// `decode_error`; `protocol_version` for a version before 1.3; `illegal_parameter` and `unsupported_extension` for what a
    /// client of 1.3 may not be told.
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, Fatal> {
        let mut reader = Reader::new("a ServerHello", body);
        let (legacy_version, random): (u16, [u8; 32]) = (reader.u16()?, reader.array()?);
        let session_id = reader.vec8()?;
        let (suite, compression) = (reader.u16()?, reader.u8()?);
        let block = if reader.is_empty() { &[][..] } else { reader.vec16()? };
        reader.end()?;
        let extensions = || Extensions::new(Reader::new("extensions of a ServerHello", block));
        Self::check_version(extensions(), legacy_version)?;
        if !session_id.is_empty() || compression != 0 {
            return fail(Alert::ILLEGAL_PARAMETER, "expected neither session id nor compression in a ServerHello");
        }
        let is_retry = random == RETRY_RANDOM;
        let mut hello =
            Self { suite, group: 0, share: &[], cookie: None, connection_id: None, is_retry, has_key_share: false };
        let mut extensions = extensions();
        while let Some((number, content)) = extensions.next()? {
            let mut reader = Reader::new("an extension of a ServerHello", content);
            match number {
                extension::SUPPORTED_VERSIONS => continue,
                extension::KEY_SHARE => {
                    hello.has_key_share = true;
                    hello.group = reader.u16()?;
                    if !is_retry {
                        hello.share = reader.vec16()?;
                    }
                }
                extension::COOKIE if is_retry => {
                    hello.cookie = Some(reader.vec16()?);
                    if hello.cookie.is_none_or(<[u8]>::is_empty) {
                        return fail(Alert::DECODE_ERROR, "an empty cookie");
                    }
                }
                extension::CONNECTION_ID if !is_retry => hello.connection_id = Some(reader.vec8()?),
                number => return misplaced(number, "a ServerHello"),
            }
            reader.end()?;
        }
        Ok(hello)
    }

    /// The version comes before all else, since what else there is depends on it, and where it is listed `legacy_version` says
    /// nothing (RFC 8446 §4.2.1).
    fn check_version(mut extensions: Extensions<'_>, legacy_version: u16) -> Result<(), Fatal> {
        let expected = |alert, found| fail(alert, format!("expected DTLS 1.3, the server chose {found:#06x}"));
        while let Some((number, content)) = extensions.next()? {
            if number == extension::SUPPORTED_VERSIONS {
                let mut reader = Reader::new("the version of a ServerHello", content);
                let version = reader.u16()?;
                reader.end()?;
                return if version == DTLS_1_3 { Ok(()) } else { expected(Alert::ILLEGAL_PARAMETER, version) };
            }
        }
        expected(Alert::PROTOCOL_VERSION, legacy_version)
    }
}

impl From<Malformed> for &'static str {
    fn from(Malformed(what): Malformed) -> Self {
        what
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(cookie: Option<&[u8]>) -> Vec<u8> {
        ClientOffer {
            random: [7; 32],
            cookie,
            suites: &[0x1301, 0x1303],
            groups: &[29, 23],
            schemes: &[0x0403],
            share: Some((29, &[9; 32])),
            connection_id: Some(&[1, 2, 3]),
            protocol: b"ringfort",
            body_bytes_min: 200,
        }
        .write()
    }

    #[test]
    fn our_hello_is_read_back() {
        let body = offer(Some(b"cookie"));
        let hello = ClientHello::parse(&body).unwrap();
        assert_eq!((hello.random, hello.cookie), ([7; 32], Some(&b"cookie"[..])));
        assert!(hello.offers(DTLS_1_3) && !hello.offers(DTLS_1_2));
        assert_eq!(hello.suites.iter().collect::<Vec<_>>(), [0x1301, 0x1303]);
        assert_eq!(hello.share(29), Some(&[9; 32][..]));
        assert_eq!(hello.share(23), None);
        assert_eq!(hello.connection_id, Some(&[1, 2, 3][..]));
        assert_eq!(protocols(hello.alpn.unwrap()).collect::<Vec<_>>(), [Some(&b"ringfort"[..])]);
        assert_eq!(body.len(), 200);
    }

    #[test]
    fn the_start_of_a_hello_has_the_cookie() {
        let body = offer(Some(b"cookie"));
        for cut in 0..body.len() {
            let Ok(start) = ClientHello::parse_start(&body[..cut], body.len()) else { continue };
            assert!(!start.whole && start.cookie.is_none_or(|cookie| cookie == b"cookie"));
            assert!(cut < 60 || start.cookie.is_some(), "{cut}");
            // Behind the compression methods a hello without extensions may end.
            let ends_well = cut == 2 + 32 + 1 + 1 + 6 + 2;
            assert_eq!(ClientHello::parse(&body[..cut]).is_ok(), ends_well);
        }
    }

    #[test]
    fn what_comes_twice_or_behind_the_end_is_refused() {
        let alert = |change: &dyn Fn(&mut Writer)| {
            let mut w = Writer::default();
            w.u16(DTLS_1_2).bytes(&[0; 32]).u8(0).u8(0);
            w.vec16(|w| w.u16(0x1301)).vec8(|w| w.u8(0));
            w.vec16(|w| {
                change(w);
                w
            });
            ClientHello::parse(&w.0).unwrap_err().alert
        };
        let shares = |w: &mut Writer, list: &[u16]| {
            w.extension(extension::KEY_SHARE, |w| {
                w.vec16(|w| list.iter().fold(w, |w, group| w.u16(*group).vec16(|w| w.u8(1))))
            });
        };
        let empty = |w: &mut Writer, number| {
            w.extension(number, |w| w);
        };
        assert_eq!(
            alert(&|w| {
                shares(w, &[29]);
                shares(w, &[23]);
            }),
            Alert::ILLEGAL_PARAMETER,
            "an extension twice"
        );
        assert_eq!(alert(&|w| shares(w, &[29, 29])), Alert::ILLEGAL_PARAMETER, "a group twice");
        assert_eq!(
            alert(&|w| {
                empty(w, extension::PRE_SHARED_KEY);
                empty(w, 4_242);
            }),
            Alert::ILLEGAL_PARAMETER,
            "something behind pre_shared_key"
        );
        let versions = |w: &mut Writer, content: &[u8]| {
            w.extension(extension::SUPPORTED_VERSIONS, |w| w.bytes(content));
        };
        for broken in [&[][..], &[0], &[1, 1], &[2, 1], &[2, 0xfe, 0xfc, 0]] {
            assert_eq!(alert(&|w| versions(w, broken)), Alert::DECODE_ERROR, "{broken:?}");
        }
        let mut long = offer(None);
        long.push(0);
        assert_eq!(ClientHello::parse(&long).unwrap_err().alert, Alert::DECODE_ERROR);
    }

    #[test]
    fn a_server_hello_is_read_back() {
        let body = write_server_hello(&[3; 32], 0x1301, (29, &[5; 32]), Some(&[8; 8]));
        let hello = ServerHello::parse(&body).unwrap();
        assert!(!hello.is_retry && hello.has_key_share);
        assert_eq!((hello.suite, hello.group, hello.share), (0x1301, 29, &[5; 32][..]));
        assert_eq!(hello.connection_id, Some(&[8; 8][..]));
        let body = write_hello_retry_request(0x1302, Some(23), Some(b"cookie"));
        let hello = ServerHello::parse(&body).unwrap();
        assert!(hello.is_retry);
        assert_eq!((hello.suite, hello.group, hello.cookie), (0x1302, 23, Some(&b"cookie"[..])));
    }
    /// RFC 8446 §4.1.3, §4.2, §4.2.1.
    #[test]
    fn what_a_server_may_not_say_is_told_apart() {
        type Change<'a> = &'a dyn Fn(&mut Writer) -> &mut Writer;
        let hello = |legacy_version, random: &[u8; 32], extensions: Change<'_>| {
            let mut w = Writer::default();
            w.u16(legacy_version).bytes(random).u8(0).u16(0x1301).u8(0).vec16(|w| extensions(w));
            w.0
        };
        let version = |w: &mut Writer, version| {
            w.extension(extension::SUPPORTED_VERSIONS, |w| w.u16(version));
        };
        let alert = |random: &[u8; 32], change: Change<'_>| {
            ServerHello::parse(&hello(DTLS_1_2, random, change)).err().map(|fatal| fatal.alert)
        };
        let with = |random: &[u8; 32], number| {
            alert(random, &|w| {
                version(w, DTLS_1_3);
                w.extension(number, |w| w)
            })
        };
        // A server of DTLS 1.2 says so by saying nothing, whatever else it says.
        assert_eq!(alert(&[1; 32], &|w| w), Some(Alert::PROTOCOL_VERSION));
        let of_12 = |w: &mut Writer| {
            w.extension(extension::EXTENDED_MASTER_SECRET, |w| w).extension(extension::RENEGOTIATION_INFO, |w| w.u8(0));
        };
        assert_eq!(
            alert(&[1; 32], &|w| {
                of_12(w);
                w
            }),
            Some(Alert::PROTOCOL_VERSION)
        );
        // A version that was not offered, by this way.
        for other in [DTLS_1_2, 0xfefb, 0x0304] {
            let chosen = alert(&[1; 32], &|w| {
                version(w, other);
                w
            });
            assert_eq!(chosen, Some(Alert::ILLEGAL_PARAMETER), "{other:#06x}");
        }
        let legacy = hello(0xfeff, &[1; 32], &|w| {
            version(w, DTLS_1_3);
            w
        });
        assert!(ServerHello::parse(&legacy).is_ok());
        // What our hello has means something elsewhere; the rest was not asked for.
        for (random, number, expected) in [
            (&[1; 32], extension::SUPPORTED_GROUPS, Alert::ILLEGAL_PARAMETER),
            (&[1; 32], extension::COOKIE, Alert::ILLEGAL_PARAMETER),
            (&[1; 32], extension::ALPN, Alert::ILLEGAL_PARAMETER),
            (&RETRY_RANDOM, extension::CONNECTION_ID, Alert::ILLEGAL_PARAMETER),
            (&[1; 32], extension::PRE_SHARED_KEY, Alert::UNSUPPORTED_EXTENSION),
            (&[1; 32], 0x4a4a, Alert::UNSUPPORTED_EXTENSION),
            (&[1; 32], extension::SUPPORTED_VERSIONS, Alert::ILLEGAL_PARAMETER),
            (&[1; 32], extension::KEY_SHARE, Alert::DECODE_ERROR),
        ] {
            assert_eq!(with(random, number), Some(expected), "{number}");
        }
    }
}
