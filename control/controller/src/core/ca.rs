//! The organisation's certificate authority: root, intermediate, and every leaf.
//!
//! A leaf is made from parameters of ours. Of a signing request only the public key is taken, after the request's own
//! signature has shown that whoever asks holds it; whatever else the request asks for (names, CA:TRUE, usages) is not looked
//! at (RFC 2986; A2, A8, A9). Its serial number is random (RFC 5280 §4.1.2.2), and it begins a minute ago, for clocks.

use std::time::Duration;

use anyhow::{Context, bail};
use aws_lc_rs::digest;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use ringfort_enrol::file::{INTERMEDIATE, INTERMEDIATE_KEY, ROOT};
use ringfort_identity::{Hostname, KeyThumbprint, Role, RoleUri, SessionDn};
use ringfort_token::SigningKey;
use ringfort_types::UnixSeconds;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::folder::Folder;
use super::refused::Refused;

/// The key that signs tokens, and its certificate.
const SIGNER_KEY: &str = "signer.key";
const SIGNER: &str = "signer.pem";
/// The root's key, which may be kept elsewhere.
const ROOT_KEY: &str = "rootCA.key";

const DAY: u64 = 86_400;
/// Life of the root, in seconds: 10 years.
const ROOT_LIFE: u64 = 3_652 * DAY;
/// Life of the intermediate, in seconds: 1 year.
const INTERMEDIATE_LIFE: u64 = 365 * DAY;
/// Life of the Controller's certificate, in seconds.
const SERVER_LIFE: u64 = 90 * DAY;
/// Life of a Gateway's certificate, in seconds.
pub(crate) const GATEWAY_LIFE: u64 = 7 * DAY;
/// Life of a host's and a Relay's certificate, in seconds: they may be off for weeks, and what they may do is looked up with every
/// request.
const NAMED_LIFE: u64 = 30 * DAY;
/// Life of a program's certificate, in seconds: it is what the program logs in with, which may be away for some weeks.
pub(crate) const SERVICE_LIFE: u64 = 30 * DAY;
/// Life of the signer's certificate, in seconds.
const SIGNER_LIFE: u64 = 365 * DAY;
/// A certificate begins so many seconds before it is made, for clocks that are late.
const BACKDATED_SECONDS: u64 = 60;
/// Longest signing request, in bytes: one by an RSA key of 4,096 bits has some 1,700.
const REQUEST_BYTES_MAX: usize = 8 << 10;
/// UID (RFC 4519 §2.39).
const UID: &[u64] = &[0, 9, 2342, 19_200_300, 100, 1, 1];
/// id-kp-jwt (RFC 9509 §4).
const EKU_JWT: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 37];

/// The CA with its own leaves: the Controller's and the signer's.
pub(crate) struct Authority {
    folder: Folder,
    organisation: String,
    root: CertificateDer<'static>,
    intermediate: CertificateDer<'static>,
    intermediate_until: UnixSeconds,
    issuer: Issuer<'static, KeyPair>,
    server: CertificateDer<'static>,
    server_key: PrivatePkcs8KeyDer<'static>,
    join_key_hash: [u8; 18],
    signer: CertificateDer<'static>,
    signing_key: SigningKey,
}

/// A public key of whoever showed to hold it by a signing request.
pub(crate) struct RequestedKey {
    key: SubjectPublicKeyInfo,
    thumbprint: KeyThumbprint,
}

impl RequestedKey {
    /// The key in a PKCS#10 request (DER).
    ///
    /// # Errors
    /// `request_malformed`: no request, a kind or size of key that is not accepted, or a signature by another key.
    pub(crate) fn from_request(der: &[u8]) -> Result<Self, Refused> {
        let form = || Refused::malformed("expected a certificate signing request (PKCS#10, DER) of at most 8 KiB");
        if der.len() > REQUEST_BYTES_MAX {
            return Err(form());
        }
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| form())?;
        if !rest.is_empty() {
            return Err(form());
        }
        let spki = request.certification_request_info.subject_pki.raw;
        // Before the signature: verifying by a key of any size is work for us.
        let thumbprint = KeyThumbprint::of_spki(spki)?;
        request
            .verify_signature()
            .map_err(|_| Refused::malformed("the signing request is not signed by the key in it: make a new one"))?;
        let key = SubjectPublicKeyInfo::from_der(spki).map_err(|_| form())?;
        Ok(Self { key, thumbprint })
    }

    /// Its thumbprint.
    pub(crate) const fn thumbprint(&self) -> &KeyThumbprint {
        &self.thumbprint
    }
}

