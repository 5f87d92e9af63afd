//! One run from a seed: sets the stage, lets the plan happen, waits until everything is quiet and
//! acked, ends the hosts and asks the judge.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::aftermath::Place;
use super::clock;
use super::effects::Found;
use super::fence;
use super::fleet::{Fleet, Life, State};
use super::judge::{Evidence, judge};
use super::plan::{self, Kind};
use super::producers::Producers;
use super::proxy::Proxy;
use super::record::{Handled, Numbered, What};
use super::report::Report;
use super::stage::{HOSTS, Incident, Stage};
use super::stalls::Stalls;
use super::witness::Witness;
use crate::process;
use crate::server::{Options, Server};

pub struct Settings {
    pub seed: u64,
    /// Of faults; setting up and draining come on top.
    pub seconds: u64,
    pub partitions: u32,
    /// Messages a second.
    pub rate: u32,
    pub session: Duration,
    pub kinds: Vec<Kind>,
    /// Every commit is taken, whoever holds the lease: a run must notice.
    pub without_fence: bool,
    /// Emptied, then filled with the hosts' logs.
    pub folder: PathBuf,
}

const STREAM: &str = "s";
const GROUP: &str = "g";
/// Small enough that producers meet full partitions when hosts are away.
const CAPACITY: u64 = 1_000;
const PRODUCERS: usize = 3;
/// Where the handler emits to, with a partition more, so that what comes from one goes to several. It is
/// never full for long: its witness is fast.
const TARGET: &str = "numbered";
const TARGET_CAPACITY: u64 = 2_000;
/// For everything to be acked and relayed after the faults.
const DRAIN: Duration = Duration::from_secs(60);
/// It may stand still for good then, and has shown enough.
const DRAIN_WITHOUT_FENCE: Duration = Duration::from_secs(5);

pub fn run(settings: &Settings, say: &dyn Fn(&str)) -> anyhow::Result<Report> {
    let mut kinds = settings.kinds.clone();
    // With few of them, those who are behind no proxy may hold all.
    kinds.retain(|kind| *kind != Kind::Late || settings.partitions as usize >= 2 * HOSTS);
    let plan = plan::plan(settings.seed, settings.seconds, settings.session, &kinds);
    let folder = &settings.folder;
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let mut server = Server::start(Options {
        appendonly: true,
        ..Options::default()
    });
    let (url, config) = (server.url(), folder.join("segmenter.toml"));
    std::fs::write(&config, configuration(settings))?;
    let place = Place {
        url: server.hands_url(),
        stream: STREAM,
        group: GROUP,
        partitions: settings.partitions,
    };
    let target_partitions = settings.partitions + 1;
    create(&url, STREAM, settings.partitions, CAPACITY);
    create(&url, TARGET, target_partitions, TARGET_CAPACITY);
    let witness: Witness<What> = Witness::start(&url, STREAM, settings.partitions)?;
    let target_witness: Witness<Numbered> = Witness::start(&url, TARGET, target_partitions)?;
    let commits = match settings.without_fence {
        false => fence::in_place(),
        true => fence::taken_out(&place.url)?,
    };
    let mut fleet = Fleet::new(server.port(), config, folder.clone(), commits);
    for n in 0..HOSTS {
        fleet.start(None, n > 0)?;
    }
    process::until("the first hosts are members", || {
        fleet
            .lives
            .iter()
            .all(|l| l.ready_us().is_some())
            .then_some(())
    });
    say(&format!(
        "{HOSTS} hosts, {} partitions, {} messages/s from {PRODUCERS} producers, session timeout {:?}; {} faults planned",
        settings.partitions,
        settings.rate,
        settings.session,
        plan.len()
    ));
    let producer_proxy = Proxy::start(server.port(), None);
    let mut urls = vec![url.clone(); PRODUCERS - 1];
    urls.push(producer_proxy.url());
    let producers = Producers::start(&urls, STREAM, settings.rate)?;
    let stalls = Stalls::watch(settings.session / 3);
    let epoch_us = clock::epoch_us();
    let mut stage = Stage::new(
        &mut fleet,
        &mut server,
        settings.session,
        &place,
        &producer_proxy,
        say,
    );
    let unplayed = stage.play(&plan, settings.seconds, &|| producers.accepted())?;
    let incidents = std::mem::take(&mut stage.incidents);
    say("no more faults; waiting until everything is acked and relayed");
    let sent = producers.end()?;
    let drained = place.drained(match settings.without_fence {
        false => DRAIN,
        true => DRAIN_WITHOUT_FENCE,
    });
    let log = witness.end()?;
    say("ending the hosts");
    end(&mut fleet)?;
    let emitted = target_witness.end()?;
    let (counts, strange) = place.counts()?;
    let unfenced_commits = fleet.replaced();
    let stalls = stalls.end();
    let (handled, mut misbehaved) = fleet.record();
    misbehaved.truncate(20);
    misbehaved.extend(
        fleet
            .lives
            .iter()
            .filter_map(|life| odd_end(life, &incidents)),
    );
    let mut faults: BTreeMap<Kind, usize> = BTreeMap::new();
    for incident in incidents.iter().filter(|i| i.took_hold && i.to_us > 0) {
        *faults.entry(incident.kind).or_default() += 1;
    }
    let missed_faults = unplayed + incidents.iter().filter(|i| !i.took_hold).count();
    let machine_stalls = stalls.len();
    write_down(settings, &handled, &incidents)?;
    let verdict = judge(Evidence {
        log,
        found: Found {
            emitted,
            counts,
            strange,
        },
        sent,
        handled,
        incidents,
        stalls,
        session_us: u64::try_from(settings.session.as_micros())?,
        epoch_us,
    });
    Ok(Report {
        seed: settings.seed,
        seconds: settings.seconds,
        partitions: settings.partitions,
        session_ms: u64::try_from(settings.session.as_millis())?,
        faults,
        missed_faults,
        machine_stalls,
        verdict,
        drained,
        unfenced_commits: settings.without_fence.then_some(unfenced_commits),
        misbehaved,
    })
}

