//! Time and chance where every run must be the same: a clock that moves when somebody looks at it or sleeps
//! by it, and numbers from a seed. It must not know who wants that, nor what is called.
//!
//! What holds:
//! - A call begins at the moment that its message's id names, unless the instance's clock is later already;
//!   what it draws depends on the seed and that id alone, never on the calls before.
//! - Each look moves the clock by [`LOOK_NS`], so that whoever waits by looking gets through.
//! - A sleep takes its time, so that deadlines mean what they mean; after it the clock shows its end, and
//!   not how long the machine really took.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand_core::TryRng;
use segmenter_core::message::Message;
use wasmtime::component::{HasSelf, Linker, Resource};
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock;
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtxBuilder};

use crate::instance::State;

/// What each look at a clock moves it by, in ns.
const LOOK_NS: u64 = 1_000;

/// What all instances of an engine begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fixed {
    /// Since 1970.
    pub start_ms: u64,
    pub seed: u64,
}

/// Of one instance.
#[derive(Clone)]
pub(crate) struct Course(Arc<Mutex<Inner>>);

struct Inner {
    start_ns: u64,
    /// Since 1970.
    now_ns: u64,
    seed: u64,
    drawn: u64,
}

impl Course {
    pub(crate) fn new(fixed: Fixed) -> Course {
        let start_ns = fixed.start_ms.saturating_mul(1_000_000);
        Course(Arc::new(Mutex::new(Inner {
            start_ns,
            now_ns: start_ns,
            seed: fixed.seed,
            drawn: mixed(fixed.seed),
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Numbers, which nothing leaves half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn give(&self, wasi: &mut WasiCtxBuilder) {
        let seed = self.inner().seed;
        wasi.wall_clock(self.clone())
            .monotonic_clock(self.clone())
            .secure_random(self.clone())
            .insecure_random(self.clone())
            .insecure_random_seed(u128::from(mixed(seed)) << 64 | u128::from(mixed(!seed)));
    }

    /// A call begins.
    pub(crate) fn begin(&self, message: &Message) {
        let mut inner = self.inner();
        let at = message.id.ms.saturating_mul(1_000_000);
        inner.now_ns = inner.now_ns.max(at);
        let which = mixed(message.id.ms) ^ mixed(!message.id.seq) ^ u64::from(message.attempt);
        inner.drawn = mixed(inner.seed ^ mixed(which));
    }

    fn look(&self) -> u64 {
        let mut inner = self.inner();
        inner.now_ns = inner.now_ns.saturating_add(LOOK_NS);
        inner.now_ns
    }

    /// As the monotonic clock counts.
    fn since_start(&self) -> u64 {
        let now = self.look();
        now - self.inner().start_ns
    }

    fn is_later(&self, than_ns: u64) {
        let mut inner = self.inner();
        inner.now_ns = inner.now_ns.max(than_ns);
    }

    fn draw(&self) -> u64 {
        let mut inner = self.inner();
        inner.drawn = inner.drawn.wrapping_add(GOLDEN);
        mixed(inner.drawn)
    }
}

/// Of SplitMix64, with [`mixed`]: fixed here, so that no update of a library changes what a guest draws.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

fn mixed(number: u64) -> u64 {
    let z = number.wrapping_add(GOLDEN);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl HostWallClock for Course {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(LOOK_NS)
    }
    fn now(&self) -> Duration {
        Duration::from_nanos(self.look())
    }
}

impl HostMonotonicClock for Course {
    fn resolution(&self) -> u64 {
        LOOK_NS
    }
    fn now(&self) -> u64 {
        self.since_start()
    }
}

impl TryRng for Course {
    type Error = Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.draw() >> 32) as u32)
    }
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.draw())
    }
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            let drawn = self.draw().to_le_bytes();
            chunk.copy_from_slice(&drawn[..chunk.len()]);
        }
        Ok(())
    }
}

/// In place of WASI's own: its sleeps would not move this clock.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let linked = monotonic_clock::add_to_linker::<State, HasSelf<State>>(linker, |state| state);
    linker.allow_shadowing(false);
    linked
}

impl State {
    fn course(&self) -> &Course {
        self.course
            .as_ref()
            .expect("linked only where there is one")
    }

    fn sleep(&mut self, ns: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let course = self.course().clone();
        let until_ns = course.inner().now_ns.saturating_add(ns);
        let sleep = Sleep {
            course,
            until_ns,
            // What cannot be represented never ends, and is cut off by the deadline.
            at: tokio::time::Instant::now().checked_add(Duration::from_nanos(ns)),
        };
        let sleep = self.table.push(sleep)?;
        subscribe(&mut self.table, sleep)
    }
}

impl monotonic_clock::Host for State {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(self.course().since_start())
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(LOOK_NS)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let now = self.course().since_start();
        self.sleep(when.saturating_sub(now))
    }

    fn subscribe_duration(&mut self, ns: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.sleep(ns)
    }
}

struct Sleep {
    course: Course,
    until_ns: u64,
    at: Option<tokio::time::Instant>,
}

#[wasmtime_wasi::async_trait]
impl Pollable for Sleep {
    async fn ready(&mut self) {
        match self.at {
            // Whoever polls in a loop lets others have their turn.
            Some(at) if at <= tokio::time::Instant::now() => tokio::task::yield_now().await,
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
        self.course.is_later(self.until_ns);
    }
}

#[cfg(test)]
mod tests {
    use segmenter_core::message::{Content, EntryId};
    use segmenter_core::names::Partition;

    use super::*;

    fn message(ms: u64, seq: u64) -> Message {
        Message {
            id: EntryId { ms, seq },
            partition: Partition(0),
            attempt: 1,
            content: Content::new("k", Vec::new(), Vec::new(), 1).unwrap(),
        }
    }

    fn course(seed: u64) -> Course {
        Course::new(Fixed {
            start_ms: 5_000,
            seed,
        })
    }

    #[test]
    fn a_clock_moves_by_looks_and_by_messages_and_never_back() {
        let course = course(1);
        let wall = |course: &Course| HostWallClock::now(course).as_nanos() as u64;
        assert_eq!(wall(&course), 5_000_000_000 + LOOK_NS);
        assert_eq!(HostMonotonicClock::now(&course), 2 * LOOK_NS);
        course.begin(&message(7_000, 0));
        assert_eq!(wall(&course), 7_000_000_000 + LOOK_NS);
        course.is_later(9_000_000_000);
        course.begin(&message(8_000, 0));
        assert_eq!(wall(&course), 9_000_000_000 + LOOK_NS);
        assert_eq!(
            HostMonotonicClock::now(&course),
            4_000_000_000 + 2 * LOOK_NS
        );
    }

    #[test]
    fn what_is_drawn_depends_on_seed_and_message_alone() {
        let drawn = |course: &Course, ms, seq| {
            course.begin(&message(ms, seq));
            [course.draw(), course.draw()]
        };
        let (a, b) = (course(1), course(1));
        let first = drawn(&a, 5_000, 0);
        a.draw();
        assert_ne!(drawn(&a, 5_000, 1), first);
        assert_eq!(drawn(&a, 6_000, 0), drawn(&b, 6_000, 0));
        assert_ne!(drawn(&course(2), 5_000, 0), first);
        let mut bytes = [0; 11];
        course(1).try_fill_bytes(&mut bytes).unwrap();
        let mut same = [0; 11];
        course(1).try_fill_bytes(&mut same).unwrap();
        assert_eq!(bytes, same);
        assert_ne!(bytes, [0; 11]);
    }
}
