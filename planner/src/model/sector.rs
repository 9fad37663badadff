//! One sector: its state, and the times and machines of its present attempt.

use crate::{GroupIx, MachineIx, Secs};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Wait,
    P1,
    /// Layers on `m1`.
    Layers,
    Moving,
    /// Layers on `m2`, waiting for its GPU.
    Bound,
    P2,
    /// PreCommit, seed and C1.
    Seed,
    WaitC2,
    C2,
    /// The ProveCommit is on its way.
    Landing,
    /// Activated; the sealed file is not stored yet.
    Active,
    Stored,
}

/// One attempt's times and machines; −1 and [`MachineIx::NONE`]: not yet. `x` is the move of the
/// layers, `y` the move of the sealed file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    pub m1: MachineIx,
    pub s1: Secs,
    pub e1: Secs,
    pub xs: Secs,
    pub xe: Secs,
    pub m2: MachineIx,
    pub s2: Secs,
    pub e2: Secs,
    pub pc: Secs,
    pub c1e: Secs,
    pub m3: MachineIx,
    pub s3: Secs,
    pub e3: Secs,
    pub vc: Secs,
    pub ms: MachineIx,
    pub ys: Secs,
    pub ye: Secs,
}

impl Row {
    pub(crate) const EMPTY: Self = Self {
        m1: MachineIx::NONE,
        s1: -1,
        e1: -1,
        xs: -1,
        xe: -1,
        m2: MachineIx::NONE,
        s2: -1,
        e2: -1,
        pc: -1,
        c1e: -1,
        m3: MachineIx::NONE,
        s3: -1,
        e3: -1,
        vc: -1,
        ms: MachineIx::NONE,
        ys: -1,
        ye: -1,
    };
}

#[derive(Clone, Debug)]
pub struct Sector {
    pub group: GroupIx,
    pub state: State,
    /// Tells this attempt's events from those of a lost one.
    pub attempt: u8,
    /// The machine to avoid, if another one can do the step.
    pub avoid: MachineIx,
    /// Its layers are not moved before then.
    pub still_until: Secs,
    pub row: Row,
}

impl Sector {
    /// It has never begun.
    pub(crate) fn is_fresh(&self) -> bool {
        self.state == State::Wait && self.attempt == 0
    }
}
