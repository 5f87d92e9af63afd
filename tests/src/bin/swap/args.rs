//! What the command line asks for.

use std::path::PathBuf;

use anyhow::Context;

pub(crate) const USAGE: &str = "usage: swap [--swaps N] [--rounds N] [--rate MESSAGES_PER_SECOND] [--partitions P,P] [--big FILE.wasm]\n--big: another guest that does what guest-examples/number does; only its stops are bounded, by 100 ms";

pub(crate) struct Args {
    /// Of each run with swaps.
    pub(crate) swaps: u32,
    /// Pairs of runs.
    pub(crate) rounds: usize,
    pub(crate) rate: u32,
    pub(crate) partitions: Vec<u32>,
    pub(crate) big: Option<PathBuf>,
}

impl Args {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> anyhow::Result<Args> {
        let (mut swaps, mut rounds, mut partitions) = (None, None, None);
        let (mut rate, mut big) = (2_000, None);
        while let Some(word) = words.next() {
            let (flag, value) = match word.split_once('=') {
                Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
                None => (word, words.next()),
            };
            let value = value.with_context(|| format!("{flag} needs a value"))?;
            let number = |text: &str| {
                let number = text.parse::<u32>().ok().filter(|number| *number > 0);
                number.with_context(|| format!("{flag} {text:?} is no number above 0"))
            };
            match flag.as_str() {
                "--swaps" => swaps = Some(number(&value)?),
                "--rounds" => rounds = Some(number(&value)?),
                "--rate" => rate = number(&value)?,
                "--partitions" => {
                    let list: anyhow::Result<_> = value.split(',').map(number).collect();
                    partitions = Some(list?);
                }
                "--big" => big = Some(PathBuf::from(value)),
                _ => anyhow::bail!("{flag} is not known"),
            }
        }
        // A big guest takes seconds to compile, once per version.
        let is_big = big.is_some();
        let otherwise = |few, many| if is_big { few } else { many };
        Ok(Args {
            swaps: swaps.unwrap_or(otherwise(5, 40)),
            rounds: usize::try_from(rounds.unwrap_or(otherwise(1, 5)))?,
            rate,
            partitions: partitions.unwrap_or_else(|| vec![8, 64]),
            big,
        })
    }
}
