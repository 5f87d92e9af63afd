//! A member of a group: joins, keeps its session, takes what it is granted, gives back what it is not
//! assigned any more, computes an assignment when that is its duty, leaves. `(now, event)` in, commands
//! out. It must not know what a partition does with its time (see `consumer`), nor how a sync travels.
//!
//! ```text
//!   Joining ──Member──▶ In ──Leave──▶ Draining ──nothing held──▶ Leaving ──▶ Out
//!      ▲                │                                                     ▲
//!      └────Unknown─────┘           Superseded, StreamGone, GroupGone, Full ──┘
//!
//!   one partition:  assigned ──granted──▶ held ──not assigned any more──▶ revoked ──Dropped──▶ reported
//! ```
//!
//! Invariants:
//! - The trust window ends `session timeout − margin` after the *start* of the last sync that was
//!   answered: local time may only make us stop sooner.
//! - A partition is taken only if a sync that began when it was not held granted it. So what was lost
//!   comes back only by a sync that began after the loss was known.
//! - What a sync reports as owned is all that may still have an effect here.
//! - One sync in the air at a time; each has a higher counter than the one before.
//! - An assignment is followed as it is answered, whatever its generation: any rule that compares
//!   generations gets stuck when the coordinator goes back.

use std::collections::{BTreeMap, VecDeque};

use crate::assignor::{self, Plan};
use crate::backoff::Backoff;
use crate::names::{GroupName, Incarnation, MemberId, Partition, StreamId, Uid};
use crate::partition_set::PartitionSet;
use crate::port::{Duty, Failure, Install, InstallReply, Membership, Sync, SyncKind, SyncReply};
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
    /// For how long a partition is not asked for that could not be committed to.
    pub fn refusal(&self) -> Duration {
        self.session_timeout * 10
    }
}

/// What the group announces. Whatever is missed, the next heartbeat finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// An assignment is in force.
    Assigned,
    /// A member has these no more.
    Released(PartitionSet),
    /// Anything else, or something may have been missed: sync, and compare the leases.
    Changed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Synced(Result<SyncReply, Failure>),
    Installed(Result<InstallReply, Failure>),
    News(News),
    /// A partition is not held any more: lost, drained or broken off. `refuse`: it could not be
    /// committed to for a session timeout.
    Dropped {
        partition: Partition,
        refuse: bool,
    },
    /// All leases were compared.
    Verified,
    /// A call runs on beyond its deadline and cannot be cancelled: others must take over.
    Hung(Partition),
    /// Drain and leave.
    Leave,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Sync(Sync),
    Install(Install),
    Assign(Partition),
    Revoke(Partition),
    /// Compare all held leases with what Redis says, in one request.
    Verify,
    /// Membership or assignment changed: for the log and for `ready`.
    Now(Standing),
    /// An assignment by this member is in force: for the log.
    Rebalanced {
        generation: u64,
        why: String,
        plan: Plan,
    },
    Exit(Exit),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// A member; with nothing assigned it stands by.
    Member {
        generation: u64,
        members: u32,
        assignment: PartitionSet,
    },
    /// Not known to be a member: joining again.
    Outside,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    Left,
    Superseded,
    StreamGone,
    GroupGone,
    Fatal(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Joining,
    In,
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
    /// The sync in the air: its start, and the digest of what it reports.
    syncing: Option<(Time, u64)>,
    next_sync: Time,
    failures: u32,
    trust_until: Time,
    /// What the coordinator wants this member to have, as last answered.
    assignment: PartitionSet,
    /// What it was told to take and has not dropped.
    held: PartitionSet,
    /// Of these, what it was told to give back.
    revoked: PartitionSet,
    /// Until when a partition is not asked for.
    refused: BTreeMap<Partition, Time>,
    /// Digest of what the coordinator takes this member to have. `None`: not sure, tell it whole.
    told: Option<u64>,
    /// The assignment that this member computed, while it is being installed.
    installing: Option<(u64, String, Plan)>,
    verifying: bool,
    next_verify: Time,
    standing: Option<Standing>,
    commands: VecDeque<Command>,
    noise: u64,
}

/// After a sync that failed. The ceiling is the heartbeat itself.
const SYNC_BACKOFF_INITIAL: Duration = Duration::from_millis(50);

const NEVER: Time = Time(u64::MAX);

/// Not sooner than this after a sync, whatever Redis says: it counts in ms, and a hot loop helps nobody.
const EXPIRY_WAIT_MIN: Duration = Duration::from_millis(5);

impl Member {
    pub fn new(config: Config, now: Time) -> Member {
        Member {
            phase: Phase::Joining,
            counter: 0,
            syncing: None,
            next_sync: now,
            failures: 0,
            trust_until: Time::ZERO,
            assignment: PartitionSet::new(),
            held: PartitionSet::new(),
            revoked: PartitionSet::new(),
            refused: BTreeMap::new(),
            told: None,
            installing: None,
            verifying: false,
            next_verify: now + config.session_timeout,
            standing: None,
            commands: VecDeque::new(),
            noise: config.seed | 1,
            config,
        }
    }

