//! One handler's versions on this host: carries out what the core's follower asks for, and tells it what is
//! wanted, what was loaded, and what calls came to. Decides nothing; must not know how a partition runs.

mod begin;
mod file;
mod load;
mod trial;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use segmenter_core::limits;
use segmenter_core::names::{MemberId, Version};
use segmenter_core::port::{
    Asks, Failure, Heard, Pointer, Reply, Report, ReportReply, Request, Settle,
};
use segmenter_core::rollout::{
    self, Candidacy, Command, Differences, Edition, Event, Follower, HostReport, Mode, Progress,
    Verdict,
};
use segmenter_core::time::{Duration, Time};
use segmenter_redis::HandlerNews;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(super) use self::begin::begin;
use self::file::FromFile;
use self::load::Loaded;
pub(super) use self::load::Parts;
use self::trial::Trial;
use super::file_watch::{Seen, Watch};
use super::handler::Handler;
use super::lineup::{Lineup, Live, Published};
use super::supervisor::Order;
use super::wasm::WasmHandler;
use super::{clock, random, telemetry};
use crate::config::{HandlerConfig, ModuleSource};
use crate::points::{self, Point};

/// Between two looks at what the calls of a version from a file came to.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// While nothing is on trial, one of so many reports is enough: it only shows in lists.
const IDLE_REPORTS: u32 = 10;

/// The host's own settings of a handler, and how often they were changed.
pub(super) struct Settings {
    number: u32,
    config: HandlerConfig,
}

impl Settings {
    pub(super) fn change(&mut self, config: HandlerConfig) {
        self.number = self.number.wrapping_add(1);
        self.config = config;
    }
}

/// Where versions come from.
enum Source {
    File(Box<(FromFile, Watch, PathBuf)>),
    Deployed(HandlerNews),
}

pub(super) struct Follow {
    parts: Arc<Parts>,
    member: MemberId,
    source: Source,
    settings: watch::Receiver<Settings>,
    follower: Follower,
    lives: BTreeMap<Edition, Arc<Live<WasmHandler>>>,
    publish: watch::Sender<Arc<Lineup<WasmHandler>>>,
    trial: Option<Trial<WasmHandler>>,
    /// What other hosts said last of a shadow, and of which revision.
    others: (u64, Differences),
    loads: JoinSet<Loaded>,
    /// At most one is in the air.
    reports: JoinSet<Result<ReportReply, Failure>>,
    report_at: Time,
    look_at: Time,
    /// Of the current version.
    settings_live: u32,
}

/// What happened.
enum Input {
    Seen(Seen),
    News,
    Settings,
    Loaded(Loaded),
    Reported(Result<ReportReply, Failure>),
    Leave,
    Time,
}

impl Follow {
    /// `first` is loaded under the settings as they are.
    fn new(
        parts: Arc<Parts>,
        member: MemberId,
        source: Source,
        settings: watch::Receiver<Settings>,
        first: Live<WasmHandler>,
    ) -> (Follow, Published<WasmHandler>) {
        let edition = Edition {
            version: first.handler.version().clone(),
            settings: settings.borrow().number,
        };
        let first = Arc::new(first);
        let (publish, published) = watch::channel(Arc::new(Lineup::only(first.clone())));
        let follow = Follow {
            parts,
            member,
            source,
            settings,
            follower: Follower::new(edition.clone(), random::number()),
            lives: BTreeMap::from([(edition.clone(), first)]),
            publish,
            trial: None,
            others: Default::default(),
            loads: JoinSet::new(),
            reports: JoinSet::new(),
            report_at: Time::ZERO,
            look_at: Time::ZERO,
            settings_live: edition.settings,
        };
        (follow, published)
    }

    /// Until the host leaves: what runs then runs to the end.
    pub(super) async fn run(mut self, mut orders: watch::Receiver<Order>) {
        if let Source::File(from) = &self.source {
            let wanted = from.0.wanted();
            self.follower.handle(clock::now(), Event::Wanted(wanted));
        }
        loop {
            while let Some(command) = self.follower.poll(clock::now()) {
                self.carry_out(command).await;
            }
            self.drop_unused();
            match self.next(&mut orders).await {
                Input::Seen(seen) => self.seen(seen),
                Input::News => self.report_at = Time::ZERO,
                Input::Settings => self.set(),
                Input::Loaded(loaded) => self.loaded(loaded),
                Input::Reported(Ok(reply)) => self.reported(reply),
                // The next report tells; that Redis is away is said by whoever needs it.
                Input::Reported(Err(_)) | Input::Time => {}
                Input::Leave => return self.leave().await,
            }
            self.look();
            self.report();
        }
    }

