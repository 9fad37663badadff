//! Enrolment: a computer trades a one-time token for a machine row with a key of its own.

use diesel::prelude::*;

use super::{
    Machine,
    machine::MachineState,
    protocol::{EnrolAnswer, Hardware},
};
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
    #[error("this enrolment token is not known; ask an administrator to make one under Fleet")]
    UnknownToken,
    #[error("this enrolment token has been used; every machine needs its own")]
    TokenUsed,
    #[error("this enrolment token has expired; make a new one under Fleet")]
    TokenExpired,
    #[error("this enrolment token was withdrawn; make a new one under Fleet")]
    TokenWithdrawn,
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
    for_machine: Option<MachineId>,
}

/// A token that enrols one machine under `name`. It is returned once and stored as a digest.
pub fn new_token(
    conn: &mut AnyConnection,
    name: &str,
    now: Micros,
    expires_at: Micros,
) -> DbResult<String> {
    let token = format!("enrol_{}", secret());
    let row = NewToken {
        token_hash: digest(&token),
        name,
        created_at: now,
        expires_at,
        for_machine: None,
    };
    diesel::insert_into(enrolment_tokens::table)
        .values(row)
        .execute(conn)?;
    Ok(token)
}

/// A token that gives a machine a new key, even if the old one was withdrawn. Otherwise the old key
/// stays good until the token is used.
pub fn new_key_token(
    conn: &mut AnyConnection,
    machine: &Machine,
    now: Micros,
    expires_at: Micros,
) -> DbResult<String> {
    let token = format!("enrol_{}", secret());
    let (name, for_machine) = (machine.name.as_str(), Some(machine.id));
    let row = NewToken {
        token_hash: digest(&token),
        name,
        created_at: now,
        expires_at,
        for_machine,
    };
    diesel::insert_into(enrolment_tokens::table)
        .values(row)
        .execute(conn)?;
    Ok(token)
}

/// A token that can still be used. Only its digest is kept.
#[derive(Clone, Debug, Queryable)]
pub struct OpenToken {
    pub digest: String,
    pub name: String,
    pub created_at: Micros,
    pub expires_at: Micros,
    /// It gives this machine a new key.
    pub for_machine: Option<MachineId>,
}

/// Tokens that can still be used, newest first.
pub fn open_tokens(conn: &mut AnyConnection, now: Micros) -> DbResult<Vec<OpenToken>> {
    use enrolment_tokens::{
        created_at, expires_at, for_machine, name, table, token_hash, used_at, withdrawn_at,
    };
    table
        .filter(
            used_at
                .is_null()
                .and(withdrawn_at.is_null())
                .and(expires_at.gt(now)),
        )
        .order(created_at.desc())
        .select((token_hash, name, created_at, expires_at, for_machine))
        .load(conn)
}

/// Withdraws a token. False: it was unknown, used or withdrawn before.
pub fn withdraw_token(conn: &mut AnyConnection, digest: &str, now: Micros) -> DbResult<bool> {
    use enrolment_tokens::{table, token_hash, used_at, withdrawn_at};
    let open = table.filter(
        token_hash
            .eq(digest)
            .and(used_at.is_null())
            .and(withdrawn_at.is_null()),
    );
    diesel::update(open)
        .set(withdrawn_at.eq(now))
        .execute(conn)
        .map(|rows| rows == 1)
}

/// Withdraws the unused tokens that would give this machine a new key.
pub(super) fn withdraw_key_tokens(
    conn: &mut AnyConnection,
    machine: MachineId,
    now: Micros,
) -> DbResult<()> {
    use enrolment_tokens::{for_machine, table, used_at, withdrawn_at};
    let open = table.filter(
        for_machine
            .eq(machine)
            .and(used_at.is_null())
            .and(withdrawn_at.is_null()),
    );
    diesel::update(open)
        .set(withdrawn_at.eq(now))
        .execute(conn)
        .map(drop)
}

#[derive(Insertable)]
#[diesel(table_name = machines)]
struct NewMachine<'a> {
    public_id: String,
    name: &'a str,
    state: MachineState,
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

/// Trades a token for a machine with a key of its own, or for a machine's new key.
pub fn enrol(
    conn: &mut AnyConnection,
    token: &str,
    hardware: &Hardware,
    now: Micros,
) -> Result<EnrolAnswer, EnrolError> {
    let hash = digest(token);
    let token = use_token(conn, &hash, now)?;
    let key = format!("agent_{}", secret());
    if let Some(id) = token.for_machine {
        return renew_key(conn, id, key, &hash);
    }
    let answer = EnrolAnswer {
        machine: public_id("mch"),
        key,
    };
    let new = NewMachine {
        public_id: answer.machine.clone(),
        name: &token.name,
        state: MachineState::Active,
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
    let id: MachineId = diesel::insert_into(machines::table)
        .values(new)
        .returning(machines::id)
        .get_result(conn)?;
    diesel::update(enrolment_tokens::table.find(&hash))
        .set(enrolment_tokens::machine_id.eq(id))
        .execute(conn)?;
    Ok(answer)
}

#[derive(Queryable)]
struct Token {
    name: String,
    expires_at: Micros,
    used_at: Option<Micros>,
    withdrawn_at: Option<Micros>,
    for_machine: Option<MachineId>,
}

/// Uses a token up, unless it is no longer good.
fn use_token(conn: &mut AnyConnection, hash: &str, now: Micros) -> Result<Token, EnrolError> {
    use enrolment_tokens::{expires_at, for_machine, name, table, used_at, withdrawn_at};
    let token: Option<Token> = table
        .find(hash)
        .select((name, expires_at, used_at, withdrawn_at, for_machine))
        .first(conn)
        .optional()?;
    let token = token.ok_or(EnrolError::UnknownToken)?;
    if token.withdrawn_at.is_some() {
        return Err(EnrolError::TokenWithdrawn);
    }
    if token.used_at.is_some() {
        return Err(EnrolError::TokenUsed);
    }
    if token.expires_at <= now {
        return Err(EnrolError::TokenExpired);
    }
    let won = diesel::update(table.find(hash).filter(used_at.is_null()))
        .set(used_at.eq(now))
        .execute(conn)?;
    if won == 0 {
        return Err(EnrolError::TokenUsed);
    }
    Ok(token)
}

/// Gives an enrolled machine a new key, which makes the old one worthless.
fn renew_key(
    conn: &mut AnyConnection,
    id: MachineId,
    key: String,
    token: &str,
) -> Result<EnrolAnswer, EnrolError> {
    let renewed = (
        machines::key_hash.eq(digest(&key)),
        machines::revoked_at.eq(None::<Micros>),
        machines::state.eq(MachineState::Active),
    );
    // The machine may have moved, so it names the address of its files anew.
    let moved = (
        machines::files_url.eq(None::<String>),
        machines::files_host.eq(None::<String>),
    );
    let machine: String = diesel::update(machines::table.find(id))
        .set((renewed, moved))
        .returning(machines::public_id)
        .get_result(conn)?;
    diesel::update(enrolment_tokens::table.find(token))
        .set(enrolment_tokens::machine_id.eq(id))
        .execute(conn)?;
    Ok(EnrolAnswer { machine, key })
}
