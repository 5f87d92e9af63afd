//! What a run showed: for people as a table, for machines as `chaos.json`. It must not judge beyond
//! telling whether everything held.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use super::gaps::percentile;
use super::judge::Verdict;
use super::plan::Kind;

#[derive(Debug)]
pub struct Report {
    pub seed: u64,
    pub seconds: u64,
    pub partitions: u32,
    pub session_ms: u64,
    /// Carried out, and seen to have taken hold.
    pub faults: BTreeMap<Kind, usize>,
    /// Of the plan, but found nobody; or done without any effect.
    pub missed_faults: usize,
    /// Times when this machine stood still.
    pub machine_stalls: usize,
    pub verdict: Verdict,
    /// After the faults everything was acked in time.
    pub drained: bool,
    /// Commits that went out without the fence, in a run that is to fail by that.
    pub unfenced_commits: Option<u64>,
    /// Hosts that ended by themselves or with another status than 0; lines without sense.
    pub misbehaved: Vec<String>,
}

impl Report {
    pub fn held(&self) -> bool {
        self.verdict.is_clean()
            && self.drained
            && self.misbehaved.is_empty()
            && self.missed_faults == 0
    }

    /// Without the fence: whether the run noticed, by what a fence is for.
    pub fn noticed(&self) -> bool {
        let effects = &self.verdict.effects;
        self.unfenced_commits.is_some_and(|commits| commits > 0)
            && effects.applied_twice() + effects.emitted_out_of_order > 0
    }

    pub fn to_json(&self) -> Value {
        let Verdict { gaps, .. } = &self.verdict;
        let v = &self.verdict;
        let effects = &v.effects;
        let by_kind: BTreeMap<_, _> = self.faults.iter().map(|(k, n)| (k.name(), n)).collect();
        json!({
            "sent": v.sent,
            "handled": v.handled,
            "duplicates": v.duplicates,
            "out_of_order": v.out_of_order,
            "lost": v.lost,
            "seed": self.seed,
            "faults": self.faults.values().sum::<usize>(),
            "applied_twice": effects.applied_twice(),
            "effects_lost": effects.lost(),
            "emitted": effects.emitted,
            "emitted_out_of_order": effects.emitted_out_of_order,
            "effects_misnumbered": effects.misnumbered,
            "effects_forged": effects.forged,
            "takeover_ms_max": percentile(&gaps.takeover, 100),
            "kept_stall_ms_p99": percentile(&gaps.kept_stall, 99),
            "moved_stall_ms_p99": percentile(&gaps.moved_stall, 99),
            "survivors_stall_ms_p99": percentile(&gaps.survivors_stall, 99),
            "seconds": self.seconds,
            "partitions": self.partitions,
            "session_timeout_ms": self.session_ms,
            "faults_by_kind": by_kind,
            "faults_missed": self.missed_faults,
            "unexplained_duplicates": v.unexplained_duplicates,
            "overlaps": v.overlaps,
            "unexplained_overlaps": v.unexplained_overlaps,
            "forged": v.forged,
            "unknown": v.unknown,
            "unknown_held": v.unknown_held,
            "machine_stalls": self.machine_stalls,
            "drained": self.drained,
            "unfenced_commits": self.unfenced_commits,
            "held": self.held(),
        })
    }

    pub fn table(&self) -> String {
        let v = &self.verdict;
        let mut out = String::new();
        let mut row = |name: &str, value: String, note: String| {
            let line = format!("{name:<24} {value:>9}  {note}");
            let _ = writeln!(out, "{}", line.trim_end());
        };
        let faults: Vec<String> = self
            .faults
            .iter()
            .map(|(kind, n)| format!("{n} {}", kind.name()))
            .collect();
        let count = |n: usize| n.to_string();
        let none = String::new;
        row(
            "faults",
            count(self.faults.values().sum()),
            faults.join(", "),
        );
        row("faults missed", count(self.missed_faults), must(0));
        row(
            "sent",
            count(v.sent),
            format!(
                "and {} whose answer was lost; {} of those are in the stream",
                v.unknown, v.unknown_held
            ),
        );
        row("handled", count(v.handled), none());
        row("lost", count(v.lost), must(0));
        row("out of order", count(v.out_of_order), must(0));
        row("duplicates", count(v.duplicates), none());
        row("  not explained", count(v.unexplained_duplicates), must(0));
        row("overlaps", count(v.overlaps), none());
        row("  not explained", count(v.unexplained_overlaps), must(0));
        row("forged", count(v.forged), must(0));
        let effects = &v.effects;
        row("emitted", count(effects.emitted), none());
        row(
            "applied twice",
            effects.applied_twice().to_string(),
            format!(
                "{} in state, {} in the target stream; wanted: 0",
                effects.counted_twice, effects.emitted_twice
            ),
        );
        row(
            "effects lost",
            effects.lost().to_string(),
            format!(
                "{} in state, {} in the target stream; wanted: 0",
                effects.uncounted, effects.unemitted
            ),
        );
        for (name, n) in [
            ("emitted out of order", effects.emitted_out_of_order),
            ("misnumbered", effects.misnumbered),
            ("effects forged", effects.forged),
        ] {
            row(name, n.to_string(), must(0));
        }
        let ms = |values: &[f64], hundredths| match percentile(values, hundredths) {
            Some(ms) => format!("{ms:.1} ms"),
            None => "-".to_owned(),
        };
        let of = |values: &[f64]| format!("of {} partitions", values.len());
        let gaps = &v.gaps;
        row(
            "takeover max",
            ms(&gaps.takeover, 100),
            format!(
                "{}; wanted: at most {} ms after kill -9",
                of(&gaps.takeover),
                self.session_ms + 250
            ),
        );
        row(
            "survivors' stall p99",
            ms(&gaps.survivors_stall, 99),
            of(&gaps.survivors_stall),
        );
        row(
            "kept stall p99",
            ms(&gaps.kept_stall, 99),
            format!("{}; wanted: below 50 ms", of(&gaps.kept_stall)),
        );
        row(
            "moved stall p99",
            ms(&gaps.moved_stall, 99),
            format!("{}; wanted: below 100 ms", of(&gaps.moved_stall)),
        );
        if self.machine_stalls > 0 {
            let note =
                "times that this machine stood still; excused like a pause of all".to_owned();
            row("machine stalls", count(self.machine_stalls), note);
        }
        if let Some(commits) = self.unfenced_commits {
            let note = "went out without the fence".to_owned();
            row("commits", commits.to_string(), note);
        }
        if !self.drained {
            row("drained", "no".to_owned(), "wanted: lag 0".to_owned());
        }
        for what in self.misbehaved.iter().chain(&v.notes) {
            let _ = writeln!(out, "  {what}");
        }
        out
    }
}

fn must(be: usize) -> String {
    format!("wanted: {be}")
}
