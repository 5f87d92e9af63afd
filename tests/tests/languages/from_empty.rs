//! From an empty folder to a handled message, in each language: `segmenter new`, then the commands of the new
//! project's README as they stand there, then those of its tests. Toolchains are those that `cargo xtask
//! guests` found, by the environment alone. What it took is written to target/from-empty.md.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use segmenter_tests::process::{binary, until};

use crate::support::World;
use crate::{letters, until_done};

/// `new` included. Entering the new folder does not count.
const COMMANDS_MAX: usize = 5;
/// Of each stream in the templates' configurations.
const PARTITIONS: u32 = 4;

/// Language, and the stream that its README sends to.
const LANGUAGES: &[(&str, &str)] = &[
    ("rust", "orders"),
    ("c", "lines"),
    ("zig", "uploads"),
    ("js", "orders"),
    ("python", "texts"),
];

fn target() -> PathBuf {
    match std::env::var_os("SEGMENTER_TEST_GUESTS") {
        Some(guests) => PathBuf::from(guests).join(".."),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
    }
}

/// What a person does at a shell: in a folder, with the toolchains, `segmenter` and a Redis at hand.
struct Shell {
    folder: PathBuf,
    redis: String,
    /// Of user packages: what pip installs goes there.
    home: PathBuf,
}

impl Shell {
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("bash");
        command.args(["-c", line]).current_dir(&self.folder);
        let file = target().join("toolchains.env");
        let file = std::fs::read_to_string(&file)
            .unwrap_or_else(|e| panic!("{}: {e}; run `cargo xtask guests` first", file.display()));
        let mut path = std::env::var("PATH").expect("a PATH");
        for line in file.lines() {
            match line.split_once('=').expect("NAME=VALUE") {
                ("PATH", front) => path = format!("{front}:{path}"),
                (name, value) => _ = command.env(name, value),
            }
        }
        let segmenter = binary().parent().expect("in a folder").display();
        command.env("PATH", format!("{segmenter}:{path}"));
        command.env("SEGMENTER_REDIS", &self.redis);
        // Neither into the system nor into the user's own.
        command.env("PIP_USER", "1");
        command.env("PIP_BREAK_SYSTEM_PACKAGES", "1");
        command.env("PYTHONUSERBASE", &self.home);
        // Of the build of this test.
        for name in [
            "CARGO_TARGET_DIR",
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "RUSTC_WRAPPER",
        ] {
            command.env_remove(name);
        }
        command
    }

    fn run(&self, line: &str) -> Duration {
        let started = Instant::now();
        let output = self
            .command(line)
            .stdin(Stdio::null())
            .output()
            .expect("bash runs");
        let said = String::from_utf8_lossy(&output.stderr);
        let out = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "`{line}`: {}\n{out}\n{said}",
            output.status
        );
        started.elapsed()
    }

    /// What goes on in the background.
    fn start(&self, line: &str) -> Background {
        let line = line.strip_suffix(" &").expect("it is for the background");
        // `exec`: the shell's own id is the program's.
        let mut command = self.command(&format!("exec {line}"));
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Background(child.spawn().expect("bash runs"))
    }
}

struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The lines of the first shell block behind a heading.
fn block(readme: &str, heading: &str) -> Vec<String> {
    let behind = readme
        .split(&format!("\n## {heading}\n"))
        .nth(1)
        .expect("the heading");
    let block = behind
        .split("```sh\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    block.expect("a block").lines().map(str::to_owned).collect()
}

struct Took {
    commands: usize,
    build: Duration,
    whole: Duration,
    test: Duration,
}

fn from_empty(lang: &str, stream: &str) -> Took {
    let world = World::new();
    let place = tempfile::tempdir().expect("a folder");
    let mut shell = Shell {
        folder: place.path().to_owned(),
        redis: world.url.clone(),
        home: place.path().join("home"),
    };
    let name = format!("my-{lang}");
    let mut whole = shell.run(&format!("segmenter new {name} --lang {lang}"));
    shell.folder.push(&name);

    let readme = std::fs::read_to_string(shell.folder.join("README.md")).expect("a README");
    let lines = block(&readme, "Build and run");
    let mut build = Duration::ZERO;
    let mut host = None;
    for line in &lines {
        if line.ends_with('&') {
            let started = Instant::now();
            host = Some(shell.start(line));
            // It registers its streams first; a person does not type that fast.
            until(&format!("the stream {stream} is there"), || {
                let found = world.run(&["--format", "json", "stream", "describe", stream]);
                (found.code() == Some(0)).then_some(())
            });
            whole += started.elapsed();
        } else {
            let took = shell.run(line);
            whole += took;
            if host.is_none() {
                build += took;
            }
        }
    }
    let started = Instant::now();
    // The group is called like the project; with nothing acked there would be none.
    until("the group is there", || {
        let listed = world
            .run(&["--format", "json", "group", "list", stream])
            .ok();
        listed.stdout.contains(&name).then_some(())
    });
    until_done(&world, stream, PARTITIONS, &name);
    whole += started.elapsed();
    assert!(
        letters(&world, stream, &name).is_empty(),
        "the README's own message was not handled"
    );
    drop(host);

    let mut test = Duration::ZERO;
    for line in block(&readme, "Test") {
        test += shell.run(&line);
    }
    Took {
        commands: 1 + lines.len(),
        build,
        whole,
        test,
    }
}

#[test]
fn from_an_empty_folder_to_a_handled_message() {
    let mut table = String::from(
        "\n| language | commands | install and build | empty folder to handled message | its test |\n|---|---|---|---|---|\n",
    );
    for (lang, stream) in LANGUAGES {
        let took = from_empty(lang, stream);
        assert!(
            took.commands <= COMMANDS_MAX,
            "{lang}: {} commands",
            took.commands
        );
        let seconds = |duration: Duration| format!("{:.1} s", duration.as_secs_f64());
        writeln!(
            table,
            "| {lang} | {} | {} | {} | {} |",
            took.commands,
            seconds(took.build),
            seconds(took.whole),
            seconds(took.test)
        )
        .expect("a text grows");
    }
    println!("{table}");
    std::fs::write(target().join("from-empty.md"), table).expect("target is writable");
}
