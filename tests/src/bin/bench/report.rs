//! Rows, and what is made of them: a table, `target/bench.json`, and verdicts on what the issues ask for.
//! Must not know how anything is measured.

use anyhow::Context;
use serde_json::json;

use crate::consume::Rate;

/// Redis must have been the limit, else the ceiling is ours and not Redis'.
pub(crate) const CEILING_CPU_MIN: f64 = 0.90;

pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) partitions: u32,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) ratio: Option<f64>,
    pub(crate) redis_cpu: Option<f64>,
    pub(crate) client_us: Option<f64>,
    pub(crate) note: String,
    pub(crate) valid: bool,
}

pub(crate) fn plain(name: &'static str, partitions: u32, value: f64, unit: &'static str) -> Row {
    Row {
        name,
        partitions,
        value,
        unit,
        ratio: None,
        redis_cpu: None,
        client_us: None,
        note: String::new(),
        valid: true,
    }
}

pub(crate) fn rate_row(
    name: &'static str,
    partitions: u32,
    rate: Rate,
    ceiling: Option<Rate>,
) -> Row {
    let invalid = name == "ceiling_consume" && rate.redis_cpu < CEILING_CPU_MIN;
    Row {
        ratio: ceiling.map(|ceiling| rate.per_second / ceiling.per_second),
        redis_cpu: Some(rate.redis_cpu),
        client_us: Some(rate.client_us),
        note: match rate.a_commit {
            _ if invalid => "INVALID: Redis was not the limit".to_owned(),
            Some(messages) => format!("{messages:.0} messages a commit"),
            None => String::new(),
        },
        valid: !invalid,
        ..plain(name, partitions, rate.per_second, "messages/s")
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub(crate) fn median_rate(rates: &mut [Rate]) -> Rate {
    rates.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    rates[rates.len() / 2]
}

pub(crate) fn table(rows: &[Row]) {
    println!(
        "\n{:<23} {:>10} {:>12}  {:<11} {:>6} {:>10} {:>13}",
        "NAME", "PARTITIONS", "VALUE", "UNIT", "RATIO", "REDIS CPU", "CLIENT µs/msg"
    );
    for row in rows {
        let value = if row.value >= 1_000.0 {
            format!("{:.0}", row.value)
        } else {
            format!("{:.3}", row.value)
        };
        let ratio = row.ratio.map_or("-".to_owned(), |r| format!("{r:.2}"));
        let cpu = row
            .redis_cpu
            .map_or("-".to_owned(), |c| format!("{:.0} %", c * 100.0));
        let client = row
            .client_us
            .map_or("-".to_owned(), |us| format!("{us:.2}"));
        let line = format!(
            "{:<23} {:>10} {value:>12}  {:<11} {ratio:>6} {cpu:>10} {client:>13}  {}",
            row.name, row.partitions, row.unit, row.note
        );
        println!("{}", line.trim_end());
    }
}

pub(crate) fn write(rows: &[Row]) -> anyhow::Result<()> {
    let list: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({
                "name": row.name,
                "partitions": row.partitions,
                "value": row.value,
                "unit": row.unit,
                "ratio": row.ratio,
            })
        })
        .collect();
    let target = std::env::var_os("SEGMENTER_TARGET").unwrap_or_else(|| "target".into());
    let path = std::path::Path::new(&target).join("bench.json");
    let text = serde_json::to_string_pretty(&list)? + "\n";
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

/// What the issues ask for, as far as it was measured.
pub(crate) fn verdicts(rows: &[Row], only: Option<&str>) -> bool {
    let row = |name: &str, partitions: u32| {
        rows.iter()
            .find(|row| row.name == name && row.partitions == partitions)
    };
    let ratio = |name, partitions| {
        row(name, partitions)
            .and_then(|row| row.ratio)
            .unwrap_or(f64::NAN)
    };
    let value = |name, partitions| row(name, partitions).map_or(f64::NAN, |row| row.value);
    let at_most = |kind, what: &str, measured: f64, bound: f64| {
        (kind, format!("{what}: {measured:.2}"), measured <= bound)
    };
    let mut checks = vec![
        (
            "consume",
            "Redis was the limit of every ceiling_consume".to_owned(),
            rows.iter().all(|row| row.valid),
        ),
        (
            "consume",
            format!(
                "the guest at 8 partitions reaches 0.3 of the ceiling: {:.2}",
                ratio("engine_guest", 8)
            ),
            ratio("engine_guest", 8) >= 0.3,
        ),
        at_most(
            "idle",
            "64 idle partitions cost at most 10 requests/s",
            value("idle_requests_per_s", 64),
            10.0,
        ),
    ];
    for partitions in [8, 64] {
        checks.push(at_most(
            "consume",
            &format!(
                "a state write at {partitions} partitions costs Redis at most 1.3 times the HSET"
            ),
            ratio("state_redis_us", partitions),
            1.3,
        ));
        checks.push(at_most(
            "consume",
            &format!("an emit at {partitions} partitions costs Redis at most 4 times the XADD"),
            ratio("emit_redis_us", partitions),
            4.0,
        ));
        checks.push(at_most(
            "latency",
            &format!("p99 at 1,000/s, {partitions} partitions, is at most 4 times the raw one"),
            ratio("latency_p99", partitions),
            4.0,
        ));
    }
    checks.retain(|(kind, ..)| only.is_none_or(|only| only == *kind));
    println!();
    for (_, what, holds) in &checks {
        println!("{}  {what}", if *holds { "PASS" } else { "FAIL" });
    }
    checks.iter().all(|(.., holds)| *holds)
}