impl Authority {
    /// Loads the CA, or makes it in an empty folder. Its leaves, and the intermediate, are renewed when they are past two
    /// thirds of their life; the Controller's also when `names` changed. Keys stay.
    pub(crate) fn open(folder: &Folder, names: &[String], now: UnixSeconds) -> anyhow::Result<Self> {
        let (root, organisation) = root(folder, now)?;
        let intermediate_key = key(folder, INTERMEDIATE_KEY, &rcgen::PKCS_ECDSA_P256_SHA256)?;
        let intermediate = match folder.certificate(INTERMEDIATE)? {
            Some(kept) if !is_due(&kept, now)? => kept,
            kept => match (root_key(folder, &root)?, kept) {
                (Some(root_key), _) => {
                    let made = signed_intermediate(&root, root_key, &organisation, &intermediate_key, now)?;
                    folder.write(INTERMEDIATE, pem_of(&made).as_bytes())?;
                    made
                }
                (None, Some(kept)) if now < validity(&kept)?.1 => {
                    tracing::warn!(
                        "the intermediate is to be renewed: put rootCA.key back into the state folder and start anew"
                    );
                    kept
                }
                (None, _) => {
                    bail!("expected rootCA.key in the state folder, since the intermediate is over: put it back")
                }
            },
        };
        let intermediate_until = validity(&intermediate)?.1;
        let intermediate_key_spki = intermediate_key.subject_public_key_info();
        let issuer = Issuer::from_ca_cert_der(&intermediate, intermediate_key).context("read intermediate.pem")?;

        let server_key = key(folder, "https.key", &rcgen::PKCS_ECDSA_P256_SHA256)?;
        let signer_key = signer_key(folder)?;
        anyhow::ensure!(
            X509Certificate::from_der(&intermediate).context("read intermediate.pem")?.1.public_key().raw
                == intermediate_key_spki,
            "expected intermediate.key to be the key of intermediate.pem: restore both from the same backup"
        );
        let signing_key = SigningKey::from_pkcs8(signer_key.secret_pkcs8_der())?;
        let spki = server_key.subject_public_key_info();
        let mut join_key_hash = [0; 18];
        join_key_hash.copy_from_slice(&digest::digest(&digest::SHA256, &spki).as_ref()[..18]);
        let mut authority = Self {
            folder: folder.clone(),
            organisation,
            root,
            intermediate,
            intermediate_until,
            issuer,
            server: CertificateDer::from(Vec::new()),
            server_key: PrivatePkcs8KeyDer::from(server_key.serialized_der().to_vec()),
            join_key_hash,
            signer: CertificateDer::from(Vec::new()),
            signing_key,
        };
        authority.server = authority.own_server(folder, &server_key, names, now)?;
        authority.signer = authority.own_signer(folder, now)?;
        Ok(authority)
    }

    /// The same CA, with certificates anew that are due.
    pub(crate) fn renewed(&self, names: &[String], now: UnixSeconds) -> anyhow::Result<Self> {
        Self::open(&self.folder, names, now)
    }

    /// The organisation's id: the root's O.
    pub(crate) fn organisation(&self) -> &str {
        &self.organisation
    }

