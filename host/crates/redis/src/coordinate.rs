//! The requests of a group's members, executed: sync and install. Knows the order of their scripts'
//! arguments and answers; must not know what a member does with an answer.

use redis::Value;
use segmenter_core::assignor::Candidate;
use segmenter_core::limits;
use segmenter_core::member::News;
use segmenter_core::names::MemberId;
use segmenter_core::partition_set::PartitionSet;
use segmenter_core::port::{
    Duty, Failure, Install, InstallReply, Membership, Sync, SyncKind, SyncReply,
};
use segmenter_core::time::Duration;

use crate::broker::Broker;
use crate::convert::{list, number, text};
use crate::execute::keys;
use crate::key::Key;
use crate::script::Script;

/// In place of a set: not told.
const UNTOLD: &str = "-";

impl Broker {
    pub(crate) async fn sync(&self, r: Sync) -> Result<SyncReply, Failure> {
        // The group lies in another slot than the stream, so the script cannot see whether that still is
        // there. A join by someone with an old uid would throw out the members of the new stream.
        if r.kind == SyncKind::Join {
            if !self.still(&r.stream, &r.uid).await? {
                return Ok(SyncReply::StreamGone);
            }
            // Else a member that is told of the group's end would make it again.
            if !self.has_group(&r.stream, &r.group).await? {
                return Ok(SyncReply::GroupGone);
            }
        }
        let kind = match r.kind {
            SyncKind::Join => "join",
            SyncKind::Heartbeat => "heartbeat",
            SyncKind::Leave => "leave",
        };
        let owned = r.owned.as_ref().map(PartitionSet::to_string);
        let answer = self
            .script(Script::GroupSync, |cmd| {
                let (stream, group) = (&r.stream, &r.group);
                keys(
                    cmd,
                    &[Key::Group(stream, group), Key::Members(stream, group)],
                );
                cmd.arg(kind)
                    .arg(r.uid.as_str())
                    .arg(r.member.as_str())
                    .arg(r.incarnation.as_str())
                    .arg(r.counter)
                    .arg(r.session_timeout.as_millis().to_string())
                    .arg(Key::News(stream, group))
                    .arg(u8::from(r.draining))
                    .arg(r.owned_digest)
                    .arg(owned.as_deref().unwrap_or(UNTOLD))
                    .arg(r.refused.to_string())
                    .arg(r.known)
                    .arg(u8::from(r.wants))
                    .arg(limits::MEMBERS_MAX);
            })
            .await?;
        let mut parts = list(answer)?.into_iter();
        match text(parts.next().unwrap_or(Value::Nil))?.as_str() {
            "member" => Ok(SyncReply::Member(membership(parts)?)),
            "unknown" => Ok(SyncReply::Unknown),
            "superseded" => Ok(SyncReply::Superseded),
            "overtaken" => Ok(SyncReply::Overtaken),
            "left" => Ok(SyncReply::Left),
            "full" => Ok(SyncReply::Full),
            "gone" => Ok(SyncReply::StreamGone),
            other => Err(Failure::Unknown(format!("group_sync answered {other:?}"))),
        }
    }

    pub(crate) async fn install(&self, r: Install) -> Result<InstallReply, Failure> {
        // A group of thousands of partitions fits in one script: a member has one set, a text.
        let answer = self
            .script(Script::GroupInstall, |cmd| {
                keys(cmd, &[Key::Group(&r.stream, &r.group)]);
                cmd.arg(r.uid.as_str())
                    .arg(r.generation)
                    .arg(Key::News(&r.stream, &r.group))
                    .arg(r.moves);
                for (member, set) in &r.assignment {
                    cmd.arg(member.as_str())
                        .arg(set.to_string())
                        .arg(set.digest());
                }
            })
            .await?;
        match text(answer)?.as_str() {
            "installed" => Ok(InstallReply::Installed),
            "overtaken" => Ok(InstallReply::Overtaken),
            "gone" => Ok(InstallReply::StreamGone),
            other => Err(Failure::Unknown(format!(
                "group_install answered {other:?}"
            ))),
        }
    }
}

pub(crate) fn membership(mut parts: impl Iterator<Item = Value>) -> Result<Membership, Failure> {
    let mut next = || parts.next().unwrap_or(Value::Nil);
    let generation = number(next())?;
    let members = u32::try_from(number(next())?).unwrap_or(u32::MAX);
    let next_expiry = match next() {
        Value::Int(-1) => None,
        other => Some(Duration::from_millis(number(other)?)),
    };
    let assignment = match text(next())?.as_str() {
        UNTOLD => None,
        told => Some(set(told)?),
    };
    let granted = set(&text(next())?)?;
    let tell_owned = number(next())? == 1;
    let why = text(next())?;
    let candidates: Vec<_> = list(next())?
        .into_iter()
        .map(candidate)
        .collect::<Result<_, _>>()?;
    let duty = (!candidates.is_empty()).then_some(Duty { why, candidates });
    Ok(Membership {
        generation,
        members,
        assignment,
        granted,
        tell_owned,
        duty,
        next_expiry,
    })
}

fn candidate(value: Value) -> Result<Candidate, Failure> {
    let mut parts = list(value)?.into_iter();
    let mut next = || parts.next().unwrap_or(Value::Nil);
    Ok(Candidate {
        member: MemberId::new(text(next())?).map_err(|e| Failure::Fatal(e.to_string()))?,
        draining: number(next())? == 1,
        previous: lenient(&text(next())?),
        owned: lenient(&text(next())?),
        refused: lenient(&text(next())?),
    })
}

fn set(text: &str) -> Result<PartitionSet, Failure> {
    text.parse()
        .map_err(|e| Failure::Fatal(format!("the group is damaged: {e}")))
}

/// What others wrote about themselves: a set that cannot be read must not keep the group from an
/// assignment.
fn lenient(text: &str) -> PartitionSet {
    text.parse().unwrap_or_default()
}

/// What a group's channel said. What is not known here may concern the leases.
pub(crate) fn news(payload: &str) -> News {
    match payload.split_once(' ') {
        Some(("assigned", _)) => News::Assigned,
        Some(("released", partitions)) => match partitions.parse() {
            Ok(partitions) => News::Released(partitions),
            Err(_) => News::Changed,
        },
        _ => News::Changed,
    }
}
