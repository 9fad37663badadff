//! How often somebody may try to sign in: guessing a password must take longer than a life.

use std::num::NonZeroU32;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// Tries that are free at once, and then per minute, for one e-mail address.
const TRIES: NonZeroU32 = NonZeroU32::new(8).unwrap();
/// Addresses remembered before those that have not tried lately are forgotten.
const REMEMBERED: usize = 100_000;

pub struct Attempts(DefaultKeyedRateLimiter<String>);

impl Default for Attempts {
    fn default() -> Self {
        Self(RateLimiter::keyed(Quota::per_minute(TRIES)))
    }
}

impl Attempts {
    /// False when this address has tried too often.
    pub fn allow(&self, email: &str) -> bool {
        if self.0.len() > REMEMBERED {
            self.0.retain_recent();
        }
        self.0.check_key(&email.trim().to_lowercase()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guessing_is_slowed_down_per_address_whatever_its_spelling() {
        let attempts = Attempts::default();
        assert!((0..TRIES.get()).all(|_| attempts.allow("ada@example.org")));
        assert!(!attempts.allow(" Ada@Example.org"));
        assert!(attempts.allow("bob@example.org"), "others are not affected");
    }
}
