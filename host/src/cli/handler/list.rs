//! `handler list`: what is wanted of each handler, and what every host that was heard of runs. What a
//! partition runs comes from its lease, so that it is what handles, not what a host means to do.

use std::collections::BTreeMap;

use anyhow::Context;
use segmenter_core::names::{GroupName, HandlerName, Partition, StreamId, StreamName, Version};
use segmenter_core::partition_set::PartitionSet;
use segmenter_core::port::Heard;
use segmenter_core::rollout::{Candidacy, Mode, Tally};
use segmenter_redis::handlers::{self, HandlerInfo};
use segmenter_redis::{Broker, admin};
use serde_json::{Value, json};

use super::super::args::Global;
use super::{found, short, span};
use crate::output::{Format, Out, moment, preview};

/// Owner and version of the partitions of each group that somebody reports.
type Leases = BTreeMap<(StreamName, GroupName), Vec<Lease>>;

struct Lease {
    partition: Partition,
    owner: String,
    version: String,
}

pub(super) async fn run(global: &Global, names: &[HandlerName]) -> anyhow::Result<()> {
    let broker = global.connect().await?;
    let namespace = global.namespace();
    let names = match names {
        [] => handlers::list_handlers(&broker, &namespace)
            .await
            .with_context(|| format!("listing the handlers of namespace {namespace}"))?,
        names => names.to_vec(),
    };
    let mut out = global.out();
    if names.is_empty() && out.format == Format::Human {
        out.line(&format!("no handler was deployed in namespace {namespace}"))?;
    }
    for (i, name) in names.iter().enumerate() {
        let info = found(&broker, &global.handler_id(name)).await?;
        let leases = leases(global, &broker, &info).await?;
        match out.format {
            Format::Json => out.object(&object(name, &info, &leases))?,
            Format::Human => {
                if i > 0 {
                    out.line("")?;
                }
                tables(&mut out, name, &info, &leases)?;
            }
        }
    }
    out.flush()
}

async fn leases(global: &Global, broker: &Broker, info: &HandlerInfo) -> anyhow::Result<Leases> {
    let mut leases = Leases::new();
    for Heard { report, .. } in &info.hosts {
        let key = (report.stream.clone(), report.group.clone());
        if leases.contains_key(&key) {
            continue;
        }
        let stream: StreamId = global.stream_id(&report.stream);
        let looking = || format!("looking up who owns the partitions of {stream}");
        let there = admin::find_stream(broker, &stream)
            .await
            .with_context(looking)?;
        let group = match there {
            None => None,
            Some(there) => admin::describe_group(broker, &stream, there.shape, &report.group)
                .await
                .with_context(looking)?,
        };
        let partitions = group.map(|group| group.partitions).unwrap_or_default();
        let owned = partitions.into_iter().filter_map(|(partition, lease)| {
            Some(Lease {
                partition,
                owner: lease.owner?,
                version: lease.version?,
            })
        });
        leases.insert(key, owned.collect());
    }
    Ok(leases)
}

fn runs<'a>(heard: &'a Heard, leases: &'a Leases) -> impl Iterator<Item = &'a Lease> {
    let key = (heard.report.stream.clone(), heard.report.group.clone());
    let all = leases.get(&key).into_iter().flatten();
    all.filter(|lease| lease.owner == heard.host.as_str())
}

fn candidacy(of: &Candidacy) -> (&'static str, Option<&str>) {
    match of {
        Candidacy::None => ("none", None),
        Candidacy::Loading => ("loading", None),
        Candidacy::Loaded => ("loaded", None),
        Candidacy::Refused(why) => ("refused", Some(why)),
    }
}

fn calls(tally: &Tally) -> Value {
    json!({
        "calls": tally.calls,
        "failed": tally.failed,
        "overruled": tally.overruled,
        "micros": tally.micros,
    })
}

