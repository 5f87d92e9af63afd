//! A member of a group: joins, keeps its session, learns what it owns, leaves. `(now, event)` in,
//! commands out. It must not know what a partition does with its time (see `consumer`), nor how a sync
//! travels.
//!
//! ```text
//!   Joining ──Member──▶ In (active: owns all partitions | standby) ──Leave──▶ Draining ──▶ Leaving ──▶ Out
//!      ▲                 │                                                                          ▲
//!      └────Unknown──────┘                 Superseded, StreamGone ──────────────────────────────────┘
//! ```
//!
//! Invariants:
//! - The trust window ends `session timeout − margin` after the *start* of the last sync that was
//!   answered: local time may only make us stop sooner.
//! - A partition that was lost is assigned again only by a sync that began after the loss was known.
//! - One sync in the air at a time; each has a higher counter than the one before.
//!
//! Smallest form: one live member is active and owns all partitions, the others stand by. What will
//! replace it is an assignment per partition; the consumer's side of the contract stays.

use std::collections::BTreeMap;

use crate::backoff::Backoff;
use crate::names::{GroupName, Incarnation, MemberId, Partition, StreamId, Uid};
use crate::port::{Failure, Sync, SyncKind, SyncReply};
use crate::time::{Duration, Time};

#[derive(Debug, Clone)]
pub struct Config {
    pub stream: StreamId,
    pub uid: Uid,
    pub group: GroupName,
    pub member: MemberId,
    pub incarnation: Incarnation,
    pub partitions: u32,
    pub session_timeout: Duration,
    pub seed: u64,
}

