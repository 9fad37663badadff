//! Moves sealed files to machines with storage.

use crate::{
    MachineIx, PoolIx, Secs, SectorIx,
    model::sector::State,
    sim::{agenda::Ending, world::World},
};

impl World<'_> {
    /// Starts moves of sealed files to machines with storage.
    pub(crate) fn store_pass(&mut self, pool: PoolIx) {
        let mut queue = std::mem::take(&mut self.pools[pool].to_store);
        for _ in 0..queue.len() {
            let Some(sector) = queue.pop_front() else {
                break;
            };
            let state = &self.sectors[sector];
            if state.state != State::Active || state.row.ys >= 0 {
                continue;
            }
            let from = state.row.m2;
            match self.best_store(pool, sector) {
                Some((machine, seconds)) => self.start_store(sector, machine, seconds),
                None => {
                    queue.push_back(sector);
                    if self.machines[from].nic > 0 {
                        break;
                    }
                }
            }
        }
        self.pools[pool].to_store = queue;
    }

    /// The machine that the sealed file goes to, and the seconds that takes. It stays where nothing
    /// can be moved or no machine has space for it. `None`: it has to wait.
    fn best_store(&mut self, pool: PoolIx, sector: SectorIx) -> Option<(MachineIx, Secs)> {
        let kind = self.kind(sector);
        let from = self.sectors[sector].row.m2;
        let stays = Some((from, 0));
        let Some(seconds) = self.fleet.pools[pool].moves_sealed(kind) else {
            return stays;
        };
        let stored = self.fleet.kinds[kind].stored;
        let has_room = |m: &MachineIx| self.machines[*m].store >= stored;
        if self.fleet.class(from).nic == 0 || !self.pools[pool].stores.iter().any(has_room) {
            return stays;
        }
        if self.machines[from].nic <= 0 || !self.is_up_for(from, seconds) {
            return None;
        }
        let mut best = None;
        for at in 0..self.pools[pool].stores.len() {
            let Some(machine) = self.pools[pool].stores.get(at).copied() else {
                break;
            };
            let room = &self.machines[machine];
            let rank = (room.nic, room.store);
            if room.store >= stored
                && (room.nic > 0 || machine == from)
                && best.is_none_or(|(b, _)| rank > b)
                && self.is_up_for(machine, seconds)
            {
                best = Some((rank, machine));
            }
        }
        best.map(|(_, machine)| (machine, seconds))
    }

    fn start_store(&mut self, sector: SectorIx, machine: MachineIx, seconds: Secs) {
        let from = self.sectors[sector].row.m2;
        if machine != from {
            self.machines[from].nic -= 1;
            self.machines[machine].nic -= 1;
        }
        if seconds > 0 {
            self.machines[machine].store -= self.fleet.kinds[self.kind(sector)].stored;
        }
        let row = &mut self.sectors[sector].row;
        (row.ms, row.ys, row.ye) = (machine, self.now, self.now + seconds);
        let ends = row.ye;
        self.at_end(ends, Ending::Store, sector);
    }
}
