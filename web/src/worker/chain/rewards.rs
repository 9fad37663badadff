//! The income of a won block: the miner's share of the epoch's reward, and the tips of the messages
//! that it was first to include. The winner's share of the reward (FIP-0118) is read from the
//! miner's own balance if nothing else can have changed that.

use std::collections::HashSet;

use anyhow::{Context, ensure};
use fvm_shared::{
    address::{Address, Protocol},
    econ::TokenAmount,
};
use sealyard_core::yields::Win;
use sealyard_filecoin::{
    economics::{EXPECTED_WINS, SOLSTICE},
    rpc::{BlockHeader, Message, TipSet},
};

use super::chunk::Chunk;
use crate::app::Shared;

/// The most wins of one block (Lotus: `MaxWinCount`).
const MOST_WINS: i64 = 15;

/// Methods of a miner that do not change its balance as long as it owes nothing:
/// SubmitWindowedPoSt, and the three of sealing.
const LEAVE_BALANCE: [u64; 4] = [5, 28, 34, 36];

/// The win of block `at` of a tipset. `None`: there is no such block.
pub async fn win(chunk: &Chunk<'_>, tipset: &TipSet, at: usize) -> anyhow::Result<Option<Win>> {
    let (app, pool) = (chunk.app, chunk.pool.id);
    let (Some(block), Some(cid)) = (tipset.blocks.get(at), tipset.cids.get(at)) else {
        return Ok(None);
    };
    let count = block
        .election_proof
        .as_ref()
        .context("a block without election proof")?
        .win_count;
    let reward = app
        .node
        .reward_state(&tipset.cids)
        .await?
        .state
        .this_epoch_reward;
    let whole: TokenAmount = (reward * count).div_floor(EXPECTED_WINS);
    let mut messages: Vec<Vec<Message>> = Vec::new();
    for cid in &tipset.cids {
        messages.push(app.node.block_messages(cid).await?.all().cloned().collect());
    }
    let tips = tips(
        messages.get(..=at).unwrap_or(&messages),
        &block.parent_base_fee,
    );
    let reward = if app.node.network_version(&tipset.cids).await? < SOLSTICE {
        whole
    } else {
        let gained = gained(chunk, tipset, &messages).await?;
        let permille = app.config.winners_permille(tipset.height);
        winners_part(&whole, &tips, gained, permille)
    };
    ensure!(
        (1..=MOST_WINS).contains(&count) && !reward.is_negative() && !tips.is_negative(),
        "the node says that block {cid} has {count} wins, {} attoFIL of reward and {} of tips; \
         that is impossible, and nothing is recorded until the answer changes",
        reward.atto(),
        tips.atto()
    );
    let atto = |amount: &TokenAmount| amount.atto().to_string();
    let (reward_atto, tips_atto) = (atto(&reward), atto(&tips));
    Ok(Some(Win {
        pool_id: pool,
        epoch: tipset.height,
        cid: cid.to_string(),
        win_count: count,
        reward_atto,
        tips_atto,
    }))
}

/// The winner's part of a block's reward: the gain of the miner's balance besides the tips, if it
/// is known and plausible; otherwise the configured share.
fn winners_part(
    whole: &TokenAmount,
    tips: &TokenAmount,
    gained: Option<TokenAmount>,
    permille: i64,
) -> TokenAmount {
    match gained.map(|gained| gained - tips) {
        Some(part) if !part.is_negative() && part <= *whole => part,
        _ => (whole * permille).div_floor(1000),
    }
}

/// The gain of the miner's balance in a tipset, if nothing but one win can have changed it: the
/// miner won a single block, no deadline ended, nobody sent it anything, and it owed nothing.
async fn gained(
    chunk: &Chunk<'_>,
    tipset: &TipSet,
    messages: &[Vec<Message>],
) -> anyhow::Result<Option<TokenAmount>> {
    let of_miner = |block: &&BlockHeader| block.miner == *chunk.miner;
    if tipset.blocks.iter().filter(of_miner).count() != 1 {
        return Ok(None);
    }
    let may_touch = |message: &Message| {
        // The miner may be named by its ID or by an actor address.
        let to_miner = message.to == *chunk.miner || message.to.protocol() == Protocol::Actor;
        to_miner && (!message.value.is_zero() || !LEAVE_BALANCE.contains(&message.method))
    };
    if chunk
        .deadline_ends
        .iter()
        .any(|(epoch, _)| *epoch == tipset.height)
        || messages.iter().flatten().any(may_touch)
    {
        return Ok(None);
    }
    let after = chunk.after(tipset.height);
    // With null rounds in between, the chain also does the work of those epochs.
    if after.height != tipset.height + 1 {
        return Ok(None);
    }
    let was = chunk
        .app
        .node
        .miner_state(chunk.miner, &tipset.cids)
        .await?;
    let is = chunk.app.node.miner_state(chunk.miner, &after.cids).await?;
    let owes = !was.state.fee_debt.is_zero() || !is.state.fee_debt.is_zero();
    Ok((!owes).then(|| is.balance - was.balance))
}

/// Tips of the last of some blocks of one tipset, in the tipset's order. A message in several
/// blocks pays the first of them. If its sender cannot pay, there is no tip, and that shows as a
/// difference in the day's balance.
fn tips(blocks: &[Vec<Message>], base_fee: &TokenAmount) -> TokenAmount {
    let Some((last, before)) = blocks.split_last() else {
        return TokenAmount::default();
    };
    let key = |message: &Message| -> (Address, u64) { (message.from, message.nonce) };
    let mut seen: HashSet<(Address, u64)> = before.iter().flatten().map(key).collect();
    last.iter()
        .filter(|message| seen.insert(key(message)))
        .map(|message| message.gas_offer().tip(base_fee))
        .sum()
}

/// The base fee that messages of the tipset before `height` paid.
pub async fn base_fee_before(app: &Shared, height: i64) -> anyhow::Result<TokenAmount> {
    let tipset = app.node.tipset_by_height(height - 1).await?;
    Ok(tipset
        .blocks
        .first()
        .context("a tipset without blocks")?
        .parent_base_fee
        .clone())
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
    fn the_winners_part_is_the_gain_of_the_balance_or_the_configured_share() {
        let atto = TokenAmount::from_atto;
        let part = |gained: Option<i64>| winners_part(&atto(1000), &atto(7), gained.map(atto), 950);
        assert_eq!(part(Some(940)), atto(933), "whatever the settings say");
        assert_eq!(part(None), atto(950));
        for no_reward in [6, 1008, -5] {
            assert_eq!(
                part(Some(no_reward)),
                atto(950),
                "{no_reward} is not what a win brings"
            );
        }
    }

    #[test]
    fn a_message_pays_its_tip_to_the_first_block_that_includes_it() {
        let base_fee = TokenAmount::from_atto(100);
        let first = vec![message(101, 0, 7), message(102, 0, 1)];
        let second = vec![
            message(101, 0, 7),
            message(101, 1, 20),
            message(103, 5, 900),
        ];
        let blocks = [first, second];
        assert_eq!(tips(&blocks[..1], &base_fee), TokenAmount::from_atto(8_000));
        let capped = 400;
        assert_eq!(
            tips(&blocks, &base_fee),
            TokenAmount::from_atto((20 + capped) * 1000)
        );
        assert_eq!(tips(&[Vec::new()], &base_fee), TokenAmount::default());
    }
}
