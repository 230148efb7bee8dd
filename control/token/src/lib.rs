//! The family of signed tokens (RFC 7519): what each says, how it is made, and the one way to believe it.
//!
//! | kind | `typ` | audience | who shows it to whom |
//! |--|--|--|--|
//! | [`EnrolTicket`] | `rf-enrol+jwt` | one Controller's join listener | joiner → Controller, beside the cookie |
//! | [`ClaimsToken`] | `rf-claims+jwt` | the Controller and the named sites | client → Controller, Gateways |
//! | [`EntitlementToken`] | `rf-entitlement+jwt` | one site | client → Gateways; also pushed |
//! | [`ConnectToken`] | `rf-connect+jwt` | one session | read by the client only |
//! | [`GatewayConfiguration`] | `rf-gateway+jwt` | one Gateway | Controller → Gateway |
//! | [`RelayPass`] | `rf-relay+jwt` | one Relay | Gateway → Relay |
//! | [`RevocationList`] | `rf-revocations+jwt` | all Gateways | Controller → Gateways |
//!
//! Bytes become [`Signed`] when they are short enough, and [`Verified`] only through [`Verifier::verify`]: signature,
//! type, issuer, audience, time, holder and deny list in one function, every field mandatory. Nothing else makes a
//! [`Verified`]. The algorithm belongs to the key that `kid` names and is never read from the token; `typ` is compared, so
//! that no kind passes for another (RFC 8725 §3.1, §3.11). Header and claims are read only in the form in which this crate
//! writes them: an unknown, doubled or missing member is refused, and so is any other text of the same JSON.
//!
//! [`proof`] is the proof that a request comes from the holder of the key in `cnf.jkt` (RFC 9449), [`DenyList`] what has been
//! taken back since.
//!
//! What this crate deliberately does not do: it reads no clock and makes no randomness (both are passed in), stores
//! nothing, decides nothing about packets, and knows no certificates: keys come from [`KeySet`], whose maker has verified
//! the signers' certificates. Requirements: R7, R12, A5–A7, C13, C14; the table is that of `docs/CONTROL.md`.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod deny;
mod jws;
mod keys;
mod kinds;
pub mod proof;
mod verify;

pub use deny::{DenyList, Effect, Entry, EntryScope, ListError, Serial, Shown, Standing};
pub use jws::{Signed, TooLong};
pub use keys::{KeyRefused, KeySet, SigningKey};
pub use kinds::{
    ClaimsToken, Confirmation, ConnectGateway, ConnectSite, ConnectToken, EnrolTicket, EntitlementToken,
    GatewayConfiguration, GatewayRelay, Grant, InnerAddresses, InviteeKind, Registered, RelayPass, RevocationList,
    Token, audience,
};
pub use verify::{Expectation, Holder, LEEWAY_SECONDS, Refusal, Verified, Verifier};
