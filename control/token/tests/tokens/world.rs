//! One organisation: its keys, a token of each kind, and a verifier that believes all of them.

use std::net::{Ipv4Addr, Ipv6Addr};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringfort_identity::{KeyThumbprint, SessionDn};
use ringfort_token::{
    ClaimsToken, Confirmation, ConnectGateway, ConnectSite, ConnectToken, DenyList, Effect, EnrolTicket,
    EntitlementToken, Entry, EntryScope, Expectation, GatewayConfiguration, GatewayRelay, Grant, Holder,
    InnerAddresses, InviteeKind, KeySet, Refusal, RelayPass, RevocationList, Signed, SigningKey, Token, Verifier,
    audience,
};
use ringfort_types::UnixSeconds;

use crate::json::Json;

pub(crate) const ORGANISATION: &str = "example";
pub(crate) const SITE: &str = "3b0c6c52-0000-4000-8000-000000000001";
pub(crate) const GATEWAY: &str = "gateway-1";
pub(crate) const USER: &str = "user-1";
pub(crate) const GENERATION: u64 = 7;
pub(crate) const NOW: u64 = 1_800_000_000;
/// Life of every sample, whose `iat` and `nbf` are [`NOW`].
pub(crate) const LIFE: u64 = 600;

/// An Ed25519 key that follows from `seed`, in PKCS#8 form version 1 (RFC 8410 §7).
pub(crate) fn pkcs8(seed: u8) -> Vec<u8> {
    let prefix = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    [&prefix[..], &[seed; 32]].concat()
}

/// The key of one Controller.
pub(crate) fn signing_key(seed: u8) -> SigningKey {
    SigningKey::from_pkcs8(&pkcs8(seed)).unwrap()
}

