//! Steps of machines, and machines that fail, drain and repeat themselves.

use sealyard_core::{
    clock::{HOUR, MINUTE},
    fleet::{
        self, Draining,
        protocol::{FailureLevel, Outcome, ReportRequest, Running, Usage},
    },
    scheduler,
    sealing::{self, TaskHead},
    store::DbFault,
};

use super::{Fixture, hardware_of};
use crate::support::{all_proven, done};

/// Leases are granted and extended for this long.
const LEASE: i64 = 4 * HOUR;

impl Fixture<'_> {
    /// Draws tickets, assigns tasks and ends one step.
    pub(super) fn work(&mut self) {
        let now = self.now;
        self.db
            .write(|conn| {
                let snapshot = scheduler::load(conn, now)?;
                for id in scheduler::need_tickets(&snapshot, 600) {
                    let sector = sealing::sector_by_id(conn, id)?;
                    sealing::begin_sealing(conn, sector, &"11".repeat(32), 7, now)?;
                }
                scheduler::dispatch(conn, now, LEASE)?;
                Ok(())
            })
            .unwrap();
        let leased: Vec<TaskHead> = self
            .open_tasks()
            .into_iter()
            .filter(|t| t.state.name() == "leased")
            .collect();
        let Some(task) = self.pick(leased) else {
            return;
        };
        let level = [
            FailureLevel::Temporary,
            FailureLevel::Permanent,
            FailureLevel::Abort,
            FailureLevel::Critical,
        ];
        let outcome = match self.rng.below(30) {
            fails @ 0..4 => Outcome::Failed {
                level: level[fails],
                reason: "it did not work".into(),
            },
            _ if task.kind.name() == "vanilla" => all_proven(self.db, task.id),
            _ => done(output(task.kind.name())),
        };
        let machine = task.machine_id.unwrap();
        let report = ReportRequest {
            task: task.id.0,
            fence: task.fence,
            outcome,
            usage: Usage::default(),
        };
        assert!(
            self.db
                .transact(|conn| sealing::report(conn, machine, &report, now))
                .unwrap()
        );
        self.sent.push((machine, report));
    }

    /// One machine falls silent, for good or for a while. All others are heard.
    pub(super) fn machine_fails(&mut self) {
        let (before, victim, split) = (self.now, self.rng.below(self.machines.len()), self.split);
        self.now += MINUTE;
        let now = self.now;
        let comes_back = self.rng.below(3) > 0;
        self.db
            .write(|conn| {
                let known = fleet::machines(conn)?;
                for (at, machine) in known.iter().enumerate().filter(|(_, m)| !m.is_lost()) {
                    if at != victim {
                        fleet::heartbeat(conn, machine, &hardware_of(machine, split), before)?;
                        fleet::heartbeat(conn, machine, &hardware_of(machine, split), now)?;
                    }
                }
                sealing::give_up_lost(conn, 0, now)?;
                if comes_back {
                    let again = fleet::machines(conn)?;
                    for machine in again.iter().filter(|m| m.is_lost()) {
                        fleet::heartbeat(conn, machine, &hardware_of(machine, split), now)?;
                    }
                }
                Ok(())
            })
            .unwrap();
    }

    /// The site is down overnight, or its clock jumps. Nobody can have been heard, so no machine
    /// loses a task unless it was lost before.
    pub(super) fn away(&mut self) {
        let before = self.fingerprint();
        let all_there = self
            .db
            .read(|conn| Ok::<_, DbFault>(fleet::lost_machines(conn)?.is_empty()))
            .unwrap();
        self.now += 9 * HOUR;
        let now = self.now;
        let lost = self.db.write(|conn| {
            fleet::look(conn, now)?;
            sealing::expire_leases(conn, now)?;
            sealing::give_up_lost(conn, 10 * MINUTE, now)
        });
        assert!(lost.unwrap().is_empty());
        assert!(
            !all_there || before == self.fingerprint(),
            "{before:?} became {:?}",
            self.fingerprint()
        );
        self.pass(0);
    }

    /// A heartbeat that comes late or twice. It extends the leases that the machine still holds,
    /// and the machine is told to stop the others.
    pub(super) fn beat_again(&mut self) {
        let at = self.rng.below(self.machines.len());
        let (id, now) = (self.machines[at].id, self.now);
        let all = self
            .db
            .read(|conn| fleet::machines(conn).map_err(DbFault::from))
            .unwrap();
        let Some(machine) = all.iter().find(|m| m.id == id && !m.is_lost()) else {
            return;
        };
        let run = |task: i64, fence: i64| Running {
            task,
            fence,
            progress: "pc1".into(),
        };
        let (held, others): (Vec<TaskHead>, Vec<TaskHead>) = self
            .open_tasks()
            .into_iter()
            .filter(|t| t.fence > 0)
            .partition(|t| t.machine_id == Some(id) && t.state.name() == "leased");
        let old = held
            .iter()
            .map(|t| run(t.id.0, t.fence - 1))
            .chain(others.iter().map(|t| run(t.id.0, t.fence)));
        let over = self
            .sent
            .iter()
            .map(|(_, report)| run(report.task, report.fence));
        let old: Vec<Running> = old.chain(over).collect();
        let running: Vec<Running> = old
            .iter()
            .cloned()
            .chain(held.iter().map(|t| run(t.id.0, t.fence)))
            .collect();
        let before = self.fingerprint();
        for _ in 0..2 {
            let answer = self.db.write(|conn| {
                fleet::heartbeat(conn, machine, &hardware_of(machine, self.split), now)?;
                sealing::leases_of(conn, id, &running, now + LEASE)
            });
            let answer = answer.unwrap();
            assert!(
                answer.leases.is_empty(),
                "it already works on all its leases"
            );
            assert_eq!(
                answer.stop,
                old.iter().map(|run| run.task).collect::<Vec<_>>()
            );
        }
        assert_eq!(before, self.fingerprint());
    }

    pub(super) fn drain(&mut self) {
        let (at, how) = (
            self.rng.below(self.machines.len()),
            [Draining::Start, Draining::Stop][self.rng.below(2)],
        );
        let id = self.machines[at].id;
        self.db
            .write(|conn| fleet::set_draining(conn, id, how))
            .unwrap();
    }

    /// A report that comes twice, or after its lease has passed to another machine, changes
    /// nothing.
    pub(super) fn report_again(&mut self) {
        let Some((machine, report)) = self.pick(self.sent.clone()) else {
            return;
        };
        let before = self.fingerprint();
        self.db
            .transact(|conn| sealing::report(conn, machine, &report, self.now))
            .unwrap();
        assert_eq!(before, self.fingerprint());
    }
}

fn output(kind: &str) -> serde_json::Value {
    match kind {
        "pc2" => {
            serde_json::json!({"comm_r": "33".repeat(32), "comm_d": "44".repeat(32), "pc2": {}})
        }
        "c2" => serde_json::json!({"proof": "55".repeat(192)}),
        _ => serde_json::json!({}),
    }
}
