//! What everybody of the organisation has to know: Controllers, and those of their certificates that others stand on.
//!
//! A Controller publishes its own when it starts or renews them, beside those of the other Controllers. Gateways and clients
//! hear of the whole set and keep it in place of the one before, so that what is no longer in it is no longer believed.

use std::sync::{Arc, PoisonError};

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfort_identity::{Role, Side, Trust};
use ringfort_proto::api;
use ringfort_token::{KeySet, Verifier};
use ringfort_types::UnixSeconds;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::ca::{Authority, validity};
use super::decision::Decision;
use super::gateway::certificate_digest;
use super::refused::Refused;
use super::store::{self, AuthorityKind, Connection, Consequence, Controller, Published};
use super::{Administrator, Change, Core, action, to_the_end};

/// Controllers of one organisation: peers look at so many intermediates.
const CONTROLLERS_MAX: usize = 6;

/// The set at one moment.
pub(crate) struct Known {
    pub(crate) trust: Trust,
    pub(crate) verifier: Verifier,
    /// DER; our own first.
    pub(crate) signers: Vec<CertificateDer<'static>>,
    /// DER; our own first.
    pub(crate) intermediates: Vec<CertificateDer<'static>>,
    /// `host:port` of each; our own first.
    pub(crate) controllers: Vec<String>,
}

impl Known {
    /// What the database has, with our own.
    pub(crate) async fn read(
        c: &mut Connection,
        authority: &Authority,
        address: &str,
        now: UnixSeconds,
    ) -> anyhow::Result<Self> {
        let published = store::published(c, now).await?;
        let of = |kind: AuthorityKind, own: &CertificateDer<'static>| {
            let others = published.iter().filter(|one| one.kind == kind).map(|one| one.certificate.clone().into());
            std::iter::once(own.clone()).chain(others.filter(|other| other != own)).collect::<Vec<_>>()
        };
        let intermediates = of(AuthorityKind::Intermediate, authority.intermediate());
        let trust = Trust::new(authority.root(), intermediates.iter().cloned()).context("trust our own root")?;
        let mut signers = of(AuthorityKind::Signer, authority.signer());
        // The database is no authority: what it has counts if the root says so.
        signers.retain(|signer| match trust.verify(signer, &[], Side::Signer, Role::Signer, now) {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(%error, "a certificate in the database was passed over");
                false
            }
        });
        let mut keys = KeySet::default();
        for signer in &signers {
            let (_, parsed) = X509Certificate::from_der(signer).context("read a signer's certificate")?;
            keys.add(parsed.public_key().raw)?;
        }
        let others = store::controllers(c).await?.into_iter().map(|controller| controller.address);
        let others = others.filter(|other| other != address).collect::<Vec<_>>();
        Ok(Self {
            trust,
            verifier: Verifier::new(authority.organisation(), keys),
            signers,
            intermediates,
            controllers: std::iter::once(address.to_owned()).chain(others).collect(),
        })
    }
}

