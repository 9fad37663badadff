//! The rules of priority, and their parameters.

use crate::{HOUR, Secs};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// First in, first out.
    Fifo,
    /// Earliest due date of the step: the order's due date less the least time from this step to
    /// activation.
    Edd,
    /// Weighted modified due date.
    Wmdd,
    /// Apparent tardiness cost.
    Atc,
    /// By keys that a search has found.
    Keyed,
}

/// How a [`World`] decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    pub rule: Rule,
    /// ATC's look-ahead, in seconds.
    pub look: Secs,
    /// Lateness in seconds that adds an order's weight once more, so that nothing starves.
    pub age: Secs,
    /// PC1 slots are kept free for more urgent data that arrives within this time, because a PC1
    /// blocks its slot for hours.
    pub ahead: Secs,
    /// GPU work, in seconds, allowed between the start of PC1 and PC2, beyond one PC1's length.
    /// `None`: any amount.
    pub gate: Option<Secs>,
    /// Pacing limit: PC1 begins no faster than its pool's GPUs work, except that this many seconds
    /// of GPU work may begin at once. `None`: as fast as there is free capacity.
    pub burst: Option<Secs>,
    /// Slack in seconds below which a sector of weight 1 skips the pacing limit. Heavier sectors
    /// skip it with more slack.
    pub urgency_cutoff: Secs,
    /// Of equally fast machines, PC1 goes to the one with most free scratch, not the one with
    /// least.
    pub spread: bool,
    /// Sectors that can go to any pool count, in a pool that needs longer than the others, as due
    /// this many seconds later for each second that it needs longer. 0: they take any slot.
    pub give_way: i64,
    /// Sectors that can go to any pool count as due this many seconds later everywhere, because
    /// they find a slot more easily.
    pub any_later: Secs,
    /// On GPUs, layers count as due later than sectors that wait for C2, by this many hundredths of
    /// `look`.
    pub c2_first: i32,
    /// A machine with GPUs keeps capacity for one GPU step beside PC1.
    pub reserve: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            rule: Rule::Atc,
            look: 2 * HOUR,
            age: 48 * HOUR,
            ahead: HOUR,
            gate: Some(HOUR / 2),
            burst: Some(2 * HOUR),
            urgency_cutoff: HOUR * 3 / 2,
            spread: true,
            give_way: 2,
            any_later: HOUR,
            c2_first: 50,
            reserve: true,
        }
    }
}

/// Urgency, then due date (or another tie-break). The smaller goes first.
pub(crate) type Urgency = (i64, i64);
