//! A WebAssembly module as a handler of the host: the one place where both meet.

use std::pin::Pin;
use std::sync::Arc;

use segmenter_core::batch::{Batch, Takes};
use segmenter_core::effects::State;
use segmenter_core::lease::Epoch;
use segmenter_core::names::{Partition, Version};
use segmenter_core::outcome::Outcome;
use segmenter_core::port::{LoadState, LoadStateReply, Reply, Request};
use segmenter_redis::Broker;
use segmenter_wasm::{Kind, Limits, LogSink, Module, PartitionContext, StateSource, Tenure};

use super::Plan;
use super::handler::{CallLimits, Diagnosis, Handler, Instance};
use super::targets::Targets;
use super::worker::odd;

pub(super) struct WasmHandler {
    pub(super) module: Module,
    /// What a call carries if the module takes batches.
    pub(super) batch: Takes,
    pub(super) plan: Plan,
    pub(super) partitions: u32,
    /// Payload limits of the streams that it may emit to.
    pub(super) targets: Targets,
    pub(super) broker: Broker,
    pub(super) log: Arc<dyn LogSink>,
}

impl Handler for WasmHandler {
    type Instance = WasmInstance;
    type Tenure = Tenure;

    fn version(&self) -> &Version {
        self.module.version()
    }

    fn limits(&self) -> CallLimits {
        let Limits {
            deadline,
            instantiate,
            ..
        } = *self.module.limits();
        CallLimits {
            deadline,
            instantiate,
        }
    }

    fn takes(&self) -> Takes {
        match self.module.kind() {
            Kind::Batch => self.batch,
            _ => Takes::ONE,
        }
    }

    fn tenure(&self, partition: Partition, epoch: Epoch) -> Tenure {
        let context = PartitionContext {
            namespace: self.plan.stream.namespace.clone(),
            stream: self.plan.stream.stream.clone(),
            partitions: self.partitions,
            group: self.plan.group.clone(),
            handler: self.plan.handler.clone(),
            partition,
            epoch,
        };
        let kept = Kept {
            broker: self.broker.clone(),
            request: LoadState {
                stream: self.plan.stream.clone(),
                partition,
                group: self.plan.group.clone(),
            },
        };
        self.module
            .tenure(context, self.log.clone(), Arc::new(kept))
    }

    async fn instantiate(&self, tenure: &Tenure) -> Result<WasmInstance, String> {
        match self.module.instantiate(tenure, self.targets.clone()).await {
            Ok(instance) => Ok(WasmInstance(instance)),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn shadow(&self, tenure: &Tenure) -> Result<WasmInstance, String> {
        match self.module.shadow(tenure, self.targets.clone()).await {
            Ok(instance) => Ok(WasmInstance(instance)),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The state of one partition, as it lies in Redis.
struct Kept {
    broker: Broker,
    request: LoadState,
}

impl StateSource for Kept {
    fn load(&self) -> Pin<Box<dyn Future<Output = Result<State, String>> + Send + '_>> {
        Box::pin(async {
            let request = Request::LoadState(self.request.clone());
            match self.broker.execute(request).await {
                Ok(Reply::LoadState(LoadStateReply { values })) => Ok(State::of(values)),
                Ok(other) => Err(odd(&other).to_string()),
                Err(failure) => Err(failure.to_string()),
            }
        })
    }
}

pub(super) struct WasmInstance(segmenter_wasm::Instance);

impl Instance for WasmInstance {
    async fn call(&mut self, messages: &Batch) -> Outcome {
        self.0.call_batch(messages).await
    }
    fn is_dead(&self) -> bool {
        self.0.is_dead()
    }
    fn diagnosis(&mut self) -> Diagnosis {
        let segmenter_wasm::Diagnosis {
            backtrace,
            core_dump,
        } = self.0.diagnosis();
        let core_dump = core_dump.map(|written| match written {
            Ok(path) => path.display().to_string(),
            Err(why) => why,
        });
        Diagnosis {
            backtrace,
            core_dump,
        }
    }
}
