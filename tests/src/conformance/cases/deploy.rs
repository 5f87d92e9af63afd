//! Versions of a handler: stored, deployed, tried, settled, gone back from; and what hosts report.

use std::time::Duration;

use segmenter_core::limits;
use segmenter_core::names::{HandlerId, MemberId, Version};
use segmenter_core::port::{
    Asks, Change, Deploy, DeployReply, FetchModule, FetchModuleReply, How, Pointer, Reply, Report,
    ReportReply, Request, RollBack, RollBackReply, Settle, SettleReply, StoreModule,
    StoreModuleReply,
};
use segmenter_core::rollout::{
    Candidacy, Differences, HostReport, Mode, Share, Tally, Verdict, evidence,
};
use segmenter_redis::version_of;

use crate::conformance::Subject;

/// Longer than any case runs.
const LONG: Duration = Duration::from_secs(600);

/// The handler `charge` on a subject.
struct Desk<'a> {
    subject: &'a mut dyn Subject,
    handler: HandlerId,
}

macro_rules! answer {
    ($subject:expr, $kind:ident, $request:expr) => {
        match $subject.execute(Request::$kind($request)) {
            Ok(Reply::$kind(reply)) => Ok(reply),
            Ok(other) => panic!("asked {}, answered {other:?}", stringify!($kind)),
            Err(failure) => Err(failure),
        }
    };
}

fn bytes_of(n: usize) -> Vec<u8> {
    format!("module {n}").into_bytes()
}

fn v(n: usize) -> Version {
    version_of(&bytes_of(n))
}

const TRIAL: How = How::Trial {
    share: Share::ALL,
    lasts: LONG,
};
const SHADOW: How = How::Shadow { lasts: LONG };

