//! The cases, and what is expected of each.

use crate::certificates::Shown;
use crate::peers::{Ours, Version};
use crate::proxy::Weather;

/// What is done beside an echo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    None,
    /// Our server asks for no cookie.
    NoCookie,
    /// Both ends have a connection id of their own.
    ConnectionId,
    /// New keys after each packet, on both sides.
    KeyUpdate,
    /// Both ends derive the same value.
    Exporter,
    /// They speak both versions, and we all that we can.
    BothVersions,
}

/// What a client of DTLS 1.2 may be left with that our server refuses (RFC 9325).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obsolete {
    /// No extended master secret (RFC 7627).
    PlainMasterSecret,
    /// Suites in CBC mode only.
    Cbc,
    /// Key exchange by RSA encryption only.
    StaticRsa,
    /// DTLS 1.0 only.
    Dtls10,
}

/// What must come of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Packets go to and fro.
    Echo,
    /// We refuse, say so by this alert, and name this reason.
    WeRefuse { alert: u8, reason: &'static str },
    /// The other end refuses, and we hear of it.
    TheyRefuse,
}

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: &'static str,
    pub what: &'static str,
    pub ours: Shown,
    pub theirs: Shown,
    pub expected: Expected,
    pub special: Special,
    pub weather: Option<Weather>,
    pub mtu: Option<u16>,
    pub group: Option<&'static str>,
    pub suite: Option<&'static str>,
    pub obsolete: Option<Obsolete>,
}

const fn case(name: &'static str, what: &'static str) -> Case {
    Case {
        name,
        what,
        ours: Shown::P256,
        theirs: Shown::P256,
        expected: Expected::Echo,
        special: Special::None,
        weather: None,
        mtu: None,
        group: None,
        suite: None,
        obsolete: None,
    }
}

const fn shown(shown: Shown, case: Case) -> Case {
    Case { ours: shown, theirs: shown, ..case }
}

const fn refused(theirs: Shown, alert: u8, reason: &'static str, case: Case) -> Case {
    Case { theirs, expected: Expected::WeRefuse { alert, reason }, ..case }
}

const fn obsolete(obsolete: Obsolete, alert: u8, reason: &'static str, case: Case) -> Case {
    Case { obsolete: Some(obsolete), expected: Expected::WeRefuse { alert, reason }, ..case }
}

const fn lossy(seed: u64, case: Case) -> Case {
    let weather = Weather { seed, loss_percent: 20, double_percent: 10, delay_percent: 30, datagram_bytes_max: 65_535 };
    Case { weather: Some(weather), ..case }
}

/// Longest datagram of the narrow path.
const NARROW_BYTES: u16 = 300;

const fn narrow(case: Case) -> Case {
    let weather = Weather {
        seed: 1,
        loss_percent: 0,
        double_percent: 0,
        delay_percent: 0,
        datagram_bytes_max: NARROW_BYTES as usize,
    };
    Case { weather: Some(weather), mtu: Some(NARROW_BYTES), group: Some("x25519"), special: Special::NoCookie, ..case }
}

/// All cases, in the order of the table. Both ends show certificates in all of them.
pub fn cases() -> Vec<Case> {
    vec![
        shown(Shown::P256, case("p256", "ECDSA P-256 on both sides")),
        shown(Shown::P384, case("p384", "ECDSA P-384 on both sides")),
        shown(Shown::Rsa2048, case("rsa2048", "RSA with 2,048 bits on both sides")),
        shown(Shown::Ed25519, case("ed25519", "Ed25519 on both sides")),
        shown(Shown::Intermediate, case("chain", "an intermediate on both sides, which is sent")),
        refused(Shown::WrongCa, 48, "UnknownIssuer", case("wrong-ca", "theirs is under another root")),
        refused(
            Shown::Impostor,
            42,
            "InvalidSignatureForPublicKey",
            case("impostor-ca", "theirs is under another root that has the name of the right one"),
        ),
        refused(Shown::Expired, 45, "CertExpired", case("expired", "theirs has expired")),
        refused(Shown::Revoked, 44, "CertRevoked", case("revoked", "theirs is in the revocation list")),
        refused(
            Shown::Nothing,
            116,
            "certificate|handshake_failure",
            case("no-certificate", "they show none and must"),
        ),
        Case {
            ours: Shown::WrongCa,
            expected: Expected::TheyRefuse,
            ..case("distrusted", "ours is under a root that they do not know")
        },
        lossy(1, case("loss-1", "20 % lost, 10 % doubled, 30 % late by 20 to 80 ms; seed 1")),
        lossy(2, case("loss-2", "the same; seed 2")),
        lossy(3, shown(Shown::Intermediate, case("loss-3", "the same with intermediates; seed 3"))),
        narrow(shown(
            Shown::Intermediate,
            case("mtu-300", "no datagram above 300 bytes arrives; intermediates, no cookie"),
        )),
        shown(Shown::Large, case("chain-10k", "three intermediates, more than 10 KiB, on both sides")),
        Case { group: Some("x25519mlkem768"), ..case("x25519mlkem768", "only this group") },
        Case {
            group: Some("x25519mlkem768"),
            mtu: Some(1_200),
            special: Special::NoCookie,
            ..case(
                "split-hello",
                "the same in datagrams of 1,200 bytes, which hold no hello with a share of it; no cookie",
            )
        },
        Case { group: Some("x25519"), ..case("x25519", "only this group") },
        Case { group: Some("p256"), ..case("group-p256", "only this group") },
        Case { group: Some("p384"), ..case("group-p384", "only this group") },
        Case { suite: Some("aes256"), ..case("aes256", "only AES-256-GCM with SHA-384") },
        Case { suite: Some("chacha20"), ..case("chacha20", "only ChaCha20-Poly1305") },
        Case { special: Special::NoCookie, ..case("no-cookie", "our server asks for no cookie") },
        Case { special: Special::BothVersions, ..case("both-versions", "they offer 1.2 too; the newer one is taken") },
        Case { special: Special::KeyUpdate, ..case("key-update", "new keys after each packet, six times") },
        Case { special: Special::Exporter, ..case("exporter", "both export the same value") },
        Case { special: Special::ConnectionId, ..case("cid", "connection ids both ways, 8 bytes and 4") },
        obsolete(
            Obsolete::PlainMasterSecret,
            40,
            "handshake_failure",
            case("plain-master", "they offer no extended master secret"),
        ),
        obsolete(Obsolete::Cbc, 40, "handshake_failure", case("cbc", "they offer suites in CBC mode only")),
        obsolete(
            Obsolete::StaticRsa,
            40,
            "handshake_failure",
            shown(Shown::Rsa2048, case("static-rsa", "they offer key exchange by RSA encryption only")),
        ),
        obsolete(Obsolete::Dtls10, 70, "protocol_version", case("dtls-1.0", "they offer DTLS 1.0 only")),
    ]
}

/// The halves of the table: version, and which side is ours.
pub const HALVES: [(Version, Ours); 3] =
    [(Version::V13, Ours::Server), (Version::V13, Ours::Client), (Version::V12, Ours::Server)];
