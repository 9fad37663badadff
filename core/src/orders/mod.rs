//! Orders: quote, place (holds capacity), pay, expire, refund. Payment rails report here and nowhere else.

mod expire;
mod order;
mod pay;
mod place;
mod quote;
mod refund;

pub use expire::expire_due;
pub use order::{Order, OrderState, Payment, by_public_id, latest_payment, of_user, placed, recent, refunds_due};
pub use pay::{Paid, PayError, fulfil, open_payment, payment_by_ref};
pub use place::{PlaceError, PlaceOrder, place};
pub use quote::{Quote, Stock, quote};
pub use refund::refunded;