impl Core {
    pub(crate) fn known(&self) -> Arc<Known> {
        Arc::clone(&self.inner.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes down that this Controller runs, and what others have to know of it.
    pub(crate) async fn publish(&self, now: UnixSeconds) -> anyhow::Result<()> {
        let authority = self.authority();
        let id = self.id();
        let mut tx = self.inner.store.begin().await?;
        anyhow::ensure!(
            !store::is_removed(&mut tx, &id).await?,
            "this Controller was removed from its organisation: join anew, with another state folder"
        );
        let address = self.inner.settings.address.clone();
        let mut is_new =
            store::put_controller(&mut tx, &Controller { id: id.clone(), address, started_at: now }).await?;
        let controllers = store::controllers(&mut tx).await?.len();
        anyhow::ensure!(
            controllers <= CONTROLLERS_MAX,
            "expected at most {CONTROLLERS_MAX} Controllers: remove one that does not run any more"
        );
        for (kind, certificate) in
            [(AuthorityKind::Intermediate, authority.intermediate()), (AuthorityKind::Signer, authority.signer())]
        {
            let published = Published {
                digest: certificate_digest(certificate),
                kind,
                certificate: certificate.to_vec(),
                expires_at: validity(certificate)?.1,
            };
            is_new |= store::publish(&mut tx, &id, &published).await?;
        }
        if is_new {
            store::insert_news(&mut tx, &[Consequence::Authorities], now).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Renews our own certificates that are due, as a start does; says whether there are new ones. Keys stay.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub async fn renew_own_certificates(&self, now: UnixSeconds) -> anyhow::Result<bool> {
        let before = self.authority();
        let renewed = before.renewed(&self.inner.settings.names, now)?;
        let certificates = |authority: &Authority| {
            let (chain, _) = authority.server_credentials();
            (chain, authority.signer().clone())
        };
        if certificates(&before) == certificates(&renewed) {
            return Ok(false);
        }
        *self.inner.authority.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(renewed);
        self.publish(now).await?;
        self.hear(now).await?;
        Ok(true)
    }

    /// Learns what others have published since.
    pub(crate) async fn learn(&self, c: &mut Connection, now: UnixSeconds) -> anyhow::Result<()> {
        let known = Known::read(c, &self.authority(), &self.inner.settings.address, now).await?;
        *self.inner.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
        self.tell(Change::Authorities);
        Ok(())
    }

    /// Removes a Controller: what it signed, and whom it named, is no longer believed, and it does not start again.
    ///
    /// # Errors
    /// `not_found`; `request_malformed` for this Controller itself.
    pub async fn admin_remove_controller(
        &self,
        administrator: &Administrator<action::RemoveController>,
        request: api::Named,
        now: UnixSeconds,
    ) -> Result<api::Pushed, Refused> {
        let (core, administrator) = (self.clone(), administrator.clone());
        to_the_end(async move {
            let mut decision = Decision::begin(&core, &administrator, now).await?;
            let found = store::controllers(&mut decision.tx).await?.into_iter();
            let found = found.filter(|one| one.id == request.name || one.address == request.name).collect::<Vec<_>>();
            let [controller] = found.as_slice() else { return Err(Refused::not_found("Controller", &request.name)) };
            if controller.id == core.id() {
                return Err(Refused::malformed("this Controller does not remove itself: ask another one"));
            }
            store::remove_controller(&mut decision.tx, &controller.id).await?;
            decision.reintroduce();
            let was = serde_json::json!({ "address": controller.address, "id": controller.id });
            decision.record(was, serde_json::Value::Null);
            decision.close("remove-controller", &controller.address, &controller.id).await
        })
        .await
    }

    /// All Controllers.
    ///
    /// # Errors
    /// `internal`.
    pub async fn controller_rows(
        &self,
        _administrator: &Administrator<action::ListControllers>,
    ) -> Result<Vec<api::ControllerRow>, Refused> {
        let controllers = store::controllers(&mut *self.inner.store.read().await?).await?;
        let row = |one: Controller| {
            let Controller { id, address, started_at } = one;
            api::ControllerRow { id, address, started_at: started_at.0 }
        };
        Ok(controllers.into_iter().map(row).collect())
    }

    /// What clients have to know.
    pub(crate) fn known_to_clients(&self) -> api::Known {
        let known = self.known();
        let encoded = |certificates: &[CertificateDer<'_>]| {
            certificates.iter().map(|certificate| URL_SAFE_NO_PAD.encode(certificate)).collect()
        };
        api::Known {
            signers: encoded(&known.signers),
            intermediates: encoded(&known.intermediates),
            controllers: known.controllers.clone(),
        }
    }

    /// This Controller's id: the hash of its public key that its invitations name.
    pub(crate) fn id(&self) -> String {
        super::hex(&self.join_key_hash())
    }
}
