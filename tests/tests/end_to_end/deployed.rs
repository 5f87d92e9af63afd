//! Hosts that follow what is deployed, while messages flow: who runs which version, and what becomes of one
//! that is worse. Judged by what handlers did and by what lies in Redis.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use segmenter_redis::version_of;
use segmenter_tests::process::{Ended, Host, guest, until};
use segmenter_tests::server::Options;
use serde_json::{Value, json};

use crate::failing;
use crate::support::{Judgement, World, judge};
use crate::swap::{until_all_run, version, versions};

pub(crate) const PARTITIONS: u32 = 8;
/// Messages that are sent before anybody looks whether they were handled.
const ROUND: usize = 80;

/// Three hosts, what was sent, and what hosts that ended have said.
pub(crate) struct Fleet {
    pub(crate) world: World,
    pub(crate) sent: Vec<(u64, String)>,
}

impl Fleet {
    pub(crate) fn new(options: Options) -> Fleet {
        let world = World::with(options);
        world.create("s", PARTITIONS, 100_000);
        Fleet {
            world,
            sent: Vec::new(),
        }
    }

    /// A configuration that follows what is deployed, with more of it: the arguments of a host.
    pub(crate) fn arguments(&self, member: &str, more: &str) -> Vec<String> {
        let text = format!(
            "[[handler]]\nname = 'h'\nstream = 's'\ngroup = 'g'\nmodule = 'deployed'\n{more}\n"
        );
        let path = self.world.server.dir().join(format!("{member}.toml"));
        std::fs::write(&path, text).expect("the folder is there");
        let path = path.to_str().expect("UTF-8").to_owned();
        ["-c", &path, "--member", member].map(str::to_owned).into()
    }

    fn host(&self, member: &str, more: &str) -> Host {
        let args = self.arguments(member, more);
        Host::start(&self.world.url, &strs(&args))
    }

    /// Deploys `guest`, made another version by a number.
    pub(crate) fn deploy(&self, of: &str, number: usize, more: &[&str]) -> Ended {
        self.deploy_file(&self.file_of(of, number), more)
    }

    /// The path of its file.
    pub(crate) fn file_of(&self, of: &str, number: usize) -> String {
        let name = format!("{of}-{number}.wasm");
        let path = self.world.server.dir().join(name);
        std::fs::write(&path, version(&guest(of), number)).expect("the folder is there");
        path.to_str().expect("UTF-8").to_owned()
    }

    fn deploy_file(&self, path: &str, more: &[&str]) -> Ended {
        self.handler(&[&["deploy", "h", path], more].concat())
    }

    fn handler(&self, args: &[&str]) -> Ended {
        let args = [&["--format", "json", "handler"], args].concat();
        self.world.run(&args)
    }

    pub(crate) fn listed(&self) -> Value {
        self.handler(&["list", "h"]).ok().objects().remove(0)
    }

    fn round(&mut self) {
        self.sent.extend(self.world.send_numbered(ROUND, 20));
    }

    /// Sends as long as `work` goes on: each round when the one before was handled.
    fn under_load<T>(&mut self, work: impl FnOnce(&Fleet) -> T) -> T {
        let over = AtomicBool::new(false);
        let sent = std::mem::take(&mut self.sent);
        let fleet = &*self;
        let (sent, done) = std::thread::scope(|scope| {
            let sending = scope.spawn(|| {
                let mut sent = sent;
                while !over.load(Ordering::Relaxed) {
                    sent.extend(fleet.world.send_numbered(ROUND, 20));
                    fleet.world.until_acked(PARTITIONS, "g");
                }
                sent
            });
            // Also if it panics: the other one must end.
            let guard = Guard(&over);
            let done = work(fleet);
            drop(guard);
            (sending.join().expect("the sender does not panic"), done)
        });
        self.sent = sent;
        done
    }

