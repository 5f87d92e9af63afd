//! What the host needs of a handler: instances of it, and calls. It must not know Wasm: the benchmark
//! drives the same host with a native handler.

use std::future::Future;

use segmenter_core::batch::{Batch, Takes};
use segmenter_core::lease::Epoch;
use segmenter_core::names::{Partition, Version};
use segmenter_core::outcome::Outcome;
use segmenter_core::time::Duration;

/// Code that handles messages.
pub trait Handler: Send + Sync + 'static {
    type Instance: Instance;
    /// What the instances of one partition in one lease epoch share, such as the state in memory. It
    /// survives a trap of an instance and a swap of versions, because what is settled and not committed yet
    /// is only there; never the epoch.
    type Tenure: Send + Sync + 'static;
    fn version(&self) -> &Version;
    fn limits(&self) -> CallLimits;
    /// What one call carries.
    fn takes(&self) -> Takes {
        Takes::ONE
    }
    fn tenure(&self, partition: Partition, epoch: Epoch) -> Self::Tenure;
    /// A new instance. The error is a reason for people.
    fn instantiate(
        &self,
        tenure: &Self::Tenure,
    ) -> impl Future<Output = Result<Self::Instance, String>> + Send;
    /// A new instance whose calls see the tenure as it is, and leave no trace in it nor anywhere else: what
    /// they would change is in their outcome alone.
    fn shadow(
        &self,
        tenure: &Self::Tenure,
    ) -> impl Future<Output = Result<Self::Instance, String>> + Send;
}

#[derive(Debug, Clone, Copy)]
pub struct CallLimits {
    /// Of one call.
    pub deadline: Duration,
    /// Of making the instance that a call may need first.
    pub instantiate: Duration,
}

/// One instance, for one partition, with one call at a time.
pub trait Instance: Send + 'static {
    /// No more messages than its handler takes. Dropping the future before it is done cancels the call and
    /// kills the instance.
    fn call(&mut self, messages: &Batch) -> impl Future<Output = Outcome> + Send;
    /// Nothing can be called in it any more.
    fn is_dead(&self) -> bool;
    /// What else is known of a call that failed, for people.
    fn diagnosis(&mut self) -> Diagnosis {
        Diagnosis::default()
    }
}

#[derive(Debug, Default)]
pub struct Diagnosis {
    /// A line for each function that it was in.
    pub backtrace: Option<String>,
    /// Where a core dump lies, or why there is none.
    pub core_dump: Option<String>,
}
