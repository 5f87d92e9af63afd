//! One partition of one handler, as `host/worker.rs`: carries out what the consumer asks for and tells it
//! what came of it. Decides nothing.

use segmenter_core::batch::Batch;
use segmenter_core::consumer::{By, Claim, Command, Consumer, Event as ConsumerEvent, Phase};
use segmenter_core::effects::{Effects, Emit};
use segmenter_core::lease::{Epoch, Owner};
use segmenter_core::message::{EntryId, Message};
use segmenter_core::names::Partition;
use segmenter_core::outcome::Outcome;
use segmenter_core::port::{Acquire, AcquireReply, Commit, Release, Request};
use segmenter_core::relay;
use segmenter_core::rollout::Runs;
use segmenter_core::time::Time;

use super::check::{self, COUNTER, Call};
use super::host::{Ending, Input, Purpose};
use super::mutation::Mutation;
use super::supervisor::NEVER;
use super::swap::takes;
use super::world::World;

#[derive(Debug)]
pub(super) struct Worker {
    consumer: Consumer,
    pub(super) runs: Runs,
    /// Another lineup, not taken yet.
    pub(super) published: Option<Runs>,
    /// As the supervisor sees it.
    pub(super) claim: Option<Claim>,
    owes_report: bool,
    refuse: bool,
    call: Option<Running>,
    calls: u64,
    wake: u64,
    /// What the handler keeps in memory of its state: a counter, of one epoch.
    pub(super) counter: Option<(Epoch, i64)>,
    /// What was asked for last: for the mutation that takes stale reads.
    asked: Option<(Epoch, EntryId)>,
}

/// A call in the air.
#[derive(Debug)]
struct Running {
    number: u64,
    /// One for each message.
    calls: Vec<Call>,
    messages: Batch,
    outcome: Outcome,
    /// How much longer it goes on after a cancel; none: it ends at once.
    lingers: Option<u64>,
}

impl Worker {
    pub(super) fn new(consumer: Consumer, runs: Runs) -> Worker {
        Worker {
            consumer,
            runs,
            published: None,
            claim: None,
            owes_report: false,
            refuse: false,
            call: None,
            calls: 0,
            wake: NEVER,
            counter: None,
            asked: None,
        }
    }

    pub(super) fn is_calling(&self) -> bool {
        self.call.is_some()
    }

    pub(super) fn take(&mut self, now: Time, event: ConsumerEvent) {
        let moves_claim = !matches!(
            event,
            ConsumerEvent::Entries { .. } | ConsumerEvent::Handled { .. }
        );
        self.consumer.handle(now, event);
        if moves_claim {
            self.claim = self.consumer.claim();
        }
    }
}

impl World {
    pub(super) fn worker(
        &mut self,
        host: usize,
        handler: usize,
        partition: Partition,
    ) -> Option<&mut Worker> {
        let supervisor = self.supervisor(host, handler)?;
        supervisor.workers.get_mut(partition.0 as usize)
    }

    pub(super) fn worker_event(
        &mut self,
        host: usize,
        handler: usize,
        partition: Partition,
        mut event: ConsumerEvent,
    ) {
        let now = self.local(host);
        let credulous = self.mutation == Some(Mutation::StaleReadsTaken);
        let inherits = self.mutation == Some(Mutation::AttemptsInherited);
        let Some(worker) = self.worker(host, handler, partition) else {
            return;
        };
        if let ConsumerEvent::Entries { epoch, after, .. } = &mut event
            && credulous
            && let Some(asked) = worker.asked
        {
            (*epoch, *after) = asked;
        }
        if matches!(event, ConsumerEvent::Revoked | ConsumerEvent::Cut) {
            worker.owes_report = true;
        }
        let held = match &event {
            ConsumerEvent::Acquired(Ok(AcquireReply::Acquired { epoch, .. })) => Some(*epoch),
            _ => None,
        };
        if let ConsumerEvent::Acquired(Ok(AcquireReply::Acquired {
            attempts: Some(attempts),
            ..
        })) = &mut event
            && inherits
        {
            attempts.version = worker.runs.version.clone();
        }
        worker.take(now, event);
        if let Some(epoch) = held {
            let event = relay::Event::Held { epoch };
            self.relay_event(host, handler, partition, event);
        }
        self.pump_consumer(host, handler, partition);
    }

