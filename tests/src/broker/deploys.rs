//! The versions of handlers, in memory: what the scripts about them mean.

use std::collections::{BTreeMap, BTreeSet};

use segmenter_core::limits;
use segmenter_core::names::{GroupName, HandlerId, MemberId, Namespace, StreamName, Version};
use segmenter_core::port::{
    Asks, BadVersion, Change, Deploy, DeployReply, FetchModule, FetchModuleReply, Happened, Heard,
    How, Pointer, Report, ReportReply, RollBack, RollBackReply, Settle, SettleReply, StoreModule,
    StoreModuleReply, Trying,
};
use segmenter_core::rollout::{HostReport, Mode, Share, Verdict};
use segmenter_core::time::Duration;
use segmenter_redis::version_of;

/// One host may run a handler of this name over several streams.
type Whose = (MemberId, StreamName, GroupName);

#[derive(Debug, Clone, Default)]
pub(super) struct Deploys {
    modules: BTreeMap<(Namespace, Version), Vec<u8>>,
    handlers: BTreeMap<HandlerId, Handler>,
    reports: BTreeMap<HandlerId, BTreeMap<Whose, (u64, HostReport)>>,
    news: Vec<HandlerId>,
}

#[derive(Debug, Clone, Default)]
struct Handler {
    /// 0: nothing was ever deployed.
    revision: u64,
    current: Option<Version>,
    candidate: Option<Trial>,
    /// Latest first, and so are the others.
    past: Vec<Version>,
    recent: Vec<Version>,
    bad: Vec<BadVersion>,
    history: Vec<Happened>,
}

#[derive(Debug, Clone)]
struct Trial {
    version: Version,
    mode: Mode,
    ends_ms: u64,
    lasts: Duration,
    by: String,
}

impl Trial {
    fn left(&self, now_ms: u64) -> Duration {
        Duration::from_millis(self.ends_ms.saturating_sub(now_ms)).min(self.lasts)
    }
}

impl Handler {
    fn needs(&self) -> BTreeSet<Version> {
        let candidate = self.candidate.iter().map(|trial| &trial.version);
        let lists = self.past.iter().chain(&self.recent);
        let all = lists.chain(&self.current).chain(candidate);
        all.cloned().collect()
    }

    fn make_current(&mut self, version: Version) {
        self.past.retain(|past| *past != version);
        if let Some(before) = self.current.replace(version) {
            in_front(&mut self.past, before, limits::PAST_VERSIONS_MAX);
        }
    }

    fn mark_bad(&mut self, version: Version, at_ms: u64, reason: String) {
        self.bad.retain(|bad| bad.version != version);
        let bad = BadVersion {
            version,
            at_ms,
            reason,
        };
        self.bad.insert(0, bad);
        self.bad.truncate(limits::BAD_VERSIONS_MAX);
    }
}

/// What is told of a change beside the handler as it has become.
struct Told {
    change: Change,
    version: Version,
    from: Option<Version>,
    by: String,
    reason: String,
}

fn in_front(list: &mut Vec<Version>, version: Version, most: usize) {
    list.retain(|one| *one != version);
    list.insert(0, version);
    list.truncate(most);
}

fn cut(text: &str, bytes_max: usize) -> String {
    text[..text.floor_char_boundary(bytes_max)].to_owned()
}

impl Deploys {
    pub(super) fn take_news(&mut self) -> Vec<HandlerId> {
        std::mem::take(&mut self.news)
    }

    pub(super) fn history(&self, handler: &HandlerId) -> Vec<Happened> {
        let handler = self.handlers.get(handler);
        handler.map(|h| h.history.clone()).unwrap_or_default()
    }

    pub(super) fn bad(&self, handler: &HandlerId) -> Vec<BadVersion> {
        let handler = self.handlers.get(handler);
        handler.map(|h| h.bad.clone()).unwrap_or_default()
    }

    pub(super) fn damage(&mut self, namespace: &Namespace, version: &Version, bytes: Vec<u8>) {
        let key = (namespace.clone(), version.clone());
        self.modules.insert(key, bytes);
    }

    pub(super) fn store(&mut self, r: StoreModule) -> StoreModuleReply {
        if r.bytes.len() > limits::DEPLOYED_MODULE_BYTES_MAX {
            return StoreModuleReply::TooLarge;
        }
        if version_of(&r.bytes) != r.version {
            return StoreModuleReply::OtherBytes;
        }
        let before = self.modules.insert((r.namespace, r.version), r.bytes);
        let existed = before.is_some();
        StoreModuleReply::Stored { existed }
    }

