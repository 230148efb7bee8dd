//! When tokens and certificate are renewed, and how (A23, A24): at two thirds of every life, or at once when a Gateway asks.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use ringfort_enrol::{Folder, Kind, file, wall_clock};
use ringfort_token::{ClaimsToken, Registered, Token, Verified};
use ringfort_types::{BootInstant, UnixSeconds};
use rustls_pki_types::CertificateDer;

use crate::controller::ControllerError;
use crate::login::{Session, authenticated, fetch_certificate};
use crate::tokens::{Held, Judge, Tokens};

/// Least time between two renewals that nobody demanded: near its end a life's third becomes short.
const SPACING: Duration = Duration::from_secs(30);
/// Pause after a renewal that failed; doubles up to the second value.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A service's certificate is renewed when it has less than this left: two thirds of its life.
const SERVICE_CERTIFICATE_LEFT: Duration = Duration::from_secs(20 * 86_400);

/// How much is renewed; the more comes first, so that of two that are due together it is that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Extent {
    /// The claims token, then all that hangs on it, the certificate among it.
    Everything,
    /// Entitlement tokens and connect token.
    Entitlements,
}

/// What is due next, and when. `certificate_ends` is the end of our certificate.
pub(crate) fn due(tokens: &Tokens, certificate_ends: UnixSeconds) -> (UnixSeconds, Extent) {
    let claims = &tokens.claims.token;
    let everything = match certificate_is_short(claims, certificate_ends) {
        Some(at) => two_thirds(claims).min(at),
        None => two_thirds(claims),
    };
    let everything = (everything, Extent::Everything);
    let Some(connect) = &tokens.connect else {
        return everything.min((UnixSeconds(0), Extent::Entitlements));
    };
    let entitlements = tokens.entitlements.values().map(|held| two_thirds(&held.token));
    let at = entitlements.fold(two_thirds(&connect.token), UnixSeconds::min);
    everything.min((at, Extent::Entitlements))
}

/// When a certificate that ends before its claims token has a third of that token's life left; `None` for one that lives as long.
fn certificate_is_short(claims: &Verified<ClaimsToken>, ends: UnixSeconds) -> Option<UnixSeconds> {
    let third = claims.exp.saturating_since(claims.iat) / 3;
    (ends < claims.dies_at()).then(|| UnixSeconds(ends.0.saturating_sub(third.as_secs())))
}

fn two_thirds<T: Token>(token: &Verified<T>) -> UnixSeconds {
    let Registered { issued_at, expires_at, .. } = token.registered();
    issued_at + expires_at.saturating_since(issued_at) * 2 / 3
}

/// Decides when the next renewal begins. One runs at a time.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    running: Option<Running>,
    demanded: bool,
    /// Not before this.
    earliest: BootInstant,
    pause: Option<Duration>,
    refused: bool,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    extent: Extent,
    demanded: bool,
}

impl Schedule {
    /// Everything is to be renewed now, whatever is under way.
    pub(crate) fn demand(&mut self) {
        (self.demanded, self.refused, self.earliest) = (true, false, BootInstant::default());
    }

    /// A Gateway asks for renewed tokens. Each Gateway of an administrator's demand does, and what is being renewed answers them
    /// all: whoever is then shown tokens that are too old nevertheless asks again.
    pub(crate) fn ask(&mut self) {
        match &mut self.running {
            Some(running) if running.extent == Extent::Everything => running.demanded = true,
            _ => self.demand(),
        }
    }

    /// Whether nothing is under way and nothing is demanded.
    pub(crate) const fn is_idle(&self) -> bool {
        self.running.is_none() && !self.demanded
    }

    /// What to begin now, if anything.
    pub(crate) fn begin(
        &mut self,
        tokens: &Tokens,
        certificate_ends: UnixSeconds,
        now: (BootInstant, UnixSeconds),
    ) -> Option<Extent> {
        if self.running.is_some() || self.refused || now.0 < self.earliest {
            return None;
        }
        let (at, extent) = due(tokens, certificate_ends);
        let extent = match self.demanded {
            true => Extent::Everything,
            false if now.1 < at => return None,
            false => extent,
        };
        self.running = Some(Running { extent, demanded: self.demanded });
        self.demanded = false;
        Some(extent)
    }

