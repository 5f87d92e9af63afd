//! The binary under show and the Redis it talks to.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde_json::Value;

use super::record::Id;
use crate::cargo;

pub(super) struct Tool<'a> {
    pub(super) binary: &'a Path,
    pub(super) url: String,
}

impl Tool<'_> {
    pub(super) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.binary);
        command
            .args(args)
            .env("SEGMENTER_REDIS", &self.url)
            .env_remove("SEGMENTER_NAMESPACE");
        command
    }

    pub(super) fn done(&self, args: &[&str]) -> anyhow::Result<()> {
        cargo::watched(
            &mut self.command(args),
            &format!("segmenter {}", args.join(" ")),
        )
    }

    /// The id up to which each partition is acked now.
    pub(super) fn acked(&self, stream: &str, group: &str) -> anyhow::Result<BTreeMap<u64, Id>> {
        let args = ["--format", "json", "group", "describe", stream, group];
        let output = self.command(&args).output().context("group describe")?;
        let described: Value =
            serde_json::from_slice(&output.stdout).context("what group describe says")?;
        let partitions = described["partitions"].as_array();
        let acked = |row: &Value| {
            let partition = row["partition"].as_u64()?;
            Some((partition, row["acked_through"].as_str()?.parse().ok()?))
        };
        partitions
            .context("group describe tells no partitions")?
            .iter()
            .map(|row| acked(row).with_context(|| format!("group describe says {row}")))
            .collect()
    }
}
