//! What everybody of the organisation has to know: Controllers, and those of their certificates that others stand on.
//!
//! A Controller publishes its own when it starts or renews them, beside those of the other Controllers. Gateways and clients
//! hear of the whole set and keep it in place of the one before, so that what is no longer in it is no longer believed.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfort_enrol::tls::public_key_of;
use ringfort_identity::{INTERMEDIATES_MAX, Role, Side, Trust};
use ringfort_proto::api;
use ringfort_token::{KeySet, Verifier};
use ringfort_types::UnixSeconds;
use rustls_pki_types::CertificateDer;

use super::ca::{Authority, validity};
use super::decision::Decision;
use super::gateway::certificate_digest;
use super::refused::Refused;
use super::store::{self, AuthorityKind, Connection, Consequence, Controller, Published};
use super::{Administrator, Change, Core, Out, action, to_the_end};

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
    ///
    /// The database is no authority: what it has counts if the root says so, and what does not is passed over.
    pub(crate) async fn read(
        c: &mut Connection,
        authority: &Authority,
        address: &str,
        now: UnixSeconds,
    ) -> anyhow::Result<Self> {
        let published = store::published(c, now).await?;
        let of = |kind: AuthorityKind, own: &CertificateDer<'static>| {
            let others = published.iter().filter(|one| one.kind == kind).map(|one| one.certificate.clone().into());
            one_of_each_key(std::iter::once(own.clone()).chain(others))
        };
        let intermediates = of(AuthorityKind::Intermediate, authority.intermediate());
        let trust = Trust::new(authority.root(), intermediates.iter().cloned()).context("trust our own root")?;
        let mut signers = of(AuthorityKind::Signer, authority.signer());
        signers.retain(|signer| match trust.verify(signer, Side::Signer, Role::Signer, now) {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(%error, "a certificate in the database was passed over");
                false
            }
        });
        let mut keys = KeySet::default();
        for key in signers.iter().filter_map(public_key_of) {
            keys.add(&key)?;
        }
        let others = store::controllers(c).await?.into_iter().map(|controller| controller.address);
        let others = others.filter(|other| !other.is_empty() && other != address).collect::<Vec<_>>();
        Ok(Self {
            trust,
            verifier: Verifier::new(authority.organisation(), keys),
            signers,
            intermediates,
            controllers: std::iter::once(address.to_owned()).chain(others).collect(),
        })
    }
}

/// Of several certificates for one key the first, as many as peers look at.
fn one_of_each_key(certificates: impl Iterator<Item = CertificateDer<'static>>) -> Vec<CertificateDer<'static>> {
    let (mut keys, mut kept) = (BTreeSet::new(), Vec::new());
    for certificate in certificates {
        let Some(key) = public_key_of(&certificate) else {
            tracing::warn!("a certificate in the database cannot be read, and was passed over");
            continue;
        };
        if keys.insert(key) {
            kept.push(certificate);
        }
    }
    if kept.len() > INTERMEDIATES_MAX {
        tracing::error!(found = kept.len(), max = INTERMEDIATES_MAX, "there are more certificates than peers look at");
        kept.truncate(INTERMEDIATES_MAX);
    }
    kept
}

impl Core {
    pub(crate) fn known(&self) -> Arc<Known> {
        Arc::clone(&self.inner.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes down that this Controller runs, and what others have to know of it.
    pub(crate) async fn publish(&self, authority: &Authority, now: UnixSeconds) -> anyhow::Result<()> {
        let id = super::hex(&authority.join_key_hash());
        let mut tx = self.inner.store.begin().await?;
        let key = public_key_of(authority.intermediate());
        let removed = store::published_by_removed(&mut tx).await?.into_iter();
        let removed = removed.map(|one| public_key_of(&one.certificate.into())).any(|removed| removed == key);
        anyhow::ensure!(
            !removed && !store::is_removed(&mut tx, &id).await?,
            "this Controller was removed from its organisation: join anew, with another state folder"
        );
        let address = self.inner.settings.address.clone();
        let mut is_new =
            store::put_controller(&mut tx, &Controller { id: id.clone(), address, started_at: now }).await?;
        for (kind, certificate) in
            [(AuthorityKind::Intermediate, authority.intermediate()), (AuthorityKind::Signer, authority.signer())]
        {
            is_new |= publish_one(&mut tx, &id, kind, certificate).await?;
        }
        store::forget_introduced(&mut tx).await?;
        let controllers = store::controllers(&mut tx).await?.len();
        anyhow::ensure!(controllers <= CONTROLLERS_MAX, too_many_controllers());
        if is_new {
            store::insert_news(&mut tx, &[Consequence::Authorities], now).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Writes down a Controller that has its intermediate and has not started yet: whatever it does with it, it can be removed.
    ///
    /// # Errors
    /// `request_malformed` for one Controller too many.
    pub(crate) async fn introduce(
        &self,
        tx: &mut Connection,
        id: &str,
        intermediate: &CertificateDer<'_>,
        now: UnixSeconds,
    ) -> Result<(), Refused> {
        if store::controllers(tx).await?.len() >= CONTROLLERS_MAX {
            return Err(Refused::malformed(too_many_controllers()));
        }
        let controller = Controller { id: id.to_owned(), address: String::new(), started_at: UnixSeconds(0) };
        store::put_controller(tx, &controller).await?;
        publish_one(tx, id, AuthorityKind::Intermediate, intermediate).await.map_err(Refused::internal)?;
        Ok(store::insert_news(tx, &[Consequence::Authorities], now).await?)
    }

    /// Renews our own certificates that are due, as a start does; says whether there are new ones. Keys stay.
    ///
    /// # Errors
    /// When a file cannot be read or written, or the database. The certificates before are shown then, and the new ones with
    /// the next try.
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
        // Nobody is to see a certificate that others have not heard of.
        self.publish(&renewed, now).await?;
        *self.inner.authority.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(renewed);
        self.hear(now).await?;
        Ok(true)
    }

    /// Learns what others have published since, and whether this Controller is one of them still.
    pub(crate) async fn learn(&self, c: &mut Connection, now: UnixSeconds) -> Result<(), Refused> {
        if store::is_removed(c, &self.id()).await? {
            let _ = self.inner.out.set(Out::Removed);
        }
        let known = Known::read(c, &self.authority(), &self.inner.settings.address, now).await;
        *self.inner.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known.map_err(Refused::internal)?);
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
            let found = found
                .filter(|one| one.id == request.name || (one.address == request.name && !one.address.is_empty()))
                .collect::<Vec<_>>();
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

/// Publishes a certificate of a Controller, in place of others for the same key; says whether it is new.
async fn publish_one(
    c: &mut Connection,
    id: &str,
    kind: AuthorityKind,
    certificate: &CertificateDer<'_>,
) -> anyhow::Result<bool> {
    let published = Published {
        digest: certificate_digest(certificate),
        kind,
        certificate: certificate.to_vec(),
        expires_at: validity(certificate)?.1,
    };
    let key = public_key_of(certificate);
    for older in store::published_by(c, id).await? {
        let is_older = older.kind == kind && older.digest != published.digest;
        if is_older && public_key_of(&older.certificate.into()) == key {
            store::withdraw(c, &older.digest).await?;
        }
    }
    Ok(store::publish(c, id, &published).await?)
}

fn too_many_controllers() -> String {
    format!("expected at most {CONTROLLERS_MAX} Controllers: remove one that does not run any more")
}