impl<'a> Desk<'a> {
    fn of(subject: &'a mut dyn Subject, name: &str) -> Desk<'a> {
        Desk {
            subject,
            handler: HandlerId {
                namespace: "shop".parse().unwrap(),
                handler: name.parse().unwrap(),
            },
        }
    }

    fn new(subject: &'a mut dyn Subject) -> Desk<'a> {
        Desk::of(subject, "charge")
    }

    /// With version 1 as the current one.
    fn with_current(subject: &'a mut dyn Subject) -> Desk<'a> {
        let mut desk = Desk::new(subject);
        desk.goes_live(1);
        desk
    }

    fn try_store(&mut self, version: &Version, bytes: Vec<u8>) -> StoreModuleReply {
        let request = StoreModule {
            namespace: self.handler.namespace.clone(),
            version: version.clone(),
            bytes,
        };
        answer!(self.subject, StoreModule, request).expect("an answer")
    }

    fn store(&mut self, n: usize) {
        let reply = self.try_store(&v(n), bytes_of(n));
        assert!(
            matches!(reply, StoreModuleReply::Stored { .. }),
            "{reply:?}"
        );
    }

    fn fetch(&mut self, version: &Version) -> FetchModuleReply {
        let request = FetchModule {
            namespace: self.handler.namespace.clone(),
            version: version.clone(),
        };
        answer!(self.subject, FetchModule, request).expect("an answer")
    }

    fn has(&mut self, n: usize) -> bool {
        match self.fetch(&v(n)) {
            FetchModuleReply::Module { bytes } => {
                assert_eq!(bytes, bytes_of(n));
                true
            }
            FetchModuleReply::Missing => false,
            other => panic!("{other:?}"),
        }
    }

    fn deploy_as(&mut self, n: usize, how: How, by: &str, again: bool) -> DeployReply {
        let request = Deploy {
            handler: self.handler.clone(),
            version: v(n),
            how,
            by: by.to_owned(),
            again,
        };
        answer!(self.subject, Deploy, request).expect("an answer")
    }

    fn deploy(&mut self, n: usize, how: How) -> DeployReply {
        self.store(n);
        self.deploy_as(n, how, "ann", false)
    }

    fn goes_live(&mut self, n: usize) -> u64 {
        match self.deploy(n, How::Now) {
            DeployReply::Deployed {
                revision,
                current: true,
            } => revision,
            other => panic!("{other:?}"),
        }
    }

    /// Its revision.
    fn tries(&mut self, n: usize, how: How) -> u64 {
        match self.deploy(n, how) {
            DeployReply::Deployed {
                revision,
                current: false,
            } => revision,
            other => panic!("{other:?}"),
        }
    }

    fn settle(&mut self, n: usize, revision: u64, verdict: Verdict) -> SettleReply {
        let request = Settle {
            handler: self.handler.clone(),
            revision,
            version: v(n),
            verdict,
            evidence: "3 calls".to_owned(),
            by: "host-1".to_owned(),
        };
        answer!(self.subject, Settle, request).expect("an answer")
    }

    fn settles(&mut self, n: usize, revision: u64, verdict: Verdict) -> u64 {
        match self.settle(n, revision, verdict) {
            SettleReply::Settled { revision: after } if after > revision => after,
            other => panic!("{other:?}"),
        }
    }

    fn roll_back(&mut self, to: Option<usize>, reason: Option<&str>) -> RollBackReply {
        let request = RollBack {
            handler: self.handler.clone(),
            to: to.map(v),
            reason: reason.map(str::to_owned),
            by: "bob".to_owned(),
        };
        answer!(self.subject, RollBack, request).expect("an answer")
    }

    fn goes_back(&mut self, to: Option<usize>) -> (Version, Version) {
        match self.roll_back(to, None) {
            RollBackReply::RolledBack { from, to, .. } => (from, to),
            other => panic!("{other:?}"),
        }
    }

    fn report(&mut self, asks: Asks) -> ReportReply {
        let request = Report {
            handler: self.handler.clone(),
            asks,
        };
        answer!(self.subject, Report, request).expect("an answer")
    }

    fn tells(&mut self, host: &str, report: &HostReport) -> ReportReply {
        self.report(Asks::Told {
            host: MemberId::new(host).unwrap(),
            report: report.clone(),
        })
    }

    fn wanted(&mut self) -> Option<Pointer> {
        self.report(Asks::Only).wanted
    }

    fn current(&mut self) -> Version {
        self.wanted().expect("it was deployed").current
    }

    fn history(&mut self) -> Vec<(Change, Version, Option<Version>, Version)> {
        let all = self.subject.history(&self.handler);
        all.into_iter()
            .map(|h| (h.change, h.version, h.from, h.current))
            .collect()
    }

    fn bad(&mut self) -> Vec<(Version, String)> {
        let all = self.subject.bad_versions(&self.handler);
        all.into_iter().map(|b| (b.version, b.reason)).collect()
    }
}

fn back(reason: &str) -> Verdict {
    Verdict::RollBack {
        reason: reason.to_owned(),
    }
}

fn a_report(revision: u64, candidacy: Candidacy) -> HostReport {
    HostReport {
        stream: "orders".parse().unwrap(),
        group: "billing".parse().unwrap(),
        revision,
        current: v(1),
        refused: None,
        candidacy,
        candidate: Tally {
            calls: 10,
            failed: 2,
            overruled: 1,
            micros: 77,
        },
        rest: Tally {
            calls: 4,
            ..Tally::default()
        },
        live_versions: 2,
        differences: Differences::default(),
    }
}

pub fn bytes_are_kept_by_their_digest_and_no_others(subject: &mut dyn Subject) {
    let mut desk = Desk::new(subject);
    assert_eq!(desk.fetch(&v(1)), FetchModuleReply::Missing);
    let large: Vec<u8> = (0..20 << 20).map(|i| (i % 251) as u8).collect();
    let version = version_of(&large);
    for existed in [false, true] {
        let reply = desk.try_store(&version, large.clone());
        assert_eq!(reply, StoreModuleReply::Stored { existed });
    }
    assert_eq!(
        desk.fetch(&version),
        FetchModuleReply::Module { bytes: large }
    );
    // Exactly as long as a whole number of pieces.
    let even = vec![7; 16 << 20];
    let version = version_of(&even);
    desk.try_store(&version, even.clone());
    assert_eq!(
        desk.fetch(&version),
        FetchModuleReply::Module { bytes: even }
    );
    let reply = desk.try_store(&v(1), bytes_of(2));
    assert_eq!(reply, StoreModuleReply::OtherBytes);
    assert_eq!(desk.fetch(&v(1)), FetchModuleReply::Missing);
}

pub fn damaged_bytes_are_told_and_mended_by_the_next_store(subject: &mut dyn Subject) {
    let mut desk = Desk::new(subject);
    desk.store(1);
    let namespace = desk.handler.namespace.clone();
    desk.subject.damage_module(&namespace, &v(1), bytes_of(2));
    assert_eq!(desk.fetch(&v(1)), FetchModuleReply::Damaged { found: v(2) });
    desk.store(1);
    assert!(desk.has(1));
}

pub fn nothing_is_wanted_of_a_handler_that_was_never_deployed(subject: &mut dyn Subject) {
    let mut desk = Desk::new(subject);
    assert_eq!(desk.wanted(), None);
    assert_eq!(desk.roll_back(None, None), RollBackReply::NotDeployed);
    let reply = desk.settle(1, 1, Verdict::Promote);
    assert_eq!(reply, SettleReply::Changed { revision: 0 });
    let reply = desk.deploy_as(1, How::Now, "ann", false);
    assert_eq!(reply, DeployReply::NoModule);
    assert_eq!(desk.deploy(1, SHADOW), DeployReply::NothingToShadow);
    assert_eq!(desk.wanted(), None);
    assert!(desk.history().is_empty());
}

pub fn the_first_version_is_current_at_once(subject: &mut dyn Subject) {
    let mut desk = Desk::new(subject);
    let reply = desk.deploy(1, TRIAL);
    let DeployReply::Deployed { revision, current } = reply else {
        panic!("{reply:?}");
    };
    assert!(current);
    let wanted = Pointer {
        revision,
        current: v(1),
        candidate: None,
    };
    assert_eq!(desk.wanted(), Some(wanted));
    assert_eq!(desk.deploy(1, TRIAL), DeployReply::Current { revision });
    let expected = (Change::Deployed, v(1), None, v(1));
    assert_eq!(desk.history(), [expected]);
}

pub fn a_candidate_is_on_trial_and_others_are_told(subject: &mut dyn Subject) {
    let mut desk = Desk::with_current(subject);
    let share = Share::percent(25).unwrap();
    let how = How::Trial { share, lasts: LONG };
    let revision = desk.tries(2, how);
    let wanted = desk.wanted().unwrap();
    assert_eq!((wanted.revision, wanted.current), (revision, v(1)));
    let trying = wanted.candidate.unwrap();
    assert_eq!(
        (trying.version, trying.mode, trying.by.as_str()),
        (v(2), Mode::Trial(share), "ann")
    );
    assert!(trying.left <= LONG && trying.left > LONG / 2);
    for (n, how) in [(2, how), (3, How::Now), (3, SHADOW), (1, how)] {
        match desk.deploy(n, how) {
            DeployReply::Busy { version, by, left } => {
                assert_eq!((version, by.as_str()), (v(2), "ann"));
                assert!(left <= LONG && left > LONG / 2);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(desk.wanted().unwrap().revision, revision);
}

pub fn the_time_of_a_trial_runs_by_the_brokers_clock(subject: &mut dyn Subject) {
    let mut desk = Desk::with_current(subject);
    let lasts = Duration::from_millis(30);
    desk.tries(2, How::Shadow { lasts });
    desk.subject.let_time_pass(lasts);
    let trying = desk.wanted().unwrap().candidate.unwrap();
    assert_eq!((trying.left, trying.mode), (Duration::ZERO, Mode::Shadow));
    match desk.deploy(3, TRIAL) {
        DeployReply::Busy { left, .. } => assert_eq!(left, Duration::ZERO),
        other => panic!("{other:?}"),
    }
}

pub fn a_trial_is_settled_once_and_only_as_it_is_meant(subject: &mut dyn Subject) {
    let mut desk = Desk::with_current(subject);
    let revision = desk.tries(2, TRIAL);
    for (n, other) in [
        (2, revision + 1),
        (2, revision - 1),
        (1, revision),
        (3, revision),
    ] {
        let reply = desk.settle(n, other, Verdict::Promote);
        assert_eq!(reply, SettleReply::Changed { revision });
    }
    let after = desk.settles(2, revision, Verdict::Promote);
    let reply = desk.settle(2, revision, back("late"));
    assert_eq!(reply, SettleReply::Changed { revision: after });
    let wanted = Pointer {
        revision: after,
        current: v(2),
        candidate: None,
    };
    assert_eq!(desk.wanted(), Some(wanted));
    assert!(desk.bad().is_empty());
    let expected = [
        (Change::Deployed, v(1), None, v(1)),
        (Change::Trial, v(2), Some(v(1)), v(1)),
        (Change::Promoted, v(2), Some(v(1)), v(2)),
    ];
    assert_eq!(desk.history(), expected);
}

pub fn what_was_rolled_back_is_marked_bad_until_it_is_deployed_again(subject: &mut dyn Subject) {
    let mut desk = Desk::with_current(subject);
    let revision = desk.tries(2, TRIAL);
    desk.settles(2, revision, back("it traps"));
    assert_eq!(desk.current(), v(1));
    assert_eq!(desk.bad(), [(v(2), "it traps".to_owned())]);
    for how in [TRIAL, How::Now, SHADOW] {
        match desk.deploy(2, how) {
            DeployReply::Bad { reason, at_ms } => {
                assert_eq!(reason, "it traps");
                let now_ms = desk.subject.now_us() / 1_000;
                assert!(at_ms <= now_ms && now_ms - at_ms < 60_000);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(desk.has(2), "it may be deployed again");
    let reply = desk.deploy_as(2, TRIAL, "ann", true);
    assert!(matches!(reply, DeployReply::Deployed { .. }), "{reply:?}");
    assert!(desk.bad().is_empty());
    let last = desk.subject.history(&desk.handler.clone());
    let reasons: Vec<_> = last.iter().map(|h| h.reason.as_str()).collect();
    let trial = "in 100 % of the partitions for 600000 ms";
    assert_eq!(reasons, ["", trial, "it traps (3 calls)", trial]);
    let by: Vec<_> = last.iter().map(|h| h.by.as_str()).collect();
    assert_eq!(by, ["ann", "ann", "host-1", "ann"]);
}

pub fn a_shadow_that_ends_well_leaves_what_runs(subject: &mut dyn Subject) {
    let mut desk = Desk::with_current(subject);
    let revision = desk.tries(2, SHADOW);
    desk.settles(2, revision, Verdict::Promote);
    let wanted = desk.wanted().unwrap();
    assert_eq!((wanted.current, wanted.candidate), (v(1), None));
    let (change, ..) = desk.history().pop().unwrap();
    assert_eq!(change, Change::ShadowEnded);
    let revision = desk.tries(2, SHADOW);
    desk.settles(2, revision, back("it cannot be loaded"));
    assert_eq!(desk.current(), v(1));
    assert_eq!(desk.bad().len(), 1);
}

pub fn going_back_ends_a_candidate_first_and_then_leads_further_back(subject: &mut dyn Subject) {
    let mut desk = Desk::with_current(subject);
    assert_eq!(
        desk.roll_back(None, None),
        RollBackReply::NothingBefore { current: v(1) }
    );
    desk.goes_live(2);
    desk.goes_live(3);
    desk.tries(4, TRIAL);
    assert_eq!(desk.goes_back(None), (v(4), v(3)));
    assert!(desk.bad().is_empty(), "an operator may try it again");
    assert_eq!(desk.goes_back(None), (v(3), v(2)));
    assert_eq!(desk.goes_back(None), (v(2), v(1)));
    assert_eq!(
        desk.roll_back(None, None),
        RollBackReply::NothingBefore { current: v(1) }
    );
    assert_eq!(desk.goes_back(Some(3)), (v(1), v(3)));
    assert_eq!(desk.roll_back(Some(3), None), RollBackReply::Current);
    let missing = RollBackReply::NoModule { version: v(9) };
    assert_eq!(desk.roll_back(Some(9), None), missing);
    assert_eq!(desk.current(), v(3));
}

pub fn going_back_with_a_reason_marks_what_is_left(subject: &mut dyn Subject) {
    let mut desk = Desk::with_current(subject);
    desk.goes_live(2);
    let reply = desk.roll_back(None, Some("wrong sums"));
    assert!(
        matches!(reply, RollBackReply::RolledBack { .. }),
        "{reply:?}"
    );
    assert_eq!(desk.bad(), [(v(2), "wrong sums".to_owned())]);
    let reply = desk.deploy(2, TRIAL);
    assert!(matches!(reply, DeployReply::Bad { .. }), "{reply:?}");
}

pub fn going_to_another_version_ends_a_candidate_too(subject: &mut dyn Subject) {
    let mut desk = Desk::with_current(subject);
    desk.goes_live(2);
    desk.tries(3, TRIAL);
    assert_eq!(desk.goes_back(Some(1)), (v(3), v(1)));
    assert_eq!(desk.wanted().unwrap().candidate, None);
    // To the candidate itself: its trial ends early, and well.
    desk.tries(3, TRIAL);
    assert_eq!(desk.goes_back(Some(3)), (v(1), v(3)));
    assert_eq!(desk.wanted().unwrap().candidate, None);
    assert_eq!(desk.goes_back(None), (v(3), v(1)));
}

pub fn bytes_that_no_handler_needs_any_more_go(subject: &mut dyn Subject) {
    let (past, recent) = (limits::PAST_VERSIONS_MAX, limits::RECENT_VERSIONS_MAX);
    let mut desk = Desk::of(&mut *subject, "audit");
    desk.goes_live(1);
    desk = Desk::new(subject);
    let last = past.max(recent) + 3;
    for n in 1..=last {
        desk.goes_live(n);
    }
    assert!(desk.has(1), "the other handler runs it");
    assert!(!desk.has(2), "nothing needs it");
    let kept = (1..=last).filter(|n| desk.has(*n)).count();
    assert_eq!(kept, 1 + past.max(recent - 1) + 1);
    for _ in 0..past {
        desk.goes_back(None);
    }
    let oldest = desk.current();
    assert_eq!(oldest, v(last - past));
    let reply = desk.roll_back(None, None);
    assert_eq!(reply, RollBackReply::NothingBefore { current: oldest });
    // The other handler's need ends, too.
    desk.handler.handler = "audit".parse().unwrap();
    for n in 100..=100 + past.max(recent) {
        desk.goes_live(n);
    }
    assert!(!desk.has(1));
}

pub fn bad_marks_and_history_are_bounded(subject: &mut dyn Subject) {
    let mut desk = Desk::with_current(subject);
    let most = limits::BAD_VERSIONS_MAX;
    for n in 2..most + 4 {
        let revision = desk.tries(n, TRIAL);
        desk.settles(n, revision, back("no"));
    }
    let bad = desk.bad();
    assert_eq!(bad.len(), most);
    assert_eq!(bad[0].0, v(most + 3));
    let forgotten = desk.deploy(2, TRIAL);
    assert!(matches!(forgotten, DeployReply::Deployed { .. }));
    for _ in 0..limits::HISTORY_ENTRIES_MAX / 2 {
        desk.goes_back(None);
        desk.tries(2, TRIAL);
    }
    let history = desk.subject.history(&desk.handler.clone());
    assert_eq!(history.len(), limits::HISTORY_ENTRIES_MAX);
    let revisions: Vec<_> = history.iter().map(|h| h.revision).collect();
    assert!(revisions.is_sorted());
    assert_eq!(desk.wanted().unwrap().revision, *revisions.last().unwrap());
}

pub fn reports_are_kept_whole_and_told_to_who_judges(subject: &mut dyn Subject) {
    let mut desk = Desk::with_current(subject);
    let report = a_report(5, Candidacy::None);
    assert!(desk.tells("a", &report).hosts.is_empty(), "nobody judges");
    assert_eq!(desk.report(Asks::Only).hosts.len(), 1);
    let revision = desk.tries(2, TRIAL);
    let mut refused = a_report(
        revision,
        Candidacy::Refused("no\nstate: grant it".to_owned()),
    );
    refused.refused = Some(String::new());
    refused.differences = Differences {
        same: 3,
        outcome: 1,
        emitted: 2,
        state: 4,
        example: "ack, not reject: ä".to_owned(),
    };
    let loaded = a_report(revision, Candidacy::Loaded);
    desk.tells("b", &refused);
    let mut other_group = loaded.clone();
    other_group.group = "audit".parse().unwrap();
    desk.tells("a", &other_group);
    let heard = desk.tells("a", &loaded);
    assert_eq!(heard.wanted.unwrap().revision, revision);
    let whose: Vec<_> = heard
        .hosts
        .iter()
        .map(|h| (h.host.as_str(), h.report.clone()))
        .collect();
    assert_eq!(
        whose,
        [("a", other_group.clone()), ("a", loaded), ("b", refused)]
    );
    assert!(heard.hosts.iter().all(|h| h.age < Duration::from_secs(10)));
    let evidence = evidence(&heard.hosts, revision);
    let why = "host b: no\nstate: grant it".to_owned();
    assert_eq!(evidence.refused, Some(why));
    assert_eq!(evidence.candidate.calls, 30);
    // Who leaves is not waited for.
    let left = desk.report(Asks::Left {
        host: "a".parse().unwrap(),
        report: other_group,
    });
    assert_eq!(left.hosts.len(), 2);
}

pub fn reports_of_each_handler_stay_apart(subject: &mut dyn Subject) {
    let mut desk = Desk::with_current(subject);
    desk.tells("a", &a_report(1, Candidacy::None));
    desk.handler.handler = "audit".parse().unwrap();
    let reply = desk.report(Asks::Only);
    assert_eq!((reply.wanted, reply.hosts.len()), (None, 0));
    // A host may tell before anything was deployed.
    desk.tells("b", &a_report(0, Candidacy::None));
    assert_eq!(desk.report(Asks::Only).hosts.len(), 1);
}

pub fn long_texts_are_cut(subject: &mut dyn Subject) {
    let mut desk = Desk::new(subject);
    desk.store(1);
    let long = "ä".repeat(limits::REASON_BYTES_MAX);
    desk.deploy_as(1, How::Now, &long, false);
    let revision = desk.tries(2, TRIAL);
    desk.settles(2, revision, back(&long));
    let history = desk.subject.history(&desk.handler.clone());
    assert_eq!(history[0].by.len(), limits::BY_BYTES_MAX);
    assert_eq!(desk.bad()[0].1.len(), limits::REASON_BYTES_MAX);
}

pub fn what_is_too_large_for_redis_is_not_sent(subject: &mut dyn Subject) {
    let mut desk = Desk::new(subject);
    let zeros = vec![0; limits::DEPLOYED_MODULE_BYTES_MAX + 1];
    let reply = desk.try_store(&v(1), zeros);
    assert_eq!(reply, StoreModuleReply::TooLarge);
}
