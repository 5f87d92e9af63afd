//! Deploys whose hosts, deployer or Redis are killed between any two steps: afterwards everybody runs the old
//! version or everybody the new one, and what messages did was done once and in order.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

use segmenter::points::{self, Act, Point};
use segmenter_tests::process::{self, Ended, GuestLine, Host, until};
use segmenter_tests::server::Options;
use serde_json::Value;

use crate::deployed::{Fleet, PARTITIONS, named, strs};
use crate::support::judge;
use crate::swap::{until_all_run, versions};

const MEMBERS: [&str; 3] = ["host-a", "host-b", "host-c"];
const KEYS: usize = 20;
/// Messages per key before a deploy, while it goes on, and afterwards.
const EACH: usize = 4;

/// Three hosts that may be killed, and the number of the version that they run.
struct Scene {
    fleet: Fleet,
    hosts: Vec<Host>,
    /// What hosts that are gone have said.
    lines: Vec<GuestLine>,
    armed: PathBuf,
    /// What runs, and what was deployed last.
    current: usize,
    newest: usize,
}

impl Scene {
    fn new() -> Scene {
        let fleet = Fleet::new(Options {
            appendonly: true,
            ..Options::default()
        });
        let armed = fleet.world.server.dir().join("armed");
        fleet.deploy("dedup", 0, &[]).ok();
        let mut scene = Scene {
            fleet,
            hosts: Vec::new(),
            lines: Vec::new(),
            armed,
            current: 0,
            newest: 0,
        };
        scene.hosts = MEMBERS.map(|member| scene.start(member)).into();
        until_all_run(&scene.fleet.world, &named("dedup", 0));
        scene
    }

    fn start(&self, member: &str) -> Host {
        let args = self
            .fleet
            .arguments(member, "[handler.grants]\nstate = true");
        let variable = (points::VARIABLE, self.armed.as_path());
        Host::start_with_variable(&self.fleet.world.url, &strs(&args), variable)
    }

    fn send(&mut self) {
        let sent = self.fleet.world.send_numbered(KEYS * EACH, KEYS);
        self.fleet.sent.extend(sent);
    }

    fn arm(&self, point: Point, act: Act) {
        points::arm(&self.armed, point, act).expect("the folder is there");
    }

    /// Which process came to the armed point.
    fn taken(&self, point: Point) -> u32 {
        until(&format!("somebody is at {point:?}"), || {
            points::taken(&self.armed)
        })
    }

    fn release(&self, pid: u32) {
        points::release(&self.armed, pid).expect("it was taken");
    }

    /// The newest version, by a deployer that looks at the armed point, too.
    fn deployer(&self) -> impl FnOnce() -> Ended + Send + use<> {
        let path = self.fleet.file_of("dedup", self.newest);
        let (url, armed) = (self.fleet.world.url.clone(), self.armed.clone());
        move || {
            let deploy = ["--format", "json", "handler", "deploy", "h"];
            let args = [&deploy[..], &[&path, "--for", "1s"]].concat();
            process::with_variable(&url, &args, (points::VARIABLE, &armed))
        }
    }

    fn deploy(&self) -> Ended {
        self.deployer()()
    }

    /// Nobody does anything by hand: whether the new version came to be the current one.
    fn settles(&mut self, what: &str) -> bool {
        let (old, new) = (named("dedup", self.current), named("dedup", self.newest));
        let current = until(&format!("{what}: all run one version"), || {
            // A machine that is busy throughout may not even connect in time: another look, then.
            let args = ["--format", "json", "handler", "list", "h"];
            let looked = self.fleet.world.run(&args);
            let listed = looked.objects().into_iter().next()?;
            let current = listed["current"].as_str()?.to_owned();
            let hosts = listed["hosts"].as_array()?;
            let follow = hosts.iter().filter(|h| h["current"] == current.as_str());
            let same = versions(&self.fleet.world)
                .into_values()
                .all(|v| v == current);
            let done = listed["candidate"] == Value::Null;
            (done && same && follow.count() == MEMBERS.len()).then_some(current)
        });
        assert!(current == old || current == new, "{what}: {current}");
        if current == new {
            self.current = self.newest;
        }
        current == new
    }

    /// It must, unless a busy machine made it look slow.
    #[track_caller]
    fn promotes(&mut self, what: &str) {
        let new = self.settles(what) || self.looked_slow();
        let args = ["--format", "json", "handler", "history", "h"];
        assert!(new, "{what}: {}", self.fleet.world.run(&args).ok().stdout);
    }

    /// A mean of few calls is what the machine makes of it, too: no crash's doing.
    fn looked_slow(&self) -> bool {
        let (listed, newest) = (self.fleet.listed(), named("dedup", self.newest));
        let slow = |bad: &Value| {
            let reason = bad["reason"].as_str().unwrap_or_default();
            bad["version"] == newest.as_str() && reason.starts_with("it is slower")
        };
        listed["bad"]
            .as_array()
            .is_some_and(|bad| bad.iter().any(slow))
    }

