//! The commit script: by which word a host names it, and the same without its fence. That one is put in the place of the real one on the way to Redis: a proxy
//! replaces one hash by the other. So what is tried without the fence is the very binary that ships, and
//! there is nothing in it that could be switched off. It must not know what a run finds then.

use anyhow::Context;

use super::proxy::Word;

const LIB: &str = include_str!("../../../host/crates/redis/src/scripts/lib.lua");
const COMMIT: &str = include_str!("../../../host/crates/redis/src/scripts/commit.lua");
/// What it is about: owner, epoch and `from` are those of whoever commits.
const FENCE: &str =
    "if lease[1] ~= ARGV[1] or lease[2] ~= ARGV[2] or lease[3] ~= ARGV[3] then return view end\n";

/// As the adapter puts it together. If it ever differs, hosts never say this hash: late commits and runs
/// without the fence count as failed then.
fn script(commit: &str) -> String {
    let (flags, body) = commit
        .split_once('\n')
        .expect("a script begins with its flags");
    format!("{flags}\n{LIB}\n{body}")
}

/// What hosts say to commit.
pub(super) fn in_place() -> Word {
    Word {
        text: redis::Script::new(&script(COMMIT)).get_hash().to_owned(),
        instead: None,
    }
}

/// The same, and what is loaded to be run instead.
pub(super) fn taken_out(url: &str) -> anyhow::Result<Word> {
    let without = script(&COMMIT.replace(FENCE, ""));
    let mut connection = redis::Client::open(url)?.get_connection()?;
    let instead: String = redis::cmd("SCRIPT")
        .arg("LOAD")
        .arg(&without)
        .query(&mut connection)
        .context("loading the commit script without its fence")?;
    Ok(Word {
        instead: Some(instead),
        ..in_place()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fence_is_one_line_of_the_script() {
        assert_eq!(COMMIT.matches(FENCE).count(), 1);
        assert_ne!(script(COMMIT), script(&COMMIT.replace(FENCE, "")));
    }
}
