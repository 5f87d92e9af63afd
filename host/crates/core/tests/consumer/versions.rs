//! Which version handles, step by step: from one call to the next, on trial, and after a takeover.

use crate::support::*;
use segmenter_core::consumer::{By, Command, Config, Event, Exhausted, Phase, Settled};
use segmenter_core::effects::Effects;
use segmenter_core::lease::{Attempts, Epoch, LeaseView};
use segmenter_core::message::Message;
use segmenter_core::names::Version;
use segmenter_core::outcome::{Fault, Outcome};
use segmenter_core::port::{AcquireReply, CommitReply, Failure};
use segmenter_core::rollout::Runs;
use segmenter_core::time::Duration;

fn v(name: &str) -> Version {
    name.parse().unwrap()
}

fn only(version: &str) -> Event {
    Event::Runs(Runs::only(v(version)))
}

fn trial(version: &str, instead: &str) -> Runs {
    Runs {
        instead: Some(v(instead)),
        ..Runs::only(v(version))
    }
}

fn ok() -> Outcome {
    Outcome::Ok(Effects::default())
}

fn retry() -> Outcome {
    Outcome::Retry {
        at: 0,
        reason: "no luck".to_owned(),
        after: None,
    }
}

fn reject() -> Outcome {
    Outcome::Reject {
        at: 0,
        reason: "not that".to_owned(),
    }
}

/// Each way not to ack a message.
fn failures() -> [Outcome; 5] {
    let broken = |fault| Outcome::Broken {
        fault,
        reason: "gone".to_owned(),
    };
    [
        retry(),
        Outcome::Retry {
            at: 0,
            reason: "in a while".to_owned(),
            after: Some(Duration::from_secs(60)),
        },
        reject(),
        broken(Fault::Trap),
        broken(Fault::Instantiate),
    ]
}

/// Holds the lease and has read `entries`; `failed`: what the lease knows of which entry, under which
/// version.
fn taken(config: Config, failed: Option<(u64, u32, &str)>, entries: &[u64]) -> Driver {
    let mut c = Driver::with(config);
    c.event(Event::Assigned);
    c.commands();
    answer(&mut c, failed);
    assert_eq!(c.drain_commands(), [], "nothing is to be recorded first");
    c.entries(EPOCH, 0, entries);
    c
}

fn answer(c: &mut Driver, failed: Option<(u64, u32, &str)>) {
    c.event(Event::Acquired(Ok(AcquireReply::Acquired {
        epoch: Epoch(EPOCH),
        acked: id(0),
        read: 0,
        unreleased: failed.is_some(),
        attempts: failed.map(|(of, failed, version)| Attempts {
            id: id(of),
            failed,
            version: v(version),
        }),
    })));
}

fn limited(runs: Runs, attempts: u32, exhausted: Exhausted) -> Config {
    Config {
        runs,
        attempts,
        exhausted,
        ..config(INCARNATION)
    }
}

fn on_trial(entries: &[u64]) -> Driver {
    let config = limited(trial("v2", "v1"), 2, Exhausted::DeadLetter);
    taken(config, None, entries)
}

/// Entry, failed attempts, version.
fn record(commit: &Settled) -> Option<(u64, u32, &str)> {
    let attempts = commit.attempts.as_ref()?;
    Some((attempts.id.ms, attempts.failed, attempts.version.as_str()))
}

fn not_done(c: &mut Driver) {
    c.event(Event::Committed {
        epoch: Epoch(EPOCH),
        result: Err(Failure::NotDone("loading".to_owned())),
    });
    c.pass(Duration::from_secs(2));
}

/// The version on trial failed entry `of`: the version before it is called, once the lease says so.
fn asked_instead(c: &mut Driver, of: u64) -> Message {
    let commit = c.the_commit();
    assert_eq!(record(&commit), Some((of, 0, "v1")));
    assert!(commit.dead.is_empty() && commit.halt.is_none());
    assert!(commit.to < id(of), "nothing is settled on its word");
    assert_eq!(c.drain_commands(), [], "not before that is answered");
    c.committed_at(commit.to);
    let (call, by) = c.the_call_by();
    assert_eq!((call.id, call.attempt, by), (id(of), 1, By::Instead));
    assert!(c.consumer.overrules(id(of)));
    call
}

