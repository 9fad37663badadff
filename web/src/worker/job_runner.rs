//! Runs jobs from the outbox: statements and their mail.

use anyhow::Context;
use sealyard_core::{
    clock::{MINUTE, Month},
    ids::UserId,
    jobs::{self, Job},
    statements,
    store::DbFault,
};
use serde::Deserialize;

use super::TurnResult;
use crate::{
    app::{Shared, read, transact},
    render,
};

/// Jobs of one turn; the claim is renewed between turns.
const JOBS_PER_TURN: usize = 20;

pub async fn turn(app: Shared) -> TurnResult {
    for _ in 0..JOBS_PER_TURN {
        let now = app.now();
        let Some(job) = transact(&app, move |conn| Ok::<_, DbFault>(jobs::take(conn, 5 * MINUTE, now)?)).await? else {
            return Ok(());
        };
        let result = run(&app, &job).await;
        let now = app.now();
        transact(&app, {
            let outcome = result.as_ref().map(drop).map_err(|error| format!("{error:#}"));
            move |conn| {
                match &outcome {
                    Ok(()) => jobs::complete(conn, &job)?,
                    Err(reason) => {
                        tracing::warn!(kind = job.kind, attempts = job.attempts, reason, "job failed");
                        jobs::fail(conn, &job, reason, now)?;
                    }
                }
                Ok::<_, DbFault>(())
            }
        })
        .await?;
    }
    Ok(())
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

async fn run(app: &Shared, job: &Job) -> anyhow::Result<()> {
    match job.kind.as_str() {
        "statement" => {
            let StatementJob { user, month } = serde_json::from_str(&job.payload)?;
            let month: Month = month.parse().map_err(anyhow::Error::msg)?;
            let now = app.now();
            Ok(transact(app, move |conn| statements::produce(conn, UserId(user), month, now)).await?)
        }
        "statement_mail" => {
            let MailJob { statement } = serde_json::from_str(&job.payload)?;
            mail_statement(app, statement).await
        }
        other => anyhow::bail!("no job is called {other}; a newer release made it"),
    }
}

async fn mail_statement(app: &Shared, id: String) -> anyhow::Result<()> {
    let statement = read(app, move |conn| statements::by_public_id(conn, &id)).await?.context("the statement is gone")?;
    if statement.sent_at.is_some() {
        return Ok(());
    }
    let mail = render::statement_mail(&app.config, &statement)?;
    crate::mail::send(&app.config, mail).await?;
    let now = app.now();
    transact(app, move |conn| Ok::<_, DbFault>(statements::mark_sent(conn, &statement, now)?)).await?;
    Ok(())
}