    pub(super) fn fetch(&self, r: FetchModule) -> FetchModuleReply {
        let Some(bytes) = self.modules.get(&(r.namespace, r.version.clone())) else {
            return FetchModuleReply::Missing;
        };
        let found = version_of(bytes);
        match found == r.version {
            true => FetchModuleReply::Module {
                bytes: bytes.clone(),
            },
            false => FetchModuleReply::Damaged { found },
        }
    }

    fn stored(&self, of: &HandlerId, version: &Version) -> bool {
        let key = (of.namespace.clone(), version.clone());
        self.modules.contains_key(&key)
    }

    pub(super) fn deploy(&mut self, now_us: u64, r: Deploy) -> DeployReply {
        let now_ms = now_us / 1_000;
        let mut handler = self.handlers.get(&r.handler).cloned().unwrap_or_default();
        if let Some(trial) = &handler.candidate {
            return DeployReply::Busy {
                version: trial.version.clone(),
                by: trial.by.clone(),
                left: trial.left(now_ms),
            };
        }
        if handler.current.as_ref() == Some(&r.version) {
            let revision = handler.revision;
            return DeployReply::Current { revision };
        }
        let marked = handler.bad.iter().find(|bad| bad.version == r.version);
        if let Some(bad) = marked.filter(|_| !r.again) {
            return DeployReply::Bad {
                at_ms: bad.at_ms,
                reason: bad.reason.clone(),
            };
        }
        if handler.current.is_none() && matches!(r.how, How::Shadow { .. }) {
            return DeployReply::NothingToShadow;
        }
        if !self.stored(&r.handler, &r.version) {
            return DeployReply::NoModule;
        }
        handler.bad.retain(|bad| bad.version != r.version);
        in_front(
            &mut handler.recent,
            r.version.clone(),
            limits::RECENT_VERSIONS_MAX,
        );
        let (from, by) = (handler.current.clone(), cut(&r.by, limits::BY_BYTES_MAX));
        let trial = match r.how {
            How::Now => None,
            How::Trial { share, lasts } => Some((Mode::Trial(share), lasts)),
            How::Shadow { lasts } => Some((Mode::Shadow, lasts)),
        };
        let (change, reason) = match trial {
            Some((mode, lasts)) if from.is_some() => {
                let lasts = Duration::from_millis(lasts.as_millis() as u64);
                handler.candidate = Some(Trial {
                    version: r.version.clone(),
                    mode,
                    ends_ms: now_ms + lasts.as_millis() as u64,
                    lasts,
                    by: by.clone(),
                });
                let lasts = lasts.as_millis();
                match mode {
                    Mode::Trial(share) => (Change::Trial, in_share(share, lasts)),
                    Mode::Shadow => (Change::Shadow, format!("for {lasts} ms")),
                }
            }
            _ => {
                handler.make_current(r.version.clone());
                (Change::Deployed, String::new())
            }
        };
        let current = handler.current.as_ref() == Some(&r.version);
        let told = Told {
            change,
            version: r.version,
            from,
            by,
            reason,
        };
        let revision = self.save(now_us, &r.handler, handler, told);
        DeployReply::Deployed { revision, current }
    }

    pub(super) fn settle(&mut self, now_us: u64, r: Settle) -> SettleReply {
        let found = self.handlers.get(&r.handler).cloned();
        let mut handler = found.unwrap_or_default();
        let meant = |trial: &Trial| handler.revision == r.revision && trial.version == r.version;
        let Some(trial) = handler.candidate.clone().filter(meant) else {
            let revision = handler.revision;
            return SettleReply::Changed { revision };
        };
        handler.candidate = None;
        let from = handler.current.clone();
        let evidence = cut(&r.evidence, limits::REASON_BYTES_MAX);
        let (change, reason) = match (&r.verdict, trial.mode) {
            (Verdict::RollBack { reason }, _) => {
                let reason = cut(reason, limits::REASON_BYTES_MAX);
                handler.mark_bad(r.version.clone(), now_us / 1_000, reason.clone());
                let counted = match evidence.as_str() {
                    "" => String::new(),
                    some => format!(" ({some})"),
                };
                (Change::RolledBack, reason + &counted)
            }
            (Verdict::Promote, Mode::Trial(_)) => {
                handler.make_current(r.version.clone());
                (Change::Promoted, evidence)
            }
            (Verdict::Promote, Mode::Shadow) => (Change::ShadowEnded, evidence),
        };
        let told = Told {
            change,
            version: r.version,
            from,
            by: cut(&r.by, limits::BY_BYTES_MAX),
            reason,
        };
        let revision = self.save(now_us, &r.handler, handler, told);
        SettleReply::Settled { revision }
    }

