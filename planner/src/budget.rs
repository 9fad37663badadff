//! The time, or the number of plans, that a search may use.

/// How much a search tries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effort {
    /// One rule, once, without a search.
    OneRule,
    /// The best of the portfolio's rules.
    Rules,
    /// The best rule, and changes to it until the budget is used.
    Search,
}

/// How long a search may go on.
pub trait Budget {
    fn effort(&self) -> Effort;
    /// The next search begins.
    fn begin(&mut self);
    /// Per mille of this search's share that is used; at 1000 the search ends.
    fn used(&mut self) -> u32;
}

/// A fixed number of plans, however long they take: the same world gives the same result.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    most: u32,
    simulated: u32,
}

impl Rounds {
    #[must_use]
    pub const fn most(most: u32) -> Self {
        Self { most, simulated: 0 }
    }
}

impl Budget for Rounds {
    fn effort(&self) -> Effort {
        Effort::Search
    }

    fn begin(&mut self) {
        self.simulated = 0;
    }

    fn used(&mut self) -> u32 {
        self.simulated = self.simulated.saturating_add(1);
        self.simulated.saturating_mul(1000) / self.most.max(1)
    }
}
