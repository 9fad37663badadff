//! Shared helpers: a database per test, a shop, machines and the programs under test.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use diesel::{Connection, ExpressionMethods, RunQueryDsl};
use sealyard_core::{
    accounts::{self, NewUser, Registration, Role, User},
    capacity::{self, NewPool, Pool},
    catalog::{self, NewPlan, Plan, Terms},
    clock::{DAY, SECOND},
    fleet::{
        self, Machine,
        protocol::{Hardware, Outcome, PostInput},
    },
    ids::{PoolId, TaskId},
    ledger,
    money::Fiat,
    sealing,
    store::{Database, DbFault, schema},
    yields,
};

pub const NOW: i64 = 1_790_000_000_000_000;
pub const SECTOR: i64 = 2048;
pub const EPOCH_SECONDS: i64 = 30;
/// Upper limit. Connections are opened on demand.
const CONNECTIONS: u32 = 64;

/// A migrated, empty database for one test, with the folder that it lives in.
pub struct TestDb {
    pub db: Database,
    _dir: Option<tempfile::TempDir>,
}

fn sqlite() -> TestDb {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::open(
        &format!("sqlite://{}/test.db", dir.path().display()),
        CONNECTIONS,
    )
    .unwrap();
    db.migrate().unwrap();
    TestDb {
        db,
        _dir: Some(dir),
    }
}

fn postgres(server: &str) -> TestDb {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!(
        "test_{}_{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    let mut admin = diesel::PgConnection::establish(&format!("{server}/postgres")).unwrap();
    diesel::sql_query(format!("CREATE DATABASE {name}"))
        .execute(&mut admin)
        .unwrap();
    let db = Database::open(&format!("{server}/{name}"), CONNECTIONS).unwrap();
    db.migrate().unwrap();
    TestDb { db, _dir: None }
}

/// Runs a test on both databases. `scripts/test` starts the PostgreSQL server. Without it the test
/// fails instead of passing on one database only.
pub fn on_both(test: impl Fn(&Database)) {
    test(&sqlite().db);
    let server = std::env::var("SEALYARD_TEST_POSTGRES")
        .expect("run the tests with scripts/test, which starts PostgreSQL");
    test(&postgres(&server).db);
}

/// A machine, a pool with a capacity of `sectors`, a plan of one sector per unit, and an investor.
pub fn shop(db: &Database, sectors: i64) -> (Pool, Plan, User) {
    machine(db, "yard");
    db.write(|conn| {
        let pool = capacity::create_pool(conn, &NewPool::new("Test", 1000, SECTOR, NOW))?;
        capacity::grow(conn, pool.id, "initial", sectors * SECTOR, NOW).unwrap();
        let terms = Terms::standard(2000);
        let new = NewPlan::of_sectors(&pool, "Test", 210, price(), terms, NOW);
        let plan = catalog::create_plan(conn, &new)?;
        capacity::set_collateral(conn, pool.id, 1_000_000, 0)?;
        let user = investor(conn, "ada@example.org");
        Ok((pool, plan, user))
    })
    .unwrap()
}

/// The price of one unit.
fn price() -> Fiat {
    Fiat {
        minor: 2500,
        currency: "USD".into(),
    }
}

/// Another plan, with terms of its own.
pub fn plan_with(db: &Database, pool: &Pool, days: i64, terms: Terms) -> Plan {
    let new = NewPlan::of_sectors(pool, "Special", days, price(), terms, NOW);
    db.write(|conn| catalog::create_plan(conn, &new)).unwrap()
}

pub fn hardware() -> Hardware {
    Hardware {
        cores: 4,
        memory_bytes: 16 << 30,
        disk_bytes: 1 << 40,
        disk_free_bytes: 1 << 39,
        gpus: Vec::new(),
        description: "test".into(),
    }
}

/// An enrolled machine.
pub fn machine(db: &Database, name: &str) -> Machine {
    db.write(|conn| {
        let token = fleet::new_token(conn, name, NOW, NOW + DAY)?;
        let answer = fleet::enrol(conn, &token, &hardware(), NOW).unwrap();
        Ok(fleet::by_key(conn, &answer.key)?.unwrap())
    })
    .unwrap()
}

pub fn investor(conn: &mut sealyard_core::store::AnyConnection, email: &str) -> User {
    let new = NewUser {
        email,
        name: "Ada",
        password: "long enough",
        role: Role::Investor,
    };
    accounts::register(conn, &Registration::of(&new).unwrap(), NOW).unwrap()
}

/// Marks the pool's chain as read up to this epoch. The chain began a day before [`NOW`].
pub fn read_up_to(db: &Database, pool: PoolId, epoch: i64) {
    use schema::chain_cursors as c;
    let begin = (
        c::pool_id.eq(pool),
        c::genesis_at.eq((NOW - DAY) / SECOND),
        c::epoch_seconds.eq(EPOCH_SECONDS),
        c::next_epoch.eq(epoch),
    );
    let rest = (
        c::head_epoch.eq(epoch),
        c::last_cid.eq(""),
        c::network.eq("test"),
    );
    db.write(|conn| {
        diesel::delete(c::table).execute(conn)?;
        diesel::insert_into(c::table)
            .values((begin, rest))
            .execute(conn)
    })
    .unwrap();
}

/// Records that the chain counts the power of a sector.
pub fn counts(db: &Database, pool: PoolId, number: i64) {
    use schema::sector_intervals as i;
    let values = (
        i::pool_id.eq(pool),
        i::number.eq(number),
        i::start_epoch.eq(1),
        i::qa_power.eq(2048),
    );
    let rest = (i::pledge_atto.eq("0"), i::daily_fee_atto.eq("0"));
    db.write(|conn| {
        diesel::insert_into(i::table)
            .values((values, rest))
            .execute(conn)
    })
    .unwrap();
}

/// Checks the books. The audit may only report missing coverage, because the tests that call this
/// record no chain days.
pub fn sound(db: &Database) {
    assert_eq!(
        db.read(|conn| ledger::check(conn).map_err(DbFault::from))
            .unwrap(),
        []
    );
    let found = db
        .read(yields::audit)
        .unwrap()
        .map(|difference| difference.to_string());
    assert!(
        found
            .as_ref()
            .is_none_or(|said| said.starts_with("coverage > ")),
        "{found:?}"
    );
}

/// A result that a machine reports.
pub fn done(output: serde_json::Value) -> Outcome {
    Outcome::done(&output).unwrap()
}

/// The result of a vanilla task that proves all its sectors.
pub fn all_proven(db: &Database, task: TaskId) -> Outcome {
    let input = db
        .read(|conn| sealing::task_by_id(conn, task).map_err(DbFault::from))
        .unwrap()
        .input;
    let input: PostInput = serde_json::from_str(&input).unwrap();
    let proofs: Vec<_> = input
        .sectors
        .iter()
        .map(|s| serde_json::json!({"sector": s.number, "proof": "AA=="}))
        .collect();
    done(serde_json::json!({"proofs": proofs, "faulty": []}))
}

/// A SNARK of the right length.
pub fn snark() -> Outcome {
    done(serde_json::json!({"proof": "55".repeat(192)}))
}

/// The path of a program that `scripts/test` has built, one folder above the test binary.
pub fn program(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push(name);
    assert!(
        path.exists(),
        "{} is missing; run the tests with scripts/test, which builds it",
        path.display()
    );
    path
}

/// The repository's root.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}
