//! `sealyard machine` and `sealyard token`: the fleet from the command line.

use anyhow::Context;
use sealyard_core::{
    clock::{self, Clock, SystemClock},
    fleet,
    store::{Database, DbFault},
};

#[derive(clap::Subcommand)]
pub enum MachineCommand {
    /// List machines, with the state of each and when it was last heard from.
    List,
    /// Withdraw a machine's key: it gets no more work, and its results are not accepted.
    Revoke { name: String },
    /// Remove a revoked machine that stores no sectors.
    Remove { name: String },
    /// Print a token that gives the machine's agent a new key (`--renew-key`).
    NewKey { name: String },
}

#[derive(clap::Subcommand)]
pub enum TokenCommand {
    /// Print a token that enrols one machine under this name. It is valid for one day.
    New { name: String },
    /// List unused tokens. The tokens themselves are not stored.
    List,
    /// Withdraw all unused tokens for this name.
    Withdraw { name: String },
}

/// The listed machine of that name.
fn machine_named(db: &Database, name: &str) -> anyhow::Result<fleet::Machine> {
    let machines = db.read(|conn| fleet::machines(conn).map_err(DbFault::from))?;
    machines
        .into_iter()
        .find(|m| m.name == name)
        .with_context(|| format!("no machine is called {name}; see `sealyard machine list`"))
}

pub fn machine(db: &Database, what: &MachineCommand) -> anyhow::Result<()> {
    let now = SystemClock.now();
    match what {
        MachineCommand::List => list_machines(db),
        MachineCommand::Revoke { name } => {
            let machine = machine_named(db, name)?;
            let done = db.write(|conn| fleet::revoke(conn, machine.id, now))?;
            anyhow::ensure!(done, "{name} is already revoked");
            println!(
                "{name} is revoked: its key is no longer valid, and its work goes to other machines"
            );
            Ok(())
        }
        MachineCommand::Remove { name } => {
            let machine = machine_named(db, name)?;
            let done = db.write(|conn| fleet::remove(conn, machine.id, now))?;
            anyhow::ensure!(
                done,
                "{name} cannot be removed yet: revoke it first, then wait until it stores no \
                 sectors"
            );
            println!("{name} was removed");
            Ok(())
        }
        MachineCommand::NewKey { name } => {
            let machine = machine_named(db, name)?;
            let token =
                db.write(|conn| fleet::new_key_token(conn, &machine, now, now + clock::DAY))?;
            println!("{token}");
            eprintln!(
                "Start {name}'s agent once with this token and --renew-key, within a day. \
                 Its current key stays valid until then."
            );
            Ok(())
        }
    }
}

fn list_machines(db: &Database) -> anyhow::Result<()> {
    for m in db.read(|conn| fleet::machines(conn).map_err(DbFault::from))? {
        let state = if m.revoked_at.is_some() {
            "revoked"
        } else if m.is_lost() {
            "lost"
        } else {
            m.state.name()
        };
        let seen = clock::minute_text(m.seen_at);
        println!("{}  {state}  seen {seen} UTC", m.name);
    }
    Ok(())
}

pub fn token(db: &Database, what: &TokenCommand) -> anyhow::Result<()> {
    let now = SystemClock.now();
    let open = db.read(|conn| fleet::open_tokens(conn, now).map_err(DbFault::from))?;
    match what {
        TokenCommand::New { name } => {
            println!(
                "{}",
                db.write(|conn| fleet::new_token(conn, name, now, now + clock::DAY))?
            );
        }
        TokenCommand::List => {
            for token in open {
                println!(
                    "{}  created {} UTC, valid until {} UTC",
                    token.name,
                    clock::minute_text(token.created_at),
                    clock::minute_text(token.expires_at)
                );
            }
        }
        TokenCommand::Withdraw { name } => {
            let of_name: Vec<_> = open
                .into_iter()
                .filter(|token| token.name == *name)
                .collect();
            anyhow::ensure!(
                !of_name.is_empty(),
                "there is no unused token for {name}; see `sealyard token list`"
            );
            for token in &of_name {
                db.write(|conn| fleet::withdraw_token(conn, &token.digest, now))?;
            }
            println!("{} tokens for {name} are withdrawn", of_name.len());
        }
    }
    Ok(())
}