    /// Everything that was sent was handled once and in order, and nothing is a dead letter.
    fn judged(&self, hosts: Vec<Host>) {
        self.world.until_acked(PARTITIONS, "g");
        let args = ["--format", "json", "dead", "list", "s", "g"];
        assert_eq!(self.world.run(&args).ok().objects(), Vec::<Value>::new());
        let mut lines: Vec<_> = hosts.into_iter().flat_map(Host::stop).collect();
        lines.sort_by_key(|line| line.at_us);
        let late: Vec<_> = lines.iter().filter(|line| line.attempt != 1).collect();
        assert!(late.is_empty(), "an attempt was burned: {late:?}");
        let expected = Judgement {
            handled: self.sent.len(),
            ..Judgement::default()
        };
        assert_eq!(judge(&self.sent, &lines), expected);
    }
}

struct Guard<'a>(&'a AtomicBool);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(crate) fn strs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

/// The version of `guest` with this number.
pub(crate) fn named(of: &str, number: usize) -> String {
    version_of(&version(&guest(of), number)).to_string()
}

/// How `deploy --wait` ended, and what it said of it.
#[track_caller]
fn ended(ended: &Ended, code: i32, outcome: &str) -> String {
    assert_eq!(ended.code(), Some(code), "{ended:#?}");
    let last = ended.objects().pop().expect("it said how it ended");
    assert_eq!(last["outcome"], outcome, "{ended:#?}");
    last["reason"].as_str().expect("a reason").to_owned()
}

/// Exit status 1 and all of this on stderr.
#[track_caller]
fn refused(ended: &Ended, says: &[&str]) {
    assert_eq!(ended.code(), Some(1), "{ended:#?}");
    for expected in says {
        assert!(ended.stderr.contains(expected), "{expected:?}: {ended:#?}");
    }
}

/// What `handler list` says that each host runs as its current version.
fn currents(listed: &Value) -> BTreeSet<(String, String)> {
    let hosts = listed["hosts"].as_array().expect("hosts");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    hosts
        .iter()
        .map(|host| (text(&host["host"]), text(&host["current"])))
        .collect()
}

fn all(hosts: &[&str], version: &str) -> BTreeSet<(String, String)> {
    let of = |host: &&str| ((*host).to_owned(), version.to_owned());
    hosts.iter().map(of).collect()
}

const ONE_ATTEMPT: &str = "[handler.retry]\nattempts = 1";

#[test]
fn good_versions_reach_all_hosts_and_bad_ones_are_taken_back_by_themselves() {
    let mut fleet = Fleet::new(Options::default());
    let args = fleet.arguments("host-a", ONE_ATTEMPT);
    let mut early = Host::spawn(&fleet.world.url, &strs(&args));
    assert_eq!(early.ended().code(), Some(1));
    let said = early.said().join("\n");
    assert!(said.contains("handler deploy h FILE.wasm"), "{said}");
    let mut first = Host::spawn(&fleet.world.url, &[&strs(&args)[..], &["--wait"]].concat());
    first.line("it waits", |line| {
        line["text"].as_str().is_some_and(|t| t.contains("waiting"))
    });
    fleet.deploy("tally", 0, &[]).ok();
    first.event("ready");
    let more = ["host-b", "host-c"].map(|member| fleet.host(member, ONE_ATTEMPT));
    let mut hosts: Vec<Host> = [first].into_iter().chain(more).collect();
    let three = ["host-a", "host-b", "host-c"];
    until_all_run(&fleet.world, &named("tally", 0));

    fleet.under_load(|fleet| {
        let good = fleet.deploy("tally", 1, &["--for", "2s", "--wait"]);
        let reason = ended(&good, 0, "running");
        assert!(three.iter().all(|host| reason.contains(host)), "{reason}");
        until_all_run(&fleet.world, &named("tally", 1));
        assert_eq!(currents(&fleet.listed()), all(&three, &named("tally", 1)));
    });

    canary(&mut fleet);
    let good = named("tally", 2);
    let traps = failing::guest_that_traps(fleet.world.server.dir());
    taken_back(&mut fleet, traps.clone(), &[], "failed");
    taken_back(&mut fleet, traps, &["--again", "--canary", "25%"], "failed");
    let slow = failing::guest_that_is_slow(fleet.world.server.dir());
    taken_back(&mut fleet, slow, &[], "slower");
    until_all_run(&fleet.world, &good);

    // What was current before, then any that is named; one that starts later begins with it.
    fleet.handler(&["rollback", "h"]).ok();
    until_all_run(&fleet.world, &named("tally", 1));
    fleet.handler(&["rollback", "h", "--to", &good[..12]]).ok();
    until_all_run(&fleet.world, &good);
    let mut late = fleet.host("host-d", ONE_ATTEMPT);
    assert_eq!(late.event("starting")["version"], good.as_str());
    until("it has partitions", || {
        let listed = fleet.listed();
        let hosts = listed["hosts"].as_array()?;
        let late = hosts.iter().find(|host| host["host"] == "host-d")?;
        (late["partitions"].as_array()?.len() == 2 && late["current"] == good.as_str())
            .then_some(())
    });
    hosts.push(late);
    fleet.round();
    // The one that traps says nothing; whatever the slow one said, it acked.
    fleet.judged(hosts);
}

