//! Messages that DTLS 1.2 has alone, or in a form of its own (RFC 5246 §7.4, RFC 8422 §5, RFC 6347 §4.2.1).

use rustls_pki_types::CertificateDer;

use super::hello::{DTLS_1_2, extension, write_protocol};
use super::messages::CHAIN_MAX;
use super::{Reader, Writer};
use crate::alert::{Alert, Fatal, fail};
use crate::record::Version;

/// `ecdsa_sign`, which stands for Ed25519 too, and `rsa_sign` (RFC 8422 §5.5, RFC 5246 §7.4.4).
const CERTIFICATE_TYPES: [u8; 2] = [64, 1];
/// `named_curve` (RFC 8422 §5.4).
const NAMED_CURVE: u8 = 3;
/// The one form of points (RFC 8422 §5.1.2).
pub(crate) const UNCOMPRESSED: u8 = 0;

/// The body of a HelloVerifyRequest. It says DTLS 1.0, which is about its own form only (RFC 6347 §4.2.1).
pub(crate) fn write_hello_verify_request(cookie: &[u8]) -> Vec<u8> {
    let mut w = Writer::default();
    w.bytes(&Version::DTLS_1_0.0).vec8(|w| w.bytes(cookie));
    w.0
}

/// What a ServerHello of DTLS 1.2 says.
#[derive(Debug)]
pub(crate) struct ServerHello12<'a> {
    pub(crate) random: &'a [u8; 32],
    pub(crate) suite: u16,
    /// Whether the client has asked by the extension or the suite that stands for it (RFC 5746 §3.6).
    pub(crate) renegotiation_info: bool,
    pub(crate) point_formats: bool,
    pub(crate) protocol: Option<&'a [u8]>,
    pub(crate) connection_id: Option<&'a [u8]>,
}

impl ServerHello12<'_> {
    /// The body of the ServerHello. It has no session id, as nothing is resumed.
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.u16(DTLS_1_2).bytes(self.random).u8(0).u16(self.suite).u8(0);
        w.vec16(|w| {
            w.extension(extension::EXTENDED_MASTER_SECRET, |w| w);
            if self.renegotiation_info {
                w.extension(extension::RENEGOTIATION_INFO, |w| w.u8(0));
            }
            if self.point_formats {
                w.extension(extension::EC_POINT_FORMATS, |w| w.vec8(|w| w.u8(UNCOMPRESSED)));
            }
            if let Some(protocol) = self.protocol {
                w.extension(extension::ALPN, |w| write_protocol(w, protocol));
            }
            if let Some(id) = self.connection_id {
                w.extension(extension::CONNECTION_ID, |w| w.vec8(|w| w.bytes(id)));
            }
            w
        });
        w.0
    }
}

/// The body of a Certificate: `chain`, the leaf first.
pub(crate) fn write_certificate_12(chain: &[CertificateDer<'_>]) -> Vec<u8> {
    let mut w = Writer::default();
    w.vec24(|w| chain.iter().fold(w, |w, certificate| w.vec24(|w| w.bytes(certificate))));
    w.0
}

/// The chain of a Certificate, the leaf first; empty where the peer has none.
pub(crate) fn parse_certificate_12(body: &[u8]) -> Result<Vec<CertificateDer<'static>>, Fatal> {
    let mut reader = Reader::new("a Certificate", body);
    let mut list = Reader::new("a list of certificates", reader.vec24()?);
    reader.end()?;
    let mut chain = Vec::new();
    while !list.is_empty() {
        let certificate = list.vec24()?;
        if certificate.is_empty() {
            return fail(Alert::DECODE_ERROR, "an empty certificate");
        }
        if chain.len() == CHAIN_MAX {
            return fail(Alert::BAD_CERTIFICATE, format!("expected at most {CHAIN_MAX} certificates"));
        }
        chain.push(CertificateDer::from(certificate.to_vec()));
    }
    Ok(chain)
}

