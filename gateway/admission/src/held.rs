//! What a session rests on: certificate, claims, entitlement, and until when each of them counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringfort_identity::{KeyThumbprint, PeerIdentity};
use ringfort_token::{ClaimsToken, DenyList, EntitlementToken, Shown, Standing, Verified};
use ringfort_types::{BootInstant, UnixSeconds};

use crate::interface::Moment;

/// The end of something signed, fixed on the clock that nobody sets (X14): a step of the wall clock moves it no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deadline {
    pub(crate) at: BootInstant,
    pub(crate) ends_at: UnixSeconds,
}

impl Deadline {
    pub(crate) fn fix(ends_at: UnixSeconds, now: Moment) -> Self {
        Self { at: now.boot + ends_at.saturating_since(now.wall), ends_at }
    }
}

/// The certificate by which a channel or a tunnel was authenticated, as far as it matters after the handshake.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    pub(crate) serial: Box<str>,
    pub(crate) key: KeyThumbprint,
    pub(crate) until: Deadline,
}

impl Certificate {
    pub(crate) fn of(peer: &PeerIdentity, now: Moment) -> Self {
        let until = Deadline::fix(peer.not_after(), now);
        Self { serial: peer.serial().into(), key: *peer.key(), until }
    }

    pub(crate) fn standing<'a>(&self, deny: &'a DenyList) -> Standing<'a> {
        deny.standing(&Shown { certificate: Some(&self.serial), key: Some(&self.key), ..Shown::default() })
    }
}

/// The tokens that a client presented, believed.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) claims: Verified<ClaimsToken>,
    pub(crate) entitlement: Verified<EntitlementToken>,
    pub(crate) certificate: Certificate,
    pub(crate) name: Arc<str>,
    pub(crate) device: BTreeMap<String, String>,
    claims_until: Deadline,
    entitlement_until: Deadline,
    /// A renewal that is demanded.
    pub(crate) renew: Option<Deadline>,
}

impl Held {
    /// `before` is what the session held until now: of what was not renewed the deadlines stay as they were fixed.
    pub(crate) fn new(
        claims: Verified<ClaimsToken>,
        entitlement: Verified<EntitlementToken>,
        mut certificate: Certificate,
        device: BTreeMap<String, String>,
        before: Option<&Self>,
        now: Moment,
    ) -> Self {
        let claims_until = before
            .filter(|before| before.claims.jti == claims.jti)
            .map_or_else(|| Deadline::fix(claims.exp, now), |before| before.claims_until);
        let entitlement_until = before
            .filter(|before| before.entitlement.jti == entitlement.jti)
            .map_or_else(|| Deadline::fix(entitlement.exp, now), |before| before.entitlement_until);
        if let Some(before) = before.filter(|before| before.certificate.serial == certificate.serial) {
            certificate.until = certificate.until.min(before.certificate.until);
        }
        let renew = before.and_then(|before| before.renew);
        let name = claims.name.as_str().into();
        Self { claims, entitlement, certificate, name, device, claims_until, entitlement_until, renew }
    }

    /// Takes a newer entitlement token.
    pub(crate) fn replace_entitlement(&mut self, entitlement: Verified<EntitlementToken>, now: Moment) {
        self.entitlement_until = Deadline::fix(entitlement.exp, now);
        self.entitlement = entitlement;
    }

    /// How it stands with the deny list as a whole; what is past the time of its renewal is dead.
    pub(crate) fn standing<'a>(&self, deny: &'a DenyList, now: Moment) -> Standing<'a> {
        let claims = deny.standing(&Shown {
            token: Some(&self.claims.jti),
            certificate: Some(&self.certificate.serial),
            key: Some(&self.certificate.key),
            generation: Some((&self.claims.user, self.claims.generation)),
        });
        let entitlement = deny.standing(&Shown {
            token: Some(&self.entitlement.jti),
            generation: Some((&self.entitlement.user, self.entitlement.generation)),
            ..Shown::default()
        });
        let rank = |standing: &Standing<'_>| match standing {
            Standing::Revoked { .. } => (0, UnixSeconds(0)),
            Standing::RenewBy { by, .. } => (1, *by),
            Standing::Good => (2, UnixSeconds(0)),
        };
        let worst = if rank(&entitlement) < rank(&claims) { entitlement } else { claims };
        match worst {
            Standing::RenewBy { by, serial, reason } if by <= now.wall => Standing::Revoked { serial, reason },
            other => other,
        }
    }

    /// Notes that a renewal is demanded `by` a time, or none. What was noted before stays as it was fixed.
    pub(crate) fn set_renewal(&mut self, by: Option<UnixSeconds>, now: Moment) {
        if self.renew.map(|renew| renew.ends_at) != by {
            self.renew = by.map(|by| Deadline::fix(by, now));
        }
    }

    /// When the first of them ends.
    pub(crate) fn ends(&self) -> Deadline {
        let first = self.claims_until.min(self.entitlement_until).min(self.certificate.until);
        self.renew.map_or(first, |renew| first.min(renew))
    }
}