/// A quarter of the partitions, and no other, then all.
fn canary(fleet: &mut Fleet) {
    let (old, new) = (named("tally", 1), named("tally", 2));
    let seen = RefCell::new(BTreeSet::new());
    fleet.under_load(|fleet| {
        let canary = ["--canary", "25%", "--for", "4s"];
        fleet.deploy("tally", 2, &canary).ok();
        until("it is on trial in its share, then everywhere", || {
            let listed = fleet.listed();
            let on_trial = listed["candidate"] != Value::Null;
            let found = versions(&fleet.world);
            let of_new = found.values().filter(|v| **v == new).count();
            assert!(found.values().all(|v| *v == old || *v == new), "{found:?}");
            seen.borrow_mut().insert((on_trial, of_new));
            (of_new == PARTITIONS as usize).then_some(())
        });
    });
    let seen = seen.into_inner();
    let quarter = PARTITIONS as usize / 4;
    assert!(seen.contains(&(true, quarter)), "{seen:?}");
    // `found` was read after `listed`: the promotion may lie between them.
    let more = |(on_trial, n): &&(bool, usize)| *on_trial && *n > quarter;
    assert!(seen.iter().filter(more).count() <= 1, "{seen:?}");
}

fn taken_back(fleet: &mut Fleet, path: PathBuf, more: &[&str], says: &str) {
    let before = fleet.listed()["current"].as_str().expect("one").to_owned();
    let path = path.to_str().expect("UTF-8").to_owned();
    fleet.under_load(|fleet| {
        let more = [more, &["--for", "40s", "--wait"]].concat();
        let reason = ended(&fleet.deploy_file(&path, &more), 1, "rolled_back");
        assert!(
            reason.contains(says) && reason.contains("host-"),
            "{reason}"
        );
        until_all_run(&fleet.world, &before);
    });
    let bytes = std::fs::read(&path).expect("it is there");
    let listed = fleet.listed();
    let bad = listed["bad"].as_array().expect("bad ones");
    let bad = bad
        .iter()
        .find(|bad| bad["version"] == version_of(&bytes).as_str());
    let reason = bad.expect("marked")["reason"].as_str().expect("why");
    assert!(reason.contains(says), "{reason}");
    refused(&fleet.deploy_file(&path, &[]), &["--again", says]);
}

