//! Terms of a contract in a customer's words.

use sealyard_core::{
    catalog::{Pledge, Shortfall, Starts, Terms},
    money::BasisPoints,
};

pub struct TermRow {
    pub what: &'static str,
    pub how: String,
}

fn percent(bp: i64) -> String {
    BasisPoints(bp).to_string()
}

fn pledge_text(pledge: Pledge) -> String {
    match pledge {
        Pledge::Operator => "ours, free of charge".into(),
        Pledge::OperatorFor { charge_bp } => {
            format!("ours, for {} of earnings", percent(charge_bp))
        }
        Pledge::Investor { terminations_bp: 0 } => {
            "yours, from your available balance; returned in full as the sectors end".into()
        }
        Pledge::Investor { terminations_bp } => format!(
            "yours; returned as the sectors end, less {} of the termination fee if one ends early",
            percent(terminations_bp)
        ),
    }
}

fn shortfall_text(shortfall: Shortfall) -> String {
    match shortfall {
        Shortfall::None => "power that does not count does not earn".into(),
        Shortfall::PaidInFil => {
            "we pay what the missing power would have earned, on the same day".into()
        }
        Shortfall::AddedDays { most } => format!(
            "the term is extended to match, by at most {most} days; beyond that we pay what it \
             would have earned"
        ),
    }
}

/// A part of a cost, and its bearer.
fn bearer_text(borne_bp: i64) -> String {
    match borne_bp {
        0 => "paid by us".into(),
        10_000 => "paid by you, in proportion to power".into(),
        bp => format!("{} paid by you, in proportion to power", percent(bp)),
    }
}

/// The terms, line by line.
pub fn term_rows(terms: &Terms) -> Vec<TermRow> {
    let row = |what, how: String| TermRow { what, how };
    let starts = match terms.starts {
        Starts::PowerOn => "when all its power counts",
        Starts::PromisedDate => "when all its power counts, and on the promised date at the latest",
    };
    let mut rows = vec![
        row(
            "Sold",
            "raw bytes; earnings follow the power that the network counts for them".into(),
        ),
        row(
            "Service fee",
            format!("{} of earnings", percent(terms.service_fee_bp)),
        ),
        row("Pledge", pledge_text(terms.pledge)),
    ];
    if bears_nothing(terms) {
        rows.push(row("Gas, daily fee, faults", "paid by us".into()));
    } else {
        rows.extend([
            row("The network's daily fee", bearer_text(terms.daily_fee_bp)),
            row("Gas", bearer_text(terms.gas_bp)),
            row("Fees for faults", bearer_text(terms.faults_bp)),
        ]);
    }
    rows.extend([
        row("Term begins", starts.into()),
        row("Late or faulty", shortfall_text(terms.shortfall)),
        row(
            "Paid out",
            format!(
                "{} of each day's net earnings at once, the rest over {} days",
                percent(terms.available_bp),
                terms.vesting_days
            ),
        ),
    ]);
    rows
}

/// Gas, daily fees and fees for faults are the operator's.
pub fn bears_nothing(terms: &Terms) -> bool {
    (terms.daily_fee_bp, terms.gas_bp, terms.faults_bp) == (0, 0, 0)
}