    async fn next(&mut self, orders: &mut watch::Receiver<Order>) -> Input {
        let look = self.trial.is_some().then_some(self.look_at);
        // While one is in the air, its answer wakes.
        let reports = self.reports() && self.reports.is_empty();
        let report = reports.then_some(self.report_at);
        let wake = [look, report, self.follower.poll_timeout()];
        let wake = wake.into_iter().flatten().min();
        let source = async {
            match &mut self.source {
                Source::File(from) => Input::Seen(from.1.next().await),
                Source::Deployed(news) => {
                    news.recv().await;
                    Input::News
                }
            }
        };
        tokio::select! {
            left = orders.wait_for(|order| *order != Order::Run) => {
                drop(left);
                Input::Leave
            }
            Some(loaded) = self.loads.join_next() => match loaded {
                Ok(loaded) => Input::Loaded(loaded),
                Err(_) => Input::Time,
            },
            Some(reported) = self.reports.join_next() => match reported {
                Ok(reported) => Input::Reported(reported),
                Err(_) => Input::Time,
            },
            Ok(()) = self.settings.changed() => Input::Settings,
            input = source => input,
            () = clock::sleep_until(wake) => Input::Time,
        }
    }

    fn set(&mut self) {
        let number = self.settings.borrow_and_update().number;
        let config = self.settings.borrow().config.clone();
        if let (Source::File(from), ModuleSource::File(path)) = (&mut self.source, &config.module)
            && from.2 != *path
        {
            let known = from.0.newest().clone();
            match Watch::start(path, config.limits.module_bytes, Some(known)) {
                Ok(watch) => (from.1, from.2) = (watch, path.clone()),
                Err(error) => {
                    let why = format!("watching {}: {error}", path.display());
                    self.seen(Seen::Trouble(why));
                }
            }
        }
        self.follower.handle(clock::now(), Event::Settings(number));
    }

    fn seen(&mut self, seen: Seen) {
        let (Source::File(from), now) = (&mut self.source, clock::now()) else {
            return;
        };
        match seen {
            Seen::Bytes { bytes, version } => {
                from.0.holds(now, version, bytes);
                let wanted = from.0.wanted();
                self.follower.handle(now, Event::Wanted(wanted));
            }
            Seen::Trouble(why) => self.say(&telemetry::Event::ModuleTrouble {
                handler: self.parts.plan.handler.as_str(),
                why: &why,
            }),
        }
    }

    fn loaded(&mut self, loaded: Loaded) {
        let Loaded { edition, result } = loaded;
        if result.is_ok() {
            points::at(Point::Loaded);
        }
        let result = result.map(|live| {
            self.lives.insert(edition.clone(), Arc::new(live));
        });
        self.follower
            .handle(clock::now(), Event::Loaded { edition, result });
        self.report_at = Time::ZERO;
    }

    async fn carry_out(&mut self, command: Command) {
        let plan = &self.parts.plan;
        let handler = plan.handler.as_str();
        match command {
            Command::Load(edition) => {
                let config = self.settings.borrow().config.clone();
                let parts = self.parts.clone();
                let bytes = match &self.source {
                    Source::File(from) => from.0.bytes(&edition.version),
                    Source::Deployed(_) => None,
                };
                self.loads
                    .spawn(async move { parts.load(edition, &config, bytes).await });
            }
            Command::Publish(lineup) => self.publish(&lineup),
            Command::Refused { edition, why } => self.say(&telemetry::Event::VersionRefused {
                handler,
                version: edition.version.as_str(),
                why: &why,
            }),
            Command::Away { edition, why } => self.say(&telemetry::Event::VersionAway {
                handler,
                version: edition.version.as_str(),
                why: &why,
            }),
            Command::Settle {
                revision,
                version,
                verdict,
            } => self.settle(revision, version, verdict).await,
        }
    }