    pub(crate) const fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    pub(crate) const fn intermediate(&self) -> &CertificateDer<'static> {
        &self.intermediate
    }

    pub(crate) const fn signer(&self) -> &CertificateDer<'static> {
        &self.signer
    }

    pub(crate) const fn signing_key(&self) -> &SigningKey {
        &self.signing_key
    }

    pub(crate) const fn join_key_hash(&self) -> [u8; 18] {
        self.join_key_hash
    }

    /// The Controller's chain with the root, and its key.
    pub(crate) fn server_credentials(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = vec![self.server.clone(), self.intermediate.clone(), self.root.clone()];
        (chain, PrivateKeyDer::Pkcs8(self.server_key.clone_key()))
    }

    /// A Gateway's certificate.
    pub(crate) fn gateway(
        &self,
        id: &str,
        key: &RequestedKey,
        now: UnixSeconds,
    ) -> Result<CertificateDer<'static>, Refused> {
        let uri = RoleUri::new(&self.organisation, Role::Gateway, id)?;
        let mut params = self.leaf_params(&uri, now, now + Duration::from_secs(GATEWAY_LIFE))?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name.push(DnType::CommonName, id);
        Ok(params.signed_by(&key.key, &self.issuer)?.der().clone())
    }

    /// A host's certificate: its common name is the hostname (W6), which is a DNS name in it as well.
    pub(crate) fn host(
        &self,
        hostname: &Hostname,
        key: &RequestedKey,
        now: UnixSeconds,
    ) -> Result<CertificateDer<'static>, Refused> {
        self.named(Role::Host, hostname, key, now)
    }

    /// A Relay's certificate: a server's, by its FQDN (C9), which is its id.
    pub(crate) fn relay(
        &self,
        fqdn: &Hostname,
        key: &RequestedKey,
        now: UnixSeconds,
    ) -> Result<CertificateDer<'static>, Refused> {
        self.named(Role::Relay, fqdn, key, now)
    }

    /// A certificate for a role whose ids are DNS names.
    fn named(
        &self,
        role: Role,
        name: &Hostname,
        key: &RequestedKey,
        now: UnixSeconds,
    ) -> Result<CertificateDer<'static>, Refused> {
        let uri = RoleUri::new(&self.organisation, role, name.as_str())?;
        let mut params = self.leaf_params(&uri, now, now + Duration::from_secs(NAMED_LIFE))?;
        params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name.push(DnType::CommonName, name.as_str());
        Ok(params.signed_by(&key.key, &self.issuer)?.der().clone())
    }

    /// A device's certificate: its subject is the session's name (A5, A9). A person's ends with the claims token.
    pub(crate) fn device(
        &self,
        session: &SessionDn,
        key: &RequestedKey,
        until: UnixSeconds,
        now: UnixSeconds,
    ) -> Result<CertificateDer<'static>, Refused> {
        let uri = RoleUri::new(&self.organisation, Role::Device, session.client())?;
        let mut params = self.leaf_params(&uri, now, until)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name.push(DnType::CommonName, session.user());
        params.distinguished_name.push(DnType::CustomDnType(UID.to_vec()), session.client());
        Ok(params.signed_by(&key.key, &self.issuer)?.der().clone())
    }

    /// Whether the root's key is in the state folder, which another Controller's intermediate needs.
    pub(crate) fn has_root_key(&self) -> bool {
        self.folder.key_path(ROOT_KEY).exists()
    }

    /// The intermediate of another Controller, whose key stays where it is.
    ///
    /// # Errors
    /// `root_key_absent`.
    pub(crate) fn intermediate_of(
        &self,
        key: &RequestedKey,
        now: UnixSeconds,
    ) -> Result<CertificateDer<'static>, Refused> {
        let root_key = root_key(&self.folder, &self.root).map_err(Refused::internal)?;
        let root_key = root_key.ok_or_else(Refused::root_key_absent)?;
        signed_intermediate(&self.root, root_key, &self.organisation, &key.key, now).map_err(Refused::internal)
    }

    /// The Controller's certificate: the one that is kept, or a new one by the same key.
    fn own_server(
        &self,
        folder: &Folder,
        key: &KeyPair,
        names: &[String],
        now: UnixSeconds,
    ) -> anyhow::Result<CertificateDer<'static>> {
        let mut wanted =
            CertificateParams::new(names).context("names of the Controller's certificate")?.subject_alt_names;
        wanted.sort_by_key(|name| format!("{name:?}"));
        let same_names = |certificate: &X509Certificate<'_>| names_of(certificate).is_some_and(|found| found == wanted);
        if let Some(kept) = kept(folder, "https.pem", key, now, same_names)? {
            return Ok(kept);
        }
        let id = uuid::Uuid::new_v4().to_string();
        let uri = RoleUri::new(&self.organisation, Role::Controller, &id)?;
        let mut params = self.leaf_params(&uri, now, now + Duration::from_secs(SERVER_LIFE))?;
        params.subject_alt_names.extend(wanted);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name.push(DnType::CommonName, id);
        let made = params.signed_by(key, &self.issuer).context("make the Controller's certificate")?;
        folder.write("https.pem", made.pem().as_bytes())?;
        Ok(made.der().clone())
    }

    /// The signer's certificate, likewise.
    fn own_signer(&self, folder: &Folder, now: UnixSeconds) -> anyhow::Result<CertificateDer<'static>> {
        let key = SubjectPublicKeyInfo::from_der(self.signing_key.public_key()).context("read signer.key")?;
        if let Some(kept) = kept(folder, SIGNER, &key, now, |_| true)? {
            return Ok(kept);
        }
        let uri = RoleUri::new(&self.organisation, Role::Signer, self.signing_key.id())?;
        let mut params = self.leaf_params(&uri, now, now + Duration::from_secs(SIGNER_LIFE))?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(EKU_JWT.to_vec())];
        params.distinguished_name.push(DnType::CommonName, self.signing_key.id());
        let made = params.signed_by(&key, &self.issuer).context("make the signer's certificate")?;
        folder.write(SIGNER, made.pem().as_bytes())?;
        Ok(made.der().clone())
    }

    /// What all leaves have; the caller adds usages and the rest of the subject. It ends with the intermediate at the
    /// latest.
    fn leaf_params(&self, uri: &RoleUri, now: UnixSeconds, until: UnixSeconds) -> Result<CertificateParams, Refused> {
        let mut params = CertificateParams::default();
        set_validity(&mut params, now, until.min(self.intermediate_until));
        params.serial_number = Some(serial()?);
        params.subject_alt_names = vec![SanType::URI(uri.to_string().try_into()?)];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, self.organisation.as_str());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

