//! One-time passwords by time (RFC 6238) over HMAC-SHA-1 (RFC 4226), as every authenticator app makes them: six digits, a new one
//! each 30 s.
//!
//! Pure: which step was used last, and how often somebody was wrong, is for the caller to keep.

use aws_lc_rs::{constant_time, hmac};
use ringfort_types::UnixSeconds;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes of a secret: those of the hash (RFC 4226 §4, R6).
pub const SECRET_BYTES: usize = 20;
/// Seconds of a step (RFC 6238 §5.2).
const STEP_SECONDS: u64 = 30;
/// Digits of a code.
const DIGITS: usize = 6;
/// Steps before and after the present one that count: clocks differ, and typing takes a while (RFC 6238 §5.2).
const WINDOW_STEPS: u64 = 1;
/// RFC 4648 §6.
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// What an authenticator and we share. Not printed, and wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; SECRET_BYTES]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// A time step: no code of one that was used is good again, nor of one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step(pub u64);

impl Step {
    /// The step of a time.
    #[must_use]
    pub const fn at(now: UnixSeconds) -> Self {
        Self(now.0 / STEP_SECONDS)
    }
}

impl Secret {
    /// A new one; `None` when there is no randomness.
    #[must_use]
    pub fn generate() -> Option<Self> {
        let mut secret = Self([0; SECRET_BYTES]);
        aws_lc_rs::rand::fill(&mut secret.0).ok()?;
        Some(secret)
    }

    /// Takes the bytes of one.
    #[must_use]
    pub const fn new(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(bytes)
    }

    /// Its bytes, for sealing.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; SECRET_BYTES] {
        &self.0
    }

    /// Its text for people and apps: base32 without padding.
    #[must_use]
    pub fn to_base32(&self) -> String {
        let (mut text, mut bits, mut count) = (String::new(), 0_u32, 0);
        for byte in self.0 {
            bits = bits << 8 | u32::from(byte);
            count += 8;
            while count >= 5 {
                count -= 5;
                text.push(char::from(BASE32[(bits >> count & 31) as usize]));
            }
        }
        text
    }

    /// The URL that an authenticator app takes, most often as a picture: `otpauth://totp/ISSUER:ACCOUNT?secret=…`.
    #[must_use]
    pub fn url(&self, issuer: &str, account: &str) -> String {
        let encoded =
            |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20");
        let (issuer, account) = (encoded(issuer), encoded(account));
        format!("otpauth://totp/{issuer}:{account}?secret={}&issuer={issuer}", self.to_base32())
    }

    /// The code of a step (RFC 4226 §5.3).
    #[must_use]
    pub fn code(&self, step: Step) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &self.0);
        let tag = hmac::sign(&key, &step.0.to_be_bytes());
        let tag = tag.as_ref();
        let offset = usize::from(tag[tag.len() - 1] & 15);
        let number = tag[offset..offset + 4].iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        format!("{:0DIGITS$}", (number & 0x7fff_ffff) % 10_u32.pow(DIGITS as u32))
    }

    /// The step whose code `code` is, if it is one of now and later than `used`, the last that was used.
    #[must_use]
    pub fn check(&self, code: &str, used: Option<Step>, now: UnixSeconds) -> Option<Step> {
        let present = Step::at(now).0;
        let steps = present.saturating_sub(WINDOW_STEPS)..=present.saturating_add(WINDOW_STEPS);
        let mut found = None;
        // All of them are computed, so that the time says nothing.
        for step in steps.map(Step) {
            let fits = constant_time::verify_slices_are_equal(self.code(step).as_bytes(), code.as_bytes()).is_ok();
            if fits && used.is_none_or(|used| step > used) {
                found = Some(step);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret::new(*b"12345678901234567890")
    }

    #[test]
    fn codes_are_those_of_the_standards() {
        // RFC 4226 appendix D.
        let expected =
            ["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"];
        for (step, code) in (0..).zip(expected) {
            assert_eq!(secret().code(Step(step)), code);
        }
        // RFC 6238 appendix B, of whose eight digits the last six are ours.
        for (at, code) in
            [(59, "287082"), (1_111_111_109, "081804"), (1_234_567_890, "005924"), (20_000_000_000, "353130")]
        {
            assert_eq!(secret().code(Step::at(UnixSeconds(at))), code);
        }
    }

    #[test]
    fn a_code_is_good_for_its_step_and_those_beside_it_and_once() {
        let (secret, now) = (secret(), UnixSeconds(1_800_000_000));
        let code = secret.code(Step::at(now));
        for seconds in [0, 29, 59] {
            assert_eq!(secret.check(&code, None, UnixSeconds(now.0 + seconds)), Some(Step::at(now)));
        }
        assert_eq!(secret.check(&code, None, UnixSeconds(now.0 + 60)), None, "too old");
        assert_eq!(secret.check(&code, None, UnixSeconds(now.0 - 31)), None, "too early");
        assert_eq!(secret.check(&code, Some(Step::at(now)), now), None, "used");
        let before = secret.code(Step(Step::at(now).0 - 1));
        assert_eq!(secret.check(&before, Some(Step::at(now)), now), None, "before the last that was used");
        for wrong in ["", "000000", "12345", &format!("{code}0"), &code[..5]] {
            assert_eq!(secret.check(wrong, None, now), None, "{wrong}");
        }
    }

    #[test]
    fn apps_are_told_in_a_url() {
        // RFC 4648 §10: "foobar" is MZXW6YTBOI.
        assert_eq!(secret().to_base32(), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
        let url = secret().url("Ringfort", "alice b");
        assert_eq!(url, "otpauth://totp/Ringfort:alice%20b?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Ringfort");
        assert_ne!(Secret::generate(), Secret::generate());
        assert_eq!(format!("{:?}", secret()), "Secret");
    }
}
