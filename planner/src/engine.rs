//! Simulates a fleet, moment by moment: steps that end release their resources, then the rules
//! start whatever can begin.

use crate::{
    Fleet, Policy, Secs,
    sim::{agenda::Event, world::World},
};

impl<'f> World<'f> {
    /// An empty fleet at moment `now`.
    #[must_use]
    pub fn at(fleet: &'f Fleet, policy: Policy, now: Secs) -> Self {
        Self {
            now,
            ..Self::new(fleet, policy)
        }
    }

    /// An empty fleet at moment 0.
    #[must_use]
    pub fn new(fleet: &'f Fleet, policy: Policy) -> Self {
        let mut world = Self::blank(fleet, policy);
        for machine in fleet.machines.keys() {
            world.add_machine(machine);
        }
        world.survey();
        world
    }

    /// Simulates one moment: the steps that end then, and those that start because of it. False
    /// when no event is left.
    pub fn step(&mut self) -> bool {
        let mut batch = std::mem::take(&mut self.batch);
        let Some(moment) = self.agenda.pop_moment(&mut batch) else {
            self.batch = batch;
            return false;
        };
        self.now = moment;
        for (_, event) in &batch {
            match *event {
                Event::Open(group) => self.open_group(group),
                Event::Ends(ending, sector, attempt) => {
                    if self.sectors[sector].attempt == attempt {
                        self.end(ending, sector);
                    }
                }
                Event::Wake(machine) => self.list_free(machine),
                Event::Fail(machine) => self.fail_by_chance(machine),
                Event::Moves(machine) => {
                    self.machines[machine].nic += self.fleet.class(machine).nic;
                    self.mark_dirty();
                }
                Event::Pause => self.mark_dirty(),
                Event::Admit => self.dirty = true,
            }
        }
        self.batch = batch;
        self.dispatch();
        true
    }

    /// Whether every sector is stored.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.left == 0
    }

    /// Simulates until every sector is stored. False: some never can be.
    pub fn run(&mut self) -> bool {
        while !self.is_done() {
            if !self.step() {
                return false;
            }
        }
        true
    }

    /// Simulates every moment before `until`.
    pub fn run_until(&mut self, until: Secs) {
        while self.agenda.next_moment().is_some_and(|at| at < until) {
            self.step();
        }
        self.now = self.now.max(until);
    }

    pub(crate) fn dispatch(&mut self) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        for pool in self.fleet.pools.keys() {
            if !std::mem::take(&mut self.pools[pool].dirty) {
                continue;
            }
            self.gpu_pass(pool);
            if !self.pools[pool].to_store.is_empty() {
                self.store_pass(pool);
            }
            if !self.pools[pool].layers.is_empty() && self.move_pass(pool) {
                self.gpu_pass(pool);
            }
        }
        self.admit();
    }
}
