//! A file for each page or form, named after its address: who may use it, what it does, and what it
//! says to bad input.

mod admin;
mod agent;
mod contracts;
mod dashboard;
mod health;
mod index;
mod ledger;
mod login;
mod logout;
mod orders;
mod plans;
mod promises;
mod signup;
mod statements;
mod statics;
mod webhooks;

use std::{collections::BTreeSet, fs, path::Path};

use sealyard_core::{
    contracts::Contract,
    ids::UserId,
    orders::{Order, Paid, fulfil, latest_payment},
    store::{Database, DbFault},
};

use crate::{
    fixture::Shop,
    outside::customer::{self, Customer},
    support::root,
};

/// A shop with two customers and an operator.
struct Site {
    shop: Shop,
    db: Database,
    stranger: Customer,
    ada: Customer,
    bob: Customer,
    operator: Customer,
    _dir: tempfile::TempDir,
}

impl Site {
    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (shop, db) = customer::shop(dir.path(), "");
        Self {
            stranger: Customer::visitor(&shop),
            ada: Customer::signed_up(&shop, "ada@example.org").await,
            bob: Customer::signed_up(&shop, "bob@example.org").await,
            operator: Customer::operator(&shop).await,
            shop,
            db,
            _dir: dir,
        }
    }

    /// A page that strangers must sign in for, and from which they come back to it.
    async fn assert_needs_sign_in(&self, path: &str) {
        let answer = self.stranger.get(path).await;
        assert_eq!(answer.status, 303, "{path}");
        assert_eq!(answer.location, format!("/login?next={path}"));
    }

    /// A page that only its owner and the staff see.
    async fn assert_is_private(&self, path: &str) {
        self.assert_needs_sign_in(path).await;
        for (who, customer, expected) in [
            ("owner", &self.ada, 200),
            ("stranger", &self.bob, 404),
            ("staff", &self.operator, 200),
        ] {
            assert_eq!(
                customer.get(path).await.status,
                expected,
                "{path} for the {who}"
            );
        }
    }

    /// A page of the console.
    async fn assert_is_for_staff(&self, path: &str) {
        self.assert_needs_sign_in(path).await;
        for (who, customer, expected) in
            [("customer", &self.ada, 403), ("staff", &self.operator, 200)]
        {
            assert_eq!(
                customer.get(path).await.status,
                expected,
                "{path} for the {who}"
            );
        }
    }

    /// A form of the console, filled in well.
    async fn assert_form_is_for_staff(&self, path: &str, form: &[(&str, &str)]) {
        assert_eq!(self.stranger.post(path, form).await.status, 303, "{path}");
        assert_eq!(self.ada.post(path, form).await.status, 403, "{path}");
    }

    /// Pays for an order, as the provider's report does.
    fn pay(&self, order: &Order) -> Contract {
        let payment = self
            .db
            .read(|conn| Ok::<_, DbFault>(latest_payment(conn, order.id)?));
        let payment = payment.unwrap().unwrap();
        let currency = order.currency.clone();
        let paid = Paid {
            rail: &payment.rail,
            rail_ref: &payment.rail_ref,
            minor: order.amount_minor,
            currency: &currency,
        };
        self.db
            .transact(|conn| fulfil(conn, &paid, order.created_at))
            .unwrap()
            .unwrap()
    }

    /// A contract of Ada's.
    async fn contract(&self, units: i64) -> Contract {
        let order = self.ada.order(&self.db, units).await;
        self.pay(&order)
    }

    fn ada_id(&self) -> UserId {
        let found = self.db.read(|conn| {
            sealyard_core::accounts::by_email(conn, "ada@example.org").map_err(DbFault::from)
        });
        found.unwrap().unwrap().id
    }
}

/// The addresses that the server's source registers.
fn addresses() -> BTreeSet<String> {
    fn walk(folder: &Path, found: &mut BTreeSet<String>) {
        for path in fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
        {
            if path.is_dir() && !path.ends_with("demo") {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let scope = customer::between(&text, "web::scope(\"", "\"").unwrap_or_default();
                for opening in [".route(", "web::resource("] {
                    for call in text.split(opening).skip(1) {
                        let argument = call.trim_start().strip_prefix('"');
                        let address = argument.and_then(|text| text.split('"').next());
                        found.extend(address.map(|address| format!("{scope}{address}")));
                    }
                }
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(&root().join("web/src"), &mut found);
    found.retain(|address| address.starts_with('/'));
    found
}

/// The file of an address, and the parts of the address that the file must name.
fn file_of(address: &str) -> (String, Vec<&str>) {
    let parts: Vec<&str> = address
        .split('/')
        .filter(|part| !part.is_empty() && !part.starts_with('{'))
        .collect();
    let file = match parts.as_slice() {
        [] => "index".to_owned(),
        ["healthz" | "readyz" | "metrics", ..] => "health".into(),
        ["admin"] => "admin/mod".into(),
        ["admin", noun, ..] => format!("admin/{noun}"),
        [noun, ..] => (*noun).to_owned(),
    };
    (file, parts)
}

#[test]
fn every_address_is_tested_in_the_file_of_its_name() {
    let all = addresses();
    assert!(
        all.len() > 30,
        "only {} addresses were found: {all:?}",
        all.len()
    );
    for address in &all {
        let (file, parts) = file_of(address);
        let path = root().join("tests/src/routes").join(format!("{file}.rs"));
        let text = fs::read_to_string(&path).unwrap_or_else(|_| panic!("{address}: no {file}.rs"));
        for part in parts {
            assert!(
                text.contains(part),
                "{address}: {file}.rs does not name {part:?}"
            );
        }
    }
}