/// The same key for signing anything.
pub(crate) fn raw_key(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

/// The Controller's.
pub(crate) const SEED: u8 = 1;

pub(crate) fn verifier() -> Verifier {
    let mut keys = KeySet::default();
    keys.add(signing_key(SEED).public_key()).unwrap();
    Verifier::new(ORGANISATION, keys)
}

/// The key that tokens with a holder are bound to.
pub(crate) fn holder() -> KeyThumbprint {
    KeyThumbprint::of_spki(signing_key(200).public_key()).unwrap()
}

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// RFC 4648 §5.
pub(crate) const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The same base64url with the next character at its end. Where the last character of the canonical form has bits to spare,
/// which are zero, a careless reader gets the same bytes.
pub(crate) fn next_last(text: &str) -> String {
    let (rest, last) = text.split_at(text.len() - 1);
    let next = ALPHABET.find(last).unwrap() + 1;
    format!("{rest}{}", &ALPHABET[next..=next])
}

pub(crate) fn session() -> SessionDn {
    SessionDn::new("client-1", USER, ORGANISATION).unwrap()
}

fn grant() -> Grant {
    Grant { name: "wiki".into(), to: vec!["10.1.0.0/16".into()], services: vec!["tcp/443".into(), "icmp".into()] }
}

pub(crate) fn entry(scope: EntryScope, effect: Effect) -> Entry {
    Entry { scope, effect, reason: "lost".into(), keep_until: UnixSeconds(NOW + 86_400) }
}

/// `$name { own claims }` with the registered claims of a sample before them.
macro_rules! sample {
    ($name:ident, $audience:expr, $sub:expr, { $($field:ident: $value:expr),* $(,)? }) => {
        $name {
            iss: ORGANISATION.into(),
            sub: $sub,
            aud: vec![$audience],
            jti: "token-1".into(),
            iat: UnixSeconds(NOW),
            nbf: UnixSeconds(NOW),
            exp: UnixSeconds(NOW + LIFE),
            $($field: $value),*
        }
    };
}

pub(crate) fn ticket() -> EnrolTicket {
    let (kind, site, user) = (InviteeKind::Gateway, SITE.into(), String::new());
    sample!(EnrolTicket, audience::join("hash"), GATEWAY.into(), { kind: kind, site: site, user: user })
}

pub(crate) fn claims() -> ClaimsToken {
    sample!(ClaimsToken, audience::controller(ORGANISATION), session().to_string(), {
        cnf: Confirmation { jkt: holder() },
        user: USER.into(),
        generation: GENERATION,
        name: "Ada \"Ä\" \u{1f980}".into(),
        groups: vec!["engineers".into()],
        auth_time: UnixSeconds(NOW - 10),
    })
}

pub(crate) fn entitlement() -> EntitlementToken {
    sample!(EntitlementToken, audience::site(SITE), session().to_string(), {
        cnf: Confirmation { jkt: holder() },
        user: USER.into(),
        generation: GENERATION,
        seq: 3,
        inner: InnerAddresses { ipv4: Some(Ipv4Addr::new(10, 97, 0, 9)), ipv6: Some(Ipv6Addr::LOCALHOST) },
        grants: vec![grant()],
    })
}

pub(crate) fn connect() -> ConnectToken {
    let gateway = ConnectGateway {
        id: GATEWAY.into(),
        address: "203.0.113.10:443".into(),
        certificate_digests: vec!["ab".into()],
        reported: false,
    };
    sample!(ConnectToken, audience::session(&session().to_string()), session().to_string(), {
        cnf: Confirmation { jkt: holder() },
        user: USER.into(),
        generation: GENERATION,
        sites: vec![ConnectSite { site: SITE.into(), name: "Paris".into(), gateways: vec![gateway] }],
        relays: Vec::new(),
    })
}

pub(crate) fn configuration() -> GatewayConfiguration {
    sample!(GatewayConfiguration, audience::gateway(GATEWAY), GATEWAY.into(), {
        seq: 12,
        site: SITE.into(),
        pools: vec!["10.97.0.1/16".into()],
        allow: vec![grant()],
        lease: UnixSeconds(NOW + LIFE),
        relays: vec![GatewayRelay { fqdn: "relay.example".into(), pass: "a.b.c".into() }],
        draining: false,
    })
}

pub(crate) fn pass() -> RelayPass {
    sample!(RelayPass, audience::relay("relay.example"), "hash of the day".into(), {})
}

pub(crate) fn revocations(epoch: u64, after: u64, entries: Vec<Entry>) -> RevocationList {
    sample!(RevocationList, audience::gateways(ORGANISATION), "revocations".into(), {
        epoch: epoch, after: after, entries: entries, numbers: vec![],
    })
}

fn all_entries() -> Vec<Entry> {
    vec![
        entry(EntryScope::Token("other".into()), Effect::Revoke),
        entry(EntryScope::Certificate("0a1b".into()), Effect::RenewBy(UnixSeconds(NOW + 30))),
        entry(EntryScope::Key(holder()), Effect::Revoke),
        entry(EntryScope::User { user: USER.into(), below: 2 }, Effect::Revoke),
    ]
}

/// A kind of token, without its type.
pub(crate) struct Kind {
    pub(crate) typ: &'static str,
    pub(crate) bytes_max: usize,
    /// The claims of a sample, as this crate writes them.
    pub(crate) claims: Json,
    /// The audience of the sample.
    pub(crate) audience: String,
    /// Bound to [`holder`].
    pub(crate) bound: bool,
    /// When the token dies, or the code of its refusal.
    pub(crate) verify: fn(&Verifier, &str, &Expectation<'_>) -> Result<UnixSeconds, &'static str>,
    /// Signs claims, written in JSON, in the ordinary way.
    pub(crate) sign: fn(&SigningKey, &str) -> Result<String, String>,
}

fn kind<T: Token>(sample: &T) -> Kind {
    Kind {
        typ: T::TYPE,
        bytes_max: T::BYTES_MAX,
        claims: Json::of(sample),
        audience: sample.registered().audiences[0].clone(),
        bound: sample.registered().holder.is_some(),
        verify: |verifier, text, expectation| {
            let signed = Signed::<T>::from_text(text).map_err(|_| "too_long")?;
            let verified = verifier.verify(&signed, expectation).map_err(|refusal: Refusal| {
                assert!(Refusal::CODES.contains(&refusal.code()), "{refusal}");
                refusal.code()
            })?;
            Ok(verified.dies_at())
        },
        sign: |key, claims| {
            let claims: T = serde_json::from_str(claims).map_err(|error| error.to_string())?;
            key.sign(&claims).map(|signed| signed.as_str().into()).map_err(|error| error.to_string())
        },
    }
}

pub(crate) fn all() -> Vec<Kind> {
    vec![
        kind(&ticket()),
        kind(&claims()),
        kind(&entitlement()),
        kind(&connect()),
        kind(&configuration()),
        kind(&pass()),
        kind(&revocations(1, 0, all_entries())),
    ]
}

impl Kind {
    /// The header that the Controller writes.
    pub(crate) fn header(&self) -> Json {
        let kid = signing_key(SEED).id().to_string();
        Json::parse(&format!(r#"{{"alg":"EdDSA","typ":"{}","kid":"{kid}"}}"#, self.typ))
    }

    /// A text with these claims, signed by the Controller.
    pub(crate) fn signed(&self, claims: &Json) -> String {
        sign(&self.header(), claims)
    }

    /// The sample, signed by the Controller.
    pub(crate) fn text(&self) -> String {
        self.signed(&self.claims)
    }

    /// Judges `text` as one of this kind that is shown as the sample should be.
    pub(crate) fn judge(&self, text: &str) -> Result<UnixSeconds, &'static str> {
        self.judge_at(text, UnixSeconds(NOW), &DenyList::default())
    }

    pub(crate) fn judge_at(&self, text: &str, now: UnixSeconds, deny: &DenyList) -> Result<UnixSeconds, &'static str> {
        let key = holder();
        let holder = if self.bound { Holder::Key(&key) } else { Holder::Nobody };
        (self.verify)(&verifier(), text, &Expectation { audience: &self.audience, holder, now, deny })
    }
}

/// Header and claims in their texts, with the Controller's signature over both.
pub(crate) fn sign(header: &Json, claims: &Json) -> String {
    sign_parts(&b64(header.to_string()), &b64(claims.to_string()))
}

pub(crate) fn sign_parts(header: &str, payload: &str) -> String {
    let message = format!("{header}.{payload}");
    let signature = raw_key(SEED).sign(message.as_bytes());
    format!("{message}.{}", b64(signature))
}

/// The public half of the Controller's key in the forms in which it might be taken for a secret.
pub(crate) fn public_forms() -> [Vec<u8>; 3] {
    let key = signing_key(SEED);
    [raw_key(SEED).public_key().as_ref().to_vec(), key.public_key().to_vec(), key.id().as_bytes().to_vec()]
}
