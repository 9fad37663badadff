//! Buffers of the dispatch passes, kept between moments to avoid allocations.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::{Key, KindIx, MachineIx, PoolIx, Secs, Table};

/// A machine for PC1: the seconds and scratch that it is ranked by, and its key.
pub(crate) type Slot = ((Secs, i32), MachineIx);

/// Best on top. A machine that has become fuller is put in again with its new rank.
pub(crate) type Slots = BinaryHeap<Reverse<Slot>>;

/// Findings of one admission.
#[derive(Clone, Debug, Default)]
pub(crate) struct Admission {
    /// By pool and kind: no machine has capacity.
    pub closed: Vec<bool>,
    /// How many pairs of pool and kind may still have capacity.
    pub open: usize,
    /// PC1 slots that are neither taken nor kept, by pool; `None`: not counted yet.
    pub spare: Table<PoolIx, Option<i32>>,
    /// Machines by pool and kind; `None`: not looked at yet.
    pub slots: Vec<Option<Slots>>,
    pub kinds: usize,
    /// The present group skips the pacing limit. Groups are looked at by urgency, so once one does
    /// not, none of the later ones does.
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

    /// Whether no machine has capacity in any of these pools.
    pub fn is_closed(&self, kind: KindIx, is_meant: impl Fn(PoolIx) -> bool) -> bool {
        let is_closed = |pool| {
            self.closed
                .get(self.list(pool, kind))
                .copied()
                .unwrap_or(false)
        };
        self.spare
            .keys()
            .filter(|pool| is_meant(*pool))
            .all(is_closed)
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

/// Where layers of one kind can go in this pass, earliest end of PC2 on top. Ends are as of when
/// they were put in, so never later than they are now. `None`: not looked at yet.
pub(crate) type Targets = Option<BinaryHeap<Reverse<Target>>>;

/// When PC2 would end on a machine, counting the layers bound there; the machine's place among its
/// pool's GPU machines; its key.
pub(crate) type Target = (Secs, u32, MachineIx);

/// One pass over all layers of a pool.
#[derive(Clone, Debug, Default)]
pub(crate) struct Moving {
    pub of_kind: Vec<Targets>,
    /// How many machines can still be bound to.
    pub open: usize,
}
