//! The tokens of a client: believed only when verified, before they are stored and again before they are used (C2).
//!
//! It deliberately talks to nobody: [`crate::login`] and [`crate::renewal`] bring tokens, this module judges and keeps them.

use std::collections::BTreeMap;

use ringfort_enrol::{Folder, FolderError, Identity, LockedFolder, SignerRefused, token_keys};
use ringfort_identity::{ConfigError, KeyThumbprint, Role, SessionDn, Side, Trust, VerifyError};
use ringfort_token::{
    ClaimsToken, ConnectToken, DenyList, EntitlementToken, Expectation, Holder, Refusal, Signed, Token, TooLong,
    Verified, Verifier, audience,
};
use ringfort_types::UnixSeconds;
use rustls_pki_types::CertificateDer;

/// Names of the files.
pub(crate) mod file {
    /// rf-claims+jwt
    pub(crate) const CLAIMS: &str = "claims.jwt";
    /// rf-connect+jwt
    pub(crate) const CONNECT: &str = "connect.jwt";
    /// rf-entitlement+jwt of one site.
    pub(crate) fn entitlement(site: &str) -> String {
        format!("entitlement-{site}.jwt")
    }
}

/// Sites of one session. Each has a tunnel with an interface of its own.
pub(crate) const SITES_MAX: usize = 16;

