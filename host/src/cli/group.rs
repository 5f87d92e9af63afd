//! `group list|describe`; what changes a group is `operate`'s.

use std::process::ExitCode;

use anyhow::{Context, bail};
use segmenter_redis::admin::{self, GroupInfo, MemberInfo};
use serde_json::json;

use super::args::{Global, GroupCommand};
use super::operate::{self, Group};
use crate::output::{Format, Out};

pub(super) async fn run(global: &Global, command: GroupCommand) -> anyhow::Result<ExitCode> {
    let mut out = global.out();
    let which = |stream, group, partition| Group {
        stream,
        group,
        partition,
    };
    match &command {
        GroupCommand::Seek {
            stream,
            group,
            to,
            partition,
        } => operate::seek(global, which(stream, group, *partition), *to).await?,
        GroupCommand::Pause {
            stream,
            group,
            partition,
        } => operate::pause(global, which(stream, group, *partition)).await?,
        GroupCommand::Resume {
            stream,
            group,
            partition,
            skip,
        } => operate::resume(global, which(stream, group, *partition), *skip).await?,
        GroupCommand::Delete {
            stream,
            group,
            force,
        } => operate::delete(global, stream, group, *force).await?,
        GroupCommand::List { stream } => {
            let broker = global.connect().await?;
            let (id, info) = global.stream(&broker, stream).await?;
            let groups = admin::list_groups(&broker, &id, info.shape)
                .await
                .with_context(|| format!("listing the groups of {id}"))?;
            match out.format {
                Format::Json => {
                    for group in &groups {
                        out.object(&json!({"group": group.as_str()}))?;
                    }
                }
                Format::Human => {
                    let rows: Vec<_> = groups.iter().map(|g| vec![g.to_string()]).collect();
                    out.table(&["GROUP"], &rows, &format!("stream {id} has no groups"))?;
                }
            }
        }
        GroupCommand::Describe { stream, group } => {
            let broker = global.connect().await?;
            let (id, info) = global.stream(&broker, stream).await?;
            let found = admin::describe_group(&broker, &id, info.shape, group)
                .await
                .with_context(|| format!("describing group {group} of {id}"))?;
            let Some(found) = found else {
                bail!(
                    "stream {id} has no group {group}; `segmenter run` creates it when it starts"
                );
            };
            match out.format {
                Format::Json => out.object(&object(group.as_str(), &found))?,
                Format::Human => tables(&mut out, &found)?,
            }
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn object(group: &str, found: &GroupInfo) -> serde_json::Value {
    let members: Vec<_> = found
        .members
        .iter()
        .map(|m| {
            json!({
                "member": m.member,
                "incarnation": m.incarnation,
                "assigned": m.assigned,
                "owned": m.owned,
                "draining": m.draining,
                "since_heartbeat_ms": m.since_heartbeat_ms,
                "session_timeout_ms": m.session_timeout_ms,
            })
        })
        .collect();
    let partitions: Vec<_> = found
        .partitions
        .iter()
        .map(|(partition, p)| {
            json!({
                "partition": partition.0,
                "owner": p.owner,
                "epoch": p.epoch,
                "acked_through": p.acked_through.to_string(),
                "lag": p.lag,
                "oldest_age_ms": p.oldest_age_ms,
                "version": p.version,
                "halted": p.halted,
            })
        })
        .collect();
    json!({
        "group": group,
        "generation": found.generation,
        "rebalance": found.rebalance.as_ref().map(|r| json!({
            "why": r.why,
            "moves": r.moves,
            "age_ms": r.age_ms,
        })),
        "members": members,
        "partitions": partitions,
    })
}

fn state(member: &MemberInfo) -> &'static str {
    match (member.draining, member.assigned.is_empty()) {
        (true, _) => "leaving",
        (false, true) => "standby",
        (false, false) => "active",
    }
}

fn ago(ms: u64) -> String {
    match ms {
        0..=9_999 => format!("{ms} ms"),
        10_000..=599_999 => format!("{} s", ms / 1_000),
        600_000..=35_999_999 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}

fn tables(out: &mut Out, found: &GroupInfo) -> anyhow::Result<()> {
    let members: Vec<_> = found
        .members
        .iter()
        .map(|m| {
            vec![
                m.member.clone(),
                state(m).to_owned(),
                Some(m.assigned.clone())
                    .filter(|a| !a.is_empty())
                    .unwrap_or_else(|| "-".to_owned()),
                format!("{} ms ago", m.since_heartbeat_ms),
                format!("{} ms", m.session_timeout_ms),
            ]
        })
        .collect();
    out.table(
        &[
            "MEMBER",
            "STATE",
            "ASSIGNED",
            "HEARTBEAT",
            "SESSION TIMEOUT",
        ],
        &members,
        "no live members",
    )?;
    if let Some(last) = &found.rebalance {
        out.line(&format!(
            "\ngeneration {}; last rebalance {} ago: {} partitions moved, because {}",
            found.generation,
            ago(last.age_ms),
            last.moves,
            last.why
        ))?;
    }
    out.line("")?;
    let dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let partitions: Vec<_> = found
        .partitions
        .iter()
        .map(|(partition, p)| {
            vec![
                partition.to_string(),
                dash(p.owner.clone()),
                p.epoch.to_string(),
                p.acked_through.to_string(),
                dash(p.lag.map(|lag| lag.to_string())),
                dash(p.oldest_age_ms.map(|ms| format!("{ms} ms"))),
                dash(p.version.as_ref().map(|v| v.chars().take(12).collect())),
                dash(p.halted.clone()),
            ]
        })
        .collect();
    let header = [
        "PARTITION",
        "OWNER",
        "EPOCH",
        "ACKED THROUGH",
        "LAG",
        "OLDEST",
        "VERSION",
        "HALTED",
    ];
    out.table(&header, &partitions, "no partitions")
}