#[test]
fn another_version_handles_from_the_next_call_on() {
    let mut c = Driver::consuming(&[1, 2]);
    let (call, _) = c.the_call_by();
    c.event(only("v2"));
    assert_eq!(c.drain_commands(), [], "the call in the air is waited for");
    c.handled(call, reject());
    let commit = c.the_commit();
    assert_eq!(commit.dead[0].version, "v1", "who was called rejected it");
    assert_eq!(commit.version, Some(v("v2")));
    let (call, by) = c.the_call_by();
    assert_eq!((call.id, by), (id(2), By::Running));
    c.handled(call, reject());
    c.committed_at(id(1));
    assert_eq!(c.the_commit().dead[0].version, "v2");
}

#[test]
fn a_trial_that_begins_or_ends_during_a_call_does_not_change_whose_call_it_was() {
    let mut c = Driver::with(limited(Runs::only(v("v1")), 1, Exhausted::DeadLetter));
    c.event(Event::Assigned);
    c.commands();
    answer(&mut c, None);
    c.commands();
    c.entries(EPOCH, 0, &[1, 2]);
    let call = c.the_call();
    c.event(Event::Runs(trial("v2", "v1")));
    c.handled(call, retry());
    let commit = c.the_commit();
    let dead = &commit.dead[0];
    assert_eq!(
        (dead.attempts, dead.version.as_str()),
        (1, "v1"),
        "it was v1's, which is trusted"
    );
    c.committed_at(id(1));

    let call = c.the_call();
    c.event(only("v2"));
    c.handled(call, reject());
    let commit = c.the_commit();
    assert!(commit.dead.is_empty(), "v2 was on trial when it was called");
    assert_eq!(record(&commit), Some((2, 0, "v2")));
    c.committed_at(id(1));
    let (call, by) = c.the_call_by();
    assert_eq!((call.id, call.attempt, by), (id(2), 1, By::Running));
    c.handled(call, reject());
    assert_eq!(c.the_commit().dead[0].version, "v2", "now it is trusted");
}

#[test]
fn of_several_switches_during_a_call_the_last_one_counts() {
    let mut c = Driver::consuming(&[1, 2]);
    let call = c.the_call();
    for version in ["v2", "v3", "v1"] {
        c.event(only(version));
    }
    c.handled(call, ok());
    assert_eq!(c.the_commit().version, None, "it is v1, as before");
}

#[test]
fn the_lease_hears_of_another_version_once_also_where_no_message_comes() {
    let mut c = Driver::consuming(&[]);
    c.event(only("v1"));
    assert_eq!(c.commands(), [], "that is what it runs");
    c.event(only("v2"));
    for _ in 0..2 {
        let commit = c.the_commit();
        assert_eq!((commit.fence.from, commit.to), (id(0), id(0)));
        assert_eq!(commit.version, Some(v("v2")));
        assert_eq!(commit.attempts, None);
        assert_eq!(c.commands(), [], "it is in the air");
        not_done(&mut c);
    }
    assert_eq!(c.the_commit().version, Some(v("v2")));
    c.committed_at(id(0));
    assert_eq!(c.commands(), []);
    c.entries(EPOCH, 0, &[1]);
    let call = c.the_call();
    c.handled(call, ok());
    assert_eq!(c.the_commit().version, None, "the lease knows");
}

#[test]
fn a_switch_while_its_news_is_in_the_air_is_said_with_the_next_commit() {
    let mut c = Driver::consuming(&[]);
    c.event(only("v2"));
    assert_eq!(c.the_commit().version, Some(v("v2")));
    c.event(only("v3"));
    assert_eq!(c.commands(), [], "one commit in the air");
    not_done(&mut c);
    assert_eq!(c.the_commit().version, Some(v("v3")), "the newer one stays");
    c.event(only("v2"));
    c.committed_at(id(0));
    assert_eq!(c.the_commit().version, Some(v("v2")));
}

