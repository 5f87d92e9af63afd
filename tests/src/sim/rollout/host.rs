//! One host of the simulation: the mirror of `host/follow`, which decides nothing. Its partitions are those
//! whose number, divided by the hosts that live, falls to it.

use std::collections::{BTreeMap, BTreeSet};

use segmenter_core::limits;
use segmenter_core::names::{MemberId, Partition, Version};
use segmenter_core::port::{
    Asks, Failure, FetchModule, FetchModuleReply, Reply, Report, ReportReply, Request, Settle,
};
use segmenter_core::rollout::{
    Candidacy, Command, Differences, Edition, Event as FollowerEvent, Evidence, Follower,
    HostReport, Lineup, Loading, Mode, Progress, Share, Tally, evidence,
};
use segmenter_core::time::Time;

use super::{Behaviour, CALL_EVERY, Event, MS, PARTITIONS, RolloutMutation, SECOND, World};

const IDLE_REPORTS: u64 = 10;
const CALL_MICROS: u64 = 200;
const SLOW_MICROS: u64 = 20_000;

/// What an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// What is current, to begin with.
    Begin,
    Report,
    Settle,
    /// Bytes of the load with this number.
    Fetch(u64),
}

#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: MemberId,
    pub(super) life: u64,
    pub(super) process: Option<Process>,
}

#[derive(Debug)]
pub(super) enum Process {
    Begins,
    Runs(Box<Running>),
}

#[derive(Debug)]
pub(super) struct Running {
    pub(super) follower: Follower,
    settings: u32,
    pub(super) loaded: BTreeSet<Edition>,
    loads: BTreeMap<u64, Edition>,
    pub(super) published: Lineup,
    /// Since its start, by version.
    tallies: BTreeMap<Version, Tally>,
    trial: Option<Trial>,
    report_at: u64,
    reporting: bool,
}

#[derive(Debug)]
struct Trial {
    revision: u64,
    candidate: Version,
    current: Version,
    /// Where counting began; what ran everywhere before is compared as it was.
    from: (Tally, Option<Tally>),
}

impl Host {
    pub(super) fn new(n: usize) -> Host {
        Host {
            name: format!("host-{n}").parse().expect("a name"),
            life: 0,
            process: None,
        }
    }

    pub(super) fn running(&self) -> Option<&Running> {
        match &self.process {
            Some(Process::Runs(running)) => Some(running),
            _ => None,
        }
    }
}

impl Running {
    fn new(first: Edition, noise: u64) -> Running {
        Running {
            follower: Follower::new(first.clone(), noise),
            settings: first.settings,
            loaded: BTreeSet::from([first.clone()]),
            loads: BTreeMap::new(),
            published: Lineup {
                current: first,
                candidate: None,
            },
            tallies: BTreeMap::new(),
            trial: None,
            report_at: 0,
            reporting: false,
        }
    }

    fn tally(&self, version: &Version) -> Tally {
        self.tallies.get(version).copied().unwrap_or_default()
    }

    /// Of the candidate of this revision, and of the rest.
    pub(super) fn counted(&self, revision: u64) -> (Tally, Tally) {
        let Some(trial) = self.trial.as_ref().filter(|t| t.revision == revision) else {
            return Default::default();
        };
        let rest = match trial.from.1 {
            Some(from) => self.tally(&trial.current).since(from),
            None => self.tally(&trial.current),
        };
        (self.tally(&trial.candidate).since(trial.from.0), rest)
    }

    /// What a partition runs.
    fn runs(&self, partition: Partition) -> &Version {
        if let Some((edition, Mode::Trial(share))) = &self.published.candidate {
            let chosen = share.chosen(&edition.version, PARTITIONS);
            if chosen.contains(partition) {
                return &edition.version;
            }
        }
        &self.published.current.version
    }
}

impl World {
    pub(super) fn is_alive(&self, host: usize, life: u64) -> bool {
        self.hosts[host].life == life && self.hosts[host].process.is_some()
    }

    pub(super) fn start(&mut self, host: usize) {
        if self.hosts[host].process.is_some() {
            return;
        }
        self.hosts[host].life += 1;
        self.hosts[host].process = Some(Process::Begins);
        self.begin(host);
    }

    fn begin(&mut self, host: usize) {
        let request = Request::Report(Report {
            handler: super::handler(),
            asks: Asks::Only,
        });
        self.ask(host, Purpose::Begin, request);
    }

    pub(super) fn kill(&mut self, host: usize) {
        self.report.faults += 1;
        self.hosts[host].process = None;
        self.line(format_args!("host-{host} dies"));
        let next = self.now + self.rng.skewed(MS, 10 * SECOND);
        self.schedule(next, Event::Start(host));
    }

