//! The members of one group in memory: who lives by the broker's clock, and who is active.

use std::collections::BTreeMap;
use std::time::Duration;

use segmenter_core::names::{Incarnation, MemberId, Uid};
use segmenter_core::port::{Sync, SyncKind, SyncReply};

#[derive(Debug, Clone, Default)]
pub(super) struct Members {
    /// The stream's; `None`: nobody ever joined.
    uid: Option<Uid>,
    generation: u64,
    active: Option<MemberId>,
    joins: u64,
    last_sync_ms: u64,
    members: BTreeMap<MemberId, Member>,
}

#[derive(Debug, Clone)]
struct Member {
    incarnation: Incarnation,
    counter: u64,
    timeout_ms: u64,
    stamp_ms: u64,
    joined: u64,
}

impl Members {
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn names(&self) -> Vec<MemberId> {
        self.members.keys().cloned().collect()
    }

    pub(super) fn sync(&mut self, now_ms: u64, r: Sync) -> SyncReply {
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
                        ..Members::default()
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
        if holder.is_some_and(|m| ours && r.counter <= m.counter) {
            return SyncReply::Overtaken;
        }
        self.shift(now_ms);
        let changed = match r.kind {
            SyncKind::Leave => self.members.remove(&r.member).is_some(),
            SyncKind::Join | SyncKind::Heartbeat => self.stamp(now_ms, &r) || !ours,
        };
        let expired = self.expire(now_ms, &r.member);
        if changed || expired {
            self.generation += 1;
        }
        let lives = |m: &MemberId| self.members.contains_key(m);
        if !self.active.as_ref().is_some_and(lives) {
            let oldest = self.members.iter().min_by_key(|(_, m)| m.joined);
            self.active = oldest.map(|(name, _)| name.clone());
        }
        self.last_sync_ms = now_ms;
        if r.kind == SyncKind::Leave {
            return SyncReply::Left;
        }
        SyncReply::Member {
            generation: self.generation,
            active: self.active.as_ref() == Some(&r.member),
            members: u32::try_from(self.members.len()).unwrap_or(u32::MAX),
            next_expiry: self
                .members
                .iter()
                .filter(|(name, _)| **name != r.member)
                .map(|(_, m)| {
                    Duration::from_millis((m.stamp_ms + m.timeout_ms).saturating_sub(now_ms))
                })
                .min(),
        }
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

    /// Whether the member is new.
    fn stamp(&mut self, now_ms: u64, r: &Sync) -> bool {
        let known = self.members.get(&r.member).map(|m| m.joined);
        let joined = known.unwrap_or_else(|| {
            self.joins += 1;
            self.joins
        });
        let member = Member {
            incarnation: r.incarnation.clone(),
            counter: r.counter,
            timeout_ms: u64::try_from(r.session_timeout.as_millis()).unwrap_or(u64::MAX),
            stamp_ms: now_ms,
            joined,
        };
        self.members.insert(r.member.clone(), member);
        known.is_none()
    }

    fn expire(&mut self, now_ms: u64, me: &MemberId) -> bool {
        let before = self.members.len();
        self.members
            .retain(|name, m| name == me || m.stamp_ms.saturating_add(m.timeout_ms) > now_ms);
        self.members.len() < before
    }
}