    pub(super) fn roll_back(&mut self, now_us: u64, r: RollBack) -> RollBackReply {
        let Some(mut handler) = self.handlers.get(&r.handler).cloned() else {
            return RollBackReply::NotDeployed;
        };
        let was = handler.current.clone().expect("a handler has one");
        let candidate = handler.candidate.take().map(|trial| trial.version);
        let (mut left, to) = (was.clone(), r.to.clone());
        let to = match (&candidate, to) {
            (Some(candidate), to) => {
                let to = to.unwrap_or_else(|| was.clone());
                if to != *candidate {
                    left = candidate.clone();
                }
                to
            }
            (None, Some(to)) if to == was => return RollBackReply::Current,
            (None, Some(to)) => to,
            (None, None) => match handler.past.first() {
                Some(before) => before.clone(),
                None => return RollBackReply::NothingBefore { current: was },
            },
        };
        if to != was && !self.stored(&r.handler, &to) {
            return RollBackReply::NoModule { version: to };
        }
        let reason = r.reason.unwrap_or_default();
        let reason = cut(&reason, limits::REASON_BYTES_MAX);
        if !reason.is_empty() {
            handler.mark_bad(left.clone(), now_us / 1_000, reason.clone());
        }
        let early = candidate.as_ref() == Some(&to);
        if early {
            handler.make_current(to.clone());
        } else if to != was {
            if let Some(at) = handler.past.iter().position(|past| *past == to) {
                handler.past.drain(..=at);
            }
            handler.current = Some(to.clone());
        }
        let told = Told {
            change: match early {
                true => Change::Deployed,
                false => Change::RolledBack,
            },
            version: if early { to.clone() } else { left.clone() },
            from: Some(was),
            by: cut(&r.by, limits::BY_BYTES_MAX),
            reason,
        };
        let revision = self.save(now_us, &r.handler, handler, told);
        RollBackReply::RolledBack {
            revision,
            from: left,
            to,
        }
    }

    pub(super) fn report(&mut self, now_us: u64, r: Report) -> ReportReply {
        let now_ms = now_us / 1_000;
        let asks_only = r.asks == Asks::Only;
        let whose = |host: MemberId, report: &HostReport| {
            (host, report.stream.clone(), report.group.clone())
        };
        let keep = limits::REPORT_KEPT.as_millis() as u64;
        let reports = self.reports.entry(r.handler.clone()).or_default();
        reports.retain(|_, (at, _)| {
            *at = now_ms.min(*at);
            now_ms - *at < keep
        });
        match r.asks {
            Asks::Only => {}
            Asks::Told { host, report } => {
                reports.insert(whose(host, &report), (now_ms, report));
            }
            Asks::Left { host, report } => {
                reports.remove(&whose(host, &report));
            }
        }
        let wanted = self.handlers.get(&r.handler).map(|handler| Pointer {
            revision: handler.revision,
            current: handler.current.clone().expect("a handler has one"),
            candidate: handler.candidate.as_ref().map(|trial| Trying {
                version: trial.version.clone(),
                mode: trial.mode,
                left: trial.left(now_ms),
                by: trial.by.clone(),
            }),
        });
        let on_trial = wanted.as_ref().is_some_and(|w| w.candidate.is_some());
        let hosts = reports.iter().filter(|_| on_trial || asks_only);
        ReportReply {
            hosts: hosts
                .map(|((host, ..), (at, report))| Heard {
                    host: host.clone(),
                    age: Duration::from_millis(now_ms - at),
                    report: report.clone(),
                })
                .collect(),
            wanted,
        }
    }

    /// Keeps the handler as it has become; forgets bytes that nobody needs any more.
    fn save(&mut self, now_us: u64, of: &HandlerId, mut handler: Handler, told: Told) -> u64 {
        let before = self.handlers.get(of);
        let needed = before.map(Handler::needs).unwrap_or_default();
        handler.revision = now_us.max(handler.revision + 1);
        handler.history.push(Happened {
            at_ms: now_us / 1_000,
            change: told.change,
            version: told.version,
            from: told.from,
            current: handler.current.clone().expect("a handler has one"),
            revision: handler.revision,
            by: told.by,
            reason: told.reason,
        });
        let more = handler
            .history
            .len()
            .saturating_sub(limits::HISTORY_ENTRIES_MAX);
        handler.history.drain(..more);
        let revision = handler.revision;
        self.handlers.insert(of.clone(), handler);
        let needed_by_others = |version: &Version| {
            let mut same = self.handlers.iter();
            same.any(|(id, h)| id.namespace == of.namespace && h.needs().contains(version))
        };
        for version in needed {
            if !needed_by_others(&version) {
                self.modules.remove(&(of.namespace.clone(), version));
            }
        }
        self.news.push(of.clone());
        revision
    }
}

fn in_share(share: Share, lasts_ms: u128) -> String {
    let percent = share.as_percent();
    format!("in {percent} % of the partitions for {lasts_ms} ms")
}
