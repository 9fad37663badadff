//! What a won block brings its miner: its share of the epoch's reward, and the tips of the messages that it was first to bring in.

use std::collections::HashSet;

use anyhow::{Context, ensure};
use fvm_shared::{address::Address, econ::TokenAmount};
use sealyard_core::{ids::PoolId, yields::Win};
use sealyard_filecoin::{
    economics::EXPECTED_WINS,
    rpc::{Message, TipSet},
};

use crate::app::Shared;

/// A block has no more (Lotus: `MaxWinCount`).
const MOST_WINS: i64 = 15;

/// The win of block `at` of a tipset. `None`: there is no such block.
pub async fn win(app: &Shared, pool: PoolId, tipset: &TipSet, at: usize) -> anyhow::Result<Option<Win>> {
    let (Some(block), Some(cid)) = (tipset.blocks.get(at), tipset.cids.get(at)) else { return Ok(None) };
    let count = block.election_proof.as_ref().context("a block without election proof")?.win_count;
    let reward = app.node.reward_state(&tipset.cids).await?.state.this_epoch_reward;
    let reward: TokenAmount = (reward * count).div_floor(EXPECTED_WINS);
    let reward = (reward * app.config.winners_permille(tipset.height)).div_floor(1000);
    let mut brought_in = Vec::new();
    for cid in tipset.cids.iter().take(at + 1) {
        brought_in.push(app.node.block_messages(cid).await?.all().cloned().collect());
    }
    let tips = tips(&brought_in, &block.parent_base_fee);
    ensure!(
        (1..=MOST_WINS).contains(&count) && !reward.is_negative() && !tips.is_negative(),
        "the node says that block {cid} has {count} wins, {} attoFIL of reward and {} of tips; nothing is recorded until that can be",
        reward.atto(),
        tips.atto()
    );
    let atto = |amount: &TokenAmount| amount.atto().to_string();
    let (reward_atto, tips_atto) = (atto(&reward), atto(&tips));
    Ok(Some(Win { pool_id: pool, epoch: tipset.height, cid: cid.to_string(), win_count: count, reward_atto, tips_atto }))
}

/// Tips of the last of some blocks of one tipset, in the tipset's order: a message in several pays the first of them. A message
/// that its sender could not pay for would pay no tip; that shows as a difference of the day's balance.
fn tips(blocks: &[Vec<Message>], base_fee: &TokenAmount) -> TokenAmount {
    let Some((last, before)) = blocks.split_last() else { return TokenAmount::default() };
    let key = |message: &Message| -> (Address, u64) { (message.from, message.nonce) };
    let mut seen: HashSet<(Address, u64)> = before.iter().flatten().map(key).collect();
    last.iter().filter(|message| seen.insert(key(message))).map(|message| message.gas_offer().tip(base_fee)).sum()
}

/// The base fee that messages of the tipset before `height` paid.
pub async fn base_fee_before(app: &Shared, height: i64) -> anyhow::Result<TokenAmount> {
    let tipset = app.node.tipset_by_height(height - 1).await?;
    Ok(tipset.blocks.first().context("a tipset without blocks")?.parent_base_fee.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(from: u64, nonce: u64, premium: i64) -> Message {
        Message {
            version: 0,
            to: Address::new_id(1000),
            from: Address::new_id(from),
            nonce,
            value: TokenAmount::default(),
            gas_limit: 1000,
            gas_fee_cap: TokenAmount::from_atto(500),
            gas_premium: TokenAmount::from_atto(premium),
            method: 0,
            params: String::new(),
            cid: None,
        }
    }

    #[test]
    fn a_message_pays_the_first_block_that_brings_it_in() {
        let base_fee = TokenAmount::from_atto(100);
        let first = vec![message(101, 0, 7), message(102, 0, 1)];
        let second = vec![message(101, 0, 7), message(101, 1, 20), message(103, 5, 900)];
        let blocks = [first, second];
        assert_eq!(tips(&blocks[..1], &base_fee), TokenAmount::from_atto(8_000));
        let capped = 400;
        assert_eq!(tips(&blocks, &base_fee), TokenAmount::from_atto((20 + capped) * 1000));
        assert_eq!(tips(&[Vec::new()], &base_fee), TokenAmount::default());
    }
}
