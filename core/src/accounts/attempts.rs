//! Limits on attempts. They are counted in the database, so that all processes share one count.

use diesel::prelude::*;

use crate::{
    clock::Micros,
    on_conn,
    store::{AnyConnection, DbResult, schema::attempts},
};

/// At most `most` tries within `window`.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    pub most: i64,
    pub window: Micros,
}

/// Whether another try under this key is allowed. Counts nothing.
pub fn is_allowed(
    conn: &mut AnyConnection,
    key: &str,
    limit: Limit,
    now: Micros,
) -> DbResult<bool> {
    let open = attempts::table
        .find(key)
        .filter(attempts::window_end.gt(now));
    let count: Option<i64> = open.select(attempts::count).first(conn).optional()?;
    Ok(count.unwrap_or(0) < limit.most)
}

/// Counts a try; false when it exceeds the limit. A window begins with its first try.
pub fn count(conn: &mut AnyConnection, key: &str, limit: Limit, now: Micros) -> DbResult<bool> {
    let row = attempts::table.find(key);
    let counted: Option<i64> = diesel::update(row.filter(attempts::window_end.gt(now)))
        .set(attempts::count.eq(attempts::count + 1))
        .returning(attempts::count)
        .get_result(conn)
        .optional()?;
    if let Some(count) = counted {
        return Ok(count <= limit.most);
    }
    // Delete expired windows, so that the table cannot grow without bound.
    diesel::delete(attempts::table.filter(attempts::window_end.le(now))).execute(conn)?;
    let first = (
        attempts::key.eq(key),
        attempts::window_end.eq(now.saturating_add(limit.window)),
        attempts::count.eq(1),
    );
    let new = on_conn!(&mut *conn, |c| diesel::insert_into(attempts::table)
        .values(first)
        .on_conflict_do_nothing()
        .execute(c))?;
    if new == 0 {
        // Another try began the window at the same moment.
        diesel::update(attempts::table.find(key))
            .set(attempts::count.eq(attempts::count + 1))
            .execute(conn)?;
    }
    Ok(limit.most >= 1)
}

/// Clears the count after a success.
pub fn forget(conn: &mut AnyConnection, key: &str) -> DbResult<()> {
    diesel::delete(attempts::table.find(key))
        .execute(conn)
        .map(drop)
}
