//! A set of partitions, and its text: ascending ranges such as `0-3,7`, so that what lies in Redis can be
//! read by people. Must not know whose set it is.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::limits;
use crate::names::Partition;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PartitionSet(BTreeSet<Partition>);

/// Why a text is no set of partitions.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no set of partitions; it should look like 0-3,7 with numbers below {max}", max = limits::PARTITIONS_MAX)]
pub struct SetError {
    text: String,
}

impl PartitionSet {
    pub fn new() -> PartitionSet {
        PartitionSet::default()
    }
    pub fn len(&self) -> usize {
        self.0.len()
    }
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    pub fn contains(&self, partition: Partition) -> bool {
        self.0.contains(&partition)
    }
    /// Whether it was not in it before.
    pub fn insert(&mut self, partition: Partition) -> bool {
        self.0.insert(partition)
    }
    /// Whether it was in it before.
    pub fn remove(&mut self, partition: Partition) -> bool {
        self.0.remove(&partition)
    }
    /// Ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Partition> {
        self.0.iter().copied()
    }
    pub fn minus(&self, other: &PartitionSet) -> PartitionSet {
        PartitionSet(self.0.difference(&other.0).copied().collect())
    }
    pub fn meets(&self, other: &PartitionSet) -> bool {
        !self.0.is_disjoint(&other.0)
    }

    /// The same for equal sets, and for others most surely not. The empty set has 0.
    pub fn digest(&self) -> u64 {
        match self.is_empty() {
            true => 0,
            false => seahash::hash(self.to_string().as_bytes()),
        }
    }
}

impl FromIterator<Partition> for PartitionSet {
    fn from_iter<I: IntoIterator<Item = Partition>>(all: I) -> PartitionSet {
        PartitionSet(all.into_iter().collect())
    }
}

impl Extend<Partition> for PartitionSet {
    fn extend<I: IntoIterator<Item = Partition>>(&mut self, all: I) {
        self.0.extend(all);
    }
}

impl fmt::Display for PartitionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.iter().peekable();
        let mut comma = "";
        while let Some(first) = rest.next() {
            let mut last = first;
            while let Some(next) = rest.next_if(|next| next.0 == last.0 + 1) {
                last = next;
            }
            match last == first {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
            comma = ",";
        }
        Ok(())
    }
}

impl FromStr for PartitionSet {
    type Err = SetError;
    /// In any order, with repetitions: scripts put texts together.
    fn from_str(text: &str) -> Result<PartitionSet, SetError> {
        let mut set = PartitionSet::new();
        let number = |text: &str| text.parse().ok().filter(|n| *n < limits::PARTITIONS_MAX);
        for range in text.split(',').filter(|range| !range.is_empty()) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            match (number(first), number(last)) {
                (Some(first), Some(last)) if first <= last => {
                    set.extend((first..=last).map(Partition));
                }
                _ => {
                    return Err(SetError {
                        text: text.to_owned(),
                    });
                }
            }
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(numbers: &[u32]) -> PartitionSet {
        numbers.iter().copied().map(Partition).collect()
    }

    #[test]
    fn a_set_is_written_as_ascending_ranges() {
        for (numbers, text) in [
            (&[][..], ""),
            (&[7], "7"),
            (&[0, 1, 2, 3, 7, 9, 10], "0-3,7,9-10"),
            (&[4095], "4095"),
        ] {
            assert_eq!(set(numbers).to_string(), text);
            assert_eq!(text.parse(), Ok(set(numbers)));
        }
        assert_eq!("3,0-1,1".parse(), Ok(set(&[0, 1, 3])));
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for text in ["x", "1-", "-1", "3-1", "4096", "0-4294967295", "1 2"] {
            assert!(text.parse::<PartitionSet>().is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn the_text_comes_back_and_the_digest_tells_sets_apart(
            a in proptest::collection::btree_set(0u32..4096, 0..200),
            b in proptest::collection::btree_set(0u32..4096, 0..200),
        ) {
            let (a, b): (PartitionSet, PartitionSet) =
                (a.into_iter().map(Partition).collect(), b.into_iter().map(Partition).collect());
            proptest::prop_assert_eq!(&a.to_string().parse::<PartitionSet>().unwrap(), &a);
            proptest::prop_assert_eq!(a == b, a.digest() == b.digest());
        }
    }
}
