//! The inbox keeps every event that a rail sends. Each is applied, found not to be ours, or left
//! for a person; none is dropped silently.

use diesel::{deserialize::FromSqlRow, expression::AsExpression, prelude::*, sql_types::Text};

use crate::{
    clock::{DAY, Micros},
    ids::{OrderId, UserId},
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
pub fn receive(
    conn: &mut AnyConnection,
    incoming: &Incoming<'_>,
    happening: &Happening,
    now: Micros,
) -> Result<Fate, PayError> {
    let values = (
        webhook_events::id.eq(incoming.id),
        webhook_events::rail.eq(incoming.rail),
        webhook_events::kind.eq(incoming.kind),
        webhook_events::raw.eq(incoming.raw),
        webhook_events::received_at.eq(now),
        webhook_events::fate.eq(Fate::NeedsAPerson),
        webhook_events::note.eq("received"),
    );
    let new = on_conn!(&mut *conn, |c| diesel::insert_into(webhook_events::table)
        .values(values)
        .on_conflict_do_nothing()
        .execute(c))?;
    if new == 0 {
        return webhook_events::table
            .find(incoming.id)
            .select(webhook_events::fate)
            .first(conn)
            .map_err(Into::into);
    }
    let (fate, note) = apply(conn, incoming.rail, happening, now)?;
    diesel::update(webhook_events::table.find(incoming.id))
        .set((
            webhook_events::fate.eq(fate),
            webhook_events::note.eq(&note),
        ))
        .execute(conn)?;
    if fate == Fate::NeedsAPerson {
        let text = format!(
            "{} {}: {note}",
            incoming.rail,
            incoming.kind.replace(['.', '_'], " ")
        );
        jobs::raise(conn, AlertKind::Payment, incoming.id, &text, now)?;
    }
    Ok(fate)
}

type Outcome = (Fate, String);

fn applied(note: &str) -> Outcome {
    (Fate::Applied, note.to_owned())
}

fn not_ours() -> Outcome {
    (Fate::NotOurs, "no order of this installation".to_owned())
}

fn needs_a_person(note: String) -> Outcome {
    (Fate::NeedsAPerson, note)
}

fn apply(
    conn: &mut AnyConnection,
    rail: &str,
    happening: &Happening,
    now: Micros,
) -> Result<Outcome, PayError> {
    match happening {
        Happening::Paid { page, order, .. }
        | Happening::UnderWay { page, order, .. }
        | Happening::Failed { page, order }
        | Happening::PageExpired { page, order } => {
            let page = Page { rail, id: page };
            match owner(conn, page, order.as_deref(), now)? {
                Owner::Order(order) => apply_to_order(conn, page, order.id, happening, now),
                Owner::Lost(order) => lost(conn, page, &order, happening, now),
                Owner::Nobody => Ok(not_ours()),
            }
        }
        Happening::Refunded {
            intent,
            minor,
            currency,
        } => refunded(conn, rail, intent, (*minor, currency)),
        Happening::Disputed { intent, what } => disputed(conn, rail, intent, what),
        Happening::Other => Ok(applied("nothing to do")),
    }
}

/// A payment page, by the rail's id.
#[derive(Clone, Copy)]
struct Page<'a> {
    rail: &'a str,
    id: &'a str,
}

/// The owner of a payment page.
enum Owner {
    /// One of our orders.
    Order(Box<Order>),
    /// One of our orders that is missing from these books.
    Lost(String),
    Nobody,
}

fn owner(
    conn: &mut AnyConnection,
    page: Page<'_>,
    order: Option<&str>,
    now: Micros,
) -> DbResult<Owner> {
    if let Some(payment) = orders::payment_by_ref(conn, page.rail, page.id)? {
        return Ok(Owner::Order(Box::new(
            o::table.find(payment.order_id).first(conn)?,
        )));
    }
    let Some(named) = order.filter(|named| named.starts_with("ord_")) else {
        return Ok(Owner::Nobody);
    };
    match orders::by_public_id(conn, named)? {
        Some(order) => {
            // The event came before the rail's answer that names the page.
            orders::open_payment(conn, order.id, page.rail, page.id, "", now)?;
            Ok(Owner::Order(Box::new(order)))
        }
        None => Ok(Owner::Lost(named.to_owned())),
    }
}

fn apply_to_order(
    conn: &mut AnyConnection,
    page: Page<'_>,
    order: OrderId,
    happening: &Happening,
    now: Micros,
) -> Result<Outcome, PayError> {
    match happening {
        Happening::Paid {
            minor,
            currency,
            intent,
            ..
        } => {
            note_intent(conn, page, intent.as_deref())?;
            paid(conn, page, (*minor, currency), now)
        }
        Happening::UnderWay { intent, .. } => {
            note_intent(conn, page, intent.as_deref())?;
            let held = orders::payment_under_way(conn, order, now)?;
            Ok(applied(if held {
                "the payment is under way"
            } else {
                "the payment is under way; the order had already ended"
            }))
        }
        Happening::Failed { .. } => {
            let ended = orders::payment_failed(conn, order, now)?;
            Ok(applied(if ended {
                "the payment failed; the order has ended"
            } else {
                "the payment failed"
            }))
        }
        _ => Ok(applied("nothing to do")),
    }
}

