//! Tokens and their hashes.

use std::fmt;
use std::str::FromStr;

use ring::digest;

use crate::secret::Secret;

/// What the text of every token begins with, so that people and scanners recognise one.
const PREFIX: &str = "fluvial_";

/// The token by which a user shows who it is: a secret, which `Debug` does not show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token(Secret);

impl Token {
    /// A new random token.
    #[must_use]
    pub fn random() -> Self {
        Self(Secret::new())
    }

    pub(crate) fn of(secret: Secret) -> Self {
        Self(secret)
    }

    /// The text that a user keeps.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{PREFIX}{}", self.0.to_text())
    }

    /// What is stored of the token.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        let hash = digest::digest(&digest::SHA256, self.to_text().as_bytes());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(hash.as_ref());
        TokenHash(bytes)
    }
}

/// The text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token consists of '{PREFIX}' and 64 hexadecimal digits")]
pub struct NotAToken;

impl FromStr for Token {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<Self, NotAToken> {
        let secret = text.strip_prefix(PREFIX).ok_or(NotAToken)?;
        secret.parse().map(Self).map_err(|_| NotAToken)
    }
}

/// The SHA-256 of a token's text. It is no secret: no token follows from it. Looking one up may therefore take a time that depends
/// on its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenHash([u8; 32]);

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text in which tokens are replaced, for logs: a user may write one where a name belongs.
pub(crate) fn without_tokens(text: &str) -> String {
    let mut parts = text.split(PREFIX);
    let mut cleaned = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_hexdigit());
        // A short one may be a part of a name.
        let hidden = part.len() - rest.len() >= 16;
        cleaned.push_str(PREFIX);
        cleaned.push_str(if hidden { "…" } else { "" });
        cleaned.push_str(if hidden { rest } else { part });
    }
    cleaned
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_is_recognised_by_its_text_and_not_shown_by_debug() {
        let token = Token::random();
        let text = token.to_text();
        assert!(text.starts_with("fluvial_") && text.len() == 8 + 64);
        assert_eq!(text.parse::<Token>().unwrap(), token);
        assert_ne!(Token::random().hash(), token.hash());
        assert!(!format!("{token:?}").contains(&text[8..16]));
        for wrong in ["", "fluvial_", &text[8..], &text[..71], &format!("{text}0"), &format!("Fluvial_{}", &text[8..])]
        {
            assert_eq!(wrong.parse::<Token>(), Err(NotAToken), "{wrong}");
        }
    }

    #[test]
    fn a_hash_is_what_sha256sum_prints_for_the_text() {
        let token: Token = format!("fluvial_{}", "0".repeat(64)).parse().unwrap();
        let expected = digest::digest(&digest::SHA256, format!("fluvial_{}", "0".repeat(64)).as_bytes());
        let expected: String = expected.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(token.hash().to_string(), expected);
    }

    #[test]
    fn logs_hold_no_token() {
        let token = Token::random().to_text();
        assert_eq!(without_tokens(&format!("/v1/tokens/{token}")), "/v1/tokens/fluvial_…");
        assert_eq!(without_tokens(&format!("/{token}/a/{token}z")), "/fluvial_…/a/fluvial_…z");
        for name in ["/v1/tokens/anna", "/v1/jobs/fluvial_ab", "fluvial_", ""] {
            assert_eq!(without_tokens(name), name);
        }
    }
}
