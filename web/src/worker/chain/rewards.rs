//! The income of a won block: the miner's share of the epoch's reward, and the tips of the messages
//! that it was first to include. The winner's share of the reward (FIP-0118) is read from the
//! miner's own balance if nothing else can have changed that.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, ensure};
use fvm_shared::{
    address::{Address, Protocol},
    econ::TokenAmount,
};
use sealyard_core::{ids::PoolId, yields::Win};
use sealyard_filecoin::{
    economics::{EXPECTED_WINS, SOLSTICE},
    rpc::{BlockHeader, CidJson, Message, TipSet},
};

use super::chunk::Chunk;
use crate::app::Shared;

/// The most wins of one block (Lotus: `MaxWinCount`).
const MOST_WINS: i64 = 15;

/// Methods of a miner that do not change its balance as long as it owes nothing:
/// SubmitWindowedPoSt, and the three of sealing.
const LEAVE_BALANCE: [u64; 4] = [5, 28, 34, 36];

/// The winner's part of a reward, and the whole of it (FIP-0118).
#[derive(Clone, Debug)]
struct Share {
    part: TokenAmount,
    whole: TokenAmount,
}

impl Share {
    /// The same share of another reward.
    fn of(&self, whole: &TokenAmount) -> TokenAmount {
        if self.whole.is_zero() {
            return TokenAmount::default();
        }
        TokenAmount::from_atto(whole.atto() * self.part.atto() / self.whole.atto())
    }
}

/// The share that was read last from each miner's balance.
#[derive(Default)]
pub struct WinnersShares(Mutex<HashMap<PoolId, Share>>);

impl WinnersShares {
    fn last(&self, pool: PoolId) -> Option<Share> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&pool)
            .cloned()
    }

    fn keep(&self, pool: PoolId, share: &Share) {
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shares.insert(pool, share.clone());
    }
}

/// A block that the miner won.
struct Won {
    epoch: i64,
    cid: String,
    count: i64,
    whole: TokenAmount,
    tips: TokenAmount,
    /// The winner's part of the reward. `None`: it cannot be read from the miner's balance.
    part: Option<TokenAmount>,
    /// Whether the reward is split at all: since FIP-0118.
    is_split: bool,
}

impl Won {
    /// The share of a reward that was split. Rewards from before tell nothing about later ones.
    fn share(&self) -> Option<Share> {
        if !self.is_split {
            return None;
        }
        let whole = self.whole.clone();
        self.part.clone().map(|part| Share { part, whole })
    }
}

/// The greatest share of a reward that a winner gets, in thousandths (FIP-0118).
const GREATEST_PERMILLE: i64 = 950;

/// The miner's wins in a chunk.
pub async fn wins(chunk: &Chunk<'_>) -> anyhow::Result<Vec<Win>> {
    let mut all = Vec::new();
    for tipset in &chunk.tipsets {
        let blocks = tipset.blocks.iter().zip(&tipset.cids).enumerate();
        for (at, (block, cid)) in blocks.filter(|(_, (block, _))| block.miner == *chunk.miner) {
            all.push(won(chunk, tipset, (at, block, cid)).await?);
        }
    }
    let (shares, pool) = (&chunk.app.winners_shares, chunk.pool.id);
    let known: Vec<(i64, Share)> = all
        .iter()
        .filter_map(|won| Some((won.epoch, won.share()?)))
        .collect();
    let before = shares.last(pool);
    if let Some((_, share)) = known.last() {
        shares.keep(pool, share);
    }
    let part = |won: &Won| -> TokenAmount {
        if let Some(part) = &won.part {
            return part.clone();
        }
        let configured = chunk.app.config.winners_share_at(won.epoch);
        let nearest = known
            .iter()
            .min_by_key(|(epoch, _)| epoch.abs_diff(won.epoch));
        let nearest = nearest.map(|(_, share)| share).or(before.as_ref());
        unread_part(&won.whole, configured, nearest)
    };
    let row = |won: &Won| Win {
        pool_id: pool,
        epoch: won.epoch,
        cid: won.cid.clone(),
        win_count: won.count,
        reward_atto: part(won).atto().to_string(),
        tips_atto: won.tips.atto().to_string(),
    };
    Ok(all.iter().map(row).collect())
}