    pub(super) fn pump_consumer(&mut self, host: usize, handler: usize, partition: Partition) {
        let now = self.local(host);
        self.swap(host, handler, partition);
        loop {
            let Some(supervisor) = self.supervisor(host, handler) else {
                return;
            };
            let trust = supervisor.trust;
            let worker = &mut supervisor.workers[partition.0 as usize];
            let Some(command) = worker.consumer.poll(now, trust) else {
                break;
            };
            match command {
                Command::Call {
                    epoch,
                    messages,
                    by,
                } => {
                    self.call(host, handler, epoch, messages, by);
                    self.swap(host, handler, partition);
                }
                Command::CancelCall => self.cancel(host, handler, partition),
                other => self.carry_out(host, handler, partition, other),
            }
            if self.violation.is_some() {
                return;
            }
        }
        let Some(worker) = self.worker(host, handler, partition) else {
            return;
        };
        if worker.owes_report && worker.consumer.is_idle() {
            worker.owes_report = false;
            let refuse = std::mem::take(&mut worker.refuse);
            self.post(
                host,
                self.now,
                Input::Dropped {
                    handler,
                    partition,
                    refuse,
                },
            );
        }
        self.set_consumer_wake(host, handler, partition, now);
    }

    fn set_consumer_wake(
        &mut self,
        host: usize,
        handler: usize,
        partition: Partition,
        local: Time,
    ) {
        let now = self.now;
        let Some(supervisor) = self.supervisor(host, handler) else {
            return;
        };
        let trust = supervisor.trust;
        let worker = &mut supervisor.workers[partition.0 as usize];
        if worker.wake <= now {
            worker.wake = NEVER;
        }
        let set = worker.wake;
        let next = worker.consumer.poll_timeout(local, trust);
        let Some(next) = next.filter(|next| next.0 < NEVER) else {
            return;
        };
        if next <= local {
            return self.defect(format!(
                "partition {partition} has nothing to do, and yet asks to be polled at once"
            ));
        }
        let at = self.hosts[host].clock.when(next).max(now + 1);
        if at < set {
            if let Some(worker) = self.worker(host, handler, partition) {
                worker.wake = at;
            }
            self.post(host, at, Input::WakeConsumer { handler, partition });
        }
    }

    fn call(&mut self, host: usize, handler: usize, epoch: Epoch, messages: Batch, by: By) {
        let partition = messages.first().partition;
        let Some(process) = &self.hosts[host].process else {
            return;
        };
        let supervisor = &process.supervisors[handler];
        let runs = &supervisor.workers[partition.0 as usize].runs;
        let version = runs.called(by).clone();
        let calls = messages.iter().map(|message| {
            let number = check::message_of(message.content.payload()).ok_or(message.id)?;
            Ok(Call {
                binding: supervisor.binding,
                partition,
                incarnation: supervisor.incarnation.clone(),
                epoch,
                id: message.id,
                message: number,
                silent: takes(&version).messages.get() > 1,
                version: version.clone(),
                on_trial: by == By::Running && runs.instead.is_some(),
                last: message.attempt >= self.plan.attempts,
            })
        });
        let calls: Vec<Call> = match calls.collect::<Result<_, EntryId>>() {
            Ok(calls) => calls,
            Err(id) => return self.defect(format!("{id} carries what nobody sent")),
        };
        let name = &self.hosts[host].name;
        for (call, message) in calls.iter().zip(messages.iter()) {
            self.trace.line(
                self.now,
                format_args!(
                    "{name}: call {}/{partition} {} attempt {} of {}",
                    call.binding, message.id, message.attempt, call.version
                ),
            );
        }
        for call in &calls {
            let started = self.checks.call_started(self.now, call);
            self.judge(started);
        }
        let user = self.user_code(&calls);
        let Some(worker) = self.worker(host, handler, partition) else {
            return;
        };
        worker.calls += 1;
        let number = worker.calls;
        worker.call = Some(Running {
            number,
            calls,
            messages,
            outcome: user.outcome,
            lingers: user.lingers,
        });
        if user.takes == 0 {
            self.end_call(host, handler, partition);
        } else {
            let at = self.now + user.takes;
            self.post(
                host,
                at,
                Input::CallEnds {
                    handler,
                    partition,
                    call: number,
                },
            );
        }
    }

