//! A version that is called with the messages of each call before the live one, from the same state, and leaves no trace:
//! what both did is compared. Knows when it has done enough harm; must not know how a call is waited for,
//! nor what becomes of the counts.
//!
//! A partition waits for the shadow's call as for the live one, so that its harm is bounded: each call has
//! its deadline, and after [`BROKEN_MAX`] that ended worse than the live one's there are no more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use segmenter_core::batch::{Batch, Takes};
use segmenter_core::outcome::{Fault, Outcome};
use segmenter_core::rollout::{Differences, compare};
use segmenter_core::time::Duration;

use super::handler::{CallLimits, Handler, Instance};
use super::lineup::{Counting, Live};

/// Calls of a shadow in one partition that were broken (trap, deadline, memory, no instance) while the live
/// version's were not. After so many it is not called there any more: each costs an instance, or a deadline.
pub(super) const BROKEN_MAX: u32 = 3;

/// What all partitions of a handler share of a shadow, for as long as it is one.
pub(super) struct Shadow<H> {
    live: Arc<Live<H>>,
    found: Mutex<Differences>,
}

impl<H: Handler> Shadow<H> {
    pub(super) fn new(live: Arc<Live<H>>) -> Shadow<H> {
        Shadow {
            live,
            found: Mutex::default(),
        }
    }

    pub(super) fn version(&self) -> &str {
        self.live.handler.version().as_str()
    }

    pub(super) fn takes(&self) -> Takes {
        self.live.handler.takes()
    }

    pub(super) fn found(&self) -> Differences {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Differences> {
        // Counts, which nothing leaves half changed.
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The shadow of one partition.
pub(super) struct Shadowing<H: Handler> {
    shadow: Arc<Shadow<H>>,
    instance: Option<H::Instance>,
    broken: u32,
}

impl<H: Handler> Shadowing<H> {
    pub(super) fn new(shadow: Arc<Shadow<H>>) -> Shadowing<H> {
        Shadowing {
            shadow,
            instance: None,
            broken: 0,
        }
    }

    pub(super) fn is_of(&self, shadow: &Arc<Shadow<H>>) -> bool {
        Arc::ptr_eq(&self.shadow, shadow)
    }

    pub(super) fn is_called(&self) -> bool {
        self.broken < BROKEN_MAX
    }

    pub(super) fn version(&self) -> &str {
        self.shadow.version()
    }

    pub(super) fn limits(&self) -> CallLimits {
        self.shadow.live.handler.limits()
    }

    pub(super) fn drop_instance(&mut self) {
        self.instance = None;
    }

    /// Dropping the future before it is done is followed by [`Shadowing::drop_instance`].
    pub(super) async fn call(&mut self, tenure: &H::Tenure, messages: &Batch) -> Outcome {
        let alive = match &mut self.instance {
            Some(instance) => instance,
            none => match self.shadow.live.handler.shadow(tenure).await {
                Ok(new) => none.insert(new),
                Err(reason) => {
                    return Outcome::Broken {
                        fault: Fault::Instantiate,
                        reason,
                    };
                }
            },
        };
        let outcome = alive.call(messages).await;
        if alive.is_dead() {
            self.instance = None;
        }
        outcome
    }

    pub(super) fn ended(&self, messages: usize, outcome: &Outcome, took: Duration) {
        let mut counting = Counting::default();
        counting.ended(messages, outcome, took);
        counting.flush(&self.shadow.live);
    }

    /// What it did, against what the live version did then. Answers why it is not called any more, once.
    pub(super) fn compare(
        &mut self,
        messages: &Batch,
        live: &Outcome,
        shadow: &Outcome,
    ) -> Option<String> {
        if *live == Outcome::Cancelled {
            return None;
        }
        let which = || {
            let (partition, id) = (messages.first().partition, messages.first().id);
            match messages.count() {
                1 => format!("partition {partition} message {id}"),
                _ => format!(
                    "partition {partition} messages {id} to {}",
                    messages.last().id
                ),
            }
        };
        self.shadow.lock().count(compare(live, shadow), which);
        let Outcome::Broken { fault, reason } = shadow else {
            return None;
        };
        if matches!(live, Outcome::Broken { .. }) {
            return None;
        }
        self.broken += 1;
        if self.is_called() {
            return None;
        }
        self.instance = None;
        Some(format!("{}: {reason}", fault.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use segmenter_core::effects::Effects;
    use segmenter_core::lease::Epoch;
    use segmenter_core::message::{Content, EntryId, Message};
    use segmenter_core::names::{Partition, Version};

    use super::*;

    /// Nothing here calls it.
    struct Never(Version);

    impl Handler for Never {
        type Instance = Never;
        type Tenure = ();
        fn version(&self) -> &Version {
            &self.0
        }
        fn limits(&self) -> CallLimits {
            unreachable!()
        }
        fn tenure(&self, _: Partition, _: Epoch) {}
        async fn instantiate(&self, (): &()) -> Result<Never, String> {
            unreachable!()
        }
        async fn shadow(&self, (): &()) -> Result<Never, String> {
            unreachable!()
        }
    }

    impl Instance for Never {
        async fn call(&mut self, _: &Batch) -> Outcome {
            unreachable!()
        }
        fn is_dead(&self) -> bool {
            unreachable!()
        }
    }

    fn shadowing() -> Shadowing<Never> {
        let version = Version::new("v2").expect("a name");
        let live = Arc::new(Live::new(Never(version)));
        Shadowing::new(Arc::new(Shadow::new(live)))
    }

    fn message() -> Batch {
        Batch::one(Message {
            id: EntryId { ms: 7, seq: 1 },
            partition: Partition(3),
            attempt: 1,
            content: Content::new("k", Vec::new(), Vec::new(), 1).expect("a message"),
        })
    }

    fn broken() -> Outcome {
        Outcome::Broken {
            fault: Fault::Trap,
            reason: "unreachable".to_owned(),
        }
    }

    #[test]
    fn after_a_few_calls_that_it_alone_broke_it_is_not_called_any_more_and_that_is_told_once() {
        let mut shadowing = shadowing();
        let ok = Outcome::Ok(Effects::default());
        // Neither a message that breaks both, nor a live call that was cut off, speaks against it.
        for live in [&broken(), &Outcome::Cancelled] {
            for _ in 0..2 * BROKEN_MAX {
                assert_eq!(shadowing.compare(&message(), live, &broken()), None);
            }
        }
        for _ in 1..BROKEN_MAX {
            assert_eq!(shadowing.compare(&message(), &ok, &ok), None);
            assert_eq!(shadowing.compare(&message(), &ok, &broken()), None);
            assert!(shadowing.is_called());
        }
        let why = shadowing.compare(&message(), &ok, &broken());
        assert_eq!(why.as_deref(), Some("trap: unreachable"));
        assert!(!shadowing.is_called());
        let found = shadowing.shadow.found();
        let same = 2 * BROKEN_MAX + (BROKEN_MAX - 1);
        assert_eq!(found.same, u64::from(same), "those cut off are not counted");
        assert_eq!(found.outcome, u64::from(BROKEN_MAX));
        assert_eq!(found.differed(), found.outcome);
        assert_eq!(
            found.example,
            "partition 3 message 7-1: outcome: live ok, shadow trap (\"unreachable\")"
        );
    }
}
