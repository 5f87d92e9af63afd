//! What must hold while versions go live, and once everything has settled. Looks at Redis and hosts from
//! outside; must not steer them.

use std::collections::BTreeSet;

use segmenter_core::names::Version;
use segmenter_core::port::{Asks, DeployReply, Pointer, Reply, Report, Request, SettleReply};
use segmenter_core::rollout::{Lineup, OVERRULED_MIN, Progress, Verdict};

use super::{Behaviour, SECOND, World, handler};

/// A report is told each second, and half of them may be lost.
const NOTICED_AFTER: u64 = 3 * SECOND;

#[derive(Debug, Default)]
pub(super) struct Checks {
    /// What was current and is trusted by whoever deployed it at once, or stood its trial.
    was_current: BTreeSet<Version>,
    /// Since when the candidate of this revision has failed often enough on a host that lives.
    failing: Option<(u64, u64)>,
    went_back: bool,
}

impl Checks {
    pub(super) fn went_back(&mut self) {
        self.went_back = true;
        self.failing = None;
    }
}

impl World {
    fn violates(&mut self, what: String) {
        self.line(format_args!("VIOLATION {what}"));
        self.report.violation.get_or_insert(what);
    }

    /// What is wanted, as Redis has it.
    pub(super) fn pointer(&mut self) -> Option<Pointer> {
        let ask = Request::Report(Report {
            handler: handler(),
            asks: Asks::Only,
        });
        match self.redis.clone().execute(self.now, ask) {
            Ok(Reply::Report(reply)) => reply.wanted,
            _ => None,
        }
    }

    pub(super) fn check_published(&mut self, host: usize, lineup: &Lineup) {
        let running = self.hosts[host].running().expect("it publishes");
        let candidate = lineup.candidate.as_ref().map(|(edition, _)| edition);
        let missing = candidate.into_iter().chain([&lineup.current]);
        let mut missing = missing.filter(|edition| !running.loaded.contains(edition));
        if let Some(edition) = missing.next().cloned() {
            self.violates(format!(
                "host-{host} runs {edition:?}, which it has not loaded"
            ));
        }
    }

    pub(super) fn check_change(
        &mut self,
        request: &Request,
        before: Option<&Pointer>,
        reply: Option<&Reply>,
    ) {
        self.look_at_failures();
        let after = self.pointer();
        let (Some(before), Some(after)) = (before, after) else {
            return;
        };
        if before.revision == after.revision {
            if before.current != after.current {
                self.violates("what is current changed without a new revision".to_owned());
            }
            return;
        }
        if after.revision < before.revision {
            self.violates("a change lowered the revision".to_owned());
        }
        match (request, reply) {
            (Request::Deploy(deploy), Some(Reply::Deploy(reply))) => {
                let won = matches!(reply, DeployReply::Deployed { .. });
                if !won || before.candidate.is_some() {
                    self.violates(format!("a deploy under another's feet: {deploy:?}"));
                }
            }
            (Request::Settle(settle), Some(Reply::Settle(SettleReply::Settled { .. }))) => {
                let meant = before.candidate.as_ref().map(|c| &c.version);
                if before.revision != settle.revision || meant != Some(&settle.version) {
                    self.violates(format!(
                        "settled although something else was wanted: {settle:?}"
                    ));
                }
                match settle.verdict {
                    Verdict::Promote => self.check_promoted(before, &settle.version),
                    Verdict::RollBack { .. } => {
                        self.report.rolled_back += 1;
                        if self.versions[&settle.version] == Behaviour::Good
                            && !self.lost_its_bytes(&settle.version)
                        {
                            self.violates(format!("a good version was rolled back: {settle:?}"));
                        }
                    }
                }
            }
            _ => {}
        }
        self.checks.was_current.insert(after.current);
    }

    /// Redis went back to before its bytes were stored: to refuse it is right.
    fn lost_its_bytes(&self, _: &Version) -> bool {
        self.checks.went_back
    }

    /// Since when hosts that live have seen enough of a bad candidate.
    fn look_at_failures(&mut self) {
        let Some(pointer) = self.pointer().filter(|p| p.candidate.is_some()) else {
            self.checks.failing = None;
            return;
        };
        let revision = pointer.revision;
        let running = self.hosts.iter().filter_map(|host| host.running());
        let most = running.map(|r| r.counted(revision).0.overruled).max();
        let failing = most.is_some_and(|most| most >= OVERRULED_MIN);
        self.checks.failing = match (failing, self.checks.failing) {
            (false, _) => None,
            (true, Some((of, since))) if of == revision => Some((of, since)),
            (true, _) => Some((revision, self.now)),
        };
    }

    fn check_promoted(&mut self, before: &Pointer, version: &Version) {
        self.report.promoted += 1;
        let behaviour = self.versions[version];
        let failing = self.checks.failing;
        let noticed = failing
            .filter(|(of, since)| *of == before.revision && self.now > since + NOTICED_AFTER);
        if behaviour == Behaviour::Bad && noticed.is_some() {
            self.violates(format!("a bad version was promoted: {version}"));
        }
        let alive = self.hosts.iter().filter_map(|host| host.running());
        let refusing = alive.filter(|running| {
            let of = running.follower.wanted().revision == before.revision;
            of && matches!(running.follower.candidate(), Some(Progress::Refused(_)))
        });
        if refusing.count() > 0 {
            self.violates(format!(
                "a version was promoted that a host refuses: {version}"
            ));
        }
    }

    /// At the end, faults long over: one version everywhere, and nobody tries anything.
    pub(super) fn settled(&mut self) {
        let Some(pointer) = self.pointer() else {
            return self.violates("nothing is deployed any more".to_owned());
        };
        if let Some(candidate) = &pointer.candidate {
            self.violates(format!("a trial never ends: {candidate:?}"));
        }
        let mut wrong = Vec::new();
        for (number, host) in self.hosts.iter().enumerate() {
            let name = &host.name;
            let Some(running) = host.running() else {
                // What cannot be loaded cannot be begun with, either.
                if !self.refuses(number, &pointer.current) {
                    wrong.push(format!("{name} does not run"));
                }
                continue;
            };
            let published = &running.published;
            let refused = matches!(running.follower.current(), Progress::Refused(_));
            if published.current.version != pointer.current && !refused {
                wrong.push(format!("{name} runs {published:?}"));
            }
            if let Some(candidate) = &published.candidate {
                wrong.push(format!("{name} still tries {candidate:?}"));
            }
            if running.loaded.len() > 1 + usize::from(refused) {
                wrong.push(format!("{name} keeps {:?}", running.loaded));
            }
        }
        if !wrong.is_empty() {
            let what = wrong.join("; ");
            self.violates(format!("wanted is {pointer:?}, but {what}"));
        }
    }
}
