//! Sectors that begin or cease to count: the chain's active set at a chunk's end, compared with the
//! recorded one.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, ensure};
use fvm_shared::{bigint::BigInt, econ::TokenAmount};
use sealyard_core::{
    ids::{ContractId, PoolId},
    sealing,
    store::AnyConnection,
    yields::{self, CloseError, Cursor, PowerOn},
};
use sealyard_filecoin::rpc::{Numbers, SectorInfo, TipSet};

use super::{
    chunk::Chunk,
    members::{Members, each_info, power_of, sector_power},
    sync::Follow,
};
use crate::{app::read, worker::TurnResult};

/// Rows that are read or written in one statement.
const ROWS_AT_ONCE: usize = 5000;

/// The recorded sectors of each pool, kept in memory so that a chunk reads only changes.
#[derive(Default)]
pub struct Followed(Mutex<HashMap<PoolId, Recorded>>);

/// A pool's sectors that count, as recorded before an epoch.
#[derive(Clone)]
pub(super) struct Recorded {
    next_epoch: i64,
    active: Numbers,
    /// Quality-adjusted bytes of all of them, as the chain claimed them.
    power: BigInt,
}

impl Followed {
    /// `None`: they are not known as of this epoch, and have to be read from the books.
    fn take(&self, pool: PoolId, next_epoch: i64) -> Option<Recorded> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&pool)
            .filter(|recorded| recorded.next_epoch == next_epoch)
    }

    pub(super) fn put(&self, pool: PoolId, recorded: Recorded) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(pool, recorded);
    }
}

/// A sector that began to count. Amounts in attoFIL.
#[derive(Clone, Copy)]
struct Began {
    number: i64,
    contract: Option<ContractId>,
    epoch: i64,
    qa_power: i64,
    pledge: i128,
    daily_fee: i128,
}

impl Began {
    fn row(&self, pool_id: PoolId) -> PowerOn {
        PowerOn {
            pool_id,
            number: self.number,
            contract_id: self.contract,
            start_epoch: self.epoch,
            qa_power: self.qa_power,
            pledge_atto: self.pledge.to_string(),
            daily_fee_atto: self.daily_fee.to_string(),
        }
    }
}

/// Sectors that began and ceased to count in a chunk.
pub(super) struct Changes {
    began: Vec<Began>,
    /// Their numbers and epochs.
    ceased: Vec<(i64, i64)>,
}

impl Changes {
    pub(super) fn write(&self, conn: &mut AnyConnection, pool: PoolId) -> Result<(), CloseError> {
        for some in self.began.chunks(ROWS_AT_ONCE) {
            let rows: Vec<PowerOn> = some.iter().map(|began| began.row(pool)).collect();
            yields::power_on(conn, &rows)?;
        }
        for (number, epoch) in &self.ceased {
            yields::power_off(conn, pool, *number, *epoch)?;
        }
        Ok(())
    }
}

