//! The running host: modules → streams → groups → members, in that order, then until a signal. It must
//! not know the command line; the configuration it gets is valid.

mod call_log;
pub(crate) mod clock;
mod file_watch;
mod follow;
mod handler;
mod life;
mod lineup;
mod loader;
mod module_file;
mod prepare;
pub(crate) mod random;
mod read_ahead;
pub(crate) mod relay;
mod reload;
mod shadow;
mod signals;
mod supervisor;
mod targets;
pub mod telemetry;
mod wasm;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use segmenter_core::backoff::Backoff;
use segmenter_core::consumer::Exhausted;
use segmenter_core::member::Exit;
use segmenter_core::names::{GroupName, HandlerName, MemberId, StreamId, StreamName};
use segmenter_core::port::{Failure, Start};
use segmenter_core::time::Duration;
use segmenter_redis::{Address, Broker};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

pub use handler::{CallLimits, Diagnosis, Handler, Instance};
pub(crate) use prepare::{bound, cache_dir};
pub(crate) use random::name as random_name;

use crate::config::{Config, ConfigFile, READ_AHEAD_BYTES, StreamConfig};
use crate::output::Format;
use follow::{Parts, Settings};
use life::Life;
use lineup::{Lineup, Live};
use prepare::Prepared;
use reload::ConfigWatch;
use supervisor::Order;

/// What `segmenter run` was asked for.
pub struct RunOptions {
    pub config: Config,
    /// Where the configuration was read from: it is looked after while the host runs.
    pub file: Option<ConfigFile>,
    pub address: Address,
    pub format: Format,
    /// Wait for Redis for ever instead of giving up.
    pub wait: bool,
    /// Validate configuration and modules, then end.
    pub check: bool,
    /// A folder for core dumps of guests that trap.
    pub coredump: Option<PathBuf>,
    /// Tell each call with what it came to.
    pub calls: bool,
    /// What a module file becomes is current at once, without a trial.
    pub now: bool,
}

/// One handler bound to (stream, group), whatever runs it.
#[derive(Debug, Clone)]
pub struct Plan {
    pub handler: HandlerName,
    pub stream: StreamId,
    pub group: GroupName,
    pub start: Start,
    pub session_timeout: Duration,
    pub drain_timeout: Duration,
    pub retry: Backoff,
    /// At one message, the first included.
    pub attempts: u32,
    pub exhausted: Exhausted,
    /// Streams of the namespace that it may emit to.
    pub emit: BTreeSet<StreamName>,
}

/// Speaks for the host; says that Redis is away once, not once per request.
#[derive(Clone)]
pub struct Say {
    format: Format,
    /// Each call is told.
    calls: bool,
    away: Arc<AtomicBool>,
}

impl Say {
    pub fn new(format: Format) -> Say {
        Say {
            format,
            calls: false,
            away: Arc::default(),
        }
    }
    fn with_calls(self, calls: bool) -> Say {
        Say { calls, ..self }
    }
    fn event(&self, event: &telemetry::Event<'_>) {
        telemetry::say(self.format, event);
    }
    fn away(&self, why: &str) {
        if !self.away.swap(true, Ordering::Relaxed) {
            self.event(&telemetry::Event::RedisAway { why });
        }
    }
    fn redis(&self, failure: Option<&Failure>) {
        match failure {
            Some(failure) => self.away(&failure.to_string()),
            None => {
                if self.away.swap(false, Ordering::Relaxed) {
                    self.event(&telemetry::Event::RedisBack);
                }
            }
        }
    }
}

