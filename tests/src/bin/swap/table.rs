//! Figures of all runs: for people, for machines, and against their bounds.

use std::fmt::Write;

use segmenter_tests::chaos::swaps::Outcome;
use serde_json::{Value, json};

use crate::args::Args;

pub(crate) struct Pair {
    pub(crate) with: Outcome,
    pub(crate) without: Outcome,
}

pub(crate) struct Row {
    pub(crate) partitions: u32,
    /// With versions that were never compiled before.
    pub(crate) cold: Outcome,
    pub(crate) pairs: Vec<Pair>,
}

pub(crate) struct Bounds {
    /// p99 with swaps, in times of p99 without. None of a big guest: it is the stops that matter there.
    latency_times: Option<f64>,
    stop_ms: f64,
    /// Also where versions are compiled, not only taken from the cache.
    cold_too: bool,
}

impl Bounds {
    pub(crate) fn of(args: &Args) -> Bounds {
        match args.big {
            None => Bounds {
                latency_times: Some(1.5),
                stop_ms: 10.0,
                cold_too: false,
            },
            Some(_) => Bounds {
                latency_times: None,
                stop_ms: 100.0,
                cold_too: true,
            },
        }
    }
}

impl Pair {
    fn times(&self) -> f64 {
        self.with.latency(99) / self.without.latency(99)
    }
}

impl Row {
    fn of_pairs(&self, figure: impl Fn(&Pair) -> f64) -> f64 {
        median(self.pairs.iter().map(figure).collect())
    }

    fn runs(&self) -> impl Iterator<Item = &Outcome> {
        let pairs = self.pairs.iter().flat_map(|p| [&p.with, &p.without]);
        std::iter::once(&self.cold).chain(pairs)
    }

    fn swaps(&self) -> usize {
        self.runs().map(|run| run.swaps).sum()
    }

    fn sum(&self, figure: impl Fn(&Outcome) -> u64) -> u64 {
        self.runs().map(figure).sum()
    }

    fn worst_stop(&self) -> f64 {
        let stops = self.pairs.iter().map(|p| p.with.stop_ms());
        stops.fold(0.0, f64::max)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

pub(crate) fn table(rows: &[Row]) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{:>10}  {:<10} {:>9} {:>9} {:>9} {:>6} {:>9} {:>9} {:>9}",
        "PARTITIONS",
        "RUN",
        "MESSAGES",
        "P50 MS",
        "P99 MS",
        "TIMES",
        "STOP MS",
        "SWAP MS",
        "MACHINE"
    );
    for row in rows {
        let mut line = |name: &str, run: &Outcome, times: String| {
            let swap = match run.swaps {
                0 => "-".to_owned(),
                _ => format!("{:.0}", run.swap_ms(50)),
            };
            let _ = writeln!(
                out,
                "{:>10}  {name:<10} {:>9} {:>9.2} {:>9.2} {times:>6} {:>9.1} {swap:>9} {:>9}",
                row.partitions,
                run.verdict.handled,
                run.latency(50),
                run.latency(99),
                run.stop_ms(),
                run.machine_stops
            );
        };
        line("cold", &row.cold, String::new());
        for (n, pair) in row.pairs.iter().enumerate() {
            let n = n + 1;
            line(&format!("{n} without"), &pair.without, String::new());
            line(
                &format!("{n} with"),
                &pair.with,
                format!("{:.2}", pair.times()),
            );
        }
    }
    out.push_str(
        "P50, P99: from just before a message's append until its handler was done, of all messages sent while swaps\n\
         went on, or for as long without. STOP: the longest time in which a partition had a message and handled none,\n\
         around a swap (rename until 20 ms after the last host ran it), above the longest in as much time before; of\n\
         runs without: the same at moments where nothing was done. SWAP: median from the rename until the last host\n\
         ran it. MACHINE: times when this machine stood still for 15 ms; no stop is taken from around them.\n",
    );
    for note in rows.iter().flat_map(Row::runs).flat_map(notes) {
        let _ = writeln!(out, "  {note}");
    }
    out
}

