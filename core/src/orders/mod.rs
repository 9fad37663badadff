//! Orders: quote, place (holds capacity), pay, expire, refund. Every payment report ends up here.

mod caps;
mod expire;
mod order;
mod pay;
mod place;
mod quote;
mod refund;

pub use caps::{Caps, check as check_caps};
pub use expire::{
    cancel, checkout_failed, due, expire, expire_due, payment_failed, payment_under_way, renew_hold,
};
pub use order::{
    Order, OrderState, Payment, PaymentState, by_id, by_public_id, latest_payment, of_user, placed,
    recent, refunds_due,
};
pub use pay::{Paid, PayError, fulfil, open_payment, payment_by_ref};
pub use place::{PlaceError, PlaceOrder, place};
pub use quote::{Quote, Stock, quote};
pub use refund::refunded;
