//! One partition in a task: carries out what the core's consumer asks for and tells it what came of it.
//! It decides nothing itself, and must not know Wasm or Redis' commands.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use segmenter_core::batch::Batch;
use segmenter_core::consumer::{By, Claim, Command, Consumer, Event, Settled};
use segmenter_core::lease::{Epoch, Owner};
use segmenter_core::names::{GroupName, Incarnation, MemberId, Partition, StreamId, Uid};
use segmenter_core::outcome::{Fault, Outcome};
use segmenter_core::port::{
    Acquire, AcquireReply, Commit, CommitReply, Failure, Release, Reply, Request,
};
use segmenter_core::relay;
use segmenter_core::time::{Duration, Time};
use segmenter_redis::{Broker, Reader};
use tokio::sync::{mpsc, watch};

use super::clock;
use super::handler::{CallLimits, Diagnosis, Handler, Instance};
use super::lineup::{self, Counting, Live, Published, Running};
use super::shadow::Shadowing;
use super::telemetry;
use super::{Plan, Say};

/// Messages between two looks at the other tasks of the thread.
const MESSAGES_PER_TURN: usize = 32;

/// Beyond a call's deadline: for a cancel to take effect.
const CALL_GRACE: Duration = Duration::from_secs(5);

/// What all partitions of one handler share.
pub(super) struct Shared {
    pub(super) plan: Plan,
    pub(super) uid: Uid,
    pub(super) incarnation: Incarnation,
    pub(super) member: MemberId,
    pub(super) broker: Broker,
    pub(super) say: Say,
    /// End of the member's trust window.
    pub(super) trust: watch::Receiver<Time>,
    /// Partitions that are held no more.
    pub(super) dropped: mpsc::UnboundedSender<Dropped>,
}

/// A partition that is held no more.
pub(super) struct Dropped {
    pub(super) partition: Partition,
    /// The broker refused it for too long.
    pub(super) refuse: bool,
}

/// How the supervisor reaches a worker. The channel holds one answer per request in the air and what
/// the supervisor says: bounded by the protocol.
#[derive(Clone)]
pub(super) struct Mailbox {
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) claim: Arc<Mutex<Option<Claim>>>,
    /// When the call in the air is to have ended, in µs; 0: there is none.
    calling_until: Arc<AtomicU64>,
}

impl Mailbox {
    pub(super) fn new() -> (Mailbox, mpsc::UnboundedReceiver<Event>) {
        let (events, inbox) = mpsc::unbounded_channel();
        let mailbox = Mailbox {
            events,
            claim: Arc::default(),
            calling_until: Arc::default(),
        };
        (mailbox, inbox)
    }
    /// A call that runs for longer cannot be cancelled.
    pub(super) fn calling_until(&self) -> Option<Time> {
        Some(Time(self.calling_until.load(Ordering::Relaxed))).filter(|until| *until != Time::ZERO)
    }
    fn set_claim(&self, claim: Option<Claim>) {
        *self.claim.lock().expect("never panics while held") = claim;
    }
    pub(super) fn claim(&self) -> Option<Claim> {
        *self.claim.lock().expect("never panics while held")
    }
}

pub(super) struct Worker<H: Handler> {
    shared: Arc<Shared>,
    partition: Partition,
    consumer: Consumer,
    mailbox: Mailbox,
    inbox: mpsc::UnboundedReceiver<Event>,
    reader: Arc<Reader>,
    trust: watch::Receiver<Time>,
    relay: mpsc::UnboundedSender<relay::Event>,
    published: Published<H>,
    running: Running<H>,
    counting: Counting,
    /// Of the epoch that the last call was made in.
    tenure: Option<(Epoch, H::Tenure)>,
    instance: Option<H::Instance>,
    /// Whose instance it is.
    instance_by: By,
    shadow: Option<Shadowing<H>>,
    /// The supervisor waits to hear that nothing is held.
    owes_report: bool,
    refuse: bool,
    /// Messages since the other tasks had theirs.
    turn: usize,
}

