//! `segmenter handler …` without a running host: what lies in Redis afterwards, and what people are told.
//! Where a host is needed, the test speaks for one, through the port.

use std::io::Write;
use std::path::{Path, PathBuf};

use segmenter_core::lease::Owner;
use segmenter_core::names::{GroupName, HandlerId, MemberId, Partition, StreamId, Version};
use segmenter_core::port::{
    Acquire, Asks, EnsureGroup, Reply, Report, ReportReply, Request, Settle, SettleReply, Start,
};
use segmenter_core::rollout::{Candidacy, Differences, HostReport, Tally, Verdict};
use segmenter_redis::{Address, Broker, admin, version_of};
use segmenter_tests::process::{self, Ended, guest, until};
use segmenter_tests::server::Options;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::failing;
use crate::support::World;

/// Longer than any test.
const LONG: &str = "1h";

/// Files of the same handler, each another version: a custom section at the end says which.
struct Files<'a>(&'a World);

impl Files<'_> {
    fn bytes(&self, n: usize) -> Vec<u8> {
        let mut bytes = std::fs::read(guest("noop")).expect("the guest is built");
        let text = format!("\u{7}version{n}");
        bytes.extend([0, u8::try_from(text.len()).expect("short")]);
        bytes.extend(text.as_bytes());
        bytes
    }

    fn path(&self, n: usize) -> String {
        self.write(&format!("v{n}.wasm"), &self.bytes(n))
    }

    fn version(&self, n: usize) -> String {
        version_of(&self.bytes(n)).to_string()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.server.dir().join(name);
        std::fs::write(&path, bytes).expect("the folder of the server is ours");
        text(path)
    }
}

fn text(path: PathBuf) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

impl World {
    fn files(&self) -> Files<'_> {
        Files(self)
    }

    fn handler(&self, args: &[&str]) -> Ended {
        self.run(&[&["--format", "json", "handler"], args].concat())
    }

    fn deploy(&self, n: usize, more: &[&str]) -> Ended {
        let path = self.files().path(n);
        self.handler(&[&["deploy", "charge", &path], more].concat())
    }

    /// It must work; what it answered.
    fn deployed(&self, n: usize, more: &[&str]) -> Value {
        self.deploy(n, more).ok().objects().remove(0)
    }

    fn listed(&self) -> Value {
        self.handler(&["list", "charge"]).ok().objects().remove(0)
    }

    /// change, version and current version after it of each entry.
    fn history(&self) -> Vec<(String, String, String)> {
        let all = self.handler(&["history", "charge"]).ok().objects();
        let word = |o: &Value, name: &str| o[name].as_str().expect(name).to_owned();
        all.iter()
            .map(|o| (word(o, "change"), word(o, "version"), word(o, "current")))
            .collect()
    }

    fn keys(&self) -> Vec<String> {
        let mut redis = self.redis();
        redis::cmd("KEYS").arg("*").query(&mut redis).expect("KEYS")
    }
}

/// Exit status 1 and all of this on stderr.
#[track_caller]
fn refused(ended: &Ended, says: &[&str]) {
    assert_eq!(ended.code(), Some(1), "{ended:#?}");
    for expected in says {
        assert!(
            ended.stderr.contains(expected),
            "{expected:?} is missing in {ended:#?}"
        );
    }
    assert!(!ended.stderr.contains("panicked"), "{ended:#?}");
}

/// Speaks to Redis as hosts do.
struct Spoken {
    runtime: Runtime,
    broker: Broker,
    handler: HandlerId,
}

impl Spoken {
    fn to(world: &World) -> Spoken {
        let runtime = Runtime::new().expect("a runtime");
        let address = Address::new(&world.url, None).expect("a URL");
        let broker = runtime.block_on(Broker::connect(&address));
        Spoken {
            broker: broker.unwrap_or_else(|e| panic!("{e}")),
            runtime,
            handler: HandlerId {
                namespace: "default".parse().unwrap(),
                handler: "charge".parse().unwrap(),
            },
        }
    }

