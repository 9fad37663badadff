//! Enrolment: a one-time token becomes a machine with a key of its own.

use diesel::prelude::*;

use super::protocol::{EnrolAnswer, Hardware};
use crate::{
    clock::Micros,
    ids::{MachineId, digest, public_id, secret},
    store::{
        AnyConnection, DbFault, DbResult,
        schema::{enrolment_tokens, machines},
    },
};

#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error("this enrolment token is not known; an administrator makes one under Fleet")]
    UnknownToken,
    #[error("this enrolment token has been used; every machine needs its own")]
    TokenUsed,
    #[error("this enrolment token has expired; make a new one under Fleet")]
    TokenExpired,
    #[error(transparent)]
    Db(#[from] DbFault),
}

crate::carries_db_faults!(EnrolError);

#[derive(Insertable)]
#[diesel(table_name = enrolment_tokens)]
struct NewToken<'a> {
    token_hash: String,
    name: &'a str,
    created_at: Micros,
    expires_at: Micros,
}

/// A token that enrols one machine under `name`. Returned once, stored as a digest.
pub fn new_token(conn: &mut AnyConnection, name: &str, now: Micros, expires_at: Micros) -> DbResult<String> {
    let token = format!("enrol_{}", secret());
    let row = NewToken { token_hash: digest(&token), name, created_at: now, expires_at };
    diesel::insert_into(enrolment_tokens::table).values(row).execute(conn)?;
    Ok(token)
}

#[derive(Insertable)]
#[diesel(table_name = machines)]
struct NewMachine<'a> {
    public_id: String,
    name: &'a str,
    state: &'static str,
    key_hash: String,
    cores: i64,
    memory_bytes: i64,
    disk_bytes: i64,
    disk_free_bytes: i64,
    gpus: i64,
    detail: &'a str,
    enrolled_at: Micros,
    seen_at: Micros,
}

pub fn enrol(conn: &mut AnyConnection, token: &str, hardware: &Hardware, now: Micros) -> Result<EnrolAnswer, EnrolError> {
    use enrolment_tokens::{expires_at, machine_id, name, table, used_at};
    let hash = digest(token);
    let row: Option<(String, Micros, Option<Micros>)> =
        table.find(&hash).select((name, expires_at, used_at)).first(conn).optional()?;
    let (machine_name, expires, used) = row.ok_or(EnrolError::UnknownToken)?;
    if used.is_some() {
        return Err(EnrolError::TokenUsed);
    }
    if expires <= now {
        return Err(EnrolError::TokenExpired);
    }
    let won = diesel::update(table.find(&hash).filter(used_at.is_null())).set(used_at.eq(now)).execute(conn)?;
    if won == 0 {
        return Err(EnrolError::TokenUsed);
    }
    let answer = EnrolAnswer { machine: public_id("mch"), key: format!("agent_{}", secret()) };
    let new = NewMachine {
        public_id: answer.machine.clone(),
        name: &machine_name,
        state: "active",
        key_hash: digest(&answer.key),
        cores: hardware.cores,
        memory_bytes: hardware.memory_bytes,
        disk_bytes: hardware.disk_bytes,
        disk_free_bytes: hardware.disk_free_bytes,
        gpus: i64::try_from(hardware.gpus.len()).unwrap_or(i64::MAX),
        detail: &hardware.description,
        enrolled_at: now,
        seen_at: now,
    };
    let id: MachineId = diesel::insert_into(machines::table).values(new).returning(machines::id).get_result(conn)?;
    diesel::update(table.find(&hash)).set(machine_id.eq(id)).execute(conn)?;
    Ok(answer)
}
