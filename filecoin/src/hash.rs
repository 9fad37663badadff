//! Thirty-two bytes with a meaning: commitments, tickets, seeds, randomness. They are hex in JSON,
//! so that logs and API bodies can be compared by eye.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Hash32(pub [u8; 32]);

#[derive(Debug, thiserror::Error)]
#[error("expected 64 hexadecimal digits, got {0:?}")]
pub struct NotAHash(String);

impl Hash32 {
    pub fn from_slice(bytes: &[u8]) -> Result<Self, NotAHash> {
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| NotAHash(hex::encode(bytes)))
    }

    /// Randomness for use as a field element: proofs reject values whose two top bits are set.
    #[must_use]
    pub fn as_field_element(mut self) -> Self {
        let [.., last] = &mut self.0;
        *last &= 0x3f;
        self
    }
}

impl fmt::Display for Hash32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Hash32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Hash32 {
    type Err = NotAHash;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = hex::decode(text).map_err(|_| NotAHash(text.to_owned()))?;
        Self::from_slice(&bytes).map_err(|_| NotAHash(text.to_owned()))
    }
}

impl Serialize for Hash32 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash32 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}