/// The host with WebAssembly handlers, from configuration to exit.
pub async fn run(options: RunOptions) -> anyhow::Result<ExitCode> {
    let say = Say::new(options.format).with_calls(options.calls);
    let (loader, prepared) = prepare::modules(&options.config, options.coredump, &say).await?;
    if options.check {
        prepare::say_checked(options.format, &prepared);
        read_ahead::say_checked(options.format, &options.config);
        return Ok(ExitCode::SUCCESS);
    }
    let mut signals = signals::Signals::new()?;
    let broker = tokio::select! {
        broker = prepare::connect(&options.address, options.wait, &say) => broker?,
        signal = signals.next() => {
            let text = format!("{signal} before Redis was reached: there is nothing to drain");
            say.event(&telemetry::Event::Warning { text: &text });
            return Ok(ExitCode::SUCCESS);
        }
    };
    broker
        .check_permissions(&options.config.namespace)
        .await
        .with_context(|| format!("Redis at {} cannot be used", options.address))?;
    prepare::refuse_eviction(&broker)?;
    prepare::warn(&broker, &options.config.namespace, &say).await;
    prepare::streams(&broker, &options.config, &say).await?;
    let grants = prepared
        .iter()
        .map(|p| (&p.plan.stream.stream, &p.plan.emit));
    if let Some(cycle) = targets::cycle(grants) {
        let names: Vec<_> = cycle.iter().map(|stream| stream.as_str()).collect();
        let text = format!(
            "handlers may emit in a circle: {}; if they emit more than they handle, it fills until their outboxes are full, and stands",
            names.join(" to ")
        );
        say.event(&telemetry::Event::Warning { text: &text });
    }
    let member = match options.config.member.clone() {
        Some(member) => member,
        None => a_member()?,
    };
    let begin = async {
        let mut begun = Vec::new();
        for Prepared { plan, config, code } in prepared {
            let found = prepare::find(&broker, &plan).await?;
            let log = telemetry::GuestLog::new(options.format, plan.handler.clone());
            let parts = Parts {
                partitions: found.shape.partitions(),
                broker: broker.clone(),
                loader: loader.clone(),
                say: say.clone(),
                log: Arc::new(log),
                plan: plan.clone(),
                now: options.now,
            };
            let followed = follow::begin(parts, config, code, member.clone(), options.wait);
            begun.push((plan, followed.await?));
        }
        anyhow::Ok(begun)
    };
    let begun = tokio::select! {
        begun = begin => begun?,
        signal = signals.next() => {
            say.event(&telemetry::Event::Draining { signal });
            return Ok(ExitCode::SUCCESS);
        }
    };
    let (orders_out, orders) = watch::channel(Order::Run);
    let mut following = JoinSet::new();
    let mut handlers = Vec::new();
    let mut settings = BTreeMap::new();
    for (plan, begun) in begun {
        following.spawn(begun.follow.run(orders.clone()));
        settings.insert(plan.handler.clone(), begun.settings);
        handlers.push((plan, begun.published));
    }
    let _reloading = AbortOnDrop(tokio::spawn(reloading(
        options.file,
        options.config.clone(),
        settings,
        say.clone(),
    )));
    let terms = Terms {
        member,
        streams: options.config.streams,
        read_ahead: options.config.read_ahead,
        orders: orders_out,
    };
    let exit = serve(broker, terms, handlers, say, signals).await;
    // They say good-bye; a Redis that is away does not keep the host.
    let _ = tokio::time::timeout(GOOD_BYE, following.join_all()).await;
    exit
}

/// At the end, for what others would else wait for.
const GOOD_BYE: Duration = Duration::from_secs(1);

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Without a configured id, every start is a member of its own.
fn a_member() -> anyhow::Result<MemberId> {
    MemberId::new(format!("m-{}", &random::name()[..12])).context("member id")
}

/// Hands changes of the configuration file to whom they concern.
async fn reloading(
    file: Option<ConfigFile>,
    config: Config,
    settings: BTreeMap<HandlerName, watch::Sender<Settings>>,
    say: Say,
) {
    let started = file.map(|file| ConfigWatch::start(file, config, say.clone()));
    let mut watch = match started {
        Some(Ok(watch)) => watch,
        Some(Err(error)) => {
            let text = format!("changes of the configuration are not seen: {error}");
            say.event(&telemetry::Event::Warning { text: &text });
            return std::future::pending().await;
        }
        // Whoever holds `settings` keeps the handlers' ends open.
        None => return std::future::pending().await,
    };
    loop {
        let reload = watch.next().await;
        if let Some(text) = reload.warning() {
            say.event(&telemetry::Event::Warning { text: &text });
        }
        for (handler, config) in reload.settings {
            if let Some(settings) = settings.get(&handler) {
                settings.send_modify(|settings| settings.change(config));
            }
        }
    }
}

