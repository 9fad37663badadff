//! Tells the demo's story as it happens, and whether its promises were kept.

use std::{collections::BTreeMap, future::Future, ops::Range, time::Instant};

use sealyard_core::{
    capacity,
    clock::{DAY, Month},
    contracts::{self, Contract},
    ids::UserId,
    ledger::{self, AccountSpec},
    money::NanoFil,
    sealing::{self, MessageState},
    statements::{self, ContractLine, StatementModel},
    store::{AnyConnection, DbResult},
    units::Bytes,
    yields,
};

use super::{
    mailbox::{self, Sent},
    upgrade::Across,
};
use crate::{
    app::{Shared, read},
    render::statement_view,
};

pub struct Story {
    started: Instant,
}

impl Story {
    pub fn new() -> Self {
        println!("Sealyard: one purchase becomes a real, proven, earning sector and a statement\n");
        Self {
            started: Instant::now(),
        }
    }

    pub fn say(&self, what: &str) {
        println!("[{:>6.1} s] {what}", self.started.elapsed().as_secs_f64());
    }

    pub fn link(&self, what: &str, to: &str) {
        println!("             {what}: {to}");
    }

    pub async fn step<T>(
        &self,
        name: &str,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let started = Instant::now();
        self.say(&format!("{name} …"));
        let done = work.await;
        let outcome = if done.is_ok() { "done" } else { "FAILED" };
        self.say(&format!(
            "{name}: {outcome} in {:.1} s",
            started.elapsed().as_secs_f64()
        ));
        done
    }

    /// Prints figures and invariants. True if all invariants hold.
    pub async fn finish(
        &self,
        app: &Shared,
        contract: &Contract,
        (month, sent): (Month, &Sent),
        across: Option<Across>,
    ) -> anyhow::Result<bool> {
        let words = mailbox::pdf_words(&sent.file)?;
        let model = sent.statement.parsed()?;
        let (statement, arrived) = (model.clone(), sent.arrived.clone());
        let contract = contract.clone();
        let checks = read(app, move |conn| {
            let mut checks = books(conn, &contract)?;
            checks.extend(stock(conn, &contract)?);
            checks.extend(told(conn, &contract, &statement, &arrived)?);
            if let Some(across) = &across {
                checks.extend(across.checks(conn)?);
            }
            Ok(checks)
        })
        .await?;
        let in_pdf = read_back(&model, words);
        let lines = figures(app, month, &model).await?;
        println!();
        for line in lines {
            println!("  {line}");
        }
        println!();
        let all: Vec<Check> = checks.into_iter().chain([in_pdf]).collect();
        for Check(what, holds) in &all {
            println!("  {} {what}", if *holds { "holds " } else { "BROKEN" });
        }
        self.say("the story is told");
        Ok(!all.is_empty() && all.iter().all(|Check(_, holds)| *holds))
    }
}

