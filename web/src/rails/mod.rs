//! Payment rails. Each reports its events through `core::payments::receive` and in no other way.

pub mod stripe;

use sealyard_core::{
    clock::Micros,
    orders::PayError,
    payments::{self, Fate, Incoming},
    store::AnyConnection,
};

use stripe::Event;

/// Books an event that Stripe reports, once. `None`: the text is not an event.
pub fn receive_stripe(
    conn: &mut AnyConnection,
    raw: &str,
    now: Micros,
) -> Result<Option<Fate>, PayError> {
    let Ok(event) = serde_json::from_str::<Event>(raw) else {
        return Ok(None);
    };
    let incoming = Incoming {
        id: &event.id,
        rail: stripe::RAIL,
        kind: &event.kind,
        raw,
    };
    payments::receive(conn, &incoming, &event.happening(), now).map(Some)
}
