//! Whether machines can be heard at all. When the site, its proxy or the line to it is down, nobody is; then a silent machine is no
//! lost one, and what it runs is not taken from it.

use diesel::prelude::*;

use crate::{
    clock::{HOUR, MINUTE, Micros},
    on_conn,
    store::{AnyConnection, DbResult, schema::listening},
};

/// So long without a sign of life of any machine, and nobody is heard.
const GAP: Micros = 2 * MINUTE;
/// Whose silence lasts so long is believed to be gone even when nobody else is heard.
pub const TOO_LONG: Micros = HOUR;

/// What silence can mean now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listening {
    since: Micros,
    heard_at: Micros,
}

/// A machine has been heard.
pub(super) fn heard(conn: &mut AnyConnection, now: Micros) -> DbResult<()> {
    let again = listening::table.filter(listening::heard_at.lt(now - GAP));
    diesel::update(again).set(listening::since.eq(now)).execute(conn)?;
    let row = listening::table.filter(listening::heard_at.lt(now));
    if diesel::update(row).set(listening::heard_at.eq(now)).execute(conn)? == 0 {
        let first = (listening::id.eq(1), listening::since.eq(now), listening::heard_at.eq(now));
        on_conn!(&mut *conn, |c| diesel::insert_into(listening::table).values(first).on_conflict_do_nothing().execute(c))?;
    }
    Ok(())
}

/// `None`: no machine has ever been heard.
pub fn listening(conn: &mut AnyConnection) -> DbResult<Option<Listening>> {
    let row: Option<(Micros, Micros)> =
        listening::table.select((listening::since, listening::heard_at)).first(conn).optional()?;
    Ok(row.map(|(since, heard_at)| Listening { since, heard_at }))
}

impl Listening {
    /// Whether machines have been heard long enough for each of them to have spoken.
    #[must_use]
    pub const fn hears(&self, now: Micros) -> bool {
        self.heard_at > now - GAP && self.since <= now - GAP
    }

    /// Whether whoever was heard last at `seen_at` has been silent for `patience` while others could be heard.
    #[must_use]
    pub fn is_silent(&self, seen_at: Micros, patience: Micros, now: Micros) -> bool {
        let can_hear = self.heard_at > now - GAP;
        (can_hear && seen_at.max(self.since) < now - patience) || seen_at < now - patience.max(TOO_LONG)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_silent_while_nobody_is_heard_is_given_time() {
        let now = 1000 * HOUR;
        let patience = 10 * MINUTE;
        let line_is_up = Listening { since: 0, heard_at: now - MINUTE };
        assert!(line_is_up.is_silent(now - 11 * MINUTE, patience, now));
        assert!(!line_is_up.is_silent(now - 9 * MINUTE, patience, now));
        let nobody = Listening { since: 0, heard_at: now - 11 * MINUTE };
        assert!(!nobody.is_silent(now - 11 * MINUTE, patience, now), "all are silent: the line is down");
        assert!(nobody.is_silent(now - 61 * MINUTE, patience, now), "but not for ever");
        assert!(line_is_up.hears(now) && !nobody.hears(now));
        let again = Listening { since: now - MINUTE, heard_at: now };
        assert!(!again.hears(now));
        assert!(!again.is_silent(now - 30 * MINUTE, patience, now), "others are heard again only just now");
    }
}
