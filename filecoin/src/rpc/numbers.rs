//! Sets of sector numbers, stored as ranges so that a million consecutive sectors cost as much as
//! one.

use std::ops::Range;

use super::BitFieldJson;

/// Ascending ranges that neither touch nor overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers(Vec<Range<u64>>);

impl Numbers {
    /// `None` if the run lengths add up to more than 64 bits.
    #[must_use]
    pub fn from_bits(bits: &BitFieldJson) -> Option<Self> {
        Some(Self::union([&Self(bits.ranges()?)]))
    }

    /// The numbers that are in at least one of `sets`.
    #[must_use]
    pub fn union<'a>(sets: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut all: Vec<Range<u64>> = sets
            .into_iter()
            .flat_map(|set| set.0.iter().cloned())
            .collect();
        all.sort_unstable_by_key(|range| range.start);
        let mut merged: Vec<Range<u64>> = Vec::new();
        for range in all {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        Self(merged)
    }

    /// The numbers here that are not in `other`. The cost depends on the number of ranges, not on
    /// their length.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let (mut rest, mut others) = (Vec::new(), other.0.iter().peekable());
        for range in &self.0 {
            let mut at = range.start;
            while at < range.end {
                while others.next_if(|other| other.end <= at).is_some() {}
                let gap_end = others
                    .peek()
                    .map_or(range.end, |other| other.start.clamp(at, range.end));
                if at < gap_end {
                    rest.push(at..gap_end);
                }
                at = others
                    .peek()
                    .map_or(range.end, |other| other.end)
                    .max(gap_end);
            }
        }
        Self(rest)
    }

    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        let after = self.0.partition_point(|range| range.start <= number);
        after
            .checked_sub(1)
            .and_then(|at| self.0.get(at))
            .is_some_and(|range| number < range.end)
    }

    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.iter().fold(0, |sum: u64, range| {
            sum.saturating_add(range.end - range.start)
        })
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = u64> {
        self.0.iter().cloned().flatten()
    }
}

/// Accepts numbers in any order.
impl FromIterator<u64> for Numbers {
    fn from_iter<I: IntoIterator<Item = u64>>(numbers: I) -> Self {
        let mut numbers: Vec<u64> = numbers.into_iter().collect();
        numbers.sort_unstable();
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for number in numbers {
            match ranges.last_mut() {
                Some(last) if number < last.end => {}
                Some(last) if number == last.end => last.end = number.saturating_add(1),
                _ => ranges.push(number..number.saturating_add(1)),
            }
        }
        Self(ranges)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn numbers(set: &BTreeSet<u64>) -> Numbers {
        set.iter().copied().collect()
    }

    proptest! {
        #[test]
        fn number_ranges_behave_like_sets(
            a in prop::collection::btree_set(0u64..40, 0..30),
            b in prop::collection::btree_set(0u64..40, 0..30),
        ) {
            let (left, right) = (numbers(&a), numbers(&b));
            prop_assert_eq!(usize::try_from(left.len()).unwrap(), a.len());
            prop_assert_eq!(left.iter().collect::<BTreeSet<_>>(), a.clone());
            prop_assert_eq!(left.minus(&right), numbers(&a.difference(&b).copied().collect()));
            let either = numbers(&a.union(&b).copied().collect());
            prop_assert_eq!(Numbers::union([&left, &right]), either);
            for number in 0..41 {
                prop_assert_eq!(left.contains(number), a.contains(&number));
            }
            let bits: BitFieldJson = a.iter().copied().collect();
            prop_assert_eq!(Numbers::from_bits(&bits), Some(left));
        }
    }

    #[test]
    fn long_ranges_stay_cheap() {
        let masked = Numbers::from_bits(&BitFieldJson(vec![0, 1 << 60])).unwrap();
        let more = Numbers::from_bits(&BitFieldJson(vec![0, (1 << 60) + 2])).unwrap();
        assert_eq!(
            more.minus(&masked).iter().collect::<Vec<_>>(),
            [1 << 60, (1 << 60) + 1]
        );
        assert!(masked.contains((1 << 60) - 1) && !masked.contains(1 << 60));
        assert_eq!(Numbers::from_bits(&BitFieldJson(vec![u64::MAX, 1])), None);
    }
}
