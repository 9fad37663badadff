//! Random histories of an installation: orders, holds, payments in time and late, machines that
//! fail, drain and return, steps that succeed and fail, files that move to a GPU, repeated reports,
//! contracts that end. After every event the books are sound, and every promise was one that the
//! schedule could keep when it was given.

use std::collections::{BTreeMap, HashMap};

use diesel::{QueryableByName, RunQueryDsl, sql_query, sql_types::Text};
use sealyard_core::{
    capacity,
    catalog::Plan,
    clock::{DAY, HOUR, MINUTE, Micros, SECOND},
    fleet::{
        self, Draining, Machine, Offer,
        protocol::{FailureLevel, Hardware, Outcome, ReportRequest, Running, Usage},
    },
    ids::MachineId,
    ledger,
    orders::{self, Order, Paid, PlaceOrder},
    scheduler::{self, Outlook},
    sealing::{self, Activation, OnChain, Sector, SectorState, TaskHead},
    store::{AnyConnection, Database, DbFault},
};
use sealyard_planner::Rng;

use crate::support::{NOW, all_proven, done, hardware, machine, on_both, shop};

/// The number of histories on each database. `SEALYARD_HISTORIES=5000` runs as many as the project
/// goal asks for.
fn count() -> u64 {
    std::env::var("SEALYARD_HISTORIES").ok().and_then(|n| n.parse().ok()).unwrap_or(25)
}

const EVENTS: usize = 100;
/// A sector counts within this time after its activation.
const FIRST_POST: i64 = DAY;
/// C2 of a test sector. A running step is never interrupted, so a sale may delay others by this
/// long.
const LONGEST_STEP: i64 = 90 * SECOND;

struct Fixture<'d> {
    db: &'d Database,
    plan: Plan,
    user: sealyard_core::ids::UserId,
    machines: Vec<Machine>,
    /// One machine has a GPU, and all machines serve each other their files.
    split: bool,
    rng: Rng,
    now: i64,
    placed: Vec<Order>,
    /// Reports that were accepted, to be sent again.
    sent: Vec<(MachineId, ReportRequest)>,
    keys: u32,
}

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

/// Empties all tables except those of the migrations.
fn clear(db: &Database) {
    db.write(|conn| {
        match conn {
            AnyConnection::Sqlite(c) => {
                sql_query("PRAGMA defer_foreign_keys = ON").execute(c)?;
                let all = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '\\_\\_%' ESCAPE '\\' \
                           AND name NOT LIKE 'sqlite%'";
                for table in sql_query(all).load::<Name>(c)? {
                    sql_query(format!("DELETE FROM {}", table.name)).execute(c)?;
                }
            }
            AnyConnection::Postgres(c) => {
                let all =
                    "SELECT tablename::text AS name FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE '\\_\\_%'";
                let names: Vec<String> = sql_query(all).load::<Name>(c)?.into_iter().map(|t| t.name).collect();
                sql_query(format!("TRUNCATE {} RESTART IDENTITY CASCADE", names.join(", "))).execute(c)?;
            }
        }
        Ok(())
    })
    .unwrap();
}

impl<'d> Fixture<'d> {
    fn new(db: &'d Database, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let (_, plan, user) = shop(db, 6 + i64::try_from(rng.below(30)).unwrap());
        for name in ["second", "third"].into_iter().take(rng.below(3)) {
            machine(db, name);
        }
        let machines = db.read(|conn| fleet::machines(conn).map_err(DbFault::from)).unwrap();
        let split = seed % 2 == 1;
        let show = |conn: &mut AnyConnection, machine: &Machine| {
            fleet::heartbeat(conn, machine, &hardware_of(machine, split), NOW)?;
            // If there is a third machine, it stores the sealed sectors.
            let offer = Offer { files_url: Some("http://files"), keeps: machine.name == "third" };
            fleet::offer(conn, machine, offer).map(drop)
        };
        if split {
            db.write(|conn| machines.iter().try_for_each(|m| show(conn, m))).unwrap();
        }
        Self { db, plan, user: user.id, machines, split, rng, now: NOW, placed: Vec::new(), sent: Vec::new(), keys: 0 }
    }

