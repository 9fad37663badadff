//! Sectors' files on the machines: which of them nothing needs any more.

use std::collections::HashMap;

use diesel::prelude::*;

use super::state::SectorState;
use crate::{
    fleet::protocol::StoredSector,
    ids::MachineId,
    store::{
        AnyConnection, DbResult,
        schema::{pools, sectors},
    },
};

/// Numbers that one query asks for.
const CHUNK: usize = 1000;

/// Of the sectors whose files lie on a machine, those that are sealed elsewhere or from the beginning by now, or have ended on chain.
/// What this house does not know is not its own to drop.
pub fn not_needed(conn: &mut AnyConnection, machine: MachineId, stored: &[StoredSector]) -> DbResult<Vec<StoredSector>> {
    let mut over = Vec::new();
    for part in stored.chunks(CHUNK) {
        let numbers: Vec<i64> = part.iter().filter_map(|s| i64::try_from(s.number).ok()).collect();
        let known: Vec<(i64, i64, Option<MachineId>, String)> = sectors::table
            .inner_join(pools::table.on(pools::id.eq(sectors::pool_id)))
            .filter(sectors::number.eq_any(numbers))
            .select((pools::miner_id, sectors::number, sectors::machine_id, sectors::state))
            .load(conn)?;
        let is_needed = |at: Option<MachineId>, state: &str| at == Some(machine) && state != SectorState::Expired.name();
        let needed: HashMap<StoredSector, bool> = known
            .into_iter()
            .filter_map(|(miner, number, at, state)| {
                let sector = StoredSector { miner: u64::try_from(miner).ok()?, number: u64::try_from(number).ok()? };
                Some((sector, is_needed(at, &state)))
            })
            .collect();
        over.extend(part.iter().filter(|sector| needed.get(sector) == Some(&false)));
    }
    Ok(over)
}
