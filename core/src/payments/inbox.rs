//! The inbox keeps every event that a rail sends. Each is applied, found not to be ours, or left
//! for a person; none is dropped silently.

use diesel::{deserialize::FromSqlRow, expression::AsExpression, prelude::*, sql_types::Text};

use crate::{
    clock::{DAY, Micros},
    ids::UserId,
    jobs::{self, AlertKind},
    ledger::{self, AccountSpec, Transfer},
    on_conn,
    orders::{self, Order, Paid, PayError},
    store::{
        AnyConnection, DbResult,
        schema::{orders as o, payments, webhook_events},
    },
    stored_as_text,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
pub enum Fate {
    Applied,
    /// It belongs to somebody else who uses the same account.
    NotOurs,
    NeedsAPerson,
}

stored_as_text!(Fate {
    Applied => "applied",
    NotOurs => "not_ours",
    NeedsAPerson => "needs_a_person",
});

/// The content of an event, independent of the rail. `page` is the rail's id of a payment page,
/// `order` the order that the page was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    Paid {
        page: String,
        order: Option<String>,
        minor: i64,
        currency: String,
        intent: Option<String>,
    },
    UnderWay {
        page: String,
        order: Option<String>,
        intent: Option<String>,
    },
    Failed {
        page: String,
        order: Option<String>,
    },
    /// Nobody paid on the page in time.
    PageExpired {
        page: String,
        order: Option<String>,
    },
    /// Money went back. `minor` is the total so far.
    Refunded {
        intent: String,
        minor: i64,
        currency: String,
    },
    /// The payer's bank asks for the money back.
    Disputed {
        intent: String,
        what: String,
    },
    /// Nothing that concerns an order.
    Other,
}

/// An event as received.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    pub id: &'a str,
    pub rail: &'a str,
    pub kind: &'a str,
    pub raw: &'a str,
}

/// Applies an event and stores it with its fate, in one transaction. Receiving it again changes
/// nothing.
pub fn receive(conn: &mut AnyConnection, incoming: &Incoming<'_>, happening: &Happening, now: Micros) -> Result<Fate, PayError> {
    let values = (
        webhook_events::id.eq(incoming.id),
        webhook_events::rail.eq(incoming.rail),
        webhook_events::kind.eq(incoming.kind),
        webhook_events::raw.eq(incoming.raw),
        webhook_events::received_at.eq(now),
        webhook_events::fate.eq(Fate::NeedsAPerson),
        webhook_events::note.eq("received"),
    );
    let new =
        on_conn!(&mut *conn, |c| diesel::insert_into(webhook_events::table).values(values).on_conflict_do_nothing().execute(c))?;
    if new == 0 {
        return webhook_events::table.find(incoming.id).select(webhook_events::fate).first(conn).map_err(Into::into);
    }
    let (fate, note) = apply(conn, incoming.rail, happening, now)?;
    diesel::update(webhook_events::table.find(incoming.id))
        .set((webhook_events::fate.eq(fate), webhook_events::note.eq(&note)))
        .execute(conn)?;
    if fate == Fate::NeedsAPerson {
        let text = format!("{} {}: {note}", incoming.rail, incoming.kind.replace(['.', '_'], " "));
        jobs::raise(conn, AlertKind::Payment, incoming.id, &text, now)?;
    }
    Ok(fate)
}

type Outcome = (Fate, String);

/// The owner of a payment page.
enum Owner {
    /// One of our orders.
    Order(Box<Order>),
    /// One of our orders that is missing from these books.
    Lost(String),
    Nobody,
}

fn owner(conn: &mut AnyConnection, rail: &str, page: &str, order: Option<&str>, now: Micros) -> DbResult<Owner> {
    if let Some(payment) = orders::payment_by_ref(conn, rail, page)? {
        return Ok(Owner::Order(Box::new(o::table.find(payment.order_id).first(conn)?)));
    }
    let Some(named) = order.filter(|named| named.starts_with("ord_")) else { return Ok(Owner::Nobody) };
    match orders::by_public_id(conn, named)? {
        Some(order) => {
            // The event came before the rail's answer that names the page.
            orders::open_payment(conn, order.id, rail, page, "", now)?;
            Ok(Owner::Order(Box::new(order)))
        }
        None => Ok(Owner::Lost(named.to_owned())),
    }
}

fn apply(conn: &mut AnyConnection, rail: &str, happening: &Happening, now: Micros) -> Result<Outcome, PayError> {
    let not_ours = || (Fate::NotOurs, "no order of this installation".to_owned());
    let applied = |note: &str| (Fate::Applied, note.to_owned());
    let (page, named) = match happening {
        Happening::Paid { page, order, .. }
        | Happening::UnderWay { page, order, .. }
        | Happening::Failed { page, order }
        | Happening::PageExpired { page, order } => (page, order.as_deref()),
        Happening::Refunded { intent, minor, currency } => return refunded(conn, rail, intent, (*minor, currency)),
        Happening::Disputed { intent, what } => {
            return Ok(match by_intent(conn, rail, intent)? {
                None => not_ours(),
                Some(order) => (Fate::NeedsAPerson, format!("the payment of order {} is disputed: {what}", order.public_id)),
            });
        }
        Happening::Other => return Ok(applied("nothing to do")),
    };
    let order = match (owner(conn, rail, page, named, now)?, happening) {
        (Owner::Order(order), _) => order,
        (Owner::Nobody, _) => return Ok(not_ours()),
        (Owner::Lost(order), Happening::Paid { minor, currency, .. }) => {
            suspend(conn, (rail, page), (*minor, currency), now)?;
            return Ok((
                Fate::NeedsAPerson,
                format!("{minor} {currency} minor units were paid for order {order}, which is not in these books"),
            ));
        }
        (Owner::Lost(order), _) => return Ok((Fate::NeedsAPerson, format!("order {order} is not in these books"))),
    };
    match happening {
        Happening::Paid { minor, currency, intent, .. } => {
            note_intent(conn, rail, page, intent.as_deref())?;
            paid(conn, (rail, page), (*minor, currency), now)
        }
        Happening::UnderWay { intent, .. } => {
            note_intent(conn, rail, page, intent.as_deref())?;
            let held = orders::payment_under_way(conn, order.id, now)?;
            Ok(applied(if held { "the payment is under way" } else { "the payment is under way; the order had already ended" }))
        }
        Happening::Failed { .. } => {
            let ended = orders::payment_failed(conn, order.id, now)?;
            Ok(applied(if ended { "the payment failed; the order has ended" } else { "the payment failed" }))
        }
        _ => Ok(applied("nothing to do")),
    }
}

