//! The other messages of a handshake (RFC 8446 §4.3–4.6, RFC 9147 §5.8, §7, §9), and the header in front of each (RFC 9147 §5.2).

use rustls_pki_types::CertificateDer;

use super::hello::{Extensions, extension, misplaced, write_protocol};
use super::{Reader, U16List, Writer};
use crate::alert::{Alert, Fatal, fail};
use crate::record::RecordNumber;

/// Bytes of the header of a handshake message's fragment.
pub(crate) const HEADER_BYTES: usize = 12;
/// Certificates of a chain at most.
pub(super) const CHAIN_MAX: usize = 10;
/// Record numbers of an ACK that are looked at: more than any flight has records.
const ACKED_MAX: usize = 256;

/// What a handshake message is (RFC 8446 §4, RFC 6347 §4.3.2, RFC 9147 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MessageType(pub(crate) u8);

impl MessageType {
    pub(crate) const CLIENT_HELLO: Self = Self(1);
    pub(crate) const SERVER_HELLO: Self = Self(2);
    pub(crate) const HELLO_VERIFY_REQUEST: Self = Self(3);
    pub(crate) const NEW_SESSION_TICKET: Self = Self(4);
    pub(crate) const ENCRYPTED_EXTENSIONS: Self = Self(8);
    pub(crate) const REQUEST_CONNECTION_ID: Self = Self(9);
    pub(crate) const NEW_CONNECTION_ID: Self = Self(10);
    pub(crate) const CERTIFICATE: Self = Self(11);
    pub(crate) const SERVER_KEY_EXCHANGE: Self = Self(12);
    pub(crate) const CERTIFICATE_REQUEST: Self = Self(13);
    pub(crate) const SERVER_HELLO_DONE: Self = Self(14);
    pub(crate) const CERTIFICATE_VERIFY: Self = Self(15);
    pub(crate) const CLIENT_KEY_EXCHANGE: Self = Self(16);
    pub(crate) const FINISHED: Self = Self(20);
    pub(crate) const KEY_UPDATE: Self = Self(24);
}

/// One fragment of a message, as it stands in a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fragment<'a> {
    pub(crate) kind: MessageType,
    /// Of the whole message's body.
    pub(crate) length: usize,
    pub(crate) sequence: u16,
    pub(crate) offset: usize,
    pub(crate) bytes: &'a [u8],
}

impl<'a> Fragment<'a> {
    /// Reads the first fragment of a record's content and gives what is behind it. `None` unless it is whole and lies within
    /// its message.
    pub(crate) fn split_first(content: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let mut reader = Reader::new("a fragment", content);
        let kind = MessageType(reader.u8().ok()?);
        let length = reader.u24().ok()?;
        let sequence = reader.u16().ok()?;
        let offset = reader.u24().ok()?;
        let bytes = reader.vec24().ok()?;
        if offset + bytes.len() > length {
            return None;
        }
        Some((Self { kind, length, sequence, offset, bytes }, &content[content.len() - reader.remaining()..]))
    }

    /// Writes the header of the fragment `offset..offset + bytes` of a message.
    pub(crate) fn header(
        kind: MessageType,
        length: usize,
        sequence: u16,
        offset: usize,
        bytes: usize,
    ) -> [u8; HEADER_BYTES] {
        let [_, l2, l1, l0] = (length as u32).to_be_bytes();
        let [s1, s0] = sequence.to_be_bytes();
        let [_, o2, o1, o0] = (offset as u32).to_be_bytes();
        let [_, f2, f1, f0] = (bytes as u32).to_be_bytes();
        [kind.0, l2, l1, l0, s1, s0, o2, o1, o0, f2, f1, f0]
    }
}

/// The body of an EncryptedExtensions that says which protocol is spoken, if any was asked for.
pub(crate) fn write_encrypted_extensions(protocol: Option<&[u8]>) -> Vec<u8> {
    let mut w = Writer::default();
    w.vec16(|w| match protocol {
        Some(protocol) => w.extension(extension::ALPN, |w| write_protocol(w, protocol)),
        None => w,
    });
    w.0
}

