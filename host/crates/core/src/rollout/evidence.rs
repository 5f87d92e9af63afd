//! What hosts report of a handler, and what all reports together say of a candidate. It must not know how
//! reports travel, nor when a verdict follows from them.

use std::fmt;

use super::judge::{Evidence, Tally};
use crate::limits;
use crate::names::{GroupName, StreamName, Version};
use crate::port::Heard;
use crate::time::Duration;

/// How far a host is with the candidate of its revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Candidacy {
    /// It knows of none.
    #[default]
    None,
    Loading,
    Loaded,
    Refused(String),
}

/// Calls of a shadow beside the current version's: how often both did the same, and if not, in what they
/// differed first (outcome before emitted messages before state).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Differences {
    pub same: u64,
    pub outcome: u64,
    pub emitted: u64,
    pub state: u64,
    /// The first that differed, for people; empty: none did.
    pub example: String,
}

impl Differences {
    pub fn plus(mut self, other: Differences) -> Differences {
        self.same = self.same.saturating_add(other.same);
        self.outcome = self.outcome.saturating_add(other.outcome);
        self.emitted = self.emitted.saturating_add(other.emitted);
        self.state = self.state.saturating_add(other.state);
        if self.example.is_empty() {
            self.example = other.example;
        }
        self
    }

    pub fn differed(&self) -> u64 {
        self.outcome
            .saturating_add(self.emitted)
            .saturating_add(self.state)
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Differences {
            same,
            outcome,
            emitted,
            state,
            example,
        } = self;
        let differed = self.differed();
        write!(f, "{same} calls the same, {differed} different")?;
        if differed == 0 {
            return Ok(());
        }
        write!(
            f,
            " (outcome {outcome}, emitted messages {emitted}, state {state})"
        )?;
        match example.as_str() {
            "" => Ok(()),
            example => write!(f, ", such as {example}"),
        }
    }
}

/// What one host says of one handler in one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostReport {
    pub stream: StreamName,
    pub group: GroupName,
    /// Of what is wanted, as it knows that; 0: it knows of nothing yet.
    pub revision: u64,
    /// What its partitions run that have no candidate.
    pub current: Version,
    /// Why it does not run what is wanted as the current version.
    pub refused: Option<String>,
    pub candidacy: Candidacy,
    /// Calls of the candidate, and of the current version meanwhile; of this revision alone.
    pub candidate: Tally,
    pub rest: Tally,
    /// Versions that it has in memory, those that are being freed included.
    pub live_versions: u32,
    pub differences: Differences,
}

/// What is known of the candidate of this revision. A host that has not said anything for a while is not
/// waited for, and what it counted is not known.
pub fn evidence(hosts: &[Heard], revision: u64) -> Evidence {
    let mut evidence = Evidence::default();
    let follows = |heard: &&Heard| is_fresh(heard.age) && heard.report.revision != 0;
    for Heard { host, report, .. } in hosts.iter().filter(follows) {
        if report.revision != revision {
            evidence.waiting += 1;
            continue;
        }
        evidence.candidate = evidence.candidate.plus(report.candidate);
        evidence.rest = evidence.rest.plus(report.rest);
        match &report.candidacy {
            Candidacy::Loaded => {}
            Candidacy::None | Candidacy::Loading => evidence.waiting += 1,
            Candidacy::Refused(why) => {
                let first = || format!("host {host}: {why}");
                evidence.refused.get_or_insert_with(first);
            }
        }
    }
    evidence
}

/// What all hosts found of the shadow of this revision. Also those that were not heard of for a while: what
/// once differed did.
pub fn differences(hosts: &[Heard], revision: u64) -> Differences {
    let found = hosts.iter().map(|heard| &heard.report);
    let found = found.filter(|report| revision != 0 && report.revision == revision);
    found.fold(Differences::default(), |all, report| {
        all.plus(report.differences.clone())
    })
}

