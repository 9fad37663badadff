//! Runs jobs from the outbox: statements, their mails, and questions to a payment rail.

use anyhow::Context;
use sealyard_core::{
    clock::{DAY, MINUTE, Micros, Month},
    ids::{OrderId, UserId},
    jobs::{self, Job},
    orders::{self, PaymentState},
    payments::{self, Incoming},
    statements::{self, Statement},
};
use serde::Deserialize;

use super::TurnResult;
use crate::{
    app::{Shared, read, transact, write},
    mail::MailError,
    rails,
    rails::stripe,
    render,
};

/// Jobs of one turn. The loop's claim is renewed between turns.
const JOBS_PER_TURN: usize = 20;

pub async fn turn(app: Shared) -> TurnResult {
    for _ in 0..JOBS_PER_TURN {
        let now = app.now();
        let Some(job) = write(&app, move |conn| jobs::take(conn, 5 * MINUTE, now)).await? else {
            return Ok(());
        };
        let ended = run(&app, &job).await;
        let now = app.now();
        write(&app, move |conn| {
            match &ended {
                Ended::Done => jobs::complete(conn, &job)?,
                Ended::Never(reason) => {
                    tracing::error!(kind = job.kind, reason, "job given up");
                    jobs::give_up(conn, &job, reason)?;
                }
                Ended::Later(reason, delay) => {
                    tracing::warn!(
                        kind = job.kind,
                        attempts = job.attempts,
                        reason,
                        "job failed"
                    );
                    jobs::fail(conn, &job, reason, *delay, now)?;
                }
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Outcome of a job.
enum Ended {
    Done,
    Later(String, Micros),
    Never(String),
}

#[derive(Deserialize)]
struct StatementJob {
    user: i64,
    month: String,
}

#[derive(Deserialize)]
struct MailJob {
    statement: String,
}

#[derive(Deserialize)]
struct ExpiryJob {
    order: i64,
}

#[derive(Deserialize)]
struct EventsJob {
    /// Unix seconds.
    from: i64,
    to: i64,
}

async fn run(app: &Shared, job: &Job) -> Ended {
    let done = match job.kind.as_str() {
        "statement_mail" => return mail(app, job).await,
        "statement" => statement(app, job).await,
        "order_expiry" => order_expiry(app, job).await,
        "payment_events" => payment_events(app, job).await,
        other => Err(anyhow::anyhow!(
            "there is no job kind {other}; a newer release must have queued it"
        )),
    };
    match done {
        Ok(()) => Ended::Done,
        Err(error) => Ended::Later(format!("{error:#}"), jobs::retry_delay(job.attempts)),
    }
}

async fn statement(app: &Shared, job: &Job) -> anyhow::Result<()> {
    let StatementJob { user, month } = serde_json::from_str(&job.payload)?;
    let month: Month = month.parse().map_err(anyhow::Error::msg)?;
    let now = app.now();
    Ok(transact(app, move |conn| {
        statements::produce(conn, UserId(user), month, now)
    })
    .await?)
}

/// After this time an unsent mail is given up. The statement can be read on the site.
const MAIL_PATIENCE: Micros = 5 * DAY;

async fn mail(app: &Shared, job: &Job) -> Ended {
    let later = |error: &dyn std::fmt::Display| {
        Ended::Later(error.to_string(), jobs::mail_delay(job.attempts))
    };
    let (statement, sent) = match mail_statement(app, job).await {
        Ok(tried) => tried,
        Err(error) => return later(&format!("{error:#}")),
    };
    let refusal = match sent {
        Ok(()) => None,
        Err(MailError::Refused(why)) => Some(why),
        Err(MailError::Later(why)) if app.now() - job.created_at > MAIL_PATIENCE => {
            Some(format!("not delivered within five days: {why:#}"))
        }
        Err(error) => return later(&error),
    };
    let (now, kept) = (app.now(), refusal.clone());
    let noted = write(app, move |conn| {
        match &kept {
            None => statements::mark_sent(conn, &statement, now)?,
            Some(why) => statements::mark_refused(conn, &statement, why, now)?,
        }
        Ok(())
    })
    .await;
    match (noted, refusal) {
        (Err(fault), _) => later(&fault),
        (Ok(()), None) => Ended::Done,
        (Ok(()), Some(why)) => Ended::Never(why),
    }
}

async fn mail_statement(
    app: &Shared,
    job: &Job,
) -> anyhow::Result<(Statement, Result<(), MailError>)> {
    let MailJob { statement } = serde_json::from_str(&job.payload)?;
    let statement = read(app, move |conn| statements::by_public_id(conn, &statement))
        .await?
        .context("the statement is gone")?;
    if statement.sent_at.is_some() {
        return Ok((statement, Ok(())));
    }
    let mail = render::statement_mail(&app.config, &statement)?;
    let sent = crate::mail::send(&app.config, mail).await;
    Ok((statement, sent))
}

/// Ends an order whose time to pay has run out. A webhook may have been lost, so the provider is
/// asked before the capacity is released. Nobody can pay afterwards.
async fn order_expiry(app: &Shared, job: &Job) -> anyhow::Result<()> {
    let ExpiryJob { order } = serde_json::from_str(&job.payload)?;
    let (order, now) = (OrderId(order), app.now());
    let page = read(app, move |conn| orders::latest_payment(conn, order))
        .await?
        .filter(|page| page.state == PaymentState::Open);
    if let (Some(rail), Some(page)) = (&app.stripe, page) {
        let mut session = rail.session(&page.rail_ref).await?;
        if session.status == "open" {
            // The provider refuses this if somebody pays at this moment. The job then runs again.
            session = rail.expire(&page.rail_ref).await?;
        }
        if session.status == "complete" {
            let happening = session.object.completed();
            let id = format!("asked:{}:{}", page.rail_ref, session.object.payment_status);
            transact(app, move |conn| {
                let incoming = Incoming {
                    id: &id,
                    rail: stripe::RAIL,
                    kind: "session asked for",
                    raw: "",
                };
                payments::receive(conn, &incoming, &happening, now)
            })
            .await?;
            return Ok(());
        }
    }
    if transact(app, move |conn| orders::expire(conn, order, now)).await? {
        tracing::info!(%order, "order expired unpaid");
    }
    Ok(())
}

/// Receives all events of a day once more, in case a webhook never came.
async fn payment_events(app: &Shared, job: &Job) -> anyhow::Result<()> {
    let EventsJob { from, to } = serde_json::from_str(&job.payload)?;
    let Some(rail) = &app.stripe else {
        return Ok(());
    };
    let mut after: Option<String> = None;
    loop {
        let page = rail.events((from, to), after.as_deref()).await?;
        let now = app.now();
        for event in &page.data {
            let raw = event.get().to_owned();
            after = serde_json::from_str::<EventId>(&raw)
                .ok()
                .map(|event| event.id)
                .or(after);
            transact(app, move |conn| rails::receive_stripe(conn, &raw, now)).await?;
        }
        if !page.has_more || page.data.is_empty() {
            return Ok(());
        }
    }
}

#[derive(Deserialize)]
struct EventId {
    id: String,
}
