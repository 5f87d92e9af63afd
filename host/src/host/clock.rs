//! The clock of the host: the machine's monotonic one. The only place that reads it.

use segmenter_core::time::{Duration, Time};

/// Now, in µs of CLOCK_MONOTONIC, so that logs of several processes on one machine can be compared.
pub(crate) fn now() -> Time {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let secs = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Time(secs * 1_000_000 + nanos / 1_000)
}

/// Ends at `at`; never, if there is none.
pub(crate) async fn sleep_until(at: Option<Time>) {
    match at {
        // tokio's timers know no more than 2 years; nothing here waits for so long on purpose.
        Some(at) => tokio::time::sleep(at.since(now()).min(Duration::from_secs(3600))).await,
        None => std::future::pending().await,
    }
}

/// Whether there is such a moment and it is over.
pub(crate) fn passed(at: Option<Time>) -> bool {
    at.is_some_and(|at| now() >= at)
}
