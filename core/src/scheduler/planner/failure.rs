//! Chance: how long steps really take, and machines that break down. Everything is drawn from a seed.

use std::sync::{Arc, LazyLock};

use super::{
    MachineIx, Secs, SectorIx,
    agenda::{Ending, Event},
    fleet::{Step, Steps},
    sector::{Sector, State},
    world::{SHUT, World},
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
pub struct Odds {
    /// Real over usual duration, per mille, at equally likely quantiles.
    pub spread: Vec<i32>,
    /// Mean seconds between breakdowns of one machine; 0: none.
    pub between_failures: Secs,
    /// Mean seconds of a repair.
    pub repair: Secs,
    /// Mean seconds between times in which messages are too dear to send, and of such a time; 0: none.
    pub between_gas: Secs,
    pub gas: Secs,
    /// Steps of each kind that fail at their end, per mille.
    pub step_failures: StepFailures,
}

/// Per mille.
pub type StepFailures = Steps<i32>;

impl Default for Odds {
    /// Published experience, until a fleet has its own: steps vary by 12 %, a machine fails every 45 days for six hours.
    fn default() -> Self {
        let (between_failures, repair, between_gas, gas) = (45 * 86_400, 6 * 3600, 30 * 3600, 4320);
        Self { spread: log_normal(120), between_failures, repair, between_gas, gas, step_failures: StepFailures::default() }
    }
}

/// Drawn odds.
#[derive(Clone, Debug)]
pub struct Luck {
    pub dice: Dice,
    pub odds: Arc<Odds>,
}

/// Standard normal quantiles at (2k − 1) / 128, in thousandths; the lower half mirrors the upper.
const NORMAL: [i64; 32] = [
    20, 59, 98, 138, 177, 217, 257, 298, 339, 381, 424, 467, 511, 556, 602, 650, 699, 750, 803, 858, 917, 978, 1043, 1113, 1189,
    1273, 1366, 1473, 1601, 1762, 1987, 2418,
];

/// Log-normal factors around 1000 at 64 equally likely quantiles; `sigma` per mille.
#[must_use]
pub fn log_normal(sigma: i64) -> Vec<i32> {
    let all = NORMAL.iter().rev().map(|z| -z).chain(NORMAL);
    all.map(|z| i32::try_from(exp_permille(sigma * z / 1000)).unwrap_or(i32::MAX)).collect()
}

/// `1000 · exp(x / 1000)`, by the series of a sixteenth of it.
fn exp_permille(x: i64) -> i64 {
    const ONE: i128 = 1 << 40;
    let part = i128::from(x) * ONE / 16_000;
    let (mut sum, mut term) = (ONE, ONE);
    for k in 1..12 {
        term = term * part / ONE / k;
        sum += term;
    }
    let power = (0..4).fold(sum, |value, _| value * value / ONE);
    i64::try_from(power * 1000 / ONE).unwrap_or(i64::MAX)
}

impl World<'_> {
    /// The real duration of a step that usually takes `seconds`.
    pub(super) fn drawn(&mut self, seconds: Secs) -> Secs {
        let Some(luck) = &mut self.luck else { return seconds };
        luck.dice.spread(seconds, &luck.odds.spread)
    }

    /// The same fleet, with everything that is still to come drawn by `luck`: what runs has run so far without ending.
    pub fn redraw(&mut self, luck: Luck) {
        self.luck = Some(luck);
        for (at, event) in self.agenda.drain() {
            match event {
                Event::Fail(_) => {}
                Event::Wake(machine) if self.rooms[machine].dead_until > self.now => {}
                Event::Ends(ending, sector, attempt) if self.sectors[sector].attempt == attempt => {
                    let ends = self.redrawn(ending, sector, at);
                    self.agenda.push(ends, event);
                }
                _ => self.agenda.push(at, event),
            }
        }
        for machine in self.fleet.machines.keys() {
            let dead_until = self.rooms[machine].dead_until;
            let dead = dead_until > self.now && dead_until != SHUT;
            let up = if dead { self.now.saturating_add(self.repair_time()) } else { self.now };
            if dead {
                self.rooms[machine].dead_until = up;
                self.agenda.push(up, Event::Wake(machine));
            }
            self.next_failure(machine, up);
        }
        self.draw_gas();
    }

    /// The same fleet, with everything that is still to begin taking its usual time, and nothing breaking down.
    pub fn expect_usual(&mut self) {
        self.luck = None;
        for (at, event) in self.agenda.drain() {
            if !matches!(event, Event::Fail(_)) {
                self.agenda.push(at, event);
            }
        }
    }

    fn redrawn(&mut self, ending: Ending, sector: SectorIx, at: Secs) -> Secs {
        let row = self.sectors[sector].row;
        let (machine, start, step) = match ending {
            Ending::P1 => (row.m1, row.s1, Step::P1),
            Ending::P2 => (row.m2, row.s2, Step::P2),
            Ending::C2 => (row.m3, row.s3, Step::C2),
            _ => return at,
        };
        let usual = self.fleet.duration(machine, self.kind(sector), step);
        let now = self.now;
        let drawn = (0..30).map(|_| start.saturating_add(self.drawn(usual))).find(|ends| *ends > now);
        // It takes longer than anything known: it may end at any time.
        let ends = drawn.unwrap_or(self.now.saturating_add(usual / 20 + 30));
        let row = &mut self.sectors[sector].row;
        match step {
            Step::P1 => row.e1 = ends,
            Step::P2 => row.e2 = ends,
            Step::C2 => row.e3 = ends,
        }
        ends
    }

    fn next_failure(&mut self, machine: MachineIx, from: Secs) {
        let Some(luck) = &mut self.luck else { return };
        if luck.odds.between_failures > 0 {
            let at = from.saturating_add(luck.dice.wait(luck.odds.between_failures));
            self.agenda.push(at, Event::Fail(machine));
        }
    }

    fn draw_gas(&mut self) {
        let Some(luck) = &mut self.luck else { return };
        if luck.odds.between_gas <= 0 {
            return;
        }
        let mut at = self.now;
        self.gas_blocked.retain(|(from, _)| *from <= at);
        for _ in 0..40 {
            let from = at.saturating_add(luck.dice.wait(luck.odds.between_gas));
            at = from.saturating_add(luck.dice.wait(luck.odds.gas) + 60);
            self.gas_blocked.push((from, at));
        }
    }

    /// Whether a step that ends now has failed.
    pub(super) fn step_fails(&mut self, step: Step) -> bool {
        let Some(luck) = &mut self.luck else { return false };
        let permille = luck.odds.step_failures.of(step);
        permille > 0 && luck.dice.below(1000) < usize::try_from(permille).unwrap_or(0)
    }

    /// PC1, or PC2, has failed on `machine`: the sector begins again.
    pub(super) fn lose_attempt(&mut self, sector: SectorIx, machine: MachineIx) {
        if self.lose(sector, machine) {
            self.lost += 1;
            self.restart(sector);
        }
    }

    pub(super) fn fail_by_chance(&mut self, machine: MachineIx) {
        self.fail(machine);
        let up = self.rooms[machine].dead_until;
        self.next_failure(machine, if up == SHUT { self.now } else { up });
    }

    /// The machine breaks down: what it did and what it held for sealing is lost; stored sectors are not. One that is broken down
    /// stays so until the later repair is over; one that is kept out has nothing to lose.
    pub(super) fn fail(&mut self, machine: MachineIx) {
        let dead_until = self.rooms[machine].dead_until;
        if dead_until == SHUT {
            return;
        }
        let repaired = self.now.saturating_add(self.repair_time()).max(dead_until);
        self.rooms[machine].dead_until = repaired;
        self.agenda.push(repaired, Event::Wake(machine));
        for sector in self.sectors.keys() {
            self.fail_sector(sector, machine);
        }
        self.rooms[machine].waiting.clear();
    }

    fn repair_time(&mut self) -> Secs {
        self.luck.as_mut().map_or(6 * 3600, |luck| luck.dice.wait(luck.odds.repair).max(600))
    }

    fn fail_sector(&mut self, sector: SectorIx, machine: MachineIx) {
        let Sector { state, row, .. } = self.sectors[sector];
        let touched = [row.m1, row.m2, row.m3, row.ms].contains(&machine);
        if touched && !matches!(state, State::Wait | State::Stored) && !self.fall_back(sector, machine) {
            self.lose_attempt(sector, machine);
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
                self.list_free(machine);
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
            State::Seed | State::WaitC2 | State::Landing if row.m2 == machine => {}
            _ => return false,
        }
        let begun = matches!(state, State::P1 | State::Layers | State::Moving | State::Bound);
        if begun {
            self.count_lost(self.fleet.pool(machine), self.kind(sector));
        }
        let full = begun || matches!(state, State::P2 | State::Seed);
        self.give_scratch(machine, if full { kind.scratch_full } else { kind.scratch_keep });
        true
    }
}

