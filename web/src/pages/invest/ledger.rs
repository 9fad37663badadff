//! An investor's ledger, and what comes back if the investor stops today.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};
use askama::Template;
use sealyard_core::{
    clock::{DAY, Month, day_text, minute_text},
    money::NanoFil,
    views::{self, LedgerEntry, Wallet},
};

use super::{contract::Before, dashboard::Balances};
use crate::{
    app::{App, Shared, read},
    auth::SignedIn,
    error::WebError,
    pages::html,
    visitor::Visitor,
};

pub fn routes(config: &mut web::ServiceConfig) {
    config.route("/ledger", web::get().to(ledger_page));
}

struct EntryRow {
    day: String,
    account: &'static str,
    what: String,
    subject: String,
    amount: String,
    is_out: bool,
}

#[derive(Template)]
#[template(path = "invest/ledger.html")]
struct LedgerPage {
    user: Option<Visitor>,
    balances: Balances,
    stop: Option<IfStopped>,
    /// When the last of what is pledged comes back; empty: nothing is pledged.
    pledge_back: String,
    entries: Vec<EntryRow>,
    /// The first day that is shown, whether there is something before it, and whether this is the
    /// first page.
    from: String,
    is_older: bool,
    is_newest: bool,
}

/// Releases to come if the investor stops today.
struct IfStopped {
    vesting: String,
    tomorrow: String,
    last: String,
    months: Vec<MonthOfRelease>,
}

struct MonthOfRelease {
    name: String,
    nano: i64,
    sum: String,
    /// Day and amount.
    days: Vec<(String, String)>,
}

fn if_stopped(calendar: &BTreeMap<i64, i64>) -> Option<IfStopped> {
    let (first, last) = (calendar.first_key_value()?, calendar.last_key_value()?);
    let mut months: Vec<MonthOfRelease> = Vec::new();
    for (day, amount) in calendar {
        let name = Month::of_day(*day)
            .map(Month::long_text)
            .unwrap_or_default();
        if months.last().is_none_or(|last| last.name != name) {
            months.push(MonthOfRelease {
                name,
                nano: 0,
                sum: String::new(),
                days: Vec::new(),
            });
        }
        if let Some(month) = months.last_mut() {
            month.nano += amount;
            month.sum = NanoFil(month.nano).to_string();
            month
                .days
                .push((day_text(*day), NanoFil(*amount).to_string()));
        }
    }
    Some(IfStopped {
        vesting: NanoFil(calendar.values().sum()).to_string(),
        tomorrow: NanoFil(*first.1).to_string(),
        last: day_text(*last.0),
        months,
    })
}

/// An entry in words.
fn description(row: &LedgerEntry) -> String {
    if let Some(correction) = &row.correction {
        return format!(
            "Correction of {}: {}",
            correction.corrects, correction.reason
        );
    }
    match (row.entry.kind.as_str(), row.vesting_days) {
        ("reward", _) => "Reward, available at once".into(),
        ("locked", Some(days)) => format!("Reward, vesting over {days} days"),
        ("locked", None) => "Reward, vesting".into(),
        ("vested", _) => "Released from vesting".into(),
        ("compensation", _) => "Compensation for missing power".into(),
        ("pledge", _) => "Pledge put up".into(),
        ("pledge_not_needed", _) => "Pledge not needed by the network".into(),
        ("pledge_returned", _) => "Pledge returned".into(),
        ("pledge_kept", _) => "Pledge kept for a sector that ended early".into(),
        (other, _) => other.to_owned(),
    }
}

impl EntryRow {
    fn new(row: LedgerEntry) -> Self {
        Self {
            what: description(&row),
            day: day_text(row.entry.effective_day),
            account: match row.wallet {
                Wallet::Available => "Available",
                Wallet::Vesting => "Vesting",
                Wallet::Pledged => "Pledged",
            },
            amount: NanoFil(row.entry.amount).to_string(),
            is_out: row.entry.amount < 0,
            subject: row.entry.subject,
        }
    }
}

async fn ledger_page(
    app: web::Data<App>,
    SignedIn(user): SignedIn,
    asked: web::Query<Before>,
) -> Result<HttpResponse, WebError> {
    let app: Shared = app.into_inner();
    let (before, today, visitor) = (asked.day()?, app.now().div_euclid(DAY), (&user).into());
    let view = read(&app, move |conn| views::ledger(conn, &user, before, today)).await?;
    html(&LedgerPage {
        user: Some(visitor),
        balances: view.balances.into(),
        stop: if_stopped(&view.releases),
        pledge_back: view.pledge_back_by.map(minute_text).unwrap_or_default(),
        entries: view.entries.into_iter().map(EntryRow::new).collect(),
        from: day_text(view.first_day),
        is_older: view.has_older,
        is_newest: before.is_none(),
    })
}