    /// When [`Schedule::begin`] should be asked again.
    pub(crate) fn poll_timeout(
        &self,
        tokens: &Tokens,
        certificate_ends: UnixSeconds,
        now: (BootInstant, UnixSeconds),
    ) -> Option<BootInstant> {
        if self.running.is_some() || self.refused {
            return None;
        }
        let at = now.0 + due(tokens, certificate_ends).0.saturating_since(now.1);
        Some(if self.demanded { self.earliest } else { at.max(self.earliest) })
    }

    /// A renewal went well.
    pub(crate) fn succeeded(&mut self, now: BootInstant) {
        (self.running, self.pause) = (None, None);
        if !self.demanded {
            self.earliest = now + SPACING;
        }
    }

    /// A renewal failed. One that was refused is not tried again with the same tokens; one that was demanded is still demanded.
    pub(crate) fn failed(&mut self, is_refusal: bool, now: BootInstant) {
        let pause = self.pause.unwrap_or(PAUSE_FIRST);
        let was_demanded = self.running.take().is_some_and(|running| running.demanded);
        self.demanded |= was_demanded && !is_refusal;
        (self.refused, self.earliest) = (is_refusal, now + pause);
        self.pause = Some((pause * 2).min(PAUSE_MAX));
    }
}

/// What a renewal brought, verified; it is for the caller to store.
#[derive(Debug)]
pub(crate) struct Renewed {
    pub(crate) judge: Judge,
    pub(crate) tokens: Tokens,
    /// A new certificate chain, where the old one was near its end.
    pub(crate) chain: Option<Vec<CertificateDer<'static>>>,
}

/// Renews over mutual TLS.
pub(crate) async fn renew(state: PathBuf, claims: Held<ClaimsToken>, extent: Extent) -> Result<Renewed> {
    let (folder, identity) = Folder::open_joined(&state)?;
    let key = folder.key()?;
    let mut controller = authenticated(&folder, &identity, &key)?;
    let session = Session::new(&folder, &identity, &key)?;
    let claims = match (extent, identity.kind) {
        (Extent::Entitlements, _) => claims,
        // Its certificate is a new login each time (X12).
        (Extent::Everything, Kind::Service) => session.take_claims(&controller.login_service().await?)?.1,
        (Extent::Everything, _) => session.take_claims(&controller.renew(&claims.text).await?)?.1,
    };
    let (judge, tokens) = session.fetch(&mut controller, claims).await?;
    let now = wall_clock();
    let ends = judge.certificate(&folder.certificates(file::CHAIN)?, &tokens.claims.token, now)?;
    let is_due = match (identity.kind, certificate_is_short(&tokens.claims.token, ends)) {
        // What a program logs in with must not be near its end when the Controller cannot be reached for long.
        (Kind::Service, _) if ends.saturating_since(now) < SERVICE_CERTIFICATE_LEFT => extent == Extent::Everything,
        (_, Some(at)) => at <= now,
        (_, None) => false,
    };
    let chain = if is_due { Some(fetch_certificate(&judge, &mut controller, &key, &tokens).await?) } else { None };
    Ok(Renewed { judge, tokens, chain })
}