    fn ask(&mut self, host: usize, purpose: Purpose, request: Request) {
        let life = self.hosts[host].life;
        self.send(Some((host, life, purpose)), request);
    }

    fn running(&mut self, host: usize) -> Option<&mut Running> {
        match &mut self.hosts[host].process {
            Some(Process::Runs(running)) => Some(running),
            _ => None,
        }
    }

    pub(super) fn configure(&mut self, host: usize) {
        let now = Time(self.now);
        let Some(running) = self.running(host) else {
            return;
        };
        running.settings += 1;
        let event = FollowerEvent::Settings(running.settings);
        running.follower.handle(now, event);
        self.turn(host);
    }

    pub(super) fn answered(
        &mut self,
        host: usize,
        purpose: Purpose,
        reply: Result<Reply, Failure>,
    ) {
        match (purpose, reply) {
            (Purpose::Begin, Ok(Reply::Report(reply))) => self.begins(host, reply),
            (Purpose::Begin, _) => self.begin(host),
            (Purpose::Report, reply) => {
                if let Some(running) = self.running(host) {
                    running.reporting = false;
                }
                if let Ok(Reply::Report(reply)) = reply {
                    self.reported(host, reply);
                }
            }
            (Purpose::Settle, _) => {
                if let Some(running) = self.running(host) {
                    running.report_at = 0;
                }
            }
            (Purpose::Fetch(load), reply) => self.loaded(host, load, reply),
        }
        self.turn(host);
    }

    /// Loading takes its time; what the host dies of meanwhile is another matter.
    fn begins(&mut self, host: usize, reply: ReportReply) {
        let Some(pointer) = reply.wanted else {
            return self.begin(host);
        };
        if self.refuses(host, &pointer.current) {
            // The process ends with an error; whoever runs it starts it again.
            self.hosts[host].process = None;
            let again = self.now + 5 * SECOND;
            return self.schedule(again, Event::Start(host));
        }
        let noise = self.rng.next();
        let edition = Edition {
            version: pointer.current,
            settings: 0,
        };
        self.line(format_args!("host-{host} begins with {}", edition.version));
        self.hosts[host].process = Some(Process::Runs(Box::new(Running::new(edition, noise))));
    }

    pub(super) fn refuses(&self, host: usize, version: &Version) -> bool {
        self.versions[version] == Behaviour::Refused && host.is_multiple_of(2)
    }

    fn reported(&mut self, host: usize, reply: ReportReply) {
        let now = Time(self.now);
        let (mutation, hosts) = (self.mutation, reply.hosts);
        let Some(running) = self.running(host) else {
            return;
        };
        let Some(pointer) = reply.wanted else {
            return;
        };
        let revision = pointer.revision;
        let known = running.follower.wanted().revision;
        if mutation == Some(RolloutMutation::NeverBack) && revision < known {
            return;
        }
        if revision != known {
            running.report_at = 0;
        }
        let follower = &mut running.follower;
        follower.handle(now, FollowerEvent::Wanted(pointer.wanted(now)));
        let mut evidence: Evidence = evidence(&hosts, revision);
        if mutation == Some(RolloutMutation::NobodyWaits) {
            (evidence.waiting, evidence.refused) = (0, None);
        }
        follower.handle(now, FollowerEvent::Evidence { revision, evidence });
    }

    fn loaded(&mut self, host: usize, load: u64, reply: Result<Reply, Failure>) {
        let now = Time(self.now);
        let Some(edition) = self.running(host).and_then(|r| r.loads.remove(&load)) else {
            return;
        };
        let result = match reply {
            Ok(Reply::FetchModule(FetchModuleReply::Module { .. })) => {
                match self.refuses(host, &edition.version) {
                    true => Err(Loading::Refused("it imports x".to_owned())),
                    false => Ok(()),
                }
            }
            Ok(Reply::FetchModule(FetchModuleReply::Missing)) => {
                Err(Loading::Refused("its bytes are not there".to_owned()))
            }
            other => Err(Loading::Away(format!("{other:?}"))),
        };
        self.line(format_args!("host-{host}: load of {edition:?}: {result:?}"));
        let running = self.running(host).expect("it was loading");
        if result.is_ok() {
            running.loaded.insert(edition.clone());
        }
        let event = FollowerEvent::Loaded { edition, result };
        running.follower.handle(now, event);
        running.report_at = 0;
    }

    /// Does what the follower asks for, reports if it is time, and comes again.
    pub(super) fn turn(&mut self, host: usize) {
        while let Some(command) = {
            let now = Time(self.now);
            self.running(host).and_then(|r| r.follower.poll(now))
        } {
            self.carry_out(host, command);
        }
        self.tell(host);
        let now = self.now;
        let Some(running) = self.running(host) else {
            return;
        };
        // As the host does, what nobody needs is dropped.
        let follower = &running.follower;
        running.loaded.retain(|edition| follower.needs(edition));
        let report = (!running.reporting).then_some(running.report_at);
        let retry = running.follower.poll_timeout().map(|at| at.0);
        let next = report.into_iter().chain(retry).min();
        if let Some(at) = next {
            let life = self.hosts[host].life;
            self.schedule(at.max(now + MS), Event::Turn { host, life });
        }
    }

