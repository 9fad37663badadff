//! Reads `sealsched-instance/1` into the planner's types.

use std::{collections::BTreeMap, fs::File, io::BufReader, path::Path};

use anyhow::{Context, ensure};
use sealyard_planner::{
    Class, Delays, Durations, Fleet, Key, Kind, KindIx, Machine, Moves, Need, Order, Pool, PoolIx,
    Secs,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Instance {
    format: String,
    name: String,
    params: Params,
    sector_types: BTreeMap<String, SectorType>,
    pools: Vec<PoolRow>,
    classes: BTreeMap<String, ClassRow>,
    machines: Vec<MachineRow>,
    gas_blocked: Vec<(Secs, Secs)>,
    orders: Vec<OrderRow>,
}

#[derive(Deserialize)]
struct Params {
    msg_s: Secs,
    seed_wait_s: Secs,
    c1_s: Secs,
    ticket_max_age_s: Secs,
    prove_max_s: Secs,
}

#[derive(Deserialize)]
struct SectorType {
    need: Needs,
    scratch_full: i32,
    scratch_keep: i32,
    stored: i32,
}

#[derive(Deserialize)]
struct Needs {
    p1: NeedRow,
    p2: NeedRow,
    c2: NeedRow,
}

#[derive(Deserialize)]
struct NeedRow {
    cores: i32,
    ram: i32,
    #[serde(default)]
    gpus: i32,
}

#[derive(Deserialize)]
struct PoolRow {
    xfer_s: BTreeMap<String, Xfer>,
}

#[derive(Deserialize)]
struct Xfer {
    layers: Secs,
    sealed: Secs,
}

#[derive(Deserialize)]
struct ClassRow {
    cores: i32,
    ram: i32,
    gpus: i32,
    scratch: i32,
    store: i32,
    nic: i32,
    dur: BTreeMap<String, Dur>,
}

#[derive(Deserialize, Default)]
struct Dur {
    #[serde(default)]
    p1: Secs,
    #[serde(default)]
    p2: Secs,
    #[serde(default)]
    c2: Secs,
}

#[derive(Deserialize)]
struct MachineRow {
    pool: usize,
    cls: String,
    #[serde(default)]
    down: Vec<(Secs, Secs)>,
}

#[derive(Deserialize)]
struct OrderRow {
    id: i64,
    pool: i64,
    r#type: String,
    n: u32,
    release: Secs,
    step: Secs,
    due: Secs,
    weight: i64,
}

pub struct Loaded {
    pub name: String,
    pub fleet: Fleet,
    pub orders: Vec<Order>,
}

/// Reads an instance. Without `clairvoyant`, each order becomes known at its release.
pub fn load(path: &Path, clairvoyant: bool) -> anyhow::Result<Loaded> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let read = serde_json::from_reader(BufReader::new(file));
    let instance: Instance = read.with_context(|| format!("{} is no instance", path.display()))?;
    ensure!(
        instance.format == "sealsched-instance/1",
        "{}: format {:?} is not known here",
        path.display(),
        instance.format
    );
    Ok(Loaded {
        fleet: instance.fleet()?,
        orders: instance.orders(clairvoyant)?,
        name: instance.name,
    })
}

impl Instance {
    /// Sector types by name, in the order of the planner's kinds.
    fn kinds(&self) -> Vec<&String> {
        self.sector_types.keys().collect()
    }

    fn fleet(&self) -> anyhow::Result<Fleet> {
        let kinds = self.kinds();
        let p = &self.params;
        let mut fleet = Fleet {
            delays: Delays {
                message: p.msg_s,
                seed: p.seed_wait_s,
                c1: p.c1_s,
                ticket: p.ticket_max_age_s,
                prove: p.prove_max_s,
            },
            kinds: self.sector_types.values().map(kind).collect(),
            pools: self.pools.iter().map(|row| pool(row, &kinds)).collect(),
            classes: self
                .classes
                .iter()
                .map(|(name, row)| class(name, row, &kinds))
                .collect(),
            gas_blocked: self.gas_blocked.clone(),
            ..Fleet::default()
        };
        for row in &self.machines {
            let class = self
                .classes
                .keys()
                .position(|name| *name == row.cls)
                .with_context(|| format!("class {:?} is not defined", row.cls))?;
            ensure!(
                row.pool < fleet.pools.len(),
                "pool {} is not defined",
                row.pool
            );
            fleet.machines.push(Machine {
                pool: PoolIx::of(row.pool),
                class: Key::of(class),
                down: row.down.clone(),
                drains: false,
            });
        }
        Ok(fleet)
    }

    fn orders(&self, clairvoyant: bool) -> anyhow::Result<Vec<Order>> {
        let kinds = self.kinds();
        let orders = self.orders.iter().map(|row| {
            let name = &row.r#type;
            let kind = kinds
                .iter()
                .position(|k| *k == name)
                .with_context(|| format!("sector type {name:?} is not defined"))?;
            anyhow::Ok(Order {
                id: row.id,
                pool: usize::try_from(row.pool).ok().map(PoolIx::of),
                kind: KindIx::of(kind),
                n: row.n,
                release: row.release,
                step: row.step,
                due: row.due,
                weight: row.weight,
                known: if clairvoyant { 0 } else { row.release },
            })
        });
        orders.collect()
    }
}

fn pool(row: &PoolRow, kinds: &[&String]) -> Pool {
    let moves = kinds.iter().map(|k| {
        row.xfer_s.get(*k).map(|x| Moves {
            layers: x.layers,
            sealed: Some(x.sealed),
        })
    });
    Pool {
        moves: moves.collect(),
    }
}

fn need(row: &NeedRow) -> Need {
    Need {
        cores: row.cores,
        memory: row.ram,
        gpus: row.gpus,
    }
}

fn kind(row: &SectorType) -> Kind {
    let needs = &row.need;
    Kind {
        p1: need(&needs.p1),
        p2: need(&needs.p2),
        c2: need(&needs.c2),
        scratch_full: row.scratch_full,
        scratch_keep: row.scratch_keep,
        stored: row.stored,
    }
}

fn class(name: &str, row: &ClassRow, kinds: &[&String]) -> Class {
    let durations = kinds.iter().map(|k| {
        row.dur
            .get(*k)
            .map_or_else(Durations::default, |d| Durations {
                p1: d.p1,
                p2: d.p2,
                c2: d.c2,
            })
    });
    Class {
        name: name.to_owned(),
        cores: row.cores,
        memory: row.ram,
        gpus: row.gpus,
        scratch: row.scratch,
        store: row.store,
        nic: row.nic,
        durations: durations.collect(),
    }
}
