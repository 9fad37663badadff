//! Sessions: a row per sign-in, so that one can be ended before its token expires.

use diesel::prelude::*;

use super::User;
use crate::{
    clock::Micros,
    ids::{UserId, public_id},
    store::{
        AnyConnection, DbResult,
        schema::{sessions, users},
    },
};

#[derive(Insertable)]
#[diesel(table_name = sessions)]
struct Row {
    id: String,
    user_id: UserId,
    created_at: Micros,
    expires_at: Micros,
    revoked_at: Option<Micros>,
}

/// Returns the session's id.
pub fn start_session(
    conn: &mut AnyConnection,
    user: UserId,
    now: Micros,
    expires_at: Micros,
) -> DbResult<String> {
    let id = public_id("ses");
    let row = Row {
        id: id.clone(),
        user_id: user,
        created_at: now,
        expires_at,
        revoked_at: None,
    };
    diesel::insert_into(sessions::table)
        .values(row)
        .execute(conn)?;
    Ok(id)
}

/// The user of a session; `None` when the session has ended.
pub fn session_user(conn: &mut AnyConnection, id: &str, now: Micros) -> DbResult<Option<User>> {
    sessions::table
        .inner_join(users::table.on(users::id.eq(sessions::user_id)))
        .filter(sessions::id.eq(id))
        .filter(sessions::revoked_at.is_null())
        .filter(sessions::expires_at.gt(now))
        .select(users::all_columns)
        .first(conn)
        .optional()
}

pub fn end_session(conn: &mut AnyConnection, id: &str, now: Micros) -> DbResult<()> {
    diesel::update(sessions::table.find(id))
        .set(sessions::revoked_at.eq(now))
        .execute(conn)
        .map(drop)
}

pub fn end_sessions(conn: &mut AnyConnection, user: UserId, now: Micros) -> DbResult<()> {
    let open = sessions::table.filter(
        sessions::user_id
            .eq(user)
            .and(sessions::revoked_at.is_null()),
    );
    diesel::update(open)
        .set(sessions::revoked_at.eq(now))
        .execute(conn)
        .map(drop)
}
