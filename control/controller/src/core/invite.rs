//! Invitations: made once, used once (R1–R6, I1–I10).
//!
//! The database keeps the hash of the cookie. Whoever brings the cookie takes the invitation off the list first, in a
//! transaction of its own; what fails after that needs a new invitation.

use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfort_identity::SessionDn;
use ringfort_proto::{api, v1};
use ringfort_token::{EnrolTicket, Expectation, Holder, InviteeKind, Shown, Signed, audience};
use ringfort_types::UnixSeconds;
use serde_json::json;
use uuid::Uuid;

use super::access::checked_name;
use super::ca::{RequestedKey, SERVICE_LIFE};
use super::decision::Decision;
use super::gateway::{certificate_digest, checked_addresses};
use super::host;
use super::login::register;
use super::refused::Refused;
use super::relays;
use super::store::{self, Gateway, Invitation, User};
use super::{Administrator, Core, Event, action, to_the_end};

/// Bytes of a cookie (I2).
const COOKIE_BYTES: usize = 18;
/// Life of an invitation that says nothing else, in seconds: 7 days (I10).
const LIFE_SECONDS: u64 = 7 * 86_400;
/// Shortest and longest, in seconds.
const LIFE_SECONDS_ALLOWED: std::ops::RangeInclusive<u64> = api::INVITATION_SECONDS_MIN..=api::INVITATION_SECONDS_MAX;

impl Core {
    /// Invites a Gateway, a device, a host, a service, a Relay or another Controller (R1–R3, I1, I2, I10); the answer is the only place where the cookie stands.
    ///
    /// # Errors
    /// `authentication_not_fresh`, `request_malformed`, `not_found`, `already_exists` for the name of another Gateway, host or Relay,
    /// `root_key_absent` for a Controller, `role_insufficient` for one, and for a machine of another administrator.
    pub async fn admin_invite(
        &self,
        administrator: &Administrator<action::Invite>,
        request: api::NewInvitation,
        now: UnixSeconds,
    ) -> Result<api::InvitationResponse, Refused> {
        self.fresh(administrator, now)?;
        let life = request.expires_in.unwrap_or(LIFE_SECONDS);
        if !LIFE_SECONDS_ALLOWED.contains(&life) {
            let (min, max) = (LIFE_SECONDS_ALLOWED.start(), LIFE_SECONDS_ALLOWED.end());
            return Err(Refused::malformed(format!("expected `expires_in` of {min} to {max} seconds")));
        }
        let expires_at = now + Duration::from_secs(life);
        let (core, administrator) = (self.clone(), administrator.clone());
        to_the_end(async move {
            let mut decision = Decision::begin(&core, &administrator, now).await?;
            let id = Uuid::new_v4().to_string();
            let (invitation, target) = match request.invitee {
                api::Invitee::Gateway { name, site } => {
                    checked_name("Gateway", &name)?;
                    let site = decision.site(&site).await?;
                    if store::gateway_named(&mut decision.tx, &name).await?.is_some() {
                        return Err(Refused::already_exists(format!(
                            "there is a Gateway {name:?}: choose another name"
                        )));
                    }
                    let (kind, user) = (InviteeKind::Gateway, String::new());
                    (Invitation { kind, id, name: name.clone(), site: site.id, user, expires_at }, name)
                }
                api::Invitee::Host { name } => {
                    let name = core.hostname(&mut decision.tx, &name).await?.to_string();
                    host::is_free(&mut decision.tx, &name).await?;
                    let (kind, site, user) = (InviteeKind::Host, String::new(), String::new());
                    (Invitation { kind, id: name.clone(), name: name.clone(), site, user, expires_at }, name)
                }
                api::Invitee::Device { user } => {
                    let user = decision.account(&user, InviteeKind::Device).await?;
                    administrator.is_or_over(&user)?;
                    let (kind, name, site) = (InviteeKind::Device, String::new(), String::new());
                    (Invitation { kind, id, name, site, user: user.id, expires_at }, user.name)
                }
                api::Invitee::Controller {} => {
                    administrator.also::<action::InviteController>()?;
                    if !core.authority().has_root_key() {
                        return Err(Refused::root_key_absent());
                    }
                    let (kind, name, site, user) =
                        (InviteeKind::Controller, String::new(), String::new(), String::new());
                    (Invitation { kind, id, name, site, user, expires_at }, "controller".into())
                }
                api::Invitee::Service { name } => {
                    let user = decision.account(&name, InviteeKind::Service).await?;
                    if user.role.is_some() {
                        return Err(Refused::malformed(format!(
                            "the service {name:?} has a role as an administrator, which no program may have: remove it and add it again"
                        )));
                    }
                    let (kind, name, site) = (InviteeKind::Service, String::new(), String::new());
                    (Invitation { kind, id, name, site, user: user.id, expires_at }, user.name)
                }
                api::Invitee::Relay { name } => {
                    let name = relays::checked_relay(&core, &mut decision.tx, &name).await?.to_string();
                    let (kind, site, user) = (InviteeKind::Relay, String::new(), String::new());
                    (Invitation { kind, id: name.clone(), name: name.clone(), site, user, expires_at }, name)
                }
            };
            let mut cookie = zeroize::Zeroizing::new([0; COOKIE_BYTES]);
            aws_lc_rs::rand::fill(&mut cookie[..]).map_err(|_| Refused::internal("no randomness"))?;
            store::insert_invitation(&mut decision.tx, hash(&cookie[..]).as_ref(), &invitation).await?;
            let key_hash = core.join_key_hash();
            let ticket = core.ticket(&invitation, now)?;
            let secret = zeroize::Zeroizing::new([&key_hash[..], &cookie[..]].concat());
            let url = format!("{}/{}", core.inner.settings.address, URL_SAFE_NO_PAD.encode(&*secret));
            let Invitation { kind, id, site, .. } = &invitation;
            let after = json!({ "kind": kind, "id": id, "site": site, "for": target, "expires_at": expires_at.0 });
            decision.record(serde_json::Value::Null, after);
            decision.close("invite", &target, &invitation.id).await?;
            Ok(api::InvitationResponse { url, ticket, expires_at: expires_at.0 })
        })
        .await
    }

