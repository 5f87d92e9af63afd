//! One run: hosts, load, a warm-up, then the swaps (or nothing), until everything is acked. Knows how to
//! swap; must not judge the figures.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::super::aftermath::Place;
use super::super::effects::Found;
use super::super::fence;
use super::super::fleet::{Fleet, State};
use super::super::gaps::percentile;
use super::super::judge::{Evidence, Verdict, judge};
use super::super::producers::Producers;
use super::super::record::{Numbered, What};
use super::super::stalls::Stalls;
use super::super::witness::Witness;
use super::super::{clock, run as stage};
use super::measure::{self, Swap};
use crate::process;
use crate::server::{Options, Server};

const STREAM: &str = "s";
const GROUP: &str = "g";
const TARGET: &str = "numbered";
const CAPACITY: u64 = 10_000;
const HOSTS: usize = 3;
const PRODUCERS: usize = 3;
/// Load before anything is measured.
const WARM_UP: Duration = Duration::from_secs(2);
/// Between the starts of two swaps, at least.
const PACE: Duration = Duration::from_millis(200);
/// So long a time is looked at where nothing is swapped: about as long as a swap from a file takes.
const NO_SWAP: Duration = Duration::from_millis(40);
/// For everything to be acked and relayed after the load.
const DRAIN: Duration = Duration::from_secs(60);
/// A host takes a version within this, compiled or not.
const PATIENCE: Duration = Duration::from_secs(120);
/// What is longer is a stop of the machine.
const MACHINE_STOP: Duration = Duration::from_millis(15);

pub struct Settings {
    /// It does what guest-examples/number does, in whatever language.
    pub guest: PathBuf,
    pub partitions: u32,
    /// Messages a second.
    pub rate: u32,
    /// How often the file is renamed over, or how often the same time passes without.
    pub swaps: u32,
    pub swapping: bool,
    /// Emptied, then filled with the hosts' logs.
    pub folder: PathBuf,
}

#[derive(Debug)]
pub struct Outcome {
    pub verdict: Verdict,
    pub drained: bool,
    pub misbehaved: Vec<String>,
    pub swaps: usize,
    /// From the rename until the last host runs it, ms.
    pub swap_ms: Vec<f64>,
    /// Of messages that were sent between the first swap and the end of the last, ms.
    pub latencies: Vec<f64>,
    /// See `measure`, ms.
    pub stops: Vec<f64>,
    /// So many there would be, had every partition a message at each time.
    pub stops_possible: usize,
    /// Times when this machine stood still.
    pub machine_stops: usize,
}

impl Outcome {
    /// The value that so many hundredths of them are not above.
    pub fn latency(&self, hundredths: usize) -> f64 {
        percentile(&self.latencies, hundredths).unwrap_or(f64::NAN)
    }

    pub fn stop_ms(&self) -> f64 {
        percentile(&self.stops, 100).unwrap_or(f64::NAN)
    }

    pub fn swap_ms(&self, hundredths: usize) -> f64 {
        percentile(&self.swap_ms, hundredths).unwrap_or(f64::NAN)
    }

    pub fn is_clean(&self) -> bool {
        let v = &self.verdict;
        v.is_clean() && v.duplicates == 0 && self.drained && self.misbehaved.is_empty()
    }
}

