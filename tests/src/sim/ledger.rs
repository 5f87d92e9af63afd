//! What really happened to every message: made, appended, acknowledged, handled. The checkers judge by it,
//! and by what log and lease hold. Records; judges nothing.

use segmenter_core::message::EntryId;
use segmenter_core::names::Partition;
use segmenter_core::outcome::Outcome;

use super::check::Call;

/// What its producer knows of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Not sent, or refused, or on its way.
    Waiting,
    Acknowledged(EntryId),
    /// The answer was lost.
    Unknown,
}

#[derive(Debug)]
pub(super) struct Message {
    pub(super) producer: usize,
    pub(super) stream: usize,
    pub(super) key: u64,
    pub(super) partition: Partition,
    pub(super) fate: Fate,
    /// The effect that put it into the log.
    pub(super) appended: Option<u64>,
    /// Redis lost it, or an operator deleted it: nobody promises anything any more.
    pub(super) gone: bool,
}

/// By the handlers of one group.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Handled {
    pub(super) tries: u64,
    pub(super) oks: u32,
    /// Given up for good.
    pub(super) rejects: u32,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) messages: Vec<Message>,
    /// By binding, by message.
    handled: Vec<Vec<Handled>>,
}

impl Ledger {
    pub(super) fn new(bindings: usize) -> Ledger {
        Ledger {
            messages: Vec::new(),
            handled: vec![Vec::new(); bindings],
        }
    }

    pub(super) fn made(
        &mut self,
        producer: usize,
        stream: usize,
        key: u64,
        partition: Partition,
    ) -> usize {
        self.messages.push(Message {
            producer,
            stream,
            key,
            partition,
            fate: Fate::Waiting,
            appended: None,
            gone: false,
        });
        for handled in &mut self.handled {
            handled.push(Handled::default());
        }
        self.messages.len() - 1
    }

    pub(super) fn handled(&self, binding: usize, message: usize) -> Handled {
        self.handled[binding][message]
    }

    /// How often it was tried so far.
    pub(super) fn tried(&mut self, call: &Call) -> u64 {
        let handled = &mut self.handled[call.binding][call.message];
        handled.tries += 1;
        handled.tries
    }

    pub(super) fn ended(&mut self, call: &Call, outcome: &Outcome) {
        let handled = &mut self.handled[call.binding][call.message];
        match outcome {
            Outcome::Ok(_) => handled.oks += 1,
            given_up if call.decides(given_up) => handled.rejects += 1,
            _ => {}
        }
    }

    pub(super) fn handled_at_all(&self) -> u64 {
        let all = self.handled.iter().flatten();
        all.map(|handled| u64::from(handled.oks)).sum()
    }

    /// Redis went back: what was appended later is lost.
    pub(super) fn forget_since(&mut self, effects: u64) {
        for message in &mut self.messages {
            message.gone |= message.appended.is_some_and(|at| at > effects);
        }
    }

    pub(super) fn forget_stream(&mut self, stream: usize) {
        for message in &mut self.messages {
            message.gone |= message.stream == stream && message.appended.is_some();
        }
    }
}
