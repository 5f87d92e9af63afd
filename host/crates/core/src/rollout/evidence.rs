//! What hosts report of a handler, and what all reports together say of a candidate. It must not know how
//! reports travel, nor when a verdict follows from them.

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

/// Messages that a shadow handled beside the current version: how often they did the same, and if not, in
/// what they differed first (outcome before emitted messages before state).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Differences {
    pub same: u64,
    pub outcome: u64,
    pub emitted: u64,
    pub state: u64,
    /// One of those that differed, for people; empty: none did.
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

/// What one host says of one handler in one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostReport {
    pub stream: StreamName,
    pub group: GroupName,
    /// Of what is wanted, as it knows that; 0: it runs a file, and follows no deploy.
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

/// Whether a host that was heard of so long ago still counts.
pub fn is_fresh(age: Duration) -> bool {
    age < limits::REPORT_EVERY * limits::REPORTS_MISSED
}