    fn pick<T>(&mut self, from: Vec<T>) -> Option<T> {
        let at = self.rng.below(from.len());
        from.into_iter().nth(at)
    }

    fn sectors(&self, state: SectorState) -> Vec<Sector> {
        self.db.read(|conn| sealing::in_states(conn, &[state]).map_err(DbFault::from)).unwrap()
    }

    fn outlook(&self) -> Outlook {
        self.db.read(|conn| Ok::<_, DbFault>(scheduler::outlook(&scheduler::load(conn, self.now)?))).unwrap()
    }

    fn event(&mut self) {
        match self.rng.below(42) {
            0..5 => self.place(),
            5..10 => self.pay(),
            10 => self.pass(40 * MINUTE),
            11 => self.pass(5 * HOUR),
            12..24 => self.work(),
            24..37 => self.chain(),
            37 => self.machine_fails(),
            38 => self.drain(),
            39 => self.away(),
            40 => self.beat_again(),
            _ => self.report_again(),
        }
    }

    /// A promise is made only if the current schedule keeps it and still keeps every older promise
    /// that it kept before.
    fn place(&mut self) {
        let before = self.outlook();
        let units = 1 + i64::try_from(self.rng.below(5)).unwrap();
        self.keys += 1;
        let key = format!("key {}", self.keys);
        let request = PlaceOrder { user: self.user, plan: &self.plan, units, request_key: &key, shown: None };
        let Ok(order) = self.db.transact(|conn| orders::place(conn, &request, self.now)) else { return };
        let reference = format!("cs_{}", order.id);
        let open = |conn: &mut AnyConnection| {
            Ok::<_, DbFault>(orders::open_payment(conn, order.id, "stripe", &reference, "http://pay", self.now)?)
        };
        self.db.transact(open).unwrap();
        let after = self.outlook();
        let done = after.orders.get(&order.id.0).expect("a promised order is missing in the outlook");
        assert!(done + FIRST_POST <= order.promised_at, "the schedule does not keep the promise just made");
        assert_nothing_broken(&self.promised(), &before, &after);
        self.placed.push(order);
    }

    /// Promised dates by contract and by unpaid order.
    fn promised(&self) -> (HashMap<i64, i64>, HashMap<i64, i64>) {
        let snapshot = self.db.read(|conn| scheduler::load(conn, self.now).map_err(DbFault::from)).unwrap();
        let of = |held: bool| {
            snapshot.commitments.iter().filter(|o| (o.held > 0) == held).map(|o| (o.id, o.promised_at)).collect::<HashMap<_, _>>()
        };
        (of(false), of(true))
    }

    fn pay(&mut self) {
        if self.placed.is_empty() {
            return;
        }
        let before = self.outlook();
        let at = self.rng.below(self.placed.len());
        let order = self.placed.swap_remove(at);
        let reference = format!("cs_{}", order.id);
        let paid = Paid { rail: "stripe", rail_ref: &reference, minor: order.amount_minor, currency: "usd" };
        let contract = self.db.transact(|conn| orders::fulfil(conn, &paid, self.now)).unwrap();
        assert_eq!(contract.is_none(), self.db.transact(|conn| orders::fulfil(conn, &paid, self.now)).unwrap().is_none());
        if let Some(contract) = contract {
            let after = self.outlook();
            let (mut contracts, orders) = self.promised();
            contracts.remove(&contract.id.0);
            assert_nothing_broken(&(contracts, orders), &before, &after);
        }
    }

    fn pass(&mut self, time: i64) {
        self.now += time;
        let now = self.now;
        self.db.transact(|conn| orders::expire_due(conn, now)).unwrap();
        self.db.write(|conn| sealing::expire_leases(conn, now)).unwrap();
        self.db.write(|conn| scheduler::settle(conn, now)).unwrap();
        let backed = |conn: &mut AnyConnection| {
            let backed = scheduler::disk_left(&scheduler::load(conn, now)?);
            capacity::book_down(conn, backed, now)
        };
        self.db.transact(backed).unwrap();
        self.draw();
    }

