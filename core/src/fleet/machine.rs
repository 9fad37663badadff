//! Machine rows.

use std::collections::HashSet;

use diesel::{deserialize::FromSqlRow, expression::AsExpression, prelude::*, sql_types::Text};

use super::{
    check::host_of,
    listening::{heard, listening},
    protocol::Hardware,
};
use crate::{
    clock::Micros,
    ids::{MachineId, digest, secret},
    sealing::SectorState,
    store::{
        AnyConnection, DbResult,
        schema::{machines, outages, sectors},
    },
    stored_as_text,
};

/// The state that the operator chose for a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
pub enum MachineState {
    Active,
    /// It takes no new sectors.
    Draining,
}

stored_as_text!(MachineState {
    Active => "active",
    Draining => "draining",
});

#[derive(Clone, Debug, Queryable)]
pub struct Machine {
    pub id: MachineId,
    pub public_id: String,
    pub name: String,
    pub state: MachineState,
    pub key_hash: String,
    pub cores: i64,
    pub memory_bytes: i64,
    pub disk_bytes: i64,
    pub disk_free_bytes: i64,
    pub gpus: i64,
    pub detail: String,
    pub enrolled_at: Micros,
    pub seen_at: Micros,
    /// Since when it counts as lost: silent for too long, or its key was withdrawn.
    pub lost_since: Option<Micros>,
    /// The URL where other machines can read its sectors' files.
    pub files_url: Option<String>,
    /// 1: it stores sealed sectors and does no sealing.
    pub keeps: i64,
    /// When its key was withdrawn. Since then it gets no work and its reports are refused.
    pub revoked_at: Option<Micros>,
    /// When it was taken off the list.
    pub removed_at: Option<Micros>,
    /// The host that its files are fetched from: the first one that it named.
    pub files_host: Option<String>,
}

impl Machine {
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        self.lost_since.is_some()
    }

    #[must_use]
    pub const fn is_for_storage(&self) -> bool {
        self.keeps != 0
    }

    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.state == MachineState::Draining
    }
}

pub fn machines(conn: &mut AnyConnection) -> DbResult<Vec<Machine>> {
    machines::table
        .filter(machines::removed_at.is_null())
        .order(machines::id.asc())
        .load(conn)
}

/// Machines that are lost now.
pub fn lost_machines(conn: &mut AnyConnection) -> DbResult<HashSet<MachineId>> {
    let lost = machines::table
        .filter(machines::lost_since.is_not_null())
        .select(machines::id);
    Ok(lost.load(conn)?.into_iter().collect())
}

pub fn by_public_id(conn: &mut AnyConnection, id: &str) -> DbResult<Option<Machine>> {
    machines::table
        .filter(machines::public_id.eq(id))
        .first(conn)
        .optional()
}

/// The machine's name, for people.
pub fn machine_name(conn: &mut AnyConnection, id: MachineId) -> DbResult<String> {
    machines::table.find(id).select(machines::name).first(conn)
}

/// The machine with this key, unless the key was withdrawn.
pub fn by_key(conn: &mut AnyConnection, key: &str) -> DbResult<Option<Machine>> {
    let its = machines::key_hash.eq(digest(key));
    machines::table
        .filter(its.and(machines::revoked_at.is_null()))
        .first(conn)
        .optional()
}

/// Records that the machine is alive, and its present hardware. Draining outlasts an outage.
pub fn heartbeat(
    conn: &mut AnyConnection,
    machine: &Machine,
    hardware: &Hardware,
    now: Micros,
) -> DbResult<()> {
    heard(conn, now)?;
    if machine.is_lost() {
        let open = outages::table.filter(
            outages::machine_id
                .eq(machine.id.0)
                .and(outages::back_at.is_null()),
        );
        diesel::update(open)
            .set(outages::back_at.eq(now))
            .execute(conn)?;
    }
    diesel::update(machines::table.find(machine.id))
        .set((
            machines::lost_since.eq(None::<Micros>),
            machines::cores.eq(hardware.cores),
            machines::memory_bytes.eq(hardware.memory_bytes),
            machines::disk_bytes.eq(hardware.disk_bytes),
            machines::disk_free_bytes.eq(hardware.disk_free_bytes),
            machines::gpus.eq(i64::try_from(hardware.gpus.len()).unwrap_or(i64::MAX)),
            machines::detail.eq(&hardware.description),
            machines::seen_at.eq(now),
        ))
        .execute(conn)
        .map(drop)
}

/// A machine's part in file transfers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offer<'o> {
    /// The URL where other machines can read its files; `None`: they cannot.
    pub files_url: Option<&'o str>,
    /// It stores sealed sectors and does no sealing.
    pub keeps: bool,
}

/// Records the machine's present offer. Others fetch its files only from the host that it named
/// first: a machine that could name any host could make others send requests to whatever they can
/// reach. False: it named another host.
pub fn offer(conn: &mut AnyConnection, machine: &Machine, offer: Offer<'_>) -> DbResult<bool> {
    let host = offer.files_url.and_then(host_of);
    let known = machine.files_host.as_deref();
    let moved = host.is_some() && known.is_some() && known != host;
    let url = offer.files_url.filter(|_| host.is_some() && !moved);
    if (url, offer.keeps) == (machine.files_url.as_deref(), machine.is_for_storage()) {
        return Ok(!moved);
    }
    diesel::update(machines::table.find(machine.id))
        .set((
            machines::files_url.eq(url),
            machines::files_host.eq(known.or(host)),
            machines::keeps.eq(i64::from(offer.keeps)),
        ))
        .execute(conn)?;
    Ok(!moved)
}

