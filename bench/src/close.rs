//! Measures closing a day with many contracts, and compares it with the fastest ways to write the
//! same lots and balances.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use diesel::{RunQueryDsl, connection::SimpleConnection, sql_types::Text};
use sealyard_core::{
    catalog::Terms,
    clock::DAY,
    ids::{PoolId, UserId},
    ledger::{self, AccountSpec, Lot, Movement},
    on_conn,
    store::{AnyConnection, Database, DbFault},
    yields,
};
use sealyard_filecoin::economics::{EPOCH_SECONDS, EPOCHS_PER_DAY};

use crate::{CloseOptions, process::peak_mib};

/// The day that is closed. Genesis is at Unix time 0, so epoch 0 begins day 0.
const TODAY: i64 = 20_000;
const ACTIVE_AT: i64 = (TODAY - 300) * DAY;
const LONG_AGO: i64 = (TODAY - 400) * DAY;
const VESTING: i64 = 180;
const SECTOR: i64 = 32 << 30;

/// The rows that closing the day needs, and no others, generated inside the database.
struct Made<'a> {
    options: &'a CloseOptions,
}

impl Made<'_> {
    fn series(count: i64) -> String {
        format!(
            "WITH RECURSIVE n (i) AS (SELECT CAST(1 AS BIGINT) \
             UNION ALL SELECT i + 1 FROM n WHERE i < {count})"
        )
    }

    /// Days that already have lots: the latest `past_days`, and the two around the vesting horizon
    /// that today's release reads.
    fn past(&self) -> Vec<i64> {
        let mut days: Vec<i64> = (1..=self.options.past_days)
            .map(|back| TODAY - back)
            .collect();
        days.extend([TODAY - VESTING, TODAY - VESTING - 1]);
        days.sort_unstable();
        days.dedup();
        days
    }

    fn statements(&self) -> anyhow::Result<Vec<String>> {
        let mut made = Vec::from(self.offers()?);
        made.extend(self.contracts());
        made.extend(self.earning());
        for day in self.past() {
            made.extend(Self::lots_of(day));
        }
        Ok(made)
    }

    /// Investors, and pools with one plan each.
    fn offers(&self) -> anyhow::Result<[String; 4]> {
        let terms = serde_json::to_string(&Terms::standard(1500))?;
        let people = Self::series(self.options.accounts);
        let pools = Self::series(self.options.pools);
        Ok([
            format!("INSERT INTO terms (id, text) VALUES (1, '{terms}')"),
            format!(
                "INSERT INTO users (id, public_id, email, name, password_hash, role, \
                 created_at) {people} \
                 SELECT i, 'usr_' || i, i || '@example.org', 'n', 'x', 'investor', {LONG_AGO} \
                 FROM n"
            ),
            format!(
                "INSERT INTO pools (id, public_id, name, miner, miner_id, sector_bytes, \
                 next_sector, created_at) {pools} \
                 SELECT i, 'pol_' || i, 'Pool ' || i, 'f0' || (1000 + i), 1000 + i, {SECTOR}, 1, \
                 {LONG_AGO} FROM n"
            ),
            format!(
                "INSERT INTO plans (id, public_id, pool_id, name, unit_bytes, max_units, days, \
                 price_minor, currency, terms, on_sale, created_at) {pools} \
                 SELECT i, 'pln_' || i, i, 'Plan', {SECTOR}, 1, 540, 100, 'USD', '{terms}', FALSE, \
                 {LONG_AGO} FROM n"
            ),
        ])
    }

    /// Fulfilled orders, and for each a contract with one active sector.
    fn contracts(&self) -> [String; 3] {
        let CloseOptions {
            contracts,
            accounts,
            pools,
            ..
        } = *self.options;
        let all = Self::series(contracts);
        [
            format!(
                "INSERT INTO orders (id, public_id, user_id, plan_id, pool_id, units, bytes, \
                 amount_minor, currency, terms, state, request_key, promised_at, created_at, \
                 expires_at) {all} \
                 SELECT i, 'ord_' || i, i * 7919 % {accounts} + 1, i % {pools} + 1, \
                 i % {pools} + 1, 1, {SECTOR}, 100, 'USD', '', 'fulfilled', 'k' || i, {ACTIVE_AT}, \
                 {LONG_AGO}, {LONG_AGO} FROM n"
            ),
            format!(
                "INSERT INTO contracts (id, public_id, user_id, order_id, pool_id, bytes, days, \
                 fee_bp, terms_id, state, promised_at, created_at, active_at, ends_at) \
                 SELECT id, 'ctr_' || id, user_id, id, pool_id, {SECTOR}, 540, 1500, 1, 'active', \
                 {ACTIVE_AT}, {LONG_AGO}, {ACTIVE_AT}, {} FROM orders ORDER BY id",
                ACTIVE_AT + 540 * DAY
            ),
            format!(
                "INSERT INTO sectors (id, pool_id, number, contract_id, seal_proof, state, due_at, \
                 expiration, failures, created_at, changed_at) \
                 SELECT id, pool_id, id, id, 8, 'active', {ACTIVE_AT}, 100000000, 0, {LONG_AGO}, \
                 {LONG_AGO} FROM contracts ORDER BY id"
            ),
        ]
    }

    /// Sector intervals (one sector in a hundred counts for part of the day only), ledger accounts,
    /// chain cursors and block wins.
    fn earning(&self) -> Vec<String> {
        let books = Self::series(2 * self.options.accounts);
        let mut made = vec![
            format!(
                "INSERT INTO sector_intervals (pool_id, number, contract_id, start_epoch, \
                 end_epoch, qa_power, pledge_atto, daily_fee_atto) \
                 SELECT pool_id, number, id, {}, CASE WHEN id % 100 = 0 THEN {} END, {SECTOR}, \
                 '0', '0' FROM sectors ORDER BY id",
                (TODAY - 300) * EPOCHS_PER_DAY,
                TODAY * EPOCHS_PER_DAY + 1000,
            ),
            format!(
                "INSERT INTO ledger_accounts (code, asset, user_id, never_negative, posted_in, \
                 posted_out, pending_in, pending_out, created_at) {books} \
                 SELECT 'user:' || ((i + 1) / 2) || \
                 CASE WHEN i % 2 = 0 THEN ':available' ELSE ':vesting' END, 'FIL', (i + 1) / 2, \
                 TRUE, 1000000000000, 0, 0, 0, {LONG_AGO} FROM n"
            ),
        ];
        for pool in 1..=self.options.pools {
            made.push(format!(
                "INSERT INTO chain_cursors (pool_id, genesis_at, epoch_seconds, next_epoch, \
                 head_epoch, last_cid) \
                 VALUES ({pool}, 0, {EPOCH_SECONDS}, {0}, {0} + 2000, '')",
                (TODAY + 1) * EPOCHS_PER_DAY
            ));
            made.push(format!(
                "INSERT INTO block_wins (pool_id, epoch, cid, win_count, reward_atto) \
                 VALUES ({pool}, {}, 'c', 5, '18150000000000000001')",
                TODAY * EPOCHS_PER_DAY + 7
            ));
        }
        made
    }

    fn lots_of(day: i64) -> [String; 2] {
        [
            format!(
                "INSERT INTO pool_days (pool_id, day, first_epoch, end_epoch, wins, reward_atto, \
                 posted_nano, carry_atto, power_epochs, closed_at) \
                 SELECT id, {day}, {}, {}, 1, '0', 0, 0, '0', 0 FROM pools",
                day * EPOCHS_PER_DAY,
                (day + 1) * EPOCHS_PER_DAY
            ),
            format!(
                "INSERT INTO yield_lots (pool_id, day, contract_id, power_epochs, missing_epochs, \
                 gross_nano, fee_nano, cost_nano, available_nano, locked_nano, released_nano, \
                 rate_nano, vesting_nano, compensation_nano) \
                 SELECT pool_id, {day}, id, '{}', '0', 88000 + id % 50, 13200, 0, 18700, \
                 56100 + id % 50, 55990, 55980, 1000000, 0 FROM contracts ORDER BY pool_id, id",
                SECTOR * EPOCHS_PER_DAY
            ),
        ]
    }
}

