//! Who has what: duty, install, grants that wait for release, and what a member reports about itself.

use std::time::Duration;

use segmenter_core::port::{InstallReply, SyncKind, SyncReply};

use crate::conformance::{Puppet, Scene, Subject};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(400);
const PARTITIONS: u32 = 4;

fn scene(subject: &mut dyn Subject) -> Scene<'_> {
    let mut scene = Scene::new(subject, PARTITIONS, 10);
    scene.ensure("billing");
    scene
}

/// A member that has all partitions.
fn alone(scene: &mut Scene<'_>, name: &str, timeout: Duration) -> Puppet {
    let mut puppet = Puppet::new(name, &format!("{name}1"), timeout);
    let reply = puppet.joins(scene);
    assert_eq!(
        puppet.installs(scene, PARTITIONS, &reply),
        InstallReply::Installed
    );
    puppet.beats(scene);
    assert_eq!(puppet.owned.to_string(), "0-3");
    puppet
}

/// A second one, whose assignment is in force.
fn joined(scene: &mut Scene<'_>, name: &str, timeout: Duration) -> Puppet {
    let mut puppet = Puppet::new(name, &format!("{name}1"), timeout);
    let reply = puppet.joins(scene);
    assert_eq!(
        puppet.installs(scene, PARTITIONS, &reply),
        InstallReply::Installed
    );
    puppet
}

pub fn who_joins_is_on_duty_and_gets_what_it_installed(subject: &mut dyn Subject) {
    let mut scene = scene(subject);
    let mut a = Puppet::new("a", "a1", LONG);
    let reply = a.joins(&mut scene);
    assert!(reply.granted.is_empty() && reply.assignment.is_none());
    let duty = reply.duty.clone().expect("on duty");
    assert_eq!(duty.why, "a joined");
    assert_eq!(duty.candidates.len(), 1);
    assert_eq!(
        a.installs(&mut scene, PARTITIONS, &reply),
        InstallReply::Installed
    );
    let reply = a.beats(&mut scene);
    assert_eq!(reply.assignment.expect("it is new").to_string(), "0-3");
    assert_eq!(reply.granted.to_string(), "0-3");
    assert_eq!(reply.duty, None);
    let reply = a.beats(&mut scene);
    assert_eq!(
        (reply.assignment, reply.granted.len()),
        (None, 0),
        "nothing new"
    );
}

pub fn a_partition_is_granted_only_when_its_owner_has_it_no_more(subject: &mut dyn Subject) {
    let mut scene = scene(subject);
    let mut a = alone(&mut scene, "a", LONG);
    let mut b = joined(&mut scene, "b", LONG);
    let reply = b.beats(&mut scene);
    assert_eq!(reply.assignment.expect("told").to_string(), "2-3");
    assert!(reply.granted.is_empty(), "a has them");
    let reply = a.beats(&mut scene);
    assert_eq!(reply.assignment.expect("told").to_string(), "0-1");
    a.loses(3);
    a.beats(&mut scene);
    assert_eq!(b.beats(&mut scene).granted.to_string(), "3");
    a.gives_back();
    a.beats(&mut scene);
    assert_eq!(b.beats(&mut scene).granted.to_string(), "2");
    assert_eq!(
        (a.owned.to_string(), b.owned.to_string()),
        ("0-1".into(), "2-3".into())
    );
}

pub fn what_was_granted_counts_as_owned_though_its_taker_was_not_heard_since(
    subject: &mut dyn Subject,
) {
    let mut scene = scene(subject);
    let mut a = Puppet::new("a", "a1", LONG);
    let reply = a.joins(&mut scene);
    a.installs(&mut scene, PARTITIONS, &reply);
    let b = joined(&mut scene, "b", LONG);
    let mut b = b;
    b.beats(&mut scene);
    a.beats(&mut scene);
    assert_eq!(
        (a.owned.to_string(), b.owned.to_string()),
        ("0-1".into(), "2-3".into())
    );
    // a leaves, and everything is to be b's; but what a was granted waits for it.
    a.draining = true;
    let reply = a.beats(&mut scene);
    assert!(
        reply
            .duty
            .as_ref()
            .expect("on duty")
            .why
            .contains("a is leaving")
    );
    assert_eq!(
        a.installs(&mut scene, PARTITIONS, &reply),
        InstallReply::Installed
    );
    assert!(b.beats(&mut scene).granted.is_empty());
    a.beats(&mut scene);
    a.gives_back();
    a.beats(&mut scene);
    assert_eq!(b.beats(&mut scene).granted.to_string(), "0-1");
    assert_eq!(a.asks(&mut scene, SyncKind::Leave), SyncReply::Left);
    let reply = b.beats(&mut scene);
    assert_eq!(
        (reply.members, reply.duty),
        (1, None),
        "nothing is left to assign"
    );
}