/// An event of an order that is missing from these books.
fn lost(
    conn: &mut AnyConnection,
    page: Page<'_>,
    order: &str,
    happening: &Happening,
    now: Micros,
) -> Result<Outcome, PayError> {
    let Happening::Paid {
        minor, currency, ..
    } = happening
    else {
        return Ok(needs_a_person(format!(
            "order {order} is not in these books"
        )));
    };
    suspend(conn, page, (*minor, currency), now)?;
    Ok(needs_a_person(format!(
        "{minor} {currency} minor units were paid for order {order}, \
         which is not in these books"
    )))
}

fn paid(
    conn: &mut AnyConnection,
    page: Page<'_>,
    (minor, currency): (i64, &str),
    now: Micros,
) -> Result<Outcome, PayError> {
    let paid = Paid {
        rail: page.rail,
        rail_ref: page.id,
        minor,
        currency,
    };
    match orders::fulfil(conn, &paid, now) {
        Ok(Some(contract)) => Ok((Fate::Applied, format!("contract {}", contract.public_id))),
        Ok(None) => Ok(applied("it came too late: the order needs a refund")),
        Err(error @ (PayError::WrongAmount { .. } | PayError::Twice { .. })) => {
            suspend(conn, page, (minor, currency), now)?;
            Ok(needs_a_person(error.to_string()))
        }
        Err(error) => Err(error),
    }
}

/// Books money that fits no order as suspense; a person decides whose it is.
fn suspend(
    conn: &mut AnyConnection,
    page: Page<'_>,
    (minor, currency): (i64, &str),
    now: Micros,
) -> Result<(), PayError> {
    if minor <= 0 {
        return Ok(());
    }
    let currency = currency.to_uppercase();
    let transfer = Transfer {
        id: format!("suspense:{}:{}", page.rail, page.id),
        from: AccountSpec::Rail {
            rail: page.rail.to_owned(),
            currency: currency.clone(),
        },
        to: AccountSpec::Suspense { currency },
        amount: minor,
        kind: "suspense",
        subject: page.id.to_owned(),
        effective_day: now.div_euclid(DAY),
        booked_at: now,
    };
    Ok(ledger::post(conn, &transfer)?)
}

fn note_intent(conn: &mut AnyConnection, page: Page<'_>, intent: Option<&str>) -> DbResult<()> {
    let Some(intent) = intent else { return Ok(()) };
    let its = payments::rail
        .eq(page.rail)
        .and(payments::rail_ref.eq(page.id));
    let row = payments::table.filter(its);
    diesel::update(row)
        .set(payments::intent.eq(intent))
        .execute(conn)
        .map(drop)
}

fn by_intent(conn: &mut AnyConnection, rail: &str, intent: &str) -> DbResult<Option<Order>> {
    let its = payments::table
        .filter(payments::rail.eq(rail).and(payments::intent.eq(intent)))
        .select(payments::order_id);
    o::table.filter(o::id.eq_any(its)).first(conn).optional()
}

fn refunded(
    conn: &mut AnyConnection,
    rail: &str,
    intent: &str,
    (minor, currency): (i64, &str),
) -> Result<Outcome, PayError> {
    let Some(order) = by_intent(conn, rail, intent)? else {
        return Ok(not_ours());
    };
    let id = &order.public_id;
    if order.refunded_at.is_some() && minor == order.amount_minor {
        let note = format!("the refund of order {id} is in the books");
        return Ok((Fate::Applied, note));
    }
    Ok(needs_a_person(format!(
        "{minor} {currency} minor units of order {id} were refunded by the payment provider, \
         but the books do not show it; \
         if the order needs a refund, record it with `sealyard refunded {id} --by …`"
    )))
}

fn disputed(
    conn: &mut AnyConnection,
    rail: &str,
    intent: &str,
    what: &str,
) -> Result<Outcome, PayError> {
    Ok(match by_intent(conn, rail, intent)? {
        None => not_ours(),
        Some(order) => needs_a_person(format!(
            "the payment of order {} is disputed: {what}",
            order.public_id
        )),
    })
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
        .select((
            webhook_events::id,
            webhook_events::kind,
            webhook_events::note,
            webhook_events::received_at,
        ))
        .limit(200)
        .load(conn)
}

/// Marks an event as dealt with by a person. False: it did not need one.
pub fn settle(conn: &mut AnyConnection, id: &str, by: UserId, now: Micros) -> DbResult<bool> {
    let row = webhook_events::table.filter(
        webhook_events::id
            .eq(id)
            .and(webhook_events::fate.eq(Fate::NeedsAPerson)),
    );
    if diesel::update(row)
        .set(webhook_events::fate.eq(Fate::Applied))
        .execute(conn)?
        == 0
    {
        return Ok(false);
    }
    jobs::clear(conn, AlertKind::Payment, id)?;
    crate::accounts::record(conn, now, Some(by), "payment event settled", id, "")?;
    Ok(true)
}
