//! One instance of a module and its calls. Knows deadlines and what a call can come to; must not know
//! what follows from an outcome.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use segmenter_core::effects::Draft;
use segmenter_core::limits;
use segmenter_core::message::Message;
use segmenter_core::outcome::{Fault, Outcome};
use wasmtime::component::ResourceTable;
use wasmtime::{Store, Trap, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::bindings::segmenter::handler::types::{EntryId, Failure, Message as WitMessage};
use crate::bindings::{MessageHandler, MessageHandlerPre};
use crate::capabilities::{self, Http};
use crate::grants::Grants;
use crate::limiter::Limiter;
use crate::module::{Limits, PartitionContext};
use crate::output::{self, Output};
use crate::tenure::Tenure;

/// Handles that a guest may hold at once.
const RESOURCES_MAX: usize = 10_000;

/// Why there is no instance.
#[derive(Debug, thiserror::Error)]
#[error("no instance: {0}")]
pub struct InstantiateError(String);

/// What the host keeps for one instance.
pub(crate) struct State {
    pub(crate) context: PartitionContext,
    pub(crate) output: Output,
    pub(crate) grants: Arc<Grants>,
    pub(crate) limits: Limits,
    pub(crate) tenure: Tenure,
    /// What the call has changed so far; none: there is no call.
    pub(crate) draft: Option<Draft>,
    pub(crate) http: Http,
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
    guest: MessageHandler,
    limits: Limits,
    dead: bool,
}

impl Instance {
    pub(crate) async fn new(
        engine: &wasmtime::Engine,
        pre: &MessageHandlerPre<State>,
        limits: Limits,
        grants: Arc<Grants>,
        tenure: Tenure,
    ) -> Result<Instance, InstantiateError> {
        let context = tenure.context().clone();
        let output = Output::new(tenure.sink(), context.partition);
        let wasi = capabilities::wasi(&grants, &output).map_err(InstantiateError)?;
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        let state = State {
            context,
            output: output.clone(),
            http: Http::new(grants.clone(), output.clone()),
            grants,
            limits,
            tenure,
            draft: None,
            limiter: Limiter::new(limits.memory_bytes),
            deadline: Instant::now() + limits.deadline,
            wasi,
            table,
        };
        let mut store = Store::new(engine, state);
        store.limiter(|state| &mut state.limiter);
        store.epoch_deadline_callback(|store| {
            Ok(if Instant::now() >= store.data().deadline {
                UpdateDeadline::Interrupt
            } else {
                UpdateDeadline::Yield(1)
            })
        });
        store.set_epoch_deadline(1);
        let made = within(limits.deadline, pre.instantiate_async(&mut store)).await;
        output.end();
        let why = match made {
            Some(Ok(guest)) => {
                return Ok(Instance {
                    store,
                    guest,
                    limits,
                    dead: false,
                });
            }
            Some(Err(error)) => fault(&error, &store.data().limiter, limits, &output).1,
            None => missed(limits, &output),
        };
        Err(InstantiateError(why))
    }

    /// Whether a trap, a missed deadline or a cancelled call has ended it.
    pub fn is_dead(&self) -> bool {
        self.dead
    }

    /// Ends within the deadline. Whatever the guest wrote is with the sink when this returns. Dropping
    /// the future cancels the call and kills the instance.
    pub async fn call(&mut self, message: &Message) -> Outcome {
        if self.dead {
            let reason = "the instance ended in an earlier call".to_owned();
            return Outcome::Broken {
                fault: Fault::Trap,
                reason,
            };
        }
        let content = &message.content;
        let attributes: Vec<(&str, &str)> = content
            .attributes()
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        let argument = WitMessage {
            id: EntryId {
                ms: message.id.ms,
                seq: message.id.seq,
            },
            partition: message.partition.0,
            attempt: message.attempt,
            key: content.key(),
            payload: content.payload(),
            attributes: &attributes,
        };
        let state = self.store.data_mut();
        let output = state.output.clone();
        output.begin(message);
        state.limiter.refused = false;
        state.draft = Some(Draft::default());
        state.deadline = Instant::now() + self.limits.deadline;
        self.store.set_epoch_deadline(1);
        // Until the call has come back, also if this future is dropped.
        self.dead = true;
        let handler = self.guest.segmenter_handler_handler();
        let call = handler.call_handle(&mut self.store, argument);
        let result = within(self.limits.deadline, call).await;
        output.end();
        // What does not end well leaves no trace.
        let state = self.store.data_mut();
        let draft = state.draft.take().unwrap_or_default();
        match result {
            Some(Ok(Ok(()))) => {
                self.dead = false;
                let effects = draft.finish();
                state.tenure.apply(&effects);
                Outcome::Ok(effects)
            }
            Some(Ok(Err(failure))) => {
                self.dead = false;
                failed(failure)
            }
            Some(Err(error)) => {
                let limiter = &self.store.data().limiter;
                let (fault, reason) = fault(&error, limiter, self.limits, &output);
                Outcome::Broken { fault, reason }
            }
            None => Outcome::Broken {
                fault: Fault::Deadline,
                reason: missed(self.limits, &output),
            },
        }
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

fn failed(failure: Failure) -> Outcome {
    match failure {
        Failure::Retry(info) => Outcome::Retry {
            reason: bounded(info.reason),
            after: info.after_ms.map(|ms| Duration::from_millis(u64::from(ms))),
        },
        Failure::Reject(reason) => Outcome::Reject {
            reason: bounded(reason),
        },
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
    if limiter.refused {
        let what = format!(
            "it needed more memory than its limit of {} bytes: {}",
            limits.memory_bytes,
            error.root_cause()
        );
        return (Fault::Memory, with_stderr(what, output));
    }
    (
        Fault::Trap,
        with_stderr(error.root_cause().to_string(), output),
    )
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
