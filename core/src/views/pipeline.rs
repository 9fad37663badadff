//! The pipeline: what needs a person, sectors, and the latest steps.

use std::collections::HashMap;

use crate::{
    clock::Micros,
    fleet,
    jobs::{self, AlertKind},
    orders,
    payments::{self, Waiting},
    sealing::{self, Sector, TaskHead},
    store::{AnyConnection, DbResult},
};

const SECTORS_SHOWN: i64 = 200;
const STEPS_SHOWN: i64 = 60;

/// An alert, a loop whose turns fail, or a job that has failed often.
pub struct Attention {
    pub name: String,
    pub since: Micros,
    pub error: String,
}

pub struct SectorInPipeline {
    pub sector: Sector,
    pub machine: String,
}

pub struct StepView {
    pub task: TaskHead,
    pub machine: String,
    /// The sector's number. `None`: a proof of many sectors, or a sector that is not shown.
    pub sector: Option<i64>,
}

pub struct PipelineView {
    pub attention: Vec<Attention>,
    /// Events of payment rails that a person must settle.
    pub events: Vec<Waiting>,
    /// Orders that were paid after their capacity was gone.
    pub refunds: i64,
    pub sectors: Vec<SectorInPipeline>,
    pub steps: Vec<StepView>,
}

fn attention(conn: &mut AnyConnection) -> DbResult<Vec<Attention>> {
    let row = |(name, since, error)| Attention { name, since, error };
    let loops = jobs::failing(conn)?
        .into_iter()
        .map(|f| (f.name, f.since, f.error));
    let jobs = jobs::struggling(conn)?.into_iter();
    let jobs = jobs.map(|job| {
        (
            job.unique_key,
            job.created_at,
            job.last_error.unwrap_or_default(),
        )
    });
    // Payments have a list of their own.
    let alerts = jobs::alerts(conn)?
        .into_iter()
        .filter(|alert| alert.kind != AlertKind::Payment);
    let alerts = alerts.map(|alert| (alert.kind.words(), alert.since, alert.text));
    Ok(alerts.chain(loops).chain(jobs).map(row).collect())
}

pub fn pipeline(conn: &mut AnyConnection) -> DbResult<PipelineView> {
    let machines = fleet::machines(conn)?.into_iter();
    let names: HashMap<_, _> = machines.map(|machine| (machine.id, machine.name)).collect();
    let name = |id| names.get(&id).cloned().unwrap_or_default();
    let sectors = sealing::all_sectors(conn, SECTORS_SHOWN)?;
    let numbers: HashMap<_, _> = sectors.iter().map(|s| (s.id, s.number)).collect();
    let steps = sealing::recent_tasks(conn, STEPS_SHOWN)?
        .into_iter()
        .map(|task| StepView {
            machine: task.machine_id.map(name).unwrap_or_default(),
            sector: task.sector_id.and_then(|id| numbers.get(&id).copied()),
            task,
        });
    let steps = steps.collect();
    let sectors = sectors.into_iter().map(|sector| SectorInPipeline {
        machine: sector.machine_id.map(name).unwrap_or_default(),
        sector,
    });
    Ok(PipelineView {
        sectors: sectors.collect(),
        steps,
        attention: attention(conn)?,
        events: payments::waiting(conn)?,
        refunds: orders::refunds_due(conn)?,
    })
}
