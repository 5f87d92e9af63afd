//! The network between hosts, producers and Redis: what is sent arrives in order on its link, unless a
//! fault befalls it. Knows links and fates; must not know what a request means.

use std::collections::BTreeMap;

use segmenter_core::port::{Failure, Reply, Request, SyncKind};

use super::plan::Kind;
use super::world::{Event, World};

/// How long whoever asked waits for an answer: the adapter's limit.
const RESPONSE_TIMEOUT: u64 = 5_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LinkId(pub(super) usize);

/// Who gets an answer. `host` in its `life`: what was asked by a process that is dead reaches nobody.
#[derive(Debug, Clone)]
pub(super) enum Asker {
    Host {
        host: usize,
        life: u64,
        purpose: super::host::Purpose,
    },
    Producer {
        producer: usize,
        purpose: super::producer::Purpose,
    },
}

/// One connection's worth of order.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// What is not answered yet.
    pub(super) outstanding: BTreeMap<u64, Asker>,
    /// Nothing passes before this moment.
    pub(super) blocked_until: u64,
    slow_until: u64,
    last_arrival: u64,
    last_answer: u64,
}

/// A request on its way.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) link: LinkId,
    pub(super) token: u64,
    /// The start of Redis that it was sent to: nothing survives the end of the server's connections.
    pub(super) redis_life: u64,
    pub(super) request: Request,
    /// Takes effect once more that much later.
    pub(super) again_after: Option<u64>,
}

impl World {
    /// Returns the token under which the answer will come.
    pub(super) fn send(&mut self, link: LinkId, asker: Asker, request: Request) -> u64 {
        self.tokens += 1;
        let token = self.tokens;
        self.counts.messages += 1;
        let latency = self.latency(link);
        let now = self.now;
        let l = &mut self.links[link.0];
        l.outstanding.insert(token, asker);
        if self.redis.is_down() {
            let refused = Failure::NotDone("connection refused".to_owned());
            self.schedule(
                now + latency,
                Event::Reply {
                    link,
                    token,
                    result: Err(refused),
                },
            );
            return token;
        }
        let mut at = (now + latency).max(l.last_arrival).max(l.blocked_until);
        l.last_arrival = at;
        let mut again_after = None;
        match self.fate(&request) {
            Fate::Normal => {}
            Fate::Refused => {
                self.count(Kind::Refused);
                let refused = Failure::NotDone("the broker refused".to_owned());
                self.schedule(
                    at + latency,
                    Event::Reply {
                        link,
                        token,
                        result: Err(refused),
                    },
                );
                return token;
            }
            Fate::LostBefore => {
                self.count(Kind::Lost);
                self.give_up(link, token, "lost on the way");
                return token;
            }
            Fate::LostAfter => {
                self.count(Kind::Lost);
                self.give_up(link, token, "the answer was lost");
            }
            Fate::Late => {
                self.count(Kind::Late);
                self.give_up(link, token, "the connection broke");
                at += self.rng.skewed(10_000, 4_000_000);
            }
            Fate::Twice => {
                self.count(Kind::Twice);
                again_after = Some(self.rng.skewed(1_000, 2_000_000));
            }
        }
        if at > now + RESPONSE_TIMEOUT && !matches!(request, Request::Read(_)) {
            self.schedule(
                now + RESPONSE_TIMEOUT,
                unknown(link, token, "no answer in time"),
            );
        }
        let redis_life = self.redis.life();
        let packet = Packet {
            link,
            token,
            redis_life,
            request,
            again_after,
        };
        self.schedule(at, Event::Arrive(Box::new(packet)));
        token
    }

    /// An answer on its way back, behind those before it.
    pub(super) fn answer(&mut self, link: LinkId, token: u64, result: Result<Reply, Failure>) {
        if !self.links[link.0].outstanding.contains_key(&token) {
            return;
        }
        let latency = self.latency(link);
        let l = &mut self.links[link.0];
        let at = (self.now + latency).max(l.last_answer).max(l.blocked_until);
        l.last_answer = at;
        self.schedule(
            at,
            Event::Reply {
                link,
                token,
                result,
            },
        );
    }

    pub(super) fn latency(&mut self, link: LinkId) -> u64 {
        let usual = self.plan.latency;
        if self.now < self.links[link.0].slow_until {
            return self.rng.skewed(usual, 1_000_000);
        }
        self.rng.between(usual / 2, usual * 2)
    }

    /// Its connection breaks soon, as far as the sender can tell.
    fn give_up(&mut self, link: LinkId, token: u64, why: &str) {
        let after = if self.rng.per_mille(100) {
            RESPONSE_TIMEOUT
        } else {
            self.rng.between(100, 50_000)
        };
        self.schedule(self.now + after, unknown(link, token, why));
    }

    /// All that is not answered will not be; what is on its way may arrive nevertheless.
    pub(super) fn cut(&mut self, link: LinkId, why: &str) {
        let l = &mut self.links[link.0];
        (l.last_arrival, l.last_answer) = (0, 0);
        let tokens: Vec<u64> = l.outstanding.keys().copied().collect();
        for token in tokens {
            self.schedule(self.now, unknown(link, token, why));
        }
    }

    pub(super) fn blackhole(&mut self, link: LinkId, us: u64) {
        self.links[link.0].blocked_until = self.now + us;
    }

    pub(super) fn slow_down(&mut self, link: LinkId, us: u64) {
        self.links[link.0].slow_until = self.now + us;
    }

    fn fate(&mut self, request: &Request) -> Fate {
        if self.now >= self.plan.faults_until {
            return Fate::Normal;
        }
        let rate = self.plan.rate;
        if self.plan.has(Kind::Lost) && self.rng.per_mille(rate) {
            return if self.rng.per_mille(500) {
                Fate::LostBefore
            } else {
                Fate::LostAfter
            };
        }
        // An append or an acquire that takes effect twice, or long after it was given up, has done so
        // by design: only the log and the lease tell.
        let guarded = matches!(
            request,
            Request::Commit(_)
                | Request::Release(_)
                | Request::Sync(_)
                | Request::Install(_)
                | Request::Verify(_)
        );
        let late = guarded || matches!(request, Request::Acquire(_) | Request::Append(_));
        if late && self.plan.has(Kind::Late) && self.rng.per_mille(rate) {
            return Fate::Late;
        }
        // A late join supersedes whoever bears its member id by then: with configured ids not sent twice.
        let twice = match request {
            Request::Sync(sync) if sync.kind == SyncKind::Join && self.plan.configured => 0,
            Request::Sync(_) => 10 * rate,
            _ if guarded => 3 * rate,
            _ => 0,
        };
        if self.plan.has(Kind::Twice) && self.rng.per_mille(twice) {
            return Fate::Twice;
        }
        if self.plan.has(Kind::Refused) && self.rng.per_mille(rate) {
            return Fate::Refused;
        }
        Fate::Normal
    }
}

enum Fate {
    Normal,
    Refused,
    LostBefore,
    LostAfter,
    Late,
    Twice,
}

fn unknown(link: LinkId, token: u64, why: &str) -> Event {
    let result = Err(Failure::Unknown(why.to_owned()));
    Event::Reply {
        link,
        token,
        result,
    }
}