#[test]
fn a_promotion_alone_needs_no_commit() {
    let mut c = on_trial(&[]);
    c.event(only("v2"));
    assert_eq!(c.drain_commands(), [], "the lease says v2 already");
}

#[test]
fn an_acquire_carries_the_version_and_a_switch_before_its_answer_is_said() {
    let mut c = Driver::new();
    c.event(only("v2"));
    c.event(Event::Assigned);
    let version = v("v2");
    assert_eq!(c.commands(), [Command::Acquire { version }]);
    c.event(only("v3"));
    assert_eq!(c.commands(), [], "it holds nothing yet");
    c.acquired(EPOCH, 0);
    assert_eq!(c.the_commit().version, Some(v("v3")));
    c.committed(EPOCH, 0);
    assert_eq!(c.drain_commands(), []);
}

#[test]
fn a_switch_and_back_before_the_answer_of_an_acquire_is_none() {
    let mut c = Driver::new();
    c.event(Event::Assigned);
    c.commands();
    c.event(only("v2"));
    c.event(only("v1"));
    c.acquired(EPOCH, 0);
    assert_eq!(c.commands(), [read(EPOCH, 0)]);
}

/// What the lease knew is judged by what runs when the answer is there.
#[test]
fn a_trial_that_begins_before_the_answer_of_an_acquire_knows_what_the_lease_knew() {
    for (failed, says) in [((1, 1, "v1"), None), ((1, 1, "v2"), Some((1, 0, "v1")))] {
        let mut c = Driver::new();
        c.event(Event::Assigned);
        c.commands();
        c.event(Event::Runs(trial("v2", "v1")));
        answer(&mut c, Some(failed));
        let commit = c.the_commit();
        assert_eq!(
            (commit.version.clone(), record(&commit)),
            (Some(v("v2")), says)
        );
        c.committed(EPOCH, 0);
        c.commands();
        c.entries(EPOCH, 0, &[1]);
        assert_eq!(c.the_call_by().1, By::Instead, "{failed:?}");
    }
}

#[test]
fn attempts_count_anew_under_another_version_and_the_lease_says_so_first() {
    let mut c = Driver::consuming(&[1]);
    for attempt in 1..=3 {
        let call = c.the_call();
        assert_eq!(call.attempt, attempt);
        c.handled(call, retry());
        assert_eq!(record(&c.the_commit()), Some((1, attempt, "v1")));
        c.committed_at(id(0));
        c.pass(Duration::from_secs(60));
    }
    let call = c.the_call();
    c.handled(call, retry());
    let in_the_air = c.the_commit();
    assert_eq!(record(&in_the_air), Some((1, 4, "v1")));
    c.event(only("v2"));
    c.committed_at(id(0));
    let commit = c.the_commit();
    assert_eq!(record(&commit), Some((1, 0, "v2")));
    assert_eq!(commit.version, Some(v("v2")));
    assert_eq!(c.commands(), [], "not before that is answered");
    not_done(&mut c);
    assert_eq!(record(&c.the_commit()), Some((1, 0, "v2")), "nor without");
    c.committed_at(id(0));
    assert_eq!(c.the_call().attempt, 1, "at once");
}

#[test]
fn attempts_at_a_message_that_is_settled_are_nobodys() {
    let mut c = Driver::consuming(&[1]);
    let call = c.the_call();
    c.handled(call, retry());
    c.the_commit();
    c.committed_at(id(0));
    c.pass(Duration::from_secs(60));
    let call = c.the_call();
    c.handled(call, ok());
    c.the_commit();
    c.event(only("v2"));
    c.committed_at(id(1));
    let commit = c.the_commit();
    assert_eq!(commit.version, Some(v("v2")));
    assert_eq!(record(&commit), None);
}