/// The body of a CertificateRequest: which signatures we take, and whose certificates.
pub(crate) fn write_certificate_request(schemes: &[u16], authorities: &[Vec<u8>]) -> Vec<u8> {
    let mut w = Writer::default();
    w.u8(0).vec16(|w| {
        w.extension(extension::SIGNATURE_ALGORITHMS, |w| w.vec16(|w| w.u16s(schemes)));
        if authorities.is_empty() {
            return w;
        }
        w.extension(extension::CERTIFICATE_AUTHORITIES, |w| {
            w.vec16(|w| authorities.iter().fold(w, |w, name| w.vec16(|w| w.bytes(name))))
        })
    });
    w.0
}

/// The signatures that a CertificateRequest allows, and its context.
pub(crate) fn parse_certificate_request(body: &[u8]) -> Result<(&[u8], U16List<'_>), Fatal> {
    let mut reader = Reader::new("a CertificateRequest", body);
    let context = reader.vec8()?;
    let mut extensions = Extensions::new(Reader::new("extensions of a CertificateRequest", reader.vec16()?));
    reader.end()?;
    let mut schemes = None;
    while let Some((number, content)) = extensions.next()? {
        match number {
            extension::SIGNATURE_ALGORITHMS => {
                let mut list = Reader::new("signature_algorithms", content);
                schemes = Some(U16List::parse("signature_algorithms", list.vec16()?)?);
                list.end()?;
            }
            extension::SUPPORTED_GROUPS
            | extension::ALPN
            | extension::PADDING
            | extension::SUPPORTED_VERSIONS
            | extension::COOKIE
            | extension::KEY_SHARE
            | extension::CONNECTION_ID => return misplaced(number, "a CertificateRequest"),
            // Others are passed over (RFC 8446 §4.3.2).
            _ => {}
        }
    }
    match schemes {
        Some(schemes) => Ok((context, schemes)),
        None => fail(Alert::MISSING_EXTENSION, "expected signature_algorithms in a CertificateRequest"),
    }
}

/// The protocol that an EncryptedExtensions names.
pub(crate) fn parse_encrypted_extensions(body: &[u8]) -> Result<Option<&[u8]>, Fatal> {
    let mut reader = Reader::new("EncryptedExtensions", body);
    let mut extensions = Extensions::new(Reader::new("EncryptedExtensions", reader.vec16()?));
    reader.end()?;
    let mut protocol = None;
    while let Some((number, content)) = extensions.next()? {
        match number {
            extension::ALPN => {
                let mut list = Reader::new("the chosen protocol", content);
                let mut names = Reader::new("the chosen protocol", list.vec16()?);
                protocol = Some(names.vec8()?);
                names.end()?;
                list.end()?;
            }
            // A server may say which groups it likes.
            extension::SUPPORTED_GROUPS => {}
            number => return misplaced(number, "EncryptedExtensions"),
        }
    }
    Ok(protocol)
}

/// The body of a Certificate: `chain`, the leaf first. The context is empty except in answer to a request that had one.
pub(crate) fn write_certificate(context: &[u8], chain: &[CertificateDer<'_>]) -> Vec<u8> {
    let mut w = Writer::default();
    w.vec8(|w| w.bytes(context));
    w.vec24(|w| chain.iter().fold(w, |w, certificate| w.vec24(|w| w.bytes(certificate)).u16(0)));
    w.0
}

/// The chain of a Certificate, the leaf first; empty where the peer has none.
pub(crate) fn parse_certificate(body: &[u8]) -> Result<Vec<CertificateDer<'static>>, Fatal> {
    let mut reader = Reader::new("a Certificate", body);
    let context = reader.vec8()?;
    let mut list = Reader::new("a list of certificates", reader.vec24()?);
    reader.end()?;
    if !context.is_empty() {
        return fail(Alert::ILLEGAL_PARAMETER, "expected a Certificate without context");
    }
    let mut chain = Vec::new();
    while !list.is_empty() {
        let certificate = list.vec24()?;
        let extensions = list.vec16()?;
        if certificate.is_empty() {
            return fail(Alert::DECODE_ERROR, "an empty certificate");
        }
        if !extensions.is_empty() {
            // We asked for none (RFC 8446 §4.4.2).
            Reader::new("extensions of a certificate", extensions).take(4)?;
            return fail(Alert::UNSUPPORTED_EXTENSION, "an extension of a certificate that was not asked for");
        }
        if chain.len() == CHAIN_MAX {
            return fail(Alert::BAD_CERTIFICATE, format!("expected at most {CHAIN_MAX} certificates"));
        }
        chain.push(CertificateDer::from(certificate.to_vec()));
    }
    Ok(chain)
}