#[test]
fn one_host_that_cannot_run_a_version_keeps_it_from_all() {
    let mut fleet = Fleet::new(Options::default());
    let allowed = [named("tally", 0), named("dedup", 0)];
    let grants = "[handler.grants]\nstate = true";
    fleet.deploy("tally", 0, &[]).ok();
    let hosts = vec![
        fleet.host("host-a", grants),
        fleet.host("host-b", grants),
        fleet.host("host-c", &format!("allow = {allowed:?}")),
    ];
    until_all_run(&fleet.world, &allowed[0]);
    for (of, number, says) in [("dedup", 0, "grant"), ("tally", 1, "allow")] {
        fleet.under_load(|fleet| {
            let deployed = fleet.deploy(of, number, &["--wait"]);
            let reason = ended(&deployed, 1, "rolled_back");
            assert!(reason.contains("host host-c"), "{reason}");
            assert!(reason.contains(says), "{reason}");
            until_all_run(&fleet.world, &allowed[0]);
        });
        let bad = &fleet.listed()["bad"];
        assert!(bad.to_string().contains(&named(of, number)), "{bad}");
    }
    fleet.judged(hosts);
}

#[test]
fn of_two_deploys_at_once_one_is_told_and_a_redis_that_refuses_changes_nothing() {
    let mut fleet = Fleet::new(Options {
        appendonly: true,
        ..Options::default()
    });
    fleet.deploy("tally", 0, &[]).ok();
    let hosts = ["host-a", "host-b", "host-c"].map(|member| fleet.host(member, ""));
    until_all_run(&fleet.world, &named("tally", 0));
    let both = fleet.under_load(|fleet| {
        std::thread::scope(|scope| {
            let deploy = |number| fleet.deploy("tally", number, &["--for", "1h"]);
            let started = [1, 2].map(|number| scope.spawn(move || deploy(number)));
            started.map(|deploy| deploy.join().expect("no panic"))
        })
    });
    let won = both.iter().position(|ended| ended.code() == Some(0));
    let won = won.expect("one of them wins");
    refused(
        &both[1 - won],
        &["under way", &named("tally", won + 1)[..12]],
    );
    until_all_run(&fleet.world, &named("tally", won + 1));
    fleet.handler(&["rollback", "h"]).ok();
    until_all_run(&fleet.world, &named("tally", 0));

    let replica = |of: &[&str]| {
        let done: redis::RedisResult<()> = redis::cmd("REPLICAOF")
            .arg(of)
            .query(&mut fleet.world.redis());
        done.expect("REPLICAOF");
    };
    replica(&["127.0.0.1", "1"]);
    let denied = fleet.deploy("tally", 3, &[]);
    assert_eq!(denied.code(), Some(1), "{denied:#?}");
    assert!(denied.stderr.to_lowercase().contains("read"), "{denied:#?}");
    assert!(!denied.stderr.contains("panicked"), "{denied:#?}");
    replica(&["NO", "ONE"]);
    let listed = fleet.listed();
    assert_eq!(listed["current"], json!(named("tally", 0)));
    assert_eq!(listed["candidate"], Value::Null);

    // Redis is killed in the middle of a trial, and comes back with all that it answered.
    fleet.round();
    fleet.deploy("tally", 4, &["--for", "3s"]).ok();
    fleet.world.server.restart();
    fleet.round();
    until_all_run(&fleet.world, &named("tally", 4));
    until("it is promoted", || {
        let listed = fleet.listed();
        let promoted = listed["candidate"] == Value::Null;
        (promoted && listed["current"] == json!(named("tally", 4))).then_some(())
    });
    fleet.world.until_acked(PARTITIONS, "g");
    let mut lines: Vec<_> = hosts.into_iter().flat_map(Host::stop).collect();
    lines.sort_by_key(|line| line.at_us);
    let judgement = judge(&fleet.sent, &lines);
    // What a restart leaves unanswered may be called again; it is not lost, nor out of order.
    assert_eq!(
        (judgement.lost, judgement.out_of_order),
        (0, 0),
        "{judgement:?}"
    );
}