/// The root and the organisation's id, made in an empty folder.
fn root(folder: &Folder, now: UnixSeconds) -> anyhow::Result<(CertificateDer<'static>, String)> {
    if let Some(root) = folder.certificate(ROOT)? {
        let (_, parsed) = X509Certificate::from_der(&root).context("read rootCA.pem")?;
        let organisation = parsed.subject().iter_organization().next().and_then(|name| name.as_str().ok());
        let organisation = organisation.context("expected an organisation in the subject of rootCA.pem")?.to_owned();
        return Ok((root, organisation));
    }
    let key = key(folder, ROOT_KEY, &rcgen::PKCS_ECDSA_P384_SHA384)?;
    let organisation = uuid::Uuid::new_v4().to_string();
    let params = ca_params(&organisation, "Ringfort root", 1, now, ROOT_LIFE)?;
    let made = params.self_signed(&key).context("make the root")?;
    folder.write(ROOT, made.pem().as_bytes())?;
    Ok((made.der().clone(), organisation))
}

/// The root's key, if it is in the folder: it may be kept elsewhere.
fn root_key(folder: &Folder, root: &CertificateDer<'_>) -> anyhow::Result<Option<KeyPair>> {
    let Some(der) = folder.key(ROOT_KEY)? else { return Ok(None) };
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ECDSA_P384_SHA384).context("read rootCA.key")?;
    let (_, parsed) = X509Certificate::from_der(root).context("read rootCA.pem")?;
    if parsed.public_key().raw != key.subject_public_key_info() {
        bail!("expected rootCA.key to be the key of rootCA.pem: restore both from the same backup");
    }
    Ok(Some(key))
}

/// An intermediate by `key`, signed by the root.
fn signed_intermediate(
    root: &CertificateDer<'_>,
    root_key: KeyPair,
    organisation: &str,
    key: &impl PublicKeyData,
    now: UnixSeconds,
) -> anyhow::Result<CertificateDer<'static>> {
    let root = Issuer::from_ca_cert_der(root, root_key).context("read rootCA.pem")?;
    let mut params = ca_params(organisation, "Ringfort intermediate", 0, now, INTERMEDIATE_LIFE)?;
    params.use_authority_key_identifier_extension = true;
    // What its leaves may be for. A usage that is required of a leaf is required of its issuer as well.
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::Other(EKU_JWT.to_vec()),
    ];
    Ok(params.signed_by(key, &root).context("make the intermediate")?.der().clone())
}

fn pem_of(certificate: &CertificateDer<'_>) -> String {
    pem::encode(&pem::Pem::new("CERTIFICATE", certificate.to_vec()))
}

fn ca_params(
    organisation: &str,
    name: &str,
    path: u8,
    now: UnixSeconds,
    life: u64,
) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::default();
    set_validity(&mut params, now, now + Duration::from_secs(life));
    params.serial_number = Some(serial()?);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, organisation);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// A key of ours, made at the first start.
