//! What a host does before it is a member, and again after Redis came back without its data: registers
//! streams and groups, then runs a supervisor. Mirrors `host/prepare.rs` and `host/life.rs`.

use segmenter_core::member::Exit;
use segmenter_core::names::{Partition, Shape};
use segmenter_core::port::{
    EnsureGroup, EnsureGroupReply, Failure, Register, RegisterReply, Reply, Request, Start,
};

use super::host::{Ending, Input, Purpose};
use super::world::World;

/// What a host does before it joins, in this order.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    Register {
        stream: usize,
    },
    /// Where handlers emit to. Nobody reads it.
    RegisterTarget,
    Ensure {
        binding: usize,
        partition: Partition,
    },
    Run {
        binding: usize,
    },
}

impl World {
    pub(super) fn prepare(&mut self, host: usize) {
        let shared = self.hosts[host].links.shared;
        while let Some(process) = &mut self.hosts[host].process {
            let Some(step) = process.preparing.front().copied() else {
                return;
            };
            let request = match step {
                Step::Register { stream } => Request::Register(Register {
                    stream: self.streams[stream].clone(),
                    shape: self.shape,
                    retain: Some(self.plan.retain),
                    source: None,
                    uid: format!("u{}", self.rng.next()).parse().expect("a name"),
                }),
                Step::RegisterTarget => Request::Register(Register {
                    stream: self.target.clone(),
                    shape: Shape::new(3, 1_000_000).expect("a shape"),
                    source: None,
                    retain: None,
                    uid: format!("u{}", self.rng.next()).parse().expect("a name"),
                }),
                Step::Ensure { binding, partition } => {
                    let b = &self.bindings[binding];
                    Request::EnsureGroup(EnsureGroup {
                        stream: self.streams[b.stream].clone(),
                        uid: process.uids[&b.stream].clone(),
                        partition,
                        group: b.group.clone(),
                        start: Start::Beginning,
                    })
                }
                Step::Run { binding } => {
                    process.preparing.pop_front();
                    let uid = process.uids[&self.bindings[binding].stream].clone();
                    self.run_supervisor(host, binding, uid);
                    continue;
                }
            };
            self.ask(host, shared, Purpose::Prepare, request);
            return;
        }
    }

    /// What does not succeed ends the process, and whoever started it starts it again: here, the step is
    /// tried again.
    pub(super) fn prepared(&mut self, host: usize, result: Result<Reply, Failure>) {
        let Some(process) = &mut self.hosts[host].process else {
            return;
        };
        match result {
            Ok(Reply::Register(RegisterReply::Registered { uid, .. })) => {
                if let Some(Step::Register { stream }) = process.preparing.pop_front() {
                    process.uids.insert(stream, uid);
                }
                self.prepare(host);
            }
            Ok(Reply::EnsureGroup(EnsureGroupReply::Ensured { .. })) => {
                process.preparing.pop_front();
                self.prepare(host);
            }
            Ok(Reply::EnsureGroup(EnsureGroupReply::StreamGone)) => {
                self.exited(host, None, &Ending::Exit(Exit::StreamGone));
            }
            Ok(other) => self.defect(format!("{other:?} while a host prepares")),
            Err(_) => self.post(host, self.now + 100_000, Input::Prepare),
        }
    }

    /// As `host/life.rs`: the server was started anew since it last knew this member. Else somebody deleted
    /// stream or group.
    pub(super) fn was_lost(&self, host: usize, handler: usize) -> bool {
        let process = self.hosts[host].process.as_ref();
        let supervisor = process.and_then(|process| process.supervisors.get(handler));
        let served_by = supervisor.and_then(|supervisor| supervisor.served_by);
        served_by.is_some_and(|life| life != self.redis.life())
    }

    /// Registers what was lost, and serves it by a new supervisor.
    pub(super) fn revive(&mut self, host: usize, handler: usize) {
        let Some(process) = &mut self.hosts[host].process else {
            return;
        };
        let binding = process.supervisors[handler].binding;
        process.supervisors[handler].exited = true;
        if process.leave_by.is_some() {
            if process.supervisors.iter().all(|s| s.exited) {
                self.end_process(host, "asked to");
            }
            return;
        }
        let stream = self.bindings[binding].stream;
        let idle = process.preparing.is_empty();
        let steps = &mut process.preparing;
        steps.push_back(Step::Register { stream });
        steps.push_back(Step::RegisterTarget);
        steps.extend(
            self.shape
                .all()
                .map(|partition| Step::Ensure { binding, partition }),
        );
        steps.push_back(Step::Run { binding });
        if idle {
            self.prepare(host);
        }
    }
}
