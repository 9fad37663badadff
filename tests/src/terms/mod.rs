//! The terms of a contract beyond the split of a day: its end, its extension, and the investor's
//! own pledge.

mod corrections;
mod duration;
mod pledge;

use diesel::RunQueryDsl;
use sealyard_core::{
    on_conn,
    store::{AnyConnection, Database, DbFault},
};
use sealyard_filecoin::economics::EPOCHS_PER_DAY;

const DAY: i64 = EPOCHS_PER_DAY;
const WIN: &str = "1000000000000000000";

fn run(db: &Database, sql: &str) {
    let run = |conn: &mut AnyConnection| {
        on_conn!(conn, |c| diesel::sql_query(sql).execute(c)).map_err(DbFault::from)
    };
    db.transact(run).unwrap();
}