pub fn run(options: &CloseOptions) -> anyhow::Result<()> {
    let db = Database::open(&options.database, 2)?;
    db.migrate()?;
    let empty =
        db.read(|conn| Ok::<_, DbFault>(sealyard_core::accounts::investors(conn)?.is_empty()))?;
    ensure!(
        empty,
        "{} has users; this bench fills and spoils its database, give it an empty one",
        options.database
    );
    let started = Instant::now();
    for statement in (Made { options }).statements()? {
        execute(&db, &statement)?;
    }
    analyze(&db)?;
    eprintln!(
        "made {} contracts in {:.1} s",
        options.contracts,
        started.elapsed().as_secs_f64()
    );

    let started = Instant::now();
    let mut lots = 0;
    for pool in (1..=options.pools).map(PoolId) {
        let closed = db
            .transact(|conn| yields::close_day(conn, pool, TODAY * DAY))?
            .context("the day was not closed")?;
        lots += closed.lots;
    }
    let ours = started.elapsed();
    let peak = peak_mib()?;
    account_pages(&db)?;
    let (least, route) = fastest(&db, options)?;
    let hundredths = ours.as_micros() * 100 / least.as_micros().max(1);
    println!(
        "{lots} lots of {} accounts in {} pools closed in {:.2} s, at most {peak} MiB; the fastest \
         route ({route}) writes the same rows and balances in {:.2} s: ratio {}.{:02}",
        options.accounts,
        options.pools,
        ours.as_secs_f64(),
        least.as_secs_f64(),
        hundredths / 100,
        hundredths % 100,
    );
    Ok(())
}

