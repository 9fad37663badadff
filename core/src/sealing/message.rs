//! Messages to the chain. Each is stored in the transaction that needs it, pushed afterwards, and
//! watched until it lands.

use diesel::{deserialize::FromSqlRow, expression::AsExpression, prelude::*, sql_types::Text};

use crate::{
    clock::Micros,
    ids::{MessageId, PoolId, digest, secret},
    on_conn,
    store::{
        AnyConnection, DbResult,
        schema::{installation, messages},
    },
    stored_as_text,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
pub enum Purpose {
    PreCommit,
    ProveCommit,
    WindowPost,
    Recover,
}

stored_as_text!(Purpose {
    PreCommit => "pre_commit",
    ProveCommit => "prove_commit",
    WindowPost => "window_post",
    Recover => "recover",
});

#[derive(Clone, Copy, Debug, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
pub enum MessageState {
    Built,
    Pushed,
    Landed,
    Failed,
}

stored_as_text!(MessageState {
    Built => "built",
    Pushed => "pushed",
    Landed => "landed",
    Failed => "failed",
});

#[derive(Clone, Debug, Queryable)]
pub struct Message {
    pub id: MessageId,
    /// Makes a repeated push harmless.
    pub uuid: String,
    pub pool_id: PoolId,
    pub purpose: Purpose,
    /// A sector's or a window post's row id.
    pub subject_id: i64,
    pub method: i64,
    pub params: Vec<u8>,
    pub state: MessageState,
    pub cid: Option<String>,
    pub epoch: Option<i64>,
    pub exit_code: Option<i64>,
    pub gas_used: Option<i64>,
    pub last_error: Option<String>,
    pub created_at: Micros,
    pub changed_at: Micros,
    /// attoFIL burnt for its gas, once it has landed.
    pub burnt_atto: Option<String>,
    pub tip_atto: Option<String>,
    /// Number of this attempt at its purpose.
    pub attempt: i64,
    /// The sender's address, once a push was tried.
    pub sender: Option<String>,
    pub nonce: Option<i64>,
    /// attoFIL per gas unit that it offers, once it is signed.
    pub fee_cap_atto: Option<String>,
    pub premium_atto: Option<String>,
    /// When a push was first tried. From then on the node may have it, whatever the node answered.
    pub tried_at: Option<Micros>,
    /// When its effect was found on the chain, brought about by another message.
    pub adopted_at: Option<Micros>,
}

impl Message {
    /// It has not failed: it has landed, or may still land.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state != MessageState::Failed
    }
}

/// A message's outcome on chain. attoFIL, decimal.
#[derive(Clone, Debug)]
pub struct Landing {
    pub epoch: i64,
    pub exit_code: i64,
    pub gas_used: i64,
    pub burnt_atto: String,
    pub tip_atto: String,
}

/// A message's purpose and content, before it has an identity.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub pool: PoolId,
    pub purpose: Purpose,
    /// A sector's or a window post's row id.
    pub subject: i64,
    /// Tells a retry after a failure from the same request made twice.
    pub attempt: i64,
    pub method: u64,
    pub params: &'a [u8],
}

/// Stores a message to be pushed. Asking twice for the same attempt at the same purpose gives the
/// same message.
pub fn build(conn: &mut AnyConnection, request: &Request<'_>, now: Micros) -> DbResult<MessageId> {
    let Request {
        pool,
        purpose,
        subject,
        attempt,
        method,
        params,
    } = *request;
    let same = messages::purpose
        .eq(purpose)
        .and(messages::subject_id.eq(subject))
        .and(messages::attempt.eq(attempt));
    if let Some(id) = messages::table
        .filter(same)
        .select(messages::id)
        .first(conn)
        .optional()?
    {
        return Ok(id);
    }
    diesel::insert_into(messages::table)
        .values((
            messages::uuid.eq(identity(conn, request)?),
            messages::pool_id.eq(pool),
            messages::purpose.eq(purpose),
            messages::subject_id.eq(subject),
            messages::attempt.eq(attempt),
            messages::method.eq(i64::try_from(method).unwrap_or_default()),
            messages::params.eq(params),
            messages::state.eq(MessageState::Built),
            messages::created_at.eq(now),
            messages::changed_at.eq(now),
        ))
        .returning(messages::id)
        .get_result(conn)
}