impl Config {
    /// A third of the session timeout: two may be lost before a member expires.
    pub fn heartbeat(&self) -> Duration {
        self.session_timeout / 3
    }
    /// What a member stops sooner than its session can expire: for clocks that run at different speeds
    /// and for a cancel that takes a moment.
    pub fn margin(&self) -> Duration {
        self.session_timeout / 6
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Synced(Result<SyncReply, Failure>),
    /// A change was announced, or may have been missed: the connection is new.
    News,
    /// A partition is not held any more: lost, drained or broken off.
    Dropped(Partition),
    /// All leases were compared.
    Verified,
    /// Drain and leave.
    Leave,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Sync(Sync),
    Assign(Partition),
    Revoke(Partition),
    /// Compare all held leases with what Redis says, in one request.
    Verify,
    /// Membership changed: for the log and for `ready`.
    Now(Standing),
    Exit(Exit),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Active {
        generation: u64,
    },
    Standby {
        generation: u64,
    },
    /// Not known to be a member: joining again.
    Outside,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    Left,
    Superseded,
    StreamGone,
    Fatal(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Joining,
    In {
        active: bool,
    },
    /// Still a member: heartbeats go on while partitions drain.
    Draining,
    Leaving,
    Out,
}

#[derive(Debug)]
pub struct Member {
    config: Config,
    phase: Phase,
    counter: u64,
    /// Start of the sync in the air.
    syncing: Option<Time>,
    next_sync: Time,
    failures: u32,
    trust_until: Time,
    /// Partitions that the supervisor was told to take and has not dropped.
    assigned: Vec<bool>,
    /// The counter of the newest sync when a partition was dropped: only a later one assigns it again.
    dropped_at: BTreeMap<Partition, u64>,
    verifying: bool,
    next_verify: Time,
    standing: Option<Standing>,
    commands: std::collections::VecDeque<Command>,
    noise: u64,
}

/// After a sync that failed. The ceiling is the heartbeat itself.
const SYNC_BACKOFF_INITIAL: Duration = Duration::from_millis(50);

impl Member {
    pub fn new(config: Config, now: Time) -> Member {
        Member {
            phase: Phase::Joining,
            counter: 0,
            syncing: None,
            next_sync: now,
            failures: 0,
            trust_until: Time::ZERO,
            assigned: vec![false; config.partitions as usize],
            dropped_at: BTreeMap::new(),
            verifying: false,
            next_verify: now + config.session_timeout,
            standing: None,
            commands: std::collections::VecDeque::new(),
            noise: config.seed | 1,
            config,
        }
    }

    /// No call of a handler may start at or after this moment.
    pub fn trust_until(&self) -> Time {
        self.trust_until
    }

    pub fn handle(&mut self, now: Time, event: Event) {
        match event {
            Event::Synced(result) => self.synced(now, result),
            Event::News => {
                self.next_sync = self.next_sync.min(now);
                self.next_verify = self.next_verify.min(now);
            }
            Event::Dropped(partition) => {
                if let Some(assigned) = self.assigned.get_mut(partition.0 as usize) {
                    *assigned = false;
                }
                self.dropped_at.insert(partition, self.counter);
                match self.phase {
                    // Sync at once: it alone can give the partition back.
                    Phase::In { active: true } => self.next_sync = self.next_sync.min(now),
                    Phase::Draining => self.leave_if_drained(now),
                    _ => {}
                }
            }
            Event::Verified => {
                self.verifying = false;
                self.next_verify = now + self.config.session_timeout;
            }
            Event::Leave => match self.phase {
                Phase::Joining | Phase::In { .. } => {
                    self.phase = Phase::Draining;
                    self.revoke_all();
                    self.leave_if_drained(now);
                }
                Phase::Draining | Phase::Leaving | Phase::Out => {}
            },
        }
    }

    pub fn poll(&mut self, now: Time) -> Option<Command> {
        if let Some(command) = self.commands.pop_front() {
            return Some(command);
        }
        if self.phase == Phase::Out {
            return None;
        }
        if self.syncing.is_none() && now >= self.next_sync {
            let kind = match self.phase {
                Phase::Joining => SyncKind::Join,
                Phase::In { .. } | Phase::Draining => SyncKind::Heartbeat,
                Phase::Leaving | Phase::Out => SyncKind::Leave,
            };
            self.counter += 1;
            self.syncing = Some(now);
            self.next_sync = NEVER;
            return Some(Command::Sync(self.sync(kind)));
        }
        let holds = self.assigned.iter().any(|assigned| *assigned);
        if !self.verifying && holds && now >= self.next_verify {
            self.verifying = true;
            return Some(Command::Verify);
        }
        None
    }

    pub fn poll_timeout(&self) -> Option<Time> {
        if self.phase == Phase::Out {
            return None;
        }
        let sync = self.syncing.is_none().then_some(self.next_sync);
        let holds = self.assigned.iter().any(|assigned| *assigned);
        let verify = (!self.verifying && holds).then_some(self.next_verify);
        [sync, verify].into_iter().flatten().min()
    }

    fn sync(&self, kind: SyncKind) -> Sync {
        Sync {
            stream: self.config.stream.clone(),
            uid: self.config.uid.clone(),
            group: self.config.group.clone(),
            kind,
            member: self.config.member.clone(),
            incarnation: self.config.incarnation.clone(),
            counter: self.counter,
            session_timeout: self.config.session_timeout,
        }
    }

    fn synced(&mut self, now: Time, result: Result<SyncReply, Failure>) {
        let Some(started) = self.syncing.take() else {
            return;
        };
        match result {
            Ok(reply) => {
                if std::mem::take(&mut self.failures) > 0 {
                    // The connection may be a new one, to a Redis that went back.
                    self.next_verify = now;
                }
                self.answered(now, started, reply);
            }
            Err(Failure::Fatal(why)) => self.out(Exit::Fatal(why)),
            Err(_) if self.phase == Phase::Leaving => self.out(Exit::Left),
            Err(_) => {
                self.failures = self.failures.saturating_add(1);
                let backoff = Backoff {
                    initial: SYNC_BACKOFF_INITIAL,
                    max: self.config.heartbeat(),
                };
                self.noise = self
                    .noise
                    .rotate_left(13)
                    .wrapping_mul(0x2545_f491_4f6c_dd1d)
                    | 1;
                let retry = now + backoff.wait(self.failures, self.noise);
                self.next_sync = self.next_sync.min(retry);
            }
        }
    }

    fn answered(&mut self, now: Time, started: Time, reply: SyncReply) {
        match reply {
            SyncReply::Member {
                generation,
                active,
                next_expiry,
                ..
            } => {
                self.trust_until = started + (self.config.session_timeout - self.config.margin());
                let heartbeat = started + self.config.heartbeat();
                // Someone must sync at the moment when another may expire: that is what expires it.
                let expiry = next_expiry.map_or(heartbeat, |wait| now + wait.max(EXPIRY_WAIT_MIN));
                // What a drop or news asked for meanwhile stays asked for.
                self.next_sync = self.next_sync.min(heartbeat).min(expiry);
                match self.phase {
                    Phase::Joining | Phase::In { .. } => {
                        self.phase = Phase::In { active };
                        let standing = if active {
                            Standing::Active { generation }
                        } else {
                            Standing::Standby { generation }
                        };
                        self.stand(standing);
                        if active {
                            self.assign();
                        } else {
                            self.revoke_all();
                        }
                    }
                    Phase::Draining | Phase::Leaving | Phase::Out => {}
                }
            }
            SyncReply::Unknown => {
                // Expired: whoever is active now may have our partitions. The lease decides about what
                // is in the air; no new call starts until we are in again.
                self.trust_until = Time::ZERO;
                self.next_sync = now;
                match self.phase {
                    Phase::Leaving => self.out(Exit::Left),
                    Phase::Draining => self.next_sync = now + self.config.heartbeat(),
                    _ => {
                        self.phase = Phase::Joining;
                        self.next_verify = now;
                        self.stand(Standing::Outside);
                    }
                }
            }
            SyncReply::Superseded => self.out(Exit::Superseded),
            SyncReply::StreamGone => self.out(Exit::StreamGone),
            SyncReply::Overtaken => self.next_sync = now,
            SyncReply::Left => self.out(Exit::Left),
        }
    }

    fn assign(&mut self) {
        for (index, assigned) in self.assigned.iter_mut().enumerate() {
            let partition = Partition(u32::try_from(index).expect("partitions are u32"));
            let dropped_at = self.dropped_at.get(&partition).copied().unwrap_or(0);
            if !*assigned && dropped_at < self.counter {
                *assigned = true;
                self.dropped_at.remove(&partition);
                self.commands.push_back(Command::Assign(partition));
            }
        }
    }

    fn revoke_all(&mut self) {
        for (index, assigned) in self.assigned.iter().enumerate() {
            if *assigned {
                let partition = Partition(u32::try_from(index).expect("partitions are u32"));
                self.commands.push_back(Command::Revoke(partition));
            }
        }
    }

    fn leave_if_drained(&mut self, now: Time) {
        if self.assigned.iter().any(|assigned| *assigned) {
            return;
        }
        if self.counter == 0 {
            self.out(Exit::Left);
        } else {
            self.phase = Phase::Leaving;
            self.next_sync = now;
        }
    }

    fn stand(&mut self, standing: Standing) {
        if self.standing != Some(standing) {
            self.standing = Some(standing);
            self.commands.push_back(Command::Now(standing));
        }
    }

    fn out(&mut self, exit: Exit) {
        if self.phase != Phase::Out {
            self.phase = Phase::Out;
            self.trust_until = Time::ZERO;
            self.commands.push_back(Command::Exit(exit));
        }
    }
}

const NEVER: Time = Time(u64::MAX);

/// Not sooner than this after a sync, whatever Redis says: it counts in ms, and a hot loop helps nobody.
const EXPIRY_WAIT_MIN: Duration = Duration::from_millis(5);
