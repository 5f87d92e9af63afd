//! Real files, written in every way.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::time::Duration;

use tempfile::TempDir;

use super::*;

/// Far longer than anything here takes: only a defect reaches it.
const LIMIT: Duration = Duration::from_secs(60);
const BYTES_MAX: usize = 1_000;

struct World {
    dir: TempDir,
    watch: Option<Watch>,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        World { dir, watch: None }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }
    fn renamed(&self, name: &str, text: &str) {
        self.write("d/new", text);
        fs::rename(self.path("d/new"), self.path(name)).unwrap();
    }
    fn start(&mut self, name: &str) {
        self.watch = Some(Watch::start(&self.path(name), BYTES_MAX, None).unwrap());
    }
    fn start_without_events(&mut self, name: &str) {
        let silent = (Folders::silent(), Some("none left".to_owned()));
        let path = self.path(name);
        let watch = Watch::with(&path, BYTES_MAX, None, silent, sync_channel(WAKES_MAX));
        self.watch = Some(watch.unwrap());
    }
    async fn next(&mut self) -> Seen {
        let next = self.watch.as_mut().unwrap().next();
        let seen = tokio::time::timeout(LIMIT, next).await;
        seen.expect("something is seen within the limit")
    }
    async fn sees(&mut self, text: &str) {
        match self.next().await {
            Seen::Bytes { bytes, version } => {
                assert_eq!(String::from_utf8_lossy(&bytes), text);
                assert_eq!(version, version_of(text.as_bytes()));
            }
            Seen::Trouble(why) => panic!("{why} instead of {text}"),
        }
    }
    async fn trouble(&mut self, says: &str) {
        match self.next().await {
            Seen::Trouble(why) => assert!(why.contains(says), "{says}: {why}"),
            Seen::Bytes { bytes, .. } => panic!("{} was seen", String::from_utf8_lossy(&bytes)),
        }
    }
}

#[tokio::test]
async fn a_file_that_is_renamed_or_written_in_place_is_seen_once_it_is_whole() {
    let mut world = World::new();
    world.write("d/h.wasm", "one");
    world.start("d/h.wasm");
    world.sees("one").await;
    world.renamed("d/h.wasm", "two");
    world.sees("two").await;
    world.write("d/h.wasm", "three");
    world.sees("three").await;
    // Of the same length, and as old as before.
    let before = fs::metadata(world.path("d/h.wasm")).unwrap();
    let file = File::options().write(true).open(world.path("d/h.wasm"));
    let mut file = file.unwrap();
    file.write_all(b"THREE").unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    drop(file);
    world.sees("THREE").await;
    // The same again is nothing new, nor are its neighbours.
    world.renamed("d/h.wasm", "THREE");
    world.write("d/other", "other");
    world.renamed("d/h.wasm", "four");
    world.sees("four").await;
}

#[tokio::test]
async fn a_half_that_is_written_slowly_is_not_taken() {
    let mut world = World::new();
    world.write("d/h.wasm", "old");
    world.start("d/h.wasm");
    world.sees("old").await;
    let mut file = File::create(world.path("d/h.wasm")).unwrap();
    file.write_all(b"first half,").unwrap();
    file.sync_all().unwrap();
    // Longer than it takes for a change to settle and for two polls: time is the subject here.
    let watch = world.watch.as_mut().unwrap();
    let pause = settling::SETTLE + POLL * 2;
    let early = tokio::time::timeout(pause, watch.next()).await;
    assert!(early.is_err(), "{early:?}");
    file.write_all(b" second half").unwrap();
    drop(file);
    world.sees("first half, second half").await;
}

#[tokio::test]
async fn what_a_symlink_on_the_way_leads_to_is_seen_when_it_is_switched() {
    let mut world = World::new();
    for (folder, text) in [("v1", "one"), ("v2", "two"), ("v3", "three")] {
        fs::create_dir(world.path(folder)).unwrap();
        world.write(&format!("{folder}/h.wasm"), text);
    }
    // As Kubernetes does it.
    symlink("../v1", world.path("d/..data")).unwrap();
    symlink("..data/h.wasm", world.path("d/h.wasm")).unwrap();
    world.start("d/h.wasm");
    world.sees("one").await;
    let switch = |world: &World, to: &str| {
        symlink(to, world.path("d/..tmp")).unwrap();
        fs::rename(world.path("d/..tmp"), world.path("d/..data")).unwrap();
    };
    switch(&world, "../v2");
    fs::remove_dir_all(world.path("v1")).unwrap();
    world.sees("two").await;
    // Written where the link leads by now.
    world.write("v2/h.wasm", "two and a half");
    world.sees("two and a half").await;
    switch(&world, "../v3");
    world.sees("three").await;
    // The last link itself.
    world.write("v2/h.wasm", "four");
    symlink("../v2/h.wasm", world.path("d/..tmp")).unwrap();
    fs::rename(world.path("d/..tmp"), world.path("d/h.wasm")).unwrap();
    world.sees("four").await;
}

#[tokio::test]
async fn what_is_gone_or_no_use_is_told_once_and_seen_again_when_it_is_back() {
    let mut world = World::new();
    world.write("d/h.wasm", "one");
    world.start("d/h.wasm");
    world.sees("one").await;
    fs::remove_file(world.path("d/h.wasm")).unwrap();
    world.trouble("No such file").await;
    world.write("d/h.wasm", "two");
    world.sees("two").await;
    world.renamed("d/h.wasm", &"x".repeat(BYTES_MAX + 1));
    world.trouble("1001 bytes").await;
    world.renamed("d/h.wasm", "three");
    world.sees("three").await;
    // Its folder, too.
    fs::remove_dir_all(world.path("d")).unwrap();
    world.trouble("No such file").await;
    fs::create_dir(world.path("d")).unwrap();
    world.write("d/h.wasm", "four");
    world.sees("four").await;
    // A folder in its place, moved away with it, and another one made.
    fs::remove_file(world.path("d/h.wasm")).unwrap();
    fs::create_dir(world.path("d/h.wasm")).unwrap();
    world.trouble("no regular file").await;
    fs::rename(world.path("d"), world.path("e")).unwrap();
    fs::create_dir(world.path("d")).unwrap();
    world.write("d/h.wasm", "five");
    loop {
        match world.next().await {
            // Between both there was none, if it looked then.
            Seen::Trouble(why) => assert!(why.contains("No such file"), "{why}"),
            Seen::Bytes { bytes, .. } => {
                assert_eq!(*bytes, b"five");
                break;
            }
        }
    }
    world.renamed("d/h.wasm", "six");
    world.sees("six").await;
}

#[tokio::test]
async fn without_events_it_says_so_and_looks_for_itself() {
    let mut world = World::new();
    world.write("d/h.wasm", "one");
    world.start_without_events("d/h.wasm");
    world.trouble("only every 2 s").await;
    world.sees("one").await;
    world.renamed("d/h.wasm", "two");
    world.sees("two").await;
    world.write("d/h.wasm", "three");
    world.sees("three").await;
}

#[tokio::test]
async fn what_is_known_is_not_seen_again() {
    let mut world = World::new();
    world.write("d/h.wasm", "one");
    let known = Some(version_of(b"one"));
    world.watch = Some(Watch::start(&world.path("d/h.wasm"), BYTES_MAX, known).unwrap());
    world.renamed("d/h.wasm", "two");
    world.sees("two").await;
}