impl<H: Handler> Worker<H> {
    pub(super) fn new(
        shared: Arc<Shared>,
        consumer: Consumer,
        partition: Partition,
        (mailbox, inbox): (Mailbox, mpsc::UnboundedReceiver<Event>),
        reader: Arc<Reader>,
        relay: mpsc::UnboundedSender<relay::Event>,
        (published, running): (Published<H>, Running<H>),
    ) -> Worker<H> {
        let trust = shared.trust.clone();
        Worker {
            shared,
            partition,
            consumer,
            mailbox,
            inbox,
            reader,
            trust,
            relay,
            published,
            shadow: running.shadow.clone().map(Shadowing::new),
            running,
            counting: Counting::default(),
            tenure: None,
            instance: None,
            instance_by: By::Running,
            owes_report: false,
            refuse: false,
            turn: 0,
        }
    }

    /// Until the supervisor is gone.
    pub(super) async fn run(mut self) {
        loop {
            self.swap();
            while let Some(command) = self.next_command() {
                match command {
                    Command::Call {
                        epoch,
                        messages,
                        by,
                    } => {
                        self.call(epoch, messages, by).await;
                        self.swap();
                    }
                    other => self.carry_out(other),
                }
                // Answers that are there already make batches smaller and reads earlier.
                while let Ok(event) = self.inbox.try_recv() {
                    self.take(event);
                }
            }
            if self.owes_report && self.consumer.is_idle() {
                self.owes_report = false;
                let _ = self.shared.dropped.send(Dropped {
                    partition: self.partition,
                    refuse: std::mem::take(&mut self.refuse),
                });
            }
            self.counting.flush(&self.running.live);
            let trust_until = *self.trust.borrow_and_update();
            let wake = self.consumer.poll_timeout(clock::now(), trust_until);
            tokio::select! {
                biased;
                event = self.inbox.recv() => match event {
                    Some(event) => self.take(event),
                    None => return,
                },
                changed = self.trust.changed() => if changed.is_err() { return },
                // Also where no message comes: the lease says what runs.
                Ok(()) = self.published.changed() => self.published.mark_changed(),
                () = clock::sleep_until(wake) => {}
            }
        }
    }

    /// Takes what was published since; only between two calls.
    fn swap(&mut self) {
        if !self.published.has_changed().unwrap_or(false) {
            return;
        }
        let next = lineup::now(&mut self.published, self.partition);
        self.counting.flush(&self.running.live);
        if !Arc::ptr_eq(&next.live, &self.running.live) || self.instance_by == By::Instead {
            self.instance = None;
        }
        let same = match (&self.shadow, &next.shadow) {
            (Some(has), Some(next)) => has.is_of(next),
            (has, next) => has.is_none() && next.is_none(),
        };
        if !same {
            self.shadow = next.shadow.clone().map(Shadowing::new);
        }
        self.running = next;
        self.take(Event::Runs(self.running.runs()));
    }

    fn next_command(&mut self) -> Option<Command> {
        let trust_until = *self.trust.borrow();
        self.consumer.poll(clock::now(), trust_until)
    }

    fn take(&mut self, event: Event) {
        self.take_at(clock::now(), event);
    }

    fn take_at(&mut self, now: Time, event: Event) {
        if matches!(event, Event::Revoked | Event::Cut) {
            self.owes_report = true;
        }
        if let Event::Acquired(Ok(AcquireReply::Acquired { epoch, .. })) = &event {
            let _ = self.relay.send(relay::Event::Held { epoch: *epoch });
        }
        let moves_claim = !matches!(event, Event::Entries { .. } | Event::Handled { .. });
        self.consumer.handle(now, event);
        if moves_claim {
            self.mailbox.set_claim(self.consumer.claim());
        }
    }

