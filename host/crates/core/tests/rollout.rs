//! How a version goes live: which partitions try it, how it is judged at the thresholds, and one host that
//! follows what is wanted while loads fail, come late or twice, against a model of what it has loaded.

use std::collections::BTreeSet;

use proptest::prelude::*;
use segmenter_core::names::{Partition, Version};
use segmenter_core::rollout::{
    Candidate, Command, Edition, Event, Evidence, Follower, Lineup, Loading, Mode, OVERRULED_MIN,
    OVERRULED_PERCENT, SLOWER_BY, SLOWER_CALLS_MIN, SLOWER_TIMES, Share, ShareError, TRIAL_MIN,
    Tally, Verdict, Wanted, judge,
};
use segmenter_core::time::{Duration, Time};

fn v(name: &str) -> Version {
    name.parse().unwrap()
}

proptest! {
    #[test]
    fn a_share_is_so_many_partitions_rounded_up(percent in 1u64..=100, partitions in 1u32..5_000, name in "[a-f0-9]{8}") {
        let share = Share::percent(percent).unwrap();
        let chosen = share.chosen(&v(&name), partitions);
        let count = share.count(partitions);
        prop_assert_eq!(chosen.len(), count as usize);
        prop_assert!(count >= 1 && count <= partitions);
        let (count, all) = (u64::from(count) * 100, u64::from(partitions) * percent);
        prop_assert!(count >= all && count < all + 100);
        prop_assert!(chosen.iter().all(|p| p.0 < partitions));
        prop_assert_eq!(chosen, share.chosen(&v(&name), partitions));
    }
}

#[test]
fn a_share_is_the_same_in_every_build() {
    let chosen = |name| Share::percent(25).unwrap().chosen(&v(name), 16);
    let some = |all: [u32; 4]| all.into_iter().map(Partition).collect();
    assert_eq!(chosen("v2"), some(GOLDEN_V2));
    assert_eq!(chosen("v3"), some(GOLDEN_V3));
    assert_eq!(Share::ALL.chosen(&v("v2"), 7).len(), 7);
    assert_eq!(Share::ALL.count(u32::MAX), u32::MAX);
}

const GOLDEN_V2: [u32; 4] = [0, 3, 4, 14];
const GOLDEN_V3: [u32; 4] = [3, 10, 13, 15];

#[test]
fn a_share_of_nothing_or_of_more_than_all_is_refused_by_its_number() {
    for percent in [0, 101, u64::MAX] {
        let refused = Share::percent(percent).unwrap_err();
        assert_eq!(refused, ShareError(percent));
        assert!(refused.to_string().contains(&percent.to_string()));
    }
}

fn calls(calls: u64, failed: u64, overruled: u64) -> Evidence {
    let candidate = Tally {
        calls,
        failed,
        overruled,
        micros: 0,
    };
    Evidence {
        candidate,
        ..Evidence::default()
    }
}

fn is_back(verdict: Option<Verdict>) -> bool {
    matches!(verdict, Some(Verdict::RollBack { .. }))
}

#[test]
fn overruled_messages_roll_back_from_the_least_number_on_if_they_are_more_than_their_share() {
    let edge = OVERRULED_MIN * 100 / OVERRULED_PERCENT;
    for (calls, verdict) in [
        (
            calls(OVERRULED_MIN - 1, OVERRULED_MIN - 1, OVERRULED_MIN - 1),
            false,
        ),
        (calls(OVERRULED_MIN, OVERRULED_MIN, OVERRULED_MIN), true),
        (calls(edge - 1, OVERRULED_MIN, OVERRULED_MIN), true),
        (calls(edge, OVERRULED_MIN, OVERRULED_MIN), false),
        (calls(u64::MAX, u64::MAX, u64::MAX), true),
    ] {
        assert_eq!(is_back(judge(&calls, false)), verdict, "{calls:?}");
        let over = judge(&calls, true);
        assert_eq!(is_back(over.clone()), verdict, "{calls:?}");
        assert_eq!(over == Some(Verdict::Promote), !verdict, "{calls:?}");
    }
}

