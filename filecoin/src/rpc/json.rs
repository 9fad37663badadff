//! The node's JSON conventions: `{"/": cid}`, run-length bit fields, null for an empty list.

use std::fmt;

use cid::Cid;
use fvm_ipld_bitfield::BitField;
use serde::{Deserialize, Deserializer, Serialize};

use super::Numbers;

/// A CID as `{"/": "bafy…"}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CidJson {
    #[serde(rename = "/", with = "text")]
    pub cid: Cid,
}

impl From<Cid> for CidJson {
    fn from(cid: Cid) -> Self {
        Self { cid }
    }
}

impl fmt::Display for CidJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cid.fmt(f)
    }
}

mod text {
    use cid::Cid;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(cid: &Cid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(cid)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cid, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Run lengths, the first one of zeros: `[5,1]` is {5}, `[0]` is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BitFieldJson(pub Vec<u64>);

impl BitFieldJson {
    /// The numbers in the set. A node's answer is not trusted: `None` if there are more than
    /// `limit`.
    #[must_use]
    pub fn numbers(&self, limit: usize) -> Option<Vec<u64>> {
        self.new_since(&Self::default(), limit)
    }

    /// Numbers in this set but not in `earlier`; `None` if there are more than `limit`. The length
    /// of common ranges does not matter.
    #[must_use]
    pub fn new_since(&self, earlier: &Self, limit: usize) -> Option<Vec<u64>> {
        let new = Numbers::from_bits(self)?.minus(&Numbers::from_bits(earlier)?);
        (new.len() <= u64::try_from(limit).ok()?).then(|| new.iter().collect())
    }

    /// The highest number.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        self.ranges()?.last().map(|range| range.end - 1)
    }

    pub(super) fn ranges(&self) -> Option<Vec<std::ops::Range<u64>>> {
        let (mut ranges, mut at) = (Vec::new(), 0u64);
        for (index, run) in self.0.iter().enumerate() {
            let end = at.checked_add(*run)?;
            if index % 2 == 1 && end > at {
                ranges.push(at..end);
            }
            at = end;
        }
        Some(ranges)
    }
}

/// Expects ascending numbers; others are left out.
impl FromIterator<u64> for BitFieldJson {
    fn from_iter<I: IntoIterator<Item = u64>>(numbers: I) -> Self {
        let mut runs: Vec<u64> = Vec::new();
        let mut at = 0;
        for number in numbers {
            match (number.checked_sub(at), runs.last_mut()) {
                (Some(0), Some(run)) => *run += 1,
                (Some(gap), _) => runs.extend([gap, 1]),
                (None, _) => continue,
            }
            at = number + 1;
        }
        if runs.is_empty() {
            runs.push(0);
        }
        Self(runs)
    }
}

impl From<&BitField> for BitFieldJson {
    fn from(bits: &BitField) -> Self {
        let mut runs = Vec::new();
        let mut at = 0;
        for range in bits.ranges() {
            runs.extend([range.start - at, range.end - range.start]);
            at = range.end;
        }
        if runs.is_empty() {
            runs.push(0);
        }
        Self(runs)
    }
}

/// Go marshals an empty slice as null.
pub fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bit_field_runs_start_with_zeros() {
        for (numbers, runs) in [
            (vec![5], vec![5, 1]),
            (vec![], vec![0]),
            (vec![0, 1, 2, 7], vec![0, 3, 4, 1]),
        ] {
            let bits = BitField::try_from_bits(numbers.iter().copied()).unwrap();
            let json = BitFieldJson::from(&bits);
            assert_eq!(json.0, runs);
            assert_eq!(json.numbers(100).unwrap(), numbers);
            assert_eq!(json.last(), numbers.last().copied());
            assert_eq!(numbers.into_iter().collect::<BitFieldJson>(), json);
        }
    }

    #[test]
    fn new_numbers_are_found_however_many_are_known() {
        let field = |runs: &[u64]| BitFieldJson(runs.to_vec());
        let masked = field(&[0, 1 << 60]);
        assert_eq!(
            field(&[0, (1 << 60) + 2]).new_since(&masked, 10),
            Some(vec![1 << 60, (1 << 60) + 1])
        );
        assert_eq!(masked.new_since(&field(&[0]), 10), None);
        // The set is 2, 3, 4, 9. Of these 3 and 9 were known; 1 was known and is gone.
        assert_eq!(
            field(&[2, 3, 4, 1]).new_since(&field(&[1, 1, 1, 1, 5, 1]), 10),
            Some(vec![2, 4])
        );
        assert_eq!(field(&[0]).new_since(&masked, 10), Some(Vec::new()));
        assert_eq!(field(&[5, 2]).new_since(&field(&[0]), 10), Some(vec![5, 6]));
    }

    #[test]
    fn a_hostile_run_length_is_refused() {
        assert_eq!(BitFieldJson(vec![0, u64::MAX]).numbers(1000), None);
        assert_eq!(BitFieldJson(vec![u64::MAX, u64::MAX]).numbers(1000), None);
        assert_eq!(BitFieldJson(vec![u64::MAX, 1]).numbers(1000), None);
    }
}