pub fn a_grant_whose_answer_was_lost_is_given_again(subject: &mut dyn Subject) {
    let mut scene = scene(subject);
    let mut a = Puppet::new("a", "a1", LONG);
    let reply = a.joins(&mut scene);
    a.installs(&mut scene, PARTITIONS, &reply);
    // Executed, and never heard of.
    a.asks(&mut scene, SyncKind::Heartbeat);
    assert_eq!(a.beats(&mut scene).granted.to_string(), "0-3");
}

pub fn who_is_not_known_to_have_what_its_digest_says_is_asked_for_it_whole(
    subject: &mut dyn Subject,
) {
    let mut scene = scene(subject);
    let mut a = alone(&mut scene, "a", LONG);
    let mut sync = a.says(&scene, SyncKind::Heartbeat);
    sync.owned = None;
    let SyncReply::Member(reply) = scene.sync(sync) else {
        panic!("a member")
    };
    assert!(reply.tell_owned, "what was granted was not told since");
    assert!(!a.beats(&mut scene).tell_owned);
    let mut sync = a.says(&scene, SyncKind::Heartbeat);
    sync.owned = None;
    let SyncReply::Member(reply) = scene.sync(sync) else {
        panic!("a member")
    };
    assert!(!reply.tell_owned, "the digest says it all");
    a.loses(1);
    let mut sync = a.says(&scene, SyncKind::Heartbeat);
    sync.owned = None;
    let SyncReply::Member(reply) = scene.sync(sync) else {
        panic!("a member")
    };
    assert!(reply.tell_owned && reply.granted.is_empty());
    assert_eq!(a.beats(&mut scene).granted.to_string(), "1");
}

pub fn an_install_for_an_older_generation_or_a_second_one_is_overtaken(subject: &mut dyn Subject) {
    let mut scene = scene(subject);
    let (mut a, mut b) = (Puppet::new("a", "a1", LONG), Puppet::new("b", "b1", LONG));
    let first = a.joins(&mut scene);
    let second = b.joins(&mut scene);
    assert_eq!(
        a.installs(&mut scene, PARTITIONS, &first),
        InstallReply::Overtaken
    );
    assert_eq!(
        b.installs(&mut scene, PARTITIONS, &second),
        InstallReply::Installed
    );
    assert_eq!(
        b.installs(&mut scene, PARTITIONS, &second),
        InstallReply::Overtaken
    );
    assert_eq!(a.beats(&mut scene).granted.to_string(), "0-1");
    assert_eq!(b.beats(&mut scene).granted.to_string(), "2-3");
}

pub fn the_duty_passes_on_if_its_bearer_does_nothing(subject: &mut dyn Subject) {
    let mut scene = scene(subject);
    let (mut a, mut b) = (Puppet::new("a", "a1", SHORT), Puppet::new("b", "b1", SHORT));
    a.joins(&mut scene);
    assert!(b.joins(&mut scene).duty.is_some());
    assert_eq!(a.beats(&mut scene).duty, None, "b has it");
    scene.subject.let_time_pass(SHORT / 2);
    let reply = a.beats(&mut scene);
    assert_eq!(
        a.installs(&mut scene, PARTITIONS, &reply),
        InstallReply::Installed
    );
}