    fn carry_out(&mut self, host: usize, command: Command) {
        match command {
            Command::Load(edition) => {
                let load = self.rng.next();
                let version = edition.version.clone();
                let running = self.running(host).expect("it asked");
                running.loads.insert(load, edition);
                let namespace = super::handler().namespace;
                let fetch = FetchModule { namespace, version };
                self.ask(host, Purpose::Fetch(load), Request::FetchModule(fetch));
            }
            Command::Publish(lineup) => self.publish(host, lineup),
            Command::Refused { .. } | Command::Away { .. } => {}
            Command::Settle {
                revision,
                version,
                verdict,
            } => {
                let settle = Settle {
                    handler: super::handler(),
                    revision,
                    version,
                    verdict,
                    evidence: String::new(),
                    by: self.hosts[host].name.to_string(),
                };
                self.ask(host, Purpose::Settle, Request::Settle(settle));
            }
        }
    }

    fn publish(&mut self, host: usize, lineup: Lineup) {
        self.line(format_args!("host-{host} runs {lineup:?}"));
        self.check_published(host, &lineup);
        let ignored = self.mutation == Some(RolloutMutation::LoadedOnce);
        let running = self.running(host).expect("it asked");
        if ignored && lineup.candidate.is_none() && running.published.candidate.is_some() {
            return;
        }
        running.published = lineup.clone();
        running.trial = lineup.candidate.as_ref().map(|(edition, mode)| Trial {
            revision: running.follower.wanted().revision,
            candidate: edition.version.clone(),
            current: lineup.current.version.clone(),
            from: (
                running.tally(&edition.version),
                match mode {
                    Mode::Trial(Share::ALL) => None,
                    _ => Some(running.tally(&lineup.current.version)),
                },
            ),
        });
        running.report_at = 0;
    }

    fn tell(&mut self, host: usize) {
        let (now, member) = (self.now, self.hosts[host].name.clone());
        let Some(running) = self.running(host) else {
            return;
        };
        if running.reporting || now < running.report_at {
            return;
        }
        let every = limits::REPORT_EVERY.as_micros() as u64;
        let times = match running.follower.candidate() {
            Some(_) => 1,
            None => IDLE_REPORTS,
        };
        running.report_at = now + every * times;
        running.reporting = true;
        let report = report(running);
        let request = Request::Report(Report {
            handler: super::handler(),
            asks: Asks::Told {
                host: member,
                report,
            },
        });
        self.ask(host, Purpose::Report, request);
    }

    /// Each partition is called once, by the host that has it.
    pub(super) fn calls(&mut self) {
        let alive: Vec<usize> = (0..self.hosts.len())
            .filter(|host| self.hosts[*host].running().is_some())
            .collect();
        if alive.is_empty() {
            return;
        }
        for partition in (0..PARTITIONS).map(Partition) {
            let host = alive[partition.0 as usize % alive.len()];
            let behaviours = &self.versions;
            let Some(Process::Runs(running)) = &mut self.hosts[host].process else {
                continue;
            };
            let version = running.runs(partition).clone();
            let behaviour = behaviours[&version];
            let on_trial = version != running.published.current.version;
            let tally = running.tallies.entry(version).or_default();
            let failed = u64::from(behaviour == Behaviour::Bad);
            *tally = tally.plus(Tally {
                calls: 1,
                failed,
                overruled: if on_trial { failed } else { 0 },
                micros: match behaviour {
                    Behaviour::Slow => SLOW_MICROS.min(CALL_EVERY),
                    _ => CALL_MICROS,
                },
            });
        }
    }
}

fn report(running: &Running) -> HostReport {
    let follower = &running.follower;
    let revision = follower.wanted().revision;
    let (candidate, rest) = running.counted(revision);
    HostReport {
        stream: "orders".parse().expect("a name"),
        group: "billing".parse().expect("a name"),
        revision,
        current: follower.published().current.version.clone(),
        refused: match follower.current() {
            Progress::Refused(why) => Some(why.to_owned()),
            _ => None,
        },
        candidacy: match follower.candidate() {
            None => Candidacy::None,
            Some(Progress::Loading) => Candidacy::Loading,
            Some(Progress::Loaded) => Candidacy::Loaded,
            Some(Progress::Refused(why)) => Candidacy::Refused(why.to_owned()),
        },
        candidate,
        rest,
        live_versions: running.loaded.len() as u32,
        differences: Differences::default(),
    }
}
