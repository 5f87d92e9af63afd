//! `handler deploy --wait`: until every host that is heard of runs the version, or it is clear that none
//! will. News make it quick; looking every half a second catches what they miss.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use segmenter_core::names::{HandlerId, Version};
use segmenter_core::port::{Change, Failure, Happened, Heard};
use segmenter_core::rollout::{Candidacy, Mode, differences, evidence, is_fresh};
use segmenter_redis::handlers::{self, HandlerInfo};
use segmenter_redis::{Broker, HandlerNews};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::super::FAILED;
use super::{short, span};
use crate::output::{Format, Out, preview};

/// Between two looks without news.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Hosts that a text names.
const NAMED_MAX: usize = 5;

pub(super) struct Wait {
    pub(super) broker: Broker,
    pub(super) handler: HandlerId,
    pub(super) version: Version,
    /// With which it was deployed.
    pub(super) revision: u64,
    pub(super) timeout: Duration,
}

/// What a look found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Look {
    /// Not yet: what is missing.
    Missing(String),
    Ended {
        outcome: &'static str,
        reason: String,
    },
}

impl Look {
    fn ended(outcome: &'static str, reason: impl Into<String>) -> Look {
        let reason = reason.into();
        Look::Ended { outcome, reason }
    }
}

pub(super) async fn run(out: &mut Out, wait: &Wait) -> anyhow::Result<ExitCode> {
    let (outcome, reason) = until_over(out.format, wait).await;
    let well = matches!(outcome, "running" | "shadow_ended");
    let (name, version) = (&wait.handler.handler, &wait.version);
    match out.format {
        Format::Json => out.object(&json!({
            "handler": name.as_str(),
            "version": version.as_str(),
            "outcome": outcome,
            "reason": reason,
        }))?,
        Format::Human if well => {
            out.line(&format!(
                "{name}: version {}: {}",
                short(version),
                preview(&reason, 2_000)
            ))?;
        }
        Format::Human => {
            anyhow::bail!("{name}: version {}: {reason}", short(version));
        }
    }
    out.flush()?;
    Ok(match well {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(FAILED),
    })
}

async fn until_over(format: Format, wait: &Wait) -> (&'static str, String) {
    let until = Instant::now() + wait.timeout;
    // From here on, so that none is missed between two looks.
    let interrupt = signal(SignalKind::interrupt()).ok();
    let news = HandlerNews::start(&wait.broker, &wait.handler);
    let progress = progress(format);
    let ended = looking(wait, until, interrupt, news, &progress).await;
    progress.finish_and_clear();
    ended
}

async fn looking(
    wait: &Wait,
    until: Instant,
    mut interrupt: Option<Signal>,
    mut news: HandlerNews,
    progress: &ProgressBar,
) -> (&'static str, String) {
    let mut interrupted = async || match &mut interrupt {
        Some(signal) => signal.recv().await,
        None => std::future::pending().await,
    };
    let mut missing = "Redis did not answer".to_owned();
    loop {
        match timeout_at(until, look(wait)).await {
            Ok(Ok(Look::Ended { outcome, reason })) => return (outcome, reason),
            Ok(Ok(Look::Missing(what))) => missing = what,
            // It may come back; until then nothing is known.
            Ok(Err(failure)) => missing = format!("Redis does not answer: {failure}"),
            Err(_) => {}
        }
        progress.set_message(preview(&missing, 100));
        if Instant::now() >= until {
            let after = span(wait.timeout);
            return (
                "timeout",
                format!("not everywhere after {after}: {missing}"),
            );
        }
        tokio::select! {
            () = news.recv() => {}
            () = sleep(LOOK_EVERY) => {}
            () = sleep_until(until) => {}
            _ = interrupted() => {
                let name = &wait.handler.handler;
                let what = format!("no longer waited for ({missing}); the deploy goes on, `segmenter handler list {name}` shows how");
                return ("interrupted", what);
            }
        }
    }
}

async fn look(wait: &Wait) -> Result<Look, Failure> {
    let Some(info) = handlers::describe_handler(&wait.broker, &wait.handler).await? else {
        return Ok(Look::ended(
            "replaced",
            "Redis does not know the handler any more",
        ));
    };
    if info.wanted.revision == wait.revision && info.wanted.candidate.is_some() {
        return Ok(Look::Missing(on_trial(&info)));
    }
    if info.wanted.current == wait.version {
        return Ok(current(&info, &wait.version));
    }
    let history = handlers::history(&wait.broker, &wait.handler).await?;
    Ok(what_became(&history, &wait.version, wait.revision, &info))
}

