//! The chain's record of a pool's miner at the end of a UTC day.

use anyhow::ensure;
use fvm_shared::{address::Address, bigint::BigInt, econ::TokenAmount};
use sealyard_core::{
    store::AnyConnection,
    yields::{self, ChainDay, CloseError, Cursor, FlowKind, Win},
};
use sealyard_filecoin::{economics::locked_part, rpc::TipSet};

use crate::app::Shared;

/// The actor at a day's end, ready to be recorded.
pub struct DayEnd {
    pub day: i64,
    at_epoch: i64,
    network_version: u32,
    balance: TokenAmount,
    locked: TokenAmount,
    deposits: TokenAmount,
    pledge: TokenAmount,
    fee_debt: TokenAmount,
    available: TokenAmount,
    raw_power: BigInt,
    qa_power: BigInt,
}

/// The day after which `end` is the first tipset, if there is one. A chunk never extends beyond it.
pub fn ended_day(cursor: &Cursor, end: &TipSet) -> Option<i64> {
    let time = cursor.time();
    let day = time.day(cursor.next_epoch);
    (end.height >= time.first_epoch(day + 1)).then_some(day)
}

/// The actor as it was before `end`. A state that contradicts itself is an error, because then the
/// node cannot be believed.
pub async fn day_end(
    app: &Shared,
    miner: &Address,
    day: i64,
    end: &TipSet,
) -> anyhow::Result<DayEnd> {
    let actor = app.node.miner_state(miner, &end.cids).await?;
    let power = app.node.miner_power(miner, &end.cids).await?;
    let found = DayEnd {
        day,
        at_epoch: end.height,
        network_version: app.node.network_version(&end.cids).await?,
        balance: actor.balance,
        locked: actor.state.locked_funds,
        deposits: actor.state.pre_commit_deposits,
        pledge: actor.state.initial_pledge,
        fee_debt: actor.state.fee_debt,
        available: app.node.available_balance(miner, &end.cids).await?,
        raw_power: power.miner_power.raw_byte_power,
        qa_power: power.miner_power.quality_adj_power,
    };
    let bound = &found.locked + &found.deposits + &found.pledge;
    ensure!(
        found.balance >= bound,
        "the node says that miner {miner} has {} attoFIL at epoch {}, less than its locked funds, \
         deposits and pledge of {}; nothing is recorded until that adds up",
        found.balance.atto(),
        end.height,
        bound.atto()
    );
    // Vested amounts that have not been swept yet are available as well.
    ensure!(
        &found.available + &found.fee_debt + &bound >= found.balance,
        "the node says that miner {miner} has {} attoFIL at epoch {}, more than is locked, \
         deposited, pledged and available; nothing is recorded until that adds up",
        found.balance.atto(),
        end.height
    );
    Ok(found)
}

impl DayEnd {
    /// Records the day, whose wins and flows have been recorded already.
    pub fn record(&self, conn: &mut AnyConnection, cursor: &Cursor) -> Result<(), CloseError> {
        let (pool, time) = (cursor.pool_id, cursor.time());
        let (first, end) = (time.first_epoch(self.day), time.first_epoch(self.day + 1));
        let wins = yields::wins(conn, pool, first, end)?;
        let reward = yields::won(&wins)?.ok_or(CloseError::Overflow {
            pool,
            day: self.day,
        })?;
        let locked_in = locked_in(&wins)?;
        let flows = yields::flow_sums(conn, pool, first, end)?;
        let of = |kind| flows.of(kind).to_string();
        let (unlocked, other) = match yields::chain_day(conn, pool, self.day - 1)? {
            Some(before) => {
                let unlocked = amount(&before.locked_atto)? + locked_in.atto() - self.locked.atto();
                let fees = FEES.into_iter().map(|kind| BigInt::from(flows.of(kind)));
                let explained = BigInt::from(reward) - fees.sum::<BigInt>();
                (unlocked, self.gained_since(&before)? - explained)
            }
            None => (BigInt::default(), BigInt::default()),
        };
        let row = ChainDay {
            pool_id: pool,
            day: self.day,
            at_epoch: self.at_epoch,
            network_version: i64::from(self.network_version),
            reward_atto: reward.to_string(),
            daily_fee_atto: of(FlowKind::DailyFee),
            other_atto: other.to_string(),
            balance_atto: self.balance.atto().to_string(),
            locked_atto: self.locked.atto().to_string(),
            deposits_atto: self.deposits.atto().to_string(),
            pledge_atto: self.pledge.atto().to_string(),
            fee_debt_atto: self.fee_debt.atto().to_string(),
            available_atto: self.available.atto().to_string(),
            raw_power: self.raw_power.to_string(),
            qa_power: self.qa_power.to_string(),
            fault_fee_atto: of(FlowKind::FaultFee),
            termination_fee_atto: of(FlowKind::TerminationFee),
            deposits_in_atto: of(FlowKind::DepositIn),
            deposits_back_atto: of(FlowKind::DepositBack),
            deposits_lost_atto: of(FlowKind::DepositLost),
            pledge_in_atto: of(FlowKind::PledgeIn),
            pledge_back_atto: of(FlowKind::PledgeBack),
            locked_in_atto: locked_in.atto().to_string(),
            unlocked_atto: unlocked.to_string(),
        };
        Ok(yields::record_chain_day(conn, &row)?)
    }

    /// The change of the miner's balance since an earlier day. Fee debt counts as spent.
    fn gained_since(&self, before: &ChainDay) -> Result<BigInt, CloseError> {
        let before = amount(&before.balance_atto)? - amount(&before.fee_debt_atto)?;
        Ok(self.balance.atto() - self.fee_debt.atto() - before)
    }
}

/// Flows that reduce the miner's balance.
const FEES: [FlowKind; 4] = [
    FlowKind::DailyFee,
    FlowKind::FaultFee,
    FlowKind::TerminationFee,
    FlowKind::DepositLost,
];

/// The part of the day's income that was locked to vest.
fn locked_in(wins: &[Win]) -> Result<TokenAmount, CloseError> {
    let mut locked = TokenAmount::default();
    for win in wins {
        let income = amount(&win.reward_atto)? + amount(&win.tips_atto)?;
        locked += locked_part(&TokenAmount::from_atto(income));
    }
    Ok(locked)
}

fn amount(text: &str) -> Result<BigInt, CloseError> {
    text.parse()
        .map_err(|_| CloseError::Amount(text.to_owned()))
}
