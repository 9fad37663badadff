//! Rows of orders and payments.

use diesel::{deserialize::FromSqlRow, expression::AsExpression, prelude::*, sql_types::Text};

use crate::{
    clock::Micros,
    ids::{OrderId, PlanId, PoolId, UserId},
    money::Fiat,
    store::{
        AnyConnection, DbResult,
        schema::{orders, payments},
    },
    stored_as_text,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
pub enum OrderState {
    /// Capacity is held until `expires_at`.
    Placed,
    /// Paid: the contract exists.
    Fulfilled,
    /// The hold was released before a payment came.
    Expired,
    /// Paid too late: the time to pay had run out, and the order could no longer be sold. The money
    /// goes back.
    RefundDue,
}

stored_as_text!(OrderState {
    Placed => "placed",
    Fulfilled => "fulfilled",
    Expired => "expired",
    RefundDue => "refund_due",
});

#[derive(Clone, Debug, Queryable)]
pub struct Order {
    pub id: OrderId,
    pub public_id: String,
    pub user_id: UserId,
    pub plan_id: PlanId,
    pub pool_id: PoolId,
    pub units: i64,
    pub bytes: i64,
    pub amount_minor: i64,
    pub currency: String,
    pub terms: String,
    pub state: OrderState,
    pub request_key: String,
    pub promised_at: Micros,
    pub created_at: Micros,
    pub expires_at: Micros,
    pub paid_at: Option<Micros>,
    /// nanoFIL that the buyer puts up for each sector.
    pub pledge_each_nano: i64,
    /// When an order that was due a refund was refunded.
    pub refunded_at: Option<Micros>,
    /// The date computed when the order was placed, even if the buyer was shown and promised an
    /// earlier one.
    pub computed_at: Micros,
    /// When its payment got under way. A bank debit takes days; the capacity is held until the rail
    /// reports the outcome.
    pub paying_since: Option<Micros>,
    pub cancelled_at: Option<Micros>,
    /// Errors that the rail has given for payment page requests. It repeats an error under the same
    /// key, so this number is part of the key.
    pub checkout_attempts: i64,
}

impl Order {
    #[must_use]
    pub fn is(&self, state: OrderState) -> bool {
        self.state == state
    }

    /// nanoFIL that the buyer puts up for the whole order.
    #[must_use]
    pub fn pledge_nano(&self, sector_bytes: i64) -> i64 {
        self.pledge_each_nano
            .saturating_mul(self.bytes / sector_bytes.max(1))
    }

    #[must_use]
    pub fn price(&self) -> Fiat {
        Fiat {
            minor: self.amount_minor,
            currency: self.currency.clone(),
        }
    }
}

/// Whether a payment page has been paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
pub enum PaymentState {
    Open,
    Paid,
}

stored_as_text!(PaymentState { Open => "open", Paid => "paid" });

#[derive(Clone, Debug, Queryable)]
pub struct Payment {
    pub id: i64,
    pub order_id: OrderId,
    pub rail: String,
    pub rail_ref: String,
    pub pay_url: String,
    pub state: PaymentState,
    pub created_at: Micros,
    pub paid_at: Option<Micros>,
    /// The rail's id of the payment, which refunds and disputes refer to.
    pub intent: Option<String>,
}

pub fn by_public_id(conn: &mut AnyConnection, id: &str) -> DbResult<Option<Order>> {
    orders::table
        .filter(orders::public_id.eq(id))
        .first(conn)
        .optional()
}

pub fn by_id(conn: &mut AnyConnection, id: OrderId) -> DbResult<Order> {
    orders::table.find(id).first(conn)
}

pub fn of_user(conn: &mut AnyConnection, user: UserId) -> DbResult<Vec<Order>> {
    orders::table
        .filter(orders::user_id.eq(user))
        .order(orders::id.desc())
        .limit(100)
        .load(conn)
}

/// Orders that are not paid yet and still hold capacity.
pub fn placed(conn: &mut AnyConnection, now: Micros) -> DbResult<Vec<Order>> {
    let holding = orders::expires_at
        .gt(now)
        .or(orders::paying_since.is_not_null());
    let open = orders::state.eq(OrderState::Placed).and(holding);
    orders::table
        .filter(open)
        .order(orders::id.asc())
        .load(conn)
}

pub fn recent(conn: &mut AnyConnection, limit: i64) -> DbResult<Vec<Order>> {
    orders::table
        .order(orders::id.desc())
        .limit(limit)
        .load(conn)
}

/// Number of orders that were paid too late and await their refund.
pub fn refunds_due(conn: &mut AnyConnection) -> DbResult<i64> {
    let due = orders::state
        .eq(OrderState::RefundDue)
        .and(orders::refunded_at.is_null());
    orders::table.filter(due).count().get_result(conn)
}

pub fn latest_payment(conn: &mut AnyConnection, order: OrderId) -> DbResult<Option<Payment>> {
    payments::table
        .filter(payments::order_id.eq(order))
        .order(payments::id.desc())
        .first(conn)
        .optional()
}
