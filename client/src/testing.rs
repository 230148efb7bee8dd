//! An organisation for tests: its CA, its key for tokens, and two ends of a tunnel.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ED25519, PublicKeyData, SanType,
};
use ringfort_dtls::{Association, ClientConfig, ExporterSecret, Opening, ServerConfig};
use ringfort_enrol::{Identity, Kind, PrivateKey, wall_clock};
use ringfort_identity::{Credentials, KeyThumbprint, Trust};
use ringfort_token::{
    ClaimsToken, Confirmation, ConnectSite, ConnectToken, EntitlementToken, Grant, InnerAddresses, SigningKey, Token,
    audience,
};
use ringfort_types::{BootInstant, UnixSeconds};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::tokens::Judge;

pub(crate) const ORGANISATION: &str = "example";
pub(crate) const DN: &str = "UID=c1,CN=u1,O=example";

/// id-kp-jwt (RFC 9509).
const JWT: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 3, 37];

pub(crate) struct Organisation {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) root: CertificateDer<'static>,
    pub(crate) trust: Trust,
    signing: SigningKey,
    pub(crate) signer: CertificateDer<'static>,
    /// The device's key.
    pub(crate) key: PrivateKey,
}

impl Organisation {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let trust = Trust::new(certificate.der(), []).unwrap();
        let issuer = Issuer::new(params, key);
        let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let signer =
            leaf(&issuer, &pair, "ringfort://example/signer/s1", &[], ExtendedKeyUsagePurpose::Other(JWT.into()));
        let signing = SigningKey::from_pkcs8(&pair.serialize_der()).unwrap();
        let root = certificate.der().clone();
        Self { issuer, root, trust, signing, signer, key: PrivateKey::generate().unwrap() }
    }

    pub(crate) fn identity() -> Identity {
        Identity {
            organisation: ORGANISATION.into(),
            kind: Kind::Device,
            id: "c1".into(),
            site: String::new(),
            user: "alice".into(),
            controllers: vec!["192.0.2.1:443".into()],
        }
    }

    pub(crate) fn judge(&self) -> Judge {
        let holder = self.key.thumbprint().unwrap();
        Judge::new(&Self::identity(), holder, self.trust.clone(), std::slice::from_ref(&self.signer), wall_clock())
            .unwrap()
    }

    pub(crate) fn sign<T: Token>(&self, token: &T) -> String {
        self.signing.sign(token).unwrap().as_str().to_owned()
    }

    fn holder(&self) -> Confirmation {
        Confirmation { jkt: self.key.thumbprint().unwrap() }
    }

    pub(crate) fn claims(&self) -> ClaimsToken {
        let now = wall_clock();
        ClaimsToken {
            iss: ORGANISATION.into(),
            sub: DN.into(),
            aud: vec![audience::controller(ORGANISATION)],
            jti: "claims".into(),
            iat: now,
            nbf: now,
            exp: now + Duration::from_secs(12 * 3_600),
            cnf: self.holder(),
            user: "u1".into(),
            generation: 1,
            name: "Alice".into(),
            groups: Vec::new(),
            auth_time: now,
        }
    }

    pub(crate) fn entitlement(&self, site: &str, seq: u64) -> EntitlementToken {
        let now = wall_clock();
        let grant = Grant { name: "wiki".into(), to: vec!["10.98.0.10".into()], services: vec!["tcp/80".into()] };
        EntitlementToken {
            iss: ORGANISATION.into(),
            sub: DN.into(),
            aud: vec![audience::site(site)],
            jti: format!("{site}-{seq}"),
            iat: now,
            nbf: now,
            exp: now + Duration::from_secs(12 * 3_600),
            cnf: self.holder(),
            user: "u1".into(),
            generation: 1,
            seq,
            inner: InnerAddresses { ipv4: Some([10, 97, 0, 2].into()), ipv6: None },
            grants: vec![grant],
        }
    }

    pub(crate) fn connect(&self, sites: &[&str]) -> ConnectToken {
        let now = wall_clock();
        let site =
            |site: &&str| ConnectSite { site: (*site).into(), name: format!("name of {site}"), gateways: vec![] };
        ConnectToken {
            iss: ORGANISATION.into(),
            sub: DN.into(),
            aud: vec![audience::session(DN)],
            jti: "connect".into(),
            iat: now,
            nbf: now,
            exp: now + Duration::from_secs(600),
            cnf: self.holder(),
            user: "u1".into(),
            generation: 1,
            sites: sites.iter().map(site).collect(),
            relays: Vec::new(),
        }
    }

    /// A device's certificate with this subject, by its own key or by another.
    pub(crate) fn certificate(&self, client: &str, user: &str, own_key: bool) -> Vec<CertificateDer<'static>> {
        let pem = if own_key { self.key.to_pem() } else { PrivateKey::generate().unwrap().to_pem() };
        let key = KeyPair::from_pem(&pem).unwrap();
        let subject = [
            (DnType::OrganizationName, ORGANISATION),
            (DnType::CommonName, user),
            (DnType::CustomDnType(vec![0, 9, 2342, 19_200_300, 100, 1, 1]), client),
        ];
        let uri = format!("ringfort://{ORGANISATION}/device/{client}");
        vec![leaf(&self.issuer, &key, &uri, &subject, ExtendedKeyUsagePurpose::ClientAuth)]
    }

    /// Both ends' secrets of one tunnel, the client's first.
    pub(crate) fn tunnel(&self) -> (ExporterSecret, ExporterSecret) {
        let own = |uri: &str, usage| {
            let key = KeyPair::generate().unwrap();
            let chain = vec![leaf(&self.issuer, &key, uri, &[], usage)];
            Credentials::new(chain, PrivatePkcs8KeyDer::from(key.serialize_der())).unwrap()
        };
        let gateway = own("ringfort://example/gateway/g1", ExtendedKeyUsagePurpose::ServerAuth);
        let device = own("ringfort://example/device/c1", ExtendedKeyUsagePurpose::ClientAuth);
        let now = BootInstant::from_nanos(1);
        let unix = wall_clock().since_epoch();
        let server = Arc::new(ServerConfig::new(&gateway, self.trust.clone()).unwrap());
        let client = Arc::new(ClientConfig::new(&device, self.trust.clone()).unwrap());
        let mut client = Association::client(&client, None, [1; 32], now, unix);
        let mut hello = client.poll_transmit().unwrap();
        let opening = Opening::unvalidated(&hello).unwrap();
        let mut server = Association::server(&server, &opening, None, [2; 32], now, unix);
        server.handle_datagram(&mut hello, now, |_| ());
        while client.exporter().is_none() || server.exporter().is_none() {
            while let Some(mut datagram) = server.poll_transmit() {
                client.handle_datagram(&mut datagram, now, |_| ());
            }
            while let Some(mut datagram) = client.poll_transmit() {
                server.handle_datagram(&mut datagram, now, |_| ());
            }
            assert!(client.poll_timeout().is_some() && server.poll_timeout().is_some(), "a handshake failed");
        }
        (client.exporter().unwrap().clone(), server.exporter().unwrap().clone())
    }

    /// The thumbprint of nobody's key.
    pub(crate) fn other_key() -> KeyThumbprint {
        PrivateKey::generate().unwrap().thumbprint().unwrap()
    }
}

fn leaf(
    issuer: &Issuer<'static, KeyPair>,
    key: &impl PublicKeyData,
    uri: &str,
    subject: &[(DnType, &str)],
    usage: ExtendedKeyUsagePurpose,
) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (name, value) in subject {
        params.distinguished_name.push(name.clone(), *value);
    }
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.extended_key_usages = vec![usage];
    params.signed_by(key, issuer).unwrap().der().clone()
}

/// `seconds` earlier.
pub(crate) fn before(at: UnixSeconds, seconds: u64) -> UnixSeconds {
    UnixSeconds(at.0 - seconds)
}
