//! Sector rows.

use diesel::prelude::*;

use super::state::{Event, SectorState, Transition, next};
use crate::{
    capacity::Pool,
    clock::Micros,
    contracts::Contract,
    fleet::protocol::SectorInput,
    ids::{ContractId, MachineId, PoolId, SectorId},
    store::{AnyConnection, DbResult, schema::sectors},
};

#[derive(Clone, Debug, Queryable)]
pub struct Sector {
    pub id: SectorId,
    pub pool_id: PoolId,
    pub number: i64,
    pub contract_id: ContractId,
    /// The machine that has its files.
    pub machine_id: Option<MachineId>,
    /// The protocol's RegisteredSealProof.
    pub seal_proof: i64,
    pub state: SectorState,
    pub due_at: Micros,
    pub ticket: Option<String>,
    pub ticket_epoch: Option<i64>,
    pub seed: Option<String>,
    pub seed_epoch: Option<i64>,
    pub comm_d: Option<String>,
    pub comm_r: Option<String>,
    pub pc2_output: Option<String>,
    pub porep_proof: Option<Vec<u8>>,
    /// Until activation, the days that it was sold for. Then the epoch at which it ends.
    pub expiration: i64,
    pub activation: Option<i64>,
    pub deadline: Option<i64>,
    pub partition: Option<i64>,
    pub failures: i64,
    pub reason: Option<String>,
    pub created_at: Micros,
    pub changed_at: Micros,
}

#[derive(Insertable)]
#[diesel(table_name = sectors)]
struct NewSector {
    pool_id: PoolId,
    number: i64,
    contract_id: ContractId,
    seal_proof: i64,
    state: SectorState,
    due_at: Micros,
    expiration: i64,
    failures: i64,
    created_at: Micros,
    changed_at: Micros,
}

/// Interactive PoRep 1.1 by sector size (protocol numbers 5 to 9).
fn seal_proof_for(sector_bytes: i64) -> i64 {
    match sector_bytes {
        2048 => 5,
        8_388_608 => 6,
        536_870_912 => 7,
        34_359_738_368 => 8,
        _ => 9,
    }
}

/// Stores a sector that is owed to a contract.
pub fn plan_sector(
    conn: &mut AnyConnection,
    contract: &Contract,
    pool: &Pool,
    number: i64,
    now: Micros,
) -> DbResult<()> {
    let row = NewSector {
        pool_id: pool.id,
        number,
        contract_id: contract.id,
        seal_proof: seal_proof_for(pool.sector_bytes),
        state: SectorState::Planned,
        due_at: contract.promised_at,
        expiration: contract.days,
        failures: 0,
        created_at: now,
        changed_at: now,
    };
    diesel::insert_into(sectors::table)
        .values(row)
        .execute(conn)
        .map(drop)
}

impl Sector {
    /// The input of a step on this sector.
    #[must_use]
    pub fn input(&self, pool: &Pool) -> SectorInput {
        SectorInput {
            miner: u64::try_from(pool.miner_id).unwrap_or_default(),
            number: u64::try_from(self.number).unwrap_or_default(),
            proof: self.seal_proof,
            ticket: self.ticket.clone().unwrap_or_default(),
            seed: self.seed.clone().unwrap_or_default(),
            comm_r: self.comm_r.clone().unwrap_or_default(),
            pc2: self.pc2_output.clone().unwrap_or_default(),
        }
    }

    /// Moves the row along the table of states. `None`: the event changes nothing.
    pub(super) fn apply(
        &mut self,
        conn: &mut AnyConnection,
        event: Event,
        now: Micros,
    ) -> DbResult<Option<Transition>> {
        let transition = next(self.state, event);
        match transition {
            Transition::Ignore => return Ok(None),
            Transition::Retry(_) => {}
            Transition::To(state) => {
                let won = diesel::update(
                    sectors::table
                        .filter(sectors::id.eq(self.id).and(sectors::state.eq(self.state))),
                )
                .set((sectors::state.eq(state), sectors::changed_at.eq(now)))
                .execute(conn)?;
                if won == 0 {
                    return Ok(None);
                }
                self.state = state;
            }
        }
        Ok(Some(transition))
    }
}

pub fn by_id(conn: &mut AnyConnection, id: SectorId) -> DbResult<Sector> {
    sectors::table.find(id).first(conn)
}

pub fn by_number(conn: &mut AnyConnection, pool: PoolId, number: i64) -> DbResult<Option<Sector>> {
    sectors::table
        .filter(sectors::pool_id.eq(pool).and(sectors::number.eq(number)))
        .first(conn)
        .optional()
}

