//! A private Redis or Valkey for one test: its own port, its own folder, gone when it is dropped.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use segmenter_redis::ACL_RULES;

use crate::process::until;

pub const USER: &str = "segmenter";
const PASSWORD: &str = "test";

/// What differs from a throw-away server without persistence.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Instead of the one under test.
    pub binary: Option<PathBuf>,
    /// Of the default user, who then is the only one.
    pub password: Option<String>,
    /// Every write is on disk before it is answered.
    pub appendonly: bool,
    /// Bytes.
    pub maxmemory: Option<u64>,
    /// Further arguments.
    pub more: Vec<String>,
}

pub struct Server {
    child: Child,
    port: u16,
    options: Options,
    dir: tempfile::TempDir,
}

impl Server {
    pub fn start(options: Options) -> Server {
        let dir = tempfile::tempdir().expect("a folder");
        // Another process may take a port between our look and the server's: try another then.
        for _ in 0..10 {
            let port = free_port();
            let mut child = spawn(&options, port, dir.path());
            if answers(&mut child, port) {
                return Server {
                    child,
                    port,
                    options,
                    dir,
                };
            }
        }
        panic!("no server started: see {}/log", dir.path().display());
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// For what is under test: a user who may do no more than [`ACL_RULES`] says.
    pub fn url(&self) -> String {
        match &self.options.password {
            Some(_) => self.hands_url(),
            None => format!("redis://{USER}:{PASSWORD}@127.0.0.1:{}", self.port),
        }
    }

    /// For the test itself: the default user, who may do everything.
    pub fn hands_url(&self) -> String {
        match &self.options.password {
            Some(password) => format!("redis://:{password}@127.0.0.1:{}", self.port),
            None => format!("redis://127.0.0.1:{}", self.port),
        }
    }

    /// Of this server alone, removed with it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Again, on the same port and folder.
    pub fn restart(&mut self) {
        self.kill();
        until("the server is back on its port", || {
            let mut child = spawn(&self.options, self.port, self.dir.path());
            let up = answers(&mut child, self.port);
            self.child = child;
            up.then_some(())
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The server under test: `SEGMENTER_TEST_SERVER`, else one on the PATH.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("SEGMENTER_TEST_SERVER") {
        return path.into();
    }
    let found = std::env::var_os("PATH").and_then(|path| {
        let names = ["redis-server", "valkey-server"];
        std::env::split_paths(&path)
            .flat_map(|folder| names.map(|name| folder.join(name)))
            .find(|file| file.is_file())
    });
    found.expect("no Redis or Valkey server: run `cargo xtask test`, which fetches one, or set SEGMENTER_TEST_SERVER")
}

fn spawn(options: &Options, port: u16, dir: &Path) -> Child {
    let mut command = Command::new(options.binary.clone().unwrap_or_else(binary));
    let text = port.to_string();
    command.args([
        "--port",
        &text,
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--logfile",
        "log",
    ]);
    if options.appendonly {
        command.args(["--appendonly", "yes", "--appendfsync", "always"]);
    }
    match &options.password {
        Some(password) => command.args(["--requirepass", password]),
        None => command
            // The old server, which is to be refused, would begin with all channels.
            .args(["--user", USER, "reset", "resetchannels", "on"])
            .arg(format!(">{PASSWORD}"))
            .args(ACL_RULES.split(' ')),
    };
    if let Some(bytes) = options.maxmemory {
        command.args(["--maxmemory", &bytes.to_string()]);
    }
    command
        .args(&options.more)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the server's binary runs")
}

/// Waits until it answers, or has ended because its port is taken.
fn answers(child: &mut Child, port: u16) -> bool {
    until("the server answers or ends", || {
        if child.try_wait().expect("our child").is_some() {
            return Some(false);
        }
        ping(port).then_some(true)
    })
}

fn ping(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
        return false;
    };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let mut answer = [0u8; 7];
    // +PONG, or -NOAUTH of a server with a password; -LOADING is not ready.
    stream.write_all(b"PING\r\n").is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && (answer.starts_with(b"+PONG") || answer.starts_with(b"-NOAUTH"))
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}
