//! The members of one group in memory: who lives by the broker's clock, who has what, who may take what.

use std::collections::BTreeMap;
use std::time::Duration;

use segmenter_core::assignor::Candidate;
use segmenter_core::limits;
use segmenter_core::member::News;
use segmenter_core::names::{Incarnation, MemberId, Uid};
use segmenter_core::partition_set::PartitionSet;
use segmenter_core::port::{Duty, Install, InstallReply, Membership, Sync, SyncKind, SyncReply};

use super::{Mutations, Share};

#[derive(Debug, Clone, Default)]
pub(super) struct Members {
    /// The stream's; `None`: nobody ever joined.
    uid: Option<Uid>,
    generation: u64,
    /// The generation that the assignments stand for.
    assigned: u64,
    /// What changed since.
    why: Vec<String>,
    duty: Option<MemberId>,
    duty_ms: u64,
    last_sync_ms: u64,
    members: BTreeMap<MemberId, Member>,
    news: Vec<News>,
    mutations: Mutations,
}

#[derive(Debug, Clone)]
struct Member {
    incarnation: Incarnation,
    counter: u64,
    timeout_ms: u64,
    stamp_ms: u64,
    draining: bool,
    /// As last told, with what was granted since; `None`: it was never told.
    owned_digest: Option<u64>,
    owned: PartitionSet,
    assignment: PartitionSet,
    refused: PartitionSet,
}

impl Members {
    pub(super) fn new(mutations: Mutations) -> Members {
        Members {
            mutations,
            ..Members::default()
        }
    }

    pub(super) fn shares(&self) -> BTreeMap<MemberId, Share> {
        let share = |(name, m): (&MemberId, &Member)| {
            let share = Share {
                assigned: m.assignment.clone(),
                owned: m.owned.clone(),
                refused: m.refused.clone(),
                draining: m.draining,
            };
            (name.clone(), share)
        };
        self.members.iter().map(share).collect()
    }

    pub(super) fn names(&self) -> Vec<MemberId> {
        self.members.keys().cloned().collect()
    }

    /// What each member should have, if the newest generation has an assignment.
    pub(super) fn assignment(&self) -> Option<BTreeMap<MemberId, PartitionSet>> {
        let all = self.members.iter();
        (self.assigned == self.generation).then(|| {
            all.map(|(n, m)| (n.clone(), m.assignment.clone()))
                .collect()
        })
    }

    pub(super) fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    pub(super) fn sync(&mut self, now_ms: u64, r: &Sync) -> SyncReply {
        if self.uid.as_ref() != Some(&r.uid) {
            match (r.kind, &self.uid) {
                (SyncKind::Leave, _) => return SyncReply::Left,
                (SyncKind::Heartbeat, None) => return SyncReply::Unknown,
                (SyncKind::Heartbeat, Some(_)) => return SyncReply::StreamGone,
                // The group of an earlier stream of this name: nothing of it counts.
                (SyncKind::Join, _) => {
                    *self = Members {
                        uid: Some(r.uid.clone()),
                        last_sync_ms: now_ms,
                        ..Members::new(self.mutations)
                    };
                }
            }
        }
        let holder = self.members.get(&r.member);
        let ours = holder.is_some_and(|m| m.incarnation == r.incarnation);
        match (r.kind, holder) {
            (SyncKind::Heartbeat, None) => return SyncReply::Unknown,
            (SyncKind::Heartbeat, Some(_)) if !ours => return SyncReply::Superseded,
            (SyncKind::Leave, _) if !ours => return SyncReply::Left,
            _ => {}
        }
        let overtaken = holder.is_some_and(|m| ours && r.counter <= m.counter);
        if overtaken && !self.mutations.overtaken_syncs {
            return SyncReply::Overtaken;
        }
        if holder.is_none() && self.members.len() >= limits::MEMBERS_MAX {
            return SyncReply::Full;
        }
        self.shift(now_ms);
        self.expire(now_ms, &r.member);
        self.last_sync_ms = now_ms;
        if r.kind == SyncKind::Leave {
            self.leave(&r.member);
            return SyncReply::Left;
        }
        self.stamp(now_ms, r);
        self.answer(now_ms, r)
    }

    pub(super) fn install(&mut self, r: &Install) -> InstallReply {
        if self.uid.as_ref() != Some(&r.uid) {
            return InstallReply::StreamGone;
        }
        if self.generation != r.generation || self.assigned == r.generation {
            return InstallReply::Overtaken;
        }
        for (name, set) in &r.assignment {
            if let Some(member) = self.members.get_mut(name) {
                member.assignment = set.clone();
            }
        }
        self.assigned = r.generation;
        self.why.clear();
        self.duty = None;
        self.news.push(News::Assigned);
        InstallReply::Installed
    }

    /// If nobody synced for longer than a heartbeat (a third of the session timeout) and a margin (a
    /// sixth), the broker was away, or all members were: nobody expires for that time. A stamp in the
    /// future counts as now.
    fn shift(&mut self, now_ms: u64) {
        let longest = self
            .members
            .values()
            .map(|m| m.timeout_ms)
            .max()
            .unwrap_or(0);
        let gap = now_ms.saturating_sub(self.last_sync_ms);
        let shift = if gap.saturating_mul(2) > longest {
            gap
        } else {
            0
        };
        for member in self.members.values_mut() {
            member.stamp_ms = (member.stamp_ms + shift).min(now_ms);
        }
    }

