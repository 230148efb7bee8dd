//! Certificates and keys of both ends, made anew for each run, as files (RFC 5280).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason, RevokedCertParams,
    SanType, SerialNumber, SignatureAlgorithm, date_time_ymd,
};

/// What an end shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    P256,
    P384,
    Rsa2048,
    Ed25519,
    /// P-256 under an intermediate, which is sent.
    Intermediate,
    /// The same with three intermediates, more than 10 KiB together.
    Large,
    /// Under a root that the other end does not know.
    WrongCa,
    /// The same, and that root has the name of the known one.
    Impostor,
    Expired,
    /// In the revocation list.
    Revoked,
    /// No certificate.
    Nothing,
}

impl Shown {
    const FILES: [Self; 10] = [
        Self::P256,
        Self::P384,
        Self::Rsa2048,
        Self::Ed25519,
        Self::Intermediate,
        Self::Large,
        Self::WrongCa,
        Self::Impostor,
        Self::Expired,
        Self::Revoked,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::P256 => "p256",
            Self::P384 => "p384",
            Self::Rsa2048 => "rsa2048",
            Self::Ed25519 => "ed25519",
            Self::Intermediate => "intermediate",
            Self::Large => "large",
            Self::WrongCa => "wrong-ca",
            Self::Impostor => "impostor",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Nothing => "nothing",
        }
    }
}

/// The files of one run.
#[derive(Debug)]
pub struct Certificates {
    folder: PathBuf,
}

/// An extension that nobody knows, so that certificates grow.
const PADDING_OID: [u64; 9] = [1, 3, 6, 1, 4, 1, 32473, 1, 1];
const PADDING_BYTES: usize = 3_600;

