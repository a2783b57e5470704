//! Secrets of 32 bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// 32 bytes that nobody can guess. Its text form is 64 hexadecimal digits; it is not shown by `Debug`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Secret([u8; 32]);

impl Secret {
    /// A new random secret.
    #[must_use]
    pub fn new() -> Self {
        Self(rand::random())
    }

    /// The secret of these bytes.
    pub(crate) fn of(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The secret's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The secret as 64 hexadecimal digits.
    #[must_use]
    pub fn to_text(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether these bytes are the secret. It takes the same time wherever they differ, so that nobody can find a secret byte
    /// by byte.
    #[must_use]
    pub fn is(&self, bytes: &[u8]) -> bool {
        bytes.len() == self.0.len() && self.0.iter().zip(bytes).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

impl Default for Secret {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.is(&other.0)
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The text is not a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it does not consist of 64 hexadecimal digits")]
pub struct NotASecret;

impl FromStr for Secret {
    type Err = NotASecret;

    fn from_str(text: &str) -> Result<Self, NotASecret> {
        // `from_str_radix` accepts a sign.
        if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(NotASecret);
        }
        let mut bytes = [0; 32];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| NotASecret)?;
        }
        Ok(Self(bytes))
    }
}

impl From<Secret> for String {
    fn from(secret: Secret) -> Self {
        secret.to_text()
    }
}

impl TryFrom<String> for Secret {
    type Error = NotASecret;

    fn try_from(text: String) -> Result<Self, NotASecret> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_secret_is_equal_only_to_itself_and_survives_its_text() {
        let (secret, other) = (Secret::new(), Secret::new());
        assert_eq!(secret.to_text().parse(), Ok(secret.clone()));
        assert_ne!(secret, other);
        for byte in 0..32 {
            let mut changed = secret.clone();
            changed.0[byte] ^= 1;
            assert_ne!(changed, secret);
        }
        let signed = format!("+1{}", "0".repeat(62));
        for wrong in ["", "zz", &"0".repeat(63), &"g".repeat(64), &"é".repeat(32), &signed] {
            assert_eq!(wrong.parse::<Secret>(), Err(NotASecret), "{wrong}");
        }
        assert!(!format!("{secret:?}").contains(&secret.to_text()[..4]));
    }
}
