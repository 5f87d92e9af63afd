//! One partition without Redis: messages through real instances of a module, one after the other, their
//! effects kept in memory. What a call does that does not end well leaves no trace, as in a host. Nothing is
//! tried again: a retry is an outcome. It must not know what is expected.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use segmenter_core::effects::State;
use segmenter_core::message::{Content, EntryId, Message};
use segmenter_core::names::Partition;
use segmenter_core::outcome::{Fault, Outcome};
use segmenter_wasm::{
    GuestLine, Instance, Level, LogSink, Module, PartitionContext, StateSource, Targets, Tenure,
};

/// When a test begins, for the guest: 2026-01-01T00:00:00Z, in ms since 1970.
pub(super) const START_MS: u64 = 1_767_225_600_000;
/// Between two messages, for the guest.
const APART_MS: u64 = 1_000;

/// A line of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) level: Level,
    pub(super) text: String,
    /// Of the version that it is compared with.
    pub(super) shadow: bool,
}

/// What a message came to.
pub(super) struct Played {
    pub(super) outcome: Outcome,
    /// Of the version that it is compared with, from the same state.
    pub(super) shadow: Option<Outcome>,
    pub(super) lines: Vec<Line>,
    /// Of a trap.
    pub(super) backtrace: Option<String>,
}

pub(super) struct Play {
    live: Player,
    /// Sees what the live one sees, and changes nothing.
    shadow: Option<Player>,
    tenure: Tenure,
    targets: Targets,
    lines: Arc<Lines>,
    state: BTreeMap<String, Vec<u8>>,
    messages: u64,
}

struct Player {
    module: Module,
    instance: Option<Instance>,
}

impl Play {
    pub(super) fn new(
        module: Module,
        against: Option<Module>,
        context: PartitionContext,
        targets: Targets,
        state: BTreeMap<String, Vec<u8>>,
    ) -> Play {
        let lines = Arc::new(Lines::default());
        let tenure = module.tenure(context, lines.clone(), Arc::new(Start(state.clone())));
        let player = |module| Player {
            module,
            instance: None,
        };
        Play {
            live: player(module),
            shadow: against.map(player),
            tenure,
            targets,
            lines,
            state,
            messages: 0,
        }
    }

    /// As of the last message that was handled.
    pub(super) fn state(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.state
    }

    pub(super) async fn message(&mut self, content: Content) -> Played {
        let message = Message {
            id: EntryId {
                ms: START_MS + APART_MS * self.messages,
                seq: 0,
            },
            partition: Partition(0),
            attempt: 1,
            content,
        };
        self.messages += 1;
        // Before the live call, so that both begin with the same state.
        let shadow = match &mut self.shadow {
            None => None,
            Some(player) => Some(
                player
                    .call(&self.tenure, &self.targets, &message, true)
                    .await,
            ),
        };
        let live = &mut self.live;
        let outcome = live
            .call(&self.tenure, &self.targets, &message, false)
            .await;
        let diagnosis = live.instance.as_mut().map(Instance::diagnosis);
        for player in [Some(&mut self.live), self.shadow.as_mut()]
            .into_iter()
            .flatten()
        {
            player.instance.take_if(|instance| instance.is_dead());
        }
        if let Outcome::Ok(effects) = &outcome {
            for (name, value) in &effects.state {
                match value {
                    Some(value) => self.state.insert(name.clone(), value.clone()),
                    None => self.state.remove(name),
                };
            }
        }
        Played {
            outcome,
            shadow,
            lines: self.lines.take(),
            backtrace: diagnosis.and_then(|diagnosis| diagnosis.backtrace),
        }
    }
}

impl Player {
    async fn call(
        &mut self,
        tenure: &Tenure,
        targets: &Targets,
        message: &Message,
        shadow: bool,
    ) -> Outcome {
        let instance = match &mut self.instance {
            Some(instance) => instance,
            none => {
                let (module, targets) = (&self.module, targets.clone());
                let made = match shadow {
                    true => module.shadow(tenure, targets).await,
                    false => module.instantiate(tenure, targets).await,
                };
                match made {
                    Ok(new) => none.insert(new),
                    Err(error) => {
                        return Outcome::Broken {
                            fault: Fault::Instantiate,
                            reason: error.to_string(),
                        };
                    }
                }
            }
        };
        instance.call(message).await
    }
}

/// Lines since they were taken last.
#[derive(Default)]
struct Lines(Mutex<Vec<Line>>);

impl Lines {
    fn take(&self) -> Vec<Line> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl LogSink for Lines {
    fn line(&self, line: &GuestLine<'_>) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push(Line {
            level: line.level,
            text: line.text.to_owned(),
            shadow: line.shadow,
        });
    }
}

/// The state that a test begins with.
struct Start(BTreeMap<String, Vec<u8>>);

impl StateSource for Start {
    fn load(&self) -> Pin<Box<dyn Future<Output = Result<State, String>> + Send + '_>> {
        Box::pin(async { Ok(State::of(self.0.clone())) })
    }
}
