//! The hosts: processes with numbers that are never used twice, some of them behind a proxy of their
//! own. Knows how to start, signal and hear them; must not know when or why.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::Context;

use super::clock::now_us;
use super::proxy::{Proxy, Word};
use super::record::{self, Handled};
use crate::process;

/// What was done to a host and has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Whatever befalls it, it must go on.
    Running,
    Paused,
    /// Its network is not what it was.
    Troubled,
    /// Told to leave.
    Leaving,
    Killed,
}

/// One process.
pub(super) struct Life {
    pub(super) number: u32,
    pub(super) member: String,
    pub(super) proxy: Option<Arc<Proxy>>,
    pub(super) state: State,
    /// When it was found ended, and how.
    pub(super) ended: Option<(u64, ExitStatus)>,
    child: Child,
    heard: Arc<Heard>,
}

#[derive(Default)]
struct Heard {
    ready_us: AtomicU64,
    /// When it said that its partitions run another version.
    live_us: Mutex<Vec<u64>>,
    open: AtomicUsize,
    handled: Mutex<Vec<Handled>>,
    strange: Mutex<Vec<String>>,
}

impl Life {
    /// When it said that it is a member.
    pub(super) fn ready_us(&self) -> Option<u64> {
        let at = self.heard.ready_us.load(Ordering::SeqCst);
        (at > 0).then_some(at)
    }

    /// When it said that its partitions run another version, each time.
    pub(super) fn live(&self) -> Vec<u64> {
        self.heard.live_us.lock().expect("no panic").clone()
    }

    pub(super) fn is_up(&self) -> bool {
        self.state == State::Running && self.ended.is_none() && self.ready_us().is_some()
    }

    pub(super) fn is_alive(&self) -> bool {
        self.ended.is_none() && !matches!(self.state, State::Killed | State::Leaving)
    }

    pub(super) fn signal(&self, name: &str) {
        process::signal(self.child.id(), name);
    }

    /// By SIGSTOP, as the kernel says.
    pub(super) fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        // PID (NAME) STATE …, and a name may hold anything.
        stat.is_ok_and(|stat| {
            stat.rsplit_once(") ")
                .is_some_and(|(_, rest)| rest.starts_with('T'))
        })
    }
}

pub(super) struct Fleet {
    pub(super) lives: Vec<Life>,
    direct_url: String,
    upstream: u16,
    config: PathBuf,
    logs: PathBuf,
    /// What a host says to commit. If something else gets to the server, all are behind proxies.
    commits: Word,
}

impl Fleet {
    pub(super) fn new(port: u16, config: PathBuf, logs: PathBuf, commits: Word) -> Fleet {
        Fleet {
            lives: Vec::new(),
            direct_url: format!("redis://127.0.0.1:{port}"),
            upstream: port,
            config,
            logs,
            commits,
        }
    }

    /// Starts a host and answers its number. A `member` and its proxy may be those of an earlier life.
    pub(super) fn start(
        &mut self,
        member: Option<String>,
        behind_proxy: bool,
    ) -> anyhow::Result<u32> {
        let number = u32::try_from(self.lives.len())?;
        let member = member.unwrap_or_else(|| format!("host-{number}"));
        let proxy = (behind_proxy || self.commits.instead.is_some())
            .then(|| Arc::new(Proxy::start(self.upstream, Some(self.commits.clone()))));
        let url = proxy
            .as_ref()
            .map_or(self.direct_url.clone(), |proxy| proxy.url());
        let config = self.config.to_str().context("the folder is not UTF-8")?;
        // --wait: a host may be started while Redis is away.
        let args = [
            "--format", "json", "run", "-c", config, "--member", &member, "--wait",
        ];
        let mut child = process::command(&url, &args)
            .stdin(Stdio::null())
            .spawn()
            .context("starting segmenter run")?;
        let path = self.logs.join(format!("host-{number}.log"));
        let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        let log = Arc::new(Mutex::new(file));
        let heard = Arc::new(Heard::default());
        heard.open.store(2, Ordering::SeqCst);
        let stdout = child.stdout.take().context("its stdout")?;
        let stderr = child.stderr.take().context("its stderr")?;
        listen(stdout, number, heard.clone(), log.clone());
        listen(stderr, number, heard.clone(), log);
        self.lives.push(Life {
            number,
            member,
            proxy,
            state: State::Running,
            ended: None,
            child,
            heard,
        });
        Ok(number)
    }

    pub(super) fn life(&mut self, number: u32) -> &mut Life {
        &mut self.lives[number as usize]
    }

    pub(super) fn kill(&mut self, number: u32) -> anyhow::Result<()> {
        let life = self.life(number);
        life.state = State::Killed;
        life.child.kill()?;
        let status = life.child.wait()?;
        life.ended = Some((now_us(), status));
        Ok(())
    }

    /// Finds who has ended.
    pub(super) fn look(&mut self) -> anyhow::Result<()> {
        for life in self.lives.iter_mut().filter(|life| life.ended.is_none()) {
            if let Some(status) = life.child.try_wait()? {
                life.ended = Some((now_us(), status));
            }
        }
        Ok(())
    }

    pub(super) fn alive(&self) -> usize {
        self.lives.iter().filter(|life| life.is_alive()).count()
    }

    /// How often hosts were made to say something else.
    pub(super) fn replaced(&self) -> u64 {
        let proxies = self.lives.iter().filter_map(|life| life.proxy.as_ref());
        proxies.map(|proxy| proxy.replaced()).sum()
    }

    /// So many calls were logged until now.
    pub(super) fn handled(&self) -> usize {
        let of = |life: &Life| life.heard.handled.lock().expect("no panic").len();
        self.lives.iter().map(of).sum()
    }

    /// Everything that all of them said, after all have ended; and lines that make no sense.
    pub(super) fn record(&self) -> (Vec<Handled>, Vec<String>) {
        process::until("the hosts' output ends", || {
            let open = |life: &Life| life.heard.open.load(Ordering::SeqCst);
            self.lives.iter().all(|life| open(life) == 0).then_some(())
        });
        let (mut handled, mut strange) = (Vec::new(), Vec::new());
        for life in &self.lives {
            handled.append(&mut life.heard.handled.lock().expect("no panic"));
            strange.append(&mut life.heard.strange.lock().expect("no panic"));
        }
        (handled, strange)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for life in &mut self.lives {
            let _ = life.child.kill();
            let _ = life.child.wait();
        }
    }
}

/// Guests' lines go to the record, all others with their time to the host's log file.
fn listen(
    stream: impl std::io::Read + Send + 'static,
    number: u32,
    heard: Arc<Heard>,
    log: Arc<Mutex<File>>,
) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            match record::parse(&line, number) {
                Some(Ok(handled)) => heard.handled.lock().expect("no panic").push(handled),
                Some(Err(why)) => heard.strange.lock().expect("no panic").push(why),
                None => {
                    let at = now_us();
                    if line.starts_with(r#"{"event":"ready""#) {
                        heard.ready_us.store(at, Ordering::SeqCst);
                    }
                    if line.starts_with(r#"{"event":"version_live""#) {
                        heard.live_us.lock().expect("no panic").push(at);
                    }
                    let _ = writeln!(log.lock().expect("no panic"), "{at} {line}");
                }
            }
        }
        heard.open.fetch_sub(1, Ordering::SeqCst);
    });
}
