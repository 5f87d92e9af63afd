//! What one seed means: the shape of the world, which kinds of fault it may meet and when the planned ones
//! happen. Knows numbers and moments; must not know how a fault is carried out.

use segmenter_core::rollout::Share;
use segmenter_core::time::Duration;

use super::rng::Rng;
use super::swap::Behaviour;

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Members come and go as asked: not a fault, but what a group must bear.
    Churn,
    /// A host dies, and a new one comes in its place.
    Kill,
    /// A host stands still, for several session timeouts perhaps.
    Pause,
    /// All connections of a host break; what was on its way may arrive nevertheless.
    Cut,
    /// Nothing passes to or from a host for a while.
    Blackhole,
    /// Everything takes long.
    Delay,
    /// A single request is lost before its effect, or its answer after it.
    Lost,
    /// A single request takes effect long after its sender gave it up.
    Late,
    /// A single request takes effect once more, later.
    Twice,
    /// A single request is refused before its effect.
    Refused,
    HostClock,
    BrokerClock,
    Restart,
    /// A restart with the data of some time ago.
    Rollback,
    /// A restart without data.
    Emptied,
    /// An announcement does not arrive.
    NewsLost,
    /// A second host starts with the member id of one that lives.
    SameMember,
    /// Someone else writes entries that are not ours in shape.
    Foreign,
    /// An operator deletes the stream.
    Delete,
    DeleteGroup,
    /// An operator moves a group's position in a partition.
    Seek,
    /// An operator halts a partition, and resumes it.
    Halt,
    /// Another version of a handler goes live, on trial or at once.
    Swap,
}

impl Kind {
    pub const ALL: [Kind; 23] = [
        Kind::Churn,
        Kind::Kill,
        Kind::Pause,
        Kind::Cut,
        Kind::Blackhole,
        Kind::Delay,
        Kind::Lost,
        Kind::Late,
        Kind::Twice,
        Kind::Refused,
        Kind::HostClock,
        Kind::BrokerClock,
        Kind::Restart,
        Kind::Rollback,
        Kind::Emptied,
        Kind::NewsLost,
        Kind::SameMember,
        Kind::Foreign,
        Kind::Delete,
        Kind::DeleteGroup,
        Kind::Seek,
        Kind::Halt,
        Kind::Swap,
    ];

    /// Under these alone nothing may be handled twice, and no lease changes hands unreleased.
    const GENTLE: [Kind; 6] = [
        Kind::Churn,
        Kind::Twice,
        Kind::Refused,
        Kind::NewsLost,
        Kind::Foreign,
        Kind::Swap,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Churn => "join or leave",
            Kind::Kill => "kill",
            Kind::Pause => "pause",
            Kind::Cut => "cut",
            Kind::Blackhole => "blackhole",
            Kind::Delay => "delay",
            Kind::Lost => "lost request or answer",
            Kind::Late => "late effect",
            Kind::Twice => "effect twice",
            Kind::Refused => "refused",
            Kind::HostClock => "host's clock jumps",
            Kind::BrokerClock => "Redis' clock jumps",
            Kind::Restart => "Redis restarts",
            Kind::Rollback => "Redis loses writes",
            Kind::Emptied => "Redis loses all",
            Kind::NewsLost => "news lost",
            Kind::SameMember => "member id twice",
            Kind::Foreign => "foreign entry",
            Kind::Delete => "stream deleted",
            Kind::DeleteGroup => "group deleted",
            Kind::Seek => "seek",
            Kind::Halt => "halt",
            Kind::Swap => "swap of versions",
        }
    }
}

