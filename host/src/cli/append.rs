//! Appends many messages: partitions side by side, each strictly in order, because nothing later may be
//! sent before a refused rest. Knows when to try again and when to stop; must not know where messages
//! come from or how the outcome is told.
//!
//! Messages that their producer numbered may be sent again whatever became of them, so a lost answer does
//! not end the call. What a partition has accepted is said to it with every further append: if it lost
//! that, it takes nothing, because it would take what is lost for done once it has something later.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use segmenter_core::backoff::Backoff;
use segmenter_core::limits;
use segmenter_core::message::{Content, EntryId};
use segmenter_core::names::{Partition, ProducerName, Sender, Shape, StreamId, Uid};
use segmenter_core::partitioner;
use segmenter_core::port::{
    Append, AppendFrom, AppendFromReply, AppendReply, Failure, Reply, Request, Sourced,
};

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
    /// `None`: it was there already.
    pub(super) id: Option<EntryId>,
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
    /// What it had accepted is not there any more: Redis lost its last writes.
    Behind,
    /// It remembers as many producers as it may.
    Crowded,
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

impl Outcome {
    /// How many of the accepted were there already.
    pub(super) fn duplicates(&self) -> u64 {
        self.accepted.iter().filter(|one| one.id.is_none()).count() as u64
    }
}

pub(super) struct Appender<A> {
    /// Sends one append and answers what became of it.
    pub(super) send: A,
    pub(super) stream: StreamId,
    pub(super) uid: Uid,
    pub(super) shape: Shape,
    /// Who numbers the messages; then every message has a number, and they rise.
    pub(super) producer: Option<ProducerName>,
    /// For a partition without any progress.
    pub(super) full_timeout: Duration,
    /// The last number that each partition has for sure.
    pub(super) there: RefCell<BTreeMap<Partition, u64>>,
}

/// One per accepted message, `None`: it was there already; or why there will be none.
type Taken = Result<Vec<Option<EntryId>>, Stop>;