    fn draw(&self) {
        let keep = |conn: &mut AnyConnection| {
            let snapshot = scheduler::load(conn, self.now)?;
            Ok::<_, DbFault>(scheduler::keep_plan(conn, &snapshot, &scheduler::outlook(&snapshot))?)
        };
        self.db.transact(keep).unwrap();
    }

    /// Draws tickets, assigns tasks and ends one step.
    fn work(&mut self) {
        let now = self.now;
        self.db
            .write(|conn| {
                let snapshot = scheduler::load(conn, now)?;
                for id in scheduler::need_tickets(&snapshot, 600) {
                    let sector = sealing::sector_by_id(conn, id)?;
                    sealing::begin_sealing(conn, sector, &"11".repeat(32), 7, now)?;
                }
                scheduler::dispatch(conn, now, 4 * HOUR)?;
                Ok(())
            })
            .unwrap();
        let leased: Vec<TaskHead> = self.open_tasks().into_iter().filter(|t| t.state.name() == "leased").collect();
        let Some(task) = self.pick(leased) else { return };
        let level = [FailureLevel::Temporary, FailureLevel::Permanent, FailureLevel::Abort, FailureLevel::Critical];
        let outcome = match self.rng.below(30) {
            fails @ 0..4 => Outcome::Failed { level: level[fails], reason: "it did not work".into() },
            _ if task.kind.name() == "vanilla" => all_proven(self.db, task.id),
            _ => done(output(task.kind.name())),
        };
        let machine = task.machine_id.unwrap();
        let report = ReportRequest { task: task.id.0, fence: task.fence, outcome, usage: Usage::default() };
        assert!(self.db.transact(|conn| sealing::report(conn, machine, &report, now)).unwrap());
        self.sent.push((machine, report));
    }

    fn open_tasks(&self) -> Vec<TaskHead> {
        self.db.read(|conn| sealing::open_tasks(conn).map_err(DbFault::from)).unwrap()
    }

    /// Lets the chain take the next step for a random sector.
    fn chain(&mut self) {
        let states = [
            SectorState::PreCommitting,
            SectorState::WaitSeed,
            SectorState::Verifying,
            SectorState::ProveCommitting,
            SectorState::Finalizing,
            SectorState::Proving,
            SectorState::Active,
            SectorState::Faulty,
        ];
        let all = states.into_iter().flat_map(|state| self.sectors(state)).collect();
        let Some(sector) = self.pick(all) else { return };
        let (now, roll) = (self.now, self.rng.below(10));
        let state = sector.state;
        self.db
            .transact(|conn| {
                let sector = sector.clone();
                match state {
                    SectorState::WaitSeed => sealing::seed_drawn(conn, sector, &"22".repeat(32), now)?,
                    SectorState::Verifying => {
                        let message = (roll > 0).then_some((34_u64, [1_u8].as_slice()));
                        sealing::proof_verified(conn, sector, message, now)?;
                    }
                    state => sealing::mark_on_chain(conn, sector, fact(state, roll, now), now)?,
                }
                Ok::<_, ledger::LedgerError>(())
            })
            .unwrap();
    }

