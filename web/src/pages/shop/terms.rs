//! Terms of a contract in a customer's words.

use sealyard_core::{
    catalog::{Pledge, Shortfall, Starts, Terms},
    money::BasisPoints,
};

pub struct TermRow {
    pub what: &'static str,
    pub how: String,
}

/// The terms, line by line.
pub fn term_rows(terms: &Terms) -> Vec<TermRow> {
    let row = |what, how: String| TermRow { what, how };
    let part = |bp: i64| BasisPoints(bp).to_string();
    let pledge = match terms.pledge {
        Pledge::Operator => "ours, free of charge".into(),
        Pledge::OperatorFor { charge_bp } => format!("ours, for {} of earnings", part(charge_bp)),
        Pledge::Investor { terminations_bp: 0 } => {
            "yours, from your available balance; returned in full as the sectors end".into()
        }
        Pledge::Investor { terminations_bp } => {
            format!(
                "yours; returned as the sectors end, less {} of the termination fee if one ends \
                 early",
                part(terminations_bp)
            )
        }
    };
    let borne = |bp: i64| match bp {
        0 => "paid by us".into(),
        10_000 => "paid by you, in proportion to power".into(),
        bp => format!("{} paid by you, in proportion to power", part(bp)),
    };
    let missing = match terms.shortfall {
        Shortfall::None => "power that does not count does not earn".into(),
        Shortfall::PaidInFil => {
            "we pay what the missing power would have earned, on the same day".into()
        }
        Shortfall::AddedDays { most } => {
            format!(
                "the term is extended to match, by at most {most} days; beyond that we pay what it \
                 would have earned"
            )
        }
    };
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
            format!("{} of earnings", part(terms.service_fee_bp)),
        ),
        row("Pledge", pledge),
    ];
    if bears_nothing(terms) {
        rows.push(row("Gas, daily fee, faults", "paid by us".into()));
    } else {
        rows.extend([
            row("The network's daily fee", borne(terms.daily_fee_bp)),
            row("Gas", borne(terms.gas_bp)),
            row("Fees for faults", borne(terms.faults_bp)),
        ]);
    }
    rows.extend([
        row("Term begins", starts.into()),
        row("Late or faulty", missing),
        row(
            "Paid out",
            format!(
                "{} of each day's net earnings at once, the rest over {} days",
                part(terms.available_bp),
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