pub fn an_expired_member_has_nothing(subject: &mut dyn Subject) {
    let mut scene = scene(subject);
    alone(&mut scene, "dead", SHORT);
    let mut b = joined(&mut scene, "b", SHORT);
    let mut reply = b.beats(&mut scene);
    while reply.members > 1 {
        assert!(reply.granted.is_empty(), "the dead one may live");
        scene.subject.let_time_pass(SHORT / 8);
        reply = b.beats(&mut scene);
    }
    assert_eq!(
        b.installs(&mut scene, PARTITIONS, &reply),
        InstallReply::Installed
    );
    assert_eq!(b.beats(&mut scene).granted.to_string(), "0-3");
}

pub fn a_member_started_again_has_its_assignment_at_once(subject: &mut dyn Subject) {
    let mut scene = scene(subject);
    let mut a = alone(&mut scene, "a", LONG);
    let mut b = joined(&mut scene, "b", LONG);
    a.beats(&mut scene);
    a.gives_back();
    a.beats(&mut scene);
    b.beats(&mut scene);
    let mut again = Puppet::new("a", "a2", LONG);
    let reply = again.joins(&mut scene);
    assert_eq!(reply.duty, None, "nothing is to be computed");
    assert_eq!(again.owned.to_string(), "0-1");
    assert_eq!(b.beats(&mut scene).assignment, None);
}

pub fn a_member_reports_what_the_coordinator_forgot(subject: &mut dyn Subject) {
    let mut scene = scene(subject);
    // Both have something, though nobody here gave it to them.
    let (mut a, mut b) = (Puppet::new("a", "a1", LONG), Puppet::new("b", "b1", LONG));
    a.owned = "2-3".parse().unwrap();
    b.owned = "0-1".parse().unwrap();
    a.joins(&mut scene);
    let reply = b.joins(&mut scene);
    assert_eq!(
        b.installs(&mut scene, PARTITIONS, &reply),
        InstallReply::Installed
    );
    let reply = a.beats(&mut scene);
    assert_eq!(
        (a.assignment.to_string(), reply.granted.len()),
        ("2-3".into(), 0),
        "nothing moves"
    );
    b.beats(&mut scene);
    assert_eq!(b.assignment.to_string(), "0-1");
}

pub fn what_a_member_refuses_is_told_to_who_is_on_duty(subject: &mut dyn Subject) {
    let mut scene = scene(subject);
    let mut a = Puppet::new("a", "a1", LONG);
    a.refused = "1,3".parse().unwrap();
    let reply = a.joins(&mut scene);
    assert_eq!(
        reply.duty.expect("on duty").candidates[0].refused,
        a.refused
    );
}

pub fn who_drains_is_granted_nothing(subject: &mut dyn Subject) {
    let mut scene = scene(subject);
    let mut a = alone(&mut scene, "a", LONG);
    a.loses(0);
    a.draining = true;
    assert!(a.beats(&mut scene).granted.is_empty());
}

pub fn more_members_than_partitions_stand_by(subject: &mut dyn Subject) {
    let mut scene = scene(subject);
    let mut all: Vec<Puppet> = (0..6)
        .map(|n| Puppet::new(&format!("m{n}"), &format!("i{n}"), LONG))
        .collect();
    for puppet in &mut all {
        let reply = puppet.joins(&mut scene);
        assert_eq!(
            puppet.installs(&mut scene, PARTITIONS, &reply),
            InstallReply::Installed
        );
    }
    for puppet in &mut all {
        puppet.beats(&mut scene);
    }
    let sizes: Vec<usize> = all.iter().map(|p| p.owned.len()).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 4, "{sizes:?}");
    assert!(sizes.iter().all(|n| *n <= 1), "{sizes:?}");
}

pub fn a_group_takes_no_more_members_than_it_may(subject: &mut dyn Subject) {
    let mut scene = scene(subject);
    for n in 0..segmenter_core::limits::MEMBERS_MAX {
        let mut puppet = Puppet::new(&format!("m{n}"), &format!("i{n}"), LONG);
        puppet.joins(&mut scene);
    }
    let mut one_more = Puppet::new("x", "x1", LONG);
    assert_eq!(one_more.asks(&mut scene, SyncKind::Join), SyncReply::Full);
}
