//! Amounts that the chain took from a miner or gave back: fees, and the deposits and pledges of
//! sectors.

use std::collections::BTreeMap;

use diesel::{deserialize::FromSqlRow, expression::AsExpression, prelude::*, sql_types::Text};

use super::CloseError;
use crate::{
    ids::PoolId,
    insert_new,
    store::{AnyConnection, DbResult, ROWS_AT_ONCE, schema::chain_flows},
    stored_as_text,
};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
pub enum FlowKind {
    /// The daily fee of a deadline's sectors (FIP-0100).
    DailyFee,
    /// The fee for a deadline's sectors that were faulty before and still are.
    FaultFee,
    /// The fee for a sector that ended before its time.
    TerminationFee,
    /// The deposit of a PreCommit.
    DepositIn,
    /// The deposit of a sector that was proven in time.
    DepositBack,
    /// The deposit of a sector that was not proven in time.
    DepositLost,
    /// A sector's initial pledge.
    PledgeIn,
    PledgeBack,
}

stored_as_text!(FlowKind {
    DailyFee => "daily_fee",
    FaultFee => "fault_fee",
    TerminationFee => "termination_fee",
    DepositIn => "deposit_in",
    DepositBack => "deposit_back",
    DepositLost => "deposit_lost",
    PledgeIn => "pledge_in",
    PledgeBack => "pledge_back",
});

/// Subject of an amount that belongs to no sector in particular.
pub const NO_SECTOR: i64 = -1;

#[derive(Clone, Debug, PartialEq, Eq, Queryable, Insertable)]
#[diesel(table_name = chain_flows)]
pub struct Flow {
    pub pool_id: PoolId,
    pub kind: FlowKind,
    /// A deadline's index or a sector's number.
    pub subject: i64,
    pub epoch: i64,
    /// attoFIL, decimal, never negative.
    pub atto: String,
}

/// Records flows. Those already recorded stay as they are.
pub fn record_flows(conn: &mut AnyConnection, flows: &[Flow]) -> DbResult<()> {
    insert_new!(conn, chain_flows::table, flows)
}

/// Whether any flow of a kind was ever recorded.
pub fn has_flows(conn: &mut AnyConnection, pool: PoolId, kind: FlowKind) -> DbResult<bool> {
    let there = chain_flows::table.filter(
        chain_flows::pool_id
            .eq(pool)
            .and(chain_flows::kind.eq(kind)),
    );
    diesel::select(diesel::dsl::exists(there)).get_result(conn)
}

/// attoFIL by kind.
#[derive(Clone, Debug, Default)]
pub struct FlowSums(BTreeMap<FlowKind, i128>);

impl FlowSums {
    #[must_use]
    pub fn of(&self, kind: FlowKind) -> i128 {
        self.0.get(&kind).copied().unwrap_or_default()
    }
}

/// Sums of the flows in epochs `[first, end)`.
pub fn flow_sums(
    conn: &mut AnyConnection,
    pool: PoolId,
    first: i64,
    end: i64,
) -> Result<FlowSums, CloseError> {
    let flows: Vec<Flow> = chain_flows::table
        .filter(
            chain_flows::pool_id
                .eq(pool)
                .and(chain_flows::epoch.ge(first))
                .and(chain_flows::epoch.lt(end)),
        )
        .load(conn)?;
    let mut sums = FlowSums::default();
    for flow in flows {
        let atto: i128 = flow
            .atto
            .parse()
            .map_err(|_| CloseError::Amount(flow.atto))?;
        let sum = sums.0.entry(flow.kind).or_default();
        *sum = sum
            .checked_add(atto)
            .ok_or(CloseError::Amount("a sum of flows".into()))?;
    }
    Ok(sums)
}

/// The `came` flows, deposits or pledges, of the sectors `numbers` (`None`: all) that none of the
/// `left` kinds has followed.
pub fn open_flows(
    conn: &mut AnyConnection,
    pool: PoolId,
    (came, left): (FlowKind, &[FlowKind]),
    numbers: Option<&[i64]>,
) -> DbResult<Vec<Flow>> {
    let gone = diesel::alias!(chain_flows as gone);
    let same = gone.field(chain_flows::pool_id).eq(chain_flows::pool_id);
    let same = same.and(gone.field(chain_flows::subject).eq(chain_flows::subject));
    let left = gone.filter(same.and(gone.field(chain_flows::kind).eq_any(left)));
    let open = chain_flows::table
        .filter(
            chain_flows::pool_id
                .eq(pool)
                .and(chain_flows::kind.eq(came))
                .and(chain_flows::subject.ne(NO_SECTOR)),
        )
        .filter(diesel::dsl::not(diesel::dsl::exists(left)))
        .order(chain_flows::subject.asc());
    let Some(numbers) = numbers else {
        return open.load(conn);
    };
    let mut flows = Vec::new();
    for some in numbers.chunks(ROWS_AT_ONCE) {
        flows.append(
            &mut open
                .clone()
                .filter(chain_flows::subject.eq_any(some))
                .load(conn)?,
        );
    }
    Ok(flows)
}