impl Follow<'_> {
    /// Finds the sectors whose membership in the active set differs at the chunk's end from the
    /// records, each with its exact epoch. Nothing is read about other sectors. Also returns the
    /// state of the records once the changes are written.
    pub(super) async fn changes(
        &self,
        cursor: &Cursor,
        chunk: &Chunk<'_>,
    ) -> anyhow::Result<(Changes, Recorded)> {
        let was = self.recorded(cursor).await?;
        let members = chunk.members(&chunk.end).await?;
        let (new, gone) = (
            members.active.minus(&was.active),
            was.active.minus(&members.active),
        );
        let mut began = Vec::new();
        each_info(
            (&self.app.node, &self.miner),
            &new,
            &chunk.end.cids,
            |infos| {
                for info in infos {
                    began.push(self.began(&info)?);
                }
                Ok(())
            },
        )
        .await?;
        self.check_power(&was, (&began, &gone), (&members, &chunk.end))
            .await?;
        self.add_owners_and_epochs(chunk, &mut began).await?;
        let mut ceased = Vec::new();
        for number in gone.iter() {
            let number = i64::try_from(number)?;
            ceased.push((number, change_epoch(chunk, (number, false)).await?));
        }
        let then = Recorded {
            next_epoch: chunk.end.height,
            active: members.active.clone(),
            power: members.claim.quality_adj_power.clone(),
        };
        Ok((Changes { began, ceased }, then))
    }

    async fn add_owners_and_epochs(&self, chunk: &Chunk<'_>, began: &mut [Began]) -> TurnResult {
        let pool = self.pool.id;
        for some in began.chunks_mut(ROWS_AT_ONCE) {
            let numbers: Vec<i64> = some.iter().map(|began| began.number).collect();
            let owners = read(self.app, move |conn| {
                sealing::owners_of(conn, pool, &numbers)
            })
            .await?;
            let owners: HashMap<i64, ContractId> = owners.into_iter().collect();
            for began in some {
                began.contract = owners.get(&began.number).copied();
                began.epoch = change_epoch(chunk, (began.number, true)).await?;
            }
        }
        Ok(())
    }

    /// A sector that began to count, without its owner and epoch.
    fn began(&self, info: &SectorInfo) -> anyhow::Result<Began> {
        let atto =
            |amount: &TokenAmount| i128::try_from(amount.atto()).context("more FIL than can exist");
        Ok(Began {
            number: i64::try_from(info.sector_number)?,
            contract: None,
            epoch: 0,
            qa_power: sector_power(self.pool, info)?,
            pledge: atto(&info.initial_pledge)?,
            daily_fee: atto(&info.daily_fee)?,
        })
    }

    /// The recorded sectors, as remembered from the last chunk or read from the books.
    async fn recorded(&self, cursor: &Cursor) -> anyhow::Result<Recorded> {
        let (pool, next_epoch) = (self.pool.id, cursor.next_epoch);
        if let Some(recorded) = self.app.followed.take(pool, next_epoch) {
            return Ok(recorded);
        }
        let (numbers, power) = read(self.app, move |conn| yields::counting_now(conn, pool)).await?;
        let active = numbers
            .into_iter()
            .map(u64::try_from)
            .collect::<Result<Numbers, _>>()?;
        Ok(Recorded {
            next_epoch,
            active,
            power: power.into(),
        })
    }

    /// The power of the known and the new sectors that count must add up to the miner's claim. If
    /// it does not, some may have been extended, and all are read once.
    async fn check_power(
        &self,
        was: &Recorded,
        (began, gone): (&[Began], &Numbers),
        (members, tipset): (&Members, &TipSet),
    ) -> TurnResult {
        let claim = &members.claim.quality_adj_power;
        let (pool, numbers) = (
            self.pool.id,
            gone.iter()
                .map(i64::try_from)
                .collect::<Result<Vec<_>, _>>()?,
        );
        let lost = read(self.app, move |conn| {
            yields::power_counting(conn, pool, &numbers)
        })
        .await?;
        let new: i128 = began.iter().map(|began| i128::from(began.qa_power)).sum();
        let mut power = &was.power - lost + new;
        if power != *claim {
            power = power_of(
                (&self.app.node, &self.miner),
                self.pool,
                &members.active,
                &tipset.cids,
            )
            .await?;
        }
        ensure!(
            power == *claim,
            "the node says that {} active sectors have {power} bytes of power at epoch {}, \
             but miner {} claims {claim}; nothing is recorded until that adds up",
            members.active.len(),
            tipset.height,
            self.miner
        );
        Ok(())
    }
}

/// The epoch in whose execution a sector became active, or ceased to be.
async fn change_epoch(chunk: &Chunk<'_>, (number, active): (i64, bool)) -> anyhow::Result<i64> {
    let number = u64::try_from(number)?;
    chunk
        .changed_at(|tipset| async move {
            Ok(chunk.members(tipset).await?.active.contains(number) == active)
        })
        .await
}
