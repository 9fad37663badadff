//! The audit log: actions of administrators and of the server itself.

use diesel::prelude::*;

use crate::{
    clock::Micros,
    ids::UserId,
    store::{AnyConnection, DbResult, schema::audit_log},
};

/// `subject` is a public id; `detail` holds no secret.
pub fn record(
    conn: &mut AnyConnection,
    at: Micros,
    user: Option<UserId>,
    action: &str,
    subject: &str,
    detail: &str,
) -> DbResult<()> {
    use audit_log::{
        action as action_column, at as at_column, detail as detail_column,
        subject as subject_column, user_id,
    };
    diesel::insert_into(audit_log::table)
        .values((
            at_column.eq(at),
            user_id.eq(user),
            action_column.eq(action),
            subject_column.eq(subject),
            detail_column.eq(detail),
        ))
        .execute(conn)
        .map(drop)
}
