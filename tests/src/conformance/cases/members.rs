//! Members of a group: who lives, who is active, and who is told to go.

use std::time::Duration;

use segmenter_core::port::{SyncKind, SyncReply};

use crate::conformance::scene::shape;
use crate::conformance::{Scene, Subject};
use SyncKind::{Heartbeat, Join, Leave};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(400);
const STEP: Duration = Duration::from_millis(20);
/// Steps until what must happen has happened, on a busy machine.
const STEPS_MAX: u64 = 500;

fn member(reply: SyncReply) -> (u64, bool, u32) {
    match reply {
        SyncReply::Member {
            generation,
            active,
            members,
            ..
        } => (generation, active, members),
        other => panic!("{other:?}"),
    }
}

pub fn the_first_member_is_active_and_the_next_stands_by(subject: &mut dyn Subject) {
    let mut scene = Scene::new(subject, 1, 10);
    let first = scene.sync(Join, "a", "a1", 1, LONG);
    assert_eq!(
        first,
        SyncReply::Member {
            generation: 1,
            active: true,
            members: 1,
            next_expiry: None
        }
    );
    let second = scene.sync(Join, "b", "b1", 1, LONG);
    let SyncReply::Member {
        next_expiry: Some(expiry),
        ..
    } = second
    else {
        panic!("{second:?}");
    };
    assert!(expiry <= LONG && expiry > LONG / 2, "{expiry:?}");
    assert_eq!(member(second), (2, false, 2));
    assert_eq!(
        member(scene.sync(Heartbeat, "a", "a1", 2, LONG)),
        (2, true, 2)
    );
}

pub fn a_heartbeat_changes_no_generation(subject: &mut dyn Subject) {
    let mut scene = Scene::new(subject, 1, 10);
    scene.sync(Join, "a", "a1", 1, LONG);
    for counter in 2..5 {
        assert_eq!(
            member(scene.sync(Heartbeat, "a", "a1", counter, LONG)),
            (1, true, 1)
        );
    }
}

pub fn a_heartbeat_of_nobody_is_unknown(subject: &mut dyn Subject) {
    let mut scene = Scene::new(subject, 1, 10);
    assert_eq!(
        scene.sync(Heartbeat, "a", "a1", 1, LONG),
        SyncReply::Unknown
    );
    scene.sync(Join, "b", "b1", 1, LONG);
    assert_eq!(
        scene.sync(Heartbeat, "a", "a1", 2, LONG),
        SyncReply::Unknown
    );
}

pub fn a_join_with_a_live_id_supersedes_and_keeps_its_place(subject: &mut dyn Subject) {
    let mut scene = Scene::new(subject, 1, 10);
    scene.sync(Join, "a", "a1", 7, LONG);
    scene.sync(Join, "b", "b1", 1, LONG);
    assert_eq!(member(scene.sync(Join, "a", "a2", 1, LONG)), (3, true, 2));
    assert_eq!(
        scene.sync(Heartbeat, "a", "a1", 8, LONG),
        SyncReply::Superseded
    );
    assert_eq!(
        scene.sync(Leave, "a", "a1", 9, LONG),
        SyncReply::Left,
        "it throws nobody out"
    );
    assert_eq!(
        member(scene.sync(Heartbeat, "a", "a2", 2, LONG)),
        (3, true, 2)
    );
}

pub fn a_join_sent_again_by_the_same_incarnation_changes_nothing(subject: &mut dyn Subject) {
    let mut scene = Scene::new(subject, 1, 10);
    scene.sync(Join, "a", "a1", 1, LONG);
    assert_eq!(member(scene.sync(Join, "a", "a1", 2, LONG)), (1, true, 1));
}

pub fn an_overtaken_sync_is_ignored(subject: &mut dyn Subject) {
    let mut scene = Scene::new(subject, 1, 10);
    scene.sync(Join, "a", "a1", 5, LONG);
    for (kind, counter) in [(Heartbeat, 5), (Heartbeat, 4), (Join, 5), (Leave, 3)] {
        let reply = scene.sync(kind, "a", "a1", counter, LONG);
        assert_eq!(reply, SyncReply::Overtaken, "{kind:?} {counter}");
    }
    assert_eq!(
        member(scene.sync(Heartbeat, "a", "a1", 6, LONG)),
        (1, true, 1)
    );
}

pub fn who_leaves_makes_the_oldest_of_the_others_active(subject: &mut dyn Subject) {
    let mut scene = Scene::new(subject, 1, 10);
    // Names in another order than the joins.
    for name in ["c", "b", "a"] {
        scene.sync(Join, name, name, 1, LONG);
    }
    assert_eq!(scene.sync(Leave, "c", "c", 2, LONG), SyncReply::Left);
    assert_eq!(
        member(scene.sync(Heartbeat, "a", "a", 2, LONG)),
        (4, false, 2)
    );
    assert_eq!(
        member(scene.sync(Heartbeat, "b", "b", 2, LONG)),
        (4, true, 2)
    );
    assert_eq!(scene.sync(Leave, "b", "b", 3, LONG), SyncReply::Left);
    assert_eq!(
        scene.sync(Leave, "b", "b", 4, LONG),
        SyncReply::Left,
        "again"
    );
    assert_eq!(
        member(scene.sync(Heartbeat, "a", "a", 3, LONG)),
        (5, true, 1)
    );
}

