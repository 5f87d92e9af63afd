//! What lies in Redis when nothing happens any more: what is still to be acked or relayed, and what
//! handlers keep. Knows keys; must not judge.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::record::What;

/// For everything to be acked and relayed after the faults.
pub(super) const DRAIN: Duration = Duration::from_secs(60);

/// A stream and a group of it.
pub(super) struct Place {
    pub(super) url: String,
    pub(super) stream: &'static str,
    pub(super) group: &'static str,
    pub(super) partitions: u32,
}

impl Place {
    fn key(&self, partition: u32, what: &str) -> String {
        format!("seg:{{default/{}/{partition}}}:{what}", self.stream)
    }

    fn of_group(&self, partition: u32, what: &str) -> String {
        self.key(partition, &format!("{what}:{}", self.group))
    }

    fn connect(&self) -> anyhow::Result<redis::Connection> {
        Ok(redis::Client::open(self.url.as_str())?.get_connection()?)
    }

    /// Whether the group has nothing in front of it in any partition, nor in an outbox, before patience
    /// ends.
    pub(super) fn drained(&self) -> bool {
        let until = Instant::now() + DRAIN;
        while Instant::now() < until {
            if matches!(self.left(), Ok(0)) {
                return true;
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        false
    }

    fn left(&self) -> anyhow::Result<u64> {
        let mut connection = self.connect()?;
        let mut left = 0;
        for p in 0..self.partitions {
            let log = self.key(p, "log");
            let groups: Vec<BTreeMap<String, redis::Value>> = redis::cmd("XINFO")
                .arg(&["GROUPS", &log])
                .query(&mut connection)?;
            let of = |group: &BTreeMap<String, redis::Value>, name: &str| group.get(name).cloned();
            let ours = groups.iter().find(|group| {
                let name = of(group, "name").map(redis::from_redis_value::<String>);
                matches!(name, Some(Ok(name)) if name == self.group)
            });
            let ours = ours.context("the group is gone")?;
            left += redis::from_redis_value::<u64>(of(ours, "lag").context("no lag")?)?;
            // After the lag: what is acked is in the outbox, and nothing more will come.
            let outbox = self.of_group(p, "outbox");
            left += redis::cmd("XLEN")
                .arg(&outbox)
                .query::<u64>(&mut connection)?;
        }
        Ok(left)
    }

    /// Who took each partition last, by member. `None`: Redis is away.
    pub(super) fn holders(&self) -> Option<Vec<String>> {
        let mut leases = redis::pipe();
        for p in 0..self.partitions {
            leases
                .cmd("HGET")
                .arg(self.of_group(p, "lease"))
                .arg("member");
        }
        let holders: Vec<Option<String>> = leases.query(&mut self.connect().ok()?).ok()?;
        Some(holders.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// What `number` keeps, over all partitions: the count of each key, and what makes no sense.
    pub(super) fn counts(&self) -> anyhow::Result<(BTreeMap<u32, u64>, Vec<String>)> {
        let mut connection = self.connect()?;
        let (mut counts, mut strange) = (BTreeMap::new(), Vec::new());
        for p in 0..self.partitions {
            let kept: BTreeMap<String, String> = redis::cmd("HGETALL")
                .arg(self.of_group(p, "state"))
                .query(&mut connection)?;
            for (name, value) in kept {
                // A handler's own names have this in front.
                let Some(name) = name.strip_prefix('=') else {
                    continue;
                };
                let key = name
                    .strip_prefix("count ")
                    .and_then(|key| What::of(key, "0"));
                let is_new = match key.zip(value.parse().ok()) {
                    Some((what, count)) => counts.insert(what.key, count).is_none(),
                    None => false,
                };
                if !is_new {
                    strange.push(format!("{name:?} = {value:?} in partition {p}"));
                }
            }
        }
        Ok((counts, strange))
    }
}
