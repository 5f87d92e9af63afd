//! The running host: modules → streams → groups → members, in that order, then until a signal. It must
//! not know the command line; the configuration it gets is valid.

pub(crate) mod clock;
mod handler;
mod life;
mod module_file;
mod prepare;
pub(crate) mod random;
pub(crate) mod relay;
mod signals;
mod supervisor;
mod targets;
pub mod telemetry;
mod wasm;
mod worker;

use std::collections::BTreeSet;
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

pub use handler::{Diagnosis, Handler, Instance};
pub(crate) use prepare::bound;
pub(crate) use random::name as random_name;

use crate::config::{Config, StreamConfig};
use crate::output::Format;
use life::Life;
use supervisor::Order;

/// What `segmenter run` was asked for.
pub struct RunOptions {
    pub config: Config,
    pub address: Address,
    pub format: Format,
    /// Wait for Redis for ever instead of giving up.
    pub wait: bool,
    /// Validate configuration and modules, then end.
    pub check: bool,
    /// A folder for core dumps of guests that trap.
    pub coredump: Option<PathBuf>,
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
    /// Of one call.
    pub deadline: Duration,
    /// Of making the instance that a call may need first.
    pub instantiate: Duration,
    /// Streams of the namespace that it may emit to.
    pub emit: BTreeSet<StreamName>,
}

/// Speaks for the host; says that Redis is away once, not once per request.
#[derive(Clone)]
pub struct Say {
    format: Format,
    away: Arc<AtomicBool>,
}

impl Say {
    pub fn new(format: Format) -> Say {
        Say {
            format,
            away: Arc::default(),
        }
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
    let say = Say::new(options.format);
    let modules = prepare::modules(&options.config, options.coredump, &say).await?;
    if options.check {
        prepare::say_checked(options.format, &modules);
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
    let grants = modules
        .iter()
        .map(|m| (&m.plan.stream.stream, &m.plan.emit));
    if let Some(cycle) = targets::cycle(grants) {
        let names: Vec<_> = cycle.iter().map(|stream| stream.as_str()).collect();
        let text = format!(
            "handlers may emit in a circle: {}; if they emit more than they handle, it fills until their outboxes are full, and stands",
            names.join(" to ")
        );
        say.event(&telemetry::Event::Warning { text: &text });
    }
    let mut handlers = Vec::new();
    for loaded in modules {
        let targets = targets::check(&broker, &loaded.plan).await?;
        let shape = prepare::find(&broker, &loaded.plan).await?;
        let log = Arc::new(telemetry::GuestLog::new(
            options.format,
            loaded.plan.handler.clone(),
        ));
        let plan = loaded.plan.clone();
        let handler = wasm::WasmHandler {
            module: loaded.module,
            plan: loaded.plan,
            partitions: shape.shape.partitions(),
            targets: Arc::new(targets),
            broker: broker.clone(),
            log,
        };
        handlers.push((plan, Arc::new(handler)));
    }
    let Config {
        member, streams, ..
    } = options.config;
    serve(broker, member, streams, handlers, say, signals).await
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
        None,
        Vec::new(),
        vec![(plan, Arc::new(handler))],
        Say::new(format),
        signals,
    )
    .await
}

async fn serve<H: Handler>(
    broker: Broker,
    member: Option<MemberId>,
    streams: Vec<StreamConfig>,
    handlers: Vec<(Plan, Arc<H>)>,
    say: Say,
    mut signals: signals::Signals,
) -> anyhow::Result<ExitCode> {
    // Without a configured id, every start is a member of its own.
    let member = match member {
        Some(member) => member,
        None => MemberId::new(format!("m-{}", &random::name()[..12])).context("member id")?,
    };
    let drain_timeout = handlers
        .iter()
        .map(|(plan, _)| plan.drain_timeout)
        .max()
        .unwrap_or_default();
    let (orders_out, orders) = watch::channel(Order::Run);
    let mut running = tokio::task::JoinSet::new();
    let mut readies = Vec::new();
    for (plan, handler) in handlers {
        let found = prepare::find(&broker, &plan).await?;
        prepare::group(&broker, &plan, &found).await?;
        let (ready, is_ready) = oneshot::channel();
        readies.push(is_ready);
        let name = plan.handler.clone();
        let registration = streams.iter().find(|s| s.name == plan.stream.stream);
        let life = Life {
            registration: registration.cloned(),
            plan,
            broker: broker.clone(),
            handler,
            say: say.clone(),
            member: member.clone(),
            found,
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