/// The body of a CertificateVerify.
pub(crate) fn write_certificate_verify(scheme: u16, signature: &[u8]) -> Vec<u8> {
    let mut w = Writer::default();
    w.u16(scheme).vec16(|w| w.bytes(signature));
    w.0
}

/// Scheme and signature of a CertificateVerify.
pub(crate) fn parse_certificate_verify(body: &[u8]) -> Result<(u16, &[u8]), Fatal> {
    let mut reader = Reader::new("a CertificateVerify", body);
    let (scheme, signature) = (reader.u16()?, reader.vec16()?);
    reader.end()?;
    Ok((scheme, signature))
}

/// Whether a KeyUpdate asks for one in return (RFC 8446 §4.6.3).
pub(crate) fn parse_key_update(body: &[u8]) -> Result<bool, Fatal> {
    match body {
        [0] => Ok(false),
        [1] => Ok(true),
        [_] => fail(Alert::ILLEGAL_PARAMETER, "expected a KeyUpdate of 0 or 1"),
        _ => fail(Alert::DECODE_ERROR, "a KeyUpdate"),
    }
}

/// The ids of a NewConnectionId, and whether one of them is to be used at once (RFC 9147 §9).
pub(crate) fn parse_new_connection_id(body: &[u8]) -> Result<(Vec<&[u8]>, bool), Fatal> {
    let mut reader = Reader::new("a NewConnectionId", body);
    let mut list = Reader::new("a list of connection ids", reader.vec16()?);
    let usage = reader.u8()?;
    reader.end()?;
    let mut ids = Vec::new();
    while !list.is_empty() {
        ids.push(list.vec8()?);
    }
    match usage {
        0 => Ok((ids, true)),
        1 => Ok((ids, false)),
        _ => fail(Alert::ILLEGAL_PARAMETER, "expected a NewConnectionId of usage 0 or 1"),
    }
}

/// The body of a NewConnectionId with `ids`.
pub(crate) fn write_new_connection_id(ids: &[Vec<u8>], immediate: bool) -> Vec<u8> {
    let mut w = Writer::default();
    w.vec16(|w| ids.iter().fold(w, |w, id| w.vec8(|w| w.bytes(id))));
    w.u8(u8::from(!immediate));
    w.0
}

/// How many ids a RequestConnectionId asks for.
pub(crate) fn parse_request_connection_id(body: &[u8]) -> Result<u8, Fatal> {
    match body {
        [count] => Ok(*count),
        _ => fail(Alert::DECODE_ERROR, "a RequestConnectionId"),
    }
}

/// The content of an ACK (RFC 9147 §7).
pub(crate) fn write_ack(numbers: &[RecordNumber]) -> Vec<u8> {
    let mut w = Writer::default();
    w.vec16(|w| numbers.iter().fold(w, |w, number| w.u64(number.epoch).u64(number.sequence)));
    w.0
}

