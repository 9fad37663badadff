//! A plan as it is offered to one buyer: quote, balance, forecasts with their record.

use crate::{
    catalog::{self, Plan},
    clock::{DAY, Micros},
    ids::UserId,
    ledger::{self, AccountSpec},
    orders::{self, Quote},
    store::{AnyConnection, DbResult},
    yields::{self, Forecast, Outcomes},
};

pub struct ForecastWithRecord {
    pub forecast: Forecast,
    /// How earlier forecasts of this horizon turned out. `None`: none is over.
    pub record: Option<Outcomes>,
}

pub struct Offer {
    pub plan: Plan,
    /// `None`: the plan does not sell this many units.
    pub quote: Option<Quote>,
    /// nanoFIL that the buyer can spend.
    pub available_nano: i64,
    pub forecasts: Vec<ForecastWithRecord>,
}

/// `None`: there is no such plan.
pub fn offer(
    conn: &mut AnyConnection,
    (plan, units): (&str, i64),
    buyer: UserId,
    now: Micros,
) -> DbResult<Option<Offer>> {
    let Some(plan) = catalog::plan_by_public_id(conn, plan)? else {
        return Ok(None);
    };
    let outcomes = yields::outcomes(conn, plan.id, now.div_euclid(DAY))?;
    let record_of = |horizon| {
        let past = outcomes.iter().find(|(of, _)| *of == horizon);
        past.map(|(_, past)| *past)
    };
    let forecasts = yields::latest_forecasts(conn, plan.id)?.into_iter();
    let forecasts = forecasts.map(|forecast| ForecastWithRecord {
        record: record_of(forecast.horizon),
        forecast,
    });
    Ok(Some(Offer {
        forecasts: forecasts.collect(),
        quote: orders::quote(conn, &plan, units, now)?,
        available_nano: ledger::balance(conn, &AccountSpec::Available(buyer))?.free(),
        plan,
    }))
}