    fn ticket(&self, invitation: &Invitation, now: UnixSeconds) -> Result<String, Refused> {
        let ticket = EnrolTicket {
            iss: self.organisation().to_owned(),
            sub: invitation.id.clone(),
            aud: vec![self.join_audience()],
            jti: Uuid::new_v4().to_string(),
            iat: now,
            nbf: now,
            exp: invitation.expires_at,
            kind: invitation.kind,
            site: invitation.site.clone(),
            user: invitation.user.clone(),
        };
        Ok(self.authority().signing_key().sign(&ticket)?.as_str().to_owned())
    }

    fn join_audience(&self) -> String {
        audience::join(&URL_SAFE_NO_PAD.encode(self.join_key_hash()))
    }

    /// Lets a Gateway, a device, a host, a Relay or another Controller join by its invitation, which is used up first (R3, R4, I6–I10).
    ///
    /// # Errors
    /// `request_malformed`, `invitation_unknown`, `invitation_used`, `invitation_expired`, `ticket_mismatch`, `token_…`,
    /// `already_exists`, `root_key_absent`, `certificate_revoked` for a key that was revoked.
    pub async fn join(&self, request: v1::JoinRequest, now: UnixSeconds) -> Result<v1::Joined, Refused> {
        let core = self.clone();
        // Whoever hangs up while the invitation is being used has used it.
        to_the_end(async move {
            let invitation = core.take(&request.cookie, now).await?;
            core.admit(&invitation, &request, now).await
        })
        .await
    }

    /// Takes the invitation of a cookie off the list.
    async fn take(&self, cookie: &[u8], now: UnixSeconds) -> Result<Invitation, Refused> {
        if cookie.len() != COOKIE_BYTES {
            return Err(Refused::malformed(format!("expected a cookie of {COOKIE_BYTES} bytes")));
        }
        let cookie_hash = hash(cookie);
        let mut tx = self.inner.store.begin().await?;
        if let Some(invitation) = store::take_invitation(&mut tx, cookie_hash.as_ref(), now).await? {
            tx.commit().await?;
            return Ok(invitation);
        }
        Err(match store::invitation_used_at(&mut tx, cookie_hash.as_ref()).await? {
            None => Refused::invitation_unknown(),
            Some(Some(_)) => Refused::invitation_used(),
            Some(None) => Refused::invitation_expired(),
        })
    }