    fn ask(&self, request: Request) -> Reply {
        let reply = self.runtime.block_on(self.broker.execute(request));
        reply.unwrap_or_else(|e| panic!("{e}"))
    }

    fn report(&self, asks: Asks) -> ReportReply {
        let handler = self.handler.clone();
        match self.ask(Request::Report(Report { handler, asks })) {
            Reply::Report(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    /// A host that runs `current` and is so far with what is wanted.
    fn tells(&self, host: &str, current: &str, change: impl Fn(&mut HostReport)) {
        let wanted = self.report(Asks::Only).wanted;
        let mut report = HostReport {
            stream: "s".parse().unwrap(),
            group: "g".parse().unwrap(),
            revision: wanted.map_or(0, |wanted| wanted.revision),
            current: current.parse().unwrap(),
            refused: None,
            candidacy: Candidacy::Loaded,
            candidate: Tally::default(),
            rest: Tally::default(),
            live_versions: 2,
            differences: Differences::default(),
        };
        change(&mut report);
        let host = MemberId::new(host).unwrap();
        self.report(Asks::Told { host, report });
    }

    fn settles(&self, verdict: Verdict) {
        let wanted = self.report(Asks::Only).wanted.expect("it was deployed");
        let settle = Settle {
            handler: self.handler.clone(),
            revision: wanted.revision,
            version: wanted.candidate.expect("a candidate").version,
            verdict,
            evidence: "12 calls".to_owned(),
            by: "host-1".to_owned(),
        };
        let reply = self.ask(Request::Settle(settle));
        assert!(
            matches!(reply, Reply::Settle(SettleReply::Settled { .. })),
            "{reply:?}"
        );
    }
}

fn back(reason: &str) -> Verdict {
    Verdict::RollBack {
        reason: reason.to_owned(),
    }
}

fn change(change: &str, version: &str, current: &str) -> (String, String, String) {
    (change.to_owned(), version.to_owned(), current.to_owned())
}

#[test]
fn the_first_version_is_current_and_its_bytes_lie_under_their_digest() {
    let world = World::new();
    let version = world.files().version(1);
    let answer = world.deployed(1, &[]);
    assert_eq!(answer["result"], "current", "{answer}");
    assert_eq!(answer["version"], version.as_str());
    let key = format!("seg:{{default}}:module:{version}");
    let stored: Vec<u8> = redis::cmd("GET")
        .arg(key)
        .query(&mut world.redis())
        .expect("GET");
    assert_eq!(stored, world.files().bytes(1));
    let again = world.deployed(1, &[]);
    assert_eq!(again["result"], "unchanged");
    assert_eq!(again["revision"], answer["revision"]);
    let listed = world.listed();
    assert_eq!(listed["current"], version.as_str());
    assert_eq!(listed["candidate"], Value::Null);
    assert_eq!(listed["hosts"], json!([]));
    assert_eq!(world.history(), [change("deployed", &version, &version)]);
    let shown = world.run(&["handler", "list"]).ok().stdout;
    assert!(
        shown.contains(&version) && shown.contains("no host"),
        "{shown}"
    );
    let shown = world.run(&["handler", "history", "charge"]).ok().stdout;
    assert!(
        shown.contains("deployed") && shown.contains(&version[..12]),
        "{shown}"
    );
}

#[test]
fn a_canary_is_alone_until_it_is_rolled_back() {
    let world = World::new();
    let [one, two, three] = [1, 2, 3].map(|n| world.files().version(n));
    world.deployed(1, &[]);
    let answer = world.deployed(2, &["--canary", "25%", "--for", LONG]);
    assert_eq!(answer["result"], "trial");
    let listed = world.listed();
    assert_eq!(listed["current"], one.as_str());
    let candidate = &listed["candidate"];
    assert_eq!(candidate["version"], two.as_str());
    assert_eq!(candidate["mode"], "trial");
    assert_eq!(candidate["share_percent"], 25);
    assert!(candidate["left_ms"].as_u64().unwrap() <= 3_600_000);
    assert!(!candidate["by"].as_str().unwrap().is_empty());
    for more in [&["--now"][..], &["--shadow", "--for", "1s"], &[]] {
        let busy = world.deploy(3, more);
        refused(&busy, &["under way", &two[..12], "handler rollback charge"]);
    }
    refused(&world.deploy(2, &[]), &["this version"]);
    let back = world
        .handler(&["rollback", "charge"])
        .ok()
        .objects()
        .remove(0);
    assert_eq!((&back["from"], &back["to"]), (&json!(two), &json!(one)));
    let answer = world.deployed(3, &["--shadow", "--for", LONG]);
    assert_eq!(answer["result"], "shadow");
    assert_eq!(world.listed()["candidate"]["mode"], "shadow");
    let expected = [
        change("deployed", &one, &one),
        change("trial", &two, &one),
        change("rolled_back", &two, &one),
        change("shadow", &three, &one),
    ];
    assert_eq!(world.history(), expected);
}

#[test]
fn a_rollback_goes_to_the_version_before_or_to_one_that_is_named() {
    let world = World::new();
    let [one, two, three] = [1, 2, 3].map(|n| world.files().version(n));
    world.deployed(1, &[]);
    let nothing = world.handler(&["rollback", "charge"]);
    refused(&nothing, &["no version", "before", &one[..12]]);
    world.deployed(2, &["--now"]);
    world.deployed(3, &["--now"]);
    world.handler(&["rollback", "charge"]).ok();
    assert_eq!(world.listed()["current"], two.as_str());
    let to = |digits: &str| world.handler(&["rollback", "charge", "--to", digits]);
    to(&three[..6]).ok();
    assert_eq!(world.listed()["current"], three.as_str());
    to(&one.to_uppercase()).ok();
    assert_eq!(world.listed()["current"], one.as_str());
    refused(&to(&one[..8]), &["current one already"]);
    refused(&to("000000"), &["begins with 000000", &two[..12]]);
    let nowhere = "0".repeat(64);
    refused(&to(&nowhere), &["not in this Redis", &two[..12]]);
    for bad in ["12345", "xyzxyz", ""] {
        let ended = to(bad);
        assert_eq!(ended.code(), Some(2), "{ended:#?}");
    }
    let args = [
        "rollback",
        "charge",
        "--to",
        &three[..6],
        "--reason",
        "wrong sums",
    ];
    world.handler(&args).ok();
    let bad = &world.listed()["bad"][0];
    assert_eq!(
        (&bad["version"], &bad["reason"]),
        (&json!(one), &json!("wrong sums"))
    );
}

#[test]
fn what_was_rolled_back_by_itself_is_deployed_again_only_if_that_is_said() {
    let world = World::new();
    let two = world.files().version(2);
    world.deployed(1, &[]);
    world.deployed(2, &["--for", LONG]);
    Spoken::to(&world).settles(back("it traps\u{1b}[2J"));
    let ended = world.run(&["handler", "deploy", "charge", &world.files().path(2)]);
    refused(&ended, &["it traps", "--again", &two[..12]]);
    assert!(!ended.stderr.contains('\u{1b}'), "{ended:#?}");
    let listed = world.listed();
    assert_eq!(listed["bad"][0]["version"], two.as_str());
    let answer = world.deployed(2, &["--again"]);
    assert_eq!(answer["result"], "trial");
    assert_eq!(world.listed()["bad"], json!([]));
}

#[test]
fn what_no_host_could_run_is_refused_before_anybody_sees_it() {
    let world = World::new();
    let files = world.files();
    let noop = files.bytes(1);
    let dir = world.server.dir();
    let sparse = dir.join("zeros.wasm");
    let zeros = std::fs::File::create(&sparse).expect("the folder is there");
    zeros.set_len(1 << 30).expect("a sparse file");
    let core = wat::parse_str("(module (func (export \"f\")))").unwrap();
    let other = wat::parse_str("(component)").unwrap();
    let cases: Vec<(String, &[&str])> = vec![
        (text(dir.join("nowhere.wasm")), &["nowhere.wasm"]),
        (text(dir.to_owned()), &["folder"]),
        (files.write("empty.wasm", b""), &["empty"]),
        (files.write("text.wasm", b"hello"), &["not WebAssembly"]),
        (
            files.write("cut.wasm", &noop[..noop.len() / 2]),
            &["does not compile"],
        ),
        (files.write("core.wasm", &core), &["core module"]),
        (files.write("other.wasm", &other), &["another world"]),
        (text(sparse), &["1073741824 bytes", "at most 268435456"]),
        (
            text(failing::guest_that_loops_at_start(dir)),
            &["instantiate"],
        ),
        (text(failing::guest_of_much_memory(dir)), &["memory"]),
    ];
    for (path, says) in &cases {
        refused(&world.handler(&["deploy", "charge", path]), says);
    }
    assert_eq!(world.keys(), Vec::<String>::new(), "nothing was deployed");
    // What only the limits of this check were too small for.
    let much = text(failing::guest_of_much_memory(dir));
    world
        .handler(&["deploy", "charge", &much, "--memory", "256MiB"])
        .ok();
}

#[test]
fn arguments_that_contradict_each_other_are_wrong_usage() {
    let world = World::new();
    let path = world.files().path(1);
    for more in [
        &["--canary", "25%"][..],
        &["--canary", "25", "--for", "1m"],
        &["--canary", "0%", "--for", "1m"],
        &["--canary", "101%", "--for", "1m"],
        &["--shadow"],
        &["--shadow", "--canary", "25%", "--for", "1m"],
        &["--now", "--for", "1m"],
        &["--for", "0s"],
        &["--for", "5"],
        &["--timeout", "5s"],
        &["--memory", "1KiB"],
    ] {
        let ended = world.handler(&[&["deploy", "charge", &path], more].concat());
        assert_eq!(ended.code(), Some(2), "{more:?}: {ended:#?}");
    }
    let ended = world.handler(&["deploy", "no/name", &path]);
    assert_eq!(ended.code(), Some(2), "{ended:#?}");
    assert_eq!(world.keys(), Vec::<String>::new());
}

#[test]
fn a_shadow_needs_something_to_be_compared_with() {
    let world = World::new();
    let ended = world.deploy(1, &["--shadow", "--for", LONG]);
    refused(&ended, &["no current version"]);
    refused(&world.handler(&["list", "charge"]), &["never deployed"]);
}

#[test]
fn a_handler_that_was_never_deployed_is_told_with_those_that_were() {
    let world = World::new();
    for command in ["list", "history", "rollback"] {
        let ended = world.handler(&[command, "chrage"]);
        refused(&ended, &["chrage was never deployed", "none was"]);
    }
    assert!(world.handler(&["list"]).ok().stdout.is_empty());
    world.deployed(1, &[]);
    for command in ["list", "history", "rollback"] {
        let ended = world.handler(&[command, "chrage"]);
        refused(&ended, &["chrage was never deployed", "that were: charge"]);
    }
    // Another namespace has others.
    let ended = world.handler(&["history", "charge", "--namespace", "shop"]);
    refused(&ended, &["namespace shop", "none was"]);
}

#[test]
fn a_redis_that_takes_nothing_is_named_and_nothing_is_half_done() {
    let path = text(guest("noop"));
    let args = ["handler", "deploy", "charge", &path];
    let ended = process::segmenter("redis://127.0.0.1:1", &args);
    refused(&ended, &["127.0.0.1:1"]);
    let world = World::new();
    world.deployed(1, &[]);
    world.deployed(2, &["--now"]);
    let command = |args: &[&str]| {
        let mut cmd = redis::cmd(args[0]);
        let _: () = cmd
            .arg(&args[1..])
            .query(&mut world.redis())
            .expect("a command");
    };
    command(&["REPLICAOF", "127.0.0.1", "1"]);
    for args in [&["deploy", "charge", &path][..], &["rollback", "charge"]] {
        refused(&world.handler(args), &["READONLY"]);
    }
    command(&["REPLICAOF", "NO", "ONE"]);
    command(&["CONFIG", "SET", "maxmemory", "1mb"]);
    let before = world.history();
    refused(&world.deploy(3, &[]), &["OOM", "nothing was deployed"]);
    assert_eq!(world.history(), before);
    // Going back is what a full Redis must still do.
    world.handler(&["rollback", "charge"]).ok();
    assert_eq!(world.listed()["current"], world.files().version(1).as_str());
}

#[test]
fn a_hash_of_a_later_protocol_is_left_alone() {
    let world = World::new();
    world.deployed(1, &[]);
    let mut redis = world.redis();
    let _: () = redis::cmd("HSET")
        .arg(&["seg:{default}:handler:charge", "protocol", "99"])
        .query(&mut redis)
        .expect("HSET");
    for ended in [
        world.deploy(2, &[]),
        world.handler(&["rollback", "charge"]),
        world.handler(&["list", "charge"]),
    ] {
        refused(&ended, &["protocol 99", "speaks 1", "newer host"]);
    }
}

#[test]
fn of_twenty_deploys_at_once_one_wins_and_the_others_are_told() {
    let world = World::new();
    world.deployed(0, &[]);
    for round in 0..2 {
        let numbers: Vec<usize> = (1..=20).map(|n| round * 100 + n).collect();
        let ended: Vec<Ended> = std::thread::scope(|scope| {
            let deploys: Vec<_> = numbers
                .iter()
                .map(|n| scope.spawn(|| world.deploy(*n, &["--for", LONG])))
                .collect();
            let join = deploys.into_iter().map(|d| d.join().expect("no panic"));
            join.collect()
        });
        let candidate = world.listed()["candidate"]["version"].clone();
        let (won, lost): (Vec<_>, Vec<_>) = ended.iter().partition(|e| e.code() == Some(0));
        assert_eq!(won.len(), 1, "{won:#?}");
        assert_eq!(won[0].objects()[0]["version"], candidate);
        let digits = &candidate.as_str().expect("a version")[..12];
        for ended in lost {
            refused(ended, &["under way", digits]);
        }
        world.handler(&["rollback", "charge"]).ok();
    }
    let trials = world.history().iter().filter(|h| h.0 == "trial").count();
    assert_eq!(trials, 2);
}

/// Waits in a thread of its own while the test speaks for hosts.
fn waits<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    world: &'scope World,
    n: usize,
    more: &'scope [&str],
) -> std::thread::ScopedJoinHandle<'scope, Ended> {
    scope.spawn(move || world.deploy(n, &[&["--wait"], more].concat()))
}

fn until_candidate(spoken: &Spoken) {
    until("there is a candidate", || {
        let wanted = spoken.report(Asks::Only).wanted?;
        wanted.candidate.map(drop)
    });
}

/// The second object of a deploy that waited.
fn outcome(ended: &Ended) -> (Option<i32>, String, String) {
    let objects = ended.objects();
    assert_eq!(objects.len(), 2, "{ended:#?}");
    let word = |name: &str| objects[1][name].as_str().expect(name).to_owned();
    (ended.code(), word("outcome"), word("reason"))
}

#[test]
fn who_waits_learns_that_every_host_runs_it() {
    let world = World::new();
    let [one, two] = [1, 2].map(|n| world.files().version(n));
    world.deployed(1, &[]);
    let spoken = Spoken::to(&world);
    let ended = std::thread::scope(|scope| {
        let waiting = waits(scope, &world, 2, &[]);
        until_candidate(&spoken);
        spoken.tells("a", &one, |_| {});
        spoken.tells("b", &one, |_| {});
        spoken.settles(Verdict::Promote);
        // One runs it, the other not yet; then both.
        spoken.tells("a", &two, |_| {});
        until("both run it", || {
            spoken.tells("b", &two, |_| {});
            waiting.is_finished().then_some(())
        });
        waiting.join().expect("no panic")
    });
    let (code, outcome, reason) = outcome(&ended);
    assert_eq!((code, outcome.as_str()), (Some(0), "running"));
    assert_eq!(reason, "runs on a, b");
}

#[test]
fn who_waits_learns_why_it_was_rolled_back() {
    let world = World::new();
    world.deployed(1, &[]);
    let spoken = Spoken::to(&world);
    let ended = std::thread::scope(|scope| {
        let waiting = waits(scope, &world, 2, &[]);
        until_candidate(&spoken);
        spoken.settles(back("host b: it imports x"));
        waiting.join().expect("no panic")
    });
    let (code, outcome, reason) = outcome(&ended);
    assert_eq!((code, outcome.as_str()), (Some(1), "rolled_back"));
    assert!(reason.contains("host b: it imports x"), "{reason}");
}

#[test]
fn who_waits_learns_which_host_refuses_it() {
    let world = World::new();
    let one = world.files().version(1);
    world.deployed(1, &[]);
    let spoken = Spoken::to(&world);
    let ended = std::thread::scope(|scope| {
        let waiting = waits(scope, &world, 2, &["--now"]);
        until("it is told", || {
            spoken.tells("b", &one, |r| r.refused = Some("it imports x".to_owned()));
            waiting.is_finished().then_some(())
        });
        waiting.join().expect("no panic")
    });
    let (code, outcome, reason) = outcome(&ended);
    assert_eq!((code, outcome.as_str()), (Some(1), "refused"));
    assert!(
        reason.contains("host b") && reason.contains("it imports x"),
        "{reason}"
    );
}

#[test]
fn who_waits_learns_what_a_shadow_found() {
    let world = World::new();
    world.deployed(1, &[]);
    let spoken = Spoken::to(&world);
    let ended = std::thread::scope(|scope| {
        let waiting = waits(scope, &world, 2, &["--shadow", "--for", LONG]);
        until_candidate(&spoken);
        spoken.settles(Verdict::Promote);
        waiting.join().expect("no panic")
    });
    let (code, outcome, reason) = outcome(&ended);
    assert_eq!((code, outcome.as_str()), (Some(0), "shadow_ended"));
    assert!(reason.contains("12 calls"), "{reason}");
}

#[test]
fn a_wait_ends_with_what_is_missing() {
    let world = World::new();
    let one = world.files().version(1);
    let short = ["--wait", "--timeout", "300ms"];
    let (code, how, reason) = outcome(&world.deploy(1, &short));
    assert_eq!((code, how.as_str()), (Some(1), "timeout"));
    assert!(reason.contains("no host"), "{reason}");
    let spoken = Spoken::to(&world);
    let more = ["--for", LONG, "--timeout", "1s"];
    let ended = std::thread::scope(|scope| {
        let waiting = waits(scope, &world, 2, &more);
        until("it has waited", || {
            spoken.tells("b", &one, |r| r.candidacy = Candidacy::Loading);
            waiting.is_finished().then_some(())
        });
        waiting.join().expect("no panic")
    });
    let (code, how, reason) = outcome(&ended);
    assert_eq!((code, how.as_str()), (Some(1), "timeout"));
    assert!(reason.contains("not loaded yet by b"), "{reason}");
    assert_eq!(world.listed()["candidate"]["mode"], "trial", "it goes on");
}

#[test]
fn ctrl_c_ends_the_waiting_and_nothing_else() {
    let world = World::new();
    world.deployed(1, &[]);
    let path = world.files().path(2);
    let args = [
        "--format", "json", "handler", "deploy", "charge", &path, "--for", LONG, "--wait",
    ];
    let listens = || {
        let channel = "seg:{default}:handler:charge:news";
        let heard: (String, u64) = redis::cmd("PUBSUB")
            .arg("NUMSUB")
            .arg(channel)
            .query(&mut world.redis())
            .expect("PUBSUB");
        heard.1 > 0
    };
    let ended = process::signalled(&world.url, &args, "INT", listens);
    let (code, outcome, reason) = outcome(&ended);
    assert_eq!((code, outcome.as_str()), (Some(1), "interrupted"));
    assert!(reason.contains("goes on"), "{reason}");
    assert_eq!(world.listed()["candidate"]["mode"], "trial");
}

#[test]
fn a_list_tells_what_each_partition_of_each_host_runs() {
    let world = World::with_stream(3, 10);
    let [one, two] = [1, 2].map(|n| world.files().version(n));
    world.deployed(1, &[]);
    world.deployed(2, &["--canary", "50%", "--for", LONG]);
    let spoken = Spoken::to(&world);
    let stream = StreamId {
        namespace: "default".parse().unwrap(),
        stream: "s".parse().unwrap(),
    };
    let found = admin::find_stream(&spoken.broker, &stream);
    let uid = spoken.runtime.block_on(found).unwrap().unwrap().uid;
    let group = GroupName::new("g").unwrap();
    for (partition, host, version) in [(0, "a", &one), (1, "b", &two), (2, "a", &two)] {
        let partition = Partition(partition);
        spoken.ask(Request::EnsureGroup(EnsureGroup {
            stream: stream.clone(),
            uid: uid.clone(),
            partition,
            group: group.clone(),
            start: Start::Beginning,
        }));
        spoken.ask(Request::Acquire(Acquire {
            stream: stream.clone(),
            uid: uid.clone(),
            partition,
            group: group.clone(),
            owner: Owner {
                incarnation: format!("{host}-1").parse().unwrap(),
                member: host.parse().unwrap(),
                version: Version::new(version.as_str()).unwrap(),
            },
        }));
    }
    spoken.tells("a", &one, |r| {
        r.candidate.calls = 7;
        r.rest.micros = 5;
        r.differences.example = "x".to_owned();
    });
    spoken.tells("b", &one, |r| {
        r.candidacy = Candidacy::Refused("no state".to_owned())
    });
    let listed = world.listed();
    let hosts = listed["hosts"].as_array().unwrap();
    assert_eq!(hosts.len(), 2, "{listed}");
    let runs = |host: usize| hosts[host]["partitions"].clone();
    let a = json!([{"partition": 0, "version": one}, {"partition": 2, "version": two}]);
    assert_eq!(runs(0), a);
    assert_eq!(runs(1), json!([{"partition": 1, "version": two}]));
    assert_eq!(hosts[0]["candidate"], "loaded");
    assert_eq!(hosts[0]["candidate_calls"]["calls"], 7);
    assert_eq!(hosts[0]["current_calls"]["micros"], 5);
    assert_eq!(hosts[0]["differences"]["example"], "x");
    assert_eq!(hosts[0]["live_versions"], 2);
    assert_eq!(hosts[1]["candidate_refused"], "no state");
    let shown = world.run(&["handler", "list"]).ok().stdout;
    // Versions in the order of their digits.
    let mut runs = [format!("{}: 0", &one[..12]), format!("{}: 2", &two[..12])];
    runs.sort();
    for says in [
        "on trial in 50 %",
        "cannot load the candidate: no state",
        &runs.join("; "),
    ] {
        assert!(shown.contains(says), "{says}: {shown}");
    }
}

#[test]
fn damaged_bytes_are_mended_by_deploying_the_file_again() {
    let world = World::with(Options::default());
    world.deployed(1, &[]);
    world.deployed(2, &["--now"]);
    let key = format!("seg:{{default}}:module:{}", world.files().version(1));
    let mut redis = world.redis();
    let _: () = redis::cmd("SET")
        .arg(&[&key, "else"])
        .query(&mut redis)
        .expect("SET");
    world.deployed(1, &["--now"]);
    let stored: Vec<u8> = redis::cmd("GET").arg(&key).query(&mut redis).expect("GET");
    assert_eq!(stored, world.files().bytes(1));
}

#[test]
fn a_pipe_is_read_within_the_bound() {
    let world = World::new();
    let fifo = world.server.dir().join("pipe.wasm");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.expect("mkfifo runs").success());
    let writer = fifo.clone();
    let bytes = world.files().bytes(1);
    let feed = std::thread::spawn(move || write_all(&writer, &bytes));
    let path = text(fifo);
    world.handler(&["deploy", "charge", &path]).ok();
    feed.join().expect("no panic");
}

fn write_all(path: &Path, bytes: &[u8]) {
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .expect("the pipe");
    file.write_all(bytes).expect("somebody reads");
}
