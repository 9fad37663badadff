//! Transfers of the ledger: refusals, holds, and agreement with a plain model.

use std::collections::HashMap;

use proptest::{prelude::*, test_runner::TestRunner};
use sealyard_core::{
    clock::DAY,
    ids::PoolId,
    ledger::{self, AccountSpec, Asset, LedgerError, Pending, Transfer},
    store::Database,
};

use super::{ledger_findings, posted};
use crate::support::{NOW, SECTOR, on_both, shop};

#[test]
fn the_ledger_refuses_invalid_transfers() {
    on_both(|db| {
        let (pool, _, ada) = shop(db, 10);
        let transfer = |id: &str, from: AccountSpec, to: AccountSpec, amount: i64| Transfer {
            id: id.into(),
            from,
            to,
            amount,
            kind: "reward",
            subject: "test".into(),
            effective_day: NOW / DAY,
            booked_at: NOW,
        };
        let post = |t: &Transfer| db.transact(|conn| ledger::post(conn, t));
        let chain = || AccountSpec::ChainRewards(pool.id);
        let available = || AccountSpec::Available(ada.id);
        post(&transfer("a", chain(), available(), 100)).unwrap();
        post(&transfer("a", chain(), available(), 100)).unwrap();
        assert_eq!(posted(db, &available()), 100, "a transfer id counts once");
        assert!(matches!(
            post(&transfer("a", chain(), available(), 101)),
            Err(LedgerError::Conflict(_))
        ));
        let overdraft = transfer("b", available(), AccountSpec::Vesting(ada.id), 101);
        assert!(matches!(
            post(&overdraft),
            Err(LedgerError::Insufficient {
                free: 100,
                amount: 101,
                ..
            })
        ));
        for amount in [0, -5] {
            assert!(matches!(
                post(&transfer("c", chain(), available(), amount)),
                Err(LedgerError::Amount(_))
            ));
        }
        let mixed = transfer("d", chain(), AccountSpec::Free(pool.id), 1);
        assert!(matches!(post(&mixed), Err(LedgerError::Assets { .. })));
        assert_eq!(ledger_findings(db), []);
    });
}

/// Random transfers against a plain model of balances.
#[test]
fn random_ledger_histories_agree_with_a_plain_model() {
    let operations = prop::collection::vec((0..4u8, 0..3i64, 1..40i64), 1..60);
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 12,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&operations, |operations| {
            on_both(|db| play(db, &operations));
            Ok(())
        })
        .unwrap();
}

/// An amount that moves, or is held, from one account of the model to another.
struct Move {
    id: String,
    from: i64,
    to: i64,
    amount: i64,
}

impl Move {
    fn transfer(&self, pool: PoolId) -> Transfer {
        Transfer {
            id: self.id.clone(),
            from: account(pool, self.from),
            to: account(pool, self.to),
            amount: self.amount,
            kind: "capacity",
            subject: String::new(),
            effective_day: 0,
            booked_at: NOW,
        }
    }

    fn pending(&self) -> Pending {
        Pending {
            id: self.id.clone(),
            effective_day: 0,
            booked_at: NOW,
        }
    }
}

/// The balances as they should be, and the open holds.
struct Model {
    balances: HashMap<i64, i64>,
    held: Vec<Move>,
}

impl Model {
    fn covers(&self, wanted: &Move) -> bool {
        let held = self.held.iter().filter(|held| held.from == wanted.from);
        let blocked: i64 = held.map(|held| held.amount).sum();
        self.balances[&wanted.from] - blocked >= wanted.amount
    }

    fn book(&mut self, done: &Move) {
        *self.balances.get_mut(&done.from).unwrap() -= done.amount;
        *self.balances.get_mut(&done.to).unwrap() += done.amount;
    }
}

fn account(pool: PoolId, n: i64) -> AccountSpec {
    match n {
        0 => AccountSpec::Free(pool),
        1 => AccountSpec::OwnUse(pool),
        _ => AccountSpec::Down(pool),
    }
}

fn play(db: &Database, operations: &[(u8, i64, i64)]) {
    let pool = shop(db, 50).0.id;
    assert_eq!(account(pool, 0).asset(), Asset::Capacity(pool));
    let mut model = Model {
        balances: [(0, 50 * SECTOR), (1, 0), (2, 0)].into(),
        held: Vec::new(),
    };
    for (step, (what, from, amount)) in operations.iter().enumerate() {
        let new = Move {
            id: format!("step-{step}"),
            from: *from,
            to: (from + 1) % 3,
            amount: amount * SECTOR / 4,
        };
        match what {
            0 => post(db, pool, &mut model, &new),
            1 => hold(db, pool, &mut model, new),
            _ if model.held.is_empty() => {}
            2 => complete_oldest(db, &mut model),
            _ => void_oldest(db, &mut model),
        }
    }
    for (n, balance) in &model.balances {
        assert_eq!(posted(db, &account(pool, *n)), *balance);
    }
    assert_eq!(ledger_findings(db), []);
}

fn post(db: &Database, pool: PoolId, model: &mut Model, new: &Move) {
    let enough = model.covers(new);
    let transfer = new.transfer(pool);
    assert_eq!(db.transact(|c| ledger::post(c, &transfer)).is_ok(), enough);
    if enough {
        model.book(new);
    }
}

fn hold(db: &Database, pool: PoolId, model: &mut Model, new: Move) {
    let enough = model.covers(&new);
    let transfer = new.transfer(pool);
    assert_eq!(db.transact(|c| ledger::hold(c, &transfer)).is_ok(), enough);
    if enough {
        model.held.push(new);
    }
}

fn complete_oldest(db: &Database, model: &mut Model) {
    let oldest = model.held.remove(0);
    let pending = oldest.pending();
    db.transact(|c| ledger::complete(c, &pending)).unwrap();
    assert!(
        db.transact(|c| ledger::void(c, &pending)).is_err(),
        "a settled hold cannot be voided"
    );
    model.book(&oldest);
}

fn void_oldest(db: &Database, model: &mut Model) {
    let pending = model.held.remove(0).pending();
    db.transact(|c| ledger::void(c, &pending)).unwrap();
}
