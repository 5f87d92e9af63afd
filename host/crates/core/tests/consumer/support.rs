//! Drives one consumer by hand, and reads its commands.

use segmenter_core::backoff::Backoff;
use segmenter_core::batch::Batch;
use segmenter_core::consumer::{By, Command, Config, Consumer, Event, Settled};
use segmenter_core::entry::RawEntry;
use segmenter_core::lease::Epoch;
use segmenter_core::message::{EntryId, Message};
use segmenter_core::names::Partition;
use segmenter_core::outcome::Outcome;
use segmenter_core::port::{AcquireReply, CommitReply};
use segmenter_core::rollout::Runs;
use segmenter_core::time::{Duration, Time};

pub(crate) const FAR: Time = Time(u64::MAX);
pub(crate) const EPOCH: u64 = 100;
pub(crate) const INCARNATION: &str = "me";

pub(crate) fn id(n: u64) -> EntryId {
    EntryId { ms: n, seq: 0 }
}

pub(crate) fn ours(n: u64) -> RawEntry {
    let fields = vec![
        (b"k".to_vec(), b"key".to_vec()),
        (b"p".to_vec(), n.to_string().into_bytes()),
    ];
    RawEntry { id: id(n), fields }
}

pub(crate) fn foreign(n: u64) -> RawEntry {
    let fields = vec![(b"what".to_vec(), n.to_string().into_bytes())];
    RawEntry { id: id(n), fields }
}

/// As the driver shows it, which keeps the room for itself.
pub(crate) fn read(epoch: u64, after: u64) -> Command {
    Command::Read {
        epoch: Epoch(epoch),
        after: id(after),
        room: 0,
    }
}

pub(crate) fn acquire() -> Command {
    Command::Acquire {
        version: "v1".parse().unwrap(),
    }
}

pub(crate) fn config(incarnation: &str) -> Config {
    Config {
        partition: Partition(3),
        group: "billing".parse().unwrap(),
        incarnation: incarnation.parse().unwrap(),
        runs: Runs::only("v1".parse().unwrap()),
        retry: Backoff {
            initial: Duration::from_millis(100),
            max: Duration::from_secs(30),
        },
        attempts: u32::MAX,
        exhausted: segmenter_core::consumer::Exhausted::DeadLetter,
        broker: segmenter_core::consumer::BROKER_BACKOFF,
        give_up: Duration::from_secs(3),
        payload_max: 1024,
        share_bytes: 4 << 20,
        layout: segmenter_core::source::Layout::Ours,
        seed: 42,
    }
}

pub(crate) struct Driver {
    pub(crate) consumer: Consumer,
    pub(crate) now: Time,
    pub(crate) trust_until: Time,
    waiting: Vec<Command>,
    /// Of the last read.
    pub(crate) room: usize,
}

impl Driver {
    pub(crate) fn new() -> Driver {
        Driver::with(config(INCARNATION))
    }
    pub(crate) fn with(config: Config) -> Driver {
        Driver {
            consumer: Consumer::new(config),
            now: Time(1_000_000),
            trust_until: FAR,
            waiting: Vec::new(),
            room: 0,
        }
    }
    /// In epoch [`EPOCH`], acked through 0; `entries` are read if there are any, else a read is out.
    pub(crate) fn consuming(entries: &[u64]) -> Driver {
        let mut driver = Driver::new();
        driver.event(Event::Assigned);
        assert_eq!(driver.commands(), [acquire()]);
        driver.acquired(EPOCH, 0);
        assert_eq!(driver.commands(), [read(EPOCH, 0)]);
        if !entries.is_empty() {
            driver.entries(EPOCH, 0, entries);
        }
        driver
    }
    pub(crate) fn event(&mut self, event: Event) {
        self.consumer.handle(self.now, event);
    }
    /// Polls until there is nothing to do; what was set aside by `the_*` comes first.
    pub(crate) fn commands(&mut self) -> Vec<Command> {
        let mut commands = std::mem::take(&mut self.waiting);
        while let Some(mut command) = self.consumer.poll(self.now, self.trust_until) {
            if let Command::Read { room, .. } = &mut command {
                self.room = std::mem::take(room);
            }
            commands.push(command);
            assert!(commands.len() < 1000, "endless: {commands:?}");
        }
        let next = self.consumer.poll_timeout(self.now, self.trust_until);
        assert!(
            next.is_none_or(|next| next > self.now),
            "nothing to do, and yet it asks to be polled at once: a hot loop"
        );
        commands
    }
    pub(crate) fn drain_commands(&mut self) -> Vec<Command> {
        let mut commands = self.commands();
        commands.retain(|c| !matches!(c, Command::Read { .. }));
        commands
    }
    /// The one call among the commands; the others are set aside.
    pub(crate) fn the_call(&mut self) -> Message {
        self.the_call_by().0
    }
    /// And which version is called.
    pub(crate) fn the_call_by(&mut self) -> (Message, By) {
        let (messages, by) = self.the_batch_by();
        assert_eq!(messages.count(), 1);
        (messages.first().clone(), by)
    }
    pub(crate) fn the_batch(&mut self) -> Batch {
        self.the_batch_by().0
    }
    pub(crate) fn the_batch_by(&mut self) -> (Batch, By) {
        let commands = self.commands();
        let mut calls = Vec::new();
        for command in commands {
            match command {
                Command::Call { messages, by, .. } => calls.push((messages, by)),
                other => self.waiting.push(other),
            }
        }
        assert_eq!(calls.len(), 1, "besides {:?}", self.waiting);
        calls.remove(0)
    }
    pub(crate) fn the_commit(&mut self) -> Settled {
        let commands = self.commands();
        let mut commits = Vec::new();
        for command in commands {
            match command {
                Command::Commit(settled) => commits.push(settled),
                Command::Call { .. } => self.waiting.push(command),
                _ => {}
            }
        }
        assert_eq!(commits.len(), 1);
        commits.remove(0)
    }
    pub(crate) fn acquired(&mut self, epoch: u64, acked: u64) {
        self.event(Event::Acquired(Ok(AcquireReply::Acquired {
            epoch: Epoch(epoch),
            acked: id(acked),
            read: acked,
            unreleased: false,
            attempts: None,
        })));
    }
    pub(crate) fn entries(&mut self, epoch: u64, after: u64, entries: &[u64]) {
        self.event(Event::Entries {
            epoch: Epoch(epoch),
            after: id(after),
            entries: entries.iter().copied().map(ours).collect(),
        });
    }
    pub(crate) fn handled(&mut self, message: Message, outcome: Outcome) {
        self.handled_all(Batch::one(message), outcome);
    }
    pub(crate) fn handled_all(&mut self, messages: Batch, outcome: Outcome) {
        self.event(Event::Handled { messages, outcome });
    }
    /// What was sent up to there holds.
    pub(crate) fn committed_at(&mut self, to: EntryId) {
        self.committed(EPOCH, to.ms);
    }
    pub(crate) fn pass(&mut self, span: Duration) {
        self.now = self.now + span;
    }
    pub(crate) fn committed(&mut self, epoch: u64, read: u64) {
        self.event(Event::Committed {
            epoch: Epoch(epoch),
            result: Ok(CommitReply::Committed { read }),
        });
    }
}
