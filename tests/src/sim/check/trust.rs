//! No call starts when its member could have been expired: a session timeout after the start of the last
//! sync that was answered, in the world's time.

use std::collections::BTreeMap;

use segmenter_core::names::Incarnation;
use segmenter_core::time::Duration;

use super::{Call, Verdict, violated};

#[derive(Debug)]
pub(super) struct Trust {
    session_us: u64,
    members: BTreeMap<(usize, Incarnation), Window>,
}

#[derive(Debug, Default)]
struct Window {
    /// The start of the sync in the air.
    sent: u64,
    until: u64,
}

impl Trust {
    pub(super) fn new(session_timeout: Duration) -> Trust {
        Trust {
            session_us: u64::try_from(session_timeout.as_micros()).unwrap_or(u64::MAX),
            members: BTreeMap::new(),
        }
    }

    pub(super) fn sent(&mut self, now: u64, binding: usize, incarnation: &Incarnation) {
        let window = self
            .members
            .entry((binding, incarnation.clone()))
            .or_default();
        window.sent = now;
    }

    pub(super) fn answered(&mut self, binding: usize, incarnation: &Incarnation, member: bool) {
        let session = self.session_us;
        if let Some(window) = self.members.get_mut(&(binding, incarnation.clone())) {
            window.until = if member { window.sent + session } else { 0 };
        }
    }

    pub(super) fn call_started(&self, now: u64, call: &Call) -> Verdict {
        let member = (call.binding, call.incarnation.clone());
        let until = self.members.get(&member).map_or(0, |window| window.until);
        if now < until {
            return Ok(());
        }
        violated(
            "no call after the trust window",
            format!(
                "{} called {} of partition {} {} µs after its session could have expired",
                call.incarnation,
                call.id,
                call.partition,
                now - until
            ),
        )
    }
}