/// Withdraws a machine's key. The machine gets no more work, its reports are refused, and it counts
/// as lost. False: the key was withdrawn before.
pub fn revoke(conn: &mut AnyConnection, id: MachineId, now: Micros) -> DbResult<bool> {
    let valid = machines::table.filter(machines::id.eq(id).and(machines::revoked_at.is_null()));
    let values = (
        machines::revoked_at.eq(now),
        machines::key_hash.eq(digest(&secret())),
        machines::state.eq(MachineState::Draining),
    );
    if diesel::update(valid).set(values).execute(conn)? == 0 {
        return Ok(false);
    }
    super::enrol::withdraw_key_tokens(conn, id, now)?;
    let working = machines::table.filter(machines::id.eq(id).and(machines::lost_since.is_null()));
    if diesel::update(working)
        .set(machines::lost_since.eq(now))
        .execute(conn)?
        == 1
    {
        diesel::insert_into(outages::table)
            .values((outages::machine_id.eq(id.0), outages::lost_at.eq(now)))
            .execute(conn)?;
    }
    Ok(true)
}

/// Removes a machine from the list if its key was withdrawn and no sector's files are on it. False:
/// it has files, its key is still good, or it was removed before.
pub fn remove(conn: &mut AnyConnection, id: MachineId, now: Micros) -> DbResult<bool> {
    let there = sectors::table.filter(
        sectors::machine_id
            .eq(id)
            .and(sectors::state.ne(SectorState::Expired)),
    );
    if there.count().get_result::<i64>(conn)? > 0 {
        return Ok(false);
    }
    let revoked = machines::id
        .eq(id)
        .and(machines::revoked_at.is_not_null())
        .and(machines::removed_at.is_null());
    diesel::update(machines::table.filter(revoked))
        .set(machines::removed_at.eq(now))
        .execute(conn)
        .map(|rows| rows == 1)
}

/// Machines heard within `patience` whose key is still good.
pub fn heard_lately(
    conn: &mut AnyConnection,
    patience: Micros,
    now: Micros,
) -> DbResult<HashSet<MachineId>> {
    let heard = machines::seen_at
        .ge(now.saturating_sub(patience))
        .and(machines::revoked_at.is_null());
    Ok(machines::table
        .filter(heard)
        .select(machines::id)
        .load(conn)?
        .into_iter()
        .collect())
}

/// Marks machines silent for `patience` as lost since they were last heard, and returns them.
pub fn mark_lost(
    conn: &mut AnyConnection,
    patience: Micros,
    now: Micros,
) -> DbResult<Vec<MachineId>> {
    let mut silent: Vec<(MachineId, Micros)> = machines::table
        .filter(
            machines::lost_since
                .is_null()
                .and(machines::seen_at.lt(now - patience)),
        )
        .select((machines::id, machines::seen_at))
        .load(conn)?;
    if let Some(listening) = listening(conn)? {
        silent.retain(|(_, seen_at)| listening.is_silent(*seen_at, patience, now));
    }
    for (id, lost_at) in &silent {
        diesel::update(machines::table.find(id))
            .set(machines::lost_since.eq(lost_at))
            .execute(conn)?;
        diesel::insert_into(outages::table)
            .values((outages::machine_id.eq(id.0), outages::lost_at.eq(lost_at)))
            .execute(conn)?;
    }
    Ok(silent.into_iter().map(|(id, _)| id).collect())
}

/// Statistics of the fleet's breakdowns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Breakdowns {
    /// Machine-time observed, less outages.
    pub watched: Micros,
    pub failures: i64,
    /// Failures that are over, and their total duration.
    pub repaired: i64,
    pub repair: Micros,
}

/// Breakdowns since `since`.
pub fn breakdowns(conn: &mut AnyConnection, since: Micros, now: Micros) -> DbResult<Breakdowns> {
    let enrolled: Vec<Micros> = machines::table.select(machines::enrolled_at).load(conn)?;
    let lost: Vec<(Micros, Option<Micros>)> = outages::table
        .filter(outages::lost_at.ge(since))
        .select((outages::lost_at, outages::back_at))
        .load(conn)?;
    let span = |from: Micros, to: Micros| to.saturating_sub(from).max(0);
    let watched = enrolled
        .iter()
        .fold(0, |sum, at| sum + span((*at).max(since), now));
    let mut found = Breakdowns {
        watched,
        ..Breakdowns::default()
    };
    for (lost_at, back_at) in lost {
        found.failures += 1;
        found.watched = span(span(lost_at, back_at.unwrap_or(now)), found.watched);
        if let Some(back_at) = back_at {
            found.repaired += 1;
            found.repair += span(lost_at, back_at);
        }
    }
    Ok(found)
}

/// Starts or stops draining. A draining machine finishes the sectors that it has and takes no new
/// ones.
pub fn set_draining(conn: &mut AnyConnection, id: MachineId, draining: Draining) -> DbResult<()> {
    let state = match draining {
        Draining::Start => MachineState::Draining,
        Draining::Stop => MachineState::Active,
    };
    diesel::update(machines::table.find(id))
        .set(machines::state.eq(state))
        .execute(conn)
        .map(drop)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draining {
    Start,
    Stop,
}
