//! The scripts: one file each, loaded by their hash. Knows how they are put together; must not know what
//! they mean.

use std::sync::OnceLock;

/// Put behind the first line of every script.
const LIB: &str = include_str!("scripts/lib.lua");
/// Behind that in those that change which version of a handler is wanted.
const HANDLER_LIB: &str = include_str!("scripts/handler_lib.lua");

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
                    LOADED.get_or_init(|| redis::Script::new(&self.whole()))
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
    HandlerDeploy = "handler_deploy.lua",
    HandlerSettle = "handler_settle.lua",
    HandlerRollback = "handler_rollback.lua",
    HandlerReport = "handler_report.lua",
    Permissions = "permissions.lua",
}

impl Script {
    /// The flags must stay the first line.
    fn whole(self) -> String {
        let (flags, body) = self
            .source()
            .split_once('\n')
            .expect("a script begins with its flags");
        let more = match self {
            Script::HandlerDeploy | Script::HandlerSettle | Script::HandlerRollback => HANDLER_LIB,
            _ => "",
        };
        format!("{flags}\n{LIB}\n{more}{body}")
    }
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
                !matches!(
                    script,
                    Script::Append | Script::AppendFrom | Script::HandlerDeploy
                ),
                "{script:?}: a full Redis must still be able to ack and to go back, but not to take more"
            );
            for part in ["-- KEYS: ", "-- ARGV: ", "-- Returns: "] {
                assert!(source.contains(part), "{script:?} lacks {part:?}");
            }
            assert!(source.starts_with("#!lua"));
        }
    }
}
