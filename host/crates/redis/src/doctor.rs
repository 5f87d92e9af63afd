//! Whether a Redis is fit for Segmenter, in the words of whoever runs it. Each check says what was found
//! and what to do; what follows from a server's answers is decided without asking it again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use segmenter_core::names::Namespace;

use crate::acl::acl_setuser;
use crate::broker::Broker;
use crate::convert::{list, text};
use crate::error::ConnectError;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    Ok,
    /// It works, and promises less, or will not work for long.
    Warning,
    Failed,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Warning => "warning",
            Status::Failed => "failed",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub name: &'static str,
    pub status: Status,
    pub found: String,
    /// What to do; `None` where all is well.
    pub advice: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Check {
        Check {
            name,
            status: Status::Ok,
            found: found.into(),
            advice: None,
        }
    }
    fn warning(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Check {
        Check {
            status: Status::Warning,
            advice: Some(advice.into()),
            ..Check::ok(name, found)
        }
    }
    fn failed(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Check {
        Check {
            status: Status::Failed,
            ..Check::warning(name, found, advice)
        }
    }

    /// Of a Redis that lets nobody in: there is nothing more to look at.
    pub fn of(error: &ConnectError) -> Check {
        let found = error.to_string();
        match error {
            ConnectError::TooOld { .. } => {
                Check::failed("version", found, "use Redis 7.0 or later, or any Valkey")
            }
            ConnectError::Permission(_) | ConnectError::Command(_) => {
                Check::failed("permissions", found, grant())
            }
            ConnectError::Authentication(_) => Check::failed(
                "connection",
                found,
                "give the password with --password-file FILE, or user and password in the URL",
            ),
            ConnectError::NotServing(_) => {
                Check::failed("connection", found, "wait, then ask again")
            }
            ConnectError::Unreachable(_) => Check::failed(
                "connection",
                found,
                "start a Redis there, or name another with --redis URL or SEGMENTER_REDIS",
            ),
        }
    }
}

fn grant() -> String {
    format!(
        "grant what is missing; this suffices: {}",
        acl_setuser("segmenter")
    )
}

/// Round trips that the latency is told from.
const PINGS: usize = 5;
/// Each commit waits for one: beyond this, low load is slow and failures are noticed late.
const LATENCY_MAX: Duration = Duration::from_millis(20);
/// A replica that was silent for longer is as good as none.
const REPLICA_LAG_MAX_S: u64 = 10;
/// Of the memory limit, in percent. Beyond that a burst of appends may fill it.
const MEMORY_MAX_PERCENT: u64 = 80;

/// All checks, of a Redis that was connected to.
pub async fn examine(broker: &Broker, namespace: &Namespace) -> Vec<Check> {
    let server = broker.info();
    let version = format!("{} {}", server.software, server.version);
    let mut checks = vec![
        Check::ok("version", version),
        permissions(broker, namespace).await,
    ];
    let info = match broker.send(&redis::cmd("INFO")).await.and_then(text) {
        Ok(info) => parse_info(&info),
        Err(error) => {
            let advice = "look whether Redis still runs, then ask again";
            checks.push(Check::failed("connection", error.to_string(), advice));
            return checks;
        }
    };
    checks.extend(judge(&info, &settings(broker).await));
    checks.push(latency(broker).await);
    checks
}

/// What follows from INFO and CONFIG GET alone.
pub(crate) fn judge(info: &Info, settings: &BTreeMap<String, String>) -> [Check; 4] {
    [
        eviction(info),
        persistence(info, settings),
        replicas(info),
        memory(info),
    ]
}

async fn permissions(broker: &Broker, namespace: &Namespace) -> Check {
    match broker.check_permissions(namespace).await {
        Ok(()) => Check::ok(
            "permissions",
            "the user may call every command that is needed",
        ),
        Err(error @ ConnectError::Permission(_)) => Check::of(&error),
        Err(error) => {
            let advice = "look whether Redis still runs, then ask again";
            Check::failed("permissions", error.to_string(), advice)
        }
    }
}

/// Of `appendfsync` and `save`; empty for a user who may not see them, as most need not.
async fn settings(broker: &Broker) -> BTreeMap<String, String> {
    let mut cmd = redis::cmd("CONFIG");
    cmd.arg("GET").arg("appendfsync").arg("save");
    let answer = broker.send(&cmd).await.and_then(list).unwrap_or_default();
    let words: Vec<_> = answer.into_iter().map_while(|v| text(v).ok()).collect();
    let pairs = words.chunks_exact(2);
    pairs
        .map(|pair| (pair[0].clone(), pair[1].clone()))
        .collect()
}

async fn latency(broker: &Broker) -> Check {
    let mut took = Vec::new();
    for _ in 0..PINGS {
        let started = Instant::now();
        if let Err(error) = broker.send(&redis::cmd("PING")).await {
            let advice = "look whether Redis still runs, then ask again";
            return Check::failed("latency", error.to_string(), advice);
        }
        took.push(started.elapsed());
    }
    took.sort();
    let (median, worst) = (took[PINGS / 2], took[PINGS - 1]);
    let ms = |span: Duration| format!("{:.2} ms", span.as_secs_f64() * 1_000.0);
    let found = format!("a ping takes {}, at worst {}", ms(median), ms(worst));
    if median > LATENCY_MAX {
        let advice = "run hosts nearer to Redis, or look what keeps it busy (SLOWLOG GET)";
        return Check::warning("latency", found, advice);
    }
    Check::ok("latency", found)
}

pub(crate) type Info = BTreeMap<String, String>;

pub(crate) fn parse_info(text: &str) -> Info {
    let fields = text
        .lines()
        .filter_map(|line| line.trim_end().split_once(':'));
    fields
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn word<'a>(info: &'a Info, name: &str) -> &'a str {
    info.get(name).map_or("", String::as_str)
}

