//! Chapter 7: what is refused, by whom, and that each refusal is written down and counted once.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use ringfort_stage::hostile::{self, Refused};
use ringfort_stage::{Process, Realm};
use ringfort_token::EntitlementToken;
use serde_json::Value;

use super::report::Report;
use super::story::{ALICE, Cast, MALLORY, PATIENCE, settle};

/// Who refuses.
#[derive(Clone, Copy)]
enum By<'a> {
    Controller(&'a Process),
    Gateway(&'a Process),
}

impl By<'_> {
    fn process(&self) -> &Process {
        match self {
            Self::Controller(process) | Self::Gateway(process) => process,
        }
    }
}

pub(super) fn tell(realm: &Realm, report: &mut Report, cast: &Cast) -> Result<()> {
    let lab = &realm.stage.lab;
    let controller = By::Controller(&cast.controller);
    let gateway = By::Gateway(cast.gateways.first().context("no gateway")?);
    report.step("mallory", "has an account, a machine that joined, an entitlement, and logs in", |_| {
        settle(realm, MALLORY)
    })?;
    let (mallory, alice) = (realm.state(MALLORY), realm.state(ALICE));
    let at = realm.gateway_address(0);
    let claims = read(&mallory, "claims.jwt")?;
    let entitlement = entitlements(&mallory)?.pop().context("mallory has no entitlement")?;
    let other_site = entitlements(&alice)?;
    let present = |folder: &Path, user: &str, claims: &str, entitlement: &str| {
        lab.run_in(lab.client(user)?, || hostile::present(folder, at, claims, entitlement))?
    };

    refused(report, controller, "an invitation is used again", "invitation_used", || {
        let name = "second";
        said(&realm.join(name, lab.gateway_at(1)?, &cast.used_invitation)?.refused()?)
    })?;
    refused(report, controller, "an invitation whose key hash is another one's", "handshake_refused", || {
        let line = realm.invite(&["device", "--user", MALLORY])?;
        let error = realm.join("third", lab.client(MALLORY)?, &other_key(&line)?)?.refused()?;
        ensure!(error.contains("nothing was sent"), "expected that nothing was sent, found {error}");
        Ok(Refused { code: "handshake_refused".into(), event: String::new() })
    })?;
    refused(report, gateway, "a signature with one bit changed", "token_bad_signature", || {
        present(&mallory, MALLORY, &claims, &hostile::bit_flipped(&entitlement)?)
    })?;
    refused(
        report,
        gateway,
        "a right signature under a wrong type: claims as entitlement",
        "token_wrong_type",
        || present(&mallory, MALLORY, &claims, &claims),
    )?;
    refused(report, gateway, "the entitlement of the other site", "token_wrong_audience", || {
        let elsewhere = other_site.iter().find(|token| !same_site(token, &entitlement)).context("no other site")?;
        present(&mallory, MALLORY, &claims, elsewhere)
    })?;
    refused(report, gateway, "another user's tokens over alice's tunnel", "token_wrong_holder", || {
        present(&alice, ALICE, &claims, &entitlement)
    })?;
    refused(report, gateway, "a foreign Controller's token that says the same", "token_unknown_key", || {
        present(&mallory, MALLORY, &claims, &hostile::foreign::<EntitlementToken>(&entitlement)?)
    })?;
    refused(report, controller, "a user's certificate on the Gateways' gRPC port", "wrong_role", || {
        let to = realm.controller_address();
        lab.run_in(lab.client(MALLORY)?, || hostile::subscribe(&mallory, to))?
    })
}

/// Carries out what must be refused, and checks the code, that there is an event, and that one counter has grown by one and no
/// other refusal's has.
fn refused(
    report: &mut Report,
    by: By<'_>,
    title: &str,
    code: &str,
    attempt: impl FnOnce() -> Result<Refused>,
) -> Result<()> {
    report.step("refusal", title, |what| {
        let before = by.process().status()?;
        let found = attempt()?;
        ensure!(found.code == code, "expected {code}, found {}", found.code);
        let (list, field) = match by {
            By::Controller(_) => ("events", "outcome"),
            By::Gateway(_) => ("audit", "code"),
        };
        let written = |status: &Value| {
            let events = status[list].as_array().map(Vec::as_slice).unwrap_or_default();
            let of_code = events.iter().filter(|event| event[field] == code);
            of_code.max_by_key(|event| event["at"].as_u64()).cloned()
        };
        // Whoever is refused may hear of it before it is written down.
        let after = by.process().wait_until(PATIENCE, |status| written(status).is_some())?;
        let counts = |status: &Value| status["totals"].as_object().cloned().unwrap_or_default();
        let before = counts(&before);
        let grown: Vec<(String, u64)> = counts(&after)
            .into_iter()
            .filter(|(name, _)| name.starts_with("refused_"))
            .filter_map(|(name, count)| {
                let grown = count.as_u64()? - before.get(&name).and_then(Value::as_u64).unwrap_or_default();
                (grown > 0).then_some((name, grown))
            })
            .collect();
        let counter = format!("refused_{code}");
        ensure!(grown == [(counter.clone(), 1)], "expected {counter} to grow by one alone, found {grown:?}");
        let event = written(&after).context("no audit event")?;
        let id = event["id"].as_str().context("an event without an id")?;
        ensure!(found.event.is_empty() || found.event == id, "told event {}, written down {id}", found.event);
        *what = format!("{title}: {code}, event {id}, counted once");
        Ok(())
    })
}

/// Code and event in an error as the commands print it: `… [code, event id]`.
fn said(error: &str) -> Result<Refused> {
    let bracket = error.rsplit_once('[').and_then(|(_, rest)| rest.split_once(']'));
    let (inside, _) = bracket.with_context(|| format!("no code in {error:?}"))?;
    let (code, event) = inside.split_once(", event ").unwrap_or((inside, ""));
    Ok(Refused { code: code.into(), event: event.into() })
}

/// The command line with the first character of the key hash changed.
fn other_key(line: &str) -> Result<String> {
    let (address, secret) = line.split_once('/').context("no invitation")?;
    let first = if secret.starts_with('A') { "B" } else { "A" };
    Ok(format!("{address}/{first}{}", secret.get(1..).context("no key hash")?))
}

fn read(folder: &Path, name: &str) -> Result<String> {
    std::fs::read_to_string(folder.join(name)).with_context(|| folder.join(name).display().to_string())
}

/// The entitlement tokens in a client's folder.
fn entitlements(folder: &Path) -> Result<Vec<String>> {
    let mut tokens = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with("entitlement-") {
            tokens.push(read(folder, &name)?);
        }
    }
    Ok(tokens)
}

fn same_site(one: &str, other: &str) -> bool {
    let audience = |token: &str| hostile::said::<EntitlementToken>(token).map(|token| token.aud).ok();
    audience(one) == audience(other)
}
