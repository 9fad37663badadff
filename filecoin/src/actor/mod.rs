//! Messages to the miner actor: method numbers, CBOR parameters and commitment CIDs. Parameter
//! structs are the protocol's own (`fil_actor_miner_state::v19`).

mod commitment;
mod params;

pub use commitment::{NotACommitment, comm_r_from_cid, sealed_cid};
pub use params::{
    ParamsError, PostSubmission, PreCommit, ProveCommit, SectorsAt, declare_faults,
    declare_faults_recovered, pre_commit, prove_commit, submit_window_post, terminate_sectors,
    withdraw_balance,
};

/// Protocol actors that we address or read.
pub mod ids {
    pub const REWARD: u64 = 2;
    pub const POWER: u64 = 4;
    pub const BURNT_FUNDS: u64 = 99;
}

/// Miner actor methods that Sealyard sends (builtin-actors v19 `Method`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Send,
    SubmitWindowedPoSt,
    TerminateSectors,
    DeclareFaults,
    DeclareFaultsRecovered,
    WithdrawBalance,
    PreCommitSectorBatch2,
    ProveCommitSectors3,
}

impl Method {
    const ALL: [Self; 8] = [
        Self::Send,
        Self::SubmitWindowedPoSt,
        Self::TerminateSectors,
        Self::DeclareFaults,
        Self::DeclareFaultsRecovered,
        Self::WithdrawBalance,
        Self::PreCommitSectorBatch2,
        Self::ProveCommitSectors3,
    ];

    #[must_use]
    pub const fn number(self) -> u64 {
        match self {
            Self::Send => 0,
            Self::SubmitWindowedPoSt => 5,
            Self::TerminateSectors => 9,
            Self::DeclareFaults => 10,
            Self::DeclareFaultsRecovered => 11,
            Self::WithdrawBalance => 16,
            Self::PreCommitSectorBatch2 => 28,
            Self::ProveCommitSectors3 => 34,
        }
    }

    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|method| method.number() == number)
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Send => "Send",
            Self::SubmitWindowedPoSt => "SubmitWindowedPoSt",
            Self::TerminateSectors => "TerminateSectors",
            Self::DeclareFaults => "DeclareFaults",
            Self::DeclareFaultsRecovered => "DeclareFaultsRecovered",
            Self::WithdrawBalance => "WithdrawBalance",
            Self::PreCommitSectorBatch2 => "PreCommitSectorBatch2",
            Self::ProveCommitSectors3 => "ProveCommitSectors3",
        }
    }
}

/// The purpose of randomness (Filecoin's domain separation tags).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RandomnessTag {
    WindowedPoStChallengeSeed,
    SealRandomness,
    InteractiveSealChallengeSeed,
    PoStChainCommit,
}

impl RandomnessTag {
    #[must_use]
    pub const fn number(self) -> i64 {
        match self {
            Self::WindowedPoStChallengeSeed => 4,
            Self::SealRandomness => 5,
            Self::InteractiveSealChallengeSeed => 6,
            Self::PoStChainCommit => 9,
        }
    }
}

/// Entropy that binds randomness to one miner: its ID address as CBOR.
#[must_use]
pub fn miner_entropy(miner: u64) -> Vec<u8> {
    let address = fvm_shared::address::Address::new_id(miner).to_bytes();
    let length = u8::try_from(address.len()).unwrap_or(u8::MAX);
    // A CBOR byte string shorter than 24 bytes: major type 2 with the length in the same byte.
    std::iter::once(0x40 | length).chain(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn miner_entropy_is_the_address_in_cbor() {
        assert_eq!(miner_entropy(1000), [0x43, 0x00, 0xe8, 0x07]);
    }

    #[test]
    fn method_numbers_match_the_miner_actor() {
        use fil_actor_miner_state::v19::Method as Actor;
        #[expect(
            clippy::as_conversions,
            reason = "the crate's enum has no other way to its numbers"
        )]
        let number = |actor: Actor| actor as u64;
        for (ours, actor) in [
            (Method::SubmitWindowedPoSt, Actor::SubmitWindowedPoSt),
            (Method::PreCommitSectorBatch2, Actor::PreCommitSectorBatch2),
            (Method::ProveCommitSectors3, Actor::ProveCommitSectors3),
            (Method::TerminateSectors, Actor::TerminateSectors),
            (Method::DeclareFaults, Actor::DeclareFaults),
            (
                Method::DeclareFaultsRecovered,
                Actor::DeclareFaultsRecovered,
            ),
            (Method::WithdrawBalance, Actor::WithdrawBalance),
        ] {
            assert_eq!(ours.number(), number(actor), "{ours:?}");
            assert_eq!(Method::from_number(ours.number()), Some(ours));
        }
    }
}