    /// Lines of all hosts, once all is handled: each message counted once, in its order, none called again
    /// after it had counted.
    fn judged(mut self) {
        self.fleet.world.until_acked(PARTITIONS, "g");
        let hosts = std::mem::take(&mut self.hosts);
        self.lines.extend(hosts.into_iter().flat_map(Host::stop));
        self.lines.sort_by_key(|line| line.at_us);
        let again: Vec<_> = self
            .lines
            .iter()
            .filter(|l| l.text.contains("again="))
            .collect();
        assert!(again.is_empty(), "called after their effects: {again:?}");
        let judgement = judge(&self.fleet.sent, &self.lines);
        let (lost, late) = (judgement.lost, judgement.out_of_order);
        assert_eq!((lost, late), (0, 0), "{judgement:?}");
        let each = (self.fleet.sent.len() / KEYS).to_string();
        let expected: BTreeMap<String, String> = (0..KEYS)
            .map(|key| (format!("key-{key}"), each.clone()))
            .collect();
        assert_eq!(self.totals(), expected);
    }

    /// What `dedup` counted, as it lies in Redis.
    fn totals(&self) -> BTreeMap<String, String> {
        let mut redis = self.fleet.world.redis();
        let mut all = BTreeMap::new();
        for partition in 0..PARTITIONS {
            let kept: BTreeMap<String, String> = redis::cmd("HGETALL")
                .arg(format!("seg:{{default/s/{partition}}}:state:g"))
                .query(&mut redis)
                .expect("a hash");
            let total = |(name, value): (String, String)| {
                Some((name.strip_prefix("=total ")?.to_owned(), value))
            };
            all.extend(kept.into_iter().filter_map(total));
        }
        all
    }
}

#[test]
fn a_host_or_a_deployer_that_dies_at_any_step_leaves_the_old_version_or_the_new_one() {
    let mut scene = Scene::new();
    for point in Point::OF_HOSTS {
        scene.newest += 1;
        scene.arm(point, Act::Die);
        scene.send();
        scene.deploy().ok();
        scene.send();
        let pid = scene.taken(point);
        let died = scene.hosts.iter().position(|host| host.pid() == pid);
        let died = died.expect("it is one of the hosts");
        let next = scene.start(MEMBERS[died]);
        let dead = std::mem::replace(&mut scene.hosts[died], next);
        scene.lines.extend(dead.kill());
        scene.release(pid);
        scene.send();
        // Others go on with the deploy, and the dead host finds out at its start.
        scene.promotes(&format!("a host died at {point:?}"));
    }
    for point in Point::OF_DEPLOYERS {
        scene.newest += 1;
        scene.arm(point, Act::Die);
        scene.send();
        let ended = scene.deploy();
        assert_eq!(ended.status.signal(), Some(9), "{point:?}: {ended:#?}");
        let pid = scene.taken(point);
        scene.release(pid);
        scene.send();
        let what = format!("the deployer died at {point:?}");
        if point == Point::Pointed {
            scene.promotes(&what);
        } else {
            assert!(!scene.settles(&what), "{what}: nobody wanted it");
            scene.deploy().ok();
            scene.promotes("deployed again");
        }
    }
    scene.judged();
}

#[test]
fn a_redis_that_dies_at_any_step_leaves_the_old_version_or_the_new_one() {
    let mut scene = Scene::new();
    for point in [
        Point::Wanted,
        Point::Fetched,
        Point::Published,
        Point::Settling,
        Point::Settled,
    ] {
        scene.newest += 1;
        scene.arm(point, Act::Hold);
        scene.send();
        scene.deploy().ok();
        let pid = scene.taken(point);
        scene.fleet.world.server.restart();
        scene.release(pid);
        scene.send();
        scene.promotes(&format!("Redis died at {point:?}"));
    }
    for point in Point::OF_DEPLOYERS {
        scene.newest += 1;
        scene.arm(point, Act::Hold);
        scene.send();
        let ended = std::thread::scope(|scope| {
            let deploy = scope.spawn(scene.deployer());
            let pid = scene.taken(point);
            scene.fleet.world.server.restart();
            scene.release(pid);
            deploy.join().expect("no panic")
        });
        scene.send();
        let new = scene.settles(&format!("Redis died under a deployer at {point:?}"));
        // Whoever was told that it is deployed was told the truth.
        let known = new || scene.looked_slow();
        assert!(known || ended.code() == Some(1), "{ended:#?}");
        assert!(!ended.stderr.contains("panicked"), "{ended:#?}");
        if !known {
            scene.deploy().ok();
            scene.promotes("deployed again");
        }
    }
    scene.judged();
}