/// The winner's part where the balance does not tell: by the settings' schedule, or else the share
/// of the nearest win whose part is known, or else the greatest that there is.
fn unread_part(
    whole: &TokenAmount,
    configured: Option<i64>,
    nearest: Option<&Share>,
) -> TokenAmount {
    match (configured, nearest) {
        (None, Some(share)) => share.of(whole),
        (permille, _) => (whole * permille.unwrap_or(GREATEST_PERMILLE)).div_floor(1000),
    }
}

/// The win of a block of a tipset.
async fn won(
    chunk: &Chunk<'_>,
    tipset: &TipSet,
    (at, block, cid): (usize, &BlockHeader, &CidJson),
) -> anyhow::Result<Won> {
    let node = &chunk.app.node;
    let proof = block
        .election_proof
        .as_ref()
        .context("a block without election proof")?;
    let count = proof.win_count;
    let reward = node
        .reward_state(&tipset.cids)
        .await?
        .state
        .this_epoch_reward;
    let whole: TokenAmount = (reward * count).div_floor(EXPECTED_WINS);
    let mut messages: Vec<Vec<Message>> = Vec::new();
    for cid in &tipset.cids {
        messages.push(node.block_messages(cid).await?.all().cloned().collect());
    }
    let tips = tips(
        messages.get(..=at).unwrap_or(&messages),
        &block.parent_base_fee,
    );
    ensure!(
        (1..=MOST_WINS).contains(&count) && !whole.is_negative() && !tips.is_negative(),
        "the node says that block {cid} has {count} wins, {} attoFIL of reward and {} of tips; \
         that is impossible, and nothing is recorded until the answer changes",
        whole.atto(),
        tips.atto()
    );
    let is_split = node.network_version(&tipset.cids).await? >= SOLSTICE;
    let part = if is_split {
        let gained = gained(chunk, tipset, &messages).await?;
        winners_part(&whole, &tips, gained)
    } else {
        Some(whole.clone())
    };
    Ok(Won {
        epoch: tipset.height,
        cid: cid.to_string(),
        count,
        whole,
        tips,
        part,
        is_split,
    })
}

/// The winner's part of a block's reward: the gain of the miner's balance besides the tips, if it
/// is known and plausible.
fn winners_part(
    whole: &TokenAmount,
    tips: &TokenAmount,
    gained: Option<TokenAmount>,
) -> Option<TokenAmount> {
    gained
        .map(|gained| gained - tips)
        .filter(|part| !part.is_negative() && part <= whole)
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
    fn the_winners_part_is_the_gain_of_the_balance_if_it_can_be() {
        let atto = TokenAmount::from_atto;
        let part = |gained: Option<i64>| winners_part(&atto(1000), &atto(7), gained.map(atto));
        assert_eq!(part(Some(940)), Some(atto(933)));
        assert_eq!(part(None), None);
        for no_reward in [6, 1008, -5] {
            assert_eq!(
                part(Some(no_reward)),
                None,
                "{no_reward} is not what a win brings"
            );
        }
    }

    #[test]
    fn a_reward_from_before_the_split_tells_no_share() {
        let atto = TokenAmount::from_atto;
        let won = |is_split| Won {
            epoch: 7,
            cid: String::new(),
            count: 1,
            whole: atto(1000),
            tips: atto(0),
            part: Some(atto(1000)),
            is_split,
        };
        assert!(won(false).share().is_none());
        assert!(won(true).share().is_some());
    }

    #[test]
    fn an_unread_part_follows_the_schedule_or_the_nearest_win() {
        let atto = TokenAmount::from_atto;
        let nearest = Share {
            part: atto(933),
            whole: atto(1000),
        };
        let part = |configured, nearest| unread_part(&atto(2000), configured, nearest);
        assert_eq!(part(None, Some(&nearest)), atto(1866));
        assert_eq!(
            part(Some(900), Some(&nearest)),
            atto(1800),
            "the operator's schedule"
        );
        assert_eq!(part(Some(900), None), atto(1800));
        assert_eq!(
            part(None, None),
            atto(1900),
            "never more than the protocol allows"
        );
        assert_eq!(
            Share {
                part: atto(0),
                whole: atto(0)
            }
            .of(&atto(5)),
            atto(0)
        );
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