/// Slices of an exponential distribution that are equally likely.
const SLICES: i64 = 64;
/// Where they begin, in millionths of the mean: `ln(64 / (64 − k))`, by the series of each factor's logarithm,
/// `ln(m / (m − 1)) = 2 (x + x³/3 + …)` with `x = 1 / (2m − 1)`.
static WAITS: LazyLock<Vec<i64>> = LazyLock::new(|| {
    const TRILLION: i64 = 1_000_000_000_000;
    let of_factor = |m: i64| {
        let odd = 2 * m - 1;
        let powers = std::iter::successors(Some(TRILLION / odd), |power| Some(power / odd / odd));
        powers.zip((1..).step_by(2)).take(16).map(|(power, n)| 2 * power / n).sum::<i64>()
    };
    let sums = (2..=SLICES).rev().scan(0, |sum, m| {
        *sum += of_factor(m);
        Some(*sum / 1_000_000)
    });
    std::iter::once(0).chain(sums).collect()
});

impl Dice {
    /// `seconds` times one of equally likely factors per mille.
    pub fn spread(&mut self, seconds: Secs, factors: &[i32]) -> Secs {
        let at = self.below(factors.len());
        let permille = factors.get(at).copied().unwrap_or(1000);
        Secs::try_from(i64::from(seconds) * i64::from(permille) / 1000).unwrap_or(Secs::MAX).max(1)
    }

