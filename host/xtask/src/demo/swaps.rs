//! The handler's versions while messages flow: v1 from the start, v2 in its place, and v3, which traps and
//! must be rolled back by itself. Knows deploys and what hosts say of versions; must not know what the
//! counts come to.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use super::hosts::{HOSTS, name};
use super::tool::Tool;

/// A swap takes no longer, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Sent in a second while a swap is under way, so that it meets messages until its end.
const SLOW_PER_SECOND: u64 = 100;
/// Sent and not handled at most, at any other time.
const AHEAD: u64 = 1_000;

/// What there is to deploy.
pub(super) struct Files {
    pub(super) v1: PathBuf,
    pub(super) v2: PathBuf,
    pub(super) v3: PathBuf,
}

/// How it went.
#[derive(Debug, Default)]
pub(super) struct Story {
    pub(super) v1: String,
    pub(super) v2: String,
    pub(super) v3: String,
    /// Messages that were handled when v2 was deployed, and when all hosts ran it.
    pub(super) second: (u64, u64),
    /// The same of v3, until all hosts ran v2 again.
    pub(super) third: (u64, u64),
    /// Calls of v3 that trapped.
    pub(super) trapped: u64,
    /// That v3 was rolled back, by whom and why.
    pub(super) reason: String,
}

enum Stage {
    First,
    /// v2 is on its way.
    ToSecond(Deploy),
    Second,
    /// v3 is on trial.
    Third(Deploy),
    Back,
}

pub(super) struct Swaps<'a> {
    tool: &'a Tool<'a>,
    handler: &'a str,
    files: Files,
    stage: Stage,
    since: Instant,
    /// What was handled when the stage began.
    from: u64,
    /// What hosts say that they run.
    runs: [String; HOSTS],
    rolled_back: [bool; HOSTS],
    traps: Vec<String>,
    story: Story,
}

