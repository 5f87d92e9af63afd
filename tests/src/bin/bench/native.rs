//! The engine with a handler that does nothing and is not WebAssembly: what the host costs without it.

use std::time::Duration;

use segmenter::host::{CallLimits, Handler, Instance, Plan, serve_native};
use segmenter::output::Format;
use segmenter_core::batch::Batch;
use segmenter_core::effects::Effects;
use segmenter_core::lease::Epoch;
use segmenter_core::names::{Partition, StreamId, Version};
use segmenter_core::outcome::Outcome;
use segmenter_core::port::Start;
use segmenter_redis::{Address, Broker};

struct Noop(Version);

impl Handler for Noop {
    type Tenure = ();
    type Instance = Noop;
    fn version(&self) -> &Version {
        &self.0
    }
    fn limits(&self) -> CallLimits {
        CallLimits {
            deadline: Duration::from_secs(1),
            instantiate: Duration::ZERO,
        }
    }
    fn tenure(&self, _: Partition, _: Epoch) {}
    async fn instantiate(&self, _: &()) -> Result<Noop, String> {
        Ok(Noop(self.0.clone()))
    }
    async fn shadow(&self, tenure: &()) -> Result<Noop, String> {
        self.instantiate(tenure).await
    }
}

impl Instance for Noop {
    async fn call(&mut self, messages: &Batch) -> Outcome {
        std::hint::black_box(messages);
        Outcome::Ok(Effects::default())
    }
    fn is_dead(&self) -> bool {
        false
    }
}

pub(crate) fn host(url: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let broker = Broker::connect(&Address::new(url, None)?).await?;
        let plan = Plan {
            attempts: 5,
            exhausted: segmenter_core::consumer::Exhausted::DeadLetter,
            handler: "native".parse()?,
            stream: StreamId {
                namespace: "default".parse()?,
                stream: "bench".parse()?,
            },
            group: "g".parse()?,
            start: Start::Beginning,
            session_timeout: segmenter::config::SESSION_TIMEOUT,
            drain_timeout: Duration::from_secs(10),
            retry: segmenter::config::BACKOFF,
            emit: Default::default(),
        };
        serve_native(broker, plan, Noop("native".parse()?), Format::Json).await?;
        Ok(())
    })
}
