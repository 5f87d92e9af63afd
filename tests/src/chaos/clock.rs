//! The machine's monotonic clock, which the hosts' `at_us` are of, and how Redis' entry ids relate to it.

use std::time::{SystemTime, UNIX_EPOCH};

/// µs of CLOCK_MONOTONIC.
pub(super) fn now_us() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let secs = u64::try_from(time.tv_sec).expect("a clock that runs forward");
    let nanos = u64::try_from(time.tv_nsec).expect("a clock that runs forward");
    secs * 1_000_000 + nanos / 1_000
}

/// What to take from an entry id's time to get to the monotonic clock: Redis runs on this machine.
pub(super) fn epoch_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let wall_us = u64::try_from(since.expect("after 1970").as_micros()).expect("before 500,000");
    wall_us - now_us()
}