    /// Checks ticket and request, and writes down who joined.
    async fn admit(
        &self,
        invitation: &Invitation,
        request: &v1::JoinRequest,
        now: UnixSeconds,
    ) -> Result<v1::Joined, Refused> {
        let ticket = Signed::<EnrolTicket>::from_text(&request.ticket);
        let ticket = ticket.map_err(|error| Refused::malformed(error.to_string()))?;
        let ticket = {
            let (audience, deny) = (self.join_audience(), self.deny());
            let expectation = Expectation { audience: &audience, holder: Holder::Nobody, now, deny: &deny };
            self.known().verifier.verify(&ticket, &expectation)?
        };
        let Invitation { kind, id, name, site, user, .. } = invitation;
        if (&ticket.sub, ticket.kind, &ticket.site, &ticket.user) != (id, *kind, site, user) {
            return Err(Refused::ticket_mismatch());
        }
        let key = RequestedKey::from_request(&request.certificate_request)?;
        self.standing_of(&Shown { key: Some(key.thumbprint()), ..Shown::default() }, now)?;
        let jkt = key.thumbprint().to_string();
        let mut tx = self.inner.store.begin().await?;
        let mut joined = v1::Joined {
            organisation: self.organisation().to_owned(),
            root: self.root_der().to_vec().into(),
            intermediates: self.intermediates_der().into_iter().map(Into::into).collect(),
            signers: self.signers_der().into_iter().map(Into::into).collect(),
            controllers: self.known().controllers.clone(),
            ..v1::Joined::default()
        };
        match kind {
            InviteeKind::Gateway => {
                let leaf = self.authority().gateway(id, &key, now)?;
                let gateway = Gateway {
                    id: id.clone(),
                    name: name.clone(),
                    site: site.clone(),
                    addresses: checked_addresses(&request.addresses)?,
                    jkt,
                    digest: certificate_digest(&leaf),
                    next_jkt: String::new(),
                    next_digest: String::new(),
                    last_seen: UnixSeconds(0),
                    configuration_seq: 0,
                };
                if !store::insert_gateway(&mut tx, &gateway).await? {
                    return Err(Refused::already_exists(format!(
                        "there is a Gateway {name:?}, which is not overwritten"
                    )));
                }
                (joined.id, joined.kind, joined.site) = (id.clone(), "gateway".into(), site.clone());
                joined.chain = [&leaf, self.authority().intermediate()].map(|one| one.to_vec().into()).into();
            }
            InviteeKind::Host => {
                let leaf = self.authority().host(&name.parse()?, &key, now)?;
                host::admit(&mut tx, name, &jkt).await?;
                (joined.id, joined.kind) = (name.clone(), "host".into());
                joined.chain = [&leaf, self.authority().intermediate()].map(|one| one.to_vec().into()).into();
            }
            InviteeKind::Relay => {
                let leaf = self.authority().relay(&name.parse()?, &key, now)?;
                relays::admit(&mut tx, name, jkt, now).await?;
                (joined.id, joined.kind) = (name.clone(), "relay".into());
                joined.chain = [&leaf, self.authority().intermediate()].map(|one| one.to_vec().into()).into();
            }
            InviteeKind::Device | InviteeKind::Service => {
                let client = &request.client_id;
                let session = SessionDn::new(client, user, self.organisation())?;
                let user = store::user_by_id(&mut tx, user).await?.filter(|user| user.active);
                let user = user.ok_or_else(|| Refused::not_found("user", "of the invitation"))?;
                register(&mut tx, client, &user.id, &jkt, now).await?;
                (joined.id, joined.user) = (client.clone(), user.name);
                joined.kind = "device".into();
                if *kind == InviteeKind::Service {
                    // Its certificate is its login, so it has one from the beginning (X12).
                    let until = now + Duration::from_secs(SERVICE_LIFE);
                    let leaf = self.authority().device(&session, &key, until, now)?;
                    joined.kind = "service".into();
                    joined.chain = [&leaf, self.authority().intermediate()].map(|one| one.to_vec().into()).into();
                }
            }
            InviteeKind::Controller => {
                let intermediate = self.authority().intermediate_of(&key, now)?;
                self.introduce(&mut tx, id, &intermediate, now).await?;
                (joined.id, joined.kind) = (id.clone(), "controller".into());
                joined.chain = vec![intermediate.to_vec().into()];
            }
        }
        let event = Event { actor: id, action: "join", target: &joined.id, outcome: "ok", detail: &joined.kind };
        store::insert_event(&mut tx, &event.recorded(now)).await?;
        tx.commit().await?;
        if *kind == InviteeKind::Relay {
            // It has joined in any case; who was not told yet is told with what is decided next, or within a second.
            if let Err(error) = self.hear(now).await {
                tracing::warn!(%error, "Gateways were not told of a Relay yet");
            }
        }
        Ok(joined)
    }
}

impl Decision {
    /// The account whose machine is to be invited: a person's for a device, a program's for a service.
    ///
    /// # Errors
    /// `not_found`.
    async fn account(&mut self, name: &str, kind: InviteeKind) -> Result<User, Refused> {
        let user = self.user(name).await?;
        let is_service = store::is_service(&mut self.tx, &user.id).await?;
        let what = if kind == InviteeKind::Service { "service" } else { "user" };
        if is_service == (kind == InviteeKind::Service) { Ok(user) } else { Err(Refused::not_found(what, name)) }
    }
}

fn hash(cookie: &[u8]) -> digest::Digest {
    digest::digest(&digest::SHA256, cookie)
}