    /// One call, while answers and orders go on being heard.
    async fn call(&mut self, epoch: Epoch, messages: Batch, by: By) {
        self.turn += messages.count();
        if self.turn >= MESSAGES_PER_TURN {
            self.turn = 0;
            self.counting.flush(&self.running.live);
            tokio::task::yield_now().await;
        }
        let live = match (by, &self.running.instead) {
            (By::Instead, Some(instead)) => instead.clone(),
            _ => self.running.live.clone(),
        };
        if by != self.instance_by {
            self.instance = None;
            self.instance_by = by;
        }
        let kept = self.tenure.take().filter(|(of, _)| *of == epoch);
        let tenure = kept.unwrap_or_else(|| (epoch, live.handler.tenure(self.partition, epoch)));
        // Before the live call, so that both begin with the same state.
        let rehearsed = match self.shadow.as_ref().is_some_and(Shadowing::is_called) {
            true => Box::pin(self.rehearse(&tenure.1, &messages)).await,
            false => None,
        };
        let mut instance = self.instance.take().filter(|instance| !instance.is_dead());
        let limits = live.handler.limits();
        let started = self.calls(limits);
        let outcome = match &rehearsed {
            Some(Outcome::Cancelled) => Outcome::Cancelled,
            _ => {
                let call = one_call(&live.handler, &tenure.1, &mut instance, &messages);
                let slow = (&messages, started, limits.deadline);
                let outcome = self.attend(call, Some(slow)).await;
                outcome.unwrap_or(Outcome::Cancelled)
            }
        };
        self.mailbox.calling_until.store(0, Ordering::Relaxed);
        self.tenure = Some(tenure);
        if outcome == Outcome::Cancelled {
            instance = None;
        }
        let diagnosis = instance.as_mut().map(Instance::diagnosis);
        self.report(&live, &messages, &outcome, diagnosis.unwrap_or_default());
        if let Some(rehearsed) = rehearsed {
            self.compare(&messages, &outcome, &rehearsed);
        }
        // Also one that is to be recycled: what it holds is free from now on.
        self.instance = instance.filter(|instance| !instance.is_dead());
        let now = clock::now();
        self.count(&live, by, &messages, &outcome, now.since(started));
        self.take_at(now, Event::Handled { messages, outcome });
    }

    /// What the shadow does with the same messages; `Cancelled`: the live version is not to be called either.
    async fn rehearse(&mut self, tenure: &H::Tenure, messages: &Batch) -> Option<Outcome> {
        let mut shadow = self.shadow.take()?;
        let started = self.calls(shadow.limits());
        let outcome = self.attend(shadow.call(tenure, messages), None).await;
        // What was to be heard at its end, above all that the trust window is over.
        let cut_off = outcome.is_none() || self.is_cut_off();
        let outcome = outcome.filter(|_| !cut_off).unwrap_or(Outcome::Cancelled);
        if cut_off {
            shadow.drop_instance();
        }
        shadow.ended(messages.count(), &outcome, clock::now().since(started));
        self.shadow = Some(shadow);
        Some(outcome)
    }

    fn compare(&mut self, messages: &Batch, live: &Outcome, rehearsed: &Outcome) {
        let Some(shadow) = &mut self.shadow else {
            return;
        };
        if let Some(why) = shadow.compare(messages, live, rehearsed) {
            self.shared.say.event(&telemetry::Event::ShadowStopped {
                handler: self.shared.plan.handler.as_str(),
                partition: self.partition.0,
                version: shadow.version(),
                why: &why,
            });
        }
    }

    /// A call begins, under these limits.
    fn calls(&self, limits: CallLimits) -> Time {
        let started = clock::now();
        let until = started + limits.instantiate + limits.deadline + CALL_GRACE;
        self.mailbox.calling_until.store(until.0, Ordering::Relaxed);
        started
    }

    /// Waits for a call, while answers and orders go on being heard; `None`: it is cut off. `slow`: whose
    /// it is, since when and how long it may take, if that is to be told at half of it.
    async fn attend<T>(
        &mut self,
        call: impl Future<Output = T>,
        slow: Option<(&Batch, Time, Duration)>,
    ) -> Option<T> {
        let mut call = pin!(call);
        let mut slow_at = slow.map(|(_, started, deadline)| started + deadline / 2);
        loop {
            let trust_until = *self.trust.borrow();
            let wake = self.consumer.poll_timeout(clock::now(), trust_until);
            // Whichever is first; a call that ends at once starts no timer.
            let wake = wake.into_iter().chain(slow_at).min();
            tokio::select! {
                biased;
                outcome = &mut call => return Some(outcome),
                event = self.inbox.recv() => match event {
                    Some(event) => self.take(event),
                    None => return None,
                },
                changed = self.trust.changed() => if changed.is_err() {
                    return None;
                },
                () = clock::sleep_until(wake) => {}
            }
            if let (Some((messages, started, deadline)), true) = (slow, clock::passed(slow_at)) {
                slow_at = None;
                self.warn_of_slow(messages, started, deadline);
            }
            if self.is_cut_off() {
                return None;
            }
        }
    }

