//! Randomness as the chain draws it: blake2b over tag, base, round and entropy. For tickets, the
//! base is that of the round, or of the last round before it that was not null. For beacons, it is
//! that of the round itself.

use fvm_shared::clock::ChainEpoch;
use sealyard_filecoin::hash::Hash32;

use crate::state::Chain;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Tickets,
    Beacon,
}

/// `tag` is a domain separation tag; `round` the epoch asked for.
#[must_use]
pub fn draw(chain: &Chain, source: Source, tag: i64, round: ChainEpoch, entropy: &[u8]) -> Hash32 {
    let (purpose, base_epoch) = match source {
        Source::Tickets => ("ticket", chain.tipset(round.max(0)).map_or(0, |t| t.epoch)),
        Source::Beacon => ("beacon", round),
    };
    let forks = if source == Source::Tickets {
        chain.forks_before(base_epoch)
    } else {
        0
    };
    let purpose = if forks == 0 {
        purpose.to_owned()
    } else {
        format!("{purpose}/{forks}")
    };
    let base = blake2b_simd::Params::new()
        .hash_length(32)
        .hash(&chain.digest(&purpose, base_epoch));
    let hash = blake2b_simd::Params::new()
        .hash_length(32)
        .to_state()
        .update(&tag.to_be_bytes())
        .update(base.as_bytes())
        .update(&round.to_be_bytes())
        .update(entropy)
        .finalize();
    Hash32::from_slice(hash.as_bytes()).unwrap_or_default()
}