/// Measures how long an account's page takes to find its lots, and checks that it finds them by
/// their whole key, so that the number of days does not matter.
fn account_pages(db: &Database) -> anyhow::Result<()> {
    let started = Instant::now();
    let lots = db.read(|conn| {
        let range = TODAY - 60..TODAY + 1;
        Ok::<_, DbFault>(
            ledger::entries(conn, &AccountSpec::Available(UserId(1)), range, i64::MAX)?.len(),
        )
    })?;
    let took = started.elapsed();
    let query = ledger::LOTS_OF_USER
        .replace("$1", "1")
        .replace("$2", &(TODAY - 60).to_string())
        .replace("$3", &(TODAY + 1).to_string());
    let explain = if db.is_postgres() {
        "EXPLAIN (COSTS OFF) "
    } else {
        "EXPLAIN QUERY PLAN "
    };
    let lines: Vec<String> = db.read(|conn| {
        Ok::<_, DbFault>(match conn {
            AnyConnection::Postgres(c) => diesel::sql_query(format!("{explain}{query}"))
                .load::<PostgresLine>(c)?
                .into_iter()
                .map(|l| l.line)
                .collect(),
            AnyConnection::Sqlite(c) => diesel::sql_query(format!("{explain}{query}"))
                .load::<SqliteLine>(c)?
                .into_iter()
                .map(|l| l.detail)
                .collect(),
        })
    })?;
    println!(
        "an account's {lots} entries of 60 days in {:.1} ms:",
        took.as_secs_f64() * 1000.0
    );
    for line in &lines {
        println!("  {line}");
    }
    let whole_key = ["pool_id=", "day=", "contract_id="];
    let found = |line: &String| {
        whole_key
            .iter()
            .all(|part| line.replace(' ', "").contains(part))
    };
    ensure!(
        lines.iter().any(found),
        "lots are looked through, not found by their whole key"
    );
    Ok(())
}

#[derive(diesel::QueryableByName)]
struct PostgresLine {
    #[diesel(sql_type = Text, column_name = "QUERY PLAN")]
    line: String,
}

#[derive(diesel::QueryableByName)]
struct SqliteLine {
    #[diesel(sql_type = Text)]
    detail: String,
}

fn execute(db: &Database, statement: &str) -> anyhow::Result<()> {
    Ok(db.write(|conn| on_conn!(conn, |c| c.batch_execute(statement)))?)
}

fn analyze(db: &Database) -> anyhow::Result<()> {
    let statement = if db.is_postgres() {
        "VACUUM ANALYZE"
    } else {
        "ANALYZE"
    };
    Ok(db.read(|conn| Ok::<_, DbFault>(on_conn!(conn, |c| c.batch_execute(statement))?))?)
}

/// Rows that closing wrote for one pool; they are written again to measure the fastest route.
struct Written {
    lots: Vec<Lot>,
    movements: Vec<Movement>,
}

