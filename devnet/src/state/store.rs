//! The chain on disk: one redb file, one transaction per change.

use std::{collections::HashMap, path::Path};

use anyhow::{Context, Result};
use cid::Cid;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Blocks, MessageRecord, Snapshot, TipsetRecord, World};
use crate::config::Config;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const BLOCKS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("blocks");
const TIPSETS: TableDefinition<'_, i64, &[u8]> = TableDefinition::new("tipsets");
const SNAPSHOTS: TableDefinition<'_, i64, &[u8]> = TableDefinition::new("snapshots");
const MESSAGES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("messages");

pub struct Store {
    database: Database,
    saved_tipsets: usize,
    saved_snapshots: usize,
    saved_forks: usize,
}

pub struct Saved {
    pub config: Config,
    pub world: World,
    pub blocks: Blocks,
    pub tipsets: Vec<TipsetRecord>,
    pub snapshots: Vec<Snapshot>,
    pub messages: HashMap<String, MessageRecord>,
}

impl Store {
    pub fn open(data_dir: &Path) -> Result<(Self, Option<Saved>)> {
        let shown = data_dir.display();
        std::fs::create_dir_all(data_dir).with_context(|| format!("creating {shown}"))?;
        let path = data_dir.join("chain.redb");
        let database =
            Database::create(&path).with_context(|| format!("opening {}", path.display()))?;
        let saved = load(&database)?;
        let (saved_tipsets, saved_snapshots) = saved
            .as_ref()
            .map_or((0, 0), |s| (s.tipsets.len(), s.snapshots.len()));
        let saved_forks = saved.as_ref().map_or(0, |s| s.world.forks.len());
        Ok((
            Self {
                database,
                saved_tipsets,
                saved_snapshots,
                saved_forks,
            },
            saved,
        ))
    }

    pub fn save_config(&self, config: &Config) -> Result<()> {
        let write = self.database.begin_write()?;
        write
            .open_table(META)?
            .insert("config", serde_json::to_vec(config)?.as_slice())?;
        write.commit()?;
        Ok(())
    }

    pub fn commit(
        &mut self,
        world: &World,
        blocks: &Blocks,
        tipsets: &[TipsetRecord],
        snapshots: &[Snapshot],
        messages: &HashMap<String, MessageRecord>,
    ) -> Result<()> {
        let write = self.database.begin_write()?;
        {
            write
                .open_table(META)?
                .insert("world", serde_json::to_vec(world)?.as_slice())?;
            let mut table = write.open_table(BLOCKS)?;
            for (cid, bytes) in blocks.take_unsaved() {
                table.insert(cid.to_bytes().as_slice(), bytes.as_slice())?;
            }
            let mut table = write.open_table(TIPSETS)?;
            // A reorganisation replaces tipsets and snapshots that were already saved.
            let rewritten = world.forks.len() != self.saved_forks;
            if rewritten {
                (self.saved_tipsets, self.saved_snapshots) = (0, 0);
                table.retain(|_, _| false)?;
                write.open_table(SNAPSHOTS)?.retain(|_, _| false)?;
            }
            for tipset in tipsets.get(self.saved_tipsets..).unwrap_or_default() {
                table.insert(tipset.epoch, serde_json::to_vec(tipset)?.as_slice())?;
            }
            let mut table = write.open_table(SNAPSHOTS)?;
            for snapshot in snapshots.get(self.saved_snapshots..).unwrap_or_default() {
                table.insert(snapshot.epoch, serde_json::to_vec(snapshot)?.as_slice())?;
            }
            let mut table = write.open_table(MESSAGES)?;
            for (cid, record) in messages.iter().filter(|(_, r)| r.unsaved) {
                table.insert(cid.as_str(), serde_json::to_vec(record)?.as_slice())?;
            }
        }
        write.commit()?;
        self.saved_tipsets = tipsets.len();
        self.saved_snapshots = snapshots.len();
        self.saved_forks = world.forks.len();
        Ok(())
    }
}

fn load(database: &Database) -> Result<Option<Saved>> {
    let read = database.begin_read()?;
    let Ok(meta) = read.open_table(META) else {
        return Ok(None);
    };
    let (Some(config), Some(world)) = (meta.get("config")?, meta.get("world")?) else {
        return Ok(None);
    };
    let mut blocks = HashMap::new();
    for entry in read.open_table(BLOCKS)?.iter()? {
        let (cid, bytes) = entry?;
        blocks.insert(Cid::try_from(cid.value())?, bytes.value().to_vec());
    }
    let mut messages = HashMap::new();
    for entry in read.open_table(MESSAGES)?.iter()? {
        let (cid, record) = entry?;
        messages.insert(
            cid.value().to_owned(),
            serde_json::from_slice(record.value())?,
        );
    }
    Ok(Some(Saved {
        config: serde_json::from_slice(config.value()).context("the saved configuration")?,
        world: serde_json::from_slice(world.value()).context("the saved world")?,
        blocks: Blocks::from_saved(blocks),
        tipsets: read_all(&read, TIPSETS)?,
        snapshots: read_all(&read, SNAPSHOTS)?,
        messages,
    }))
}

fn read_all<T: serde::de::DeserializeOwned>(
    read: &redb::ReadTransaction,
    table: TableDefinition<'_, i64, &'static [u8]>,
) -> Result<Vec<T>> {
    let table = read.open_table(table)?;
    table
        .iter()?
        .map(|entry| Ok(serde_json::from_slice(entry?.1.value())?))
        .collect()
}