/// Whether the Controller refused, so that the same would be refused again.
pub(crate) fn is_refusal(error: &anyhow::Error) -> bool {
    let code = error.chain().find_map(|cause| cause.downcast_ref::<ControllerError>()?.code());
    code.is_some_and(|code| code != "internal" && !code.ends_with("_busy") && !code.ends_with("_limited"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Organisation;

    const HOUR: u64 = 3_600;

    fn tokens(organisation: &Organisation) -> (Tokens, UnixSeconds) {
        let (judge, now) = (organisation.judge(), wall_clock());
        let claims = judge.claims(&organisation.sign(&organisation.claims()), now).unwrap();
        let connect = organisation.connect(&["s1"]);
        let connect = judge.connect(&organisation.sign(&connect), &claims.token, now).unwrap();
        let text = organisation.sign(&organisation.entitlement("s1", 1));
        let entitlements = judge.entitlements(&[text], &claims.token, &connect.token, now).unwrap();
        (Tokens { claims, connect: Some(connect), entitlements }, now)
    }

    #[test]
    fn the_shortest_life_is_renewed_first() {
        let organisation = Organisation::new();
        let (mut tokens, now) = tokens(&organisation);
        let ends = tokens.claims.token.dies_at();
        let after = |(at, extent): (UnixSeconds, Extent)| (at.0 - now.0, extent);
        let slack = 2;
        let (at, extent) = after(due(&tokens, ends));
        assert!(at.abs_diff(400) <= slack && extent == Extent::Entitlements, "the connect token lives for 10 minutes");
        // A certificate that ends in an hour while the login lasts: it is past its two thirds.
        let (at, extent) = due(&tokens, now + Duration::from_secs(HOUR));
        assert!(at < now && extent == Extent::Everything);
        // A login that ends with the connect token: both are due together, and one of them brings the other.
        let mut claims = organisation.claims();
        claims.exp = now + Duration::from_secs(600);
        let mut short = tokens.clone();
        short.claims = organisation.judge().claims(&organisation.sign(&claims), now).unwrap();
        let (at, extent) = due(&short, claims.exp);
        assert!((at.0 - now.0).abs_diff(400) <= slack && extent == Extent::Everything);
        tokens.connect = None;
        assert_eq!(due(&tokens, ends), (UnixSeconds(0), Extent::Entitlements));
    }

    #[test]
    fn one_renewal_at_a_time_and_refusals_end_them() {
        let organisation = Organisation::new();
        let (mut tokens, now) = tokens(&organisation);
        tokens.connect = None;
        let ends = tokens.claims.token.dies_at();
        let boot = BootInstant::from_nanos(1_000_000_000);
        let mut schedule = Schedule::default();
        let begin = |schedule: &mut Schedule, boot| schedule.begin(&tokens, ends, (boot, now));
        assert_eq!(begin(&mut schedule, boot), Some(Extent::Entitlements));
        assert_eq!(begin(&mut schedule, boot), None, "it runs");
        assert_eq!(schedule.poll_timeout(&tokens, ends, (boot, now)), None);
        schedule.failed(false, boot);
        assert_eq!(begin(&mut schedule, boot), None, "it pauses");
        let later = boot + PAUSE_FIRST;
        assert_eq!(schedule.poll_timeout(&tokens, ends, (boot, now)), Some(later));
        assert_eq!(begin(&mut schedule, later), Some(Extent::Entitlements));
        schedule.succeeded(later);
        assert_eq!(begin(&mut schedule, later), None);
        schedule.demand();
        assert_eq!(begin(&mut schedule, later), Some(Extent::Everything), "a demand waits for nothing");
        schedule.failed(false, later);
        assert_eq!(begin(&mut schedule, later), None, "one that failed does");
        let later = later + PAUSE_FIRST;
        assert_eq!(schedule.poll_timeout(&tokens, ends, (boot, now)), Some(later), "and is still demanded");
        assert_eq!(begin(&mut schedule, later), Some(Extent::Everything));
        schedule.failed(true, later);
        assert_eq!(begin(&mut schedule, later + PAUSE_MAX), None, "a refusal is final");
        schedule.demand();
        assert_eq!(begin(&mut schedule, later), Some(Extent::Everything));
    }

    #[test]
    fn one_renewal_answers_all_gateways_that_ask() {
        let organisation = Organisation::new();
        let (tokens, now) = tokens(&organisation);
        let ends = tokens.claims.token.dies_at();
        let boot = BootInstant::from_nanos(1_000_000_000);
        let mut schedule = Schedule::default();
        let begin = |schedule: &mut Schedule, boot| schedule.begin(&tokens, ends, (boot, now));
        schedule.ask();
        assert_eq!(begin(&mut schedule, boot), Some(Extent::Everything));
        schedule.ask();
        schedule.succeeded(boot);
        assert!(schedule.is_idle());
        assert_eq!(begin(&mut schedule, boot), None);
        schedule.ask();
        assert_eq!(begin(&mut schedule, boot), Some(Extent::Everything), "the tokens were too old for somebody");
        schedule.demand();
        schedule.succeeded(boot);
        assert_eq!(begin(&mut schedule, boot), Some(Extent::Everything), "what was said of the tokens is not answered");
        schedule.ask();
        schedule.failed(false, boot);
        assert_eq!(begin(&mut schedule, boot + PAUSE_FIRST), Some(Extent::Everything), "nobody was answered");
    }
}
