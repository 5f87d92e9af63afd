//! The scripts: one file each, loaded by their hash. Knows how they are put together; must not know what
//! they mean.

use std::sync::OnceLock;

/// Put behind the first line of every script.
const LIB: &str = include_str!("scripts/lib.lua");

macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident = $file:literal,)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Script { $($(#[$doc])* $name,)* }
        impl Script {
            fn source(self) -> &'static str {
                match self { $(Script::$name => include_str!(concat!("scripts/", $file)),)* }
            }
            /// With the common part, and its SHA-1.
            pub(crate) fn loaded(self) -> &'static redis::Script {
                match self { $(Script::$name => {
                    static LOADED: OnceLock<redis::Script> = OnceLock::new();
                    LOADED.get_or_init(|| redis::Script::new(&whole(self.source())))
                })* }
            }
            #[cfg(test)]
            const ALL: &[Script] = &[$(Script::$name,)*];
        }
    };
}

scripts! {
    StreamCreate = "stream_create.lua",
    PartitionCreate = "partition_create.lua",
    PartitionDelete = "partition_delete.lua",
    PartitionDescribe = "partition_describe.lua",
    GroupCreate = "group_create.lua",
    GroupSync = "group_sync.lua",
    GroupInstall = "group_install.lua",
    Append = "append.lua",
    AppendFrom = "append_from.lua",
    OutboxBury = "outbox_bury.lua",
    DeadRedrive = "dead_redrive.lua",
    DeadPurge = "dead_purge.lua",
    Acquire = "acquire.lua",
    Commit = "commit.lua",
    Release = "release.lua",
    Verify = "verify.lua",
    Largest = "largest.lua",
    Read = "read.lua",
    LogCount = "log_count.lua",
    GroupSeek = "group_seek.lua",
    GroupHalt = "group_halt.lua",
    GroupResume = "group_resume.lua",
    GroupDelete = "group_delete.lua",
    Permissions = "permissions.lua",
}

/// The flags must stay the first line.
fn whole(source: &str) -> String {
    let (flags, body) = source
        .split_once('\n')
        .expect("a script begins with its flags");
    format!("{flags}\n{LIB}\n{body}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_says_its_flags_keys_arguments_and_returns() {
        for script in Script::ALL {
            let source = script.source();
            let allows = source.starts_with("#!lua flags=") && source.contains("allow-oom");
            assert_eq!(
                allows,
                !matches!(script, Script::Append | Script::AppendFrom),
                "{script:?}: a full Redis must still be able to ack, but not to append"
            );
            for part in ["-- KEYS: ", "-- ARGV: ", "-- Returns: "] {
                assert!(source.contains(part), "{script:?} lacks {part:?}");
            }
            assert!(source.starts_with("#!lua"));
        }
    }
}