    /// One machine falls silent, for good or for a while. All others are heard.
    fn machine_fails(&mut self) {
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
    fn away(&mut self) {
        let before = self.fingerprint();
        let all_there = self.db.read(|conn| Ok::<_, DbFault>(fleet::lost_machines(conn)?.is_empty())).unwrap();
        self.now += 9 * HOUR;
        let now = self.now;
        let lost = self.db.write(|conn| {
            fleet::look(conn, now)?;
            sealing::expire_leases(conn, now)?;
            sealing::give_up_lost(conn, 10 * MINUTE, now)
        });
        assert!(lost.unwrap().is_empty());
        assert!(!all_there || before == self.fingerprint(), "{before:?} became {:?}", self.fingerprint());
        self.pass(0);
    }

    /// A heartbeat that comes late or twice. It extends the leases that the machine still holds,
    /// and the machine is told to stop the others.
    fn beat_again(&mut self) {
        let at = self.rng.below(self.machines.len());
        let (id, now) = (self.machines[at].id, self.now);
        let all = self.db.read(|conn| fleet::machines(conn).map_err(DbFault::from)).unwrap();
        let Some(machine) = all.iter().find(|m| m.id == id && !m.is_lost()) else { return };
        let run = |task: i64, fence: i64| Running { task, fence, progress: "pc1".into() };
        let (held, others): (Vec<TaskHead>, Vec<TaskHead>) = self
            .open_tasks()
            .into_iter()
            .filter(|t| t.fence > 0)
            .partition(|t| t.machine_id == Some(id) && t.state.name() == "leased");
        let old = held.iter().map(|t| run(t.id.0, t.fence - 1)).chain(others.iter().map(|t| run(t.id.0, t.fence)));
        let over = self.sent.iter().map(|(_, report)| run(report.task, report.fence));
        let old: Vec<Running> = old.chain(over).collect();
        let running: Vec<Running> = old.iter().cloned().chain(held.iter().map(|t| run(t.id.0, t.fence))).collect();
        let before = self.fingerprint();
        for _ in 0..2 {
            let answer = self.db.write(|conn| {
                fleet::heartbeat(conn, machine, &hardware_of(machine, self.split), now)?;
                sealing::leases_of(conn, id, &running, now + 4 * HOUR)
            });
            let answer = answer.unwrap();
            assert!(answer.leases.is_empty(), "it already works on all its leases");
            assert_eq!(answer.stop, old.iter().map(|run| run.task).collect::<Vec<_>>());
        }
        assert_eq!(before, self.fingerprint());
    }

    fn drain(&mut self) {
        let (at, how) = (self.rng.below(self.machines.len()), [Draining::Start, Draining::Stop][self.rng.below(2)]);
        let id = self.machines[at].id;
        self.db.write(|conn| fleet::set_draining(conn, id, how)).unwrap();
    }

    /// A report that comes twice, or after its lease has passed to another machine, changes
    /// nothing.
    fn report_again(&mut self) {
        let Some((machine, report)) = self.pick(self.sent.clone()) else { return };
        let before = self.fingerprint();
        self.db.transact(|conn| sealing::report(conn, machine, &report, self.now)).unwrap();
        assert_eq!(before, self.fingerprint());
    }

    fn fingerprint(&self) -> Vec<(i64, &'static str, i64)> {
        let sectors = |conn: &mut AnyConnection| sealing::all_sectors(conn, i64::MAX).map_err(DbFault::from);
        let sectors = self.db.read(sectors).unwrap().into_iter().map(|s| (s.id.0, s.state.name(), s.failures));
        sectors.chain(self.open_tasks().into_iter().map(|t| (-t.id.0, t.state.name(), t.fence))).collect()
    }

    fn assert_sound(&self) {
        let check = |conn: &mut AnyConnection| {
            for pool in capacity::pools(conn)? {
                let c = capacity::capacity(conn, pool.id)?;
                assert!(c.holds() && c.free >= 0 && c.held >= 0 && c.sold >= 0, "{c:?}");
            }
            let machines = fleet::machines(conn)?;
            let snapshot = scheduler::load(conn, self.now)?;
            for machine in &machines {
                let here = snapshot.tasks.iter().filter(|t| t.leased_to == Some(machine.id));
                let cores: i64 = here.map(|t| t.cost.cores).sum();
                assert!(cores <= machine.cores, "{cores} of {} cores of {} are in use", machine.cores, machine.name);
            }
            Ok::<_, DbFault>((sealing::all_sectors(conn, i64::MAX)?, sealing::open_tasks(conn)?))
        };
        let (sectors, open) = self.db.read(check).unwrap();
        let mut tasks: BTreeMap<i64, usize> = BTreeMap::new();
        // A sector may become faulty, and count again, before its files are finalized.
        let steps = open.iter().filter(|t| !["finalize", "move", "store"].contains(&t.kind.name()));
        for task in steps.filter_map(|t| t.sector_id) {
            *tasks.entry(task.0).or_default() += 1;
        }
        for sector in sectors {
            let works = [SectorState::PreCommit1, SectorState::PreCommit2, SectorState::Commit1, SectorState::Commit2];
            let wanted = usize::from(works.contains(&sector.state));
            let found = tasks.get(&sector.id.0).copied().unwrap_or(0);
            let tidied = open.iter().filter(|t| t.kind.name() == "finalize" && t.sector_id == Some(sector.id)).count();
            assert!(tidied <= 1 && (tidied == 1 || sector.state != SectorState::Finalizing), "sector {}", sector.number);
            assert_eq!(found, wanted, "sector {} in {} has {found} open steps", sector.number, sector.state);
            let of_kind =
                |kind: &'static str| open.iter().filter(move |t| t.sector_id == Some(sector.id) && t.kind.name() == kind);
            let pc2_waits = of_kind("pc2").all(|t| t.state.name() == "ready" && t.pinned_to == sector.machine_id);
            for fetch in of_kind("move") {
                let from_elsewhere = fetch.state.name() == "leased" && fetch.machine_id != sector.machine_id;
                assert!(from_elsewhere && pc2_waits && sector.state == SectorState::PreCommit2, "sector {}", sector.number);
            }
            assert!(of_kind("move").count() <= 1, "sector {} moves to two machines", sector.number);
        }
    }
}

fn hardware_of(machine: &Machine, split: bool) -> Hardware {
    let gpus = if split && machine.name == "yard" { vec!["a GPU".into()] } else { Vec::new() };
    Hardware { gpus, ..hardware() }
}

fn output(kind: &str) -> serde_json::Value {
    match kind {
        "pc2" => serde_json::json!({"comm_r": "33".repeat(32), "comm_d": "44".repeat(32), "pc2": {}}),
        "c2" => serde_json::json!({"proof": "55".repeat(192)}),
        _ => serde_json::json!({}),
    }
}

fn fact(state: SectorState, roll: usize, now: Micros) -> OnChain {
    match (state, roll) {
        (SectorState::PreCommitting, 0) => OnChain::MessageFailed { reason: "out of gas".into() },
        (SectorState::PreCommitting, _) => OnChain::PreCommitted { seed_epoch: 160 },
        (SectorState::ProveCommitting, 0) => OnChain::MessageFailed { reason: "out of gas".into() },
        (SectorState::ProveCommitting, _) => {
            OnChain::Activated(Activation { activation: 200, expiration: 600_000, deadline: 1, partition: 0 })
        }
        (SectorState::Active, 0..5) => OnChain::Gone,
        (SectorState::Finalizing, 0) => OnChain::Faulty,
        (SectorState::Active, _) => OnChain::Faulty,
        _ => OnChain::Counts { at: now },
    }
}

fn assert_nothing_broken(promised: &(HashMap<i64, i64>, HashMap<i64, i64>), before: &Outlook, after: &Outlook) {
    let both = [(&promised.0, &before.contracts, &after.contracts), (&promised.1, &before.orders, &after.orders)];
    for (promised, before, after) in both {
        for (id, was) in before {
            let (Some(date), Some(is)) = (promised.get(id), after.get(id)) else { continue };
            let (was, is) = (was + FIRST_POST, is + FIRST_POST);
            let late = is > *date && (was <= *date || is > was + LONGEST_STEP);
            assert!(!late, "a sale delays {id} from {was} to {is}, promised for {date}");
        }
    }
}

#[test]
fn no_history_oversells_loses_a_sector_or_makes_an_impossible_promise() {
    on_both(|db| {
        let (mut ended, mut moved) = (0, 0);
        for seed in 0..count() {
            clear(db);
            let mut fixture = Fixture::new(db, seed);
            for _ in 0..EVENTS {
                fixture.event();
                fixture.assert_sound();
            }
            let findings = db.read(|conn| ledger::check(conn).map_err(DbFault::from)).unwrap();
            assert!(findings.is_empty(), "history {seed}: {}: {}", findings[0].account, findings[0].what);
            ended += fixture.sectors(SectorState::Expired).len();
            moved += fixture
                .db
                .read(|conn| Ok::<_, DbFault>(sealing::recent_tasks(conn, i64::MAX)?))
                .unwrap()
                .iter()
                .filter(|t| t.kind.name() == "move" && t.state.name() == "done")
                .count();
        }
        assert!(count() < 25 || ended > 0, "no history reached the end of a sector");
        assert!(count() < 25 || moved > 0, "no transfer was completed");
    });
}
