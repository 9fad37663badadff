//! What the chain took from a miner and gave back, amount by amount: fees at the end of a deadline, deposits and pledge of sectors.

use std::collections::BTreeMap;

use diesel::prelude::*;

use super::CloseError;
use crate::{
    ids::PoolId,
    on_conn,
    store::{AnyConnection, DbResult, schema::chain_flows},
};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FlowKind {
    /// Of a deadline's sectors (FIP-0100).
    DailyFee,
    /// Of a deadline's sectors that were faulty before and still are.
    FaultFee,
    /// Of a sector that ended before its time.
    TerminationFee,
    /// A PreCommit's.
    DepositIn,
    /// The sector was proven in time.
    DepositBack,
    /// It was not.
    DepositLost,
    /// A sector's initial pledge.
    PledgeIn,
    PledgeBack,
}

impl FlowKind {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DailyFee => "daily_fee",
            Self::FaultFee => "fault_fee",
            Self::TerminationFee => "termination_fee",
            Self::DepositIn => "deposit_in",
            Self::DepositBack => "deposit_back",
            Self::DepositLost => "deposit_lost",
            Self::PledgeIn => "pledge_in",
            Self::PledgeBack => "pledge_back",
        }
    }
}

/// Subject of an amount that belongs to no sector in particular.
pub const NO_SECTOR: i64 = -1;

#[derive(Clone, Debug, PartialEq, Eq, Queryable, Insertable)]
#[diesel(table_name = chain_flows)]
pub struct Flow {
    pub pool_id: PoolId,
    /// [`FlowKind::name`].
    pub kind: String,
    /// A deadline's index or a sector's number.
    pub subject: i64,
    pub epoch: i64,
    /// attoFIL, decimal, never negative.
    pub atto: String,
}

pub fn record_flow(conn: &mut AnyConnection, flow: &Flow) -> DbResult<()> {
    on_conn!(&mut *conn, |c| diesel::insert_into(chain_flows::table).values(flow).on_conflict_do_nothing().execute(c)).map(drop)
}

/// Whether anything of a kind was ever recorded.
pub fn has_flows(conn: &mut AnyConnection, pool: PoolId, kind: FlowKind) -> DbResult<bool> {
    let there = chain_flows::table.filter(chain_flows::pool_id.eq(pool).and(chain_flows::kind.eq(kind.name())));
    diesel::select(diesel::dsl::exists(there)).get_result(conn)
}

/// attoFIL by kind.
#[derive(Clone, Debug, Default)]
pub struct FlowSums(BTreeMap<String, i128>);

impl FlowSums {
    #[must_use]
    pub fn of(&self, kind: FlowKind) -> i128 {
        self.0.get(kind.name()).copied().unwrap_or_default()
    }
}

/// What flowed in epochs `[first, end)`.
pub fn flow_sums(conn: &mut AnyConnection, pool: PoolId, first: i64, end: i64) -> Result<FlowSums, CloseError> {
    let flows: Vec<Flow> = chain_flows::table
        .filter(chain_flows::pool_id.eq(pool).and(chain_flows::epoch.ge(first)).and(chain_flows::epoch.lt(end)))
        .load(conn)?;
    let mut sums = FlowSums::default();
    for flow in flows {
        let atto: i128 = flow.atto.parse().map_err(|_| CloseError::Amount(flow.atto))?;
        let sum = sums.0.entry(flow.kind).or_default();
        *sum = sum.checked_add(atto).ok_or(CloseError::Amount("a sum of flows".into()))?;
    }
    Ok(sums)
}

/// Sectors whose deposit or pledge (`came`) has not left again by one of `left`, and when it came.
pub fn open_flows(conn: &mut AnyConnection, pool: PoolId, came: FlowKind, left: &[FlowKind]) -> DbResult<Vec<Flow>> {
    let gone = diesel::alias!(chain_flows as gone);
    let names: Vec<&str> = left.iter().map(|kind| kind.name()).collect();
    let same = gone.field(chain_flows::pool_id).eq(chain_flows::pool_id);
    let same = same.and(gone.field(chain_flows::subject).eq(chain_flows::subject));
    let left = gone.filter(same.and(gone.field(chain_flows::kind).eq_any(names)));
    chain_flows::table
        .filter(chain_flows::pool_id.eq(pool).and(chain_flows::kind.eq(came.name())).and(chain_flows::subject.ne(NO_SECTOR)))
        .filter(diesel::dsl::not(diesel::dsl::exists(left)))
        .order(chain_flows::subject.asc())
        .load(conn)
}