/// A `MsgUuid` made from this database's random secret and everything that the message says. Row
/// ids alone repeat after a backup is restored, and the node would take the new message for the old
/// one.
fn identity(conn: &mut AnyConnection, request: &Request<'_>) -> DbResult<String> {
    let values = (installation::id.eq(1), installation::secret.eq(secret()));
    on_conn!(&mut *conn, |c| diesel::insert_into(installation::table)
        .values(values)
        .on_conflict_do_nothing()
        .execute(c))?;
    let secret: String = installation::table
        .select(installation::secret)
        .first(conn)?;
    let Request {
        pool,
        purpose,
        subject,
        attempt,
        method,
        params,
    } = *request;
    let params = hex::encode(params);
    Ok(uuid_of(&format!(
        "{secret}:{pool}:{}:{subject}:{attempt}:{method}:{params}",
        purpose.name()
    )))
}

/// The text's digest, formatted as a version 4 UUID.
fn uuid_of(text: &str) -> String {
    let digest = digest(&format!("message:{text}"));
    let part = |range: std::ops::Range<usize>| digest.get(range).unwrap_or_default().to_owned();
    format!(
        "{}-{}-4{}-a{}-{}",
        part(0..8),
        part(8..12),
        part(13..16),
        part(17..20),
        part(20..32)
    )
}

/// Gives the message a new identity, because the node has another message under the old one.
pub fn renew_identity(conn: &mut AnyConnection, id: MessageId, now: Micros) -> DbResult<()> {
    let built = messages::table.filter(
        messages::id
            .eq(id)
            .and(messages::state.eq(MessageState::Built)),
    );
    let renewed = (
        messages::uuid.eq(uuid_of(&secret())),
        messages::tried_at.eq(None::<Micros>),
        messages::changed_at.eq(now),
    );
    diesel::update(built).set(renewed).execute(conn).map(drop)
}

/// Records that a push is about to be tried. From here on the node may have the message.
pub fn tried(conn: &mut AnyConnection, id: MessageId, sender: &str, now: Micros) -> DbResult<()> {
    let first = messages::table.filter(messages::id.eq(id).and(messages::tried_at.is_null()));
    diesel::update(first)
        .set((messages::tried_at.eq(now), messages::sender.eq(sender)))
        .execute(conn)
        .map(drop)
}

/// Records that the message's effect is on the chain, whichever message brought it about. `failed`:
/// this message's own receipt, if it failed; its gas was paid all the same. False: this was
/// recorded before.
pub fn adopted(
    conn: &mut AnyConnection,
    id: MessageId,
    failed: Option<&Landing>,
    now: Micros,
) -> DbResult<bool> {
    if let Some(landing) = failed
        && !landed(conn, id, landing, now)?
    {
        return Ok(false);
    }
    let open = if failed.is_some() {
        vec![MessageState::Failed]
    } else {
        vec![MessageState::Built, MessageState::Pushed]
    };
    let row = messages::table.filter(messages::id.eq(id).and(messages::state.eq_any(open)));
    let values = (
        messages::state.eq(MessageState::Landed),
        messages::adopted_at.eq(now),
        messages::changed_at.eq(now),
    );
    diesel::update(row)
        .set(values)
        .execute(conn)
        .map(|rows| rows == 1)
}

/// Watches the message again after the chain has taken back what had landed.
pub fn reopen(conn: &mut AnyConnection, id: MessageId, now: Micros) -> DbResult<()> {
    let landed = messages::table.filter(
        messages::id
            .eq(id)
            .and(messages::state.eq(MessageState::Landed)),
    );
    let state = if_pushed(conn, id)?;
    diesel::update(landed)
        .set((
            messages::state.eq(state),
            messages::epoch.eq(None::<i64>),
            messages::exit_code.eq(None::<i64>),
            messages::adopted_at.eq(None::<Micros>),
            messages::changed_at.eq(now),
        ))
        .execute(conn)
        .map(drop)
}

/// `Pushed` if the message was sent and can be watched, `Built` if it is still to be sent.
fn if_pushed(conn: &mut AnyConnection, id: MessageId) -> DbResult<MessageState> {
    let cid: Option<String> = messages::table.find(id).select(messages::cid).first(conn)?;
    Ok(if cid.is_some() {
        MessageState::Pushed
    } else {
        MessageState::Built
    })
}

pub fn in_state(conn: &mut AnyConnection, state: MessageState) -> DbResult<Vec<Message>> {
    messages::table
        .filter(messages::state.eq(state))
        .order(messages::id.asc())
        .limit(500)
        .load(conn)
}

pub fn by_id(conn: &mut AnyConnection, id: MessageId) -> DbResult<Message> {
    messages::table.find(id).first(conn)
}