fn hosts<'a>(hosts: impl Iterator<Item = &'a Heard>) -> String {
    let names: BTreeSet<_> = hosts.map(|heard| heard.host.as_str()).collect();
    let mut named: Vec<_> = names.iter().copied().take(NAMED_MAX).collect();
    if names.len() > NAMED_MAX {
        named.push("…");
    }
    named.join(", ")
}

/// Not one that runs a file.
fn follows(heard: &Heard) -> bool {
    heard.report.revision != 0
}

fn on_trial(info: &HandlerInfo) -> String {
    let Some(trying) = &info.wanted.candidate else {
        return String::new();
    };
    let heard = |heard: &&Heard| is_fresh(heard.age) && follows(heard);
    let fresh: Vec<_> = info.hosts.iter().filter(heard).collect();
    if fresh.is_empty() {
        return no_host();
    }
    let waiting = |heard: &&&Heard| {
        heard.report.revision != info.wanted.revision || heard.report.candidacy != Candidacy::Loaded
    };
    if fresh.iter().any(|heard| waiting(&heard)) {
        let waiting = hosts(fresh.iter().filter(waiting).copied());
        return format!("not loaded yet by {waiting}");
    }
    let revision = info.wanted.revision;
    let counted = match trying.mode {
        Mode::Trial(_) => evidence(&info.hosts, revision).candidate.to_string(),
        Mode::Shadow => differences(&info.hosts, revision).to_string(),
    };
    match trying.left.is_zero() {
        true => format!("its time is over, not settled yet ({counted})"),
        false => format!("{} to go ({counted})", span(trying.left)),
    }
}

fn no_host() -> String {
    "no host that runs this handler was heard of (`segmenter run` with module = \"deployed\")"
        .to_owned()
}

/// It is wanted as the current version: who runs it? Also a host that was not heard of for some seconds is
/// waited for: it may still handle messages.
fn current(info: &HandlerInfo, version: &Version) -> Look {
    let known: Vec<_> = info.hosts.iter().filter(|h| follows(h)).collect();
    if known.is_empty() {
        return Look::Missing(no_host());
    }
    for heard in &known {
        if let (Some(why), true) = (
            &heard.report.refused,
            heard.report.revision == info.wanted.revision,
        ) {
            return Look::ended("refused", format!("host {} refuses it: {why}", heard.host));
        }
    }
    let other = |heard: &&&Heard| heard.report.current != *version;
    let behind: Vec<_> = known.iter().filter(other).copied().collect();
    match behind.len() {
        0 => Look::ended("running", format!("runs on {}", hosts(known.into_iter()))),
        _ => Look::Missing(format!("not running yet on {}", hosts(behind.into_iter()))),
    }
}

/// It is neither on trial nor current: the history says why.
fn what_became(history: &[Happened], version: &Version, revision: u64, info: &HandlerInfo) -> Look {
    let mut after = history.iter().filter(|h| h.revision > revision);
    let ended = after.clone().find(|h| h.version == *version);
    match ended.map(|h| (h.change, h)) {
        Some((Change::RolledBack, h)) => {
            let reason = match h.reason.as_str() {
                "" => format!("by {}", h.by),
                reason => format!("by {}: {reason}", h.by),
            };
            Look::ended("rolled_back", format!("rolled back {reason}"))
        }
        Some((Change::ShadowEnded, h)) => {
            let counted = match h.reason.as_str() {
                "" => "nothing was reported",
                counted => counted,
            };
            Look::ended("shadow_ended", format!("the shadow ended: {counted}"))
        }
        _ => {
            let current = short(&info.wanted.current);
            let last = after
                .next_back()
                .map_or_else(String::new, |h| format!(" by {}", h.by));
            Look::ended(
                "replaced",
                format!("version {current} is wanted instead by now{last}"),
            )
        }
    }
}

fn progress(format: Format) -> ProgressBar {
    if format == Format::Json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(200));
    match ProgressStyle::with_template("{spinner} {msg}  {elapsed}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
