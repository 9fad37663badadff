//! The chain's record of a pool's miner at the end of a UTC day.

use anyhow::ensure;
use fvm_shared::{address::Address, bigint::BigInt, econ::TokenAmount};
use sealyard_core::{
    ids::PoolId,
    store::AnyConnection,
    yields::{self, ChainDay, CloseError, Cursor, FlowKind},
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

/// The day that `end` is the first tipset after, if it is; a chunk never goes on beyond one.
pub fn ended_day(cursor: &Cursor, end: &TipSet) -> Option<i64> {
    let time = cursor.time();
    let day = time.day(cursor.next_epoch);
    (end.height >= time.first_epoch(day + 1)).then_some(day)
}

/// The actor as it was before `end`. A state that contradicts itself is an error: the node is not to be believed.
pub async fn day_end(app: &Shared, miner: &Address, day: i64, end: &TipSet) -> anyhow::Result<DayEnd> {
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
        "the node says that miner {miner} has {} attoFIL at epoch {}, less than its locked funds, deposits and pledge of {}; nothing \
         is recorded until that adds up",
        found.balance.atto(),
        end.height,
        bound.atto()
    );
    // Vested amounts that were not swept yet are available as well.
    ensure!(
        &found.available + &found.fee_debt + &bound >= found.balance,
        "the node says that miner {miner} has {} attoFIL at epoch {}, more than is locked, deposited, pledged and available; nothing is \
         recorded until that adds up",
        found.balance.atto(),
        end.height
    );
    Ok(found)
}

impl DayEnd {
    /// Records the day. Its wins and flows are recorded already.
    pub fn record(&self, conn: &mut AnyConnection, cursor: &Cursor) -> Result<(), CloseError> {
        let (pool, time): (PoolId, _) = (cursor.pool_id, cursor.time());
        let (first, end) = (time.first_epoch(self.day), time.first_epoch(self.day + 1));
        let overflow = || CloseError::Overflow { pool, day: self.day };
        let amount = |text: &String| text.parse::<BigInt>().map_err(|_| CloseError::Amount(text.clone()));
        let wins = yields::wins(conn, pool, first, end)?;
        let reward = yields::won(&wins)?.ok_or_else(overflow)?;
        let mut locked_in = TokenAmount::default();
        for win in &wins {
            locked_in += locked_part(&TokenAmount::from_atto(amount(&win.reward_atto)? + amount(&win.tips_atto)?));
        }
        let flows = yields::flow_sums(conn, pool, first, end)?;
        let of = |kind| flows.of(kind).to_string();
        let fees = [FlowKind::DailyFee, FlowKind::FaultFee, FlowKind::TerminationFee, FlowKind::DepositLost];
        let fees: BigInt = fees.into_iter().map(|kind| BigInt::from(flows.of(kind))).sum();
        // Fee debt counts as spent.
        let yesterday = yields::chain_day(conn, pool, self.day - 1)?;
        let unlocked = match &yesterday {
            Some(before) => amount(&before.locked_atto)? + locked_in.atto() - self.locked.atto(),
            None => BigInt::default(),
        };
        let other = match &yesterday {
            Some(before) => {
                let before = amount(&before.balance_atto)? - amount(&before.fee_debt_atto)?;
                self.balance.atto() - self.fee_debt.atto() - before - reward + fees
            }
            None => BigInt::default(),
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
}