    /// Carries out what came up during a call.
    fn is_cut_off(&mut self) -> bool {
        let mut cut_off = false;
        while let Some(command) = self.next_command() {
            match command {
                Command::CancelCall => cut_off = true,
                other => self.carry_out(other),
            }
        }
        cut_off
    }

    fn count(
        &mut self,
        live: &Live<H>,
        by: By,
        messages: &Batch,
        outcome: &Outcome,
        took: Duration,
    ) {
        if by == By::Running {
            self.counting.ended(messages.count(), outcome, took);
            if !matches!(outcome, Outcome::Ok(_)) {
                self.counting.flush(live);
            }
            return;
        }
        let mut counting = Counting::default();
        counting.ended(messages.count(), outcome, took);
        counting.flush(live);
        if matches!(outcome, Outcome::Ok(_)) && self.consumer.overrules(messages.first().id) {
            lineup::overruled(&self.running.live);
        }
    }

    fn warn_of_slow(&self, messages: &Batch, started: Time, deadline: Duration) {
        let message = messages.first();
        self.shared.say.event(&telemetry::Event::HandlerSlow {
            handler: self.shared.plan.handler.as_str(),
            partition: self.partition.0,
            id: message.id,
            attempt: message.attempt,
            messages: messages.count(),
            key: message.content.key(),
            elapsed_ms: clock::now().since(started).as_millis() as u64,
            deadline_ms: deadline.as_millis() as u64,
        });
    }

    fn report(&self, live: &Live<H>, messages: &Batch, outcome: &Outcome, diagnosis: Diagnosis) {
        let count = messages.count();
        // Of a batch that broke, its first message stands for all.
        let (outcome, reason, at, messages_failed) = match outcome {
            Outcome::Ok(_) | Outcome::Cancelled => return,
            Outcome::Retry { at, reason, .. } => ("retry", reason, *at, 1),
            Outcome::Reject { at, reason } => ("reject", reason, *at, 1),
            Outcome::Broken { fault, reason } => (fault.as_str(), reason, 0, count),
        };
        let message = messages.get(at).unwrap_or(messages.last());
        self.shared.say.event(&telemetry::Event::HandlerFailed {
            handler: self.shared.plan.handler.as_str(),
            partition: self.partition.0,
            id: message.id,
            attempt: message.attempt,
            messages: messages_failed,
            key: message.content.key(),
            version: live.handler.version().as_str(),
            outcome,
            reason,
            backtrace: diagnosis.backtrace.as_deref(),
            core_dump: diagnosis.core_dump.as_deref(),
        });
    }