fn object(name: &HandlerName, info: &HandlerInfo, leases: &Leases) -> Value {
    let candidate = info.wanted.candidate.as_ref().map(|trying| {
        let (mode, share) = match trying.mode {
            Mode::Trial(share) => ("trial", Some(share.as_percent())),
            Mode::Shadow => ("shadow", None),
        };
        json!({
            "version": trying.version.as_str(),
            "mode": mode,
            "share_percent": share,
            "left_ms": trying.left.as_millis() as u64,
            "by": trying.by,
        })
    });
    let bad = info.bad.iter().map(|bad| {
        json!({
            "version": bad.version.as_str(),
            "at_ms": bad.at_ms,
            "reason": bad.reason,
        })
    });
    let hosts = info.hosts.iter().map(|heard| {
        let report = &heard.report;
        let (candidate, why) = candidacy(&report.candidacy);
        let partitions = runs(heard, leases).map(|lease| {
            json!({
                "partition": lease.partition.0,
                "version": lease.version,
            })
        });
        let d = &report.differences;
        json!({
            "host": heard.host.as_str(),
            "stream": report.stream.as_str(),
            "group": report.group.as_str(),
            "age_ms": heard.age.as_millis() as u64,
            "revision": report.revision,
            "current": report.current.as_str(),
            "refused": report.refused,
            "candidate": candidate,
            "candidate_refused": why,
            "live_versions": report.live_versions,
            "candidate_calls": calls(&report.candidate),
            "current_calls": calls(&report.rest),
            "differences": {
                "same": d.same,
                "outcome": d.outcome,
                "emitted": d.emitted,
                "state": d.state,
                "example": d.example,
            },
            "partitions": partitions.collect::<Vec<_>>(),
        })
    });
    json!({
        "handler": name.as_str(),
        "revision": info.wanted.revision,
        "current": info.wanted.current.as_str(),
        "candidate": candidate,
        "past": info.past.iter().map(Version::as_str).collect::<Vec<_>>(),
        "bad": bad.collect::<Vec<_>>(),
        "hosts": hosts.collect::<Vec<_>>(),
    })
}

fn tables(
    out: &mut Out,
    name: &HandlerName,
    info: &HandlerInfo,
    leases: &Leases,
) -> anyhow::Result<()> {
    out.line(&format!("{name}: current {}", info.wanted.current))?;
    if let Some(trying) = &info.wanted.candidate {
        let mode = match trying.mode {
            Mode::Trial(share) => format!("on trial in {} %", share.as_percent()),
            Mode::Shadow => "shadow".to_owned(),
        };
        let left = match trying.left.is_zero() {
            true => "its time is over".to_owned(),
            false => format!("{} left", span(trying.left)),
        };
        let by = preview(&trying.by, 60);
        out.line(&format!(
            "  {mode}: {}, {left}, by {by}",
            short(&trying.version)
        ))?;
    }
    for bad in &info.bad {
        out.line(&format!(
            "  bad: {} since {}: {}",
            short(&bad.version),
            moment(bad.at_ms),
            preview(&bad.reason, 300)
        ))?;
    }
    let rows: Vec<_> = info.hosts.iter().map(|heard| row(heard, leases)).collect();
    let header = [
        "HOST",
        "STREAM",
        "GROUP",
        "HEARD",
        "RUNS",
        "IN MEMORY",
        "SAYS",
    ];
    out.table(&header, &rows, "  no host was heard of lately")
}

fn row(heard: &Heard, leases: &Leases) -> Vec<String> {
    let report = &heard.report;
    let mut by_version: BTreeMap<String, Vec<Partition>> = BTreeMap::new();
    for lease in runs(heard, leases) {
        let digits = lease.version.chars().take(super::DIGITS).collect();
        by_version.entry(digits).or_default().push(lease.partition);
    }
    let runs: Vec<_> = by_version
        .into_iter()
        .map(|(version, partitions)| {
            let set: PartitionSet = partitions.into_iter().collect();
            format!("{version}: {set}")
        })
        .collect();
    vec![
        heard.host.to_string(),
        report.stream.to_string(),
        report.group.to_string(),
        format!("{} ago", span(heard.age)),
        match runs.is_empty() {
            true => "-".to_owned(),
            false => runs.join("; "),
        },
        report.live_versions.to_string(),
        says(heard),
    ]
}

/// How far the host is with what is wanted, in one line.
fn says(heard: &Heard) -> String {
    let report = &heard.report;
    let mut says = Vec::new();
    if report.revision == 0 {
        says.push("runs a file, and follows no deploy".to_owned());
    }
    if let Some(why) = &report.refused {
        says.push(format!("cannot run the current version: {why}"));
    }
    match &report.candidacy {
        Candidacy::None => {}
        Candidacy::Loading => says.push("loads the candidate".to_owned()),
        Candidacy::Refused(why) => says.push(format!("cannot load the candidate: {why}")),
        Candidacy::Loaded => {
            let d = &report.differences;
            says.push(match d.same + d.differed() {
                0 => format!("candidate: {}", report.candidate),
                _ => format!("shadow: {d}"),
            });
        }
    }
    preview(&says.join("; "), 300)
}
