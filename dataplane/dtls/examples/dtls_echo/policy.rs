//! Judges ordinary certificates by authorities and revocation lists from files (RFC 5280).

use std::fmt;
use std::sync::{Mutex, PoisonError};

use ringfort_dtls::PeerPolicy;
use ringfort_identity::{PeerIdentity, VerifyError};
use ringfort_types::UnixSeconds;
use rustls::DistinguishedName;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, KeyUsage, OwnedCertRevocationList, RevocationCheckDepth,
    RevocationOptionsBuilder, UnknownStatusPolicy,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::Failed;
use crate::options::{CommonOptions, pem_items};

/// What passes: chains under one of the authorities, unless one of the lists revokes a certificate of theirs. Without
/// authorities everything passes, and the peer has only proved that it holds the key.
///
/// The names in a certificate are not compared with anything.
pub(crate) struct Policy {
    anchors: Vec<TrustAnchor<'static>>,
    lists: Vec<CertRevocationList<'static>>,
    /// What the peer's certificate must be for, if it says what it is for.
    usage: fn() -> KeyUsage,
    names_authorities: bool,
    /// Subject of the certificate judged last. The program has one thread and takes it after each datagram.
    subject: Mutex<Option<String>>,
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy").field("authorities", &self.anchors.len()).finish_non_exhaustive()
    }
}

impl Policy {
    /// For a server; `names_authorities` has clients told which authorities count.
    pub(crate) fn for_clients(options: &CommonOptions, names_authorities: bool) -> Result<Self, Failed> {
        Self::new(options, KeyUsage::client_auth, names_authorities)
    }

    /// For a client.
    pub(crate) fn for_servers(options: &CommonOptions) -> Result<Self, Failed> {
        Self::new(options, KeyUsage::server_auth, false)
    }

    fn new(options: &CommonOptions, usage: fn() -> KeyUsage, names_authorities: bool) -> Result<Self, Failed> {
        let (mut anchors, mut lists) = (Vec::new(), Vec::new());
        if let Some(path) = &options.ca {
            for certificate in pem_items::<CertificateDer<'static>>(path, "certificate")? {
                let anchor = webpki::anchor_from_trusted_cert(&certificate)
                    .map_err(|error| format!("{}: {error}", path.display()))?;
                anchors.push(anchor.to_owned());
            }
        }
        for path in &options.crl {
            for list in pem_items::<CertificateRevocationListDer<'static>>(path, "revocation list")? {
                let list =
                    OwnedCertRevocationList::from_der(&list).map_err(|error| format!("{}: {error}", path.display()))?;
                lists.push(list.into());
            }
        }
        Ok(Self { anchors, lists, usage, names_authorities, subject: Mutex::new(None) })
    }

    /// The subject of the certificate that was judged since the last call.
    pub(crate) fn take_subject(&self) -> Option<String> {
        self.subject.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        now: UnixSeconds,
    ) -> Result<(), webpki::Error> {
        let certificate = EndEntityCert::try_from(leaf)?;
        if self.anchors.is_empty() {
            return Ok(());
        }
        let lists: Vec<&CertRevocationList<'_>> = self.lists.iter().collect();
        // Without lists there is nothing to look at, which the builder says by an error.
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|builder| {
            builder
                .with_depth(RevocationCheckDepth::Chain)
                // Intermediates have lists of their own, which need not be given.
                .with_status_policy(UnknownStatusPolicy::Allow)
                .build()
        });
        let time = UnixTime::since_unix_epoch(now.since_epoch());
        let algorithms = webpki::ALL_VERIFICATION_ALGS;
        certificate.verify_for_usage(algorithms, &self.anchors, sent, time, (self.usage)(), revocation, None).map(drop)
    }
}

impl PeerPolicy for Policy {
    fn judge(&self, chain: &[CertificateDer<'_>], now: UnixSeconds) -> Result<Option<PeerIdentity>, VerifyError> {
        let (leaf, sent) = chain.split_first().ok_or(VerifyError::Form)?;
        *self.subject.lock().unwrap_or_else(PoisonError::into_inner) =
            X509Certificate::from_der(leaf).ok().map(|(_, certificate)| certificate.subject().to_string());
        self.verify(leaf, sent, now).map_err(VerifyError::Certificate)?;
        Ok(None)
    }

    fn authorities(&self) -> Vec<Vec<u8>> {
        let anchors = self.anchors.iter().filter(|_| self.names_authorities);
        anchors.map(|anchor| DistinguishedName::in_sequence(&anchor.subject).as_ref().to_vec()).collect()
    }
}
