//! Connections: lost, refused, not permitted, too old, TLS.

use crate::connect;
use segmenter_core::names::Uid;
use segmenter_core::port::{AppendReply, Failure, Reply, Request};
use segmenter_redis::{Address, Broker, ConnectError};
use segmenter_tests::conformance::scene::{P0, message, stream_id};
use segmenter_tests::conformance::{RealSubject, Scene, Subject};
use segmenter_tests::server::{Options, Server};
use std::path::PathBuf;

#[test]
fn an_unreachable_server_did_nothing_and_a_server_that_comes_back_is_used_again() {
    let mut real = RealSubject::start(Options {
        appendonly: true,
        ..Options::default()
    });
    let mut scene = Scene::new(&mut real, 1, 10);
    scene.append(1);
    drop(scene);
    let append = || {
        Request::Append(segmenter_core::port::Append {
            stream: stream_id("orders"),
            uid: Uid::new("uid-1").unwrap(),
            partition: P0,
            messages: vec![message(1)],
        })
    };
    real.server.kill();
    // The first may have been under way when the connection broke; it says so.
    let first = real.execute(append());
    assert!(
        matches!(first, Err(Failure::Unknown(_) | Failure::NotDone(_))),
        "{first:?}"
    );
    let next = real.execute(append());
    assert!(matches!(next, Err(Failure::NotDone(_))), "{next:?}");
    real.server.restart();
    let back = real.execute(append());
    assert!(
        matches!(back, Ok(Reply::Append(AppendReply::Appended { .. }))),
        "{back:?}"
    );
    let url = real.server.hands_url();
    real.hands = redis::Client::open(url).unwrap().get_connection().unwrap();
    assert_eq!(
        real.log(&stream_id("orders"), P0).len(),
        2,
        "nothing was sent twice"
    );
}

#[test]
fn a_wrong_or_missing_password_is_told_apart_from_no_server() {
    let mut real = RealSubject::start(Options {
        password: Some("geheim".to_owned()),
        ..Options::default()
    });
    let port = real.server.port();
    for url in [
        format!("redis://127.0.0.1:{port}"),
        format!("redis://:falsch@127.0.0.1:{port}"),
        format!("redis://nobody:falsch@127.0.0.1:{port}"),
    ] {
        let error = connect(&real, &url).unwrap_err();
        assert!(
            matches!(error, ConnectError::Authentication(_)),
            "{url}: {error:?}"
        );
        assert!(!error.to_string().contains("falsch"), "{error}");
    }
    real.server.kill();
    let error = connect(&real, &format!("redis://:geheim@127.0.0.1:{port}")).unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable(_)), "{error:?}");
}

#[test]
fn a_user_without_scripts_is_told_which_command_it_lacks() {
    let mut real = RealSubject::default();
    let _: () = real.command(&[
        "ACL", "SETUSER", "weak", "on", ">pw", "~*", "&*", "+@all", "-script", "-eval", "-evalsha",
    ]);
    let url = format!("redis://weak:pw@127.0.0.1:{}", real.server.port());
    let error = connect(&real, &url).unwrap_err();
    assert!(matches!(error, ConnectError::Permission(_)), "{error:?}");
    assert!(error.to_string().contains("script"), "{error}");
}

#[test]
fn a_server_that_is_too_old_is_refused_with_its_version() {
    let Some(old) = std::env::var_os("SEGMENTER_TEST_OLD_SERVER") else {
        eprintln!("left out: SEGMENTER_TEST_OLD_SERVER names no Redis 6.2");
        return;
    };
    let server = Server::start(Options {
        binary: Some(PathBuf::from(old)),
        ..Options::default()
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let address = Address::new(&server.url(), None).unwrap();
    match runtime.block_on(Broker::connect(&address)) {
        Err(ConnectError::TooOld { software, found }) => {
            assert_eq!(software, "redis");
            assert!(found.starts_with("6."), "{found}");
        }
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn tls_to_a_server_without_it_is_an_error_and_no_panic() {
    let real = RealSubject::default();
    let url = format!("rediss://127.0.0.1:{}", real.server.port());
    let error = connect(&real, &url).unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable(_)), "{error:?}");
}