    /// All commands but the call and its cancel. Requests run in tasks of their own and answer by
    /// event; what several partitions ask for at once travels in one write of the shared connection.
    fn carry_out(&mut self, command: Command) {
        let (shared, partition) = (self.shared.clone(), self.partition);
        let plan = &shared.plan;
        match command {
            Command::Read { epoch, after, room } => {
                self.reader.ask(partition, epoch, after, room);
            }
            Command::StopReading => self.reader.forget(partition),
            Command::Acquire { version } => {
                let request = Request::Acquire(Acquire {
                    stream: plan.stream.clone(),
                    uid: shared.uid.clone(),
                    partition,
                    group: plan.group.clone(),
                    owner: Owner {
                        incarnation: shared.incarnation.clone(),
                        member: shared.member.clone(),
                        version,
                    },
                });
                self.ask(request, |reply| match reply {
                    Ok(Reply::Acquire(reply)) => Event::Acquired(Ok(reply)),
                    other => Event::Acquired(Err(no_answer(other))),
                });
            }
            Command::Commit(settled) => {
                let epoch = settled.fence.epoch;
                let emits = settled.emits.clone();
                let relay = self.relay.clone();
                let request = commit(&plan.stream, &plan.group, partition, settled);
                self.ask(request, move |reply| {
                    let result = match reply {
                        Ok(Reply::Commit(reply)) => Ok(reply),
                        other => Err(no_answer(other)),
                    };
                    // Before the consumer hears of it: the next commit must not overtake this one.
                    if !emits.is_empty() && matches!(result, Ok(CommitReply::Committed { .. })) {
                        let _ = relay.send(relay::Event::Committed { epoch, emits });
                    }
                    Event::Committed { epoch, result }
                });
            }
            Command::Release { fence } => {
                let request = Request::Release(Release {
                    stream: plan.stream.clone(),
                    partition,
                    group: plan.group.clone(),
                    fence,
                });
                self.ask(request, |reply| match reply {
                    Ok(Reply::Release(reply)) => Event::Released(Ok(reply)),
                    other => Event::Released(Err(no_answer(other))),
                });
            }
            Command::Lost { why, refuse } => {
                self.owes_report = true;
                self.refuse |= refuse;
                shared.say.event(&telemetry::Event::PartitionLost {
                    handler: plan.handler.as_str(),
                    partition: partition.0,
                    why: &why,
                });
            }
            Command::Broken { why } => shared.say.event(&telemetry::Event::PartitionBroken {
                handler: plan.handler.as_str(),
                partition: partition.0,
                why: &why,
            }),
            Command::Halted { reason } => {
                shared.say.event(&telemetry::Event::PartitionHalted {
                    handler: plan.handler.as_str(),
                    partition: partition.0,
                    reason: &reason,
                });
            }
            Command::Resumed => shared.say.event(&telemetry::Event::PartitionResumed {
                handler: plan.handler.as_str(),
                partition: partition.0,
            }),
            Command::Vanished { entries } => shared.say.event(&telemetry::Event::EntriesVanished {
                handler: plan.handler.as_str(),
                partition: partition.0,
                entries,
            }),
            Command::DropInstance => {
                self.instance = None;
                if let Some(shadow) = &mut self.shadow {
                    shadow.drop_instance();
                }
                self.tenure = None;
                let _ = self.relay.send(relay::Event::Dropped);
                self.mailbox.set_claim(self.consumer.claim());
            }
            // No call is in the air, or the caller sees to it.
            Command::CancelCall | Command::Call { .. } => {}
        }
    }

    fn ask(
        &self,
        request: Request,
        event: impl FnOnce(Result<Reply, Failure>) -> Event + Send + 'static,
    ) {
        let broker = self.shared.broker.clone();
        let events = self.mailbox.events.clone();
        tokio::spawn(async move {
            let reply = broker.execute(request).await;
            let _ = events.send(event(reply));
        });
    }
}

async fn one_call<H: Handler>(
    handler: &H,
    tenure: &H::Tenure,
    instance: &mut Option<H::Instance>,
    messages: &Batch,
) -> Outcome {
    let alive = match instance {
        Some(instance) => instance,
        None => match handler.instantiate(tenure).await {
            Ok(new) => instance.insert(new),
            Err(reason) => {
                return Outcome::Broken {
                    fault: Fault::Instantiate,
                    reason,
                };
            }
        },
    };
    alive.call(messages).await
}

fn commit(stream: &StreamId, group: &GroupName, partition: Partition, settled: Settled) -> Request {
    let Settled {
        fence,
        to,
        read,
        caught_up,
        trim,
        dead,
        state,
        emits,
        attempts,
        halt,
        version,
    } = settled;
    let (stream, group) = (stream.clone(), group.clone());
    Request::Commit(Commit {
        stream,
        partition,
        group,
        fence,
        to,
        read,
        caught_up,
        trim,
        dead,
        state,
        emits,
        attempts,
        halt,
        version,
    })
}

fn no_answer(reply: Result<Reply, Failure>) -> Failure {
    match reply {
        Err(failure) => failure,
        Ok(other) => odd(&other),
    }
}

/// The reply of another request: a defect of the adapter, which waiting will not mend.
pub(super) fn odd(reply: &Reply) -> Failure {
    Failure::Fatal(format!("the broker answered something else: {reply:?}"))
}