/// A fault with a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Start {
        host: usize,
    },
    Leave {
        host: usize,
    },
    Kill {
        host: usize,
    },
    Pause {
        host: usize,
        us: u64,
    },
    Cut {
        host: usize,
    },
    Blackhole {
        host: usize,
        us: u64,
    },
    Delay {
        host: usize,
        us: u64,
    },
    HostClock {
        host: usize,
        us: u64,
    },
    BrokerClock {
        us: u64,
    },
    Restart {
        us: u64,
    },
    Snapshot,
    Rollback {
        us: u64,
    },
    Emptied {
        us: u64,
    },
    SameMember {
        host: usize,
    },
    Foreign {
        stream: usize,
        partition: u32,
    },
    Delete {
        stream: usize,
    },
    DeleteGroup {
        binding: usize,
    },
    Seek {
        binding: usize,
        partition: u32,
    },
    Halt {
        binding: usize,
        partition: u32,
    },
    Resume {
        binding: usize,
        partition: u32,
        skip: bool,
    },
    Deploy {
        binding: usize,
        behaviour: Behaviour,
        /// In these partitions; none: it is current at once.
        trial: Option<Share>,
    },
    Settle {
        binding: usize,
        promote: bool,
    },
}

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) hosts: usize,
    pub(super) partitions: u32,
    pub(super) streams: usize,
    /// Of each stream.
    pub(super) groups: usize,
    /// Entries per partition.
    pub(super) capacity: u64,
    pub(super) retain: u64,
    pub(super) producers: usize,
    pub(super) keys: u64,
    pub(super) messages: usize,
    pub(super) batch: u64,
    pub(super) session_timeout: Duration,
    pub(super) drain_timeout: Duration,
    /// Faults happen before this moment, messages are made until a little later.
    pub(super) faults_until: u64,
    /// After the faults stop, everything must have settled by then.
    pub(super) settled_by: u64,
    pub(super) latency: u64,
    /// Entries of one partition in one answer to a read.
    pub(super) read_count: usize,
    pub(super) call: u64,
    pub(super) slow_calls: u64,
    pub(super) failing_calls: u64,
    pub(super) stubborn_calls: u64,
    /// Of a thousand versions, how many take several messages a call.
    pub(super) batches: u64,
    /// Of a thousand messages, how many break every call that they are in.
    pub(super) poison: u64,
    /// At one message, under one version.
    pub(super) attempts: u32,
    /// Members keep their id over a restart.
    pub(super) configured: bool,
    kinds: Vec<Kind>,
    /// Of a thousand requests, how many meet each fault that has no moment of its own.
    pub(super) rate: u64,
    pub(super) schedule: Vec<(u64, Fault)>,
}

/// More than any message fails by itself here: only those that fall with their hosts again and again are
/// given up.
const ATTEMPTS: u32 = 6;
const SECOND: u64 = 1_000_000;
const MS: u64 = 1_000;

impl Plan {
    pub(super) fn new(rng: &mut Rng) -> Plan {
        let session_us = rng.between(10, 30) * 100 * MS;
        let hosts = rng.between(1, 5) as usize;
        let faults_until = rng.between(8, 20) * SECOND;
        let mut plan = Plan {
            hosts,
            partitions: rng.between(1, 8) as u32,
            streams: if rng.per_mille(100) { 2 } else { 1 },
            groups: if rng.per_mille(400) { 2 } else { 1 },
            capacity: [6, 16, 64, 400][rng.index(4)],
            retain: [0, 0, 5][rng.index(3)],
            producers: rng.between(1, 3) as usize,
            keys: rng.between(3, 24),
            messages: match rng.below(4) {
                0 => rng.between(4, 40),
                _ => rng.between(60, 600),
            } as usize,
            batch: rng.between(1, 12),
            session_timeout: Duration::from_micros(session_us),
            drain_timeout: Duration::from_secs(rng.between(2, 10)),
            faults_until,
            settled_by: faults_until + 20 * SECOND + 6 * session_us,
            latency: [20, 100, 400, 2_000][rng.index(4)],
            read_count: [1, 3, 10, 64][rng.index(4)],
            call: [0, 50, 500, 5_000][rng.index(4)],
            slow_calls: [0, 10, 50, 300][rng.index(4)],
            failing_calls: [0, 20, 150][rng.index(3)],
            stubborn_calls: [0, 500][rng.index(2)],
            batches: 0,
            poison: 0,
            attempts: ATTEMPTS,
            configured: rng.per_mille(500),
            kinds: kinds(rng),
            rate: [2, 8, 30][rng.index(3)],
            schedule: Vec::new(),
        };
        // Members that come and go while calls take long: what is handed over is worked on for a while,
        // and a report that is not true any more does most harm.
        if plan.is_gentle() && plan.has(Kind::Churn) && rng.per_mille(500) {
            plan.hosts = 5;
            plan.configured = false;
            plan.slow_calls = 300;
            plan.rate = 30;
        }
        if plan.has(Kind::Swap) && rng.per_mille(500) {
            plan.attempts = rng.between(1, 3) as u32;
        }
        plan.schedule(rng, session_us);
        plan.take_batches(&mut rng.aside());
        plan
    }

