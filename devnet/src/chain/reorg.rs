//! Reorganisations: replaces the latest epochs by others that include the messages later.

use anyhow::{Context, Result, ensure};
use sealyard_filecoin::rpc::Message;

use crate::state::Chain;

impl Chain {
    /// Saves the world before an epoch passes, for as many epochs as a reorganisation may replace.
    pub(super) fn remember(&mut self) {
        if self.config.reorg_depth == 0 {
            return;
        }
        self.past.push_back(self.world.clone());
        while self.past.len() > self.config.reorg_depth {
            self.past.pop_front();
        }
    }

    /// Replaces the latest `depth` epochs by as many new ones. The first `shift` of them include no
    /// messages, whatever waits. Messages that had landed wait again, with the same nonces.
    pub fn reorg(&mut self, depth: i64, shift: i64) -> Result<()> {
        ensure!(
            depth >= 1 && (0..=depth).contains(&shift),
            "Depth must be at least 1, Shift between 0 and Depth"
        );
        let head = self.head();
        let target = head - depth;
        let before = self.past.iter().position(|world| world.epoch == target);
        let kept = self.past.len();
        let mut world = before
            .and_then(|at| self.past.get(at))
            .cloned()
            .with_context(|| {
                format!(
                    "only the latest {kept} epochs can be taken back; start the network with a \
                     larger reorg_depth"
                )
            })?;
        let keep = usize::try_from(target + 1)?;
        let mut back = self.take_back(keep);
        self.snapshots.retain(|snapshot| snapshot.epoch <= target);
        self.past.retain(|world| world.epoch < target);
        back.append(&mut self.world.mempool);
        world.mempool = back;
        world.sent = std::mem::take(&mut self.world.sent);
        world.base_fee = self.world.base_fee;
        for (id, account) in &mut world.accounts {
            account.nonce = self
                .world
                .accounts
                .get(id)
                .map_or(account.nonce, |now| now.nonce);
        }
        world.forks.push(target);
        self.world = world;
        self.index_blocks();
        for passed in 0..depth {
            if passed < shift {
                self.pass_epoch_with(Vec::new())?
            } else {
                self.pass_epoch()?
            }
        }
        self.commit_messages()
    }

    /// Drops all but the first `keep` tipsets. Returns their messages, which no longer count as
    /// landed.
    fn take_back(&mut self, keep: usize) -> Vec<Message> {
        let mut back = Vec::new();
        for cid in self
            .tipsets
            .split_off(keep)
            .into_iter()
            .flat_map(|tipset| tipset.messages)
        {
            if let Some(entry) = self.messages.get_mut(&cid) {
                entry.landed = None;
                entry.unsaved = true;
                back.push(entry.message.clone());
            }
        }
        back
    }
}