#[test]
fn a_mean_call_is_slower_only_above_both_thresholds_and_once_both_are_measured() {
    let mean = 700;
    let limit = u64::from(SLOWER_TIMES) * mean + SLOWER_BY.as_micros() as u64;
    let tally = |calls, mean| Tally {
        calls,
        micros: calls * mean,
        ..Tally::default()
    };
    let n = SLOWER_CALLS_MIN;
    for (candidate, rest, verdict) in [
        (tally(n, limit), tally(n, mean), false),
        (tally(n, limit + 1), tally(n, mean), true),
        (tally(n - 1, limit * 100), tally(n, mean), false),
        (tally(n, limit * 100), tally(n - 1, mean), false),
        (tally(n, SLOWER_BY.as_micros() as u64), tally(n, 0), false),
    ] {
        let evidence = Evidence {
            candidate,
            rest,
            ..Evidence::default()
        };
        assert_eq!(is_back(judge(&evidence, false)), verdict, "{evidence:?}");
    }
}

prop_compose! {
    fn tally()(calls in 0u64..2_000, micros in 0u64..4_000_000, failed in 0u64..2_000, overruled in 0u64..50) -> Tally {
        Tally { calls, failed: failed.min(calls), overruled: overruled.min(failed).min(calls), micros }
    }
}

prop_compose! {
    fn some_evidence()(candidate in tally(), rest in tally(), waiting in 0u32..3, refused in prop::option::weighted(0.1, Just("no".to_owned()))) -> Evidence {
        Evidence { candidate, rest, refused, waiting }
    }
}

proptest! {
    #[test]
    fn none_is_promoted_early_unloaded_or_waited_for(evidence in some_evidence(), over: bool) {
        match judge(&evidence, over) {
            Some(Verdict::Promote) => prop_assert!(over && evidence.waiting == 0 && evidence.refused.is_none()),
            Some(Verdict::RollBack { reason }) => prop_assert!(!reason.is_empty()),
            None => prop_assert!(evidence.refused.is_none() && (!over || evidence.waiting > 0)),
        }
        if evidence.refused.is_some() {
            prop_assert!(is_back(judge(&evidence, over)));
        }
    }
    #[test]
    fn what_the_version_before_fails_too_speaks_against_nobody(evidence in some_evidence(), over: bool) {
        let shared = Evidence {
            candidate: Tally { overruled: 0, micros: 0, ..evidence.candidate },
            refused: None,
            ..evidence
        };
        prop_assert!(!is_back(judge(&shared, over)));
    }
}

/// Numbers are taken modulo what there is to choose from.
#[derive(Debug, Clone)]
enum Step {
    Wanted {
        current: u8,
        candidate: Option<u8>,
        shadow: bool,
    },
    Settings,
    /// A load ends; `fate` decides how.
    Loaded {
        which: u8,
        fate: u8,
    },
    Evidence(bool, Evidence),
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<u8>(), prop::option::of(any::<u8>()), any::<bool>())
            .prop_map(|(current, candidate, shadow)| Step::Wanted { current, candidate, shadow }),
        1 => Just(Step::Settings),
        8 => (any::<u8>(), any::<u8>()).prop_map(|(which, fate)| Step::Loaded { which, fate }),
        1 => (any::<bool>(), some_evidence()).prop_map(|(newest, e)| Step::Evidence(newest, e)),
        4 => (0u16..20_000).prop_map(Step::Wait),
    ]
}

const VERSIONS: [&str; 3] = ["v1", "v2", "v3"];

struct Host {
    now: Time,
    follower: Follower,
    settings: u32,
    revision: u64,
    /// Loads in the air.
    loads: Vec<Edition>,
    loaded: BTreeSet<Edition>,
    published: Lineup,
    since: Time,
    /// For which revision the candidate runs.
    tried: u64,
}

