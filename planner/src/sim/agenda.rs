//! Future events in a monotone radix heap. Events of one moment come out together, in an order that
//! depends only on the calls made.

use crate::{GroupIx, MachineIx, Secs, SectorIx};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// More of a group may start.
    Open(GroupIx),
    /// A step of a sector's attempt ends.
    Ends(Ending, SectorIx, u8),
    /// A machine is up again.
    Wake(MachineIx),
    /// A machine breaks down.
    Fail(MachineIx),
    /// Moves to and from a machine may begin again.
    Moves(MachineIx),
    /// The caller wants to act at this moment.
    Pause,
    /// PC1 may begin again in a pool where it was ahead.
    Admit,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    P1,
    Move,
    P2,
    C1,
    C2,
    /// The ProveCommit of a sector that was already proved when the plan was made.
    Landed,
    Store,
}

const BUCKETS: usize = 33;

#[derive(Clone, Debug)]
pub struct Agenda {
    /// Bucket `b` holds moments whose highest bit different from `last` is bit `b - 1`; bucket 0
    /// holds `last` itself.
    buckets: [Vec<(u32, Event)>; BUCKETS],
    last: u32,
    len: usize,
}

impl Default for Agenda {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| Vec::new()),
            last: 0,
            len: 0,
        }
    }
}

fn bucket(key: u32, last: u32) -> usize {
    usize::try_from(32 - (key ^ last).leading_zeros()).unwrap_or(0)
}

impl Agenda {
    /// Adds an event; an `at` in the past counts as now.
    pub fn push(&mut self, at: Secs, event: Event) {
        let key = u32::try_from(at).unwrap_or(0).max(self.last);
        if let Some(bucket) = self.buckets.get_mut(bucket(key, self.last)) {
            bucket.push((key, event));
            self.len += 1;
        }
    }

    /// The next moment at which something happens.
    #[must_use]
    pub fn next_moment(&self) -> Option<Secs> {
        let first = self.buckets.iter().find(|b| !b.is_empty())?;
        first
            .iter()
            .map(|(key, _)| *key)
            .min()
            .and_then(|key| Secs::try_from(key).ok())
    }

    /// Moves the events of the next moment into `batch` and returns that moment; `None` when no
    /// event is left.
    pub fn pop_moment(&mut self, batch: &mut Vec<(u32, Event)>) -> Option<Secs> {
        batch.clear();
        let first = self.buckets.iter().position(|b| !b.is_empty())?;
        if first > 0 {
            let moved = self.buckets.get_mut(first).map(std::mem::take)?;
            self.last = moved.iter().map(|(key, _)| *key).min()?;
            for entry in &moved {
                if let Some(bucket) = self.buckets.get_mut(bucket(entry.0, self.last)) {
                    bucket.push(*entry);
                }
            }
            // Reuse its memory.
            if let Some(bucket) = self.buckets.get_mut(first) {
                *bucket = moved;
                bucket.clear();
            }
        }
        if let Some(now) = self.buckets.first_mut() {
            std::mem::swap(now, batch);
        }
        self.len -= batch.len();
        Secs::try_from(self.last).ok()
    }

    /// Removes all remaining events, in order; those of one moment in the order in which they were
    /// pushed.
    pub fn drain(&mut self) -> Vec<(Secs, Event)> {
        self.len = 0;
        let mut all: Vec<(u32, Event)> = self.buckets.iter_mut().flat_map(std::mem::take).collect();
        all.sort_by_key(|(key, _)| *key);
        all.into_iter()
            .filter_map(|(key, event)| Some((Secs::try_from(key).ok()?, event)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_agenda_keeps_every_event_in_order(
            pushes in prop::collection::vec((0..5000i32, 0..3usize), 1..300),
        ) {
            let mut agenda = Agenda::default();
            let mut expected: Vec<Secs> = Vec::new();
            let mut got = Vec::new();
            let mut batch = Vec::new();
            let mut now = 0;
            for (ahead, pops) in pushes {
                agenda.push(now + ahead, Event::Pause);
                expected.push(now + ahead);
                for _ in 0..pops {
                    if let Some(at) = agenda.pop_moment(&mut batch) {
                        prop_assert!(at >= now);
                        now = at;
                        got.extend(batch.iter().map(|_| at));
                    }
                }
            }
            while let Some(at) = agenda.pop_moment(&mut batch) {
                got.extend(batch.iter().map(|_| at));
            }
            expected.sort_unstable();
            prop_assert_eq!(got, expected);
            prop_assert!(agenda.next_moment().is_none());
        }
    }
}
