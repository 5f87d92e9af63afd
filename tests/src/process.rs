//! Real `segmenter` processes: started, watched line by line, signalled, waited for. Every wait has a
//! condition and a limit that only a defect reaches. It must not know what a test is about.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::Value;

/// What no healthy machine needs, however slow.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The binary under test: `SEGMENTER_TEST_BIN`, else the one of this build, which is made if need be.
pub fn binary() -> &'static PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("SEGMENTER_TEST_BIN") {
            return path.into();
        }
        // target/PROFILE/deps/TEST → target/PROFILE/segmenter
        let me = std::env::current_exe().expect("a test knows where it lies");
        let profile_dir = me
            .parent()
            .and_then(|deps| deps.parent())
            .expect("in target/PROFILE/deps");
        let path = profile_dir.join("segmenter");
        let mut build = Command::new(env!("CARGO"));
        // The selection of `cargo xtask test`: another one would compile wasmtime a second time.
        build.args([
            "test",
            "--quiet",
            "--workspace",
            "--no-run",
            "--test",
            "binary",
        ]);
        build.arg("--target-dir");
        build.arg(profile_dir.parent().expect("target/PROFILE"));
        if profile_dir.ends_with("release") {
            build.arg("--release");
        }
        // What cargo told this test about its own package would make build scripts run again.
        for (name, _) in std::env::vars_os() {
            let of_package = [
                "CARGO_PKG_",
                "CARGO_MANIFEST_",
                "CARGO_CRATE_",
                "CARGO_BIN_",
            ];
            if of_package
                .iter()
                .any(|prefix| name.to_string_lossy().starts_with(prefix))
            {
                build.env_remove(name);
            }
        }
        let status = build.status().expect("cargo runs");
        assert!(status.success(), "building the binary under test failed");
        path
    })
}

/// A guest of guest-examples, as `cargo xtask guests` builds it.
pub fn guest(name: &str) -> PathBuf {
    let folder = match std::env::var_os("SEGMENTER_TEST_GUESTS") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/guests")),
    };
    let path = folder.join(format!("{name}.wasm"));
    assert!(
        path.is_file(),
        "{} is missing; run `cargo xtask guests` first",
        path.display()
    );
    path
}

/// What a process that ended left behind.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }
    /// Panics with everything it said unless it exited with 0.
    pub fn ok(self) -> Ended {
        assert_eq!(self.code(), Some(0), "{self:#?}");
        self
    }
    /// The objects on stdout.
    pub fn objects(&self) -> Vec<Value> {
        let parse =
            |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line:?}: {e}"));
        self.stdout.lines().map(parse).collect()
    }
}

/// Runs a command of `segmenter` to its end.
pub fn segmenter(url: &str, args: &[&str]) -> Ended {
    with_input(url, args, b"")
}

