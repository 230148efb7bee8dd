//! Why something failed, in words that may be a provider's.

use std::fmt;

/// Longest reason that is passed on, in characters.
const CHARACTERS_MAX: usize = 200;

/// At most 200 printable ASCII characters, so that nothing a provider sends fills an audit log or moves a terminal's cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reason(String);

impl From<String> for Reason {
    fn from(text: String) -> Self {
        let is_plain = |letter: char| letter.is_ascii_graphic() || letter == ' ';
        if text.len() <= CHARACTERS_MAX && text.chars().all(is_plain) {
            return Self(text);
        }
        let plain = |letter| if is_plain(letter) { letter } else { '?' };
        let mut bounded: String = text.chars().take(CHARACTERS_MAX).map(plain).collect();
        if text.chars().nth(CHARACTERS_MAX).is_some() {
            bounded.replace_range(CHARACTERS_MAX - 3.., "...");
        }
        Self(bounded)
    }
}

impl From<&str> for Reason {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_short_and_printable() {
        assert_eq!(Reason::from("status 500 of it").to_string(), "status 500 of it");
        assert_eq!(Reason::from("\x1b[2J\n\u{202e}ü\0").to_string(), "?[2J????");
        let exact = "a".repeat(CHARACTERS_MAX);
        assert_eq!(Reason::from(exact.clone()).to_string(), exact);
        for long in ["a".repeat(100_000), "ü".repeat(CHARACTERS_MAX + 1)] {
            let text = Reason::from(long).to_string();
            assert!(text.len() == CHARACTERS_MAX && text.ends_with("..."), "{text}");
        }
    }
}
