//! Who is a member: join, heartbeat, expiry by the broker's clock, leave.

use std::time::Duration;

use segmenter_core::port::{Membership, SyncKind, SyncReply};

use crate::conformance::scene::shape;
use crate::conformance::{Puppet, Scene, Subject};
use SyncKind::{Heartbeat, Join, Leave};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(400);
const STEP: Duration = Duration::from_millis(20);
/// Steps until what must happen has happened, on a busy machine.
const STEPS_MAX: u64 = 500;

fn numbers(reply: &Membership) -> (u64, u32) {
    (reply.generation, reply.members)
}

pub fn a_join_is_a_new_generation_and_tells_when_another_expires(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let (mut a, mut b) = (Puppet::new("a", "a1", LONG), Puppet::new("b", "b1", LONG));
    let first = a.joins(&mut scene);
    assert_eq!((numbers(&first), first.next_expiry), ((1, 1), None));
    let second = b.joins(&mut scene);
    assert_eq!(numbers(&second), (2, 2));
    let expiry = second.next_expiry.expect("the other may expire");
    assert!(expiry <= LONG && expiry > LONG / 2, "{expiry:?}");
    assert_eq!(numbers(&a.beats(&mut scene)), (2, 2));
}

pub fn a_heartbeat_changes_no_generation(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let mut a = Puppet::new("a", "a1", LONG);
    a.joins(&mut scene);
    for _ in 0..3 {
        assert_eq!(numbers(&a.beats(&mut scene)), (1, 1));
    }
}

pub fn a_heartbeat_of_nobody_is_unknown(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let (mut a, mut b) = (Puppet::new("a", "a1", LONG), Puppet::new("b", "b1", LONG));
    assert_eq!(a.asks(&mut scene, Heartbeat), SyncReply::Unknown);
    b.joins(&mut scene);
    assert_eq!(a.asks(&mut scene, Heartbeat), SyncReply::Unknown);
}

pub fn a_join_with_a_live_id_supersedes(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let mut old = Puppet::new("a", "a1", LONG);
    let mut b = Puppet::new("b", "b1", LONG);
    let mut new = Puppet::new("a", "a2", LONG);
    old.joins(&mut scene);
    b.joins(&mut scene);
    assert_eq!(numbers(&new.joins(&mut scene)), (3, 2));
    assert_eq!(old.asks(&mut scene, Heartbeat), SyncReply::Superseded);
    assert_eq!(
        old.asks(&mut scene, Leave),
        SyncReply::Left,
        "it throws nobody out"
    );
    assert_eq!(numbers(&new.beats(&mut scene)), (3, 2));
}

pub fn a_join_sent_again_by_the_same_incarnation_changes_nothing(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let mut a = Puppet::new("a", "a1", LONG);
    a.joins(&mut scene);
    assert_eq!(numbers(&a.joins(&mut scene)), (1, 1));
}

pub fn an_overtaken_sync_is_ignored(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let mut a = Puppet::new("a", "a1", LONG);
    a.counter = 4;
    a.joins(&mut scene);
    for (kind, counter) in [(Heartbeat, 5), (Heartbeat, 4), (Join, 5), (Leave, 3)] {
        let mut late = a.clone();
        late.counter = counter - 1;
        assert_eq!(
            late.asks(&mut scene, kind),
            SyncReply::Overtaken,
            "{kind:?} {counter}"
        );
    }
    assert_eq!(numbers(&a.beats(&mut scene)), (1, 1));
}

pub fn who_leaves_is_a_member_no_more(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let (mut a, mut b) = (Puppet::new("a", "a1", LONG), Puppet::new("b", "b1", LONG));
    a.joins(&mut scene);
    b.joins(&mut scene);
    assert_eq!(a.asks(&mut scene, Leave), SyncReply::Left);
    assert_eq!(a.asks(&mut scene, Leave), SyncReply::Left, "again");
    assert_eq!(a.asks(&mut scene, Heartbeat), SyncReply::Unknown);
    assert_eq!(numbers(&b.beats(&mut scene)), (3, 1));
}

pub fn a_silent_member_expires_after_its_session_timeout_and_not_before(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let before = scene.subject.now_us();
    let (mut dead, mut b) = (
        Puppet::new("dead", "d1", SHORT),
        Puppet::new("b", "b1", SHORT),
    );
    dead.joins(&mut scene);
    b.joins(&mut scene);
    for _ in 2..STEPS_MAX {
        scene.subject.let_time_pass(STEP);
        let reply = b.beats(&mut scene);
        if reply.members == 1 {
            let passed = Duration::from_micros(scene.subject.now_us() - before);
            assert!(passed >= SHORT, "expired after {passed:?}");
            assert_eq!(reply.generation, 3);
            let duty = reply.duty.expect("who removes one is on duty");
            assert!(duty.why.contains("dead expired"), "{}", duty.why);
            assert_eq!(dead.asks(&mut scene, Heartbeat), SyncReply::Unknown);
            return;
        }
        assert_eq!(numbers(&reply), (2, 2));
    }
    panic!("it never expired");
}

pub fn who_heartbeats_does_not_expire(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let (mut a, mut b) = (Puppet::new("a", "a1", SHORT), Puppet::new("b", "b1", SHORT));
    a.joins(&mut scene);
    b.joins(&mut scene);
    let until = scene.subject.now_us() + 3 * u64::try_from(SHORT.as_micros()).unwrap();
    while scene.subject.now_us() < until {
        scene.subject.let_time_pass(STEP);
        assert_eq!(numbers(&a.beats(&mut scene)), (2, 2));
        assert_eq!(numbers(&b.beats(&mut scene)), (2, 2));
    }
}

pub fn nobody_expires_for_a_time_in_which_nobody_was_heard(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let (mut a, mut b) = (Puppet::new("a", "a1", SHORT), Puppet::new("b", "b1", SHORT));
    a.joins(&mut scene);
    b.joins(&mut scene);
    // As if the broker had been away.
    scene.subject.let_time_pass(SHORT * 2);
    assert_eq!(numbers(&b.beats(&mut scene)), (2, 2));
    assert_eq!(numbers(&a.beats(&mut scene)), (2, 2));
}

pub fn a_member_of_an_earlier_stream_is_told_that_it_is_gone(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let old = scene.uid.clone();
    let (mut a, mut b) = (Puppet::new("a", "a1", LONG), Puppet::new("b", "b1", LONG));
    a.joins(&mut scene);
    let new = scene.recreate("uid-2", shape(1, 10));
    assert_eq!(a.asks(&mut scene, Heartbeat), SyncReply::Unknown);
    assert_eq!(a.asks(&mut scene, Join), SyncReply::StreamGone);
    scene.uid = new.clone();
    scene.ensure("billing");
    assert_eq!(numbers(&b.joins(&mut scene)), (1, 1), "a fresh start");
    scene.uid = old;
    assert_eq!(a.asks(&mut scene, Heartbeat), SyncReply::StreamGone);
    assert_eq!(a.asks(&mut scene, Leave), SyncReply::Left);
    assert_eq!(a.asks(&mut scene, Join), SyncReply::StreamGone);
    scene.uid = new;
    assert_eq!(numbers(&b.beats(&mut scene)), (1, 1), "untouched");
}

pub fn nobody_joins_a_stream_that_is_being_deleted(subject: &mut dyn Subject) {
    let mut scene = Scene::with_group(subject, 10);
    let stream = scene.stream.clone();
    scene.subject.mark_deleting(&stream);
    let mut a = Puppet::new("a", "a1", LONG);
    assert_eq!(a.asks(&mut scene, Join), SyncReply::StreamGone);
}