/// The same with a variable in its environment; it need not come to its end by itself.
pub fn with_variable(url: &str, args: &[&str], (name, value): (&str, &Path)) -> Ended {
    let output = command(url, args)
        .env(name, value)
        .stdin(Stdio::null())
        .output()
        .expect("segmenter starts");
    let text = |bytes| String::from_utf8(bytes).expect("segmenter writes UTF-8");
    Ended {
        status: output.status,
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// Starts such a command, sends it a signal once `when` is true, and waits for its end.
pub fn signalled(url: &str, args: &[&str], name: &str, when: impl Fn() -> bool) -> Ended {
    let mut child = command(url, args)
        .stdin(Stdio::null())
        .spawn()
        .expect("segmenter starts");
    let (stdout, stderr) = (gather(child.stdout.take()), gather(child.stderr.take()));
    until("the moment for a signal", || when().then_some(()));
    assert!(signal(child.id(), name), "it has ended before");
    let status = wait(&mut child, args);
    let text = |bytes: std::thread::JoinHandle<Vec<u8>>| {
        String::from_utf8(bytes.join().expect("no panic")).expect("segmenter writes UTF-8")
    };
    Ended {
        status,
        stdout: text(stdout),
        stderr: text(stderr),
    }
}

/// The same, with something on stdin.
pub fn with_input(url: &str, args: &[&str], input: &[u8]) -> Ended {
    let mut child = command(url, args)
        .stdin(Stdio::piped())
        .spawn()
        .expect("segmenter starts");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    let feed = std::thread::spawn(move || {
        // It may end before it has read everything: that is for the test to judge.
        let _ = stdin.write_all(&input);
    });
    let (stdout, stderr) = (gather(child.stdout.take()), gather(child.stderr.take()));
    let status = wait(&mut child, args);
    feed.join().expect("the feeder does not panic");
    let text = |bytes: std::thread::JoinHandle<Vec<u8>>| {
        String::from_utf8(bytes.join().expect("no panic")).expect("segmenter writes UTF-8")
    };
    Ended {
        status,
        stdout: text(stdout),
        stderr: text(stderr),
    }
}

/// `segmenter`, talking to this Redis, its output piped.
pub(crate) fn command(url: &str, args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command
        .args(args)
        .env_remove("SEGMENTER_NAMESPACE")
        .env_remove("SEGMENTER_READ_AHEAD")
        .env("SEGMENTER_REDIS", url)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn gather(stream: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    let mut stream = stream.expect("piped");
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        bytes
    })
}

fn wait(child: &mut Child, what: &[&str]) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    // wait() knows no limit: a second thread would have to kill, and would race with the reaping.
    until(&format!("{what:?} ends"), || {
        if Instant::now() >= deadline {
            let _ = child.kill();
        }
        child.try_wait().expect("our child")
    })
}

/// Asks again and again until there is an answer. Panics after [`PATIENCE`], naming what was awaited.
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = condition() {
            return answer;
        }
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        // Not a wait for something to have happened: the condition decides, this only spares the CPU.
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Of a process that lives: `VmRSS` is what it takes now, `VmHWM` the most that it ever took.
pub fn memory_kib(pid: u32, which: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix(which));
    let number = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
    number.and_then(|n| n.parse().ok()).expect("NAME: N kB")
}

/// Whether there was such a process.
pub(crate) fn signal(pid: u32, name: &str) -> bool {
    let status = Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .stderr(Stdio::null())
        .status();
    status.expect("kill runs").success()
}

#[derive(Default)]
struct Heard {
    lines: VecDeque<Value>,
    raw: Vec<String>,
    open: usize,
}

/// A running host, `segmenter run … --format json`.
pub struct Host {
    child: Child,
    heard: Arc<(Mutex<Heard>, Condvar)>,
}

impl Host {
    /// Starts it and waits until it is ready.
    pub fn start(url: &str, args: &[&str]) -> Host {
        let host = Host::spawn(url, args);
        // Two streams, in no order: a guest's line may come before it.
        host.find("event ready", true, |line| line["event"] == "ready");
        host
    }

    pub fn spawn(url: &str, args: &[&str]) -> Host {
        Host::spawn_with(url, args, Stdio::piped(), None)
    }

    /// Starts it with a variable in its environment and waits until it is ready.
    pub fn start_with_variable(url: &str, args: &[&str], variable: (&str, &Path)) -> Host {
        let host = Host::spawn_with(url, args, Stdio::piped(), Some(variable));
        host.find("event ready", true, |line| line["event"] == "ready");
        host
    }

    /// Starts it without keeping what it says on stderr: for tests in which that is more than a test can
    /// hold.
    pub fn quiet(url: &str, args: &[&str]) -> Host {
        let host = Host::spawn_with(url, args, Stdio::null(), None);
        host.find("event ready", true, |line| line["event"] == "ready");
        host
    }

