//! Claims: of many workers one runs a loop, the others stand by.

use diesel::prelude::*;

use crate::{
    clock::Micros,
    on_conn,
    store::{AnyConnection, DbResult, schema::claims},
};

/// Takes or extends the claim `name` for `holder`; false while somebody else holds it.
pub fn claim(conn: &mut AnyConnection, name: &str, holder: &str, until: Micros, now: Micros) -> DbResult<bool> {
    let values = (claims::name.eq(name), claims::holder.eq(holder), claims::held_until.eq(until));
    let inserted =
        on_conn!(&mut *conn, |c| diesel::insert_into(claims::table).values(values).on_conflict_do_nothing().execute(c))?;
    if inserted == 1 {
        return Ok(true);
    }
    let mine_or_free = claims::table.filter(claims::name.eq(name).and(claims::holder.eq(holder).or(claims::held_until.lt(now))));
    let taken = diesel::update(mine_or_free).set((claims::holder.eq(holder), claims::held_until.eq(until))).execute(conn)?;
    Ok(taken == 1)
}
