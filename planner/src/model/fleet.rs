//! The planner's input: machines and their classes, sector sizes, pools, the chain's delays,
//! orders.

use crate::{ClassIx, KindIx, MachineIx, PoolIx, Secs, Table};

/// Resources that a step takes while it runs. Memory, scratch and storage share one unit, which the
/// caller chooses.
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

    /// How many PC1 steps fit into these cores, this memory and this scratch.
    #[must_use]
    pub fn p1_slots(&self, cores: i32, memory: i32, scratch: i32) -> i32 {
        let of = |free: i32, need: i32| if need > 0 { free / need } else { i32::MAX };
        of(cores, self.p1.cores)
            .min(of(memory, self.p1.memory))
            .min(of(scratch, self.scratch_full))
            .max(0)
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

/// Seconds of each step of one sector size on one class of machine; 0: it cannot do that step.
pub type Durations = Steps<Secs>;

#[derive(Clone, Debug)]
pub struct Class {
    pub name: String,
    pub cores: i32,
    pub memory: i32,
    pub gpus: i32,
    pub scratch: i32,
    pub store: i32,
    /// How many moves it takes part in at a time.
    pub nic: i32,
    pub durations: Table<KindIx, Durations>,
}

#[derive(Clone, Debug)]
pub struct Machine {
    pub pool: PoolIx,
    pub class: ClassIx,
    /// Planned windows `[from, to)` in which nothing runs, in order.
    pub down: Vec<(Secs, Secs)>,
    /// No PC1 and no C2 begins there any more. Running steps go on, and layers that are there are
    /// finished.
    pub drains: bool,
}

#[derive(Clone, Debug)]
pub struct Pool {
    /// How one sector's files move between two machines. `None`: they do not; PC2 is done where PC1
    /// was.
    pub moves: Table<KindIx, Option<Moves>>,
}

#[derive(Clone, Copy, Debug)]
pub struct Moves {
    /// Seconds that layers take from the PC1 machine to a GPU machine.
    pub layers: Secs,
    /// Seconds that the sealed file takes to a machine with storage. `None`: it stays on the disk
    /// whose scratch it was made in.
    pub sealed: Option<Secs>,
}

impl Pool {
    /// Seconds that a sealed file's move takes; `None`: it stays where it is.
    #[must_use]
    pub fn moves_sealed(&self, kind: KindIx) -> Option<Secs> {
        self.moves[kind].and_then(|moves| moves.sealed)
    }
}

/// The chain's delays.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delays {
    /// Seconds from sending a message to its inclusion.
    pub message: Secs,
    /// Seconds from PreCommit to its seed.
    pub seed: Secs,
    pub c1: Secs,
    /// Greatest age of the ticket that a PreCommit may carry, counted from the start of PC1.
    pub ticket: Secs,
    /// Seconds from PreCommit to the last moment for ProveCommit.
    pub prove: Secs,
}

#[derive(Clone, Debug, Default)]
pub struct Fleet {
    pub delays: Delays,
    pub kinds: Table<KindIx, Kind>,
    pub pools: Table<PoolIx, Pool>,
    pub classes: Table<ClassIx, Class>,
    pub machines: Table<MachineIx, Machine>,
    /// Windows `[from, to)` in which no message is included, in order.
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

    /// Seconds of a step on that machine; 0: it cannot do it.
    #[must_use]
    pub fn duration(&self, machine: MachineIx, kind: KindIx, step: Step) -> Secs {
        self.class(machine).durations[kind].of(step)
    }
}

/// Equal sectors that are owed to somebody.
#[derive(Clone, Debug)]
pub struct Order {
    /// The caller's own number.
    pub id: i64,
    /// `None`: any pool.
    pub pool: Option<PoolIx>,
    pub kind: KindIx,
    pub n: u32,
    /// When the first sector may start, and the seconds between one and the next.
    pub release: Secs,
    pub step: Secs,
    pub due: Secs,
    pub weight: i64,
    /// When the planner first knows of it.
    pub known: Secs,
}