#[test]
fn what_a_version_on_trial_does_not_ack_the_one_before_it_is_asked_at_once() {
    for failure in failures() {
        let mut c = on_trial(&[1, 2, 3]);
        let (call, by) = c.the_call_by();
        assert_eq!(by, By::Running);
        c.handled(call, ok());
        c.the_commit();
        c.committed_at(id(1));
        let call = c.the_call();
        c.handled(call, failure);
        let call = asked_instead(&mut c, 2);
        c.handled(call, ok());
        let commit = c.the_commit();
        assert_eq!(commit.to, id(2));
        assert!(commit.dead.is_empty(), "{:?}", commit.dead);
        let (call, by) = c.the_call_by();
        assert_eq!((call.id, call.attempt, by), (id(3), 1, By::Running));
    }
}

#[test]
fn what_the_version_before_fails_too_is_its_own_failure_with_its_attempts() {
    for failure in failures() {
        let mut c = on_trial(&[1, 2]);
        let call = c.the_call();
        c.handled(call, reject());
        let call = asked_instead(&mut c, 1);
        c.handled(call, failure.clone());
        if let Outcome::Reject { .. } = failure {
            let commit = c.the_commit();
            let dead = &commit.dead[0];
            assert_eq!((dead.attempts, dead.version.as_str()), (1, "v1"));
            continue;
        }
        assert_eq!(record(&c.the_commit()), Some((1, 1, "v1")));
        c.committed_at(id(0));
        assert_eq!(c.drain_commands(), [], "with backoff");
        assert!(c.consumer.poll_timeout(c.now, FAR) > Some(c.now));
        c.pass(Duration::from_secs(60));
        let (call, by) = c.the_call_by();
        assert_eq!((call.attempt, by), (2, By::Instead), "it stays its own");
        c.handled(call, failure);
        let commit = c.the_commit();
        let dead = &commit.dead[0];
        assert_eq!((commit.to, dead.id), (id(1), id(1)));
        assert_eq!((dead.attempts, dead.version.as_str()), (2, "v1"));
        c.committed_at(id(1));
        let (call, by) = c.the_call_by();
        assert_eq!((call.id, by), (id(2), By::Running));
    }
}

#[test]
fn or_the_partition_halts_once_the_version_before_has_no_attempts_left() {
    let mut c = taken(limited(trial("v2", "v1"), 1, Exhausted::Halt), None, &[1]);
    let call = c.the_call();
    c.handled(call, retry());
    let call = asked_instead(&mut c, 1);
    c.handled(call, retry());
    let commit = c.the_commit();
    assert_eq!(record(&commit), Some((1, 1, "v1")));
    let why = commit.halt.expect("it halts");
    assert!(why.contains("message 1-0 failed 1 times"), "{why}");
    c.committed_at(id(0));
    assert_eq!(c.consumer.phase(), Phase::Halted);
}

#[test]
fn a_doubt_that_the_broker_did_not_take_is_said_again_before_the_next_call() {
    let mut c = on_trial(&[1]);
    let call = c.the_call();
    c.handled(call, retry());
    assert_eq!(record(&c.the_commit()), Some((1, 0, "v1")));
    not_done(&mut c);
    asked_instead(&mut c, 1);
}