    fn expire(&mut self, now_ms: u64, me: &MemberId) {
        let past = |(name, m): (&MemberId, &Member)| {
            let gone = name != me && m.stamp_ms.saturating_add(m.timeout_ms) <= now_ms;
            gone.then(|| name.clone())
        };
        let expired: Vec<MemberId> = self.members.iter().filter_map(past).collect();
        for name in expired {
            self.members.remove(&name);
            self.change(format!("{name} expired"), true);
            self.duty = Some(me.clone());
        }
    }

    fn leave(&mut self, me: &MemberId) {
        let Some(member) = self.members.remove(me) else {
            return;
        };
        self.change(format!("{me} left"), !member.assignment.is_empty());
        if self.duty.as_ref() == Some(me) {
            self.duty = None;
        }
        if self.generation != self.assigned {
            self.news.push(News::Changed);
        }
        self.released(member.owned);
    }

    fn stamp(&mut self, now_ms: u64, r: &Sync) {
        let me = &r.member;
        let known = self
            .members
            .get(me)
            .map(|m| (m.incarnation == r.incarnation, m.draining));
        match known {
            None => {
                self.change(format!("{me} joined"), true);
                self.duty = Some(me.clone());
            }
            // The same member, started again: it has nothing yet, and its assignment stays.
            Some((false, _)) => {
                self.change(format!("{me} started again"), false);
                self.news.push(News::Changed);
            }
            Some((true, _)) => {}
        }
        if known.is_some_and(|(_, draining)| draining) != r.draining {
            let does = if r.draining { "is leaving" } else { "stays" };
            self.change(format!("{me} {does}"), true);
            self.duty = Some(me.clone());
        }
        let member = self.members.entry(me.clone()).or_insert_with(|| Member {
            incarnation: r.incarnation.clone(),
            counter: 0,
            timeout_ms: 0,
            stamp_ms: 0,
            draining: false,
            owned_digest: None,
            owned: PartitionSet::new(),
            assignment: PartitionSet::new(),
            refused: PartitionSet::new(),
        });
        member.incarnation = r.incarnation.clone();
        member.counter = r.counter;
        member.timeout_ms = u64::try_from(r.session_timeout.as_millis()).unwrap_or(u64::MAX);
        member.stamp_ms = now_ms;
        member.draining = r.draining;
        member.refused = r.refused.clone();
    }

    fn answer(&mut self, now_ms: u64, r: &Sync) -> SyncReply {
        let me = &r.member;
        let others: PartitionSet = self
            .members
            .iter()
            .filter(|(name, _)| *name != me)
            .flat_map(|(_, m)| m.owned.iter())
            .collect();
        let settled = self.generation == self.assigned;
        let member = self.members.get_mut(me).expect("it was stamped");
        let mut released = PartitionSet::new();
        let mut granted = PartitionSet::new();
        let mut tell_owned = false;
        match &r.owned {
            Some(owned) => {
                released = member.owned.minus(owned);
                member.owned = owned.clone();
                member.owned_digest = Some(r.owned_digest);
            }
            None => {
                tell_owned = r.kind == SyncKind::Join || member.owned_digest != Some(r.owned_digest)
            }
        }
        let known = member.assignment.digest() == r.known;
        if (r.wants || !known) && settled && !tell_owned && !r.draining {
            granted = member.assignment.minus(&member.owned);
            if !self.mutations.granted_unreleased {
                granted = granted.minus(&others);
            }
            if !granted.is_empty() {
                member.owned.extend(granted.iter());
                member.owned_digest = None;
                released = released.minus(&granted);
            }
        }
        let assignment = (!known).then(|| member.assignment.clone());
        self.released(released);
        SyncReply::Member(Membership {
            generation: self.generation,
            members: u32::try_from(self.members.len()).unwrap_or(u32::MAX),
            assignment,
            granted,
            tell_owned,
            duty: self.duty_of(now_ms, r),
            next_expiry: self
                .members
                .iter()
                .filter(|(name, _)| *name != me)
                .map(|(_, m)| {
                    Duration::from_millis((m.stamp_ms + m.timeout_ms).saturating_sub(now_ms))
                })
                .min(),
        })
    }

    fn duty_of(&mut self, now_ms: u64, r: &Sync) -> Option<Duty> {
        if self.generation == self.assigned {
            return None;
        }
        let timeout_ms = u64::try_from(r.session_timeout.as_millis()).unwrap_or(u64::MAX);
        let late = now_ms.saturating_sub(self.duty_ms) > timeout_ms / 3;
        let lives = |name: &MemberId| self.members.contains_key(name);
        if late || !self.duty.as_ref().is_some_and(lives) {
            self.duty = Some(r.member.clone());
        }
        if self.duty.as_ref() != Some(&r.member) {
            return None;
        }
        self.duty_ms = now_ms;
        let candidate = |(name, m): (&MemberId, &Member)| Candidate {
            member: name.clone(),
            draining: m.draining,
            previous: m.assignment.clone(),
            owned: m.owned.clone(),
            refused: m.refused.clone(),
        };
        Some(Duty {
            why: self.why.join("; "),
            candidates: self.members.iter().map(candidate).collect(),
        })
    }

    /// `moves`: somebody's partitions need another owner, or somebody needs some.
    fn change(&mut self, what: String, moves: bool) {
        if moves || self.assigned != self.generation {
            self.why.push(what);
            self.generation += 1;
        } else {
            self.generation += 1;
            self.assigned = self.generation;
        }
    }

    fn released(&mut self, partitions: PartitionSet) {
        if !partitions.is_empty() {
            self.news.push(News::Released(partitions));
        }
    }
}
