//! A member led by hand: it says what a case lets it say, and does with an answer what a member must.

use std::time::Duration;

use segmenter_core::assignor;
use segmenter_core::names::{MemberId, Partition};
use segmenter_core::partition_set::PartitionSet;
use segmenter_core::port::{Duty, InstallReply, Membership, Sync, SyncKind, SyncReply};

use super::scene::{Scene, incarnation};

#[derive(Debug, Clone)]
pub struct Puppet {
    pub member: MemberId,
    pub incarnation: String,
    pub counter: u64,
    pub timeout: Duration,
    pub draining: bool,
    pub assignment: PartitionSet,
    pub owned: PartitionSet,
    pub refused: PartitionSet,
}

impl Puppet {
    pub fn new(member: &str, incarnation: &str, timeout: Duration) -> Puppet {
        Puppet {
            member: MemberId::new(member).expect("a name"),
            incarnation: incarnation.to_owned(),
            counter: 0,
            timeout,
            draining: false,
            assignment: PartitionSet::new(),
            owned: PartitionSet::new(),
            refused: PartitionSet::new(),
        }
    }

    /// What it would say next, with all that it has told whole.
    pub fn says(&mut self, scene: &Scene<'_>, kind: SyncKind) -> Sync {
        self.counter += 1;
        Sync {
            stream: scene.stream.clone(),
            uid: scene.uid.clone(),
            group: scene.group.clone(),
            kind,
            member: self.member.clone(),
            incarnation: incarnation(&self.incarnation),
            counter: self.counter,
            session_timeout: self.timeout,
            draining: self.draining,
            owned_digest: self.owned.digest(),
            owned: Some(self.owned.clone()),
            refused: self.refused.clone(),
            known: self.assignment.digest(),
            wants: !self.draining && !self.assignment.minus(&self.owned).is_empty(),
        }
    }

    /// One sync, whose answer is only looked at.
    pub fn asks(&mut self, scene: &mut Scene<'_>, kind: SyncKind) -> SyncReply {
        let sync = self.says(scene, kind);
        scene.sync(sync)
    }

    pub fn joins(&mut self, scene: &mut Scene<'_>) -> Membership {
        self.follows(scene, SyncKind::Join)
    }

    pub fn beats(&mut self, scene: &mut Scene<'_>) -> Membership {
        self.follows(scene, SyncKind::Heartbeat)
    }

    /// One sync, whose answer is followed: what is granted is had from now on.
    fn follows(&mut self, scene: &mut Scene<'_>, kind: SyncKind) -> Membership {
        let reply = match self.asks(scene, kind) {
            SyncReply::Member(membership) => membership,
            other => panic!("{}: {other:?}", self.member),
        };
        if let Some(assignment) = &reply.assignment {
            self.assignment = assignment.clone();
        }
        self.owned.extend(reply.granted.iter());
        reply
    }

    /// Computes what is its duty and puts it in force.
    pub fn installs(
        &self,
        scene: &mut Scene<'_>,
        partitions: u32,
        reply: &Membership,
    ) -> InstallReply {
        let Duty { candidates, .. } = reply.duty.as_ref().expect("it is on duty");
        let plan = assignor::assign(partitions, candidates);
        scene.install(reply.generation, plan.assignment)
    }

    /// Gives back what it has and is not its own any more.
    pub fn gives_back(&mut self) {
        self.owned = self.owned.minus(&self.owned.minus(&self.assignment));
    }

    pub fn loses(&mut self, partition: u32) {
        assert!(self.owned.remove(Partition(partition)), "it has it");
    }
}
