//! Payment rails. Each reports money through `core::orders::fulfil` and nothing else.

pub mod stripe;