impl Certificates {
    /// Makes all of them in `folder`, for both ends.
    pub fn make(folder: &Path) -> Result<Self> {
        let root = Authority::root("interop root")?;
        let stranger = Authority::root("another root")?;
        let impostor = Authority::root("interop root")?;
        fs::write(folder.join("ca.pem"), &root.pem)?;
        for end in ["ours", "theirs"] {
            for shown in Shown::FILES {
                let serial = serial(end, shown);
                let issue = |authority: &Authority, algorithm| authority.leaf(end, shown, algorithm, serial.clone());
                let (chain, key) = match shown {
                    Shown::P384 => issue(&root, &rcgen::PKCS_ECDSA_P384_SHA384)?,
                    Shown::Rsa2048 => issue(&root, &rcgen::PKCS_RSA_SHA256)?,
                    Shown::Ed25519 => issue(&root, &rcgen::PKCS_ED25519)?,
                    Shown::Intermediate => {
                        issue(&root.intermediate("intermediate", 0)?, &rcgen::PKCS_ECDSA_P256_SHA256)?
                    }
                    Shown::Large => {
                        let mut authority = root.intermediate("large 1", PADDING_BYTES)?;
                        for name in ["large 2", "large 3"] {
                            authority = authority.intermediate(name, PADDING_BYTES)?;
                        }
                        issue(&authority, &rcgen::PKCS_ECDSA_P256_SHA256)?
                    }
                    Shown::Impostor => issue(&impostor, &rcgen::PKCS_ECDSA_P256_SHA256)?,
                    Shown::WrongCa => issue(&stranger, &rcgen::PKCS_ECDSA_P256_SHA256)?,
                    _ => issue(&root, &rcgen::PKCS_ECDSA_P256_SHA256)?,
                };
                let name = shown.name();
                fs::write(folder.join(format!("{end}-{name}.pem")), chain)?;
                fs::write(folder.join(format!("{end}-{name}.key")), key)?;
            }
        }
        fs::write(folder.join("crl.pem"), root.revoke(serial("theirs", Shown::Revoked))?)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// The root that both ends know.
    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// The root's revocation list.
    pub fn crl(&self) -> PathBuf {
        self.folder.join("crl.pem")
    }

    /// Chain and key of our end; `None` for nothing.
    pub fn ours(&self, shown: Shown) -> Option<(PathBuf, PathBuf)> {
        self.pair("ours", shown)
    }

    /// Chain and key of the other end.
    pub fn theirs(&self, shown: Shown) -> Option<(PathBuf, PathBuf)> {
        self.pair("theirs", shown)
    }

    fn pair(&self, end: &str, shown: Shown) -> Option<(PathBuf, PathBuf)> {
        let file = |kind| self.folder.join(format!("{end}-{}.{kind}", shown.name()));
        (shown != Shown::Nothing).then(|| (file("pem"), file("key")))
    }
}

fn serial(end: &str, shown: Shown) -> SerialNumber {
    SerialNumber::from(vec![if end == "ours" { 1 } else { 2 }, shown as u8 + 1])
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    /// What stands between it and the root, itself included, in PEM.
    above: String,
}

impl Authority {
    fn root(name: &str) -> Result<Self> {
        let (params, key) = (Self::params(name, 0), KeyPair::generate()?);
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem, above: String::new() })
    }

    fn intermediate(&self, name: &str, padding_bytes: usize) -> Result<Self> {
        let (params, key) = (Self::params(name, padding_bytes), KeyPair::generate()?);
        let pem = params.signed_by(&key, &self.issuer)?.pem();
        let above = format!("{pem}{}", self.above);
        Ok(Self { issuer: Issuer::new(params, key), pem, above })
    }

    fn params(name: &str, padding_bytes: usize) -> CertificateParams {
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2099, 1, 1));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        if padding_bytes > 0 {
            // An octet string of that length (X.690 §8.7).
            let [high, low] = (padding_bytes as u16).to_be_bytes();
            let content = [&[0x04, 0x82, high, low], &vec![0x55; padding_bytes][..]].concat();
            params.custom_extensions.push(CustomExtension::from_oid_content(&PADDING_OID, content));
        }
        params
    }

    /// Chain and key, both PEM.
    fn leaf(
        &self,
        end: &str,
        shown: Shown,
        algorithm: &'static SignatureAlgorithm,
        serial: SerialNumber,
    ) -> Result<(String, String)> {
        let key = KeyPair::generate_for(algorithm)?;
        let mut params = CertificateParams::default();
        let last = if shown == Shown::Expired { date_time_ymd(2026, 2, 1) } else { date_time_ymd(2099, 1, 1) };
        (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), last);
        params.serial_number = Some(serial);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name.push(DnType::CommonName, format!("{end} {}", shown.name()));
        params.subject_alt_names =
            vec![SanType::DnsName("localhost".try_into()?), SanType::IpAddress([127, 0, 0, 1].into())];
        let leaf = params.signed_by(&key, &self.issuer)?.pem();
        Ok((format!("{leaf}{}", self.above), key_pem(&key)))
    }

    fn revoke(&self, serial: SerialNumber) -> Result<String> {
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2099, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: serial,
                revocation_time: date_time_ymd(2026, 1, 2),
                reason_code: Some(RevocationReason::KeyCompromise),
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(&self.issuer)?.pem()?)
    }
}

/// A key as PKCS#8. Ed25519 without the public key, which is version 2 and beyond OpenSSL 3.0 (RFC 8410 §7, RFC 5958 §2).
fn key_pem(key: &KeyPair) -> String {
    const V1_HEAD: [u8; 16] =
        [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    let der = key.serialize_der();
    match der.get(16..48) {
        Some(seed) if key.algorithm() == &rcgen::PKCS_ED25519 => pem(&[&V1_HEAD, seed].concat()),
        _ => pem(&der),
    }
}

fn pem(der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN PRIVATE KEY-----\n");
    for line in der.chunks(48) {
        for three in line.chunks(3) {
            let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
            for place in 0..4 {
                let letter = ALPHABET[(bits >> (18 - 6 * place) & 63) as usize];
                text.push(if place <= three.len() { letter.into() } else { '=' });
            }
        }
        text.push('\n');
    }
    text + "-----END PRIVATE KEY-----\n"
}
