//! The chain takes the next step for a sector.

use sealyard_core::{
    clock::Micros,
    ledger::LedgerError,
    sealing::{self, Activation, OnChain, SectorState},
};

use super::Fixture;

impl Fixture<'_> {
    /// Lets the chain take the next step for a random sector.
    pub(super) fn chain(&mut self) {
        let states = [
            SectorState::PreCommitting,
            SectorState::WaitSeed,
            SectorState::Verifying,
            SectorState::ProveCommitting,
            SectorState::Finalizing,
            SectorState::Proving,
            SectorState::Active,
            SectorState::Faulty,
        ];
        let all = states
            .into_iter()
            .flat_map(|state| self.sectors(state))
            .collect();
        let Some(sector) = self.pick(all) else { return };
        let (now, roll) = (self.now, self.rng.below(10));
        let state = sector.state;
        self.db
            .transact(|conn| {
                let sector = sector.clone();
                match state {
                    SectorState::WaitSeed => {
                        sealing::seed_drawn(conn, sector, &"22".repeat(32), now)?
                    }
                    SectorState::Verifying => {
                        let message = (roll > 0).then_some((34_u64, [1_u8].as_slice()));
                        sealing::proof_verified(conn, sector, message, now)?;
                    }
                    state => sealing::mark_on_chain(conn, sector, fact(state, roll, now), now)?,
                }
                Ok::<_, LedgerError>(())
            })
            .unwrap();
    }
}

fn fact(state: SectorState, roll: usize, now: Micros) -> OnChain {
    match (state, roll) {
        (SectorState::PreCommitting, 0) => OnChain::MessageFailed {
            reason: "out of gas".into(),
        },
        (SectorState::PreCommitting, _) => OnChain::PreCommitted { seed_epoch: 160 },
        (SectorState::ProveCommitting, 0) => OnChain::MessageFailed {
            reason: "out of gas".into(),
        },
        (SectorState::ProveCommitting, _) => OnChain::Activated(Activation {
            activation: 200,
            expiration: 600_000,
            deadline: 1,
            partition: 0,
        }),
        (SectorState::Active, 0..5) => OnChain::Gone,
        (SectorState::Finalizing, 0) => OnChain::Faulty,
        (SectorState::Active, _) => OnChain::Faulty,
        _ => OnChain::Counts { at: now },
    }
}
