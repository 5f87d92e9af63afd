//! Which partitions a version on trial runs in. The same on every host, without asking anybody.

use crate::names::{Partition, Version};
use crate::partition_set::PartitionSet;

/// Percent of the partitions, 1 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(u8);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a share of {0} % is none; use 1 to 100")]
pub struct ShareError(pub u64);

impl Share {
    pub const ALL: Share = Share(100);

    pub fn percent(percent: u64) -> Result<Share, ShareError> {
        match u8::try_from(percent) {
            Ok(percent @ 1..=100) => Ok(Share(percent)),
            _ => Err(ShareError(percent)),
        }
    }

    pub fn as_percent(self) -> u8 {
        self.0
    }

    /// So many of `partitions`: rounded up, so that a share is never nothing.
    pub fn count(self, partitions: u32) -> u32 {
        let count = (u64::from(partitions) * u64::from(self.0)).div_ceil(100);
        u32::try_from(count).expect("at most as many as there are")
    }

    /// Which of `partitions`. Another version gets others, so that it is not always the same keys that
    /// meet what is new.
    pub fn chosen(self, version: &Version, partitions: u32) -> PartitionSet {
        let mut ranked: Vec<(u64, u32)> = (0..partitions)
            .map(|partition| {
                let text = format!("{version}/{partition}");
                (seahash::hash(text.as_bytes()), partition)
            })
            .collect();
        ranked.sort_unstable();
        let count = self.count(partitions) as usize;
        ranked
            .into_iter()
            .take(count)
            .map(|(_, partition)| Partition(partition))
            .collect()
    }
}