pub fn the_active_member_stays_active_while_it_lives(subject: &mut dyn Subject) {
    let mut scene = Scene::new(subject, 1, 10);
    scene.sync(Join, "b", "b1", 1, LONG);
    scene.sync(Join, "a", "a1", 1, LONG);
    scene.sync(Leave, "b", "b1", 2, LONG);
    assert_eq!(member(scene.sync(Join, "b", "b2", 1, LONG)), (4, false, 2));
    assert_eq!(
        member(scene.sync(Heartbeat, "a", "a1", 2, LONG)),
        (4, true, 2)
    );
}

pub fn a_silent_member_expires_after_its_session_timeout_and_not_before(subject: &mut dyn Subject) {
    let mut scene = Scene::new(subject, 1, 10);
    let before = scene.subject.now_us();
    scene.sync(Join, "dead", "d1", 1, SHORT);
    scene.sync(Join, "b", "b1", 1, SHORT);
    for counter in 2..STEPS_MAX {
        scene.subject.let_time_pass(STEP);
        let (generation, active, members) =
            member(scene.sync(Heartbeat, "b", "b1", counter, SHORT));
        if members == 1 {
            let passed = Duration::from_micros(scene.subject.now_us() - before);
            assert!(passed >= SHORT, "expired after {passed:?}");
            assert_eq!(
                (generation, active),
                (3, true),
                "the one that is left takes over"
            );
            let reply = scene.sync(Heartbeat, "dead", "d1", 2, SHORT);
            assert_eq!(reply, SyncReply::Unknown);
            return;
        }
        assert_eq!((generation, active, members), (2, false, 2));
    }
    panic!("it never expired");
}

pub fn who_heartbeats_does_not_expire(subject: &mut dyn Subject) {
    let mut scene = Scene::new(subject, 1, 10);
    scene.sync(Join, "a", "a1", 1, SHORT);
    scene.sync(Join, "b", "b1", 1, SHORT);
    let until = scene.subject.now_us() + 3 * u64::try_from(SHORT.as_micros()).unwrap();
    let mut counter = 2;
    while scene.subject.now_us() < until {
        scene.subject.let_time_pass(STEP);
        assert_eq!(
            member(scene.sync(Heartbeat, "a", "a1", counter, SHORT)),
            (2, true, 2)
        );
        assert_eq!(
            member(scene.sync(Heartbeat, "b", "b1", counter, SHORT)),
            (2, false, 2)
        );
        counter += 1;
    }
}

pub fn nobody_expires_for_a_time_in_which_nobody_was_heard(subject: &mut dyn Subject) {
    let mut scene = Scene::new(subject, 1, 10);
    scene.sync(Join, "a", "a1", 1, SHORT);
    scene.sync(Join, "b", "b1", 1, SHORT);
    // As if the broker had been away.
    scene.subject.let_time_pass(SHORT * 2);
    assert_eq!(
        member(scene.sync(Heartbeat, "b", "b1", 2, SHORT)),
        (2, false, 2)
    );
    assert_eq!(
        member(scene.sync(Heartbeat, "a", "a1", 2, SHORT)),
        (2, true, 2)
    );
}

pub fn a_member_of_an_earlier_stream_is_told_that_it_is_gone(subject: &mut dyn Subject) {
    let mut scene = Scene::new(subject, 1, 10);
    let old = scene.uid.clone();
    scene.sync(Join, "a", "a1", 1, LONG);
    let new = scene.recreate("uid-2", shape(1, 10));
    assert_eq!(
        scene.sync(Heartbeat, "a", "a1", 2, LONG),
        SyncReply::Unknown
    );
    assert_eq!(scene.sync(Join, "a", "a1", 3, LONG), SyncReply::StreamGone);
    scene.uid = new.clone();
    assert_eq!(
        member(scene.sync(Join, "b", "b1", 1, LONG)),
        (1, true, 1),
        "a fresh start"
    );
    scene.uid = old;
    assert_eq!(
        scene.sync(Heartbeat, "a", "a1", 4, LONG),
        SyncReply::StreamGone
    );
    assert_eq!(scene.sync(Leave, "a", "a1", 5, LONG), SyncReply::Left);
    assert_eq!(scene.sync(Join, "a", "a1", 6, LONG), SyncReply::StreamGone);
    scene.uid = new;
    assert_eq!(
        member(scene.sync(Heartbeat, "b", "b1", 2, LONG)),
        (1, true, 1),
        "untouched"
    );
}

pub fn nobody_joins_a_stream_that_is_being_deleted(subject: &mut dyn Subject) {
    let mut scene = Scene::new(subject, 1, 10);
    let stream = scene.stream.clone();
    scene.subject.mark_deleting(&stream);
    assert_eq!(scene.sync(Join, "a", "a1", 1, LONG), SyncReply::StreamGone);
}