    /// In half of the worlds. The others are as if there were none.
    fn take_batches(&mut self, rng: &mut Rng) {
        self.batches = [0, 0, 500, 1_000][rng.index(4)];
        if self.batches > 0 {
            self.poison = [0, 5, 30][rng.index(3)];
        }
    }

    pub(super) fn has(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }

    /// Nothing may be handled twice.
    pub(super) fn is_gentle(&self) -> bool {
        self.kinds.iter().all(|kind| Kind::GENTLE.contains(kind))
    }

    /// Whether a group, or a whole stream, may be gone for good.
    pub(super) fn may_lose_groups(&self) -> bool {
        let kinds = [
            Kind::Rollback,
            Kind::Emptied,
            Kind::Delete,
            Kind::DeleteGroup,
        ];
        kinds.iter().any(|kind| self.has(*kind))
    }

    fn schedule(&mut self, rng: &mut Rng, session_us: u64) {
        // Some hosts are there from the start, the others join some time.
        let first = rng.between(1, self.hosts as u64) as usize;
        let within = [100 * MS, SECOND, 4 * SECOND][rng.index(3)];
        for host in 0..self.hosts {
            let at = if host < first {
                rng.below(within)
            } else {
                rng.below(self.faults_until)
            };
            self.schedule.push((at, Fault::Start { host }));
        }
        for kind in self.kinds.clone() {
            let times = match kind {
                Kind::Emptied | Kind::Delete | Kind::DeleteGroup => 1,
                Kind::Foreign | Kind::Churn | Kind::Swap => rng.between(2, 8),
                _ => rng.between(1, 3),
            };
            // Some come one upon the other, as when hosts are started anew in turn.
            let from = rng.between(SECOND / 2, self.faults_until);
            let clustered = rng.per_mille(500);
            for _ in 0..times {
                let at = match clustered {
                    true => from + rng.skewed(0, 2 * SECOND),
                    false => rng.between(SECOND / 2, self.faults_until),
                };
                let host = rng.index(self.hosts);
                self.at(rng, kind, at, host, session_us);
            }
        }
        self.schedule.retain(|(at, _)| *at < self.faults_until);
        self.schedule.sort_by_key(|(at, _)| *at);
    }

