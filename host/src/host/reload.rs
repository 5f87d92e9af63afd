//! The configuration file, read again whenever it changes: what of it can be taken over by a running host,
//! and what needs a restart. It must not know how a change is carried out.

use std::collections::BTreeMap;

use segmenter_core::names::HandlerName;

use super::file_watch::{Seen, Watch};
use super::{Say, telemetry};
use crate::config::{Config, ConfigFile, HandlerConfig, ModuleSource};

/// Bytes of a configuration file that is read again.
const CONFIG_BYTES_MAX: usize = 1 << 20;

/// What changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reload {
    /// Handlers of whom limits, batches, grants, recycling, the path of the module or what is allowed changed; the
    /// rest of each is as it was.
    pub(super) settings: BTreeMap<HandlerName, HandlerConfig>,
    /// What else changed, in words.
    pub(super) restart: Vec<String>,
}

impl Reload {
    fn is_empty(&self) -> bool {
        self.settings.is_empty() && self.restart.is_empty()
    }

    /// For people.
    pub(super) fn warning(&self) -> Option<String> {
        if self.restart.is_empty() {
            return None;
        }
        Some(format!(
            "the configuration changed in what only a restart takes over: {}",
            self.restart.join("; ")
        ))
    }
}

pub(super) fn compare(old: &Config, new: &Config) -> Reload {
    // By name, so that a new field has to say on which side it is.
    let Config {
        namespace,
        member,
        drain_timeout,
        read_ahead,
        redis,
        streams,
        handlers,
    } = new;
    let mut reload = Reload::default();
    let restart = &mut reload.restart;
    let mut differs = |name: &str, differs: bool| {
        if differs {
            restart.push(name.to_owned());
        }
    };
    differs("namespace", *namespace != old.namespace);
    differs("member", *member != old.member);
    differs("drain_timeout", *drain_timeout != old.drain_timeout);
    differs("read_ahead", *read_ahead != old.read_ahead);
    differs("[redis]", *redis != old.redis);
    for stream in streams {
        let before = old.streams.iter().find(|s| s.name == stream.name);
        differs(
            &format!("[[stream]] {}", stream.name),
            before != Some(stream),
        );
    }
    for stream in &old.streams {
        let gone = !streams.iter().any(|s| s.name == stream.name);
        differs(&format!("[[stream]] {} is gone", stream.name), gone);
    }
    for handler in &old.handlers {
        let gone = !handlers.iter().any(|h| h.name == handler.name);
        differs(&format!("handler {} is gone", handler.name), gone);
    }
    for handler in handlers {
        match old.handlers.iter().find(|h| h.name == handler.name) {
            None => reload
                .restart
                .push(format!("handler {} is new", handler.name)),
            Some(before) => handler_changed(before, handler, &mut reload),
        }
    }
    reload
}

fn handler_changed(old: &HandlerConfig, new: &HandlerConfig, reload: &mut Reload) {
    let HandlerConfig {
        name,
        stream,
        group,
        module,
        allow,
        start,
        session_timeout,
        limits,
        batch,
        recycle,
        backoff,
        attempts,
        exhausted,
        grants,
    } = new;
    let from_a_file = |module: &ModuleSource| matches!(module, ModuleSource::File(_));
    let moves = from_a_file(module) == from_a_file(&old.module);
    for (what, differs) in [
        ("stream", *stream != old.stream),
        ("group", *group != old.group),
        ("start", *start != old.start),
        ("session_timeout", *session_timeout != old.session_timeout),
        ("retry, backoff", *backoff != old.backoff),
        ("retry, attempts", *attempts != old.attempts),
        ("retry, exhausted", *exhausted != old.exhausted),
        ("module, from a file to deployed or back", !moves),
    ] {
        if differs {
            reload.restart.push(format!("handler {name}: {what}"));
        }
    }
    let merged = HandlerConfig {
        module: if moves { module } else { &old.module }.clone(),
        allow: allow.clone(),
        limits: *limits,
        batch: *batch,
        recycle: *recycle,
        grants: grants.clone(),
        ..old.clone()
    };
    if merged != *old {
        reload.settings.insert(name.clone(), merged);
    }
}

/// Looks after the file that a host was started with.
pub(super) struct ConfigWatch {
    watch: Watch,
    file: ConfigFile,
    /// What is in force: what needs a restart is as it was at the start.
    current: Config,
    say: Say,
}

impl ConfigWatch {
    pub(super) fn start(
        file: ConfigFile,
        current: Config,
        say: Say,
    ) -> std::io::Result<ConfigWatch> {
        // Not known: it may have changed since it was read.
        let watch = Watch::start(&file.path, CONFIG_BYTES_MAX, None)?;
        Ok(ConfigWatch {
            watch,
            file,
            current,
            say,
        })
    }

    /// The next change that is one. What is wrong with the file is told, and what was in force stays. Safe
    /// to drop before it is done.
    pub(super) async fn next(&mut self) -> Reload {
        loop {
            match self.watch.next().await {
                Seen::Trouble(why) => self.warn(&why),
                Seen::Bytes { bytes, .. } => match self.file.parse(&bytes) {
                    Err(error) => {
                        self.warn(&format!(
                            "{error}; the configuration of before stays in force"
                        ));
                    }
                    Ok(config) => {
                        let reload = self.take(&config);
                        if !reload.is_empty() {
                            return reload;
                        }
                    }
                },
            }
        }
    }