    fn cancel(&mut self, host: usize, handler: usize, partition: Partition) {
        let Some(worker) = self.worker(host, handler, partition) else {
            return;
        };
        let Some(running) = &mut worker.call else {
            return;
        };
        match running.lingers.take() {
            // It goes on as if it had not heard, and may even succeed.
            Some(linger) => {
                worker.calls += 1;
                running.number = worker.calls;
                let call = running.number;
                self.post(
                    host,
                    self.now + linger,
                    Input::CallEnds {
                        handler,
                        partition,
                        call,
                    },
                );
            }
            None => {
                running.outcome = Outcome::Cancelled;
                self.end_call(host, handler, partition);
            }
        }
    }

    pub(super) fn call_ends(
        &mut self,
        host: usize,
        handler: usize,
        partition: Partition,
        number: u64,
    ) {
        let Some(worker) = self.worker(host, handler, partition) else {
            return;
        };
        if worker
            .call
            .as_ref()
            .is_some_and(|running| running.number == number)
        {
            self.end_call(host, handler, partition);
            self.pump_consumer(host, handler, partition);
        }
    }

    fn end_call(&mut self, host: usize, handler: usize, partition: Partition) {
        let now = self.local(host);
        let Some(running) = self
            .worker(host, handler, partition)
            .and_then(|w| w.call.take())
        else {
            return;
        };
        let Running {
            calls,
            messages,
            mut outcome,
            ..
        } = running;
        if let (Outcome::Ok(effects), [call]) = (&mut outcome, &calls[..])
            && !call.silent
        {
            *effects = self.effects_of(host, handler, partition, call, messages.first());
        }
        for (at, call) in calls.iter().enumerate() {
            let of_this = of_one(&outcome, at, calls.len());
            let name = &self.hosts[host].name;
            let said = match &of_this {
                Outcome::Ok(_) => "ok",
                Outcome::Retry { .. } => "retry",
                Outcome::Reject { .. } => "reject",
                Outcome::Broken { .. } => "broken",
                Outcome::Cancelled if outcome != Outcome::Cancelled => "is called again",
                Outcome::Cancelled => "cancelled",
            };
            self.trace.line(
                self.now,
                format_args!("{name}: {}/{partition} {} {said}", call.binding, call.id),
            );
            self.ledger.ended(call, &of_this);
            let ended = self.checks.call_ended(call, &of_this, &self.ledger);
            self.judge(ended);
        }
        let outcome = self.told(outcome, calls.len());
        if let Some(worker) = self.worker(host, handler, partition) {
            worker
                .consumer
                .handle(now, ConsumerEvent::Handled { messages, outcome });
        }
    }

    /// What the core is told of a call with so many messages.
    fn told(&self, outcome: Outcome, messages: usize) -> Outcome {
        match (self.mutation, outcome) {
            (Some(Mutation::BatchFailureBehind), Outcome::Retry { at, reason, after })
                if at + 1 < messages =>
            {
                let at = at + 1;
                Outcome::Retry { at, reason, after }
            }
            (Some(Mutation::BrokenBatchBlamed), Outcome::Broken { reason, .. }) if messages > 1 => {
                let (at, after) = (0, None);
                Outcome::Retry { at, reason, after }
            }
            (_, outcome) => outcome,
        }
    }

    /// What a handler changes: one more in its counter, which is read once per epoch, and a message to
    /// another stream.
    fn effects_of(
        &mut self,
        host: usize,
        handler: usize,
        partition: Partition,
        call: &Call,
        message: &Message,
    ) -> Effects {
        let stored = self.counter_of(call.binding, partition);
        let Some(worker) = self.worker(host, handler, partition) else {
            return Effects::default();
        };
        let known = worker.counter.filter(|(epoch, _)| *epoch == call.epoch);
        let counter = known.map_or(stored, |(_, counter)| counter) + 1;
        worker.counter = Some((call.epoch, counter));
        Effects {
            state: [(COUNTER.to_owned(), Some(counter.to_string().into_bytes()))].into(),
            emits: vec![Emit {
                to: check::TARGET.parse().expect("a name"),
                content: check::emitted(&message.content, call.binding, partition, counter),
            }],
        }
    }

