//! `wasi:filesystem`.

use std::fs;
use std::path::Path;

use segmenter_core::outcome::Outcome;
use segmenter_wasm::{Folder, Grants};

use crate::guests::{Guest, LOG, OK, SAY, World, asking};

/// Opens the path in the key, following links, in the first folder that there is: to read it, to write the
/// payload if there is one, or to remove it if that is `-`. Logs what it read, or the error's number.
const PARTS: &str = r#"
  (import "wasi:filesystem/preopens@0.2.0" "get-directories" (func $folders (param i32)))
  (import "wasi:filesystem/types@0.2.0" "[method]descriptor.open-at"
    (func $open (param i32 i32 i32 i32 i32 i32 i32)))
  (import "wasi:filesystem/types@0.2.0" "[method]descriptor.read" (func $read (param i32 i64 i64 i32)))
  (import "wasi:filesystem/types@0.2.0" "[method]descriptor.write"
    (func $write (param i32 i32 i32 i64 i32)))
  (import "wasi:filesystem/types@0.2.0" "[method]descriptor.unlink-file-at"
    (func $unlink (param i32 i32 i32 i32)))"#;
const RUN: &str = r#"
  (func $run (param $k i32) (param $kn i32) (param $p i32) (param $pn i32)
    (local $folder i32) (local $file i32)
    (call $folders (i32.const 512))
    (if (i32.eqz (i32.load (i32.const 516))) (then (call $say (i32.const 96) (i32.const 4)) (return)))
    (local.set $folder (i32.load (i32.load (i32.const 512))))
    (if (i32.and (i32.eq (local.get $pn) (i32.const 1)) (i32.eq (i32.load8_u (local.get $p)) (i32.const 0x2d)))
      (then
        (call $unlink (local.get $folder) (local.get $k) (local.get $kn) (i32.const 512))
        (if (i32.load8_u (i32.const 512)) (then (call $error (i32.load8_u (i32.const 513)))))
        (return)))
    ;; Path flags, open flags (create) and descriptor flags (read or write).
    (call $open (local.get $folder) (i32.const 1) (local.get $k) (local.get $kn)
      (i32.ne (local.get $pn) (i32.const 0))
      (i32.add (i32.const 1) (i32.ne (local.get $pn) (i32.const 0)))
      (i32.const 512))
    (if (i32.load8_u (i32.const 512)) (then (call $error (i32.load8_u (i32.const 516))) (return)))
    (local.set $file (i32.load (i32.const 516)))
    (if (local.get $pn)
      (then
        (call $write (local.get $file) (local.get $p) (local.get $pn) (i64.const 0) (i32.const 512))
        (if (i32.load8_u (i32.const 512)) (then (call $error (i32.load8_u (i32.const 520))))))
      (else
        (call $read (local.get $file) (i64.const 100) (i64.const 0) (i32.const 512))
        (if (i32.load8_u (i32.const 512)) (then (call $error (i32.load8_u (i32.const 516))) (return)))
        (call $say (i32.load (i32.const 516)) (i32.load (i32.const 520))))))
  (data (i32.const 96) "none")"#;

const NO_ENTRY: &str = "error 20";
const NOT_PERMITTED: &str = "error 31";

fn world(files: Vec<Folder>) -> World {
    let guest = Guest {
        parts: &[LOG, PARTS, SAY, RUN].concat(),
        body: &("(call $run (local.get 4) (local.get 5) (local.get 6) (local.get 7))".to_owned()
            + OK),
        world: "import wasi:filesystem/preopens@0.2.0; import wasi:filesystem/types@0.2.0;",
        ..Guest::default()
    };
    guest.granted(Grants {
        files,
        ..Grants::default()
    })
}

/// A folder with `in/file` and, beside it, `secret`.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("in")).unwrap();
    fs::write(dir.path().join("in/file"), "inside").unwrap();
    fs::write(dir.path().join("secret"), "outside").unwrap();
    dir
}