impl<A, F> Appender<A>
where
    A: Fn(Request) -> F,
    F: Future<Output = Result<Reply, Failure>>,
{
    /// Ends when everything is accepted, or soon after one partition stopped: what is in the air is
    /// waited for, nothing more is sent.
    pub(super) async fn append(&self, messages: Vec<Numbered>) -> Outcome {
        let partitions = self.shape.partitions() as usize;
        let mut queues: Vec<Queue> = Vec::new();
        queues.resize_with(partitions, Queue::default);
        for Numbered { line, id, content } in messages {
            let partition = partitioner::partition(content.key(), self.shape);
            let queue = &mut queues[partition.0 as usize];
            queue.lines.push(line);
            queue.numbers.push(id.unwrap_or_default());
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
    ) -> (Partition, Queue, Vec<Option<EntryId>>, Option<Stop>) {
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
        ids: &mut Vec<Option<EntryId>>,
        stop: &AtomicBool,
    ) -> Option<Stop> {
        let mut refusals = 0u32;
        let mut progress = Instant::now();
        while ids.len() < queue.contents.len() && !stop.load(Ordering::Relaxed) {
            let batch = ids.len()..ids.len() + first_batch(&queue.contents[ids.len()..]);
            let request = self.request(partition, queue, batch.clone());
            let refused = match (self.send)(request).await.map(taken) {
                Ok(Ok(accepted)) => {
                    if let Some(last) = (batch.start + accepted.len()).checked_sub(1)
                        && !accepted.is_empty()
                    {
                        progress = Instant::now();
                        refusals = 0;
                        let mut there = self.there.borrow_mut();
                        there.insert(partition, queue.numbers[last]);
                    }
                    let all = accepted.len() == batch.len();
                    ids.extend(accepted);
                    if all {
                        continue;
                    }
                    Stop::Full
                }
                Ok(Err(stop)) => return Some(stop),
                Err(Failure::NotDone(why)) => Stop::Away(why),
                Err(Failure::Fatal(why)) => return Some(Stop::Fatal(why)),
                // With a number it is the same as not done: it can be sent again.
                Err(Failure::Unknown(why)) if self.producer.is_some() => Stop::Away(why),
                Err(Failure::Unknown(why)) => {
                    let lines = queue.lines[batch].to_vec();
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

    fn request(&self, partition: Partition, queue: &Queue, batch: Range<usize>) -> Request {
        let (stream, uid) = (self.stream.clone(), self.uid.clone());
        let contents = queue.contents[batch.clone()].iter().cloned();
        let Some(producer) = &self.producer else {
            return Request::Append(Append {
                stream,
                uid,
                partition,
                messages: contents.collect(),
            });
        };
        let numbered = std::iter::zip(&queue.numbers[batch], contents);
        Request::AppendFrom(AppendFrom {
            stream,
            uid,
            partition,
            source: Sender::producer(producer),
            after: self.there.borrow().get(&partition).copied().map(stamp),
            messages: numbered
                .map(|(number, content)| Sourced {
                    stamp: stamp(*number),
                    content,
                    only: None,
                })
                .collect(),
        })
    }
}

/// A producer's number as a stamp: it has no epochs.
fn stamp(number: u64) -> EntryId {
    EntryId { ms: 0, seq: number }
}

fn taken(reply: Reply) -> Taken {
    match reply {
        Reply::Append(AppendReply::Appended { ids }) => Ok(ids.into_iter().map(Some).collect()),
        Reply::AppendFrom(AppendFromReply::Accepted { ids }) => Ok(ids),
        Reply::Append(AppendReply::StreamGone) => Err(Stop::Gone),
        Reply::AppendFrom(AppendFromReply::StreamGone) => Err(Stop::Gone),
        Reply::AppendFrom(AppendFromReply::Behind) => Err(Stop::Behind),
        Reply::AppendFrom(AppendFromReply::Crowded) => Err(Stop::Crowded),
        other => Err(Stop::Fatal(format!(
            "the broker answered something else: {other:?}"
        ))),
    }
}

/// Of one partition, side by side.
#[derive(Default)]
struct Queue {
    lines: Vec<u64>,
    /// That their producer gave them, if it did.
    numbers: Vec<u64>,
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
                id: Some(100 + line),
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

    fn appender<A>(send: A, producer: Option<&str>, full_timeout: Duration) -> Appender<A> {
        Appender {
            send,
            stream: StreamId {
                namespace: "n".parse().unwrap(),
                stream: "s".parse().unwrap(),
            },
            uid: "u".parse().unwrap(),
            shape: Shape::new(2, 1).unwrap(),
            producer: producer.map(|name| name.parse().unwrap()),
            full_timeout,
            there: RefCell::default(),
        }
    }

    async fn run(broker: &Broker, lines: u64, full_timeout: Duration) -> Outcome {
        let send = |request: Request| {
            let Request::Append(append) = request else {
                panic!("{request:?}");
            };
            let answer = broker.answer(&append).map(Reply::Append);
            // As a real one: all partitions have sent before the first answer comes.
            async move {
                tokio::task::yield_now().await;
                answer
            }
        };
        let appender = appender(send, None, full_timeout);
        appender.append(messages(lines, 2)).await
    }

    /// What a numbered append asked: partition, what is there for sure, first and last number.
    type Asked = (u32, Option<u64>, u64, u64);

    /// Sends `calls` after one another as the producer `p`, answered by `answers` in their order.
    async fn run_numbered(
        calls: Vec<Vec<Numbered>>,
        answers: Vec<Result<AppendFromReply, Failure>>,
        full_timeout: Duration,
    ) -> (Vec<Asked>, Vec<Outcome>) {
        let asked = RefCell::new(Vec::new());
        let answers = RefCell::new(VecDeque::from(answers));
        let send = |request: Request| {
            let Request::AppendFrom(append) = request else {
                panic!("{request:?}");
            };
            assert_eq!(append.source.as_str(), "producer:p");
            let number = |at: usize| append.messages[at].stamp.seq;
            asked.borrow_mut().push((
                append.partition.0,
                append.after.map(|stamp| stamp.seq),
                number(0),
                number(append.messages.len() - 1),
            ));
            let answer = answers.borrow_mut().pop_front().expect("an answer");
            async move { answer.map(Reply::AppendFrom) }
        };
        let appender = appender(send, Some("p"), full_timeout);
        let mut outcomes = Vec::new();
        for call in calls {
            outcomes.push(appender.append(call).await);
        }
        drop(appender);
        (asked.into_inner(), outcomes)
    }

    fn ids(ids: &[Option<u64>]) -> Result<AppendFromReply, Failure> {
        let id = |ms: &Option<u64>| ms.map(|ms| EntryId { ms, seq: 0 });
        let ids = ids.iter().map(id).collect();
        Ok(AppendFromReply::Accepted { ids })
    }

    /// One line of partition 0 for each number.
    fn of_one_partition(lines: std::ops::RangeInclusive<u64>) -> Vec<Numbered> {
        let all = messages(2 * lines.end(), 2).into_iter();
        let even = all.filter(|message| message.line % 2 == 0);
        even.map(|message| Numbered {
            line: message.line / 2,
            id: Some(100 + message.line / 2),
            ..message
        })
        .filter(|message| lines.contains(&message.line))
        .collect()
    }

    #[tokio::test]
    async fn what_is_numbered_is_sent_again_when_an_answer_was_lost() {
        let (asked, outcomes) = run_numbered(
            vec![of_one_partition(1..=3), of_one_partition(4..=4)],
            vec![
                Err(Failure::Unknown("cut".to_owned())),
                Err(Failure::NotDone("loading".to_owned())),
                // The first arrived although its answer was lost, and the partition is full.
                ids(&[None, Some(7)]),
                ids(&[Some(8)]),
                ids(&[Some(9)]),
            ],
            Duration::from_secs(60),
        )
        .await;
        let expected = [
            (0, None, 101, 103),
            (0, None, 101, 103),
            (0, None, 101, 103),
            (0, Some(102), 103, 103),
            (0, Some(103), 104, 104),
        ];
        assert_eq!(asked, expected);
        let first: Vec<_> = outcomes[0].accepted.iter().map(|one| one.id).collect();
        let id = |ms| Some(EntryId { ms, seq: 0 });
        assert_eq!(first, [None, id(7), id(8)]);
        assert!(outcomes.iter().all(|outcome| outcome.stopped.is_empty()));
    }

    #[tokio::test]
    async fn lost_answers_of_numbered_messages_end_at_the_timeout() {
        let lost = Err(Failure::Unknown("cut".to_owned()));
        let call = vec![of_one_partition(1..=3)];
        let (_, outcomes) = run_numbered(call, vec![lost], Duration::ZERO).await;
        let stopped = &outcomes[0].stopped[&Partition(0)];
        assert_eq!(*stopped, Stop::Away("cut".to_owned()));
        assert_eq!(outcomes[0].first_left, Some(1));
    }

    #[tokio::test]
    async fn a_partition_that_lost_what_it_accepted_gets_nothing_more() {
        let (asked, outcomes) = run_numbered(
            vec![of_one_partition(1..=2), of_one_partition(3..=4)],
            vec![ids(&[Some(1), Some(2)]), Ok(AppendFromReply::Behind)],
            Duration::from_secs(60),
        )
        .await;
        assert_eq!(asked[1], (0, Some(102), 103, 104));
        assert_eq!(outcomes[1].stopped[&Partition(0)], Stop::Behind);
        assert_eq!(outcomes[1].first_left, Some(3));
        let call = vec![of_one_partition(1..=1)];
        let crowded = vec![Ok(AppendFromReply::Crowded)];
        let (_, outcomes) = run_numbered(call, crowded, Duration::from_secs(60)).await;
        assert_eq!(outcomes[0].stopped[&Partition(0)], Stop::Crowded);
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
        let told = |one: &Accepted| one.id.map(|id| id.ms) == Some(one.line);
        assert!(outcome.accepted.iter().all(told));
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