impl<'a> Swaps<'a> {
    /// Deploys v1: hosts need something to begin with.
    pub(super) fn begin(
        tool: &'a Tool<'a>,
        handler: &'a str,
        files: Files,
    ) -> anyhow::Result<Swaps<'a>> {
        let mut first = Deploy::start(tool, handler, &files.v1, &["--now"])?;
        let said = loop {
            if let Some(said) = first.ended()? {
                break said;
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let v1 = said.version()?;
        Ok(Swaps {
            tool,
            handler,
            files,
            stage: Stage::First,
            since: Instant::now(),
            from: 0,
            runs: std::array::from_fn(|_| v1.clone()),
            rolled_back: [false; HOSTS],
            traps: Vec::new(),
            story: Story {
                v1,
                ..Story::default()
            },
        })
    }

    pub(super) fn listens_to(event: &Value) -> bool {
        let name = event["event"].as_str().unwrap_or_default();
        name.starts_with("version_") || name == "handler_failed"
    }

    /// What a host said of its versions.
    pub(super) fn heard(&mut self, host: usize, event: &Value) {
        let version = event["version"].as_str().unwrap_or_default();
        match event["event"].as_str() {
            Some("version_live") => version.clone_into(&mut self.runs[host]),
            Some("version_rolled_back") => self.rolled_back[host] = true,
            Some("handler_failed") if event["outcome"] == "trap" => {
                self.traps.push(version.to_owned());
            }
            _ => {}
        }
    }

    /// Before that a guest's line that counts nothing is a defect.
    pub(super) fn has_third(&self) -> bool {
        matches!(self.stage, Stage::Third(_) | Stage::Back)
    }

    pub(super) fn is_first(&self) -> bool {
        matches!(self.stage, Stage::First)
    }

    pub(super) fn is_second(&self) -> bool {
        matches!(self.stage, Stage::Second)
    }

    /// So many may be sent when `handled` are.
    pub(super) fn may_send(&self, handled: u64) -> u64 {
        match self.stage {
            Stage::First | Stage::Second | Stage::Back => handled + AHEAD,
            Stage::ToSecond(_) | Stage::Third(_) => {
                let slow = self.since.elapsed().as_millis() as u64 * SLOW_PER_SECOND / 1_000;
                self.from + AHEAD + slow
            }
        }
    }

    pub(super) fn deploy_second(&mut self, handled: u64) -> anyhow::Result<()> {
        let deploy = Deploy::start(self.tool, self.handler, &self.files.v2, &["--now"])?;
        self.enter(Stage::ToSecond(deploy), handled);
        Ok(())
    }

    pub(super) fn deploy_third(&mut self, handled: u64) -> anyhow::Result<()> {
        let deploy = Deploy::start(self.tool, self.handler, &self.files.v3, &["--wait"])?;
        self.enter(Stage::Third(deploy), handled);
        Ok(())
    }

    fn enter(&mut self, stage: Stage, handled: u64) {
        (self.stage, self.since, self.from) = (stage, Instant::now(), handled);
    }

    /// Looks whether the swap that is under way is over on all hosts that are `up`, and says so.
    pub(super) fn look(
        &mut self,
        handled: u64,
        up: &[bool; HOSTS],
    ) -> anyhow::Result<Option<String>> {
        let seconds = self.since.elapsed().as_secs_f64();
        let under_way = match &mut self.stage {
            Stage::First | Stage::Second | Stage::Back => return Ok(None),
            Stage::ToSecond(deploy) => {
                if let Some(said) = deploy.ended()? {
                    self.story.v2 = said.version()?;
                }
                "v2"
            }
            Stage::Third(deploy) => {
                if let Some(said) = deploy.ended()? {
                    (self.story.v3, self.story.reason) = said.rolled_back()?;
                }
                "v3"
            }
        };
        let waited = self.since.elapsed() > PATIENCE;
        let (v2, v3) = (self.story.v2.clone(), self.story.v3.clone());
        let back = under_way == "v3";
        let settled = |host: usize| {
            let runs = !v2.is_empty() && self.runs[host] == v2;
            runs && (!back || self.rolled_back[host])
        };
        let missing = (0..HOSTS).find(|host| up[*host] && !settled(*host));
        let answered = if back { !v3.is_empty() } else { !v2.is_empty() };
        if missing.is_none() && answered {
            let span = (self.from, handled);
            let text = if back {
                self.story.third = span;
                let of_v3 = |version: &&String| **version == v3;
                self.story.trapped = self.traps.iter().filter(of_v3).count() as u64;
                if self.story.trapped == 0 {
                    bail!("v3 was rolled back, but no host said that it trapped");
                }
                self.enter(Stage::Back, handled);
                format!(
                    "v3 is rolled back to v2 on all hosts, {seconds:.1} s after its deploy began: {}",
                    self.story.reason
                )
            } else {
                self.story.second = span;
                self.enter(Stage::Second, handled);
                format!("v2 runs on all hosts, {seconds:.1} s after its deploy began")
            };
            return Ok(Some(text));
        }
        if waited {
            let whom = missing.map_or("the deploy".to_owned(), name);
            bail!(
                "{under_way} was deployed {} s ago and {whom} is not done with it",
                PATIENCE.as_secs()
            );
        }
        Ok(None)
    }

    pub(super) fn story(&mut self) -> anyhow::Result<Story> {
        match self.stage {
            Stage::Back => Ok(std::mem::take(&mut self.story)),
            Stage::Third(_) => bail!("everything was handled before v3 was rolled back"),
            _ => bail!("everything was handled before v2 and v3 were deployed"),
        }
    }
}

/// `segmenter handler deploy`, while everything else goes on.
struct Deploy {
    child: Child,
    what: String,
    over: bool,
}

/// What it answered: one object a line.
struct Said {
    what: String,
    objects: Vec<Value>,
    success: bool,
}

impl Deploy {
    fn start(
        tool: &Tool<'_>,
        handler: &str,
        file: &PathBuf,
        more: &[&str],
    ) -> anyhow::Result<Deploy> {
        let what = format!("deploying {}", file.display());
        let child = tool
            .command(&["--format", "json", "handler", "deploy", handler])
            .arg(file)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| what.clone())?;
        Ok(Deploy {
            child,
            what,
            over: false,
        })
    }

    /// Once: what it said, when it has ended.
    fn ended(&mut self) -> anyhow::Result<Option<Said>> {
        if self.over {
            return Ok(None);
        }
        let Some(status) = self.child.try_wait()? else {
            return Ok(None);
        };
        self.over = true;
        let mut text = String::new();
        if let Some(stdout) = &mut self.child.stdout {
            std::io::Read::read_to_string(stdout, &mut text)?;
        }
        let objects = text
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>();
        Ok(Some(Said {
            objects: objects.with_context(|| format!("{}: it said {text:?}", self.what))?,
            what: self.what.clone(),
            success: status.success(),
        }))
    }
}

impl Drop for Deploy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Said {
    /// It must have gone well.
    fn version(&self) -> anyhow::Result<String> {
        let version = self.objects.iter().find_map(|o| o["version"].as_str());
        match version {
            Some(version) if self.success => Ok(version.to_owned()),
            _ => bail!("{} failed: it answered {:?}", self.what, self.objects),
        }
    }

    /// It must have been rolled back, by itself: version and reason.
    fn rolled_back(&self) -> anyhow::Result<(String, String)> {
        let ended = self.objects.iter().find(|o| o["outcome"].is_string());
        let text = |name: &str| ended.and_then(|o| o[name].as_str()).unwrap_or_default();
        if self.success || text("outcome") != "rolled_back" {
            bail!(
                "{}: it traps at every message and was not rolled back; the answer was {:?}",
                self.what,
                self.objects
            );
        }
        Ok((text("version").to_owned(), text("reason").to_owned()))
    }
}