#[test]
fn a_takeover_on_trial_asks_the_version_that_the_lease_names() {
    let config = || limited(trial("v2", "v1"), 3, Exhausted::DeadLetter);
    // The last owner was asking v1, or the trial begins with this takeover: v1's attempts go on.
    let mut c = taken(config(), Some((1, 2, "v1")), &[1]);
    let (call, by) = c.the_call_by();
    assert_eq!((call.attempt, by), (3, By::Instead));
    assert!(!c.consumer.overrules(id(1)), "nobody asked v2");
    c.handled(call, retry());
    let commit = c.the_commit();
    assert_eq!(
        (commit.dead[0].attempts, &*commit.dead[0].version),
        (3, "v1")
    );

    // The last owner ended while v2 handled it, however often: that is for v1 to judge.
    for failed in [1, 3, 4] {
        let mut c = Driver::with(config());
        c.event(Event::Assigned);
        c.commands();
        answer(&mut c, Some((1, failed, "v2")));
        assert_eq!(record(&c.the_commit()), Some((1, 0, "v1")));
        c.entries(EPOCH, 0, &[1]);
        assert_eq!(c.drain_commands(), [], "not before that is answered");
        c.committed_at(id(0));
        let (call, by) = c.the_call_by();
        assert_eq!((call.attempt, by), (1, By::Instead));
        assert!(!c.consumer.overrules(id(1)), "nobody saw what v2 did");
    }

    // Neither of the two: it counts anew.
    let mut c = Driver::with(config());
    c.event(Event::Assigned);
    c.commands();
    answer(&mut c, Some((1, 3, "v0")));
    assert_eq!(record(&c.the_commit()), Some((1, 0, "v2")));
    c.entries(EPOCH, 0, &[1]);
    assert_eq!(c.drain_commands(), [], "not before that is answered");
    c.committed_at(id(0));
    let (call, by) = c.the_call_by();
    assert_eq!((call.attempt, by), (1, By::Running));
}

#[test]
fn a_message_that_ends_hosts_under_the_version_before_is_given_up_in_its_name() {
    let config = limited(trial("v2", "v1"), 3, Exhausted::DeadLetter);
    let mut c = taken(config, Some((1, 3, "v1")), &[1, 2]);
    let commit = c.the_commit();
    let dead = &commit.dead[0];
    assert_eq!((dead.attempts, dead.version.as_str()), (3, "v1"));
    c.committed_at(id(1));
    assert_eq!(c.the_call_by().1, By::Running, "2 is another message");
}

#[test]
fn without_a_trial_a_takeover_counts_anew_what_failed_under_another_version() {
    let config = || limited(Runs::only(v("v1")), 3, Exhausted::DeadLetter);
    let mut c = taken(config(), Some((1, 2, "v1")), &[1]);
    assert_eq!(c.the_call().attempt, 3, "its own go on");

    let mut c = Driver::with(config());
    c.event(Event::Assigned);
    c.commands();
    // What ended hosts under v2, which was rolled back, has all its attempts.
    answer(&mut c, Some((1, 3, "v2")));
    assert_eq!(record(&c.the_commit()), Some((1, 0, "v1")));
    c.committed_at(id(0));
    c.commands();
    c.entries(EPOCH, 0, &[1]);
    assert_eq!(c.the_call().attempt, 1);
}

#[test]
fn promoted_while_in_doubt_it_is_asked_again_and_decides() {
    let mut c = on_trial(&[1]);
    let call = c.the_call();
    c.handled(call, retry());
    c.the_commit();
    c.event(only("v2"));
    c.committed_at(id(0));
    let commit = c.the_commit();
    assert_eq!(record(&commit), Some((1, 0, "v2")));
    assert_eq!(commit.version, None, "the lease says v2 already");
    c.committed_at(id(0));
    let (call, by) = c.the_call_by();
    assert_eq!((call.attempt, by), (1, By::Running));
    c.handled(call, reject());
    assert_eq!(c.the_commit().dead[0].version, "v2");
}

#[test]
fn rolled_back_while_in_doubt_the_version_before_goes_on_with_its_attempts() {
    let mut c = on_trial(&[1]);
    let call = c.the_call();
    c.handled(call, retry());
    let call = asked_instead(&mut c, 1);
    c.handled(call, retry());
    assert_eq!(record(&c.the_commit()), Some((1, 1, "v1")));
    c.committed_at(id(0));
    c.event(only("v1"));
    let commit = c.the_commit();
    assert_eq!(
        (commit.version.clone(), record(&commit)),
        (Some(v("v1")), None)
    );
    c.committed_at(id(0));
    assert_eq!(c.drain_commands(), [], "the backoff is its own, too");
    c.pass(Duration::from_secs(60));
    let (call, by) = c.the_call_by();
    assert_eq!((call.attempt, by), (2, By::Running));
    c.handled(call, retry());
    let commit = c.the_commit();
    assert_eq!(
        (commit.dead[0].attempts, &*commit.dead[0].version),
        (2, "v1")
    );
}

