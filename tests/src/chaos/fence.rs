//! The commit script without its fence. It is put in the place of the real one on the way to Redis: a proxy
//! replaces one hash by the other. So what is tried without the fence is the very binary that ships, and
//! there is nothing in it that could be switched off. It must not know what a run finds then.

use anyhow::Context;

use super::proxy::Replacement;

const LIB: &str = include_str!("../../../host/crates/redis/src/scripts/lib.lua");
const COMMIT: &str = include_str!("../../../host/crates/redis/src/scripts/commit.lua");
/// What it is about: owner, epoch and `from` are those of whoever commits.
const FENCE: &str =
    "if lease[1] ~= ARGV[1] or lease[2] ~= ARGV[2] or lease[3] ~= ARGV[3] then return view end\n";

/// As the adapter puts it together; if it ever differs, hosts never say its hash, and a run without any
/// replacement counts as failed.
fn script(commit: &str) -> String {
    let (flags, body) = commit
        .split_once('\n')
        .expect("a script begins with its flags");
    format!("{flags}\n{LIB}\n{body}")
}

/// Loads it, and says which word stands for it.
pub(super) fn taken_out(url: &str) -> anyhow::Result<Replacement> {
    let without = script(&COMMIT.replace(FENCE, ""));
    let mut connection = redis::Client::open(url)?.get_connection()?;
    let by: String = redis::cmd("SCRIPT")
        .arg("LOAD")
        .arg(&without)
        .query(&mut connection)
        .context("loading the commit script without its fence")?;
    let word = redis::Script::new(&script(COMMIT)).get_hash().to_owned();
    Ok(Replacement { word, by })
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