fn key(folder: &Folder, name: &str, algorithm: &'static rcgen::SignatureAlgorithm) -> anyhow::Result<KeyPair> {
    if let Some(der) = folder.key(name)? {
        return KeyPair::from_pkcs8_der_and_sign_algo(&der, algorithm).with_context(|| format!("read {name}"));
    }
    // One that is a credential of the service is missing where the Controller is started in another way; another key would be another
    // Controller.
    let certificate = name.replace(".key", ".pem");
    if folder.path(&certificate).exists() {
        bail!(
            "expected {name} beside {certificate}, in {} or with the service's credentials: put it back from where it is kept",
            folder.path("").display()
        );
    }
    let made = KeyPair::generate_for(algorithm).with_context(|| format!("make {name}"))?;
    folder.write(name, zeroize::Zeroizing::new(made.serialize_pem()).as_bytes())?;
    Ok(made)
}

/// The key that signs tokens.
fn signer_key(folder: &Folder) -> anyhow::Result<PrivatePkcs8KeyDer<'static>> {
    // rcgen makes Ed25519 keys with aws-lc-rs and writes them as PKCS#8, which is what the signing key reads.
    let pair = key(folder, SIGNER_KEY, &rcgen::PKCS_ED25519)?;
    Ok(PrivatePkcs8KeyDer::from(pair.serialized_der().to_vec()))
}

/// Forgets the key that signs tokens, so that the next one to open the folder makes another: what was signed before is nobody's word.
pub(super) fn forget_signer(folder: &Folder) -> anyhow::Result<()> {
    folder.remove(SIGNER)?;
    folder.remove(SIGNER_KEY)
}

/// The certificate in a file, if it is of `key`, `fits`, and has a third of its life before it.
fn kept(
    folder: &Folder,
    name: &str,
    key: &impl PublicKeyData,
    now: UnixSeconds,
    fits: impl Fn(&X509Certificate<'_>) -> bool,
) -> anyhow::Result<Option<CertificateDer<'static>>> {
    let Some(certificate) = folder.certificate(name)? else { return Ok(None) };
    let (_, parsed) = X509Certificate::from_der(&certificate).with_context(|| format!("read {name}"))?;
    if parsed.public_key().raw != key.subject_public_key_info() || !fits(&parsed) {
        return Ok(None);
    }
    Ok((!is_due(&certificate, now)?).then_some(certificate))
}

/// Whether a certificate of ours is to be renewed: a third of its life is left.
fn is_due(certificate: &CertificateDer<'_>, now: UnixSeconds) -> anyhow::Result<bool> {
    let (from, until) = validity(certificate)?;
    let renew_at = from.0.saturating_add(until.0.saturating_sub(from.0) / 3 * 2);
    Ok(now < from || renew_at <= now.0)
}

/// From when to when a certificate of ours is good.
pub(crate) fn validity(certificate: &CertificateDer<'_>) -> anyhow::Result<(UnixSeconds, UnixSeconds)> {
    let (_, parsed) = X509Certificate::from_der(certificate).context("read our own certificate")?;
    let seconds = |at: x509_parser::time::ASN1Time| UnixSeconds(u64::try_from(at.timestamp()).unwrap_or_default());
    Ok((seconds(parsed.validity().not_before), seconds(parsed.validity().not_after)))
}

/// DNS names and addresses in a certificate of ours, in the order in which they are compared.
fn names_of(certificate: &X509Certificate<'_>) -> Option<Vec<SanType>> {
    use x509_parser::extensions::GeneralName;
    let names = &certificate.subject_alternative_name().ok()??.value.general_names;
    let mut found = Vec::new();
    for name in names {
        match name {
            GeneralName::DNSName(name) => found.push(SanType::DnsName((*name).try_into().ok()?)),
            GeneralName::IPAddress(bytes) => {
                let address = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
                let address = address.or_else(|_| <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from));
                found.push(SanType::IpAddress(address.ok()?));
            }
            _ => {}
        }
    }
    found.sort_by_key(|name| format!("{name:?}"));
    Some(found)
}

fn serial() -> Result<SerialNumber, Refused> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Refused::internal("no randomness"))?;
    // Positive and never shortened, so that its hexadecimal form is one.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn set_validity(params: &mut CertificateParams, now: UnixSeconds, until: UnixSeconds) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + UnixSeconds(now.0.saturating_sub(BACKDATED_SECONDS)).since_epoch();
    params.not_after = epoch + until.since_epoch();
}