/// The newest message for a sector or a window post.
pub fn latest(
    conn: &mut AnyConnection,
    purpose: Purpose,
    subject: i64,
) -> DbResult<Option<Message>> {
    let of = messages::purpose
        .eq(purpose)
        .and(messages::subject_id.eq(subject));
    messages::table
        .filter(of)
        .order(messages::id.desc())
        .first(conn)
        .optional()
}

/// The message as the node signed and sent it.
#[derive(Clone, Debug)]
pub struct Signed {
    pub cid: String,
    pub nonce: i64,
    /// attoFIL per gas unit, decimal.
    pub fee_cap_atto: String,
    pub premium_atto: String,
}

/// Records that the node has the message, for the first time or with higher fees.
pub fn pushed(
    conn: &mut AnyConnection,
    id: MessageId,
    signed: &Signed,
    now: Micros,
) -> DbResult<()> {
    let open = [MessageState::Built, MessageState::Pushed];
    diesel::update(messages::table.filter(messages::id.eq(id).and(messages::state.eq_any(open))))
        .set((
            messages::state.eq(MessageState::Pushed),
            messages::cid.eq(&signed.cid),
            messages::nonce.eq(signed.nonce),
            messages::fee_cap_atto.eq(&signed.fee_cap_atto),
            messages::premium_atto.eq(&signed.premium_atto),
            messages::last_error.eq(None::<&str>),
            messages::changed_at.eq(now),
        ))
        .execute(conn)
        .map(drop)
}

/// Records that the node did not take the message. It is pushed again later.
pub fn refused(conn: &mut AnyConnection, id: MessageId, error: &str) -> DbResult<()> {
    diesel::update(messages::table.find(id))
        .set(messages::last_error.eq(error))
        .execute(conn)
        .map(drop)
}

/// Stops pushing the message and waiting for it. False: it had already landed or failed.
pub fn give_up(
    conn: &mut AnyConnection,
    id: MessageId,
    error: &str,
    now: Micros,
) -> DbResult<bool> {
    let open = [MessageState::Built, MessageState::Pushed];
    let open = messages::table.filter(messages::id.eq(id).and(messages::state.eq_any(open)));
    let failed = (
        messages::state.eq(MessageState::Failed),
        messages::last_error.eq(error),
        messages::changed_at.eq(now),
    );
    diesel::update(open)
        .set(failed)
        .execute(conn)
        .map(|rows| rows == 1)
}

/// Number of the next attempt for a sector or a window post. It counts messages rather than
/// failures, because releasing a sector resets its failures.
pub fn next_attempt(conn: &mut AnyConnection, purpose: Purpose, subject: i64) -> DbResult<i64> {
    let of = messages::purpose
        .eq(purpose)
        .and(messages::subject_id.eq(subject));
    let highest: Option<i64> = messages::table
        .filter(of)
        .select(diesel::dsl::max(messages::attempt))
        .first(conn)?;
    Ok(highest.map_or(0, |attempt| attempt.max(-1) + 1))
}

/// Records a receipt; false when it was recorded before.
pub fn landed(
    conn: &mut AnyConnection,
    id: MessageId,
    landing: &Landing,
    now: Micros,
) -> DbResult<bool> {
    let state = if landing.exit_code == 0 {
        MessageState::Landed
    } else {
        MessageState::Failed
    };
    let won = diesel::update(
        messages::table.filter(
            messages::id
                .eq(id)
                .and(messages::state.eq(MessageState::Pushed)),
        ),
    )
    .set((
        messages::state.eq(state),
        messages::epoch.eq(landing.epoch),
        messages::exit_code.eq(landing.exit_code),
        messages::gas_used.eq(landing.gas_used),
        messages::burnt_atto.eq(&landing.burnt_atto),
        messages::tip_atto.eq(&landing.tip_atto),
        messages::changed_at.eq(now),
    ))
    .execute(conn)?;
    Ok(won == 1)
}

/// attoFIL that a pool's messages landed in epochs `[first, end)` cost the sending wallets, burnt
/// and as tips.
pub fn gas_cost(conn: &mut AnyConnection, pool: PoolId, first: i64, end: i64) -> DbResult<i128> {
    let costs: Vec<(Option<String>, Option<String>)> = messages::table
        .filter(
            messages::pool_id
                .eq(pool)
                .and(messages::epoch.ge(first))
                .and(messages::epoch.lt(end)),
        )
        .select((messages::burnt_atto, messages::tip_atto))
        .load(conn)?;
    let atto = costs
        .into_iter()
        .flat_map(|(burnt, tip)| [burnt, tip])
        .flatten();
    Ok(atto.filter_map(|text| text.parse::<i128>().ok()).sum())
}
