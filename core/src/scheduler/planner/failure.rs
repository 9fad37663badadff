//! Chance: how long steps really take, and machines that break down. Everything is drawn from a seed.

use std::sync::LazyLock;

use super::{
    MachineIx, Secs, SectorIx,
    agenda::Event,
    world::{Sector, State, World},
};

/// A small generator (SplitMix64), the same everywhere.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// 0 up to, not including, `n`.
    pub fn below(&mut self, n: usize) -> usize {
        let n = u64::try_from(n).unwrap_or(1).max(1);
        usize::try_from(self.roll() % n).unwrap_or(0)
    }
}

/// What chance does to a plan.
#[derive(Clone, Debug)]
pub struct Luck {
    pub dice: Dice,
    /// Real over usual duration, per mille, at equally likely quantiles.
    pub spread: Vec<i32>,
    /// Mean seconds between breakdowns of one machine; 0: none.
    pub between_failures: Secs,
    /// Mean seconds of a repair.
    pub repair: Secs,
}

impl World<'_> {
    /// The real duration of a step that usually takes `seconds`.
    pub(super) fn drawn(&mut self, seconds: Secs) -> Secs {
        let Some(luck) = &mut self.luck else { return seconds };
        let at = luck.dice.below(luck.spread.len());
        let permille = luck.spread.get(at).copied().unwrap_or(1000);
        let drawn = i64::from(seconds) * i64::from(permille) / 1000;
        Secs::try_from(drawn).unwrap_or(Secs::MAX).max(1)
    }

    /// The machine breaks down: what it did and what it held for sealing is lost; stored sectors are not.
    pub(super) fn fail(&mut self, machine: MachineIx) {
        let repaired = self.now.saturating_add(self.repair_time());
        self.rooms[machine].dead_until = repaired;
        self.agenda.push(repaired, Event::Wake(machine));
        for sector in self.sectors.keys() {
            self.fail_sector(sector, machine);
        }
        self.rooms[machine].waiting.clear();
    }

    fn repair_time(&mut self) -> Secs {
        self.luck.as_mut().map_or(6 * 3600, |luck| luck.dice.wait(luck.repair).max(600))
    }

    fn fail_sector(&mut self, sector: SectorIx, machine: MachineIx) {
        let Sector { state, row, .. } = self.sectors[sector];
        let touched = [row.m1, row.m2, row.m3, row.ms].contains(&machine);
        if touched
            && !matches!(state, State::Wait | State::Stored)
            && !self.fall_back(sector, machine)
            && self.lose(sector, machine)
        {
            self.lost += 1;
            self.restart(sector);
        }
    }

    /// What `machine` did for a sector that lies on another one is done again elsewhere. False: it lies here.
    fn fall_back(&mut self, sector: SectorIx, machine: MachineIx) -> bool {
        let Sector { state, row, .. } = self.sectors[sector];
        let kind = &self.fleet.kinds[self.kind(sector)];
        match state {
            State::C2 if row.m3 == machine && row.m2 != machine => {
                self.give(machine, kind.c2, false);
                let row = &mut self.sectors[sector].row;
                (row.m3, row.s3, row.e3) = (MachineIx::NONE, -1, -1);
                self.want_c2(sector, true);
            }
            State::Moving if row.m2 == machine => {
                self.give_nics(row.m1, row.m2);
                self.give_scratch(machine, kind.scratch_full);
                self.rooms[machine].bound -= 1;
                let row = &mut self.sectors[sector].row;
                (row.m2, row.xs, row.xe) = (MachineIx::NONE, -1, -1);
                self.have_layers(sector, true);
            }
            State::Active if row.ms == machine && row.m2 != machine => {
                self.give_nics(row.m2, row.ms);
                self.rooms[machine].store += kind.stored;
                let row = &mut self.sectors[sector].row;
                (row.ms, row.ys, row.ye) = (MachineIx::NONE, -1, -1);
                self.pools[self.fleet.pool(machine)].to_store.push_back(sector);
            }
            _ => return false,
        }
        // What was to end there does not.
        let attempt = &mut self.sectors[sector].attempt;
        *attempt = attempt.wrapping_add(1);
        true
    }

    /// Gives back what an attempt that lies on `machine` holds. False: it lies elsewhere.
    fn lose(&mut self, sector: SectorIx, machine: MachineIx) -> bool {
        let Sector { state, row, .. } = self.sectors[sector];
        let kind = &self.fleet.kinds[self.kind(sector)];
        match state {
            State::P1 if row.m1 == machine => self.give(machine, kind.p1, true),
            State::Moving if row.m1 == machine => {
                self.give_nics(row.m1, row.m2);
                self.give_scratch(row.m2, kind.scratch_full);
                self.rooms[row.m2].bound -= 1;
            }
            State::Bound if row.m2 == machine => self.rooms[machine].bound -= 1,
            State::Layers if row.m1 == machine => {}
            State::P2 if row.m2 == machine => self.give(machine, kind.p2, false),
            State::C2 if row.m2 == machine => self.give(row.m3, kind.c2, false),
            State::Active if row.m2 == machine => {
                if row.ms.is_some() {
                    self.rooms[row.ms].store += kind.stored;
                    if row.ms != row.m2 {
                        self.give_nics(row.m2, row.ms);
                    }
                }
                let order = self.order_of(sector);
                self.open[order] += 1;
            }
            State::Seed | State::WaitC2 if row.m2 == machine => {}
            _ => return false,
        }
        let begun = matches!(state, State::P1 | State::Layers | State::Moving | State::Bound);
        if begun {
            self.pools[self.fleet.pool(machine)].wip -= 1;
        }
        let full = begun || matches!(state, State::P2 | State::Seed);
        self.give_scratch(machine, if full { kind.scratch_full } else { kind.scratch_keep });
        true
    }
}

/// Equally likely waits of an exponential distribution with mean 1000: the mean of the k-th of 64 slices is
/// `1/64 + 1/63 + … + 1/k`.
static WAITS: LazyLock<Vec<i64>> = LazyLock::new(|| {
    let sums = (1..=64).rev().scan(0, |sum, k| {
        *sum += 1_000_000 / k;
        Some(*sum / 1000)
    });
    sums.collect()
});

impl Dice {
    /// An exponentially distributed wait.
    pub fn wait(&mut self, mean: Secs) -> Secs {
        let at = self.below(WAITS.len());
        let permille = WAITS.get(at).copied().unwrap_or(1000);
        Secs::try_from(i64::from(mean) * permille / 1000).unwrap_or(Secs::MAX)
    }
}
