//! What happened, told as it happens, and whether the house kept its promises.

use std::{future::Future, path::Path, time::Instant};

use sealyard_core::{
    capacity,
    clock::DAY,
    contracts::{self, Contract},
    ledger::{self, AccountSpec},
    money::NanoFil,
    sealing, statements,
    store::{AnyConnection, DbResult},
    units::Bytes,
    yields,
};

use crate::app::{Shared, read};

pub struct Story {
    started: Instant,
}

impl Story {
    pub fn new() -> Self {
        println!("Sealyard: one purchase becomes a real, proven, earning sector and a statement\n");
        Self { started: Instant::now() }
    }

    pub fn say(&self, what: &str) {
        println!("[{:>6.1} s] {what}", self.started.elapsed().as_secs_f64());
    }

    pub fn link(&self, what: &str, to: &str) {
        println!("             {what}: {to}");
    }

    pub async fn step<T>(&self, name: &str, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        let started = Instant::now();
        self.say(&format!("{name} …"));
        let done = work.await;
        let outcome = if done.is_ok() { "done" } else { "FAILED" };
        self.say(&format!("{name}: {outcome} in {:.1} s", started.elapsed().as_secs_f64()));
        done
    }

    /// Figures and invariants; true when all hold.
    pub async fn finish(&self, app: &Shared, contract: &Contract, dir: &Path) -> anyhow::Result<bool> {
        let (contract, mails) = (contract.clone(), mails(&dir.join("mail"))?);
        let (lines, checks) = read(app, move |conn| {
            let days = yields::days(conn, contract.pool_id, i64::MAX)?;
            let lots = ledger::lots_of_contract(conn, contract.id, 0..i64::MAX, i64::MAX)?;
            let capacity = capacity::capacity(conn, contract.pool_id)?;
            let of = |pick: fn(&ledger::Lot) -> i64| lots.iter().map(pick).sum::<i64>();
            let (gross, fee) = (of(|l| l.gross_nano), of(|l| l.fee_nano + l.cost_nano));
            let made_up = of(|l| l.compensation_nano);
            let posted: i64 = days.iter().map(|d| d.posted_nano).sum();
            let operator = ledger::balance(conn, &AccountSpec::OperatorYield(contract.pool_id))?.posted;
            let available = ledger::balance(conn, &AccountSpec::Available(contract.user_id))?.posted;
            let vesting = ledger::balance(conn, &AccountSpec::Vesting(contract.user_id))?.posted;
            let sectors = sealing::of_contract(conn, contract.id)?;
            let active: i64 = sectors.iter().filter(|s| s.state().is_on_chain()).map(|_| 1).sum();
            let pool = capacity::pool_by_id(conn, contract.pool_id)?;
            let statement = statements::of_user(conn, contract.user_id)?.into_iter().next_back();
            let model = statement.and_then(|s| s.parsed().ok());
            let wins: i64 = days.iter().map(|d| d.wins).sum();
            let lines = vec![
                format!("{} days closed, {wins} blocks won, {} FIL posted", days.len(), NanoFil(posted)),
                format!("the contract earned {} FIL, service fee {} FIL", NanoFil(gross), NanoFil(fee)),
                format!("available {} FIL, vesting {} FIL", NanoFil(available), NanoFil(vesting)),
                format!("sold {}, backed by {active} sectors of {}", Bytes(capacity.sold), Bytes(pool.sector_bytes)),
            ];
            let last_day_of_statement = model.as_ref().map_or(i64::MAX, |m| m.end_day);
            let later_available: i64 =
                ledger::entries(conn, &AccountSpec::Available(contract.user_id), last_day_of_statement..i64::MAX, i64::MAX)?
                    .iter()
                    .map(|e| e.amount)
                    .sum();
            let chain_days = yields::chain_days(conn, contract.pool_id)?;
            let landed = sealing::messages_in_state(conn, sealing::MessageState::Landed)?;
            let checks = vec![
                (
                    "rewards, tips and daily fees explain the miner's balance to the attoFIL",
                    chain_days.iter().all(|d| d.other_atto == "0"),
                ),
                ("every message's gas is accounted for", !landed.is_empty() && landed.iter().all(|m| m.burnt_atto.is_some())),
                ("the books balance", ledger::check(conn)?.is_empty()),
                ("every closed day follows from the chain's records", matches!(yields::audit(conn), Ok(None))),
                ("contract shares and the operator's add up to the rewards", gross + operator == posted),
                ("the investor's accounts hold exactly the net of all days", available + vesting == gross - fee + made_up),
                ("the contract's days run by the chain's time", runs_by_the_chain(conn, &contract.public_id, &lots)?),
                ("owned = free + held + sold + own use + down", capacity.holds()),
                ("everything sold is backed by sectors on chain", capacity.sold == active * pool.sector_bytes),
                (
                    "the statement's closing balance is the ledger's",
                    model.is_some_and(|m| m.available.closing + later_available == available),
                ),
                ("one statement, one mail", mails == 1),
            ];
            Ok((lines, checks))
        })
        .await?;
        println!();
        for line in lines {
            println!("  {line}");
        }
        println!();
        for (what, holds) in &checks {
            println!("  {} {what}", if *holds { "holds " } else { "BROKEN" });
        }
        self.say("the story is told");
        Ok(checks.iter().all(|(_, holds)| *holds))
    }
}

/// A contract begins on the day, give or take one, of which it has its first lot.
fn runs_by_the_chain(conn: &mut AnyConnection, contract: &str, lots: &[ledger::Lot]) -> DbResult<bool> {
    let began = contracts::by_public_id(conn, contract)?.and_then(|c| c.active_at).map(|at| at.div_euclid(DAY));
    let first = lots.iter().map(|lot| lot.day).min();
    Ok(began.zip(first).is_some_and(|(began, first)| (began - first).abs() <= 1))
}

fn mails(dir: &Path) -> anyhow::Result<usize> {
    Ok(std::fs::read_dir(dir)?.filter_map(Result::ok).filter(|e| e.path().extension().is_some_and(|x| x == "eml")).count())
}
