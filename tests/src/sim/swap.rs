//! Versions that go live while messages are handled, as `host/follow` and `host/lineup.rs` do it: what is
//! wanted of each handler, what each host has heard of that, and what its partitions run. A version's name
//! says how it behaves. Judges nothing.

use segmenter_core::batch::Takes;
use segmenter_core::consumer::Event as ConsumerEvent;
use segmenter_core::names::{Partition, Version};
use segmenter_core::partition_set::PartitionSet;
use segmenter_core::rollout::{Runs, Share};

use super::host::Input;
use super::mutation::Mutation;
use super::plan::Kind;
use super::rng::mixed;
use super::world::World;

/// How the calls of a version go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behaviour {
    Good,
    /// It acks nothing.
    Bad,
    Slow,
}

impl Behaviour {
    fn word(self) -> &'static str {
        match self {
            Behaviour::Good => "good",
            Behaviour::Bad => "bad",
            Behaviour::Slow => "slow",
        }
    }

    pub(super) fn of(version: &Version) -> Behaviour {
        let named = |of: &Behaviour| version.as_str().starts_with(of.word());
        let all = [Behaviour::Bad, Behaviour::Slow];
        all.into_iter().find(named).unwrap_or(Behaviour::Good)
    }
}

/// What partitions of one handler run; on one host, as it has heard.
#[derive(Debug, Clone)]
pub(super) struct Lineup {
    /// Of several, the one with the highest is the newest.
    revision: u64,
    current: Version,
    trial: Option<(Version, PartitionSet)>,
}

impl Lineup {
    pub(super) fn first(current: Version) -> Lineup {
        Lineup {
            revision: 0,
            current,
            trial: None,
        }
    }

    pub(super) fn current(&self) -> &Version {
        &self.current
    }

    fn of(&self, partition: Partition) -> Runs {
        match &self.trial {
            Some((trial, partitions)) if partitions.contains(partition) => Runs {
                takes: takes(trial),
                version: trial.clone(),
                instead: Some(self.current.clone()),
            },
            _ => Runs {
                takes: takes(&self.current),
                ..Runs::only(self.current.clone())
            },
        }
    }
}

/// What one call of a version carries: its name ends with it, unless that is one message.
pub(super) fn takes(version: &Version) -> Takes {
    let Some((_, messages)) = version.as_str().split_once('x') else {
        return Takes::ONE;
    };
    let messages = messages.parse().expect("a number");
    Takes {
        messages,
        // Some come up against it: a message has about eight.
        bytes: if messages.get() % 3 == 0 { 30 } else { 1_000 },
    }
}

/// The most that a version takes here.
const MESSAGES_MOST: u64 = 12;

/// From the change of what is wanted until a host has heard of it and loaded it.
const LOADING_US: u64 = 600_000;

impl World {
    /// A version is wanted of a binding's handler: on trial in a share of the partitions, or at once.
    pub(super) fn deploy(&mut self, binding: usize, behaviour: Behaviour, trial: Option<Share>) {
        self.count(Kind::Swap);
        self.deploys += 1;
        let version = self.version(behaviour, self.deploys);
        let partitions = self.shape.partitions();
        let wanted = &mut self.wanted[binding];
        wanted.trial = trial.map(|share| (version.clone(), share.chosen(&version, partitions)));
        if wanted.trial.is_none() {
            wanted.current = version;
        }
        self.wanted_changed(binding);
    }

    /// Some take batches.
    pub(super) fn version(&self, behaviour: Behaviour, number: u64) -> Version {
        let fate = mixed(&[self.seed, number]);
        let messages = match fate % 1_000 < self.plan.batches {
            true => format!("x{}", 2 + (fate >> 10) % (MESSAGES_MOST - 1)),
            false => String::new(),
        };
        let version = format!("{}{number}{messages}", behaviour.word());
        version.parse().expect("a name")
    }

    /// A trial is over. What is bad is never promoted.
    pub(super) fn settle_trial(&mut self, binding: usize, promote: bool) {
        let wanted = &mut self.wanted[binding];
        let Some((version, _)) = wanted.trial.take() else {
            return;
        };
        if promote && Behaviour::of(&version) != Behaviour::Bad {
            wanted.current = version;
        }
        self.wanted_changed(binding);
    }

    fn wanted_changed(&mut self, binding: usize) {
        self.wanted[binding].revision += 1;
        let wanted = &self.wanted[binding];
        self.checks.trusted(binding, wanted.current());
        self.trace
            .line(self.now, format_args!("of {binding} is wanted: {wanted:?}"));
        for host in 0..self.hosts.len() {
            self.tell_what_is_wanted(host, binding);
        }
    }

    fn tell_what_is_wanted(&mut self, host: usize, binding: usize) {
        let at = self.now + self.rng.skewed(0, LOADING_US);
        let lineup = self.wanted[binding].clone();
        self.post(host, at, Input::Published { binding, lineup });
    }

    /// What a process begins with: all that is wanted, or a trial only later.
    pub(super) fn first_lineups(&mut self, host: usize) -> Vec<Lineup> {
        let mut lineups = self.wanted.clone();
        for (binding, lineup) in lineups.iter_mut().enumerate() {
            if lineup.trial.is_some() && self.rng.per_mille(500) {
                lineup.trial = None;
                lineup.revision -= 1;
                self.tell_what_is_wanted(host, binding);
            }
        }
        lineups
    }

    /// Workers look at it between two messages.
    pub(super) fn published(&mut self, host: usize, binding: usize, lineup: Lineup) {
        let Some(process) = &mut self.hosts[host].process else {
            return;
        };
        let published = &mut process.published[binding];
        if lineup.revision <= published.revision {
            return;
        }
        *published = lineup;
        let supervisors = process.supervisors.iter().enumerate();
        let serving = supervisors.filter(|(_, s)| s.binding == binding && !s.exited);
        let serving: Vec<usize> = serving.map(|(handler, _)| handler).collect();
        for handler in serving {
            for partition in self.shape.all() {
                let runs = self.runs(host, binding, partition);
                if let Some(worker) = self.worker(host, handler, partition) {
                    worker.published = Some(runs);
                }
                self.pump_consumer(host, handler, partition);
            }
        }
    }

    /// What a partition of a host runs by now.
    pub(super) fn runs(&self, host: usize, binding: usize, partition: Partition) -> Runs {
        let process = self.hosts[host].process.as_ref();
        let lineup = process.and_then(|process| process.published.get(binding));
        let mut runs = lineup.unwrap_or(&self.wanted[binding]).of(partition);
        if self.mutation == Some(Mutation::TrialDecidesAlone) {
            runs.instead = None;
        }
        runs
    }

    /// As the shell's: takes what was published since; only between two calls.
    pub(super) fn swap(&mut self, host: usize, handler: usize, partition: Partition) {
        let now = self.local(host);
        let forgets = self.mutation == Some(Mutation::StateDroppedAtSwap);
        let Some(worker) = self.worker(host, handler, partition) else {
            return;
        };
        if worker.is_calling() {
            return;
        }
        let Some(runs) = worker.published.take() else {
            return;
        };
        worker.runs = runs.clone();
        if forgets {
            worker.counter = None;
        }
        worker.take(now, ConsumerEvent::Runs(runs.clone()));
        let name = &self.hosts[host].name;
        self.trace.line(
            self.now,
            format_args!("{name}: handler {handler} runs {runs:?} in {partition}"),
        );
    }
}
