//! End-to-end flows, including hostile ones. Tests that use a database run on both SQLite and
//! PostgreSQL.

#![cfg(test)]

mod books;
mod browser;
mod devnet;
mod fixture;
mod full_cycle;
mod histories;
mod leases;
mod moves;
mod openrpc;
mod outside;
mod proxy;
mod random_days;
mod routes;
mod sales;
mod support;
mod terms;
mod tidy;
