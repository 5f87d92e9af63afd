//! `wasi:http`: a real server on this machine, granted, and another one that is not.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;

use segmenter_core::outcome::Outcome;
use segmenter_wasm::{Grants, Instance};

use crate::guests::{Guest, LOG, OK, SAY, World, asking};

/// Asks for / (or /moved, if the payload says so) at the authority in the key, with http, and logs the
/// status modulo 100, or the error's number.
const PARTS: &str = r#"
  (import "wasi:http/types@0.2.0" "[constructor]fields" (func $fields (result i32)))
  (import "wasi:http/types@0.2.0" "[constructor]outgoing-request" (func $request (param i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-scheme"
    (func $scheme (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-authority"
    (func $authority (param i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-path-with-query"
    (func $path (param i32 i32 i32 i32) (result i32)))
  (import "wasi:http/outgoing-handler@0.2.0" "handle" (func $ask (param i32 i32 i32 i32)))
  (import "wasi:http/types@0.2.0" "[method]future-incoming-response.subscribe"
    (func $subscribe (param i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]future-incoming-response.get" (func $get (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[method]incoming-response.status" (func $status (param i32) (result i32)))
  (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))"#;
const RUN: &str = r#"
  (func $run (param $k i32) (param $kn i32) (param $p i32) (param $pn i32)
    (local $request i32) (local $response i32)
    (local.set $request (call $request (call $fields)))
    (if (call $scheme (local.get $request) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0))
      (then unreachable))
    (if (call $authority (local.get $request) (i32.const 1) (local.get $k) (local.get $kn))
      (then (call $say (i32.const 96) (i32.const 12)) (return)))
    (if (call $path (local.get $request) (i32.const 1) (local.get $p) (local.get $pn))
      (then (call $say (i32.const 112) (i32.const 7)) (return)))
    (call $ask (local.get $request) (i32.const 0) (i32.const 0) (i32.const 512))
    (if (i32.load8_u (i32.const 512)) (then (call $error (i32.load8_u (i32.const 520))) (return)))
    (local.set $response (i32.load (i32.const 520)))
    (call $block (call $subscribe (local.get $response)))
    (call $get (local.get $response) (i32.const 512))
    ;; some(ok(…))
    (if (i32.ne (i32.load8_u (i32.const 512)) (i32.const 1)) (then unreachable))
    (if (i32.load8_u (i32.const 520)) (then unreachable))
    (if (i32.load8_u (i32.const 528)) (then (call $error (i32.load8_u (i32.const 536))) (return)))
    (call $number (i32.rem_u (call $status (i32.load (i32.const 536))) (i32.const 100))))
  (data (i32.const 96) "no authority")
  (data (i32.const 112) "no path")"#;

const DENIED: &str = "error 15";
/// internal-error, which alone has a text.
const INTERNAL: &str = "error 38";

fn with_guest<T>(then: impl FnOnce(Guest<'_>) -> T) -> T {
    then(Guest {
        parts: &[LOG, PARTS, SAY, RUN].concat(),
        body: &("(call $run (local.get 4) (local.get 5) (local.get 6) (local.get 7))".to_owned()
            + OK),
        world: "import wasi:http/types@0.2.0; import wasi:http/outgoing-handler@0.2.0;",
        ..Guest::default()
    })
}

/// Answers /moved with a redirect, everything else with 200, and tells what it was asked.
struct Server {
    port: u16,
    asked: mpsc::Receiver<String>,
}

fn server(moved_to: &str) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().unwrap().port();
    let (tell, asked) = mpsc::channel();
    let moved = format!("HTTP/1.1 302 Found\r\nlocation: {moved_to}\r\ncontent-length: 0\r\n\r\n");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Some(line) = stream.ok().and_then(|stream| answer(stream, &moved)) else {
                continue;
            };
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    Server { port, asked }
}

fn answer(mut stream: TcpStream, moved: &str) -> Option<String> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let first = lines.next()?.ok()?;
    let mut host = String::new();
    loop {
        let line = lines.next()?.ok()?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("host: ") {
            host = value.to_owned();
        }
        if line.is_empty() {
            break;
        }
    }
    let answer = if first.starts_with("GET /moved ") {
        moved
    } else {
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    };
    stream.write_all(answer.as_bytes()).ok()?;
    Some(format!("{first} at {host}"))
}

async fn does(world: &World, instance: &mut Instance, authority: &str, path: &str) -> String {
    let (outcome, lines) = world.call(instance, &asking(1, authority, path)).await;
    assert!(
        matches!(outcome, Outcome::Ok(_)),
        "{authority}{path}: {outcome:?}"
    );
    lines.last().cloned().unwrap_or_default()
}

#[test]
fn without_the_grant() {
    with_guest(|guest| guest.refused_without("wasi:http/", "`http = [\"https://HOST\"]`"));
}

#[tokio::test]
async fn only_granted_origins_are_reached() {
    let other = server("");
    let elsewhere = format!("http://127.0.0.1:{}/", other.port);
    let granted = server(&elsewhere);
    let origin = format!("127.0.0.1:{}", granted.port);
    let grants = Grants {
        http: [format!("http://{origin}").parse().unwrap()].into(),
        ..Grants::default()
    };
    let world = with_guest(|guest| guest.granted(grants));
    let instance = &mut world.instance().await;
    assert_eq!(
        does(&world, instance, &origin, "/x?y=1").await,
        "00",
        "200 OK"
    );
    let asked = granted.asked.recv().unwrap();
    assert_eq!(asked, format!("GET /x?y=1 HTTP/1.1 at {origin}"));
    // A redirect is an answer like others: whoever follows it asks again.
    assert_eq!(
        does(&world, instance, &origin, "/moved").await,
        "02",
        "302 Found"
    );
    let port = other.port;
    for authority in [
        format!("127.0.0.1:{port}"),
        "127.0.0.1".to_owned(),
        // Other ways to write the granted address are other origins.
        format!("localhost:{}", granted.port),
        format!("127.1:{}", granted.port),
        format!("2130706433:{}", granted.port),
        format!("0x7f.0.0.1:{}", granted.port),
        format!("[::ffff:127.0.0.1]:{}", granted.port),
        format!("127.0.0.1.:{}", granted.port),
        format!("{origin}@127.0.0.1:{port}"),
        format!("user@{origin}"),
    ] {
        let told = does(&world, instance, &authority, "/").await;
        assert!(
            [DENIED, "no authority"].contains(&told.as_str()),
            "{authority}: {told}"
        );
    }
    for path in [elsewhere.as_str(), "*", "//elsewhere"] {
        let told = does(&world, instance, &origin, path).await;
        assert!(["no path", "00"].contains(&told.as_str()), "{path}: {told}");
    }
    // Whatever it was asked came as a path of its own, and nothing came to the other.
    for asked in granted.asked.try_iter() {
        assert!(
            asked.starts_with("GET /") && asked.ends_with(&origin),
            "{asked}"
        );
    }
    assert!(other.asked.try_recv().is_err());
}

#[tokio::test]
async fn a_shadow_sends_nothing_and_is_told_why() {
    let granted = server("");
    let origin = format!("127.0.0.1:{}", granted.port);
    let grants = Grants {
        http: [format!("http://{origin}").parse().unwrap()].into(),
        ..Grants::default()
    };
    let world = with_guest(|guest| guest.granted(grants));
    let mut shadow = world.shadow().await;
    let (_, lines) = world.call(&mut shadow, &asking(1, &origin, "/")).await;
    assert!(lines[0].contains("shadow"), "{lines:?}");
    assert_eq!(lines[1], INTERNAL);
    // What was not granted is still that.
    let told = does(&world, &mut shadow, "127.0.0.1:1", "/").await;
    assert_eq!(told, DENIED);
    // The first that comes there is the live version's.
    let mut live = world.instance().await;
    assert_eq!(does(&world, &mut live, &origin, "/live").await, "00");
    let asked = granted.asked.recv().unwrap();
    assert_eq!(asked, format!("GET /live HTTP/1.1 at {origin}"));
}

#[tokio::test]
async fn a_refused_request_is_told_in_the_log() {
    let grants = Grants {
        http: ["https://api.example.com".parse().unwrap()].into(),
        ..Grants::default()
    };
    let world = with_guest(|guest| guest.granted(grants));
    let mut instance = world.instance().await;
    // The same host without TLS.
    let (_, lines) = world
        .call(&mut instance, &asking(1, "api.example.com", "/"))
        .await;
    assert!(
        lines[0].contains("http://api.example.com") && lines[0].contains("`http`"),
        "{lines:?}"
    );
    assert_eq!(lines[1], DENIED);
}