    fn at(&mut self, rng: &mut Rng, kind: Kind, at: u64, host: usize, session_us: u64) {
        let fault = match kind {
            Kind::Churn => {
                let back = at + rng.skewed(SECOND / 20, 4 * SECOND);
                self.schedule.push((back, Fault::Start { host }));
                Fault::Leave { host }
            }
            Kind::Kill => {
                let back = at + rng.skewed(10 * MS, 3 * session_us);
                self.schedule.push((back, Fault::Start { host }));
                Fault::Kill { host }
            }
            Kind::Pause => Fault::Pause {
                host,
                us: rng.skewed(10 * MS, 5 * session_us),
            },
            Kind::Cut => Fault::Cut { host },
            Kind::Blackhole => Fault::Blackhole {
                host,
                us: rng.skewed(50 * MS, 4 * session_us),
            },
            Kind::Delay => Fault::Delay {
                host,
                us: rng.between(SECOND, 4 * SECOND),
            },
            Kind::HostClock => Fault::HostClock {
                host,
                us: rng.skewed(MS, 2 * session_us),
            },
            Kind::BrokerClock => Fault::BrokerClock {
                us: rng.skewed(MS, 3 * session_us),
            },
            Kind::Restart => Fault::Restart {
                us: rng.skewed(10 * MS, 3 * session_us),
            },
            Kind::Rollback => {
                let of = at.saturating_sub(rng.skewed(MS, SECOND));
                self.schedule.push((of, Fault::Snapshot));
                Fault::Rollback {
                    us: rng.skewed(10 * MS, 2 * session_us),
                }
            }
            Kind::Emptied => Fault::Emptied {
                us: rng.skewed(10 * MS, session_us),
            },
            Kind::SameMember => Fault::SameMember { host },
            Kind::Foreign => Fault::Foreign {
                stream: rng.index(self.streams),
                partition: rng.below(u64::from(self.partitions)) as u32,
            },
            Kind::Delete => Fault::Delete {
                stream: rng.index(self.streams),
            },
            Kind::DeleteGroup => Fault::DeleteGroup {
                binding: rng.index(self.streams * self.groups),
            },
            Kind::Seek => Fault::Seek {
                binding: rng.index(self.streams * self.groups),
                partition: rng.below(u64::from(self.partitions)) as u32,
            },
            Kind::Halt => {
                let binding = rng.index(self.streams * self.groups);
                let partition = rng.below(u64::from(self.partitions)) as u32;
                let back = at + rng.skewed(MS, 2 * session_us);
                let skip = rng.per_mille(300);
                let resume = Fault::Resume {
                    binding,
                    partition,
                    skip,
                };
                self.schedule.push((back, resume));
                Fault::Halt { binding, partition }
            }
            Kind::Swap => {
                let binding = rng.index(self.streams * self.groups);
                let behaviour = [Behaviour::Good, Behaviour::Bad, Behaviour::Slow][rng.index(3)];
                let at_once = behaviour != Behaviour::Bad && rng.per_mille(300);
                let percent = [100, rng.between(1, 100)][rng.index(2)];
                let share = Share::percent(percent).expect("1 to 100");
                // Some trials never end.
                let back = at + rng.skewed(MS, 4 * SECOND);
                let promote = rng.per_mille(500);
                self.schedule
                    .push((back, Fault::Settle { binding, promote }));
                Fault::Deploy {
                    binding,
                    behaviour,
                    trial: (!at_once).then_some(share),
                }
            }
            // These befall single requests.
            Kind::Lost | Kind::Late | Kind::Twice | Kind::Refused | Kind::NewsLost => return,
        };
        self.schedule.push((at, fault));
    }
}

/// A third of the seeds meets nothing that excuses a duplicate, a third one kind, the rest several.
fn kinds(rng: &mut Rng) -> Vec<Kind> {
    let some = |rng: &mut Rng, of: &[Kind], chance| -> Vec<Kind> {
        of.iter()
            .copied()
            .filter(|_| rng.per_mille(chance))
            .collect()
    };
    match rng.below(6) {
        0 => some(rng, &Kind::GENTLE, 500),
        1 => {
            let mut kinds = some(rng, &Kind::GENTLE, 300);
            kinds.retain(|kind| !matches!(kind, Kind::Churn | Kind::Twice));
            kinds.extend([Kind::Churn, Kind::Twice]);
            kinds
        }
        2 | 3 => {
            let mut kinds = vec![Kind::ALL[rng.index(Kind::ALL.len())]];
            if rng.per_mille(500) {
                kinds.push(Kind::Churn);
            }
            kinds
        }
        4 => some(rng, &Kind::ALL, 250),
        _ => some(rng, &Kind::ALL, 600),
    }
}
