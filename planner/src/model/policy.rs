//! The rules of priority, and their parameters.

use crate::{HOUR, Secs};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// First in, first out.
    Fifo,
    /// Earliest due date of the step: the order's, less what is still to do from there on.
    Edd,
    /// Weighted modified due date.
    Wmdd,
    /// Apparent tardiness cost.
    Atc,
    /// Keys that a search has found.
    Keyed,
}

/// How a [`World`] decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    pub rule: Rule,
    /// How far ATC looks ahead.
    pub look: Secs,
    /// A late order's weight doubles every so often, so that nothing starves.
    pub age: Secs,
    /// PC1 slots are kept for more urgent data that arrives so soon: PC1 blocks a slot for hours.
    pub ahead: Secs,
    /// GPU work allowed between the start of PC1 and PC2, beyond one PC1's length. `None`: any.
    pub gate: Option<Secs>,
    /// PC1 begins no quicker than its pool's GPUs work, but for so many seconds of their work at once. `None`: as quick as there is
    /// room.
    pub burst: Option<Secs>,
    /// Except what has so little to spare; more, the more it weighs.
    pub urgency_cutoff: Secs,
    /// PC1 goes where most scratch is free, not where least is.
    pub spread: bool,
    /// What can go to any pool counts as due later by so many seconds for each by which a pool needs longer than the others. 0: it
    /// takes any slot.
    pub give_way: i64,
    /// And by so many anywhere: it finds a slot more easily.
    pub any_later: Secs,
    /// On GPUs, layers count as due so many hundredths of `look` later than what waits for C2.
    pub c2_first: i32,
    /// A machine with GPUs keeps room for one GPU step beside PC1.
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

/// Smaller goes first: urgency, then due date.
pub(crate) type Urgency = (i64, i64);