pub fn run(settings: &Settings, say: &dyn Fn(&str)) -> anyhow::Result<Outcome> {
    let (folder, partitions) = (&settings.folder, settings.partitions);
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let file = folder.join("handler.wasm");
    let bytes = std::fs::read(&settings.guest)
        .with_context(|| format!("reading {}", settings.guest.display()))?;
    rename_over(&file, &version(&bytes, 0))?;
    let config = folder.join("segmenter.toml");
    std::fs::write(&config, configuration(&file))?;
    let server = Server::start(Options::default());
    let url = server.url();
    let place = Place {
        url: server.hands_url(),
        stream: STREAM,
        group: GROUP,
        partitions,
    };
    stage::create(&url, STREAM, partitions, CAPACITY);
    stage::create(&url, TARGET, partitions + 1, CAPACITY);
    let hands = server.hands_url();
    let witness: Witness<What> = Witness::start(&hands, STREAM, partitions)?;
    let target: Witness<Numbered> = Witness::start(&hands, TARGET, partitions + 1)?;
    let mut fleet = Fleet::new(server.port(), config, folder.clone(), fence::in_place());
    for _ in 0..HOSTS {
        fleet.start(None, false)?;
    }
    process::until("the hosts are members", || {
        let mut lives = fleet.lives.iter();
        lives.all(|l| l.ready_us().is_some()).then_some(())
    });
    let producers = Producers::start(&vec![url; PRODUCERS], STREAM, settings.rate)?;
    let stalls = Stalls::watch(MACHINE_STOP);
    let epoch_us = clock::epoch_us();
    until_us(clock::now_us() + micros(WARM_UP));
    let from_us = clock::now_us();
    let mut swaps = Vec::new();
    for number in 1..=settings.swaps {
        let swap = match settings.swapping {
            true => swap(&mut fleet, &file, &version(&bytes, number))?,
            false => {
                let from_us = clock::now_us();
                let live_us = from_us + micros(NO_SWAP);
                Swap { from_us, live_us }
            }
        };
        until_us(swap.next_us().max(swap.from_us + micros(PACE)));
        swaps.push(swap);
        if number.is_multiple_of(50) {
            say(&format!("{number} of {} times", settings.swaps));
        }
    }
    let to_us = clock::now_us();
    let sent = producers.end()?;
    let drained = place.drained(DRAIN);
    let log = witness.end()?;
    stage::end(&mut fleet)?;
    let emitted = target.end()?;
    let (counts, strange) = place.counts()?;
    let stalls = stalls.end();
    let (mut handled, mut misbehaved) = fleet.record();
    misbehaved.truncate(20);
    let odd = |life: &&super::super::fleet::Life| {
        !(life.state == State::Leaving && life.ended.is_some_and(|(_, status)| status.success()))
    };
    let odd = fleet.lives.iter().filter(odd);
    misbehaved.extend(odd.map(|life| format!("host {} did not end as told", life.number)));
    handled.sort_by_key(|line| line.at_us);
    let swap_ms = |swap: &Swap| (swap.live_us - swap.from_us) as f64 / 1_000.0;
    Ok(Outcome {
        drained,
        misbehaved,
        swaps: if settings.swapping { swaps.len() } else { 0 },
        swap_ms: swaps.iter().map(swap_ms).collect(),
        latencies: measure::latencies(&handled, &sent, from_us, to_us),
        stops: measure::stops(&handled, partitions, &swaps, &stalls, epoch_us),
        stops_possible: swaps.len() * partitions as usize,
        machine_stops: stalls.len(),
        verdict: judge(Evidence {
            log,
            found: Found {
                emitted,
                counts,
                strange,
            },
            sent,
            handled,
            // Nobody was touched, so nothing is excused, not even by a stop of the machine.
            ..Evidence::default()
        }),
    })
}

/// Until every host runs it.
fn swap(fleet: &mut Fleet, file: &Path, bytes: &[u8]) -> anyhow::Result<Swap> {
    let before: Vec<usize> = fleet.lives.iter().map(|life| life.live().len()).collect();
    let from_us = clock::now_us();
    rename_over(file, bytes)?;
    let until = Instant::now() + PATIENCE;
    loop {
        let news = fleet.lives.iter().zip(&before).map(|(life, before)| {
            let live = life.live();
            live.get(*before).copied()
        });
        if let Some(live) = news.collect::<Option<Vec<u64>>>() {
            let live_us = live.into_iter().max().context("there are hosts")?;
            return Ok(Swap { from_us, live_us });
        }
        fleet.look()?;
        for life in &fleet.lives {
            ensure!(
                life.ended.is_none(),
                "host {} ended; see its log",
                life.number
            );
        }
        if Instant::now() > until {
            bail!("not all hosts took a version within {PATIENCE:?}; see their logs");
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// The same guest, and yet another version: a custom section at its end says which.
fn version(guest: &[u8], number: u32) -> Vec<u8> {
    let content = format!("\u{7}version{number}");
    let mut bytes = guest.to_vec();
    bytes.push(0);
    bytes.push(u8::try_from(content.len()).expect("short"));
    bytes.extend(content.as_bytes());
    bytes
}

fn rename_over(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let next = path.with_extension("next");
    std::fs::write(&next, bytes).with_context(|| format!("writing {}", next.display()))?;
    std::fs::rename(&next, path).with_context(|| format!("writing {}", path.display()))
}

fn configuration(file: &Path) -> String {
    format!(
        r#"namespace = "default"
[[handler]]
name = "swapped"
stream = "{STREAM}"
group = "{GROUP}"
module = {file:?}
[handler.grants]
state = true
emit = ["{TARGET}"]
"#
    )
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).expect("short")
}

fn until_us(at_us: u64) {
    loop {
        let now = clock::now_us();
        if now >= at_us {
            return;
        }
        std::thread::park_timeout(Duration::from_micros(at_us - now));
    }
}