impl Host {
    fn new() -> Host {
        let first = Edition {
            version: v("v1"),
            settings: 0,
        };
        Host {
            now: Time(1_000_000),
            follower: Follower::new(first.clone(), 7),
            settings: 0,
            revision: 0,
            loads: Vec::new(),
            loaded: BTreeSet::from([first.clone()]),
            published: Lineup {
                current: first,
                candidate: None,
            },
            since: Time::ZERO,
            tried: 0,
        }
    }

    fn tell(&mut self, event: Event) {
        self.follower.handle(self.now, event);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        let mut commands = 0;
        while let Some(command) = self.follower.poll(self.now) {
            commands += 1;
            assert!(commands < 100, "endless");
            match command {
                Command::Load(edition) => self.loads.push(edition),
                Command::Publish(lineup) => self.publish(lineup),
                Command::Settle {
                    revision,
                    version,
                    verdict,
                } => {
                    let wanted = self.follower.wanted();
                    let candidate = wanted.candidate.as_ref().expect("there is one");
                    assert_eq!((revision, &version), (wanted.revision, &candidate.version));
                    if verdict == Verdict::Promote {
                        assert!(self.now >= candidate.ends, "before its time is over");
                        assert!(self.now >= self.since + TRIAL_MIN, "unseen");
                        let newest =
                            |e: &&Edition| e.version == version && e.settings == self.settings;
                        assert!(self.loaded.iter().any(|e| newest(&e)), "never loaded");
                    }
                }
                Command::Refused { edition, .. } | Command::Away { edition, .. } => {
                    assert!(!self.runs(&edition), "{edition:?} runs");
                }
            }
        }
        assert_eq!(*self.follower.published(), self.published);
        let next = self.follower.poll_timeout();
        assert!(next.is_none_or(|next| next > self.now), "a hot loop");
        let text = format!("{:?}", self.follower);
        let editions = text.matches("Edition {").count();
        assert!(editions <= 6, "{editions} editions are remembered: {text}");
    }

    fn runs(&self, edition: &Edition) -> bool {
        let candidate = self.published.candidate.as_ref();
        self.published.current == *edition || candidate.is_some_and(|(c, _)| c == edition)
    }

    fn publish(&mut self, lineup: Lineup) {
        let wanted = self.follower.wanted();
        let candidate = |lineup: &Lineup| lineup.candidate.clone().map(|(edition, _)| edition);
        let mine = wanted
            .candidate
            .as_ref()
            .map(|candidate| &candidate.version);
        let again = candidate(&lineup).is_some_and(|edition| Some(&edition.version) == mine)
            && self.tried != wanted.revision;
        assert!(again || lineup != self.published, "said twice");
        if again {
            (self.since, self.tried) = (self.now, wanted.revision);
        }
        assert!(self.loaded.contains(&lineup.current), "{lineup:?}");
        if let Some((candidate, _)) = &lineup.candidate {
            assert!(self.loaded.contains(candidate), "{lineup:?}");
            assert_ne!(candidate.version, lineup.current.version);
        }
        if candidate(&lineup) != candidate(&self.published) {
            self.since = self.now;
        }
        self.published = lineup;
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Wanted {
                current,
                candidate,
                shadow,
            } => {
                self.revision += 1;
                let version = |n: u8| v(VERSIONS[usize::from(n) % VERSIONS.len()]);
                let wanted = Wanted {
                    // Also lower ones: Redis may have gone back.
                    revision: self.revision ^ 1,
                    current: version(*current),
                    candidate: candidate.map(|n| Candidate {
                        version: version(n),
                        mode: match shadow {
                            true => Mode::Shadow,
                            false => Mode::Trial(Share::ALL),
                        },
                        ends: self.now + Duration::from_millis(u64::from(*current) * 10),
                    }),
                };
                self.tell(Event::Wanted(wanted));
            }
            Step::Settings => {
                self.settings += 1;
                self.tell(Event::Settings(self.settings));
            }
            Step::Loaded { which, fate } => self.end_load(*which, *fate),
            Step::Evidence(newest, evidence) => {
                let revision = self.follower.wanted().revision;
                let revision = revision ^ u64::from(!newest);
                let evidence = evidence.clone();
                self.tell(Event::Evidence { revision, evidence });
            }
            Step::Wait(ms) => {
                self.now = self.now + Duration::from_millis(u64::from(*ms));
                self.carry_out();
            }
        }
    }

    fn end_load(&mut self, which: u8, fate: u8) {
        if self.loads.is_empty() {
            return;
        }
        let edition = self.loads.remove(usize::from(which) % self.loads.len());
        let before = self.published.current.clone();
        let result = match fate % 4 {
            0 | 1 => Ok(()),
            2 => Err(Loading::Away("cut".to_owned())),
            _ => Err(Loading::Refused("no".to_owned())),
        };
        let ok = result.is_ok();
        if ok {
            self.loaded.insert(edition.clone());
        }
        self.tell(Event::Loaded { edition, result });
        if !ok {
            assert_eq!(self.published.current, before, "what ran goes on");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]
    #[test]
    fn a_host_runs_only_what_it_loaded_and_ends_at_what_is_wanted(steps in prop::collection::vec(step(), 0..80)) {
        let mut host = Host::new();
        for step in &steps {
            host.step(step);
        }
        // Loads succeed from here on; what was refused before is another edition under other settings.
        host.step(&Step::Settings);
        for round in 0.. {
            prop_assert!(round < 1_000, "stuck: {:?}", host.follower);
            host.step(&Step::Loaded { which: 0, fate: 0 });
            host.step(&Step::Wait(10_000));
            if host.loads.is_empty() && host.follower.poll_timeout().is_none() {
                break;
            }
        }
        let edition = |version: &Version| Edition { version: version.clone(), settings: host.settings };
        let wanted = host.follower.wanted();
        let other = wanted.candidate.as_ref().filter(|c| c.version != wanted.current);
        prop_assert_eq!(host.published, Lineup {
            current: edition(&wanted.current),
            candidate: other.map(|c| (edition(&c.version), c.mode)),
        });
    }
}