fn inside(dir: &Path, write: bool) -> Vec<Folder> {
    vec![Folder {
        host: dir.join("in"),
        guest: "/data".to_owned(),
        write,
    }]
}

async fn does(world: &World, path: &str, payload: &str) -> String {
    let instance = &mut world.instance().await;
    let (outcome, lines) = world.call(instance, &asking(1, path, payload)).await;
    assert!(matches!(outcome, Outcome::Ok(_)), "{outcome:?}");
    lines.join(" ")
}

#[tokio::test]
async fn without_the_grant() {
    assert_eq!(does(&world(Vec::new()), "file", "").await, "none");
}

#[tokio::test]
async fn a_folder_is_read_and_written_only_if_that_was_granted() {
    let dir = folder();
    let readable = world(inside(dir.path(), false));
    assert_eq!(does(&readable, "file", "").await, "inside");
    assert_eq!(does(&readable, "other", "").await, NO_ENTRY);
    for (path, payload) in [("file", "x"), ("new", "x"), ("file", "-")] {
        let refused = does(&readable, path, payload).await;
        assert!(refused.starts_with("error"), "{path} {payload}: {refused}");
    }
    assert_eq!(
        fs::read_to_string(dir.path().join("in/file")).unwrap(),
        "inside"
    );
    assert!(!dir.path().join("in/new").exists());

    let writable = world(inside(dir.path(), true));
    assert_eq!(does(&writable, "new", "x").await, "");
    assert_eq!(does(&writable, "file", "-").await, "");
    assert_eq!(fs::read_to_string(dir.path().join("in/new")).unwrap(), "x");
    assert!(!dir.path().join("in/file").exists());
}

#[tokio::test]
async fn a_shadow_reads_and_never_writes() {
    let dir = folder();
    let world = world(inside(dir.path(), true));
    let shadow = &mut world.shadow().await;
    for (path, payload) in [("file", "x"), ("new", "x"), ("file", "-")] {
        let (_, lines) = world.call(shadow, &asking(1, path, payload)).await;
        assert!(lines[0].starts_with("error"), "{path} {payload}: {lines:?}");
    }
    let (_, lines) = world.call(shadow, &asking(1, "file", "")).await;
    assert_eq!(lines, ["inside"]);
    assert!(!dir.path().join("in/new").exists());
    assert_eq!(does(&world, "new", "x").await, "");
}

#[tokio::test]
async fn no_path_and_no_link_leads_out_of_it() {
    let dir = folder();
    let secret = dir.path().join("secret");
    let link = |to: &Path, name: &str| {
        std::os::unix::fs::symlink(to, dir.path().join("in").join(name)).unwrap();
    };
    link(&secret, "absolute");
    link(Path::new("../secret"), "relative");
    link(Path::new(".."), "up");
    link(Path::new("file"), "within");
    let world = world(inside(dir.path(), true));
    assert_eq!(
        does(&world, "within", "").await,
        "inside",
        "links as such are fine"
    );
    let absolute = secret.to_str().unwrap();
    for path in [
        "../secret",
        "./../secret",
        "x/../../secret",
        "absolute",
        "relative",
        "up/secret",
        absolute,
    ] {
        for payload in ["", "overwritten"] {
            let refused = does(&world, path, payload).await;
            assert!(
                [NOT_PERMITTED, NO_ENTRY].contains(&refused.as_str()),
                "{path}: {refused}"
            );
        }
    }
    assert_eq!(fs::read_to_string(&secret).unwrap(), "outside");
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_named() {
    let dir = folder();
    let mut gone = inside(dir.path(), false);
    gone[0].host = dir.path().join("gone");
    let refused = world(gone).module.probe().await.expect_err("it is gone");
    let text = refused.to_string();
    assert!(
        text.contains("gone") && text.contains("granted folder"),
        "{text}"
    );
}