pub fn of_contract(conn: &mut AnyConnection, contract: ContractId) -> DbResult<Vec<Sector>> {
    sectors::table
        .filter(sectors::contract_id.eq(contract))
        .order(sectors::number.asc())
        .load(conn)
}

pub fn in_states(conn: &mut AnyConnection, states: &[SectorState]) -> DbResult<Vec<Sector>> {
    sectors::table
        .filter(sectors::state.eq_any(states))
        .order((sectors::due_at.asc(), sectors::id.asc()))
        .load(conn)
}

/// The part of a sector on chain that shows whether it counts.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    pub id: SectorId,
    pub number: i64,
    pub state: SectorState,
    /// Epochs.
    pub activation: i64,
    pub expiration: i64,
}

/// A pool's sectors that have power on chain, or should have.
pub fn watched(conn: &mut AnyConnection, pool: PoolId) -> DbResult<Vec<Watched>> {
    let states = [
        SectorState::Finalizing,
        SectorState::Proving,
        SectorState::Active,
        SectorState::Faulty,
    ];
    let rows: Vec<(SectorId, i64, SectorState, Option<i64>, i64)> = sectors::table
        .filter(sectors::pool_id.eq(pool).and(sectors::state.eq_any(states)))
        .select((
            sectors::id,
            sectors::number,
            sectors::state,
            sectors::activation,
            sectors::expiration,
        ))
        .load(conn)?;
    let of = |(id, number, state, activation, expiration): (_, _, _, Option<i64>, _)| {
        Some(Watched {
            id,
            number,
            state,
            activation: activation?,
            expiration,
        })
    };
    Ok(rows.into_iter().filter_map(of).collect())
}

/// A pool's sectors about which the chain said something since epoch `since`. After a
/// reorganisation it may say something else.
pub fn provisional(conn: &mut AnyConnection, pool: PoolId, since: i64) -> DbResult<Vec<Sector>> {
    let waiting = [
        SectorState::WaitSeed,
        SectorState::Commit1,
        SectorState::Commit2,
        SectorState::Verifying,
        SectorState::ProveCommitting,
    ];
    let pre_committed = sectors::state
        .eq_any(waiting)
        .and(sectors::seed_epoch.ge(since));
    let on_chain = [
        SectorState::Finalizing,
        SectorState::Proving,
        SectorState::Active,
        SectorState::Faulty,
    ];
    let activated = sectors::state
        .eq_any(on_chain)
        .and(sectors::activation.ge(since));
    sectors::table
        .filter(sectors::pool_id.eq(pool).and(pre_committed.or(activated)))
        .order(sectors::id.asc())
        .load(conn)
}

/// The lowest number of a pool's sectors; `None`: it has none.
pub fn lowest_number(conn: &mut AnyConnection, pool: PoolId) -> DbResult<Option<i64>> {
    sectors::table
        .filter(sectors::pool_id.eq(pool))
        .select(diesel::dsl::min(sectors::number))
        .first(conn)
}

/// The number of a pool's sectors on one machine in one state.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    pub pool: PoolId,
    pub machine: Option<MachineId>,
    pub state: SectorState,
    pub sectors: i64,
}

/// How many sectors there are, by pool, machine and state.
pub fn count(conn: &mut AnyConnection) -> DbResult<Vec<Counted>> {
    let rows: Vec<(PoolId, Option<MachineId>, SectorState, i64)> = sectors::table
        .group_by((sectors::pool_id, sectors::machine_id, sectors::state))
        .select((
            sectors::pool_id,
            sectors::machine_id,
            sectors::state,
            diesel::dsl::count_star(),
        ))
        .load(conn)?;
    Ok(rows
        .into_iter()
        .map(|(pool, machine, state, sectors)| Counted {
            pool,
            machine,
            state,
            sectors,
        })
        .collect())
}

/// The number and the contract of each sector of a pool.
pub fn owners(conn: &mut AnyConnection, pool: PoolId) -> DbResult<Vec<(i64, ContractId)>> {
    sectors::table
        .filter(sectors::pool_id.eq(pool))
        .select((sectors::number, sectors::contract_id))
        .load(conn)
}

/// Like [`owners`], for these numbers only.
pub fn owners_of(
    conn: &mut AnyConnection,
    pool: PoolId,
    numbers: &[i64],
) -> DbResult<Vec<(i64, ContractId)>> {
    sectors::table
        .filter(
            sectors::pool_id
                .eq(pool)
                .and(sectors::number.eq_any(numbers)),
        )
        .select((sectors::number, sectors::contract_id))
        .load(conn)
}

pub fn all(conn: &mut AnyConnection, limit: i64) -> DbResult<Vec<Sector>> {
    sectors::table
        .order(sectors::id.desc())
        .limit(limit)
        .load(conn)
}