/// Writes the day's lots and balances again by two routes, each pool in one transaction, as closing
/// does. Returns the shorter time and the name of its route.
fn fastest(db: &Database, options: &CloseOptions) -> anyhow::Result<(Duration, &'static str)> {
    let mut written = Vec::new();
    for pool in (1..=options.pools).map(PoolId) {
        let mut lots = db.read(|conn| Ok::<_, DbFault>(ledger::lots_on(conn, pool, TODAY)?))?;
        for lot in &mut lots {
            lot.day = TODAY + 1;
        }
        let owners: Vec<UserId> = lots
            .iter()
            .map(|lot| UserId(lot.contract_id.0 * 7919 % options.accounts + 1))
            .collect();
        let movements = ledger::lot_movements(pool, &lots, &owners)?;
        written.push(Written { lots, movements });
    }
    let from_client = timed(db, &written, |conn, pool| {
        ledger::insert_lots(conn, &pool.lots)?;
        ledger::apply(conn, &pool.movements, 0)
            .map_err(|_| diesel::result::Error::RollbackTransaction)
    })?;
    stage(db, &written)?;
    let inside = timed(db, &written, |conn, pool| {
        let id = pool.lots.first().map_or(0, |lot| lot.pool_id.0);
        let copy = format!(
            "INSERT INTO yield_lots SELECT * FROM staged_lots \
             WHERE pool_id = {id} ORDER BY contract_id"
        );
        let add = format!(
            "UPDATE ledger_accounts \
             SET posted_in = posted_in + s.paid_in, posted_out = posted_out + s.paid_out \
             FROM staged_sums s WHERE s.pool_id = {id} AND ledger_accounts.code = s.code"
        );
        on_conn!(conn, |c| c
            .batch_execute(&copy)
            .and_then(|()| c.batch_execute(&add)))
    })?;
    let name = if db.is_postgres() {
        "binary COPY from the client"
    } else {
        "rows bound by the client"
    };
    Ok(if from_client < inside {
        (from_client, name)
    } else {
        (inside, "INSERT … SELECT inside the database")
    })
}

fn timed(
    db: &Database,
    written: &[Written],
    mut write: impl FnMut(&mut AnyConnection, &Written) -> Result<(), diesel::result::Error>,
) -> anyhow::Result<Duration> {
    analyze(db)?;
    let started = Instant::now();
    for pool in written {
        db.write(|conn| write(conn, pool))?;
    }
    let took = started.elapsed();
    execute(
        db,
        &format!("DELETE FROM yield_lots WHERE day = {}", TODAY + 1),
    )?;
    Ok(took)
}

/// Copies the rows to staging tables, so that they can be written without the client.
fn stage(db: &Database, written: &[Written]) -> anyhow::Result<()> {
    execute(
        db,
        "CREATE TABLE staged_sums (pool_id BIGINT, code TEXT, paid_in BIGINT, paid_out BIGINT)",
    )?;
    execute(
        db,
        "CREATE TABLE staged_lots AS SELECT * FROM yield_lots WHERE 1 = 0",
    )?;
    for pool in written {
        let id = pool.lots.first().map_or(0, |lot| lot.pool_id.0);
        let sums: Vec<(String, i64, i64)> = pool
            .movements
            .iter()
            .map(|m| (AccountSpec::code(&m.account), m.paid_in, m.paid_out))
            .collect();
        let json = serde_json::to_string(&sums)?;
        let values = if db.is_postgres() {
            "SELECT CAST(v ->> 0 AS TEXT), CAST(v ->> 1 AS BIGINT), CAST(v ->> 2 AS BIGINT) \
             FROM json_array_elements(CAST($1 AS JSON)) AS t (v)"
        } else {
            "SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each($1)"
        };
        let columns = values.replacen("SELECT ", &format!("SELECT {id}, "), 1);
        let insert = format!("INSERT INTO staged_sums {columns}");
        db.write(|conn| {
            ledger::insert_lots(conn, &pool.lots)?;
            diesel::sql_query(&insert)
                .bind::<Text, _>(&json)
                .execute(conn)?;
            Ok(())
        })?;
    }
    execute(
        db,
        &format!(
            "INSERT INTO staged_lots SELECT * FROM yield_lots WHERE day = {}",
            TODAY + 1
        ),
    )?;
    execute(
        db,
        &format!("DELETE FROM yield_lots WHERE day = {}", TODAY + 1),
    )
}