fn count(info: &Info, name: &str) -> u64 {
    word(info, name).parse().unwrap_or(0)
}

fn eviction(info: &Info) -> Check {
    match word(info, "maxmemory_policy") {
        "" => Check::ok("eviction", "the server does not tell its maxmemory-policy"),
        "noeviction" => Check::ok("eviction", "noeviction"),
        policy => Check::failed(
            "eviction",
            format!(
                "maxmemory-policy {policy} throws keys away when memory is short: messages would vanish"
            ),
            "CONFIG SET maxmemory-policy noeviction, and in redis.conf",
        ),
    }
}

fn persistence(info: &Info, settings: &BTreeMap<String, String>) -> Check {
    const NAME: &str = "persistence";
    let aof = count(info, "aof_enabled") == 1;
    if aof && word(info, "aof_last_write_status") == "err" {
        return Check::failed(
            NAME,
            "the last write to the AOF failed: Redis refuses writes",
            "look at the disk and at Redis' log",
        );
    }
    if word(info, "rdb_last_bgsave_status") == "err" {
        return Check::warning(
            NAME,
            "the last snapshot failed: Redis may refuse writes",
            "look at the disk, the memory and Redis' log",
        );
    }
    if aof {
        return match settings.get("appendfsync").map(String::as_str) {
            Some("always") => Check::ok(
                NAME,
                "AOF, appendfsync always: a crash of Redis loses nothing",
            ),
            Some("everysec") => Check::ok(
                NAME,
                "AOF, appendfsync everysec: a crash of its machine may lose what was appended in the last second or two",
            ),
            Some(other) => Check::warning(
                NAME,
                format!(
                    "AOF, appendfsync {other}: a crash of its machine may lose half a minute of messages"
                ),
                "CONFIG SET appendfsync everysec, or always, and in redis.conf",
            ),
            None => Check::ok(
                NAME,
                "AOF; this user may not see appendfsync: with always a crash loses nothing, with everysec perhaps the last second or two",
            ),
        };
    }
    let snapshots = settings.get("save").map(|save| !save.is_empty());
    let advice = "CONFIG SET appendonly yes, and in redis.conf";
    match snapshots {
        Some(false) => Check::warning(
            NAME,
            "none: when Redis ends, all streams and messages are gone",
            advice,
        ),
        Some(true) => Check::warning(
            NAME,
            "snapshots only: a crash of Redis loses everything since the last one",
            advice,
        ),
        None => Check::warning(
            NAME,
            "no AOF: a crash of Redis loses everything since the last snapshot, or everything",
            advice,
        ),
    }
}

fn replicas(info: &Info) -> Check {
    const NAME: &str = "replicas";
    if word(info, "role") == "slave" {
        return Check::failed(
            NAME,
            format!(
                "this is a replica of {}:{} and takes no writes",
                word(info, "master_host"),
                word(info, "master_port")
            ),
            "name the primary with --redis URL",
        );
    }
    let end = count(info, "master_repl_offset");
    let mut all = Vec::new();
    let mut late = false;
    // Only as many as are told of: the number may be anything.
    let told = (0..count(info, "connected_slaves")).map_while(|n| info.get(&format!("slave{n}")));
    for replica in told {
        let fields: BTreeMap<_, _> = replica
            .split(',')
            .filter_map(|field| field.split_once('='))
            .collect();
        let field = |name: &str| fields.get(name).copied().unwrap_or("?");
        let number = |name: &str| field(name).parse::<u64>().ok();
        let lag = number("lag");
        let behind = number("offset").map(|offset| end.saturating_sub(offset));
        late |= field("state") != "online" || lag.is_none_or(|lag| lag > REPLICA_LAG_MAX_S);
        all.push(format!(
            "{}:{} is {}, {} behind, heard {} s ago",
            field("ip"),
            field("port"),
            field("state"),
            behind.map_or("?".to_owned(), bytes),
            field("lag"),
        ));
    }
    if all.is_empty() {
        return Check::ok(NAME, "none attached");
    }
    let found = format!(
        "{}; a failover loses what the replica had not heard",
        all.join("; ")
    );
    if late {
        let advice =
            "look at the replica and at the network between; a failover now would lose more";
        return Check::warning(NAME, found, advice);
    }
    Check::ok(NAME, found)
}

