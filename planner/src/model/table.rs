//! Tables whose rows are addressed by their own type of key, so that a machine's number cannot be
//! taken for a sector's.

use std::{
    marker::PhantomData,
    ops::{Index, IndexMut},
};

/// A row's number.
pub trait Key: Copy {
    fn at(self) -> usize;
    fn of(at: usize) -> Self;
}

macro_rules! keys {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub u32);

        impl Key for $name {
            #[inline]
            fn at(self) -> usize {
                usize::try_from(self.0).unwrap_or(usize::MAX)
            }

            #[inline]
            fn of(at: usize) -> Self {
                Self(u32::try_from(at).unwrap_or(u32::MAX))
            }
        }
    )*};
}

keys! {
    PoolIx;
    ClassIx;
    MachineIx;
    /// Sector size.
    KindIx;
    OrderIx;
    SectorIx;
    /// Sectors of one order that are treated alike.
    GroupIx;
    /// A group's sectors in one pool.
    QueueIx;
}

impl MachineIx {
    /// No machine yet.
    pub const NONE: Self = Self(u32::MAX);

    #[must_use]
    pub fn is_some(self) -> bool {
        self != Self::NONE
    }
}

pub struct Table<K, T> {
    rows: Vec<T>,
    /// How many of the first rows were forgotten. The other rows keep their numbers.
    forgotten: usize,
    key: PhantomData<fn(K)>,
}

impl<K: Key, T> Table<K, T> {
    #[must_use]
    pub const fn new() -> Self {
        Self {
            rows: Vec::new(),
            forgotten: 0,
            key: PhantomData,
        }
    }

    pub fn push(&mut self, row: T) -> K {
        let key = K::of(self.len());
        self.rows.push(row);
        key
    }

    /// How many rows there have been, which is also the next row's number.
    #[must_use]
    pub fn len(&self) -> usize {
        self.forgotten + self.rows.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets the rows before `first`.
    pub fn forget(&mut self, first: K) {
        let over = first
            .at()
            .saturating_sub(self.forgotten)
            .min(self.rows.len());
        self.rows.drain(..over);
        self.forgotten += over;
    }

    pub fn keys(&self) -> impl Iterator<Item = K> + use<K, T> {
        (self.forgotten..self.len()).map(K::of)
    }

    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.rows.iter()
    }

    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, T> {
        self.rows.iter_mut()
    }

    pub fn pairs(&self) -> impl Iterator<Item = (K, &T)> {
        self.keys().zip(&self.rows)
    }

    #[must_use]
    pub fn get(&self, key: K) -> Option<&T> {
        self.rows.get(key.at().checked_sub(self.forgotten)?)
    }

    pub fn clear(&mut self) {
        self.rows.clear();
        self.forgotten = 0;
    }

    pub fn reserve(&mut self, more: usize) {
        self.rows.reserve_exact(more);
    }
}

impl<K: Key, T: Clone> Table<K, T> {
    pub fn extend_with(&mut self, row: &T, times: usize) {
        let len = self.rows.len() + times;
        self.rows.resize(len, row.clone());
    }
}

impl<K: Key, T> Default for Table<K, T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, T: Clone> Clone for Table<K, T> {
    fn clone(&self) -> Self {
        Self {
            rows: self.rows.clone(),
            ..*self
        }
    }

    fn clone_from(&mut self, from: &Self) {
        self.rows.clone_from(&from.rows);
        self.forgotten = from.forgotten;
    }
}

impl<K, T: std::fmt::Debug> std::fmt::Debug for Table<K, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.rows.fmt(f)
    }
}

impl<K: Key, T> FromIterator<T> for Table<K, T> {
    fn from_iter<I: IntoIterator<Item = T>>(rows: I) -> Self {
        Self {
            rows: rows.into_iter().collect(),
            forgotten: 0,
            key: PhantomData,
        }
    }
}

impl<K: Key, T> Index<K> for Table<K, T> {
    type Output = T;

    #[inline]
    fn index(&self, key: K) -> &T {
        &self.rows[key.at().wrapping_sub(self.forgotten)]
    }
}

impl<K: Key, T> IndexMut<K> for Table<K, T> {
    #[inline]
    fn index_mut(&mut self, key: K) -> &mut T {
        &mut self.rows[key.at().wrapping_sub(self.forgotten)]
    }
}
