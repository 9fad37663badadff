//! Orders and payments, and the promises that come with them.

use std::collections::HashMap;

use sealyard_core::{
    clock::{DAY, SECOND},
    orders::{self, Paid, PlaceOrder},
    scheduler::{self, Outlook},
    store::{AnyConnection, DbFault},
};

use super::Fixture;

/// A sector counts within this time after its activation.
const FIRST_POST: i64 = DAY;
/// C2 of a test sector. A running step is never interrupted, so a sale may delay others by this
/// long.
const LONGEST_STEP: i64 = 90 * SECOND;

/// Promised dates by contract and by unpaid order.
struct Promises {
    contracts: HashMap<i64, i64>,
    orders: HashMap<i64, i64>,
}

impl Promises {
    /// A new sale may take up to one running step longer than the schedule said, not more.
    fn assert_kept(&self, before: &Outlook, after: &Outlook) {
        let both = [
            (&self.contracts, &before.contracts, &after.contracts),
            (&self.orders, &before.orders, &after.orders),
        ];
        for (promised, before, after) in both {
            for (id, was) in before {
                let (Some(date), Some(is)) = (promised.get(id), after.get(id)) else {
                    continue;
                };
                let (was, is) = (was + FIRST_POST, is + FIRST_POST);
                let late = is > *date && (was <= *date || is > was + LONGEST_STEP);
                assert!(
                    !late,
                    "a sale delays {id} from {was} to {is}, promised for {date}"
                );
            }
        }
    }
}

impl Fixture<'_> {
    /// A promise is made only if the current schedule keeps it and still keeps every older promise
    /// that it kept before.
    pub(super) fn place(&mut self) {
        let before = self.outlook();
        let units = 1 + i64::try_from(self.rng.below(5)).unwrap();
        self.keys += 1;
        let key = format!("key {}", self.keys);
        let request = PlaceOrder {
            user: self.user,
            plan: &self.plan,
            units,
            request_key: &key,
            shown: None,
        };
        let Ok(order) = self
            .db
            .transact(|conn| orders::place(conn, &request, self.now))
        else {
            return;
        };
        let reference = format!("cs_{}", order.id);
        let open = |conn: &mut AnyConnection| {
            Ok::<_, DbFault>(orders::open_payment(
                conn,
                order.id,
                "stripe",
                &reference,
                "http://pay",
                self.now,
            )?)
        };
        self.db.transact(open).unwrap();
        let after = self.outlook();
        let done = after
            .orders
            .get(&order.id.0)
            .expect("a promised order is missing in the outlook");
        assert!(
            done + FIRST_POST <= order.promised_at,
            "the schedule does not keep the promise just made"
        );
        self.promises().assert_kept(&before, &after);
        self.placed.push(order);
    }

    fn promises(&self) -> Promises {
        let snapshot = self
            .db
            .read(|conn| scheduler::load(conn, self.now).map_err(DbFault::from))
            .unwrap();
        let of = |held: bool| {
            snapshot
                .commitments
                .iter()
                .filter(|o| (o.held > 0) == held)
                .map(|o| (o.id, o.promised_at))
                .collect()
        };
        Promises {
            contracts: of(false),
            orders: of(true),
        }
    }

    pub(super) fn pay(&mut self) {
        if self.placed.is_empty() {
            return;
        }
        let before = self.outlook();
        let at = self.rng.below(self.placed.len());
        let order = self.placed.swap_remove(at);
        let reference = format!("cs_{}", order.id);
        let paid = Paid {
            rail: "stripe",
            rail_ref: &reference,
            minor: order.amount_minor,
            currency: "usd",
        };
        let contract = self
            .db
            .transact(|conn| orders::fulfil(conn, &paid, self.now))
            .unwrap();
        assert_eq!(
            contract.is_none(),
            self.db
                .transact(|conn| orders::fulfil(conn, &paid, self.now))
                .unwrap()
                .is_none()
        );
        if let Some(contract) = contract {
            let after = self.outlook();
            let mut promises = self.promises();
            promises.contracts.remove(&contract.id.0);
            promises.assert_kept(&before, &after);
        }
    }
}