    /// No call of a handler may start at or after this moment.
    pub fn trust_until(&self) -> Time {
        self.trust_until
    }

    pub fn handle(&mut self, now: Time, event: Event) {
        if self.phase == Phase::Out {
            return;
        }
        match event {
            Event::Synced(result) => self.synced(now, result),
            Event::Installed(result) => self.installed(now, result),
            Event::News(news) => self.heard(now, &news),
            Event::Dropped { partition, refuse } => {
                self.held.remove(partition);
                self.revoked.remove(partition);
                // While it cannot even sync, nothing is known about the partition alone.
                if refuse && now < self.trust_until {
                    let until = now + self.config.refusal();
                    self.refused.insert(partition, until);
                }
                // Sync at once: others wait for it, and only a sync can give it back.
                if matches!(self.phase, Phase::In | Phase::Draining) {
                    self.sync_at(now);
                }
                self.leave_if_drained(now);
            }
            Event::Verified => {
                self.verifying = false;
                self.next_verify = now + self.config.session_timeout;
            }
            Event::Hung(partition) => self.out(Exit::Fatal(format!(
                "the handler hangs in partition {partition} and cannot be cancelled: this host ends, so that others take over; please report it"
            ))),
            Event::Leave => match self.phase {
                Phase::Joining | Phase::In => {
                    // Told at once, so that others get what is released as soon as it is.
                    self.sync_at(now);
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
            return Some(Command::Sync(self.sync(now)));
        }
        if !self.verifying && !self.held.is_empty() && now >= self.next_verify {
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
        let holds = !self.held.is_empty();
        let verify = (!self.verifying && holds).then_some(self.next_verify);
        [sync, verify].into_iter().flatten().min()
    }

    fn sync(&mut self, now: Time) -> Sync {
        let kind = match self.phase {
            Phase::Joining => SyncKind::Join,
            Phase::In | Phase::Draining => SyncKind::Heartbeat,
            Phase::Leaving | Phase::Out => SyncKind::Leave,
        };
        self.counter += 1;
        let owned_digest = self.held.digest();
        self.syncing = Some((now, owned_digest));
        self.next_sync = NEVER;
        self.refused.retain(|_, until| *until > now);
        // Sure again only once it is answered.
        let whole = self.told.take() != Some(owned_digest);
        Sync {
            stream: self.config.stream.clone(),
            uid: self.config.uid.clone(),
            group: self.config.group.clone(),
            kind,
            member: self.config.member.clone(),
            incarnation: self.config.incarnation.clone(),
            counter: self.counter,
            session_timeout: self.config.session_timeout,
            draining: self.phase == Phase::Draining,
            owned_digest,
            owned: whole.then(|| self.held.clone()),
            refused: self.refused.keys().copied().collect(),
            known: self.assignment.digest(),
            wants: self.wants(),
        }
    }

    fn wants(&self) -> bool {
        self.phase != Phase::Draining && !self.assignment.minus(&self.held).is_empty()
    }

    fn synced(&mut self, now: Time, result: Result<SyncReply, Failure>) {
        let Some((started, reported)) = self.syncing.take() else {
            return;
        };
        match result {
            Ok(reply) => {
                if std::mem::take(&mut self.failures) > 0 {
                    // The connection may be a new one, to a Redis that went back.
                    self.next_verify = now;
                }
                self.answered(now, started, reported, reply);
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
                self.sync_at(now + backoff.wait(self.failures, self.noise));
            }
        }
    }

    fn answered(&mut self, now: Time, started: Time, reported: u64, reply: SyncReply) {
        match reply {
            SyncReply::Member(membership) => {
                // What was granted, the coordinator knows without having digested it.
                let sure = !membership.tell_owned && membership.granted.is_empty();
                self.told = sure.then_some(reported);
                self.membership(now, started, membership);
            }
            SyncReply::Unknown => {
                // Expired: others may have our partitions. The lease decides about what is in the air;
                // no new call starts until we are in again.
                self.trust_until = Time::ZERO;
                self.installing = None;
                match self.phase {
                    Phase::Leaving => self.out(Exit::Left),
                    Phase::Draining => self.sync_at(now + self.config.heartbeat()),
                    _ => {
                        self.sync_at(now);
                        self.phase = Phase::Joining;
                        self.next_verify = now;
                        self.stand(Standing::Outside);
                    }
                }
            }
            SyncReply::Superseded => self.out(Exit::Superseded),
            SyncReply::StreamGone => self.out(Exit::StreamGone),
            SyncReply::GroupGone => self.out(Exit::GroupGone),
            SyncReply::Overtaken => self.sync_at(now),
            SyncReply::Left => self.out(Exit::Left),
            SyncReply::Full => self.out(Exit::Fatal(format!(
                "group {} has {} members, which is all that a group may have",
                self.config.group,
                crate::limits::MEMBERS_MAX
            ))),
        }
    }

    fn membership(&mut self, now: Time, started: Time, reply: Membership) {
        self.trust_until = started + (self.config.session_timeout - self.config.margin());
        // Someone must sync at the moment when another may expire: that is what expires it.
        let expiry = reply
            .next_expiry
            .map(|wait| now + wait.max(EXPIRY_WAIT_MIN));
        self.sync_at(started + self.config.heartbeat());
        self.sync_at(expiry.unwrap_or(NEVER));
        if self.phase == Phase::Joining {
            self.phase = Phase::In;
        }
        if let Some(assignment) = reply.assignment {
            self.assignment = assignment;
        }
        if self.phase == Phase::In {
            self.stand(Standing::Member {
                generation: reply.generation,
                members: reply.members,
                assignment: self.assignment.clone(),
            });
            for partition in self.held.minus(&self.assignment).iter() {
                self.revoke(partition);
            }
            for partition in reply.granted.iter() {
                self.take(partition);
            }
        }
        if reply.tell_owned {
            self.sync_at(now);
        }
        if let Some(duty) = reply.duty
            && self.installing.is_none()
        {
            self.install(reply.generation, duty);
        }
    }

    /// A partition of which this member was told that it is its own now.
    fn take(&mut self, partition: Partition) {
        if partition.0 < self.config.partitions && self.held.insert(partition) {
            self.commands.push_back(Command::Assign(partition));
        }
    }

    fn revoke(&mut self, partition: Partition) {
        if self.revoked.insert(partition) {
            self.commands.push_back(Command::Revoke(partition));
        }
    }

    fn revoke_all(&mut self) {
        for partition in self.held.clone().iter() {
            self.revoke(partition);
        }
    }

    fn install(&mut self, generation: u64, duty: Duty) {
        let plan = assignor::assign(self.config.partitions, &duty.candidates);
        self.commands.push_back(Command::Install(Install {
            stream: self.config.stream.clone(),
            uid: self.config.uid.clone(),
            group: self.config.group.clone(),
            generation,
            assignment: plan.assignment.clone(),
            moves: u32::try_from(plan.moves.len()).unwrap_or(u32::MAX),
        }));
        self.installing = Some((generation, duty.why, plan));
    }

    fn installed(&mut self, now: Time, result: Result<InstallReply, Failure>) {
        let Some((generation, why, plan)) = self.installing.take() else {
            return;
        };
        match result {
            Ok(InstallReply::Installed) => {
                self.commands.push_back(Command::Rebalanced {
                    generation,
                    why,
                    plan,
                });
                self.sync_if_member(now);
            }
            // The generation moved on; whoever moved it is on duty, perhaps this member still.
            Ok(InstallReply::Overtaken) => self.sync_if_member(now),
            Ok(InstallReply::StreamGone) => self.sync_if_member(now),
            // The next sync tells whether it is in force, and on whom the duty is.
            Err(_) => {}
        }
        self.leave_if_drained(now);
    }

    fn heard(&mut self, now: Time, news: &News) {
        match news {
            News::Assigned => self.sync_if_member(now),
            News::Released(partitions) => {
                // The answer in the air may assign them, as they were before they were released.
                let may_wait = self.syncing.is_some();
                if may_wait || partitions.meets(&self.assignment.minus(&self.held)) {
                    self.sync_if_member(now);
                }
            }
            News::Changed => {
                self.sync_if_member(now);
                self.next_verify = self.next_verify.min(now);
            }
        }
    }

    fn sync_if_member(&mut self, now: Time) {
        if matches!(self.phase, Phase::In | Phase::Draining) {
            self.sync_at(now);
        }
    }

    /// What was asked for sooner stays.
    fn sync_at(&mut self, at: Time) {
        self.next_sync = self.next_sync.min(at);
    }

    fn leave_if_drained(&mut self, now: Time) {
        if self.phase != Phase::Draining || !self.held.is_empty() || self.installing.is_some() {
            return;
        }
        if self.counter == 0 {
            self.out(Exit::Left);
        } else {
            self.phase = Phase::Leaving;
            self.sync_at(now);
        }
    }

    fn stand(&mut self, standing: Standing) {
        if self.standing.as_ref() != Some(&standing) {
            self.standing = Some(standing.clone());
            self.commands.push_back(Command::Now(standing));
        }
    }

    fn out(&mut self, exit: Exit) {
        self.phase = Phase::Out;
        self.trust_until = Time::ZERO;
        self.commands.push_back(Command::Exit(exit));
    }
}