/// Why tokens, or what came with them, were refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokensError {
    /// A token did not pass.
    #[error("{kind}: {source}")]
    Refused {
        /// Which.
        kind: &'static str,
        /// Why.
        source: Refusal,
    },
    /// A token is too long.
    #[error("{kind}: {source}")]
    TooLong {
        /// Which.
        kind: &'static str,
        /// How long.
        source: TooLong,
    },
    /// There is none.
    #[error("nobody has logged in with this folder yet; run `ringfort login` first")]
    NotLoggedIn,
    /// The login is over.
    #[error("the login has ended; run `ringfort login` again")]
    LoginEnded,
    /// A token, or the certificate, is about another session (A5, A9).
    #[error("expected {what} of session {expected}, found {found}")]
    OtherSession {
        /// What it is.
        what: &'static str,
        /// Name of the session.
        expected: String,
        /// The name found.
        found: String,
    },
    /// An entitlement token of a site that the connect token does not name, or two of one site.
    #[error("expected one entitlement token for each site of the connect token, found one more")]
    Site,
    /// A site's id that cannot be one, or too many sites.
    #[error("expected at most {SITES_MAX} sites with ids of letters, digits and '-'")]
    Sites,
    /// A lower sequence number than was seen already.
    #[error("expected an entitlement token of sequence number {seen} or higher, found {found}")]
    Sequence {
        /// The highest seen.
        seen: u64,
        /// That of the token.
        found: u64,
    },
    /// A certificate did not pass.
    #[error(transparent)]
    Certificate(#[from] VerifyError),
    /// A signer's certificate did not pass.
    #[error("a key that signs tokens: {0}")]
    Signer(#[from] SignerRefused),
    /// Trust cannot be made of it.
    #[error(transparent)]
    Trust(#[from] ConfigError),
    /// The Controller names another root than the one that is trusted here.
    #[error("the Controller names another root certificate than the one in ca.pem; nothing was changed")]
    OtherRoot,
    /// Not base64url.
    #[error("expected {0} in base64url")]
    Base64(&'static str),
    /// The folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// Everything by which tokens are judged.
#[derive(Clone, Debug)]
pub(crate) struct Judge {
    organisation: String,
    client_id: String,
    holder: KeyThumbprint,
    verifier: Verifier,
    trust: Trust,
}

/// A token with its text, for passing it on.
#[derive(Clone, Debug)]
pub(crate) struct Held<T> {
    pub(crate) text: String,
    pub(crate) token: Verified<T>,
}

/// What somebody who logged in beside a running client has brought.
#[derive(Debug)]
pub(crate) struct Beside {
    pub(crate) identity: Identity,
    pub(crate) judge: Judge,
    pub(crate) tokens: Tokens,
}

/// What a logged-in client has.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    pub(crate) claims: Held<ClaimsToken>,
    /// `None` when it has expired: it lives for minutes only.
    pub(crate) connect: Option<Held<ConnectToken>>,
    /// By site.
    pub(crate) entitlements: BTreeMap<String, Held<EntitlementToken>>,
}

impl Judge {
    /// For the device `identity` with the key `holder`; `signers` are certificates of the keys that sign tokens.
    pub(crate) fn new(
        identity: &Identity,
        holder: KeyThumbprint,
        trust: Trust,
        signers: &[CertificateDer<'_>],
        now: UnixSeconds,
    ) -> Result<Self, TokensError> {
        let keys = token_keys(signers, &trust, now)?;
        let verifier = Verifier::new(&identity.organisation, keys);
        Ok(Self {
            organisation: identity.organisation.clone(),
            client_id: identity.id.clone(),
            holder,
            verifier,
            trust,
        })
    }

    /// From what `folder` keeps.
    pub(crate) fn of_folder(
        folder: &Folder,
        identity: &Identity,
        holder: KeyThumbprint,
        now: UnixSeconds,
    ) -> Result<Self, TokensError> {
        let signers = folder.certificates(ringfort_enrol::file::SIGNERS)?;
        Self::new(identity, holder, folder.trust()?, &signers, now)
    }

    /// Our key.
    pub(crate) const fn holder(&self) -> KeyThumbprint {
        self.holder
    }

    /// The CA.
    pub(crate) const fn trust(&self) -> &Trust {
        &self.trust
    }

    fn held<T: Token>(
        &self,
        kind: &'static str,
        text: &str,
        audience: &str,
        now: UnixSeconds,
    ) -> Result<Held<T>, TokensError> {
        let signed = Signed::from_text(text).map_err(|source| TokensError::TooLong { kind, source })?;
        // What was taken back is for Gateways and Controllers to know; they tell us.
        let deny = DenyList::default();
        let expectation = Expectation { audience, holder: Holder::Key(&self.holder), now, deny: &deny };
        let token = self.verifier.verify(&signed, &expectation);
        Ok(Held { text: text.into(), token: token.map_err(|source| TokensError::Refused { kind, source })? })
    }

    /// A claims token for our key and our client id.
    pub(crate) fn claims(&self, text: &str, now: UnixSeconds) -> Result<Held<ClaimsToken>, TokensError> {
        let held = self.held::<ClaimsToken>("claims token", text, &audience::controller(&self.organisation), now)?;
        let (claims, organisation) = (&held.token, &self.organisation);
        let expected = SessionDn::new(&self.client_id, &claims.user, organisation).map(|dn| dn.to_string());
        let expected = expected.unwrap_or_else(|_| format!("UID={},O={organisation}", self.client_id));
        same_session("a claims token", &expected, &claims.sub)?;
        Ok(held)
    }

    /// A connect token of the session.
    pub(crate) fn connect(
        &self,
        text: &str,
        claims: &ClaimsToken,
        now: UnixSeconds,
    ) -> Result<Held<ConnectToken>, TokensError> {
        let held = self.held::<ConnectToken>("connect token", text, &audience::session(&claims.sub), now)?;
        same_session("a connect token", &claims.sub, &held.token.sub)?;
        let is_id = |site: &str| {
            !site.is_empty()
                && site.len() <= 64
                && site.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        let sites = &held.token.sites;
        if sites.len() > SITES_MAX || !sites.iter().all(|site| is_id(&site.site)) {
            return Err(TokensError::Sites);
        }
        Ok(held)
    }

    /// An entitlement token of the session for `site`.
    pub(crate) fn entitlement(
        &self,
        text: &str,
        claims: &ClaimsToken,
        site: &str,
        now: UnixSeconds,
    ) -> Result<Held<EntitlementToken>, TokensError> {
        let held = self.held::<EntitlementToken>("entitlement token", text, &audience::site(site), now)?;
        same_session("an entitlement token", &claims.sub, &held.token.sub)?;
        Ok(held)
    }

    /// Entitlement tokens, each for one of the connect token's sites.
    pub(crate) fn entitlements(
        &self,
        texts: &[String],
        claims: &ClaimsToken,
        connect: &ConnectToken,
        now: UnixSeconds,
    ) -> Result<BTreeMap<String, Held<EntitlementToken>>, TokensError> {
        let mut entitlements = BTreeMap::new();
        for text in texts {
            let mut sites = connect.sites.iter().map(|site| &site.site);
            let (site, held) = loop {
                let site = sites.next().ok_or(TokensError::Site)?;
                match self.entitlement(text, claims, site, now) {
                    Err(TokensError::Refused { source: Refusal::WrongAudience { .. }, .. }) => {}
                    other => break (site, other?),
                }
            };
            if entitlements.insert(site.clone(), held).is_some() {
                return Err(TokensError::Site);
            }
        }
        Ok(entitlements)
    }

    /// That a certificate chain is ours: our key, and the session of the claims token (A9).
    pub(crate) fn certificate(
        &self,
        chain: &[CertificateDer<'_>],
        claims: &ClaimsToken,
        now: UnixSeconds,
    ) -> Result<UnixSeconds, TokensError> {
        let leaf = chain.first().ok_or(ConfigError::NoLeaf)?;
        let peer = self.trust.verify(leaf, Side::Client, Role::Device, now)?;
        if *peer.key() != self.holder {
            return Err(ConfigError::KeyMismatch.into());
        }
        let found = peer.session().map(ToString::to_string).unwrap_or_default();
        same_session("a certificate", &claims.sub, &found)?;
        Ok(peer.not_after())
    }
}

impl Beside {
    fn load(folder: &LockedFolder, holder: KeyThumbprint, now: UnixSeconds) -> Result<Self, TokensError> {
        let identity = folder.identity()?;
        let judge = Judge::of_folder(folder, &identity, holder, now)?;
        let tokens = Tokens::load(folder, &judge, now)?;
        judge.certificate(&folder.certificates(ringfort_enrol::file::CHAIN)?, &tokens.claims.token, now)?;
        Ok(Self { identity, judge, tokens })
    }
}

impl Tokens {
    /// What `folder` keeps, each token verified again. The short-lived ones that have expired are left out, so that they are
    /// fetched anew.
    ///
    /// # Errors
    /// [`TokensError::NotLoggedIn`], [`TokensError::LoginEnded`]; anything else means that a file was changed or is not ours.
    pub(crate) fn load(folder: &Folder, judge: &Judge, now: UnixSeconds) -> Result<Self, TokensError> {
        if !folder.has(file::CLAIMS) {
            return Err(TokensError::NotLoggedIn);
        }
        let claims = judge.claims(folder.read_text(file::CLAIMS)?.trim(), now).map_err(|error| match error {
            TokensError::Refused { source: Refusal::Expired { .. }, .. } => TokensError::LoginEnded,
            other => other,
        })?;
        let mut tokens = Self { claims, connect: None, entitlements: BTreeMap::new() };
        if !folder.has(file::CONNECT) {
            return Ok(tokens);
        }
        let connect = judge.connect(folder.read_text(file::CONNECT)?.trim(), &tokens.claims.token, now);
        tokens.connect = unless_expired(connect)?;
        let sites = tokens.connect.iter().flat_map(|connect| &connect.token.sites);
        for site in sites.map(|site| &site.site) {
            let name = file::entitlement(site);
            if folder.has(&name) {
                let held = judge.entitlement(folder.read_text(&name)?.trim(), &tokens.claims.token, site, now);
                tokens.entitlements.extend(unless_expired(held)?.map(|held| (site.clone(), held)));
            }
        }
        Ok(tokens)
    }

    /// Writes all of them, and removes those of sites that are no more. The claims token comes last: whoever finds another one than
    /// before finds everything that came with it.
    pub(crate) fn store(&self, folder: &LockedFolder) -> Result<(), FolderError> {
        let entitlements = self.entitlements.iter().map(|(site, held)| (file::entitlement(site), &held.text));
        let files = entitlements
            .chain(self.connect.iter().map(|connect| (file::CONNECT.to_owned(), &connect.text)))
            .chain([(file::CLAIMS.to_owned(), &self.claims.text)]);
        folder.write_all(files.map(|(name, text)| (name, text, ringfort_enrol::Secrecy::Secret)))?;
        remove_entitlements(folder, |site| !self.entitlements.contains_key(site))
    }

    /// What a `ringfort login` beside this process has brought into `folder` since these came from there, with what judges it: tokens
    /// and a certificate, verified. `None` if these are what the folder has, or if what it has is of no use: then these may be stored.
    pub(crate) fn beside(&self, folder: &LockedFolder, holder: KeyThumbprint, now: UnixSeconds) -> Option<Beside> {
        let kept = folder.read_text(file::CLAIMS);
        if kept.is_ok_and(|text| text.trim() == self.claims.text) {
            return None;
        }
        match Beside::load(folder, holder, now) {
            // Its connect token may be over by now: then another one is due at once.
            Ok(beside) => Some(beside),
            Err(error) => {
                tracing::debug!(%error, "the tokens in the folder are not used");
                None
            }
        }
    }

    /// Puts entitlement tokens of the same claims back that are newer than these: a Gateway passed them on meanwhile.
    pub(crate) fn keep_newer(&mut self, known: BTreeMap<String, Held<EntitlementToken>>) {
        for (site, held) in known {
            let newer = |ours: &Held<EntitlementToken>| {
                held.token.seq > ours.token.seq && held.token.generation >= ours.token.generation
            };
            if self.entitlements.get(&site).is_some_and(newer) {
                self.entitlements.insert(site, held);
            }
        }
    }

    /// Takes an entitlement token that the Gateway passed on; `seq` must grow.
    ///
    /// # Errors
    /// [`TokensError`]; nothing is changed then.
    pub(crate) fn take_pushed(
        &mut self,
        judge: &Judge,
        site: &str,
        text: &str,
        now: UnixSeconds,
    ) -> Result<(), TokensError> {
        let held = judge.entitlement(text, &self.claims.token, site, now)?;
        let seen = self.entitlements.get(site).map_or(0, |held| held.token.seq);
        if held.token.seq <= seen {
            return Err(TokensError::Sequence { seen: seen + 1, found: held.token.seq });
        }
        self.entitlements.insert(site.into(), held);
        Ok(())
    }
}

/// Removes the entitlement tokens of the sites that `goes` names.
fn remove_entitlements(folder: &Folder, goes: impl Fn(&str) -> bool) -> Result<(), FolderError> {
    let failed = |source| FolderError::Io { path: folder.path().into(), source };
    for entry in std::fs::read_dir(folder.path()).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        let site = name.strip_prefix("entitlement-").and_then(|name| name.strip_suffix(".jwt"));
        if site.is_some_and(&goes) {
            folder.remove(&name)?;
        }
    }
    Ok(())
}

fn same_session(what: &'static str, expected: &str, found: &str) -> Result<(), TokensError> {
    if expected == found {
        return Ok(());
    }
    Err(TokensError::OtherSession { what, expected: expected.into(), found: found.into() })
}

fn unless_expired<T>(held: Result<Held<T>, TokensError>) -> Result<Option<Held<T>>, TokensError> {
    match held {
        Err(TokensError::Refused { source: Refusal::Expired { .. }, .. }) => Ok(None),
        other => other.map(Some),
    }
}

#[cfg(test)]
mod tests;