/// The record numbers of an ACK; those beyond 256 are not looked at.
pub(crate) fn parse_ack(content: &[u8]) -> Result<Vec<RecordNumber>, Fatal> {
    let mut reader = Reader::new("an ACK", content);
    let mut list = Reader::new("an ACK", reader.vec16()?);
    reader.end()?;
    if !list.remaining().is_multiple_of(16) {
        return fail(Alert::DECODE_ERROR, "an ACK");
    }
    let mut numbers = Vec::new();
    while !list.is_empty() && numbers.len() < ACKED_MAX {
        numbers.push(RecordNumber { epoch: list.u64()?, sequence: list.u64()? });
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fragment_lies_within_its_message() {
        let header = Fragment::header(MessageType::FINISHED, 300, 5, 200, 3);
        let content = [&header[..], &[1, 2, 3], &[9]].concat();
        let (fragment, rest) = Fragment::split_first(&content).unwrap();
        assert_eq!((fragment.kind, fragment.length, fragment.sequence), (MessageType::FINISHED, 300, 5));
        assert_eq!((fragment.offset, fragment.bytes, rest), (200, &[1, 2, 3][..], &[9][..]));
        assert!(Fragment::split_first(&content[..14]).is_none(), "cut off");
        let beyond = [&Fragment::header(MessageType::FINISHED, 300, 5, 298, 3)[..], &[1, 2, 3]].concat();
        assert!(Fragment::split_first(&beyond).is_none());
    }

    #[test]
    fn certificates_are_read_back() {
        let chain = [CertificateDer::from(vec![1; 300]), CertificateDer::from(vec![2; 5])];
        let body = write_certificate(&[], &chain);
        assert_eq!(parse_certificate(&body).unwrap(), chain);
        assert_eq!(parse_certificate(&write_certificate(&[], &[])).unwrap(), []);
        assert_eq!(parse_certificate(&write_certificate(&[1], &chain)).unwrap_err().alert, Alert::ILLEGAL_PARAMETER);
        let long = vec![CertificateDer::from(vec![1]); CHAIN_MAX + 1];
        assert_eq!(parse_certificate(&write_certificate(&[], &long)).unwrap_err().alert, Alert::BAD_CERTIFICATE);
        for cut in 0..body.len() {
            assert_eq!(parse_certificate(&body[..cut]).unwrap_err().alert, Alert::DECODE_ERROR);
        }
    }

    #[test]
    fn small_messages_are_exact() {
        assert_eq!(parse_key_update(&[1]), Ok(true));
        assert_eq!(parse_key_update(&[2]).unwrap_err().alert, Alert::ILLEGAL_PARAMETER);
        assert_eq!(parse_key_update(&[0, 0]).unwrap_err().alert, Alert::DECODE_ERROR);
        let numbers = [RecordNumber { epoch: 2, sequence: 7 }, RecordNumber { epoch: 3, sequence: 0 }];
        assert_eq!(parse_ack(&write_ack(&numbers)).unwrap(), numbers);
        assert!(parse_ack(&[0, 15]).is_err() && parse_ack(&[]).is_err());
        let body = write_new_connection_id(&[vec![1, 2], vec![3]], true);
        assert_eq!(parse_new_connection_id(&body).unwrap(), (vec![&[1, 2][..], &[3]], true));
        assert_eq!(parse_encrypted_extensions(&write_encrypted_extensions(Some(b"x"))).unwrap(), Some(&b"x"[..]));
        assert_eq!(parse_encrypted_extensions(&write_encrypted_extensions(None)).unwrap(), None);
        let block = |extensions: &[u8]| [&(extensions.len() as u16).to_be_bytes(), extensions].concat();
        let alpn = [0, 16, 0, 4, 0, 2, 1, b'x'];
        for (extensions, alert) in [
            (&[0, 51, 0, 0][..], Alert::ILLEGAL_PARAMETER),
            (&[0, 43, 0, 2, 0xfe, 0xfc], Alert::ILLEGAL_PARAMETER),
            (&[0, 42, 0, 0], Alert::UNSUPPORTED_EXTENSION),
            (&[alpn, alpn].concat(), Alert::ILLEGAL_PARAMETER),
            (&[0, 51, 0], Alert::DECODE_ERROR),
        ] {
            assert_eq!(parse_encrypted_extensions(&block(extensions)).unwrap_err().alert, alert, "{extensions:?}");
        }
        let schemes = [0, 13, 0, 4, 0, 2, 4, 3];
        let request = |extensions: &[u8]| [&[0][..], &block(extensions)].concat();
        for (extensions, alert) in [
            (&[][..], Alert::MISSING_EXTENSION),
            (&[schemes, schemes].concat(), Alert::ILLEGAL_PARAMETER),
            (&[&schemes[..], &[0, 51, 0, 0]].concat(), Alert::ILLEGAL_PARAMETER),
        ] {
            assert_eq!(parse_certificate_request(&request(extensions)).unwrap_err().alert, alert, "{extensions:?}");
        }
        assert!(parse_certificate_request(&request(&[&schemes[..], &[0x4a, 0x4a, 0, 0]].concat())).is_ok());
        let body = write_certificate_request(&[0x0403], &[vec![0x30, 0]]);
        let (context, schemes) = parse_certificate_request(&body).unwrap();
        assert!(context.is_empty() && schemes.contains(0x0403));
    }
}