/// The parameters of a ServerKeyExchange, which are signed: the group and our public value.
pub(crate) fn write_key_exchange_parameters(group: u16, public: &[u8]) -> Vec<u8> {
    let mut w = Writer::default();
    w.u8(NAMED_CURVE).u16(group).vec8(|w| w.bytes(public));
    w.0
}

/// The body of a ServerKeyExchange.
pub(crate) fn write_server_key_exchange(parameters: &[u8], scheme: u16, signature: &[u8]) -> Vec<u8> {
    let mut w = Writer::default();
    w.bytes(parameters).u16(scheme).vec16(|w| w.bytes(signature));
    w.0
}

/// The body of a CertificateRequest: which signatures we take, and whose certificates.
pub(crate) fn write_certificate_request_12(schemes: &[u16], authorities: &[Vec<u8>]) -> Vec<u8> {
    let mut w = Writer::default();
    w.vec8(|w| w.bytes(&CERTIFICATE_TYPES));
    w.vec16(|w| w.u16s(schemes));
    w.vec16(|w| authorities.iter().fold(w, |w, name| w.vec16(|w| w.bytes(name))));
    w.0
}

/// The public value of a ClientKeyExchange.
pub(crate) fn parse_client_key_exchange(body: &[u8]) -> Result<&[u8], Fatal> {
    let mut reader = Reader::new("a ClientKeyExchange", body);
    let public = reader.vec8()?;
    reader.end()?;
    Ok(public)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_read_back() {
        let chain = [CertificateDer::from(vec![1; 300]), CertificateDer::from(vec![2; 5])];
        let body = write_certificate_12(&chain);
        assert_eq!(parse_certificate_12(&body).unwrap(), chain);
        assert_eq!(parse_certificate_12(&write_certificate_12(&[])).unwrap(), []);
        let long = vec![CertificateDer::from(vec![1]); CHAIN_MAX + 1];
        assert_eq!(parse_certificate_12(&write_certificate_12(&long)).unwrap_err().alert, Alert::BAD_CERTIFICATE);
        let empty = [CertificateDer::from(vec![])];
        assert_eq!(parse_certificate_12(&write_certificate_12(&empty)).unwrap_err().alert, Alert::DECODE_ERROR);
        for cut in 0..body.len() {
            assert_eq!(parse_certificate_12(&body[..cut]).unwrap_err().alert, Alert::DECODE_ERROR);
        }
    }

    #[test]
    fn a_key_exchange_is_exact() {
        assert_eq!(parse_client_key_exchange(&[2, 4, 5]).unwrap(), [4, 5]);
        for wrong in [&[][..], &[2, 4], &[2, 4, 5, 6]] {
            assert_eq!(parse_client_key_exchange(wrong).unwrap_err().alert, Alert::DECODE_ERROR);
        }
    }

    #[test]
    fn a_server_hello_says_what_was_asked_for_and_no_more() {
        let hello = |all: bool| ServerHello12 {
            random: &[7; 32],
            suite: 0xc02b,
            renegotiation_info: all,
            point_formats: all,
            protocol: all.then_some(&b"x"[..]),
            connection_id: all.then_some(&[1, 2]),
        };
        let start = [&[0xfe, 0xfd][..], &[7; 32], &[0, 0xc0, 0x2b, 0]].concat();
        assert_eq!(hello(false).write(), [&start[..], &[0, 4, 0, 23, 0, 0]].concat());
        let extensions = [
            &[0, 30, 0, 23, 0, 0][..],
            &[0xff, 1, 0, 1, 0],
            &[0, 11, 0, 2, 1, 0],
            &[0, 16, 0, 4, 0, 2, 1, b'x'],
            &[0, 54, 0, 3, 2, 1, 2],
        ];
        let written = hello(true).write();
        assert_eq!(written, [&start[..], &extensions.concat()].concat());
    }
}
