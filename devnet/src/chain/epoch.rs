//! Passes an epoch: messages, block wins, cron. Everything random is drawn from the seed and the
//! epoch, so that the same messages at the same epochs give the same chain.

use anyhow::{Context, Result};
use cid::Cid;
use fvm_ipld_encoding::CborStore;
use fvm_shared::{bigint::BigInt, econ::TokenAmount};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use sealyard_filecoin::{
    economics::EXPECTED_WINS,
    gas::GasCost,
    rpc::{Message, Receipt},
};
use serde::Serialize;

use crate::{
    miner::{self, Outcome},
    state::{Chain, TipsetRecord, block_cid},
};

/// Why a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stopped {
    /// All requested epochs have passed.
    Done,
    /// Messages landed in the last epoch.
    MessagesLanded,
    /// A WindowPoSt is due in the open deadline and has not arrived.
    ProofDue,
}

impl Chain {
    /// Passes up to `epochs` epochs. Stops early when messages have landed, and before a deadline
    /// closes with proofs missing, unless `force` is set.
    pub fn step(&mut self, epochs: i64, force: bool) -> Result<Stopped> {
        let mut stopped = Stopped::Done;
        for _ in 0..epochs {
            let messages = self
                .world
                .mempool
                .iter()
                .any(|message| self.is_included(message));
            if !force && !messages && self.proof_due()? {
                stopped = Stopped::ProofDue;
                break;
            }
            self.pass_epoch()?;
            if messages {
                stopped = Stopped::MessagesLanded;
                break;
            }
        }
        self.commit_messages()?;
        Ok(stopped)
    }

    /// True when the deadline that is open at the next epoch has a live partition without a proof.
    fn proof_due(&self) -> Result<bool> {
        miner::proof_due(self, self.head() + 1)
    }

    /// Whether a message pays enough to be included now.
    fn is_included(&self, message: &Message) -> bool {
        message.gas_fee_cap >= TokenAmount::from_atto(self.world.base_fee)
    }

    /// Takes the messages to include now from the mempool: each sender's in order of nonce, up to
    /// the first that does not pay enough.
    fn included(&mut self) -> Vec<Message> {
        let mut waiting = std::mem::take(&mut self.world.mempool);
        waiting.sort_by_key(|message| message.nonce);
        let mut stuck = Vec::new();
        let (included, left): (Vec<Message>, Vec<Message>) =
            waiting.into_iter().partition(|message| {
                let goes = self.is_included(message) && !stuck.contains(&message.from);
                if !goes {
                    stuck.push(message.from);
                }
                goes
            });
        self.world.mempool = left;
        included
    }

    pub(super) fn pass_epoch(&mut self) -> Result<()> {
        let included = self.included();
        self.pass_epoch_with(included)
    }

    pub(super) fn pass_epoch_with(&mut self, included: Vec<Message>) -> Result<()> {
        self.remember();
        let epoch = self.head() + 1;
        let mut rng = self.rng("epoch", epoch);
        let null = rng.next_u64() % 1000 < self.config.null_rounds && included.is_empty();
        let win_count = if null {
            0
        } else {
            self.draw_wins(epoch, &mut rng)?
        };
        let parent = self.tipset(epoch).context("no tipset to build on")?.cid;
        let mut state = self.miner()?;
        let base_fee = self.world.base_fee;
        let mut record = TipsetRecord {
            epoch,
            cid: parent,
            parent: Some(parent),
            null,
            win_count,
            messages: Vec::new(),
            base_fee,
        };

        let mut tips = TokenAmount::default();
        for message in included {
            let outcome = miner::execute(self, &mut state, epoch, &message);
            tips += self.charge_gas(&message, outcome.gas_used);
            self.land(&mut record, message, epoch, outcome);
        }
        if win_count > 0 {
            let whole = (self.config.reward()? * win_count).div_floor(EXPECTED_WINS);
            // The rest goes to services or is burnt; nothing here follows it.
            let reward = (whole * self.config.winners_permille(epoch)).div_floor(1000);
            miner::award(self, &mut state, epoch, reward + tips)?;
        }
        miner::cron(self, &mut state, epoch)?;

        let root = self
            .blocks
            .put_cbor(&state, multihash_codetable::Code::Blake2b256)?;
        self.append(record, root)
    }

    /// Appends a tipset, whose CID is still that of its parent, and the state after it if that
    /// differs from the one before.
    fn append(&mut self, mut record: TipsetRecord, root: Cid) -> Result<()> {
        let epoch = record.epoch;
        if !record.null {
            let TipsetRecord {
                cid: parent,
                win_count,
                messages,
                ..
            } = &record;
            let forks = self.world.forks.len();
            record.cid = block_cid(
                format!("{parent}/{epoch}/{root}/{win_count}/{messages:?}/{forks}").as_bytes(),
            );
            self.epoch_of_block.insert(record.cid.to_string(), epoch);
        }
        self.tipsets.push(record);
        let latest = self.snapshots.last().context("no state yet")?;
        let changed = latest.miner_root != root
            || latest.miner_balance != self.world.miner_balance
            || latest.qa_power != self.world.qa_power;
        if changed {
            let snapshot = self.snapshot(epoch, root);
            self.snapshots.push(snapshot);
        }
        self.world.epoch = epoch;
        Ok(())
    }

    /// Each of the epoch's winners is ours with the probability of our power share at the lookback.
    fn draw_wins(&self, epoch: i64, rng: &mut ChaCha20Rng) -> Result<i64> {
        let Some(past) = self.state_after(epoch - self.config.election_lookback) else {
            return Ok(0);
        };
        if past.raw_power < BigInt::from(self.config.minimum_power)
            || past.qa_power == BigInt::from(0)
        {
            return Ok(0);
        }
        let ours = u64::try_from(&past.qa_power).context("the miner's power is beyond 64 bits")?;
        let total = ours
            .checked_add(self.config.other_power)
            .context("network power is beyond 64 bits")?;
        Ok((0..EXPECTED_WINS)
            .map(|_| i64::from(rng.next_u64() % total < ours))
            .sum())
    }

    fn rng(&self, purpose: &str, epoch: i64) -> ChaCha20Rng {
        ChaCha20Rng::from_seed(self.digest(purpose, epoch))
    }

    /// Charges the sender for gas: burns the base fee, including that of over-estimated gas, and
    /// returns the tip.
    fn charge_gas(&mut self, message: &Message, gas_used: i64) -> TokenAmount {
        let GasCost { burnt, tip } = message
            .gas_offer()
            .cost(gas_used, &TokenAmount::from_atto(self.world.base_fee));
        if let Some(wallet) = self
            .wallet_id(&message.from.to_string())
            .and_then(|id| self.world.accounts.get_mut(&id))
        {
            wallet.balance -= &burnt + &tip;
        }
        self.world.burnt += burnt;
        tip
    }

    fn land(&mut self, record: &mut TipsetRecord, message: Message, epoch: i64, outcome: Outcome) {
        let Some(cid) = message.cid.map(|cid| cid.to_string()) else {
            return;
        };
        if let Some(reason) = &outcome.reason {
            tracing::warn!(epoch, method = message.method, %reason, "message failed");
        }
        let receipt = Receipt {
            exit_code: outcome.exit_code,
            r#return: outcome.return_base64,
            gas_used: outcome.gas_used,
            events_root: None,
        };
        if let Some(entry) = self.messages.get_mut(&cid) {
            entry.landed = Some((epoch, receipt));
            entry.unsaved = true;
        }
        record.messages.push(cid);
    }
}
