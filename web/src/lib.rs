//! The server: site, agents' API, webhooks, payment rails, and the loops that follow the chain. The
//! programs are `main.rs` and the benches.

mod agent_api;
pub mod app;
mod attempts;
mod auth;
pub mod commands;
pub mod config;
pub mod demo;
mod error;
mod form;
mod health;
mod lane;
mod mail;
mod notify;
mod pages;
pub mod planning;
mod rails;
mod render;
pub mod serve;
mod visitor;
pub mod worker;
