//! Claims: one of many workers runs a loop, and the others stand by. The claim also records whether
//! the loop's last turn failed.

use diesel::prelude::*;

use crate::{
    clock::Micros,
    on_conn,
    store::{AnyConnection, DbResult, schema::claims},
};

/// Takes or extends the claim `name` for `holder`. False: somebody else holds it.
pub fn claim(
    conn: &mut AnyConnection,
    name: &str,
    holder: &str,
    until: Micros,
    now: Micros,
) -> DbResult<bool> {
    let values = (
        claims::name.eq(name),
        claims::holder.eq(holder),
        claims::held_until.eq(until),
    );
    let inserted = on_conn!(&mut *conn, |c| diesel::insert_into(claims::table)
        .values(values)
        .on_conflict_do_nothing()
        .execute(c))?;
    if inserted == 1 {
        return Ok(true);
    }
    let mine_or_free = claims::table.filter(
        claims::name
            .eq(name)
            .and(claims::holder.eq(holder).or(claims::held_until.lt(now))),
    );
    let taken = diesel::update(mine_or_free)
        .set((claims::holder.eq(holder), claims::held_until.eq(until)))
        .execute(conn)?;
    Ok(taken == 1)
}

/// A loop whose last turn failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failing {
    pub name: String,
    pub since: Micros,
    pub error: String,
}

/// Notes how a loop's last turn went; `None`: it succeeded.
pub fn note_turn(
    conn: &mut AnyConnection,
    name: &str,
    error: Option<&str>,
    now: Micros,
) -> DbResult<()> {
    let row = claims::table.find(name);
    if error.is_none() {
        let well = (
            claims::failing_since.eq(None::<Micros>),
            claims::last_error.eq(None::<&str>),
        );
        return diesel::update(row).set(well).execute(conn).map(drop);
    }
    diesel::update(row.filter(claims::failing_since.is_null()))
        .set(claims::failing_since.eq(now))
        .execute(conn)?;
    diesel::update(row)
        .set(claims::last_error.eq(error))
        .execute(conn)
        .map(drop)
}

/// Loops whose last turn failed.
pub fn failing(conn: &mut AnyConnection) -> DbResult<Vec<Failing>> {
    let rows: Vec<(String, Option<Micros>, Option<String>)> = claims::table
        .filter(claims::failing_since.is_not_null())
        .order(claims::name.asc())
        .select((claims::name, claims::failing_since, claims::last_error))
        .load(conn)?;
    let failing = |(name, since, error): (String, Option<Micros>, Option<String>)| {
        Some(Failing {
            name,
            since: since?,
            error: error.unwrap_or_default(),
        })
    };
    Ok(rows.into_iter().filter_map(failing).collect())
}

/// Every loop that has ever run.
pub fn loops(conn: &mut AnyConnection) -> DbResult<Vec<String>> {
    claims::table
        .order(claims::name.asc())
        .select(claims::name)
        .load(conn)
}

/// Releases every claim of a holder that is stopping, so that another one takes over at once.
pub fn release_claims(conn: &mut AnyConnection, holder: &str) -> DbResult<usize> {
    diesel::update(claims::table.filter(claims::holder.eq(holder)))
        .set(claims::held_until.eq(0))
        .execute(conn)
}