/// Beside the hosts' logs, for whoever looks for a defect.
fn write_down(
    settings: &Settings,
    handled: &[Handled],
    incidents: &[Incident],
) -> anyhow::Result<()> {
    let file = |name: &str| {
        let path = settings.folder.join(name);
        let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        anyhow::Ok(BufWriter::new(file))
    };
    let mut lines = file("handled.txt")?;
    let mut sorted = handled.to_vec();
    sorted.sort_by_key(|line| line.at_us);
    for line in sorted {
        writeln!(lines, "{line}")?;
    }
    lines.flush()?;
    let mut faults = file("faults.txt")?;
    for incident in incidents {
        writeln!(faults, "{incident:?}")?;
    }
    Ok(faults.flush()?)
}

fn configuration(settings: &Settings) -> String {
    // It counts per key, says what it handled and passes it on, word by word.
    let module = process::guest("number");
    let (partitions, session) = (settings.partitions, settings.session.as_millis());
    format!(
        r#"namespace = "default"
drain_timeout = "5s"
[[stream]]
name = "{STREAM}"
partitions = {partitions}
capacity = {CAPACITY}
[[handler]]
name = "chaos"
stream = "{STREAM}"
group = "{GROUP}"
module = {module:?}
session_timeout = "{session}ms"
[handler.grants]
state = true
emit = ["{TARGET}"]
"#
    )
}

pub(super) fn create(url: &str, stream: &str, partitions: u32, capacity: u64) {
    let (partitions, capacity) = (partitions.to_string(), capacity.to_string());
    let args = ["stream", "create", stream, "--partitions", &partitions];
    process::segmenter(url, &[&args[..], &["--capacity", &capacity]].concat()).ok();
}

/// SIGTERM to all who live.
pub(super) fn end(fleet: &mut Fleet) -> anyhow::Result<()> {
    fleet.look()?;
    for life in fleet.lives.iter_mut().filter(|life| life.is_alive()) {
        life.signal("TERM");
        life.state = State::Leaving;
    }
    let until = Instant::now() + DRAIN;
    while fleet.lives.iter().any(|life| life.ended.is_none()) {
        fleet.look()?;
        if Instant::now() > until {
            for n in 0..u32::try_from(fleet.lives.len())? {
                if fleet.life(n).ended.is_none() {
                    fleet.kill(n)?;
                }
            }
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    Ok(())
}

/// Whoever was not killed leaves with 0, when told to. Without Redis it cannot, and says so.
fn odd_end(life: &Life, incidents: &[Incident]) -> Option<String> {
    let (at, status) = life.ended?;
    let killed = incidents
        .iter()
        .any(|i| matches!(i.kind, Kind::Kill | Kind::Revive) && i.life == Some(life.number));
    let without_redis =
        |i: &Incident| i.kind == Kind::Redis && i.from_us < at && at < i.to_us + 5_000_000;
    let excused = killed || (status.code() == Some(1) && incidents.iter().any(without_redis));
    let told = matches!(life.state, State::Leaving | State::Killed);
    let fine = excused || (told && status.success());
    (!fine).then(|| {
        let why = if told {
            "when told to leave"
        } else {
            "by itself"
        };
        format!(
            "host {} ended {why} with {status}; see host-{0}.log",
            life.number
        )
    })
}
