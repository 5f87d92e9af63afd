//! A producer, as `segmenter send`: partitions side by side, each strictly in order, because nothing later
//! may be sent before a refused rest. What was lost on the way is unknown, and never sent again.

use std::collections::VecDeque;

use segmenter_core::message::Content;
use segmenter_core::names::{Partition, Uid};
use segmenter_core::partitioner;
use segmenter_core::port::{Append, AppendReply, Failure, Register, RegisterReply, Reply, Request};

use super::ledger::Fate;
use super::mutation::Mutation;
use super::net::{Asker, LinkId};
use super::world::{Event, World};

#[derive(Debug)]
pub(super) struct Producer {
    pub(super) stream: usize,
    pub(super) link: LinkId,
    /// `None`: not known yet, or the stream is another one by now.
    uid: Option<Uid>,
    /// How many it is still to make.
    pub(super) left: usize,
    queues: Vec<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<usize>,
    in_air: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Purpose {
    Register,
    Append {
        partition: Partition,
        messages: Vec<usize>,
    },
}

/// What wakes it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wake {
    Make,
    Register,
    Append(Partition),
}

impl Producer {
    pub(super) fn new(stream: usize, link: LinkId, left: usize, partitions: u32) -> Producer {
        let mut queues = Vec::new();
        queues.resize_with(partitions as usize, Queue::default);
        Producer {
            stream,
            link,
            uid: None,
            left,
            queues,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.left == 0
            && self
                .queues
                .iter()
                .all(|q| q.messages.is_empty() && !q.in_air)
    }
}

impl World {
    pub(super) fn wake_producer(&mut self, producer: usize, wake: Wake) {
        match wake {
            Wake::Make => self.make(producer),
            Wake::Register => self.find_stream(producer),
            Wake::Append(partition) => self.append(producer, partition),
        }
    }

    fn make(&mut self, producer: usize) {
        let batch = self.rng.between(1, self.plan.batch) as usize;
        let p = &mut self.producers[producer];
        let batch = batch.min(p.left);
        p.left -= batch;
        let stream = p.stream;
        let mut touched = Vec::new();
        for _ in 0..batch {
            let key = self.rng.below(self.plan.keys);
            let partition = partitioner::partition(&format!("k{key}"), self.shape);
            let message = self.ledger.made(producer, stream, key, partition);
            self.producers[producer].queues[partition.0 as usize]
                .messages
                .push_back(message);
            if !touched.contains(&partition) {
                touched.push(partition);
            }
        }
        for partition in touched {
            self.append(producer, partition);
        }
        if self.producers[producer].left > 0 {
            // Spread over the time of faults, in bursts.
            let usual = self.plan.faults_until * self.plan.batch
                / 2
                / (self.plan.messages / self.plan.producers).max(1) as u64;
            let at = self.now
                + self
                    .rng
                    .skewed(0, (3 * usual).min(self.plan.faults_until / 4));
            self.schedule(
                at,
                Event::Producer {
                    producer,
                    wake: Wake::Make,
                },
            );
        }
    }

    pub(super) fn find_stream(&mut self, producer: usize) {
        let p = &self.producers[producer];
        let request = Request::Register(Register {
            stream: self.streams[p.stream].clone(),
            shape: self.shape,
            retain: None,
            source: None,
            uid: format!("u{}", self.rng.next()).parse().expect("a name"),
        });
        let asker = Asker::Producer {
            producer,
            purpose: Purpose::Register,
        };
        self.send(self.producers[producer].link, asker, request);
    }

    fn append(&mut self, producer: usize, partition: Partition) {
        let p = &mut self.producers[producer];
        let Some(uid) = p.uid.clone() else {
            return;
        };
        let queue = &mut p.queues[partition.0 as usize];
        if queue.in_air || queue.messages.is_empty() {
            return;
        }
        queue.in_air = true;
        let batch = queue.messages.len().min(32);
        let messages: Vec<usize> = queue.messages.drain(..batch).collect();
        let contents = messages.iter().map(|message| {
            let key = format!("k{}", self.ledger.messages[*message].key);
            Content::new(key, message.to_string().into_bytes(), Vec::new(), 1_024).expect("valid")
        });
        let request = Request::Append(Append {
            stream: self.streams[p.stream].clone(),
            uid,
            partition,
            messages: contents.collect(),
        });
        let (link, purpose) = (
            p.link,
            Purpose::Append {
                partition,
                messages,
            },
        );
        self.send(link, Asker::Producer { producer, purpose }, request);
    }

    pub(super) fn producer_answered(
        &mut self,
        producer: usize,
        purpose: Purpose,
        result: Result<Reply, Failure>,
    ) {
        match (purpose, result) {
            (Purpose::Register, Ok(Reply::Register(RegisterReply::Registered { uid, .. }))) => {
                self.producers[producer].uid = Some(uid);
                for partition in self.shape.all() {
                    self.append(producer, partition);
                }
            }
            (Purpose::Register, _) => {
                let at = self.now + self.rng.between(20_000, 200_000);
                self.schedule(
                    at,
                    Event::Producer {
                        producer,
                        wake: Wake::Register,
                    },
                );
            }
            (
                Purpose::Append {
                    partition,
                    messages,
                },
                result,
            ) => {
                self.appended(producer, partition, messages, result);
            }
        }
    }

    fn appended(
        &mut self,
        producer: usize,
        partition: Partition,
        messages: Vec<usize>,
        result: Result<Reply, Failure>,
    ) {
        let later = self.mutation == Some(Mutation::RefusedRestLater);
        let mut wait = false;
        let rest: Vec<usize> = match result {
            Ok(Reply::Append(AppendReply::Appended { ids })) => {
                let (done, rest) = messages.split_at(ids.len());
                for (message, id) in done.iter().zip(&ids) {
                    self.ledger.messages[*message].fate = Fate::Acknowledged(*id);
                    let judged = self.checks.acknowledged(*message, *id, &self.ledger);
                    self.judge(judged);
                }
                wait = !rest.is_empty();
                rest.to_vec()
            }
            Ok(Reply::Append(AppendReply::StreamGone)) => {
                if self.producers[producer].uid.take().is_some() {
                    self.schedule(
                        self.now,
                        Event::Producer {
                            producer,
                            wake: Wake::Register,
                        },
                    );
                }
                messages
            }
            Ok(other) => unreachable!("{other:?} to an append"),
            Err(Failure::NotDone(_)) => {
                wait = true;
                messages
            }
            Err(_) => {
                for message in messages {
                    self.ledger.messages[message].fate = Fate::Unknown;
                }
                Vec::new()
            }
        };
        let queue = &mut self.producers[producer].queues[partition.0 as usize];
        queue.in_air = false;
        if later {
            queue.messages.extend(rest);
        } else {
            for message in rest.into_iter().rev() {
                queue.messages.push_front(message);
            }
        }
        if wait {
            let at = self.now + self.rng.between(5_000, 200_000);
            self.schedule(
                at,
                Event::Producer {
                    producer,
                    wake: Wake::Append(partition),
                },
            );
        } else {
            self.append(producer, partition);
        }
    }
}
