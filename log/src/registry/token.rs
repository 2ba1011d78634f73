//! Secrets of devices: 256 random bits, shown once, of which only the SHA-256 is kept.

use std::fmt;
use std::hash::{Hash, Hasher};

use driftline_schemas::bundle::files::hex;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::RegistryError;

/// What every token begins with, so that one is known for what it is when it turns up in a log or a
/// repository.
pub const TOKEN_PREFIX: &str = "dltk_";

/// A bearer token. Its text is for the device; `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Draws a token.
    ///
    /// # Errors
    /// When the operating system has no random bytes.
    pub fn generate() -> Result<Self, RegistryError> {
        let mut secret = [0u8; 32];
        getrandom::fill(&mut secret).map_err(|error| RegistryError::Random(error.to_string()))?;
        Ok(Self(format!("{TOKEN_PREFIX}{}", hex(&secret))))
    }

    /// The text, as it goes after `Authorization: Bearer`.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(&self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({TOKEN_PREFIX}…)")
    }
}

/// SHA-256 of a token. Equality takes the same time wherever two differ.
#[derive(Debug, Clone, Copy, Eq)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Hashes what a sender presents.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Reads the hexadecimal form; `None` when it is not 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut hash = [0u8; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16);
            *byte = (digit(0)? * 16 + digit(1)?) as u8;
        }
        Some(Self(hash))
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Hash for TokenHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token has 256 bits, differs each time, and its hash survives its text form.
    #[test]
    fn tokens_are_long_and_differ() {
        let (one, other) = (Token::generate().unwrap(), Token::generate().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.expose().len(), TOKEN_PREFIX.len() + 64);
        assert_eq!(TokenHash::parse(&one.hash().to_string()), Some(one.hash()));
        assert_ne!(one.hash(), other.hash());
        assert!(!format!("{one:?}").contains(one.expose()));
        for wrong in ["", "00", &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(TokenHash::parse(wrong), None, "{wrong}");
        }
    }
}