    fn carry_out(&mut self, host: usize, handler: usize, partition: Partition, command: Command) {
        let shared = self.hosts[host].links.shared;
        let h = &mut self.hosts[host];
        let (name, Some(process)) = (&h.name, &mut h.process) else {
            return;
        };
        let member = process.member.clone();
        let supervisor = &mut process.supervisors[handler];
        let bound = &self.bindings[supervisor.binding];
        let (stream, group) = (&self.streams[bound.stream], &bound.group);
        match command {
            Command::Read { epoch, after, .. } => {
                supervisor.workers[partition.0 as usize].asked = Some((epoch, after));
                self.ask_read(host, handler, partition, (epoch, after));
            }
            Command::StopReading => self.forget_read(host, handler, partition),
            Command::Acquire { version } => {
                let request = Request::Acquire(Acquire {
                    stream: stream.clone(),
                    uid: supervisor.uid.clone(),
                    partition,
                    group: group.clone(),
                    owner: Owner {
                        incarnation: supervisor.incarnation.clone(),
                        member,
                        version,
                    },
                });
                self.ask(
                    host,
                    shared,
                    Purpose::Acquire { handler, partition },
                    request,
                );
            }
            Command::Commit(settled) => {
                let epoch = settled.fence.epoch;
                let emits = settled.emits.clone();
                let request = Request::Commit(Commit {
                    stream: stream.clone(),
                    partition,
                    group: group.clone(),
                    fence: settled.fence,
                    to: settled.to,
                    read: settled.read,
                    caught_up: settled.caught_up,
                    trim: settled.trim,
                    dead: settled.dead,
                    state: settled.state,
                    emits: settled.emits,
                    attempts: settled.attempts,
                    halt: settled.halt,
                    version: settled.version,
                });
                self.ask(
                    host,
                    shared,
                    Purpose::Commit {
                        handler,
                        partition,
                        epoch,
                        emits,
                    },
                    request,
                );
            }
            Command::Release { fence } => {
                let request = Request::Release(Release {
                    stream: stream.clone(),
                    partition,
                    group: group.clone(),
                    fence,
                });
                self.ask(
                    host,
                    shared,
                    Purpose::Release { handler, partition },
                    request,
                );
            }
            Command::Lost { why, refuse } => {
                let worker = &mut supervisor.workers[partition.0 as usize];
                worker.owes_report = true;
                worker.refuse |= refuse;
                self.trace.line(
                    self.now,
                    format_args!("{name}: lost {}/{partition}: {why}", supervisor.binding),
                );
            }
            Command::Broken { why } => {
                self.trace.line(
                    self.now,
                    format_args!("{name}: broken {}/{partition}: {why}", supervisor.binding),
                );
                if !self.plan.may_lose_groups() {
                    return self.defect(format!("partition {partition} is broken: {why}"));
                }
                let at = self.now + MENDED_AFTER;
                self.post(host, at, Input::Mend { handler, partition });
            }
            Command::Vanished { entries } => {
                self.trace.line(
                    self.now,
                    format_args!("{name}: {entries} entries vanished from {partition}"),
                );
            }
            Command::Halted { .. } | Command::Resumed => {
                self.trace.line(
                    self.now,
                    format_args!("{name}: {}/{partition} {command:?}", supervisor.binding),
                );
            }
            Command::DropInstance => {
                let worker = &mut supervisor.workers[partition.0 as usize];
                worker.claim = worker.consumer.claim();
                self.relay_event(host, handler, partition, relay::Event::Dropped);
            }
            // Seen to by the caller.
            Command::CancelCall | Command::Call { .. } => {}
        }
    }

    /// A partition that is broken, and whose member did not end for the same reason, is for an operator.
    pub(super) fn mend(&mut self, host: usize, handler: usize, partition: Partition) {
        let broken = |worker: &mut Worker| worker.consumer.phase() == Phase::Broken;
        if self.worker(host, handler, partition).is_some_and(broken) {
            self.exited(host, Some(handler), &Ending::Mended);
        }
    }
}

/// What the outcome of a call with so many messages means for one of them: nothing, if it is to be called
/// again as if it had not been.
fn of_one(outcome: &Outcome, this: usize, messages: usize) -> Outcome {
    match outcome {
        Outcome::Retry { at, .. } | Outcome::Reject { at, .. } if this < *at => {
            Outcome::Ok(Effects::default())
        }
        Outcome::Retry { at, .. } | Outcome::Reject { at, .. } if this > *at => Outcome::Cancelled,
        Outcome::Broken { .. } if messages > 1 => Outcome::Cancelled,
        outcome => outcome.clone(),
    }
}

/// Until an operator notices.
const MENDED_AFTER: u64 = 3_000_000;
