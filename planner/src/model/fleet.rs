//! The planner's subject: machines and their classes, sector sizes, pools, the chain's delays, orders.

use crate::{ClassIx, KindIx, MachineIx, PoolIx, Secs, Table};

/// Resources that a step holds while it runs. Memory, scratch and storage in one unit of the caller's choice.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Need {
    pub cores: i32,
    pub memory: i32,
    pub gpus: i32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    P1,
    P2,
    C2,
}

/// A sector size.
#[derive(Clone, Debug)]
pub struct Kind {
    pub p1: Need,
    pub p2: Need,
    pub c2: Need,
    /// Scratch from the start of PC1 until C1 is done.
    pub scratch_full: i32,
    /// Scratch that stays until the sealed file is stored.
    pub scratch_keep: i32,
    pub stored: i32,
}

impl Kind {
    #[must_use]
    pub const fn need(&self, step: Step) -> Need {
        match step {
            Step::P1 => self.p1,
            Step::P2 => self.p2,
            Step::C2 => self.c2,
        }
    }

    /// PC1 steps that fit into so much.
    #[must_use]
    pub fn p1_slots(&self, cores: i32, memory: i32, scratch: i32) -> i32 {
        let of = |free: i32, need: i32| if need > 0 { free / need } else { i32::MAX };
        of(cores, self.p1.cores).min(of(memory, self.p1.memory)).min(of(scratch, self.scratch_full)).max(0)
    }
}

/// One value for each step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Steps<T> {
    pub p1: T,
    pub p2: T,
    pub c2: T,
}

impl<T: Copy> Steps<T> {
    #[must_use]
    pub const fn of(&self, step: Step) -> T {
        match step {
            Step::P1 => self.p1,
            Step::P2 => self.p2,
            Step::C2 => self.c2,
        }
    }
}

/// Seconds of the steps of one sector size on one class of machine; 0: it cannot do that step.
pub type Durations = Steps<Secs>;

#[derive(Clone, Debug)]
pub struct Class {
    pub name: String,
    pub cores: i32,
    pub memory: i32,
    pub gpus: i32,
    pub scratch: i32,
    pub store: i32,
    /// Moves at a time.
    pub nic: i32,
    pub durations: Table<KindIx, Durations>,
}

#[derive(Clone, Debug)]
pub struct Machine {
    pub pool: PoolIx,
    pub class: ClassIx,
    /// Planned windows `[from, to)` in which nothing runs; in order.
    pub down: Vec<(Secs, Secs)>,
    /// No PC1 and no C2 begins there any more; what runs goes on, and layers that are there are finished.
    pub drains: bool,
}

#[derive(Clone, Debug)]
pub struct Pool {
    /// Moves of one sector's files between two machines. `None`: none; PC2 is done where PC1 was.
    pub moves: Table<KindIx, Option<Moves>>,
}

#[derive(Clone, Copy, Debug)]
pub struct Moves {
    /// Seconds from where PC1 was done to a GPU.
    pub layers: Secs,
    /// Seconds of the sealed file to a machine with storage. `None`: it stays on the disk that was scratch for it.
    pub sealed: Option<Secs>,
}

impl Pool {
    /// Seconds of moving a sealed file; `None`: it stays where it is.
    #[must_use]
    pub fn moves_sealed(&self, kind: KindIx) -> Option<Secs> {
        self.moves[kind].and_then(|moves| moves.sealed)
    }
}

/// The chain's delays.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delays {
    /// From sending a message to its inclusion.
    pub message: Secs,
    /// From PreCommit to its seed.
    pub seed: Secs,
    pub c1: Secs,
    /// Oldest ticket that a PreCommit may carry, counted from the start of PC1.
    pub ticket: Secs,
    /// From PreCommit to the last moment of ProveCommit.
    pub prove: Secs,
}

#[derive(Clone, Debug, Default)]
pub struct Fleet {
    pub delays: Delays,
    pub kinds: Table<KindIx, Kind>,
    pub pools: Table<PoolIx, Pool>,
    pub classes: Table<ClassIx, Class>,
    pub machines: Table<MachineIx, Machine>,
    /// Windows `[from, to)` in which messages are not included; in order.
    pub gas_blocked: Vec<(Secs, Secs)>,
}

impl Fleet {
    #[must_use]
    pub fn class(&self, machine: MachineIx) -> &Class {
        &self.classes[self.machines[machine].class]
    }

    #[must_use]
    pub fn pool(&self, machine: MachineIx) -> PoolIx {
        self.machines[machine].pool
    }

    /// Seconds of a step there; 0: not possible.
    #[must_use]
    pub fn duration(&self, machine: MachineIx, kind: KindIx, step: Step) -> Secs {
        self.class(machine).durations[kind].of(step)
    }
}

/// Equal sectors that somebody is owed.
#[derive(Clone, Debug)]
pub struct Order {
    /// The caller's own number.
    pub id: i64,
    /// `None`: any.
    pub pool: Option<PoolIx>,
    pub kind: KindIx,
    pub n: u32,
    /// When the first sector may start, and the seconds between one and the next.
    pub release: Secs,
    pub step: Secs,
    pub due: Secs,
    pub weight: i64,
    /// From when on the planner may know of it.
    pub known: Secs,
}