fn notes(run: &Outcome) -> impl Iterator<Item = &String> {
    run.misbehaved.iter().chain(&run.verdict.notes)
}

pub(crate) fn verdicts(rows: &[Row], bounds: &Bounds) -> Vec<(bool, String)> {
    let mut verdicts = Vec::new();
    for row in rows {
        let of = format!("{} partitions", row.partitions);
        let count = |what: &str, count: u64| format!("{count} {what}");
        let counts = [
            count("lost", row.sum(|r| r.verdict.lost as u64)),
            count("out of order", row.sum(|r| r.verdict.out_of_order as u64)),
            count("handled twice", row.sum(|r| r.verdict.duplicates as u64)),
            count(
                "effects doubled",
                row.sum(|r| r.verdict.effects.applied_twice()),
            ),
            count("effects lost", row.sum(|r| r.verdict.effects.lost())),
        ];
        let clean = row.runs().all(Outcome::is_clean);
        let messages = row.sum(|r| r.verdict.sent as u64);
        let text = format!(
            "{of}: {} swaps, {messages} messages: {}",
            row.swaps(),
            counts.join(", ")
        );
        verdicts.push((clean, text));
        if let Some(bound) = bounds.latency_times {
            let times = row.of_pairs(Pair::times);
            let text = format!(
                "{of}: p99 with swaps {times:.2} times that without (median of {} pairs; wanted: at most {bound})",
                row.pairs.len()
            );
            verdicts.push((times <= bound, text));
        }
        let (stop, worst) = (row.of_pairs(|p| p.with.stop_ms()), row.worst_stop());
        let nothing = row.of_pairs(|p| p.without.stop_ms());
        let bound = bounds.stop_ms;
        let text = format!(
            "{of}: longest stop of a partition {stop:.1} ms (median of runs; worst {worst:.1} ms; where nothing was done {nothing:.1} ms; wanted: below {bound} ms)"
        );
        verdicts.push((stop < bound, text));
        if bounds.cold_too {
            let stop = row.cold.stop_ms();
            let text = format!(
                "{of}: longest stop while versions were compiled {stop:.1} ms (wanted: below {bound} ms)"
            );
            verdicts.push((stop < bound, text));
        }
    }
    verdicts
}

pub(crate) fn to_json(rows: &[Row], bounds: &Bounds) -> Value {
    let of = |run: &Outcome| {
        let v = &run.verdict;
        json!({
            "swaps": run.swaps,
            "sent": v.sent,
            "handled": v.handled,
            "lost": v.lost,
            "out_of_order": v.out_of_order,
            "duplicates": v.duplicates,
            "applied_twice": v.effects.applied_twice(),
            "effects_lost": v.effects.lost(),
            "latency_ms_p50": run.latency(50),
            "latency_ms_p99": run.latency(99),
            "stop_ms_max": run.stop_ms(),
            "swap_ms_p50": run.swap_ms(50),
            "swap_ms_max": run.swap_ms(100),
            "machine_stops": run.machine_stops,
            "clean": run.is_clean(),
        })
    };
    let row = |row: &Row| {
        let pairs = row.pairs.iter();
        let pairs = pairs.map(|p| json!({"with": of(&p.with), "without": of(&p.without)}));
        json!({
            "partitions": row.partitions,
            "swaps": row.swaps(),
            "latency_p99_times": row.of_pairs(Pair::times),
            "stop_ms": row.of_pairs(|p| p.with.stop_ms()),
            "stop_ms_worst": row.worst_stop(),
            "stop_ms_without": row.of_pairs(|p| p.without.stop_ms()),
            "cold": of(&row.cold),
            "pairs": pairs.collect::<Vec<_>>(),
        })
    };
    json!({
        "rows": rows.iter().map(row).collect::<Vec<_>>(),
        "held": verdicts(rows, bounds).iter().all(|(held, _)| *held),
    })
}
