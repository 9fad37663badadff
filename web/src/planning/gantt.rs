//! The plan as a Gantt chart: a band for each machine, with as many lanes as steps run at a time.
//! The template draws it.

use sealyard_core::{
    clock::{DAY, HOUR, Micros, minute_text},
    scheduler::{Outlook, Planned, Snapshot},
};

/// Pixels of the drawing.
const WIDTH: i64 = 1000;
const NAMES: i64 = 110;
const AXIS: i64 = 24;
const LANE: i64 = 12;
const GAP: i64 = 8;
/// Limits of the drawing. Nobody could read more.
const MOST_LANES: usize = 24;
const MOST_BARS: usize = 4000;
const LONGEST: Micros = 3 * DAY;

pub struct Bar {
    pub x: i64,
    pub y: i64,
    pub width: i64,
    /// `pc1`, `move`, `pc2` or `c2`.
    pub step: String,
    pub title: String,
}

pub struct Band {
    pub name: String,
    pub y: i64,
    pub height: i64,
    /// Steps for which no lane was left.
    pub more: usize,
}

pub struct Tick {
    pub x: i64,
    pub text: String,
}

#[derive(Default)]
pub struct Gantt {
    pub width: i64,
    pub height: i64,
    pub bands: Vec<Band>,
    pub bars: Vec<Bar>,
    pub ticks: Vec<Tick>,
}

impl Gantt {
    /// Draws the next three days at most.
    pub fn of(snapshot: &Snapshot, outlook: &Outlook) -> Self {
        let span = (outlook.done - snapshot.now).clamp(HOUR, LONGEST);
        let scale = Scale {
            from: snapshot.now,
            span,
        };
        let mut chart = Self {
            width: WIDTH,
            ticks: scale.ticks(),
            ..Self::default()
        };
        let mut y = AXIS;
        for machine in &snapshot.machines {
            let steps: Vec<&Planned> = outlook
                .steps
                .iter()
                .filter(|s| s.machine == machine.id && s.from < scale.until())
                .collect();
            let (lanes, more) = chart.draw(&steps, y, &scale);
            let height = i64::try_from(lanes.max(1)).unwrap_or(1) * LANE;
            chart.bands.push(Band {
                name: machine.name.clone(),
                y,
                height,
                more,
            });
            y += height + GAP;
        }
        chart.height = y;
        chart
    }

    /// Draws a machine's steps, each in the first lane that is free. Returns the lanes used, and
    /// how many steps were left out.
    fn draw(&mut self, steps: &[&Planned], y: i64, scale: &Scale) -> (usize, usize) {
        let mut free_at: Vec<Micros> = Vec::new();
        let mut more = 0;
        for step in steps {
            let lane = free_at
                .iter()
                .position(|free| *free <= step.from)
                .unwrap_or(free_at.len());
            if lane >= MOST_LANES || self.bars.len() >= MOST_BARS {
                more += 1;
                continue;
            }
            match free_at.get_mut(lane) {
                Some(free) => *free = step.until,
                None => free_at.push(step.until),
            }
            let (x, end) = (scale.x(step.from), scale.x(step.until));
            let title = format!(
                "sector {}: {} from {} until {}",
                step.number,
                step.step.name().to_uppercase(),
                minute_text(step.from),
                minute_text(step.until)
            );
            let y = y + i64::try_from(lane).unwrap_or(0) * LANE;
            self.bars.push(Bar {
                x,
                y,
                width: (end - x).max(2) - 1,
                step: step.step.name().to_owned(),
                title,
            });
        }
        (free_at.len(), more)
    }
}

struct Scale {
    from: Micros,
    span: Micros,
}

impl Scale {
    const fn until(&self) -> Micros {
        self.from + self.span
    }

    fn x(&self, at: Micros) -> i64 {
        NAMES
            + (at.clamp(self.from, self.until()) - self.from) / 1000 * (WIDTH - NAMES)
                / (self.span / 1000)
    }

    /// Marks every hour, or every few hours.
    fn ticks(&self) -> Vec<Tick> {
        let every = [1, 2, 3, 6, 12, 24]
            .into_iter()
            .map(|h| h * HOUR)
            .find(|every| self.span / every <= 8)
            .unwrap_or(DAY);
        let first = self.from.div_euclid(every) + 1;
        let moments = (first..)
            .map(|k| k * every)
            .take_while(|at| *at < self.until());
        moments
            .map(|at| Tick {
                x: self.x(at),
                text: minute_text(at).get(5..).unwrap_or_default().to_owned(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use sealyard_core::{
        ids::{MachineId, SectorId},
        scheduler::{FileMoves, MachineView},
        sealing::TaskKind,
    };

    use super::*;

    #[test]
    fn simultaneous_steps_do_not_overlap_in_the_chart() {
        let machine = MachineView {
            id: MachineId(1),
            name: "yard".into(),
            takes_new: true,
            cores: 8,
            memory_bytes: 1,
            disk_bytes: 1,
            disk_free_bytes: 1,
            stored_bytes: 0,
            leftover_bytes: 0,
            quick_as: MachineId(1),
            moves: FileMoves::Never,
            keeps: false,
            gpus: 0,
            is_heard: true,
        };
        let snapshot = Snapshot {
            now: 0,
            machines: vec![machine],
            ..Snapshot::default()
        };
        let step = |number, from: i64, until: i64| {
            let (from, until) = (from * HOUR, until * HOUR);
            Planned {
                machine: MachineId(1),
                sector: SectorId(number),
                number,
                step: TaskKind::PreCommit1,
                from,
                until,
            }
        };
        let steps = vec![step(1, -1, 3), step(2, 0, 2), step(3, 2, 5), step(4, 3, 9)];
        let chart = Gantt::of(
            &snapshot,
            &Outlook {
                steps,
                done: 10 * HOUR,
                ..Outlook::default()
            },
        );
        assert_eq!((chart.bars.len(), chart.bands[0].height), (4, 2 * LANE));
        for (n, a) in chart.bars.iter().enumerate() {
            assert!(a.x >= NAMES && a.x + a.width <= WIDTH);
            for b in &chart.bars[n + 1..] {
                assert!(
                    a.y != b.y || a.x + a.width <= b.x || b.x + b.width <= a.x,
                    "{} covers {}",
                    a.title,
                    b.title
                );
            }
        }
    }
}
