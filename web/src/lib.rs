//! The server: site, agents' API, webhooks, payment rails, and the loops that follow the chain. The programs are `main.rs` and the benches.

mod agent_api;
pub mod app;
mod attempts;
mod auth;
pub mod config;
pub mod demo;
mod error;
pub mod fleet_commands;
mod form;
mod health;
mod lane;
mod mail;
mod pages;
pub mod planning;
mod rails;
mod render;
pub mod serve;
pub mod worker;