    fn publish(&mut self, lineup: &rollout::Lineup) {
        let Some(current) = self.lives.get(&lineup.current).cloned() else {
            return;
        };
        let before = self.publish.borrow().clone();
        let mut next = Lineup::only(current.clone());
        let candidate = lineup.candidate.as_ref();
        let candidate = candidate.and_then(|(edition, mode)| {
            let live = self.lives.get(edition)?;
            Some((live.clone(), *mode, &edition.version))
        });
        self.trial = None;
        let mut percent = None;
        if let Some((live, mode, version)) = candidate {
            let revision = self.follower.wanted().revision;
            let trial = Trial::begin(revision, mode, &live, &current);
            next.shadow = trial.shadow().cloned();
            self.trial = Some(trial);
            self.look_at = clock::now() + LOOK_EVERY;
            if let Mode::Trial(share) = mode {
                let chosen = share.chosen(version, self.parts.partitions);
                next.trial = Some((live, chosen));
                percent = Some(share.as_percent());
            }
        }
        let runs = |lineup: &Lineup<WasmHandler>| {
            let trial = lineup.trial.as_ref().map(|(live, _)| live);
            trial.unwrap_or(&lineup.current).handler.version().clone()
        };
        let (was, is) = (runs(&before), runs(&next));
        let next = Arc::new(next);
        self.publish.send_replace(next.clone());
        points::at(Point::Published);
        self.say_shadows(&before, &next);
        let settings = |lineup: &rollout::Lineup| lineup.current.settings;
        if was == is && settings(lineup) != self.settings_live {
            self.say(&telemetry::Event::SettingsLive {
                handler: self.parts.plan.handler.as_str(),
                version: is.as_str(),
            });
        }
        self.settings_live = settings(lineup);
        if was != is {
            self.say(&telemetry::Event::VersionLive {
                handler: self.parts.plan.handler.as_str(),
                version: is.as_str(),
                before: was.as_str(),
                trial: percent,
            });
        }
        self.report_at = Time::ZERO;
    }

    fn say_shadows(&self, before: &Lineup<WasmHandler>, next: &Lineup<WasmHandler>) {
        let handler = self.parts.plan.handler.as_str();
        if let Some(shadow) = &before.shadow {
            self.say(&telemetry::Event::ShadowEnded {
                handler,
                version: shadow.version(),
                found: shadow.found().to_string(),
            });
        }
        if let Some(shadow) = &next.shadow {
            self.say(&telemetry::Event::ShadowBegun {
                handler,
                version: shadow.version(),
                live: next.current.handler.version().as_str(),
            });
        }
    }

    /// Old code and its memory are free when the last instance of it is gone, too.
    fn drop_unused(&mut self) {
        let follower = &self.follower;
        self.lives.retain(|edition, _| follower.needs(edition));
    }

    /// What the calls of a candidate from a file came to: nobody else has counted any.
    fn look(&mut self) {
        let now = clock::now();
        let candidate = self.follower.candidate();
        let refused = matches!(candidate, Some(Progress::Refused(_)));
        let due = candidate.is_some() && (refused || now >= self.look_at);
        if !due || !matches!(self.source, Source::File(_)) {
            return;
        }
        self.look_at = now + LOOK_EVERY;
        let heard = [Heard {
            host: self.member.clone(),
            age: Duration::ZERO,
            report: self.told(),
        }];
        let revision = self.follower.wanted().revision;
        let evidence = rollout::evidence(&heard, revision);
        self.follower
            .handle(now, Event::Evidence { revision, evidence });
    }

    fn told(&self) -> HostReport {
        let revision = self.follower.wanted().revision;
        let trial = self.trial.as_ref().filter(|trial| trial.is_of(revision));
        let (candidate, rest) = trial.map(Trial::tallies).unwrap_or_default();
        HostReport {
            stream: self.parts.plan.stream.stream.clone(),
            group: self.parts.plan.group.clone(),
            revision,
            current: self.follower.published().current.version.clone(),
            refused: match self.follower.current() {
                Progress::Refused(why) => Some(why.to_owned()),
                _ => None,
            },
            candidacy: match self.follower.candidate() {
                None => Candidacy::None,
                Some(Progress::Loading) => Candidacy::Loading,
                Some(Progress::Loaded) => Candidacy::Loaded,
                Some(Progress::Refused(why)) => Candidacy::Refused(why.to_owned()),
            },
            candidate,
            rest,
            live_versions: u32::try_from(self.parts.loader.engine().modules_live())
                .unwrap_or(u32::MAX),
            differences: trial.map(Trial::differences).unwrap_or_default(),
        }
    }

    /// For the history.
    fn counted(&self) -> String {
        let told = self.told();
        let (candidate, rest) = (told.candidate, told.rest);
        let candidacy = self.follower.wanted().candidate.as_ref();
        match candidacy.map(|candidate| candidate.mode) {
            Some(Mode::Shadow) => {
                let (revision, others) = &self.others;
                let others = others.clone();
                // What others found since their last reports is missing.
                let all = match *revision == told.revision {
                    true => told.differences.plus(others),
                    false => told.differences,
                };
                format!("{all}; here: {candidate}, beside {rest} of the live version")
            }
            _ => format!("here: {candidate}; the version before it: {rest}"),
        }
    }

    /// What a file says concerns this host alone, and leaves nothing in Redis.
    fn reports(&self) -> bool {
        matches!(self.source, Source::Deployed(_))
    }

