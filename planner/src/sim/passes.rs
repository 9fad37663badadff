//! Scratch space of the dispatching passes, kept between moments so that none has to be allocated again.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::{Key, KindIx, MachineIx, PoolIx, Secs, Table};

/// A machine for PC1: seconds and scratch that it is ranked by, and which it is.
pub(crate) type Slot = ((Secs, i32), MachineIx);

/// Best on top. A machine that has become fuller since it was put in is there once more.
pub(crate) type Slots = BinaryHeap<Reverse<Slot>>;

/// Findings of one admission.
#[derive(Clone, Debug, Default)]
pub(crate) struct Admission {
    /// Pool and kind for which no machine has room.
    pub closed: Vec<bool>,
    /// Those for which one may have.
    pub open: usize,
    /// PC1 slots that are neither taken nor kept; `None`: not counted yet.
    pub spare: Table<PoolIx, Option<i32>>,
    /// Machines of a pool for a kind; `None`: not looked at yet.
    pub slots: Vec<Option<Slots>>,
    pub kinds: usize,
    /// The present group may begin where PC1 is ahead, too. Groups are ranked, so the first one that may not ends this for all that follow.
    pub is_urgent: bool,
}

impl Admission {
    pub fn begin(&mut self, pools: usize, kinds: usize) {
        self.kinds = kinds;
        self.closed.clear();
        self.closed.resize(pools * kinds, false);
        self.open = pools * kinds;
        self.slots.clear();
        self.slots.resize(pools * kinds, None);
        self.spare.clear();
        self.spare.extend_with(&None, pools);
    }

    pub fn list(&self, pool: PoolIx, kind: KindIx) -> usize {
        pool.at() * self.kinds + kind.at()
    }

    /// Whether no machine has room in any of these pools.
    pub fn is_closed(&self, kind: KindIx, is_meant: impl Fn(PoolIx) -> bool) -> bool {
        let is_closed = |pool| self.closed.get(self.list(pool, kind)).copied().unwrap_or(false);
        self.spare.keys().filter(|pool| is_meant(*pool)).all(is_closed)
    }

    pub fn close(&mut self, kind: KindIx, is_meant: impl Fn(PoolIx) -> bool) {
        for pool in self.spare.keys().filter(|pool| is_meant(*pool)) {
            let at = self.list(pool, kind);
            if let Some(closed) = self.closed.get_mut(at) {
                self.open -= usize::from(!*closed);
                *closed = true;
            }
        }
    }
}

/// Where layers of one kind can go in this pass, where PC2 would end first on top; as of when they were put in, which is no later
/// than now. `None`: not looked at yet.
pub(crate) type Targets = Option<BinaryHeap<Reverse<Target>>>;

/// When PC2 would end there, counting what is bound there; its place among its pool's GPU machines; which it is.
pub(crate) type Target = (Secs, u32, MachineIx);

/// One look at all layers of a pool.
#[derive(Clone, Debug, Default)]
pub(crate) struct Moving {
    pub of_kind: Vec<Targets>,
    /// Machines that can still be bound to.
    pub open: usize,
}
