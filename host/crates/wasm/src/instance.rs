//! One instance of a module and its calls. Knows deadlines and what a call can come to; must not know
//! what follows from an outcome.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use segmenter_core::batch::{BadAnswer, Batch};
use segmenter_core::effects::Draft;
use segmenter_core::limits;
use segmenter_core::message::Message;
use segmenter_core::names::Version;
use segmenter_core::outcome::{Fault, Outcome};
use wasmtime::component::ResourceTable;
use wasmtime::{Store, Trap, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::capabilities::{self, Http};
use crate::diagnosis::{self, CoreDumps, Diagnosis};
use crate::engine::Engine;
use crate::grants::Grants;
use crate::kinds::{Failed, Foreign, Guest, Pre};
use crate::limiter::{Limiter, MEMORIES_MAX, Refused, TABLES_MAX};
use crate::module::{Limits, Live, PartitionContext, Recycle, Targets};
use crate::output::{self, Output};
use crate::tenure::Tenure;

/// Handles that a guest may hold at once.
const RESOURCES_MAX: usize = 10_000;

/// Why there is no instance.
#[derive(Debug, thiserror::Error)]
#[error("no instance: {0}")]
pub struct InstantiateError(String);

/// What an instance may touch.
pub(crate) struct Granted {
    pub(crate) grants: Arc<Grants>,
    pub(crate) targets: Targets,
}

/// What the host keeps for one instance.
pub(crate) struct State {
    pub(crate) context: PartitionContext,
    pub(crate) version: Version,
    pub(crate) output: Output,
    pub(crate) grants: Arc<Grants>,
    pub(crate) targets: Targets,
    pub(crate) limits: Limits,
    pub(crate) tenure: Tenure,
    /// What the call has changed so far; none: there is no call.
    pub(crate) draft: Option<Draft>,
    pub(crate) http: Http,
    pub(crate) foreign: Foreign,
    pub(crate) table: ResourceTable,
    limiter: Limiter,
    deadline: Instant,
    wasi: WasiCtx,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

pub struct Instance {
    store: Store<State>,
    guest: Guest,
    core_dumps: Option<Arc<CoreDumps>>,
    limits: Limits,
    messages: u64,
    dead: bool,
    diagnosis: Diagnosis,
    /// After the store: its code is gone when it is no longer counted.
    _live: Live,
}

impl Instance {
    pub(crate) async fn new(
        engine: &Engine,
        pre: &Pre,
        version: Version,
        limits: Limits,
        granted: Granted,
        tenure: Tenure,
        live: Live,
    ) -> Result<Instance, InstantiateError> {
        let Granted { grants, targets } = granted;
        let context = tenure.context().clone();
        let shadow = tenure.is_shadow();
        let output = Output::new(tenure.sink(), context.partition, limits.log_bytes, shadow);
        let wasi = capabilities::wasi(&grants, &output, shadow).map_err(InstantiateError)?;
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        let state = State {
            context,
            version,
            output: output.clone(),
            http: Http::new(grants.clone(), output.clone(), shadow),
            grants,
            targets,
            limits,
            tenure,
            draft: None,
            foreign: Foreign::default(),
            limiter: Limiter::new(limits),
            deadline: Instant::now() + limits.instantiate,
            wasi,
            table,
        };
        let mut store = Store::new(&engine.engine, state);
        store.limiter(|state| &mut state.limiter);
        store.epoch_deadline_callback(|store| {
            Ok(if Instant::now() >= store.data().deadline {
                UpdateDeadline::Interrupt
            } else {
                UpdateDeadline::Yield(1)
            })
        });
        store.set_epoch_deadline(1);
        let ends = Ends(&output);
        let made = within(limits.instantiate, pre.instantiate(&mut store)).await;
        drop(ends);
        let why = match made {
            Some(Ok(guest)) => {
                return Ok(Instance {
                    store,
                    guest,
                    // The name of one says partition and message: it would be taken for the live version's.
                    core_dumps: engine.core_dumps.clone().filter(|_| !shadow),
                    limits,
                    messages: 0,
                    dead: false,
                    diagnosis: Diagnosis::default(),
                    _live: live,
                });
            }
            Some(Err(error)) if error.to_string().starts_with(TOO_MANY) => too_many(&error, limits),
            Some(Err(error)) => {
                let why = match fault(&error, &store.data().limiter, limits, &output) {
                    (Fault::Deadline, _) => not_made(limits, &output),
                    (_, why) => why,
                };
                // There is no instance to ask for it afterwards.
                match diagnosis::backtrace(&error) {
                    Some(backtrace) => bounded(format!("{why}\n{backtrace}")),
                    None => why,
                }
            }
            None => not_made(limits, &output),
        };
        Err(InstantiateError(why))
    }

    /// Whether a trap, a missed deadline, a cancelled call or its recycling has ended it.
    pub fn is_dead(&self) -> bool {
        self.dead
    }

    /// Of the last call.
    pub fn diagnosis(&mut self) -> Diagnosis {
        std::mem::take(&mut self.diagnosis)
    }

    /// Whether it is to be replaced before the next message.
    fn is_spent(&self) -> bool {
        let Recycle {
            after_messages,
            memory_bytes,
        } = self.limits.recycle;
        let state = self.store.data();
        after_messages.is_some_and(|n| self.messages >= n)
            || memory_bytes.is_some_and(|mark| state.limiter.memory_bytes() > mark)
            || state.foreign.is_littered()
    }

    /// Ends within the deadline. Whatever the guest wrote is with the sink when this returns. Dropping
    /// the future cancels the call and kills the instance.
    pub async fn call(&mut self, message: &Message) -> Outcome {
        self.call_with(message, &[]).await
    }

    /// The same with several messages, if the component takes batches. To lines, traps and dumps the first
    /// one gives its name.
    pub async fn call_batch(&mut self, messages: &Batch) -> Outcome {
        self.call_with(messages.first(), messages.rest()).await
    }

    async fn call_with(&mut self, message: &Message, rest: &[Message]) -> Outcome {
        if self.dead {
            let reason = "the instance ended in an earlier call".to_owned();
            return Outcome::Broken {
                fault: Fault::Trap,
                reason,
            };
        }
        let output = self.begin(message);
        let ends = Ends(&output);
        let call = self.guest.call(&mut self.store, message, rest);
        let result = within(self.limits.deadline, call).await;
        drop(ends);
        let (answer, draft) = match self.end(result, message, &output) {
            Ok(well) => well,
            Err(broken) => return broken,
        };
        self.messages += 1 + rest.len() as u64;
        self.dead = self.is_spent();
        match answer {
            Ok(()) => {
                let effects = draft.finish();
                self.store.data().tenure.apply(&effects);
                Outcome::Ok(effects)
            }
            Err((at, failed)) => failed.of(at),
        }
    }

    /// Before a call, which `message` names. Until [`Instance::end`] the instance counts as dead, so that a
    /// call whose future is dropped has ended it.
    fn begin(&mut self, message: &Message) -> Output {
        let state = self.store.data_mut();
        let output = state.output.clone();
        output.begin(message);
        state.limiter.refused = None;
        state.draft = Some(Draft::default());
        state.deadline = Instant::now() + self.limits.deadline;
        self.store.set_epoch_deadline(1);
        self.dead = true;
        self.diagnosis = Diagnosis::default();
        output
    }

    /// After a call: what it answered and has changed, or what it came to. What does not end well leaves no
    /// trace, and the instance is dead.
    fn end<T>(
        &mut self,
        result: Option<wasmtime::Result<T>>,
        message: &Message,
        output: &Output,
    ) -> Result<(T, Draft), Outcome> {
        let draft = self.store.data_mut().draft.take().unwrap_or_default();
        match result {
            Some(Ok(answer)) => Ok((answer, draft)),
            Some(Err(error)) => {
                let limiter = &self.store.data().limiter;
                let (fault, reason) = fault(&error, limiter, self.limits, output);
                self.diagnosis = self.diagnose(&error, message);
                Err(Outcome::Broken { fault, reason })
            }
            None => Err(Outcome::Broken {
                fault: Fault::Deadline,
                reason: missed(self.limits, output),
            }),
        }
    }

    fn diagnose(&mut self, error: &wasmtime::Error, message: &Message) -> Diagnosis {
        let handler = self.store.data().context.handler.clone();
        let dumps = self.core_dumps.as_ref();
        Diagnosis {
            backtrace: diagnosis::backtrace(error),
            core_dump: dumps
                .and_then(|dumps| dumps.write(error, &mut self.store, handler.as_str(), message)),
        }
    }
}

impl Failed {
    /// Of the message at this index.
    fn of(self, at: usize) -> Outcome {
        match self {
            Failed::Retry { reason, after } => Outcome::Retry {
                at,
                reason: bounded(reason),
                after,
            },
            Failed::Reject { reason } => Outcome::Reject {
                at,
                reason: bounded(reason),
            },
        }
    }
}

/// Ends the output of a call, also of one that is dropped: what was written is said.
struct Ends<'a>(&'a Output);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The deadline of what waits in the host: epochs end only what runs. A call that ends at its first poll,
/// as nearly all do, pays for no timer.
async fn within<T>(deadline: Duration, call: impl Future<Output = T>) -> Option<T> {
    let mut call = pin!(call);
    let started = tokio::time::Instant::now();
    let first = std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
    match first {
        Poll::Ready(result) => Some(result),
        Poll::Pending => tokio::time::timeout_at(started + deadline, call).await.ok(),
    }
}

fn fault(
    error: &wasmtime::Error,
    limiter: &Limiter,
    limits: Limits,
    output: &Output,
) -> (Fault, String) {
    if matches!(error.downcast_ref::<Trap>(), Some(Trap::Interrupt)) {
        return (Fault::Deadline, missed(limits, output));
    }
    if let Some(bad) = error.downcast_ref::<BadAnswer>() {
        return (Fault::Answer, with_stderr(bad.to_string(), output));
    }
    let needed = match limiter.refused {
        None => None,
        Some(Refused::Memory) => Some(format!(
            "memory than its limit of {} bytes",
            limits.memory_bytes
        )),
        Some(Refused::Table) => Some(format!(
            "table elements than its limit of {}",
            limits.table_elements
        )),
    };
    if let Some(needed) = needed {
        let what = format!("it needed more {needed}: {}", error.root_cause());
        return (Fault::Memory, with_stderr(what, output));
    }
    (
        Fault::Trap,
        with_stderr(error.root_cause().to_string(), output),
    )
}

/// How wasmtime begins when it counts instances, memories or tables of a component.
const TOO_MANY: &str = "resource limit exceeded";

fn too_many(error: &wasmtime::Error, limits: Limits) -> String {
    format!(
        "it is made of more parts than it may be: {} core instances (core_instances), {MEMORIES_MAX} memories, {TABLES_MAX} tables: {}",
        limits.core_instances,
        error.root_cause()
    )
}

fn not_made(limits: Limits, output: &Output) -> String {
    let what = format!(
        "it was not made within {:?} (instantiate)",
        limits.instantiate
    );
    with_stderr(what, output)
}

fn missed(limits: Limits, output: &Output) -> String {
    with_stderr(
        format!(
            "it did not end within its deadline of {:?}",
            limits.deadline
        ),
        output,
    )
}

fn with_stderr(what: String, output: &Output) -> String {
    let tail = output.stderr_tail();
    bounded(if tail.is_empty() {
        what
    } else {
        format!("{what}; stderr: {tail}")
    })
}

fn bounded(reason: String) -> String {
    match output::cut(&reason, limits::REASON_BYTES_MAX) {
        None => reason,
        Some(start) => start.to_owned(),
    }
}