/// A promise, and true if it is kept.
pub struct Check(pub &'static str, pub bool);

/// Figures of the pages and of the month's statement.
async fn figures(
    app: &Shared,
    month: Month,
    model: &StatementModel,
) -> anyhow::Result<Vec<String>> {
    let pools = read(app, pool_figures).await?;
    let of = |pick: fn(&ContractLine) -> i64| NanoFil(model.contracts.iter().map(pick).sum());
    let (gross, fees, made_up) = (
        of(|c| c.gross),
        of(|c| c.fee + c.cost),
        of(|c| c.compensation),
    );
    let (available, vesting) = (model.available, model.vesting);
    Ok(pools
        .into_iter()
        .chain([
            format!(
                "statement of {}: earned {gross} FIL, fees and costs {fees} FIL, \
                 made up {made_up} FIL",
                month.long_text()
            ),
            format!(
                "available {} FIL at its end, {} in",
                NanoFil(available.closing),
                NanoFil(available.moved_in)
            ),
            format!(
                "vesting {} FIL at its end, {} in, {} out",
                NanoFil(vesting.closing),
                NanoFil(vesting.moved_in),
                NanoFil(vesting.moved_out)
            ),
        ])
        .collect())
}

fn pool_figures(conn: &mut AnyConnection) -> DbResult<Vec<String>> {
    let mut lines = Vec::new();
    for pool in capacity::pools(conn)? {
        let days = yields::days(conn, pool.id, i64::MAX)?;
        let wins: i64 = days.iter().map(|day| day.wins).sum();
        let posted: i64 = days.iter().map(|day| day.posted_nano).sum();
        let sold = capacity::capacity(conn, pool.id)?.sold;
        lines.push(format!(
            "{} days closed, {wins} blocks won, {} FIL posted",
            days.len(),
            NanoFil(posted)
        ));
        lines.push(format!(
            "sold {} in sectors of {}",
            Bytes(sold),
            Bytes(pool.sector_bytes)
        ));
    }
    Ok(lines)
}

/// Compares the books with the chain's records.
fn books(conn: &mut AnyConnection, contract: &Contract) -> DbResult<Vec<Check>> {
    let days = yields::days(conn, contract.pool_id, i64::MAX)?;
    let posted: i64 = days.iter().map(|day| day.posted_nano).sum();
    let (mut shares, mut costs) = (0, 0);
    for day in &days {
        for lot in ledger::lots_on(conn, contract.pool_id, day.day)? {
            shares += lot.gross_nano;
            costs += lot.cost_nano;
        }
    }
    let operator =
        ledger::balance(conn, &AccountSpec::OperatorYield(contract.pool_id))?.posted - costs;
    let lots = ledger::lots_of_contract(conn, contract.id, 0..i64::MAX, i64::MAX)?;
    let chain_days = yields::chain_days(conn, contract.pool_id)?;
    let landed = sealing::messages_in_state(conn, MessageState::Landed)?;
    Ok(vec![
        Check(
            "rewards, tips and daily fees explain the miner's balance to the attoFIL on each day",
            chain_days.len() >= days.len()
                && !days.is_empty()
                && chain_days.iter().all(|day| day.other_atto == "0"),
        ),
        Check(
            "every message's gas is accounted for",
            !landed.is_empty() && landed.iter().all(|m| m.burnt_atto.is_some()),
        ),
        Check(
            "the books balance",
            posted > 0 && ledger::check(conn)?.is_empty(),
        ),
        Check(
            "every closed day follows from the chain's records",
            posted > 0 && matches!(yields::audit(conn), Ok(None)),
        ),
        Check(
            "contract shares and the operator's add up to the rewards",
            shares > 0 && shares + operator == posted,
        ),
        Check(
            "the contract's days run by the chain's time",
            runs_by_the_chain(conn, &contract.public_id, &lots)?,
        ),
    ])
}

/// Compares the sold capacity with contracts and sectors.
fn stock(conn: &mut AnyConnection, contract: &Contract) -> DbResult<Vec<Check>> {
    let capacity = capacity::capacity(conn, contract.pool_id)?;
    let pool = capacity::pool_by_id(conn, contract.pool_id)?;
    let sectors = sealing::of_contract(conn, contract.id)?;
    let size = pool
        .sector_bytes
        .saturating_mul(i64::try_from(sectors.len()).unwrap_or(i64::MAX));
    let running = contracts::recent(conn, i64::MAX)?
        .into_iter()
        .filter(|c| c.pool_id == contract.pool_id && c.is_running());
    let sold: i64 = running.map(|contract| contract.bytes).sum();
    Ok(vec![
        Check(
            "owned = free + held + sold + own use + down",
            capacity.owned > 0 && capacity.holds(),
        ),
        Check(
            "what is sold is the contracts' bytes",
            sold > 0 && capacity.sold == sold,
        ),
        Check(
            "every byte of the contract is in sectors on chain",
            size == contract.bytes && sectors.iter().all(|sector| sector.state.is_on_chain()),
        ),
    ])
}

/// Compares the investor's statements with the ledger.
fn told(
    conn: &mut AnyConnection,
    contract: &Contract,
    model: &StatementModel,
    arrived: &BTreeMap<String, usize>,
) -> DbResult<Vec<Check>> {
    let user = contract.user_id;
    let (net, in_month) = lot_sums(conn, user, model.first_day..model.end_day)?;
    let accounts = [
        AccountSpec::Available(user),
        AccountSpec::Vesting(user),
        AccountSpec::Pledged(user),
    ];
    let (mut owned, mut closing) = (0, Vec::new());
    for account in &accounts {
        owned += ledger::balance(conn, account)?.posted;
        closing.push(ledger::movements(conn, account, model.end_day)?);
    }
    let shown = [
        model.available.closing,
        model.vesting.closing,
        model.pledged.closing,
    ];
    let sums = LotSum::of_statement(model);
    let statements = statements::of_user(conn, user)?;
    let each_once = statements
        .iter()
        .filter(|s| s.sent_at.is_some())
        .all(|s| arrived.get(&s.message_id) == Some(&1));
    Ok(vec![
        Check(
            "the investor's accounts hold exactly the net of all days",
            owned > 0 && owned == net,
        ),
        Check(
            "the statement's closing balances are the ledger's, and not zero",
            model.available.closing > 0 && shown[..] == closing[..],
        ),
        Check(
            "the statement's earnings, fees and net are those of the month's days",
            sums.gross > 0 && sums.fees > 0 && sums == in_month,
        ),
        Check(
            "no statement is of a month before the account's first entry",
            statements.iter().filter_map(|s| s.parsed().ok()).all(|m| {
                m.available.closing != 0 || m.vesting.closing != 0 || m.pledged.closing != 0
            }),
        ),
        Check(
            "one statement, one mail",
            !arrived.is_empty() && each_once && arrived.values().all(|count| *count == 1),
        ),
    ])
}

#[derive(Default, PartialEq, Eq)]
struct LotSum {
    gross: i64,
    fees: i64,
    net: i64,
}

impl LotSum {
    fn of_statement(model: &StatementModel) -> Self {
        let of = |pick: fn(&ContractLine) -> i64| model.contracts.iter().map(pick).sum::<i64>();
        Self {
            gross: of(|c| c.gross),
            fees: of(|c| c.fee + c.cost),
            net: of(|c| c.net + c.compensation),
        }
    }
}

/// The net of all days of a user's contracts, and the sums of those in `days`.
fn lot_sums(conn: &mut AnyConnection, user: UserId, days: Range<i64>) -> DbResult<(i64, LotSum)> {
    let (mut net, mut within) = (0, LotSum::default());
    for own in contracts::of_user(conn, user)? {
        for lot in ledger::lots_of_contract(conn, own.id, 0..i64::MAX, i64::MAX)? {
            net += lot.gross_nano - lot.fee_nano - lot.cost_nano + lot.compensation_nano;
            if days.contains(&lot.day) {
                within.gross += lot.gross_nano;
                within.fees += lot.fee_nano + lot.cost_nano;
                within.net += lot.available_nano + lot.locked_nano + lot.compensation_nano;
            }
        }
    }
    Ok((net, within))
}

/// Compares the statement's figures with those that another program reads in the mail's PDF.
fn read_back(model: &StatementModel, mut words: Vec<String>) -> Check {
    let view = statement_view(model, String::new());
    let accounts = [&view.available, &view.vesting, &view.pledged].into_iter();
    let balances = accounts.flat_map(|a| [&a.opening, &a.moved_in, &a.moved_out, &a.closing]);
    let contracts = view
        .contracts
        .iter()
        .flat_map(|c| [&c.gross, &c.fee, &c.made_up, &c.net]);
    let days = view
        .days
        .iter()
        .flat_map(|d| [&d.fee, &d.to_available, &d.to_vesting, &d.vested]);
    let mut all_there = true;
    for figure in balances.chain(contracts).chain(days) {
        match words.iter().position(|word| word == figure) {
            Some(at) => drop(words.swap_remove(at)),
            None => all_there = false,
        }
    }
    Check(
        "the mail's PDF, read by another program, has exactly the statement's figures",
        all_there && !view.contracts.is_empty(),
    )
}

/// True if a contract's first lot is of the day on which it begins, give or take one day.
fn runs_by_the_chain(
    conn: &mut AnyConnection,
    contract: &str,
    lots: &[ledger::Lot],
) -> DbResult<bool> {
    let began = contracts::by_public_id(conn, contract)?
        .and_then(|c| c.active_at)
        .map(|at| at.div_euclid(DAY));
    let first = lots.iter().map(|lot| lot.day).min();
    Ok(began
        .zip(first)
        .is_some_and(|(began, first)| (began - first).abs() <= 1))
}
