//! Corrections of booked entries.

use sealyard_core::{
    accounts::{self, NewUser, Registration, Role, User},
    ids::UserId,
    ledger::{self, AccountSpec},
    store::{Database, DbFault},
    yields::{self, Correction, CorrectionError, NewCorrection},
};

use super::{DAY, WIN};
use crate::{
    books::{TIME, buy, chain, close_all, posted, sectors},
    support::{NOW, on_both, shop, sound},
};

fn administrator(db: &Database) -> User {
    let new = NewUser {
        email: "boss@example.org",
        name: "Boss",
        password: "long enough",
        role: Role::Admin,
    };
    db.write(|conn| Ok(accounts::register(conn, &Registration::of(&new).unwrap(), NOW).unwrap()))
        .unwrap()
}

/// Books corrections in the name of an operator.
struct Desk<'d> {
    db: &'d Database,
    operator: UserId,
}

impl Desk<'_> {
    fn book(&self, corrects: &str, nano: i64, reason: &str) -> Result<Correction, CorrectionError> {
        let new = NewCorrection {
            corrects,
            nano,
            reason,
            made_by: self.operator,
        };
        self.db.transact(|conn| yields::correct(conn, &new, NOW))
    }
}

/// Refused: more than the account has left, unknown entries, and a correction without a reason.
fn assert_refused(desk: &Desk<'_>, entry: &str, available: i64) {
    assert!(matches!(
        desk.book(entry, -available - 1, "too much"),
        Err(CorrectionError::Ledger(_))
    ));
    for (entry, reason) in [
        ("reward:1:5:ctr_none", "why"),
        ("operator:1:5", "why"),
        (entry, " "),
    ] {
        assert!(desk.book(entry, 1, reason).is_err(), "{entry} {reason}");
    }
}

/// The first correction in this account.
fn first_correction(db: &Database, account: &AccountSpec) -> ledger::Entry {
    db.read(|conn| ledger::entries(conn, account, 0..i64::MAX, i64::MAX).map_err(DbFault::from))
        .unwrap()
        .into_iter()
        .find(|entry| entry.kind == "correction")
        .unwrap()
}

#[test]
fn a_correction_is_a_new_entry_in_an_open_day_naming_the_corrected_one() {
    on_both(|db| {
        let (pool, plan, ada) = shop(db, 10);
        let contract = buy(db, &plan, ada.id, 1, "ada");
        chain(
            db,
            pool.id,
            &[(sectors(db, &contract)[0], 0)],
            &[(7, WIN)],
            DAY,
        );
        assert_eq!(close_all(db, pool.id), 1);
        let available = AccountSpec::Available(ada.id);
        let had = posted(db, &available);
        let said = db
            .read(|conn| yields::explain(conn, ada.id, TIME.day(0)))
            .unwrap()
            .join("\n");
        let entry = format!("reward:{}:{}:{}", pool.id, TIME.day(0), contract.public_id);
        assert!(said.contains(&entry), "{entry} is not named in\n{said}");
        let desk = Desk {
            db,
            operator: administrator(db).id,
        };
        for _ in 0..2 {
            let booked = desk.book(&entry, 500, "we had the fee wrong").unwrap();
            assert_eq!(
                (booked.corrects.as_str(), booked.reason.as_str()),
                (entry.as_str(), "we had the fee wrong")
            );
        }
        assert_eq!(
            posted(db, &available),
            had + 500,
            "it is booked once, at the operator's expense"
        );
        assert_eq!(posted(db, &AccountSpec::Compensation(pool.id)), -500);
        let first = first_correction(db, &available);
        assert_eq!(
            first.effective_day,
            TIME.day(0) + 1,
            "it belongs to the open day"
        );
        // A correction can be corrected as well, but it cannot make a balance negative.
        desk.book(&first.transfer, -500, "it was right after all")
            .unwrap();
        assert_eq!(posted(db, &available), had);
        assert_refused(&desk, &entry, had);
        assert_eq!(posted(db, &available), had);
        sound(db);
    });
}
