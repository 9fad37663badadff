//! Random histories of an installation: orders, holds, payments in time and late, machines that
//! fail, drain and return, steps that succeed and fail, files that move to a GPU, repeated reports,
//! contracts that end. After every event the books are sound, and every promise was one that the
//! schedule could keep when it was given.

mod chain;
mod machines;
mod purchases;
mod sound;

use diesel::{
    PgConnection, QueryableByName, RunQueryDsl, SqliteConnection, sql_query, sql_types::Text,
};
use sealyard_core::{
    capacity,
    catalog::Plan,
    clock::{HOUR, MINUTE},
    fleet::{
        self, Machine, Offer,
        protocol::{Hardware, ReportRequest},
    },
    ids::{MachineId, UserId},
    ledger,
    orders::{self, Order},
    scheduler::{self, Outlook},
    sealing::{self, Sector, SectorState, TaskHead},
    store::{AnyConnection, Database, DbFault, DbResult},
};
use sealyard_planner::Rng;

use crate::support::{NOW, hardware, machine, on_both, shop};

/// The number of histories on each database. `SEALYARD_HISTORIES=5000` runs as many as the project
/// goal asks for.
fn count() -> u64 {
    std::env::var("SEALYARD_HISTORIES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(25)
}

const EVENTS: usize = 100;

struct Fixture<'d> {
    db: &'d Database,
    plan: Plan,
    user: UserId,
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
    db.write(|conn| match conn {
        AnyConnection::Sqlite(c) => clear_sqlite(c),
        AnyConnection::Postgres(c) => clear_postgres(c),
    })
    .unwrap();
}

fn clear_sqlite(c: &mut SqliteConnection) -> DbResult<()> {
    sql_query("PRAGMA defer_foreign_keys = ON").execute(c)?;
    let all = "SELECT name FROM sqlite_master WHERE type = 'table' \
               AND name NOT LIKE '\\_\\_%' ESCAPE '\\' AND name NOT LIKE 'sqlite%'";
    for table in sql_query(all).load::<Name>(c)? {
        sql_query(format!("DELETE FROM {}", table.name)).execute(c)?;
    }
    Ok(())
}

fn clear_postgres(c: &mut PgConnection) -> DbResult<()> {
    let all = "SELECT tablename::text AS name FROM pg_tables \
               WHERE schemaname = 'public' AND tablename NOT LIKE '\\_\\_%'";
    let tables = sql_query(all).load::<Name>(c)?;
    let names: Vec<String> = tables.into_iter().map(|t| t.name).collect();
    let names = names.join(", ");
    sql_query(format!("TRUNCATE {names} RESTART IDENTITY CASCADE")).execute(c)?;
    Ok(())
}

impl<'d> Fixture<'d> {
    fn new(db: &'d Database, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let (_, plan, user) = shop(db, 6 + i64::try_from(rng.below(30)).unwrap());
        for name in ["second", "third"].into_iter().take(rng.below(3)) {
            machine(db, name);
        }
        let machines = db
            .read(|conn| fleet::machines(conn).map_err(DbFault::from))
            .unwrap();
        let split = seed % 2 == 1;
        let show = |conn: &mut AnyConnection, machine: &Machine| {
            fleet::heartbeat(conn, machine, &hardware_of(machine, split), NOW)?;
            // If there is a third machine, it stores the sealed sectors.
            let offer = Offer {
                files_url: Some("http://files"),
                keeps: machine.name == "third",
            };
            fleet::offer(conn, machine, offer).map(drop)
        };
        if split {
            db.write(|conn| machines.iter().try_for_each(|m| show(conn, m)))
                .unwrap();
        }
        Self {
            db,
            plan,
            user: user.id,
            machines,
            split,
            rng,
            now: NOW,
            placed: Vec::new(),
            sent: Vec::new(),
            keys: 0,
        }
    }

    fn pick<T>(&mut self, from: Vec<T>) -> Option<T> {
        let at = self.rng.below(from.len());
        from.into_iter().nth(at)
    }

    fn sectors(&self, state: SectorState) -> Vec<Sector> {
        self.db
            .read(|conn| sealing::in_states(conn, &[state]).map_err(DbFault::from))
            .unwrap()
    }

    fn outlook(&self) -> Outlook {
        self.db
            .read(|conn| Ok::<_, DbFault>(scheduler::outlook(&scheduler::load(conn, self.now)?)))
            .unwrap()
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

    fn pass(&mut self, time: i64) {
        self.now += time;
        let now = self.now;
        self.db
            .transact(|conn| orders::expire_due(conn, now))
            .unwrap();
        self.db
            .write(|conn| sealing::expire_leases(conn, now))
            .unwrap();
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
            Ok::<_, DbFault>(scheduler::keep_plan(
                conn,
                &snapshot,
                &scheduler::outlook(&snapshot),
            )?)
        };
        self.db.transact(keep).unwrap();
    }

    fn open_tasks(&self) -> Vec<TaskHead> {
        self.db
            .read(|conn| sealing::open_tasks(conn).map_err(DbFault::from))
            .unwrap()
    }
}

fn hardware_of(machine: &Machine, split: bool) -> Hardware {
    let gpus = if split && machine.name == "yard" {
        vec!["a GPU".into()]
    } else {
        Vec::new()
    };
    Hardware { gpus, ..hardware() }
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
            let findings = db
                .read(|conn| ledger::check(conn).map_err(DbFault::from))
                .unwrap();
            assert!(
                findings.is_empty(),
                "history {seed}: {}: {}",
                findings[0].account,
                findings[0].what
            );
            ended += fixture.sectors(SectorState::Expired).len();
            moved += fixture
                .db
                .read(|conn| Ok::<_, DbFault>(sealing::recent_tasks(conn, i64::MAX)?))
                .unwrap()
                .iter()
                .filter(|t| t.kind.name() == "move" && t.state.name() == "done")
                .count();
        }
        assert!(
            count() < 25 || ended > 0,
            "no history reached the end of a sector"
        );
        assert!(count() < 25 || moved > 0, "no transfer was completed");
    });
}
