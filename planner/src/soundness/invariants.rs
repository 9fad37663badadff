//! Checks that hold in every world at every moment.

use crate::{
    model::fleet::{Class, Kind, Need},
    model::sector::{Row, Sector, State},
    model::table::{MachineIx, SectorIx, Table},
    sim::world::{MachineState, World},
};

/// Resources of one machine that a world's sectors hold, or that are left.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct Used {
    need: Need,
    scratch: i32,
    nic: i32,
    store: i32,
    bound: i32,
}

impl Used {
    fn run(&mut self, need: &Need) {
        self.need.cores += need.cores;
        self.need.memory += need.memory;
        self.need.gpus += need.gpus;
    }

    /// The resources that a machine of this class has left beside these.
    fn left_of(&self, class: &Class) -> Self {
        Self {
            need: Need {
                cores: class.cores - self.need.cores,
                memory: class.memory - self.need.memory,
                gpus: class.gpus - self.need.gpus,
            },
            scratch: class.scratch - self.scratch,
            nic: class.nic - self.nic,
            store: class.store - self.store,
            bound: self.bound,
        }
    }

    /// The resources that a machine counts as left.
    fn left_in(room: &MachineState) -> Self {
        Self {
            need: room.free,
            scratch: room.scratch,
            nic: room.nic,
            store: room.store,
            bound: room.bound,
        }
    }

    fn least(&self) -> i32 {
        let Need {
            cores,
            memory,
            gpus,
        } = self.need;
        [cores, memory, gpus, self.scratch, self.nic, self.store]
            .into_iter()
            .min()
            .unwrap()
    }
}

fn used(world: &World<'_>) -> Table<MachineIx, Used> {
    let machines = world.fleet.machines.iter();
    let mut used: Table<MachineIx, Used> = machines.map(|_| Used::default()).collect();
    for (id, Sector { state, row, .. }) in world.sectors.pairs() {
        let kind = &world.fleet.kinds[world.kind(id)];
        add_work(&mut used, *state, row, kind);
        add_files(&mut used, world, id);
    }
    used
}

/// The steps and moves that a sector is in.
fn add_work(used: &mut Table<MachineIx, Used>, state: State, row: &Row, kind: &Kind) {
    match state {
        State::P1 => used[row.m1].run(&kind.p1),
        State::P2 => used[row.m2].run(&kind.p2),
        State::C2 => used[row.m3].run(&kind.c2),
        State::Moving => {
            used[row.m1].nic += 1;
            used[row.m2].nic += 1;
            used[row.m2].bound += 1;
        }
        State::Bound => used[row.m2].bound += 1,
        State::Active if row.ms.is_some() && row.ms != row.m2 => {
            used[row.m2].nic += 1;
            used[row.ms].nic += 1;
        }
        State::Wait
        | State::Layers
        | State::Seed
        | State::WaitC2
        | State::Landing
        | State::Active
        | State::Stored => {}
    }
}

/// The space that a sector's files take, or will take where they are being moved.
fn add_files(used: &mut Table<MachineIx, Used>, world: &World<'_>, id: SectorIx) {
    let Sector { state, row, .. } = &world.sectors[id];
    let kind = &world.fleet.kinds[world.kind(id)];
    match state {
        State::P1 | State::Layers => used[row.m1].scratch += kind.scratch_full,
        State::Moving => {
            used[row.m1].scratch += kind.scratch_full;
            used[row.m2].scratch += kind.scratch_full;
        }
        State::Bound | State::P2 | State::Seed => used[row.m2].scratch += kind.scratch_full,
        State::WaitC2 | State::C2 | State::Landing | State::Active => {
            used[row.m2].scratch += kind.scratch_keep;
        }
        State::Stored if world.stays(id) => used[row.m2].scratch += kind.scratch_keep,
        State::Wait | State::Stored => {}
    }
    if row.ys >= 0 && row.ye > row.ys {
        used[row.ms].store += kind.stored;
    }
}

pub(super) fn assert_sound(world: &World<'_>) {
    for (machine, used) in used(world).pairs() {
        assert_machine(world, machine, used);
    }
    assert_counts(world);
}

fn assert_machine(world: &World<'_>, machine: MachineIx, used: &Used) {
    let room = &world.machines[machine];
    let left = used.left_of(world.fleet.class(machine));
    assert_eq!(
        Used::left_in(room),
        left,
        "at {}: machine {} counts otherwise than its sectors do",
        world.now,
        machine.0
    );
    assert!(
        left.least() >= 0,
        "at {}: machine {} is over its capacity: {left:?}",
        world.now,
        machine.0
    );
    let waiting = room
        .waiting
        .iter()
        .filter(|s| world.sectors[**s].state == State::Bound)
        .count();
    assert_eq!(
        waiting,
        room.waiting.len(),
        "a sector waits for a GPU that is not bound there"
    );
}

fn assert_counts(world: &World<'_>) {
    for (order, open) in world.open.pairs() {
        let unfinished = world
            .sectors_of(order)
            .filter(|s| !matches!(world.sectors[*s].state, State::Active | State::Stored));
        assert_eq!(
            u32::try_from(unfinished.count()).unwrap(),
            *open,
            "order {} counts its open sectors wrongly",
            order.0
        );
    }
    let left = world
        .sectors
        .iter()
        .filter(|s| s.state != State::Stored)
        .count();
    assert_eq!(u64::try_from(left).unwrap(), world.left);
}

/// Machines that have been draining since `since` have begun no PC1 and no C2 after it.
pub(super) fn assert_spared(world: &World<'_>, since: i32) {
    let drains = |machine: MachineIx| machine.is_some() && world.fleet.machines[machine].drains;
    for (id, Sector { state, row, .. }) in world.sectors.pairs() {
        let begun = (*state == State::P1 && drains(row.m1) && row.s1 > since)
            || (*state == State::C2 && drains(row.m3) && row.s3 > since);
        assert!(
            !begun,
            "at {}: sector {} has begun {state:?} on a machine that drains",
            world.now, id.0
        );
    }
}
