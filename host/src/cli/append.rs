//! Appends many messages: partitions side by side, each strictly in order, because nothing later may be
//! sent before a refused rest. Knows when to try again and when to stop; must not know where messages
//! come from or how the outcome is told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use segmenter_core::backoff::Backoff;
use segmenter_core::limits;
use segmenter_core::message::{Content, EntryId};
use segmenter_core::names::{Partition, Shape, StreamId, Uid};
use segmenter_core::partitioner;
use segmenter_core::port::{Append, AppendReply, Failure};

use super::jsonl::Numbered;

/// Between two tries at a full partition, or at a Redis that is away.
const BACKOFF: Backoff = Backoff {
    initial: Duration::from_millis(5),
    max: Duration::from_millis(500),
};

/// A message that the stream holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) line: u64,
    pub(super) partition: Partition,
    pub(super) id: EntryId,
}

/// Why a partition took no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stop {
    /// No room for the whole timeout.
    Full,
    /// Redis did not take anything for the whole timeout.
    Away(String),
    /// The messages of these lines may have been appended or not.
    Unknown { why: String, lines: Vec<u64> },
    /// Waiting does not mend it.
    Fatal(String),
    /// The stream was deleted, or deleted and created anew.
    Gone,
}

/// What became of a call.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// In the order of the lines.
    pub(super) accepted: Vec<Accepted>,
    /// Per partition that failed; empty if everything was accepted.
    pub(super) stopped: BTreeMap<Partition, Stop>,
    /// The first line that was surely or perhaps not appended.
    pub(super) first_left: Option<u64>,
}

pub(super) struct Appender<A> {
    /// Sends one append and answers what became of it.
    pub(super) send: A,
    pub(super) stream: StreamId,
    pub(super) uid: Uid,
    pub(super) shape: Shape,
    /// For a partition without any progress.
    pub(super) full_timeout: Duration,
}

impl<A, F> Appender<A>
where
    A: Fn(Append) -> F,
    F: Future<Output = Result<AppendReply, Failure>>,
{
    /// Ends when everything is accepted, or soon after one partition stopped: what is in the air is
    /// waited for, nothing more is sent.
    pub(super) async fn append(&self, messages: Vec<Numbered>) -> Outcome {
        let partitions = self.shape.partitions() as usize;
        let mut queues: Vec<Queue> = Vec::new();
        queues.resize_with(partitions, Queue::default);
        for Numbered { line, content } in messages {
            let partition = partitioner::partition(content.key(), self.shape);
            let queue = &mut queues[partition.0 as usize];
            queue.lines.push(line);
            queue.contents.push(content);
        }
        let stop = AtomicBool::new(false);
        let sending = queues
            .into_iter()
            .zip(self.shape.all())
            .filter(|(queue, _)| !queue.lines.is_empty())
            .map(|(queue, partition)| self.drain(partition, queue, &stop));
        let mut outcome = Outcome::default();
        for (partition, queue, ids, stopped) in futures_util::future::join_all(sending).await {
            let left = queue.lines.get(ids.len()).copied();
            outcome.first_left = outcome.first_left.into_iter().chain(left).min();
            outcome
                .accepted
                .extend(std::iter::zip(queue.lines, ids).map(|(line, id)| Accepted {
                    line,
                    partition,
                    id,
                }));
            outcome
                .stopped
                .extend(stopped.map(|stopped| (partition, stopped)));
        }
        outcome.accepted.sort_unstable_by_key(|one| one.line);
        outcome
    }

    async fn drain(
        &self,
        partition: Partition,
        queue: Queue,
        stop: &AtomicBool,
    ) -> (Partition, Queue, Vec<EntryId>, Option<Stop>) {
        let mut ids = Vec::with_capacity(queue.lines.len());
        let stopped = self.drain_into(partition, &queue, &mut ids, stop).await;
        if stopped.is_some() {
            stop.store(true, Ordering::Relaxed);
        }
        (partition, queue, ids, stopped)
    }

    async fn drain_into(
        &self,
        partition: Partition,
        queue: &Queue,
        ids: &mut Vec<EntryId>,
        stop: &AtomicBool,
    ) -> Option<Stop> {
        let mut refusals = 0u32;
        let mut progress = Instant::now();
        while ids.len() < queue.contents.len() && !stop.load(Ordering::Relaxed) {
            let left = &queue.contents[ids.len()..];
            let batch = first_batch(left);
            let reply = (self.send)(Append {
                stream: self.stream.clone(),
                uid: self.uid.clone(),
                partition,
                messages: left[..batch].to_vec(),
            })
            .await;
            let refused = match reply {
                Ok(AppendReply::Appended { ids: accepted }) => {
                    if !accepted.is_empty() {
                        progress = Instant::now();
                        refusals = 0;
                    }
                    let all = accepted.len() == batch;
                    ids.extend(accepted);
                    if all {
                        continue;
                    }
                    Stop::Full
                }
                Err(Failure::NotDone(why)) => Stop::Away(why),
                Ok(AppendReply::StreamGone) => return Some(Stop::Gone),
                Err(Failure::Fatal(why)) => return Some(Stop::Fatal(why)),
                Err(Failure::Unknown(why)) => {
                    let lines = queue.lines[ids.len()..ids.len() + batch].to_vec();
                    return Some(Stop::Unknown { why, lines });
                }
            };
            if progress.elapsed() >= self.full_timeout {
                return Some(refused);
            }
            refusals = refusals.saturating_add(1);
            let noise = u64::from(partition.0)
                .wrapping_mul(0x9e37_79b9)
                .wrapping_add(u64::from(refusals));
            tokio::time::sleep(BACKOFF.wait(refusals, noise)).await;
        }
        None
    }
}