/// Serves with handlers that are not WebAssembly, until SIGTERM or SIGINT: the way of the benchmark.
pub async fn serve_native<H: Handler>(
    broker: Broker,
    plan: Plan,
    handler: H,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let signals = signals::Signals::new()?;
    serve(
        broker,
        Terms {
            member: a_member()?,
            streams: Vec::new(),
            read_ahead: READ_AHEAD_BYTES,
            orders: watch::channel(Order::Run).0,
        },
        vec![(plan, forever(handler))],
        Say::new(format),
        signals,
    )
    .await
}

/// A handler that is never swapped.
fn forever<H: Handler>(handler: H) -> lineup::Published<H> {
    let lineup = Lineup::only(Arc::new(Live::new(handler)));
    // Whoever looks finds it also when nobody can publish another one.
    watch::channel(Arc::new(lineup)).1
}

/// What handlers of a host have in common.
struct Terms {
    member: MemberId,
    streams: Vec<StreamConfig>,
    /// Bytes.
    read_ahead: usize,
    /// To all of them.
    orders: watch::Sender<Order>,
}

async fn serve<H: Handler>(
    broker: Broker,
    terms: Terms,
    handlers: Vec<(Plan, lineup::Published<H>)>,
    say: Say,
    mut signals: signals::Signals,
) -> anyhow::Result<ExitCode> {
    let Terms {
        member,
        streams,
        read_ahead,
        orders: orders_out,
    } = terms;
    let drain_timeout = handlers
        .iter()
        .map(|(plan, _)| plan.drain_timeout)
        .max()
        .unwrap_or_default();
    let orders = orders_out.subscribe();
    let mut bound = Vec::new();
    for (plan, published) in handlers {
        let found = prepare::find(&broker, &plan).await?;
        prepare::group(&broker, &plan, &found).await?;
        bound.push((plan, published, found));
    }
    let streams_read = bound.iter().map(|(plan, _, found)| (&plan.stream, found));
    let shares = read_ahead::Shares::new(read_ahead, streams_read.clone());
    shares.warn(&broker, streams_read, &say).await;
    let mut running = tokio::task::JoinSet::new();
    let mut readies = Vec::new();
    for (plan, published, found) in bound {
        let (ready, is_ready) = oneshot::channel();
        readies.push(is_ready);
        let name = plan.handler.clone();
        let registration = streams.iter().find(|s| s.name == plan.stream.stream);
        let life = Life {
            registration: registration.cloned(),
            plan,
            broker: broker.clone(),
            published,
            say: say.clone(),
            member: member.clone(),
            found,
            share_bytes: shares.bytes(),
        };
        let orders = orders.clone();
        running.spawn(async move { (name, life.run(orders, ready).await) });
    }
    let mut all_ready = std::pin::pin!(futures_util::future::join_all(readies));
    let mut is_ready = false;
    let mut draining = false;
    let mut failed = false;
    loop {
        let leave = tokio::select! {
            biased;
            results = &mut all_ready, if !is_ready => {
                is_ready = true;
                if results.iter().all(Result::is_ok) {
                    telemetry::say_ready(say.format, member.as_str());
                }
                false
            }
            signal = signals.next() => {
                if draining {
                    anyhow::bail!("a second signal ({signal}): ended at once; what was not committed will be handled again");
                }
                say.event(&telemetry::Event::Draining { signal });
                true
            }
            ended = running.join_next() => match ended {
                None => break,
                Some(ended) => {
                    let (name, exit) = ended.context("a supervisor ended by a panic: this is a bug")?;
                    failed |= ended_badly(&say, &name, exit);
                    // Without one of its handlers the host is not what was asked for.
                    !draining
                }
            },
        };
        if leave && !draining {
            draining = true;
            let by = clock::now() + drain_timeout;
            orders_out.send_replace(Order::Leave { by });
        }
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn ended_badly(say: &Say, handler: &HandlerName, exit: Exit) -> bool {
    let why = match exit {
        Exit::Left => {
            say.event(&telemetry::Event::Left { handler: handler.as_str() });
            return false;
        }
        Exit::Superseded => "a later start with the same member id joined the group; this one ends. Two hosts at once need two member ids".to_owned(),
        Exit::StreamGone => "the stream was deleted; register it again, then start again".to_owned(),
        Exit::GroupGone => "the group was deleted; start again to create it anew".to_owned(),
        Exit::Fatal(why) => why,
    };
    say.event(&telemetry::Event::Ended {
        handler: handler.as_str(),
        why: &why,
    });
    true
}
