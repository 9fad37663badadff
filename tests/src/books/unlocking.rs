//! The books never release more than the chain unlocks.

use fvm_shared::econ::TokenAmount;
use proptest::{prelude::*, test_runner::TestRunner};
use sealyard_core::{
    money::{BasisPoints, NanoFil},
    yields::{Day, MadeUp, Member, Rates, Vesting, attribute},
};
use sealyard_filecoin::economics::{EPOCHS_PER_DAY, VestingTable};

use super::UNLOCK_DELAY;

/// Days until the last reward of the first days has vested.
const DAYS: i64 = 190;
/// A reward is released over this many days.
const VESTING_DAYS: u8 = 180;

/// The miner's account on chain.
struct Chain {
    table: VestingTable,
    /// Day, epoch within the day, attoFIL, in order.
    wins: Vec<(i64, i64, u64)>,
    /// The next win that the chain has not seen.
    next: usize,
    free: TokenAmount,
}

impl Chain {
    fn new(mut wins: Vec<(i64, i64, u64)>, period_start: i64) -> Self {
        wins.sort_unstable();
        Self {
            table: VestingTable::new(period_start),
            wins,
            next: 0,
            free: TokenAmount::default(),
        }
    }

    /// Goes on to an epoch, with all wins before it.
    fn go_on_to(&mut self, end: i64) {
        while let Some(&(day, epoch, reward)) = self.wins.get(self.next) {
            let epoch = day * EPOCHS_PER_DAY + epoch;
            if epoch >= end {
                break;
            }
            self.free += self.table.unlock(epoch).unwrap();
            let reward = TokenAmount::from_atto(reward);
            self.free += self.table.award(epoch, &reward).unwrap();
            self.next += 1;
        }
        self.free += self.table.unlock(end).unwrap();
    }

    fn won_on(&self, day: i64) -> i128 {
        self.wins
            .iter()
            .filter(|(on, ..)| *on == day)
            .map(|w| i128::from(w.2))
            .sum()
    }
}

/// The contracts of a pool, as the books follow them.
struct Books {
    members: Vec<Member>,
    vesting: Vec<Vesting>,
    /// By day and contract.
    locked: Vec<Vec<i64>>,
    carry: i64,
    free: i64,
}

impl Books {
    fn new(weights: &[u64]) -> Self {
        let none = BasisPoints(0);
        let rates = Rates {
            fee: none,
            pledge_charge: none,
            daily_fee: none,
            fault_fee: none,
            gas: none,
            available: BasisPoints(2500),
            made_up: MadeUp::Not,
        };
        let member = |weight: &u64| Member {
            power: u128::from(*weight) + 1,
            missing: 0,
            missing_power: 0,
            bytes: 1,
            epochs_left: 0,
            rates,
        };
        Self {
            members: weights.iter().map(member).collect(),
            vesting: vec![Vesting::default(); weights.len()],
            locked: Vec::new(),
            carry: 0,
            free: 0,
        }
    }

    /// Closes the next day, in which the miner has won these attoFIL.
    fn close(&mut self, won: i128) {
        let (total, rest) = NanoFil::from_atto(won + i128::from(self.carry)).unwrap();
        self.carry = rest;
        let day = Day {
            total: total.0,
            ..Day::default()
        };
        let (shares, _) = attribute(&day, &self.members).unwrap();
        let ending = self
            .locked
            .len()
            .checked_sub(usize::from(VESTING_DAYS))
            .map(|ended| &self.locked[ended]);
        for (at, share) in shares.iter().enumerate() {
            let ends = ending.map_or(0, |lots| lots[at]);
            let released;
            (released, self.vesting[at]) =
                self.vesting[at].day(share.locked, ends, i64::from(VESTING_DAYS));
            self.free += share.available + released;
        }
        self.locked.push(shares.iter().map(|s| s.locked).collect());
    }
}

/// Compares the amounts released to investors, at the moment each day closes, with the protocol's
/// own vesting table. There is no service fee, so the investors get everything that was won.
#[test]
fn the_books_never_release_more_than_the_chain_has_unlocked() {
    // Wins of the first days: day, epoch within the day, attoFIL.
    let win = (0..8i64, 0..EPOCHS_PER_DAY, 1u64..u64::MAX);
    let wins = prop::collection::vec(win, 1..24);
    let weights = prop::collection::vec(0..1000u64, 1..6);
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(
            &(wins, weights, 0..EPOCHS_PER_DAY),
            |(wins, weights, period_start)| {
                let mut chain = Chain::new(wins, period_start);
                let mut books = Books::new(&weights);
                for day in 0..DAYS {
                    // The chain goes on until the day closes, so the first wins of the next day
                    // come before that.
                    chain.go_on_to((day + 1) * EPOCHS_PER_DAY + UNLOCK_DELAY);
                    books.close(chain.won_on(day));
                    // The chain's rounding of each win can hide one attoFIL.
                    let hidden = TokenAmount::from_atto(u64::try_from(chain.next).unwrap());
                    prop_assert!(
                        TokenAmount::from_nano(books.free) <= chain.free.clone() + hidden,
                        "day {}",
                        day
                    );
                }
                prop_assert!(
                    books.vesting.iter().all(|v| *v == Vesting::default()),
                    "everything is released in the end"
                );
                Ok(())
            },
        )
        .unwrap();
}