/// Of one partition, side by side.
#[derive(Default)]
struct Queue {
    lines: Vec<u64>,
    contents: Vec<Content>,
}

/// How many of `messages` go into one script: bounded by count and bytes, at least one.
fn first_batch(messages: &[Content]) -> usize {
    let mut bytes = 0;
    let fits = messages
        .iter()
        .take(limits::APPEND_BATCH_MESSAGES_MAX)
        .take_while(|message| {
            bytes += message.bytes();
            bytes <= limits::APPEND_BATCH_BYTES_MAX
        });
    fits.count().max(1)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;

    use super::*;

    type Answer = Box<dyn Fn(&Append) -> Result<AppendReply, Failure>>;

    /// Answers from a script per partition, then accepts everything; remembers what it accepted.
    #[derive(Default)]
    struct Broker {
        script: RefCell<BTreeMap<u32, VecDeque<Answer>>>,
        held: RefCell<BTreeMap<u32, Vec<String>>>,
    }

    impl Broker {
        fn then(
            self,
            partition: u32,
            answer: impl Fn(&Append) -> Result<AppendReply, Failure> + 'static,
        ) -> Broker {
            let mut script = self.script.borrow_mut();
            script
                .entry(partition)
                .or_default()
                .push_back(Box::new(answer));
            drop(script);
            self
        }

        fn answer(&self, append: &Append) -> Result<AppendReply, Failure> {
            let partition = append.partition.0;
            let next = self
                .script
                .borrow_mut()
                .get_mut(&partition)
                .and_then(VecDeque::pop_front);
            let answer = next.map_or_else(|| accept(usize::MAX)(append), |next| next(append));
            if let Ok(AppendReply::Appended { ids }) = &answer {
                let mut held = self.held.borrow_mut();
                let payloads = append.messages.iter().take(ids.len()).map(payload);
                held.entry(partition).or_default().extend(payloads);
            }
            answer
        }
    }

    fn payload(content: &Content) -> String {
        String::from_utf8(content.payload().to_vec()).unwrap()
    }

    /// Takes the first `n`, with ids that tell the payload.
    fn accept(n: usize) -> impl Fn(&Append) -> Result<AppendReply, Failure> {
        move |append| {
            let ids = append.messages.iter().take(n).map(|content| EntryId {
                ms: payload(content).parse().unwrap(),
                seq: 0,
            });
            Ok(AppendReply::Appended { ids: ids.collect() })
        }
    }

    /// Line n has payload n; keys alternate between the partitions.
    fn messages(lines: u64, partitions: u32) -> Vec<Numbered> {
        let shape = Shape::new(partitions, 1).unwrap();
        let key_of = |p: u32| {
            (0..)
                .map(|i| format!("k{i}"))
                .find(|key| partitioner::partition(key, shape).0 == p)
                .unwrap()
        };
        let keys: Vec<String> = (0..partitions).map(key_of).collect();
        (1..=lines)
            .map(|line| Numbered {
                line,
                content: Content::new(
                    keys[line as usize % keys.len()].as_str(),
                    line.to_string().into_bytes(),
                    Vec::new(),
                    100,
                )
                .unwrap(),
            })
            .collect()
    }

    async fn run(broker: &Broker, lines: u64, full_timeout: Duration) -> Outcome {
        let appender = Appender {
            send: |append: Append| {
                let answer = broker.answer(&append);
                // As a real one: all partitions have sent before the first answer comes.
                async move {
                    tokio::task::yield_now().await;
                    answer
                }
            },
            stream: StreamId {
                namespace: "n".parse().unwrap(),
                stream: "s".parse().unwrap(),
            },
            uid: "u".parse().unwrap(),
            shape: Shape::new(2, 1).unwrap(),
            full_timeout,
        };
        appender.append(messages(lines, 2)).await
    }

    fn lines(outcome: &Outcome) -> Vec<u64> {
        outcome.accepted.iter().map(|one| one.line).collect()
    }

    #[tokio::test]
    async fn a_partition_that_refuses_gets_its_messages_in_order_and_answers_keep_the_input_order()
    {
        let away = |_: &Append| Err(Failure::NotDone("loading".to_owned()));
        let broker = Broker::default()
            .then(1, accept(100))
            .then(1, accept(0))
            .then(1, away)
            .then(1, accept(1));
        let outcome = run(&broker, 3_000, Duration::from_secs(60)).await;
        assert!(outcome.stopped.is_empty() && outcome.first_left.is_none());
        assert_eq!(lines(&outcome), (1..=3_000).collect::<Vec<_>>());
        assert!(outcome.accepted.iter().all(|one| one.id.ms == one.line));
        for (partition, first) in [(0, 2), (1, 1)] {
            let wanted: Vec<_> = (first..=3_000u64)
                .step_by(2)
                .map(|n| n.to_string())
                .collect();
            assert_eq!(broker.held.borrow()[&partition], wanted);
        }
    }

    #[tokio::test]
    async fn a_partition_without_room_for_the_whole_timeout_stops_the_call() {
        let broker = Broker::default().then(1, accept(3)).then(1, accept(0));
        let outcome = run(&broker, 10, Duration::ZERO).await;
        assert_eq!(
            outcome.stopped,
            BTreeMap::from([(Partition(1), Stop::Full)])
        );
        assert_eq!(outcome.first_left, Some(7));
        assert_eq!(lines(&outcome), [1, 2, 3, 4, 5, 6, 8, 10]);
    }

    #[tokio::test]
    async fn every_line_whose_answer_was_lost_is_told_and_nothing_is_sent_again() {
        let lost = |_: &Append| Err(Failure::Unknown("cut".to_owned()));
        let broker = Broker::default().then(0, lost).then(1, lost);
        let outcome = run(&broker, 6, Duration::from_secs(60)).await;
        let lost = |lines: &[u64]| Stop::Unknown {
            why: "cut".to_owned(),
            lines: lines.to_vec(),
        };
        assert_eq!(outcome.stopped[&Partition(0)], lost(&[2, 4, 6]));
        assert_eq!(outcome.stopped[&Partition(1)], lost(&[1, 3, 5]));
        assert_eq!((lines(&outcome), outcome.first_left), (vec![], Some(1)));
        assert!(broker.held.borrow().is_empty());
    }

    #[tokio::test]
    async fn what_is_fatal_in_one_partition_stops_the_others_after_what_is_in_the_air() {
        let broker =
            Broker::default().then(0, |_: &Append| Err(Failure::Fatal("NOPERM".to_owned())));
        // More than one batch for partition 1: its second is not sent.
        let outcome = run(&broker, 2_000, Duration::from_secs(60)).await;
        assert_eq!(
            outcome.stopped,
            BTreeMap::from([(Partition(0), Stop::Fatal("NOPERM".to_owned()))])
        );
        assert!(outcome.accepted.len() <= limits::APPEND_BATCH_MESSAGES_MAX);
        let broker = Broker::default().then(1, |_: &Append| Ok(AppendReply::StreamGone));
        let outcome = run(&broker, 4, Duration::from_secs(60)).await;
        assert_eq!(outcome.stopped[&Partition(1)], Stop::Gone);
    }

    #[test]
    fn a_batch_is_bounded_by_count_and_bytes_but_never_empty() {
        let sized = |bytes: usize| Content::new("", vec![0; bytes], Vec::new(), bytes).unwrap();
        assert_eq!(
            first_batch(&vec![sized(1); 2_000]),
            limits::APPEND_BATCH_MESSAGES_MAX
        );
        let third = limits::APPEND_BATCH_BYTES_MAX / 3;
        assert_eq!(first_batch(&vec![sized(third); 5]), 3);
        assert_eq!(first_batch(&[sized(2 * limits::APPEND_BATCH_BYTES_MAX)]), 1);
    }
}