    /// An exponentially distributed wait, which may be short: an even one within its slice; who has waited until the last slice
    /// begins waits anew, as the distribution has no memory.
    pub fn wait(&mut self, mean: Secs) -> Secs {
        const MILLION: i64 = 1_000_000;
        let mut millionths = 0;
        loop {
            let at = self.below(WAITS.len());
            let from = WAITS.get(at).copied().unwrap_or(0);
            millionths += from;
            if let Some(to) = WAITS.get(at + 1) {
                millionths += i64::try_from(self.roll() % MILLION.unsigned_abs()).unwrap_or(0) * (to - from) / MILLION;
                return Secs::try_from(i64::from(mean).saturating_mul(millionths) / MILLION).unwrap_or(Secs::MAX);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_factors_have_the_spread_that_was_asked_for() {
        let factors = log_normal(250);
        assert!(factors.is_sorted() && factors.len() == 64);
        assert_eq!((factors[31], factors[32]), (995, 1005), "half are below the usual duration");
        assert!((factors[53]..factors[54]).contains(&1285), "one sigma is exp(0.25): {factors:?}");
    }

    #[test]
    fn waits_are_exponential_and_may_be_short() {
        assert_eq!((WAITS.len(), WAITS[0], WAITS[32], WAITS[63]), (64, 0, 693_147, 4_158_883), "ln 1, ln 2, ln 64");
        let mut dice = Dice::new(1);
        let waits: Vec<i64> = (0..200_000).map(|_| i64::from(dice.wait(1_000_000))).collect();
        let share_below = |limit: i64| waits.iter().filter(|w| **w < limit).count() * 1000 / waits.len();
        let mean = waits.iter().sum::<i64>() / 200_000;
        assert!((990_000..1_010_000).contains(&mean), "the mean wait is the mean: {mean}");
        assert!((8..=12).contains(&share_below(10_000)), "1 − exp(−0.01): {}", share_below(10_000));
        assert!((628..=636).contains(&share_below(1_000_000)), "1 − exp(−1): {}", share_below(1_000_000));
        assert!((992..=995).contains(&share_below(5_000_000)), "1 − exp(−5): {}", share_below(5_000_000));
    }
}
