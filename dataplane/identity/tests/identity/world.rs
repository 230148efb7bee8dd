//! An organisation's CA, as the Controller makes it: a root, an intermediate, and leaves under it.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType,
};
use ringfort_identity::{PeerIdentity, Role, Side, Trust, VerifyError};
use ringfort_types::UnixSeconds;
use rustls_pki_types::CertificateDer;

pub(crate) type Certificate = CertificateDer<'static>;

/// 2027-01-15. Everything here is valid from 2027-01-01 to 2027-02-01 unless said otherwise.
pub(crate) const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
pub(crate) const FROM: UnixSeconds = UnixSeconds(1_798_761_600);
pub(crate) const UNTIL: UnixSeconds = UnixSeconds(1_801_440_000);

/// id-kp-jwt (RFC 9509).
pub(crate) fn jwt() -> ExtendedKeyUsagePurpose {
    ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 37])
}

/// A certificate that may issue.
pub(crate) struct Ca {
    pub(crate) certificate: Certificate,
    pub(crate) issuer: Issuer<'static, KeyPair>,
}

pub(crate) fn name(parts: &[(DnType, &str)]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for (kind, value) in parts {
        name.push(kind.clone(), *value);
    }
    name
}

pub(crate) fn params(subject: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(2027, 1, 1);
    params.not_after = rcgen::date_time_ymd(2027, 2, 1);
    params.distinguished_name = name(&[(DnType::CommonName, subject)]);
    params
}

pub(crate) fn ca_params(subject: &str) -> CertificateParams {
    let mut params = params(subject);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

pub(crate) fn root_with(key: KeyPair) -> Ca {
    let params = ca_params("root");
    let certificate = params.self_signed(&key).unwrap().der().clone();
    Ca { certificate, issuer: Issuer::new(params, key) }
}

pub(crate) fn root() -> Ca {
    root_with(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap())
}

impl Ca {
    pub(crate) fn intermediate_with(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = self.issue(&params, &key);
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn intermediate(&self) -> Self {
        self.intermediate_with(ca_params("intermediate"))
    }

    pub(crate) fn issue(&self, params: &CertificateParams, key: &KeyPair) -> Certificate {
        params.signed_by(key, &self.issuer).unwrap().der().clone()
    }

    /// A leaf with a key that nobody needs.
    pub(crate) fn leaf(&self, params: &CertificateParams) -> Certificate {
        self.issue(params, &KeyPair::generate().unwrap())
    }
}

/// One organisation.
pub(crate) struct World {
    pub(crate) root: Ca,
    pub(crate) intermediate: Ca,
    /// Knows the root and the intermediate.
    pub(crate) trust: Trust,
}

pub(crate) fn world() -> World {
    let root = root();
    let intermediate = root.intermediate();
    let trust = Trust::new(&root.certificate, [intermediate.certificate.clone()]).unwrap();
    World { root, intermediate, trust }
}

impl World {
    pub(crate) fn verify(&self, leaf: &Certificate, side: Side, role: Role) -> Result<PeerIdentity, VerifyError> {
        self.trust.verify(leaf, side, role, NOW)
    }
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// A device's leaf as the CA makes it, but for its subject.
pub(crate) fn device() -> CertificateParams {
    leaf_of(Role::Device, "client-1", &[ExtendedKeyUsagePurpose::ClientAuth])
}

pub(crate) fn gateway() -> CertificateParams {
    let both = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    leaf_of(Role::Gateway, "gateway-1", &both)
}

pub(crate) fn leaf_of(role: Role, id: &str, usages: &[ExtendedKeyUsagePurpose]) -> CertificateParams {
    let mut params = params(id);
    params.subject_alt_names = vec![uri(&format!("ringfort://example/{role}/{id}"))];
    params.extended_key_usages = usages.to_vec();
    params
}
