//! Passes let a machine read a sector's files on another machine. The server signs a pass and the
//! machine with the files checks it. Both know the digest of that machine's key, so they need not
//! talk about each pass.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::protocol::StoredSector;
use crate::{
    clock::{Micros, SECOND},
    ids::digest,
};

/// Permission to read one sector's files until a given time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    pub sector: StoredSector,
    pub until: Micros,
}

impl Pass {
    /// `key_hash`: the digest of the key of the machine that has the files.
    #[must_use]
    pub fn sign(&self, key_hash: &str) -> String {
        let code = self
            .mac(key_hash)
            .map(|mac| hex::encode(mac.finalize().into_bytes()))
            .unwrap_or_default();
        format!("{}.{code}", self.until / SECOND)
    }

    /// Checks a pass that was presented for `sector` to the machine with this key. `None`: it is
    /// invalid or has expired.
    #[must_use]
    pub fn read(text: &str, sector: StoredSector, key: &str, now: Micros) -> Option<Self> {
        let (until, code) = text.split_once('.')?;
        let pass = Self {
            sector,
            until: until.parse::<i64>().ok()?.checked_mul(SECOND)?,
        };
        pass.mac(&digest(key))?
            .verify_slice(&hex::decode(code).ok()?)
            .ok()?;
        (now < pass.until).then_some(pass)
    }

    fn mac(&self, key_hash: &str) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(key_hash.as_bytes()).ok()?;
        let StoredSector { miner, number } = self.sector;
        mac.update(format!("read {miner} {number} {}", self.until / SECOND).as_bytes());
        Some(mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_covers_one_sector_of_one_machine_until_it_expires() {
        let seven = StoredSector {
            miner: 1000,
            number: 7,
        };
        let pass = Pass {
            sector: seven,
            until: 100 * SECOND,
        };
        let text = pass.sign(&digest("the key"));
        assert_eq!(Pass::read(&text, seven, "the key", 99 * SECOND), Some(pass));
        assert_eq!(
            Pass::read(&text, seven, "the key", 100 * SECOND),
            None,
            "it has run out"
        );
        assert_eq!(
            Pass::read(&text, StoredSector { number: 8, ..seven }, "the key", 0),
            None
        );
        assert_eq!(Pass::read(&text, seven, "another key", 0), None);
        assert_eq!(
            Pass::read(&text.replace("100.", "999."), seven, "the key", 0),
            None,
            "nobody makes it last longer"
        );
        for broken in ["", ".", "100.", "100.zz", "x.00"] {
            assert_eq!(Pass::read(broken, seven, "the key", 0), None, "{broken:?}");
        }
    }
}
