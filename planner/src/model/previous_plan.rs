//! Where and when an earlier plan expected sectors to begin.

use std::collections::{HashMap, VecDeque};

use crate::{MachineIx, Secs, SectorIx, Table};

/// The sectors that are to begin on each machine, in order.
#[derive(Clone, Debug, Default)]
pub struct PreviousPlan {
    pub(crate) queues: Table<MachineIx, VecDeque<(Secs, SectorIx)>>,
    pub(crate) places: HashMap<SectorIx, MachineIx>,
}

impl PreviousPlan {
    /// Of a fleet of `machines` machines: when each sector is to begin, and where.
    #[must_use]
    pub fn of(machines: usize, mut begins: Vec<(Secs, SectorIx, MachineIx)>) -> Self {
        begins.sort_unstable();
        let mut queues: Table<MachineIx, VecDeque<(Secs, SectorIx)>> =
            (0..machines).map(|_| VecDeque::new()).collect();
        begins
            .iter()
            .for_each(|(at, sector, machine)| queues[*machine].push_back((*at, *sector)));
        Self {
            queues,
            places: begins
                .into_iter()
                .map(|(_, sector, machine)| (sector, machine))
                .collect(),
        }
    }

    /// Every sector, its machine, and when it is to begin.
    pub fn rows(&self) -> impl Iterator<Item = (SectorIx, MachineIx, Secs)> {
        self.queues.pairs().flat_map(|(machine, queue)| {
            queue
                .iter()
                .map(move |(at, sector)| (*sector, machine, *at))
        })
    }
}
