//! A WebAssembly module as a handler of the host: the one place where both meet.

use std::sync::Arc;

use segmenter_core::lease::Epoch;
use segmenter_core::message::Message;
use segmenter_core::names::{Partition, Version};
use segmenter_core::outcome::Outcome;
use segmenter_wasm::{LogSink, Module, PartitionContext};

use super::Plan;
use super::handler::{Diagnosis, Handler, Instance};

pub(super) struct WasmHandler {
    pub(super) module: Module,
    pub(super) plan: Plan,
    pub(super) partitions: u32,
    pub(super) log: Arc<dyn LogSink>,
}

impl Handler for WasmHandler {
    type Instance = WasmInstance;
    type Tenure = PartitionContext;

    fn version(&self) -> &Version {
        self.module.version()
    }

    fn tenure(&self, partition: Partition, epoch: Epoch) -> PartitionContext {
        PartitionContext {
            namespace: self.plan.stream.namespace.clone(),
            stream: self.plan.stream.stream.clone(),
            partitions: self.partitions,
            group: self.plan.group.clone(),
            handler: self.plan.handler.clone(),
            version: self.module.version().clone(),
            partition,
            epoch,
        }
    }

    async fn instantiate(&self, context: &PartitionContext) -> Result<WasmInstance, String> {
        let context = context.clone();
        match self.module.instantiate(context, self.log.clone()).await {
            Ok(instance) => Ok(WasmInstance(instance)),
            Err(error) => Err(error.to_string()),
        }
    }
}

pub(super) struct WasmInstance(segmenter_wasm::Instance);

impl Instance for WasmInstance {
    async fn call(&mut self, message: &Message) -> Outcome {
        self.0.call(message).await
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