fn paid(
    conn: &mut AnyConnection,
    (rail, page): (&str, &str),
    (minor, currency): (i64, &str),
    now: Micros,
) -> Result<Outcome, PayError> {
    let paid = Paid { rail, rail_ref: page, minor, currency };
    match orders::fulfil(conn, &paid, now) {
        Ok(Some(contract)) => Ok((Fate::Applied, format!("contract {}", contract.public_id))),
        Ok(None) => Ok((Fate::Applied, "it came too late: the order needs a refund".into())),
        Err(error @ (PayError::WrongAmount { .. } | PayError::Twice { .. })) => {
            suspend(conn, (rail, page), (minor, currency), now)?;
            Ok((Fate::NeedsAPerson, error.to_string()))
        }
        Err(error) => Err(error),
    }
}

/// Books money that fits no order as suspense; a person decides whose it is.
fn suspend(
    conn: &mut AnyConnection,
    (rail, page): (&str, &str),
    (minor, currency): (i64, &str),
    now: Micros,
) -> Result<(), PayError> {
    if minor <= 0 {
        return Ok(());
    }
    let currency = currency.to_uppercase();
    let transfer = Transfer {
        id: format!("suspense:{rail}:{page}"),
        from: AccountSpec::Rail { rail: rail.to_owned(), currency: currency.clone() },
        to: AccountSpec::Suspense { currency },
        amount: minor,
        kind: "suspense",
        subject: page.to_owned(),
        effective_day: now.div_euclid(DAY),
        booked_at: now,
    };
    Ok(ledger::post(conn, &transfer)?)
}

fn note_intent(conn: &mut AnyConnection, rail: &str, page: &str, intent: Option<&str>) -> DbResult<()> {
    let Some(intent) = intent else { return Ok(()) };
    let row = payments::table.filter(payments::rail.eq(rail).and(payments::rail_ref.eq(page)));
    diesel::update(row).set(payments::intent.eq(intent)).execute(conn).map(drop)
}

fn by_intent(conn: &mut AnyConnection, rail: &str, intent: &str) -> DbResult<Option<Order>> {
    let its = payments::table.filter(payments::rail.eq(rail).and(payments::intent.eq(intent))).select(payments::order_id);
    o::table.filter(o::id.eq_any(its)).first(conn).optional()
}

fn refunded(conn: &mut AnyConnection, rail: &str, intent: &str, (minor, currency): (i64, &str)) -> Result<Outcome, PayError> {
    let Some(order) = by_intent(conn, rail, intent)? else {
        return Ok((Fate::NotOurs, "no order of this installation".to_owned()));
    };
    if order.refunded_at.is_some() && minor == order.amount_minor {
        return Ok((Fate::Applied, format!("the refund of order {} is in the books", order.public_id)));
    }
    let id = &order.public_id;
    Ok((
        Fate::NeedsAPerson,
        format!(
            "{minor} {currency} minor units of order {id} were refunded by the payment provider, but the books do not show it; \
             if the order needs a refund, record it with `sealyard refunded {id} --by …`"
        ),
    ))
}

/// An event that needs a person.
#[derive(Clone, Debug, Queryable)]
pub struct Waiting {
    pub id: String,
    pub kind: String,
    pub note: String,
    pub received_at: Micros,
}

/// Events that need a person, oldest first.
pub fn waiting(conn: &mut AnyConnection) -> DbResult<Vec<Waiting>> {
    webhook_events::table
        .filter(webhook_events::fate.eq(Fate::NeedsAPerson))
        .order(webhook_events::received_at.asc())
        .select((webhook_events::id, webhook_events::kind, webhook_events::note, webhook_events::received_at))
        .limit(200)
        .load(conn)
}

/// Marks an event as dealt with by a person. False: it did not need one.
pub fn settle(conn: &mut AnyConnection, id: &str, by: UserId, now: Micros) -> DbResult<bool> {
    let row = webhook_events::table.filter(webhook_events::id.eq(id).and(webhook_events::fate.eq(Fate::NeedsAPerson)));
    if diesel::update(row).set(webhook_events::fate.eq(Fate::Applied)).execute(conn)? == 0 {
        return Ok(false);
    }
    jobs::clear(conn, AlertKind::Payment, id)?;
    crate::accounts::record(conn, now, Some(by), "payment event settled", id, "")?;
    Ok(true)
}