    fn report(&mut self) {
        let now = clock::now();
        if !self.reports() || now < self.report_at || !self.reports.is_empty() {
            return;
        }
        self.report_at = now
            + match self.follower.candidate() {
                Some(_) => limits::REPORT_EVERY,
                None => limits::REPORT_EVERY * IDLE_REPORTS,
            };
        let request = Request::Report(Report {
            handler: self.parts.handler(),
            asks: Asks::Told {
                host: self.member.clone(),
                report: self.told(),
            },
        });
        let broker = self.parts.broker.clone();
        self.reports.spawn(async move {
            match broker.execute(request).await {
                Ok(Reply::Report(reply)) => Ok(reply),
                Ok(other) => Err(super::worker::odd(&other)),
                Err(failure) => Err(failure),
            }
        });
    }

    fn reported(&mut self, reply: ReportReply) {
        // Without one, Redis came back without its data: what runs goes on.
        let Some(pointer) = reply.wanted else {
            return;
        };
        let now = clock::now();
        self.say_settled(&pointer);
        let revision = pointer.revision;
        if revision != self.follower.wanted().revision {
            points::at(Point::Wanted);
            // Others wait to hear that this host knows.
            self.report_at = Time::ZERO;
        }
        self.follower
            .handle(now, Event::Wanted(pointer.wanted(now)));
        let evidence = rollout::evidence(&reply.hosts, revision);
        let plan = &self.parts.plan;
        let others = reply.hosts.into_iter().filter(|heard| {
            let (host, report) = (&heard.host, &heard.report);
            let here = report.stream == plan.stream.stream && report.group == plan.group;
            *host != self.member || !here
        });
        let others: Vec<_> = others.collect();
        self.others = (revision, rollout::differences(&others, revision));
        self.follower
            .handle(now, Event::Evidence { revision, evidence });
    }

    /// Whoever settled it: this host or another, or an operator.
    fn say_settled(&self, next: &Pointer) {
        let Some(candidate) = &self.follower.wanted().candidate else {
            return;
        };
        let Mode::Trial(_) = candidate.mode else {
            return;
        };
        let version = &candidate.version;
        if next
            .candidate
            .as_ref()
            .is_some_and(|c| c.version == *version)
        {
            return;
        }
        if next.current == *version {
            return self.say_promoted(version);
        }
        let handler = self.parts.plan.handler.as_str();
        let reason = format!("segmenter handler history {handler} says why");
        self.say_rolled_back(version, &next.current, &reason);
    }

    fn say_promoted(&self, version: &Version) {
        self.say(&telemetry::Event::VersionPromoted {
            handler: self.parts.plan.handler.as_str(),
            version: version.as_str(),
        });
    }

    fn say_rolled_back(&self, version: &Version, to: &Version, reason: &str) {
        self.say(&telemetry::Event::VersionRolledBack {
            handler: self.parts.plan.handler.as_str(),
            version: version.as_str(),
            to: to.as_str(),
            reason,
        });
    }

    async fn settle(&mut self, revision: u64, version: Version, verdict: Verdict) {
        let told = self.told();
        let now = clock::now();
        match &mut self.source {
            Source::File(from) => {
                from.0.settle(revision, &verdict);
                let wanted = from.0.wanted();
                let refused = matches!(told.candidacy, Candidacy::Refused(_));
                match &verdict {
                    Verdict::Promote => self.say_promoted(&version),
                    // Told already.
                    Verdict::RollBack { .. } if refused => {}
                    Verdict::RollBack { reason } => {
                        self.say_rolled_back(&version, &wanted.current, reason);
                    }
                }
                self.follower.handle(now, Event::Wanted(wanted));
            }
            Source::Deployed(_) => {
                let request = Request::Settle(Settle {
                    handler: self.parts.handler(),
                    revision,
                    version,
                    verdict,
                    evidence: self.counted(),
                    by: self.member.to_string(),
                });
                points::at(Point::Settling);
                // Whatever it answers, the next report tells what is wanted.
                let _ = self.parts.broker.execute(request).await;
                points::at(Point::Settled);
                self.report_at = Time::ZERO;
            }
        }
    }

    /// Nobody shall wait for this host.
    async fn leave(self) {
        if !self.reports() {
            return;
        }
        let request = Request::Report(Report {
            handler: self.parts.handler(),
            asks: Asks::Left {
                host: self.member.clone(),
                report: self.told(),
            },
        });
        let _ = self.parts.broker.execute(request).await;
    }

    fn say(&self, event: &telemetry::Event<'_>) {
        self.parts.say.event(event);
    }
}
