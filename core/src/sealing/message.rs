//! Messages to the chain: built and stored in the transaction that needs them, pushed afterwards, watched until they land.

use diesel::prelude::*;

use super::Sector;
use crate::{
    clock::Micros,
    ids::{MessageId, PoolId},
    store::{AnyConnection, DbResult, schema::messages},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    PreCommit,
    ProveCommit,
    WindowPost,
    Recover,
}

impl Purpose {
    const ALL: [Self; 4] = [Self::PreCommit, Self::ProveCommit, Self::WindowPost, Self::Recover];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PreCommit => "pre_commit",
            Self::ProveCommit => "prove_commit",
            Self::WindowPost => "window_post",
            Self::Recover => "recover",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageState {
    Built,
    Pushed,
    Landed,
    Failed,
}

impl MessageState {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Built => "built",
            Self::Pushed => "pushed",
            Self::Landed => "landed",
            Self::Failed => "failed",
        }
    }
}

#[derive(Clone, Debug, Queryable)]
pub struct Message {
    pub id: MessageId,
    /// Makes a repeated push harmless.
    pub uuid: String,
    pub pool_id: PoolId,
    pub purpose: String,
    /// A sector's or a window post's row id.
    pub subject_id: i64,
    pub method: i64,
    pub params: Vec<u8>,
    pub state: String,
    pub cid: Option<String>,
    pub epoch: Option<i64>,
    pub exit_code: Option<i64>,
    pub gas_used: Option<i64>,
    pub last_error: Option<String>,
    pub created_at: Micros,
    pub changed_at: Micros,
    /// attoFIL that its gas cost the sender, once it has landed.
    pub burnt_atto: Option<String>,
    pub tip_atto: Option<String>,
}

impl Message {
    #[must_use]
    pub fn purpose(&self) -> Option<Purpose> {
        Purpose::ALL.into_iter().find(|purpose| purpose.name() == self.purpose)
    }
}

/// What became of a message on chain. attoFIL, decimal.
#[derive(Clone, Debug)]
pub struct Landing {
    pub epoch: i64,
    pub exit_code: i64,
    pub gas_used: i64,
    pub burnt_atto: String,
    pub tip_atto: String,
}

/// Stores a message to be pushed. `attempt` tells a repetition after a failure apart from the same request twice.
pub fn build(
    conn: &mut AnyConnection,
    pool: PoolId,
    purpose: Purpose,
    subject: i64,
    attempt: i64,
    (method, params): (u64, &[u8]),
    now: Micros,
) -> DbResult<MessageId> {
    let key = format!("{}:{}:{subject}:{attempt}", pool, purpose.name());
    // A v4-shaped UUID of the key: the same request gives the same message, whatever crashes between.
    let digest = crate::ids::digest(&format!("message:{key}"));
    let part = |range: std::ops::Range<usize>| digest.get(range).unwrap_or_default().to_owned();
    let uuid = format!("{}-{}-4{}-a{}-{}", part(0..8), part(8..12), part(13..16), part(17..20), part(20..32));
    if let Some(id) = messages::table.filter(messages::uuid.eq(&uuid)).select(messages::id).first(conn).optional()? {
        return Ok(id);
    }
    diesel::insert_into(messages::table)
        .values((
            messages::uuid.eq(uuid),
            messages::pool_id.eq(pool),
            messages::purpose.eq(purpose.name()),
            messages::subject_id.eq(subject),
            messages::method.eq(i64::try_from(method).unwrap_or_default()),
            messages::params.eq(params),
            messages::state.eq(MessageState::Built.name()),
            messages::created_at.eq(now),
            messages::changed_at.eq(now),
        ))
        .returning(messages::id)
        .get_result(conn)
}

pub fn in_state(conn: &mut AnyConnection, state: MessageState) -> DbResult<Vec<Message>> {
    messages::table.filter(messages::state.eq(state.name())).order(messages::id.asc()).limit(500).load(conn)
}

/// Messages that were pushed before `before` and have no receipt yet: perhaps their gas is too little.
pub fn without_receipt(conn: &mut AnyConnection, before: Micros) -> DbResult<Vec<Message>> {
    let waiting = messages::state.eq(MessageState::Pushed.name()).and(messages::changed_at.lt(before));
    messages::table.filter(waiting).order(messages::id.asc()).limit(50).load(conn)
}

/// The newest message of a sector's PreCommit.
pub fn pre_commit_message(conn: &mut AnyConnection, sector: &Sector) -> DbResult<Option<Message>> {
    messages::table
        .filter(messages::purpose.eq(Purpose::PreCommit.name()).and(messages::subject_id.eq(sector.id.0)))
        .order(messages::id.desc())
        .first(conn)
        .optional()
}

pub fn pushed(conn: &mut AnyConnection, id: MessageId, cid: &str, now: Micros) -> DbResult<()> {
    diesel::update(messages::table.find(id))
        .set((messages::state.eq(MessageState::Pushed.name()), messages::cid.eq(cid), messages::changed_at.eq(now)))
        .execute(conn)
        .map(drop)
}

/// The node did not take it. It stays to be pushed.
pub fn refused(conn: &mut AnyConnection, id: MessageId, error: &str) -> DbResult<()> {
    diesel::update(messages::table.find(id)).set(messages::last_error.eq(error)).execute(conn).map(drop)
}

/// It will not be pushed any more; false when it was no longer to be.
pub fn give_up(conn: &mut AnyConnection, id: MessageId, error: &str, now: Micros) -> DbResult<bool> {
    let built = messages::table.filter(messages::id.eq(id).and(messages::state.eq(MessageState::Built.name())));
    let failed = (messages::state.eq(MessageState::Failed.name()), messages::last_error.eq(error), messages::changed_at.eq(now));
    diesel::update(built).set(failed).execute(conn).map(|rows| rows == 1)
}

/// Messages that there have been for a sector or a window post: the number of its next attempt.
pub fn attempts(conn: &mut AnyConnection, purpose: Purpose, subject: i64) -> DbResult<i64> {
    let of = messages::purpose.eq(purpose.name()).and(messages::subject_id.eq(subject));
    messages::table.filter(of).count().get_result(conn)
}

/// Records a receipt; false when it was recorded before.
pub fn landed(conn: &mut AnyConnection, id: MessageId, landing: &Landing, now: Micros) -> DbResult<bool> {
    let state = if landing.exit_code == 0 { MessageState::Landed } else { MessageState::Failed };
    let won = diesel::update(messages::table.filter(messages::id.eq(id).and(messages::state.eq(MessageState::Pushed.name()))))
        .set((
            messages::state.eq(state.name()),
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

/// attoFIL, burnt and as tips, that messages of a pool which landed in `[first, end)` cost the wallet that sent them.
pub fn gas_cost(conn: &mut AnyConnection, pool: PoolId, first: i64, end: i64) -> DbResult<i128> {
    let costs: Vec<(Option<String>, Option<String>)> = messages::table
        .filter(messages::pool_id.eq(pool).and(messages::epoch.ge(first)).and(messages::epoch.lt(end)))
        .select((messages::burnt_atto, messages::tip_atto))
        .load(conn)?;
    let atto = costs.into_iter().flat_map(|(burnt, tip)| [burnt, tip]).flatten();
    Ok(atto.filter_map(|text| text.parse::<i128>().ok()).sum())
}
