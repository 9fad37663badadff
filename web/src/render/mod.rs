//! Statements for people. Mail text, mail HTML and PDF are made from one view, so that no figure
//! can differ between them.

mod pdf;
mod text;

use askama::Template;
use sealyard_core::{
    clock::{Month, day_text},
    money::NanoFil,
    statements::{AccountLine, ContractLine, DayLine, Statement, StatementModel},
    units::Bytes,
};

use crate::{config::Config, mail::Mail};

pub use pdf::statement_pdf;

/// A statement with every amount already written out.
pub struct StatementView {
    pub month: String,
    pub name: String,
    pub email: String,
    pub period: String,
    pub earned: String,
    pub available: AccountView,
    pub vesting: AccountView,
    pub pledged: AccountView,
    pub contracts: Vec<ContractView>,
    pub days: Vec<DayView>,
    pub url: String,
}

pub struct AccountView {
    pub opening: String,
    pub moved_in: String,
    pub moved_out: String,
    pub closing: String,
}

pub struct ContractView {
    pub contract: String,
    pub size: String,
    pub gross: String,
    /// Service fee, and costs that the contract bears.
    pub fee: String,
    /// Paid for power that was promised and missing.
    pub made_up: String,
    /// Earned less fees and costs, and what was made up.
    pub net: String,
}

pub struct DayView {
    pub day: String,
    pub fee: String,
    pub to_available: String,
    pub to_vesting: String,
    pub vested: String,
}

fn fil(nano: i64) -> String {
    NanoFil(nano).to_string()
}

impl From<AccountLine> for AccountView {
    fn from(line: AccountLine) -> Self {
        Self {
            opening: fil(line.opening),
            moved_in: fil(line.moved_in),
            moved_out: fil(line.moved_out),
            closing: fil(line.closing),
        }
    }
}

impl From<&ContractLine> for ContractView {
    fn from(line: &ContractLine) -> Self {
        Self {
            contract: line.contract.clone(),
            size: Bytes(line.bytes).to_string(),
            gross: fil(line.gross),
            fee: fil(line.fee + line.cost),
            made_up: fil(line.compensation),
            net: fil(line.net + line.compensation),
        }
    }
}

impl From<&DayLine> for DayView {
    fn from(line: &DayLine) -> Self {
        Self {
            day: day_text(line.day),
            fee: fil(line.fee),
            to_available: fil(line.to_available),
            to_vesting: fil(line.to_vesting),
            vested: fil(line.vested),
        }
    }
}

#[must_use]
pub fn statement_view(model: &StatementModel, url: String) -> StatementView {
    let earned: i64 = model.contracts.iter().map(|c| c.net + c.compensation).sum();
    let month = model
        .month
        .parse::<Month>()
        .map_or_else(|_| model.month.clone(), Month::long_text);
    StatementView {
        month,
        name: model.name.clone(),
        email: model.email.clone(),
        period: format!(
            "{} to {}",
            day_text(model.first_day),
            day_text(model.end_day - 1)
        ),
        earned: fil(earned),
        available: model.available.into(),
        vesting: model.vesting.into(),
        pledged: model.pledged.into(),
        contracts: model.contracts.iter().map(ContractView::from).collect(),
        days: model.days.iter().map(DayView::from).collect(),
        url,
    }
}

#[derive(Template)]
#[template(path = "mail/statement/body.html")]
struct Html<'a> {
    view: &'a StatementView,
}

#[derive(Template)]
#[template(path = "mail/statement/body.txt")]
struct Text<'a> {
    view: &'a StatementView,
}

#[derive(Template)]
#[template(path = "mail/statement/subject.txt")]
struct Subject<'a> {
    view: &'a StatementView,
}

/// The whole mail of a statement. The same statement always gives the same mail.
pub fn statement_mail(config: &Config, statement: &Statement) -> anyhow::Result<Mail> {
    let model = statement.parsed()?;
    let view = statement_view(
        &model,
        format!("{}/statements/{}", config.public_url, statement.public_id),
    );
    Ok(Mail {
        to: model.email.clone(),
        to_name: model.name.clone(),
        subject: Subject { view: &view }.render()?.trim().to_owned(),
        message_id: statement.message_id.clone(),
        text: Text { view: &view }.render()?,
        html: Html { view: &view }.render()?,
        pdf_name: format!("sealyard-{}.pdf", statement.month),
        pdf: statement_pdf(&view)?,
    })
}