fn memory(info: &Info) -> Check {
    const NAME: &str = "memory";
    let used = count(info, "used_memory");
    let (limit, machine) = (count(info, "maxmemory"), count(info, "total_system_memory"));
    let (of, whose) = if limit > 0 {
        (limit, "maxmemory")
    } else {
        (machine, "the machine, and no maxmemory is set")
    };
    if of == 0 {
        return Check::ok(NAME, format!("{} used", bytes(used)));
    }
    let percent = used.saturating_mul(100) / of;
    let found = format!(
        "{} used, {percent} % of {} of {whose}",
        bytes(used),
        bytes(of)
    );
    if limit > 0 && used >= limit {
        Check::failed(
            NAME,
            format!("{found}: appends are refused"),
            "raise maxmemory, delete streams that nobody reads, or give slow groups more hosts; what is acked is trimmed by itself",
        )
    } else if percent >= MEMORY_MAX_PERCENT {
        Check::warning(
            NAME,
            found,
            "raise it, or lower the capacity of new streams: full streams must fit",
        )
    } else {
        Check::ok(NAME, found)
    }
}

fn bytes(n: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(unit, _)| n >= *unit) {
        // For people: a double is exact enough.
        Some((unit, name)) => format!("{:.1} {name}", n as f64 / *unit as f64),
        None => format!("{n} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(text: &str) -> Info {
        parse_info(&text.replace(' ', "\r\n"))
    }

    fn set(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn persistence_says_what_a_crash_would_cost() {
        let aof = "aof_enabled:1 aof_last_write_status:ok rdb_last_bgsave_status:ok";
        for (said, settings, status, found) in [
            (
                aof,
                set(&[("appendfsync", "always")]),
                Status::Ok,
                "loses nothing",
            ),
            (
                aof,
                set(&[("appendfsync", "everysec")]),
                Status::Ok,
                "last second",
            ),
            (
                aof,
                set(&[("appendfsync", "no")]),
                Status::Warning,
                "half a minute",
            ),
            (aof, set(&[]), Status::Ok, "may not see"),
            (
                "aof_enabled:1 aof_last_write_status:err",
                set(&[]),
                Status::Failed,
                "refuses writes",
            ),
            (
                "aof_enabled:0 rdb_last_bgsave_status:err",
                set(&[]),
                Status::Warning,
                "snapshot failed",
            ),
            (
                "aof_enabled:0",
                set(&[("save", "3600 1")]),
                Status::Warning,
                "snapshots only",
            ),
            (
                "aof_enabled:0",
                set(&[("save", "")]),
                Status::Warning,
                "none",
            ),
            ("aof_enabled:0", set(&[]), Status::Warning, "no AOF"),
        ] {
            let check = persistence(&info(said), &settings);
            assert_eq!(check.status, status, "{check:?}");
            assert!(check.found.contains(found), "{check:?}");
            assert_eq!(check.advice.is_none(), status == Status::Ok, "{check:?}");
        }
    }

    #[test]
    fn a_replica_is_refused_and_one_that_lags_is_told() {
        let primary = "role:master master_repl_offset:5000";
        let with = |slave: &str| format!("{primary} connected_slaves:1 slave0:{slave}");
        for (said, status, found) in [
            (primary.to_owned(), Status::Ok, "none attached"),
            (
                with("ip=::1,port=7,state=online,offset=4000,lag=1"),
                Status::Ok,
                "1000 B behind",
            ),
            (
                with("ip=::1,port=7,state=online,offset=4000,lag=11"),
                Status::Warning,
                "11 s ago",
            ),
            (
                with("ip=::1,port=7,state=wait_bgsave,offset=0,lag=0"),
                Status::Warning,
                "wait_bgsave",
            ),
            (
                format!("{primary} connected_slaves:{} slave0:lag=1", u64::MAX),
                Status::Warning,
                "?:? is ?",
            ),
            (
                "role:slave master_host:there master_port:7".to_owned(),
                Status::Failed,
                "there:7",
            ),
        ] {
            let check = replicas(&info(&said));
            assert_eq!(check.status, status, "{check:?}");
            assert!(check.found.contains(found), "{check:?}");
        }
    }

    #[test]
    fn memory_warns_before_it_is_full() {
        for (said, status) in [
            ("used_memory:79 maxmemory:100", Status::Ok),
            ("used_memory:80 maxmemory:100", Status::Warning),
            ("used_memory:100 maxmemory:100", Status::Failed),
            (
                "used_memory:100 maxmemory:0 total_system_memory:1000",
                Status::Ok,
            ),
            (
                "used_memory:900 maxmemory:0 total_system_memory:1000",
                Status::Warning,
            ),
            ("used_memory:900", Status::Ok),
        ] {
            assert_eq!(memory(&info(said)).status, status, "{said}");
        }
        assert_eq!(bytes(1536), "1.5 KiB");
    }

    #[test]
    fn only_noeviction_will_do() {
        assert_eq!(
            eviction(&info("maxmemory_policy:noeviction")).status,
            Status::Ok
        );
        let check = eviction(&info("maxmemory_policy:volatile-lru"));
        assert_eq!(check.status, Status::Failed);
        assert!(check.found.contains("volatile-lru"), "{check:?}");
    }
}