/// It was rolled back and deployed again, and this host heard of the second deploy alone: what it counted
/// is the first one's.
#[test]
fn the_same_version_on_trial_again_is_published_and_seen_anew() {
    let mut host = Host::new();
    let trial = |revision, ends| {
        Event::Wanted(Wanted {
            revision,
            current: v("v1"),
            candidate: Some(Candidate {
                version: v("v2"),
                mode: Mode::Trial(Share::ALL),
                ends,
            }),
        })
    };
    host.tell(trial(1, host.now));
    host.end_load(0, 0);
    host.now = host.now + TRIAL_MIN;
    host.follower.handle(host.now, trial(3, host.now));
    let published = Command::Publish(host.published.clone());
    assert_eq!(host.follower.poll(host.now), Some(published));
    let evidence = calls(10, 0, 0);
    let verdict = |host: &mut Host| {
        let evidence = evidence.clone();
        let revision = 3;
        host.follower
            .handle(host.now, Event::Evidence { revision, evidence });
        host.follower.poll(host.now)
    };
    assert_eq!(verdict(&mut host), None, "it was not seen long enough");
    host.now = host.now + TRIAL_MIN;
    let verdict = verdict(&mut host);
    assert!(
        matches!(verdict, Some(Command::Settle { revision: 3, .. })),
        "{verdict:?}"
    );
}

/// It was wanted, forgotten, and wanted again while its first load was still in the air.
#[test]
fn a_load_that_fails_after_another_of_the_same_succeeded_says_nothing() {
    for late in [
        Loading::Away("cut".to_owned()),
        Loading::Refused("no".to_owned()),
    ] {
        let mut host = Host::new();
        let trial = |candidate| Step::Wanted {
            current: 0,
            candidate,
            shadow: false,
        };
        for step in [trial(Some(1)), trial(None), trial(Some(1))] {
            host.step(&step);
        }
        assert_eq!(host.loads.len(), 2);
        host.end_load(0, 0);
        let (edition, runs) = (host.loads.remove(0), host.published.clone());
        assert!(host.runs(&edition));
        host.tell(Event::Loaded {
            edition,
            result: Err(late),
        });
        assert_eq!(host.published, runs);
    }
}
