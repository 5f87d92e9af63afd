//! Moments at which this machine itself stood still: a thread that should wake often, and did not. What
//! happens to hosts then is nobody's fault. It must not know what runs beside it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::clock::now_us;

const TICK: Duration = Duration::from_millis(10);

pub(super) struct Stalls {
    stop: Arc<AtomicBool>,
    found: Arc<Mutex<Vec<(u64, u64)>>>,
}

impl Stalls {
    /// Notes what is longer than `limit`.
    pub(super) fn watch(limit: Duration) -> Stalls {
        let stop = Arc::new(AtomicBool::new(false));
        let found: Arc<Mutex<Vec<(u64, u64)>>> = Arc::default();
        let (stopped, noted) = (stop.clone(), found.clone());
        std::thread::spawn(move || {
            let mut last = now_us();
            while !stopped.load(Ordering::Relaxed) {
                std::thread::park_timeout(TICK);
                let now = now_us();
                if u128::from(now - last) > limit.as_micros() {
                    noted.lock().expect("no panic").push((last, now));
                }
                last = now;
            }
        });
        Stalls { stop, found }
    }

    /// From and to, in µs.
    pub(super) fn end(self) -> Vec<(u64, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        std::mem::take(&mut *self.found.lock().expect("no panic"))
    }
}