    fn take(&mut self, config: &Config) -> Reload {
        let reload = compare(&self.current, config);
        for handler in &mut self.current.handlers {
            if let Some(changed) = reload.settings.get(&handler.name) {
                *handler = changed.clone();
            }
        }
        reload
    }

    fn warn(&self, text: &str) {
        self.say.event(&telemetry::Event::Warning { text });
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::output::Format;

    const FILE: &str = r#"
namespace = "shop"
[[stream]]
name = "orders"
partitions = 4
capacity = 100
[[handler]]
name = "billing"
stream = "orders"
group = "billing"
module = "billing.wasm"
[handler.limits]
deadline = "1s"
[handler.retry]
attempts = 5
[handler.grants]
state = true
[[handler]]
name = "audit"
stream = "orders"
group = "audit"
module = "audit.wasm"
"#;

    fn parse(text: &str) -> Config {
        Config::parse(text, Path::new("dir")).unwrap()
    }

    fn changed(from: &str, to: &str) -> Reload {
        assert!(FILE.contains(from), "{from}");
        compare(&parse(FILE), &parse(&FILE.replacen(from, to, 1)))
    }

    #[test]
    fn what_a_running_host_takes_over_is_told_from_what_it_does_not() {
        assert!(changed("shop", "shop").is_empty());
        let allow = format!("\"billing.wasm\"\nallow = [\"{}\"]", "ab".repeat(32));
        for (from, to) in [
            ("\"1s\"", "\"2s\""),
            ("state = true", "state = true\nemit = [\"x\"]"),
            ("\"billing.wasm\"", "\"other.wasm\""),
            (
                "[handler.retry]",
                "[handler.batch]\nmessages = 7\n[handler.retry]",
            ),
            ("\"billing.wasm\"", "\"billing.wasm\"\ninstance = \"fresh\""),
            ("\"billing.wasm\"", &allow),
        ] {
            let reload = changed(from, to);
            assert!(reload.restart.is_empty(), "{to}: {reload:?}");
            let names: Vec<_> = reload.settings.keys().map(|name| name.as_str()).collect();
            assert_eq!(names, ["billing"], "{to}");
            let now = parse(&FILE.replacen(from, to, 1));
            assert_eq!(reload.settings.values().next(), now.handlers.first());
        }
        for (from, to, says) in [
            ("shop", "mall", "namespace"),
            ("[[stream]]", "member = \"m\"\n[[stream]]", "member"),
            (
                "[[stream]]",
                "drain_timeout = \"1s\"\n[[stream]]",
                "drain_timeout",
            ),
            ("[[stream]]", "[redis]\nurl = \"x\"\n[[stream]]", "[redis]"),
            ("capacity = 100", "capacity = 200", "[[stream]] orders"),
            (
                "name = \"audit\"",
                "name = \"b\"",
                "handler audit is gone; handler b is new",
            ),
            (
                "name = \"orders\"",
                "name = \"o\"",
                "[[stream]] o; [[stream]] orders is gone",
            ),
            ("\"billing\"\nmod", "\"g\"\nmod", "handler billing: group"),
            (
                "attempts = 5",
                "attempts = 6",
                "handler billing: retry, attempts",
            ),
            (
                "billing.wasm",
                "deployed",
                "handler billing: module, from a file to deployed or back",
            ),
        ] {
            let reload = changed(from, to);
            assert!(reload.settings.is_empty(), "{to}: {reload:?}");
            assert_eq!(reload.restart.join("; "), says, "{to}");
            assert!(reload.warning().unwrap().contains(says));
        }
    }

    #[test]
    fn of_both_at_once_only_one_half_is_taken_over() {
        let text = FILE
            .replacen("\"1s\"", "\"2s\"", 1)
            .replacen("attempts = 5", "attempts = 6", 1);
        let reload = compare(&parse(FILE), &parse(&text));
        let billing = reload.settings.values().next().unwrap();
        assert_eq!(billing.limits.deadline, Duration::from_secs(2));
        assert_eq!(billing.attempts, 5);
        assert_eq!(reload.restart, ["handler billing: retry, attempts"]);
    }

    #[tokio::test]
    async fn the_file_is_read_again_and_a_wrong_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("segmenter.toml");
        std::fs::write(&path, FILE).unwrap();
        let file = ConfigFile {
            path: path.clone(),
            namespace: Some("flag".parse().unwrap()),
            member: None,
            read_ahead: None,
        };
        let current = file.load().unwrap();
        assert_eq!(current.namespace.as_str(), "flag");
        let say = Say::new(Format::Json);
        let mut watch = ConfigWatch::start(file, current, say).unwrap();
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        // Neither of these is a change: the file as it was, a wrong one, and what the flag overrules.
        write("what = ever");
        write(&FILE.replacen("shop", "mall", 1));
        write(&FILE.replacen("\"1s\"", "\"2s\"", 1));
        let limit = Duration::from_secs(60);
        let mut next = async || tokio::time::timeout(limit, watch.next()).await.unwrap();
        assert_eq!(next().await.settings.len(), 1);
        // Compared with what is in force by now.
        write(
            &FILE
                .replacen("\"1s\"", "\"2s\"", 1)
                .replacen("\"audit.wasm\"", "\"a.wasm\"", 1),
        );
        let names: Vec<_> = next().await.settings.into_keys().collect();
        assert_eq!(names.len(), 1);
        assert_eq!(names[0].as_str(), "audit");
    }
}
