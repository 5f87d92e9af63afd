//! Which partition a key belongs to: `seahash(key) % partitions`, frozen for ever. Producers in other
//! languages check themselves against `tests/vectors/partition.json`.

use crate::names::{Partition, Shape};

/// SeaHash of the key's bytes with the reference seeds (crate seahash 4.1).
pub fn hash(key: &str) -> u64 {
    seahash::hash(key.as_bytes())
}

pub fn partition(key: &str, shape: Shape) -> Partition {
    let p = hash(key) % u64::from(shape.partitions());
    Partition(u32::try_from(p).expect("less than the partition count, which is a u32"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From INTERFACE.md: what seahash 4.1 gave when the contract was written.
    #[test]
    fn golden_hashes_never_change() {
        for (key, expected) in [
            ("", 14492805990617963705),
            ("a", 3009532316786026829),
            ("order-1", 7500845795227649389),
            ("ключ", 17700284118134789241),
        ] {
            assert_eq!(hash(key), expected, "{key:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_key_has_a_partition_of_the_stream(key: String, partitions in 1u32..=4096) {
            let shape = Shape::new(partitions, 1).unwrap();
            proptest::prop_assert!(partition(&key, shape).0 < partitions);
        }
    }
}
