//! The job queue. Jobs are rows in the same database, so a job exists exactly when the change that
//! needs it was committed.

use diesel::{deserialize::FromSqlRow, expression::AsExpression, prelude::*, sql_types::Text};

use crate::{
    clock::{HOUR, MINUTE, Micros, SECOND},
    ids::JobId,
    on_conn,
    store::{AnyConnection, DbResult, schema::jobs},
    stored_as_text,
};

/// A job that failed this often, over half an hour, is shown to a person. It is retried until it
/// works or is given up: a mail server may be down for days, and a statement that was never sent
/// breaks a promise.
const SHOWN_FROM: i64 = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
pub enum JobState {
    /// It waits until it is due.
    Ready,
    /// A worker has taken it.
    Running,
    Done,
    /// It is not tried again; a person is told.
    Failed,
}

stored_as_text!(JobState {
    Ready => "ready",
    Running => "running",
    Done => "done",
    Failed => "failed",
});

#[derive(Clone, Debug, Queryable)]
pub struct Job {
    pub id: JobId,
    pub kind: String,
    pub unique_key: String,
    /// JSON.
    pub payload: String,
    pub state: JobState,
    pub attempts: i64,
    pub run_after: Micros,
    pub locked_until: Option<Micros>,
    pub last_error: Option<String>,
    pub created_at: Micros,
}

/// Puts a job in the queue. Does nothing if the kind already has a job with this key.
pub fn enqueue(
    conn: &mut AnyConnection,
    kind: &str,
    key: &str,
    payload: &str,
    now: Micros,
) -> DbResult<()> {
    let values = (
        jobs::kind.eq(kind),
        jobs::unique_key.eq(format!("{kind}:{key}")),
        jobs::payload.eq(payload),
        jobs::state.eq(JobState::Ready),
        jobs::attempts.eq(0),
        jobs::run_after.eq(now),
        jobs::created_at.eq(now),
    );
    on_conn!(&mut *conn, |c| diesel::insert_into(jobs::table)
        .values(values)
        .on_conflict_do_nothing()
        .execute(c))
    .map(drop)
}

/// Takes the oldest due job for `lock` microseconds. A worker that died holds it no longer than
/// that.
pub fn take(conn: &mut AnyConnection, lock: Micros, now: Micros) -> DbResult<Option<Job>> {
    let due = jobs::state.eq(JobState::Ready).and(jobs::run_after.le(now));
    let abandoned = jobs::state
        .eq(JobState::Running)
        .and(jobs::locked_until.lt(now));
    let candidates: Vec<Job> = jobs::table
        .filter(due.or(abandoned))
        .order((jobs::run_after.asc(), jobs::id.asc()))
        .limit(8)
        .load(conn)?;
    for job in candidates {
        let same = jobs::table.filter(
            jobs::id
                .eq(job.id)
                .and(jobs::attempts.eq(job.attempts))
                .and(jobs::state.eq(&job.state)),
        );
        let taken = diesel::update(same)
            .set((
                jobs::state.eq(JobState::Running),
                jobs::attempts.eq(jobs::attempts + 1),
                jobs::locked_until.eq(now.saturating_add(lock)),
            ))
            .execute(conn)?;
        if taken == 1 {
            return Ok(Some(Job {
                attempts: job.attempts + 1,
                ..job
            }));
        }
    }
    Ok(None)
}

pub fn complete(conn: &mut AnyConnection, job: &Job) -> DbResult<()> {
    diesel::update(jobs::table.find(job.id))
        .set((
            jobs::state.eq(JobState::Done),
            jobs::locked_until.eq(None::<Micros>),
        ))
        .execute(conn)
        .map(drop)
}

/// Unfinished jobs that have failed often, and jobs that were given up, oldest first.
pub fn struggling(conn: &mut AnyConnection) -> DbResult<Vec<Job>> {
    let often = jobs::state
        .ne(JobState::Done)
        .and(jobs::attempts.ge(SHOWN_FROM))
        .and(jobs::last_error.is_not_null());
    jobs::table
        .filter(often.or(jobs::state.eq(JobState::Failed)))
        .order(jobs::id.asc())
        .limit(100)
        .load(conn)
}

/// Gives up a job that can never work. It is not tried again, and a person is told.
pub fn give_up(conn: &mut AnyConnection, job: &Job, error: &str) -> DbResult<()> {
    let failed = (
        jobs::state.eq(JobState::Failed),
        jobs::last_error.eq(error),
        jobs::locked_until.eq(None::<Micros>),
    );
    diesel::update(jobs::table.find(job.id))
        .set(failed)
        .execute(conn)
        .map(drop)
}

/// Notes the error and tries again after `delay`.
pub fn fail(
    conn: &mut AnyConnection,
    job: &Job,
    error: &str,
    delay: Micros,
    now: Micros,
) -> DbResult<()> {
    diesel::update(jobs::table.find(job.id))
        .set((
            jobs::state.eq(JobState::Ready),
            jobs::last_error.eq(error),
            jobs::run_after.eq(now.saturating_add(delay)),
            jobs::locked_until.eq(None::<Micros>),
        ))
        .execute(conn)
        .map(drop)
}

/// Doubles from one second to a quarter of an hour.
#[must_use]
pub fn retry_delay(attempts: i64) -> Micros {
    doubled(SECOND, attempts, 15 * MINUTE)
}

/// Doubles from half a minute to six hours. A mail server may be down for days, and it counts every
/// try.
#[must_use]
pub fn mail_delay(attempts: i64) -> Micros {
    doubled(30 * SECOND, attempts, 6 * HOUR)
}

fn doubled(first: Micros, attempts: i64, most: Micros) -> Micros {
    let doublings = u32::try_from(attempts.clamp(1, 20) - 1).unwrap_or_default();
    first.saturating_mul(1 << doublings).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_delays_grow_to_a_limit() {
        assert_eq!(retry_delay(1), SECOND);
        assert_eq!(retry_delay(4), 8 * SECOND);
        assert_eq!(retry_delay(100), 15 * MINUTE);
        assert_eq!(retry_delay(-3), SECOND);
        let tries_in_five_days = (1..)
            .scan(0, |sum, n| {
                *sum += mail_delay(n);
                Some(*sum)
            })
            .take_while(|at| *at < 5 * 24 * HOUR);
        assert!((15..35).contains(&tries_in_five_days.count()));
    }
}