/// Whether a host that was heard of so long ago still counts.
pub fn is_fresh(age: Duration) -> bool {
    age < limits::REPORT_EVERY * limits::REPORTS_MISSED
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tally() -> impl Strategy<Value = Tally> {
        (0..9u64, 0..9u64, 0..9u64, 0..99u64).prop_map(|(calls, failed, overruled, micros)| Tally {
            calls,
            failed,
            overruled,
            micros,
        })
    }

    fn candidacy() -> impl Strategy<Value = Candidacy> {
        prop_oneof![
            Just(Candidacy::None),
            Just(Candidacy::Loading),
            Just(Candidacy::Loaded),
            "[a-z]{1,3}".prop_map(Candidacy::Refused),
        ]
    }

    /// Around the age at which a report counts no more.
    fn heard() -> impl Strategy<Value = Heard> {
        let age = 0..2 * (limits::REPORT_EVERY * limits::REPORTS_MISSED).as_millis() as u64;
        ("[a-e]", age, 0..3u64, candidacy(), tally(), tally()).prop_map(
            |(host, age, revision, candidacy, candidate, rest)| Heard {
                host: host.parse().expect("a name"),
                age: Duration::from_millis(age),
                report: HostReport {
                    stream: "orders".parse().expect("a name"),
                    group: "billing".parse().expect("a name"),
                    revision,
                    current: "v1".parse().expect("a name"),
                    refused: None,
                    candidacy,
                    candidate,
                    rest,
                    live_versions: 1,
                    differences: Differences::default(),
                },
            },
        )
    }

    const REVISION: u64 = 1;

    fn of(hosts: &[Heard]) -> Evidence {
        evidence(hosts, REVISION)
    }

    proptest! {
        #[test]
        fn each_host_that_counts_is_waited_for_counted_or_refuses(
            hosts in proptest::collection::vec(heard(), 0..8)
        ) {
            let found = of(&hosts);
            let counts = |h: &&Heard| is_fresh(h.age) && h.report.revision != 0;
            let fresh: Vec<_> = hosts.iter().filter(counts).collect();
            let here = |h: &&&Heard| h.report.revision == REVISION;
            let refuse = |h: &&&Heard| matches!(h.report.candidacy, Candidacy::Refused(_));
            let ready = |h: &&&Heard| h.report.candidacy == Candidacy::Loaded;
            let refusing = fresh.iter().filter(here).filter(refuse).count();
            let loaded = fresh.iter().filter(here).filter(ready).count();
            prop_assert_eq!(found.waiting as usize + refusing + loaded, fresh.len());
            prop_assert_eq!(found.refused.is_some(), refusing > 0);
            let sum = fresh.iter().filter(here).map(|h| h.report.candidate);
            prop_assert_eq!(found.candidate, sum.fold(Tally::default(), Tally::plus));
        }

        #[test]
        fn what_is_old_or_of_a_file_changes_nothing(
            hosts in proptest::collection::vec(heard(), 0..8)
        ) {
            let counts = |h: &&Heard| is_fresh(h.age) && h.report.revision != 0;
            let kept: Vec<Heard> = hosts.iter().filter(counts).cloned().collect();
            prop_assert_eq!(of(&hosts), of(&kept));
        }

        #[test]
        fn the_order_of_hosts_decides_only_whose_refusal_is_told(
            hosts in proptest::collection::vec(heard(), 0..8)
        ) {
            let (one, other) = (of(&hosts), of(&hosts.iter().rev().cloned().collect::<Vec<_>>()));
            prop_assert_eq!(one.refused.is_some(), other.refused.is_some());
            let plain = |evidence: Evidence| Evidence { refused: None, ..evidence };
            prop_assert_eq!(plain(one), plain(other));
        }
    }

    #[test]
    fn what_a_shadow_found_is_added_up_over_the_hosts_of_its_revision() {
        let found = |revision, same, state, example: &str| Heard {
            host: "a".parse().unwrap(),
            age: limits::REPORT_KEPT,
            report: HostReport {
                revision,
                differences: Differences {
                    same,
                    state,
                    example: example.to_owned(),
                    ..Differences::default()
                },
                ..report()
            },
        };
        let hosts = [
            found(REVISION, 5, 0, ""),
            found(REVISION, 2, 1, "x"),
            found(REVISION, 0, 2, "y"),
            found(2, 9, 9, "old"),
            found(0, 9, 9, "a file"),
        ];
        let all = differences(&hosts, REVISION);
        assert_eq!(
            all.to_string(),
            "7 calls the same, 3 different (outcome 0, emitted messages 0, state 3), such as x"
        );
        assert_eq!(differences(&hosts, 0), Differences::default());
        assert_eq!(
            Differences::default().to_string(),
            "0 calls the same, 0 different"
        );
    }

    fn report() -> HostReport {
        HostReport {
            stream: "orders".parse().unwrap(),
            group: "billing".parse().unwrap(),
            revision: REVISION,
            current: "v1".parse().unwrap(),
            refused: None,
            candidacy: Candidacy::Loaded,
            candidate: Tally::default(),
            rest: Tally::default(),
            live_versions: 1,
            differences: Differences::default(),
        }
    }

    #[test]
    fn the_first_refusal_is_told_with_its_host() {
        let mut heard = Heard {
            host: "b".parse().unwrap(),
            age: Duration::ZERO,
            report: HostReport {
                candidacy: Candidacy::Refused("it imports x".to_owned()),
                ..report()
            },
        };
        let b = heard.clone();
        heard.host = "c".parse().unwrap();
        let told = of(&[b, heard]).refused;
        assert_eq!(told.as_deref(), Some("host b: it imports x"));
    }
}
