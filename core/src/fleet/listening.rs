//! Whether the server can hear machines at all. When the site, its proxy or its line is down, it
//! hears none. A silent machine is then not lost, and keeps its tasks.

use diesel::prelude::*;

use crate::{
    clock::{HOUR, MINUTE, Micros},
    on_conn,
    store::{
        AnyConnection, DbResult,
        schema::{listening, machines},
    },
};

/// After this long without a sign of life from any machine, the server hears nobody. After this
/// long without a turn of the maintenance loop, nobody was watching.
const GAP: Micros = 2 * MINUTE;
/// A machine silent for this long counts as gone, even when no other machine is heard.
const TOO_LONG: Micros = HOUR;

/// Tells whether a machine's silence means anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listening {
    /// Machines have been heard since then without a gap.
    since: Micros,
    heard_at: Micros,
    /// The maintenance loop has run since then without a gap. Before that, the site was down or its
    /// clock was wrong.
    looking_since: Micros,
}

/// Records that a machine was heard.
pub(super) fn heard(conn: &mut AnyConnection, now: Micros) -> DbResult<()> {
    let again = listening::table.filter(listening::heard_at.lt(now - GAP));
    diesel::update(again)
        .set(listening::since.eq(now))
        .execute(conn)?;
    let row = listening::table.filter(listening::heard_at.lt(now));
    if diesel::update(row)
        .set(listening::heard_at.eq(now))
        .execute(conn)?
        == 0
    {
        begin(conn, now, now)?;
    }
    Ok(())
}

fn begin(conn: &mut AnyConnection, since: Micros, heard_at: Micros) -> DbResult<()> {
    let first = (
        listening::id.eq(1),
        listening::since.eq(since),
        listening::heard_at.eq(heard_at),
    );
    on_conn!(conn, |c| diesel::insert_into(listening::table)
        .values(first)
        .on_conflict_do_nothing()
        .execute(c))
    .map(drop)
}

/// Records a turn of the maintenance loop, which runs again before long. Resets times in the
/// future, which come from a clock that was ahead.
pub fn look(conn: &mut AnyConnection, now: Micros) -> DbResult<()> {
    begin(conn, 0, 0)?;
    let ahead = now + GAP;
    diesel::update(listening::table.filter(listening::heard_at.gt(ahead)))
        .set(listening::heard_at.eq(now))
        .execute(conn)?;
    diesel::update(listening::table.filter(listening::since.gt(ahead)))
        .set(listening::since.eq(now))
        .execute(conn)?;
    diesel::update(machines::table.filter(machines::seen_at.gt(ahead)))
        .set(machines::seen_at.eq(now))
        .execute(conn)?;
    let away = listening::looked_at
        .lt(now - GAP)
        .or(listening::looked_at.gt(now + GAP));
    diesel::update(listening::table.filter(away))
        .set(listening::looking_since.eq(now))
        .execute(conn)?;
    diesel::update(listening::table)
        .set(listening::looked_at.eq(now))
        .execute(conn)
        .map(drop)
}

/// `None`: no machine was ever heard, and the maintenance loop never ran.
pub fn listening(conn: &mut AnyConnection) -> DbResult<Option<Listening>> {
    let columns = (
        listening::since,
        listening::heard_at,
        listening::looking_since,
    );
    let row: Option<(Micros, Micros, Micros)> =
        listening::table.select(columns).first(conn).optional()?;
    Ok(row.map(|(since, heard_at, looking_since)| Listening {
        since,
        heard_at,
        looking_since,
    }))
}

impl Listening {
    /// Whether machines have been heard for long enough that each had time to report.
    #[must_use]
    const fn hears(&self, now: Micros) -> bool {
        self.heard_at > now - GAP && self.since <= now - GAP
    }

    /// Whether no machine is heard, but not yet for so long that all count as gone.
    #[must_use]
    pub fn is_deaf(&self, now: Micros) -> bool {
        !self.hears(now) && self.heard_at.max(self.looking_since) >= now - TOO_LONG
    }

    /// Whether a machine last heard at `seen_at` has been silent for `patience` while others could
    /// be heard, or so long that it counts as gone in any case.
    #[must_use]
    pub fn is_silent(&self, seen_at: Micros, patience: Micros, now: Micros) -> bool {
        let can_hear = self.heard_at > now - GAP;
        (can_hear && seen_at.max(self.since) < now - patience)
            || seen_at.max(self.looking_since) < now - patience.max(TOO_LONG)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_machine_is_given_time_while_nobody_is_heard() {
        let now = 1000 * HOUR;
        let patience = 10 * MINUTE;
        let line_is_up = Listening {
            since: 0,
            heard_at: now - MINUTE,
            looking_since: 0,
        };
        assert!(line_is_up.is_silent(now - 11 * MINUTE, patience, now));
        assert!(!line_is_up.is_silent(now - 9 * MINUTE, patience, now));
        let nobody = Listening {
            since: 0,
            heard_at: now - 11 * MINUTE,
            looking_since: 0,
        };
        assert!(
            !nobody.is_silent(now - 11 * MINUTE, patience, now),
            "all are silent: the line is down"
        );
        assert!(
            nobody.is_silent(now - 61 * MINUTE, patience, now),
            "but not for ever"
        );
        assert!(line_is_up.hears(now) && nobody.is_deaf(now));
        let again = Listening {
            since: now - MINUTE,
            heard_at: now,
            looking_since: 0,
        };
        assert!(again.is_deaf(now));
        assert!(
            !again.is_silent(now - 30 * MINUTE, patience, now),
            "others are heard again only just now"
        );
    }

    #[test]
    fn machines_are_not_lost_when_the_server_was_down_overnight() {
        let (now, patience) = (1000 * HOUR, 10 * MINUTE);
        let back = Listening {
            since: 0,
            heard_at: now - 9 * HOUR,
            looking_since: now,
        };
        assert!(back.is_deaf(now) && !back.is_silent(now - 9 * HOUR, patience, now));
        let later = now + 61 * MINUTE;
        assert!(
            !back.is_deaf(later) && back.is_silent(now - 9 * HOUR, patience, later),
            "who is silent still is gone"
        );
    }
}