    fn spawn_with(
        url: &str,
        args: &[&str],
        stderr: Stdio,
        variable: Option<(&str, &Path)>,
    ) -> Host {
        let mut all = vec!["--format", "json", "run"];
        all.extend_from_slice(args);
        let mut child = command(url, &all)
            .envs(variable)
            .stdin(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("segmenter starts");
        let heard: Arc<(Mutex<Heard>, Condvar)> = Arc::default();
        listen(child.stdout.take(), heard.clone());
        listen(child.stderr.take(), heard.clone());
        Host { child, heard }
    }

    /// The next line for which `wanted` is true; those before it are dropped.
    pub fn line(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.find(what, false, wanted)
    }

    fn find(&self, what: &str, keep: bool, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let (mutex, news) = &*self.heard;
        let mut heard = mutex.lock().expect("no panic");
        loop {
            if let Some(at) = heard.lines.iter().position(&wanted) {
                let line = heard.lines.remove(at).expect("it is there");
                if !keep {
                    heard.lines.drain(..at);
                }
                return line;
            }
            if !keep {
                heard.lines.clear();
            }
            let said = || heard.raw.join("\n");
            assert!(
                heard.open > 0,
                "the host ended before: {what}. It said:\n{}",
                said()
            );
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "gave up waiting for: {what}. The host said:\n{}",
                said()
            );
            heard = news.wait_timeout(heard, left).expect("no panic").0;
        }
    }

    pub fn event(&mut self, name: &str) -> Value {
        self.line(&format!("event {name}"), |line| line["event"] == name)
    }

    /// Every line it has said so far, as text.
    pub fn said(&self) -> Vec<String> {
        self.heard.0.lock().expect("no panic").raw.clone()
    }

    /// What its guests logged so far.
    pub fn guest_lines(&self) -> Vec<GuestLine> {
        let parse = |line: &String| serde_json::from_str::<Value>(line).ok();
        self.said()
            .iter()
            .filter_map(parse)
            .filter_map(|line| GuestLine::of(&line))
            .collect()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        assert!(signal(self.pid(), name), "SIG{name} reaches the host");
    }

    /// Whether it has ended, by itself or by a signal.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_some()
    }

    /// Waits for its end and for all that it said.
    pub fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        let status = until("the host ends", || child.try_wait().expect("our child"));
        let heard = &self.heard.0;
        until("its output ends", || {
            (heard.lock().expect("no panic").open == 0).then_some(())
        });
        status
    }

    /// SIGTERM; it must drain and exit 0.
    pub fn stop(mut self) -> Vec<GuestLine> {
        self.signal("TERM");
        let status = self.ended();
        assert_eq!(
            status.code(),
            Some(0),
            "it said:\n{}",
            self.said().join("\n")
        );
        self.guest_lines()
    }

    /// kill -9.
    pub fn kill(mut self) -> Vec<GuestLine> {
        self.child.kill().expect("it runs");
        self.ended();
        self.guest_lines()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listen(stream: Option<impl Read + Send + 'static>, heard: Arc<(Mutex<Heard>, Condvar)>) {
    let Some(stream) = stream else { return };
    heard.0.lock().expect("no panic").open += 1;
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut state = heard.0.lock().expect("no panic");
            if let Ok(value) = serde_json::from_str(&line) {
                state.lines.push_back(value);
            }
            state.raw.push(line);
            heard.1.notify_all();
        }
        heard.0.lock().expect("no panic").open -= 1;
        heard.1.notify_all();
    });
}

/// One `guest_log` event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestLine {
    pub at_us: u64,
    pub partition: u64,
    pub id: String,
    pub attempt: u64,
    pub text: String,
}

impl GuestLine {
    pub fn of(line: &Value) -> Option<GuestLine> {
        // What a shadow says has not happened.
        let live = line["event"] == "guest_log" && line["shadow"] != true;
        live.then(|| GuestLine {
            at_us: line["at_us"].as_u64().expect("at_us"),
            partition: line["partition"].as_u64().expect("partition"),
            id: line["id"].as_str().expect("id").to_owned(),
            attempt: line["attempt"].as_u64().expect("attempt"),
            text: line["text"].as_str().expect("text").to_owned(),
        })
    }
    /// Partition and entry id: one message of the stream.
    pub fn message(&self) -> (u64, String) {
        (self.partition, self.id.clone())
    }
}