#[test]
fn another_trial_while_in_doubt_begins_with_its_own_version() {
    let mut c = on_trial(&[1]);
    let call = c.the_call();
    c.handled(call, retry());
    let call = asked_instead(&mut c, 1);
    c.event(Event::Runs(trial("v3", "v1")));
    c.handled(call, retry());
    let commit = c.the_commit();
    assert_eq!(record(&commit), Some((1, 0, "v3")));
    c.committed_at(id(0));
    let (call, by) = c.the_call_by();
    assert_eq!((call.attempt, by), (1, By::Running));
    c.handled(call, reject());
    asked_instead(&mut c, 1);
}

#[test]
fn who_is_revoked_while_in_doubt_leaves_the_question_in_the_lease() {
    let mut c = on_trial(&[1]);
    let call = c.the_call();
    c.event(Event::Revoked);
    c.handled(call, retry());
    assert_eq!(record(&c.the_commit()), Some((1, 0, "v1")));
    c.committed_at(id(0));
    let commands = c.drain_commands();
    assert!(
        matches!(
            commands[..],
            [
                Command::StopReading,
                Command::DropInstance,
                Command::Release { .. }
            ]
        ),
        "{commands:?}"
    );
}

#[test]
fn who_loses_the_lease_while_in_doubt_goes_on_from_what_it_says() {
    let mut c = on_trial(&[1]);
    let call = c.the_call();
    c.handled(call, retry());
    c.the_commit();
    c.event(Event::Committed {
        epoch: Epoch(EPOCH),
        result: Ok(CommitReply::Fenced {
            found: Some(LeaseView {
                incarnation: None,
                epoch: Epoch(EPOCH + 1),
                acked: id(0),
                halt: None,
            }),
        }),
    });
    assert!(matches!(c.commands().last(), Some(Command::Lost { .. })));
    c.event(Event::Assigned);
    c.pass(Duration::from_secs(2));
    c.commands();
    c.event(Event::Acquired(Ok(AcquireReply::Acquired {
        epoch: Epoch(EPOCH + 2),
        acked: id(0),
        read: 0,
        unreleased: false,
        attempts: None,
    })));
    c.commands();
    c.entries(EPOCH + 2, 0, &[1]);
    let (call, by) = c.the_call_by();
    assert_eq!(
        (call.attempt, by),
        (1, By::Running),
        "nobody doubts it there"
    );
}

#[test]
fn a_cancelled_call_says_nothing_of_either_version() {
    let mut c = on_trial(&[1]);
    let cancelled = |c: &mut Driver, call| {
        c.trust_until = c.now;
        assert_eq!(c.drain_commands(), [Command::CancelCall]);
        c.handled(call, Outcome::Cancelled);
        assert_eq!(c.drain_commands(), [], "nothing to record");
        c.trust_until = FAR;
    };
    let call = c.the_call();
    cancelled(&mut c, call);
    let (call, by) = c.the_call_by();
    assert_eq!((call.attempt, by), (1, By::Running));
    c.handled(call, retry());
    let call = asked_instead(&mut c, 1);
    cancelled(&mut c, call);
    let (call, by) = c.the_call_by();
    assert_eq!((call.attempt, by), (1, By::Instead));
    // One that does not hear of it counts as it ended.
    c.trust_until = c.now;
    assert_eq!(c.drain_commands(), [Command::CancelCall]);
    c.handled(call, ok());
    let commit = c.the_commit();
    assert_eq!((commit.to, commit.dead.len()), (id(1), 0));
}
