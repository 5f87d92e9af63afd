//! From a version to code that can be called: its bytes, the loader, the targets that it may emit to. Knows
//! which failures may pass; must not know why a version is wanted.

use std::sync::Arc;

use segmenter_core::names::{HandlerId, Version};
use segmenter_core::port::{Failure, FetchModule, FetchModuleReply, Reply, Request};
use segmenter_core::rollout::{Edition, Loading};
use segmenter_redis::Broker;
use segmenter_wasm::{LogSink, Module, Priority};

use crate::config::HandlerConfig;
use crate::host::lineup::Live;
use crate::host::loader::{Loader, Settings};
use crate::host::targets::{self, Targets};
use crate::host::wasm::WasmHandler;
use crate::host::worker::odd;
use crate::host::{Plan, Say};
use crate::points::{self, Point};

/// What every version of a handler is made with.
pub(crate) struct Parts {
    pub(crate) plan: Plan,
    pub(crate) partitions: u32,
    pub(crate) broker: Broker,
    pub(crate) loader: Loader,
    pub(crate) say: Say,
    pub(crate) log: Arc<dyn LogSink>,
}

/// How a load went.
pub(super) struct Loaded {
    pub(super) edition: Edition,
    pub(super) result: Result<Live<WasmHandler>, Loading>,
}

impl Parts {
    pub(super) fn handler(&self) -> HandlerId {
        HandlerId {
            namespace: self.plan.stream.namespace.clone(),
            handler: self.plan.handler.clone(),
        }
    }

    pub(crate) fn live(
        &self,
        config: &HandlerConfig,
        (module, targets): (Module, Targets),
    ) -> Live<WasmHandler> {
        Live::new(WasmHandler {
            module,
            batch: config.batch,
            targets,
            plan: self.plan.clone(),
            partitions: self.partitions,
            broker: self.broker.clone(),
            log: self.log.clone(),
        })
    }

    /// `bytes`: if they are here already, else Redis has them.
    pub(super) async fn load(
        &self,
        edition: Edition,
        config: &HandlerConfig,
        bytes: Option<Arc<Vec<u8>>>,
    ) -> Loaded {
        let result = self.module(&edition.version, config, bytes).await;
        Loaded {
            edition,
            result: result.map(|code| self.live(config, code)),
        }
    }

    pub(crate) async fn module(
        &self,
        version: &Version,
        config: &HandlerConfig,
        bytes: Option<Arc<Vec<u8>>>,
    ) -> Result<(Module, Targets), Loading> {
        let emit = &config.grants.emit;
        let targets = targets::check(&self.broker, &self.plan, emit)
            .await
            .map_err(|error| match error.downcast_ref() {
                Some(Failure::NotDone(_) | Failure::Unknown(_)) => {
                    Loading::Away(format!("{error:#}"))
                }
                _ => Loading::Refused(format!("{error:#}")),
            })?;
        let bytes = match bytes {
            Some(bytes) => bytes,
            None => fetch(&self.broker, &self.plan, version).await?,
        };
        points::at(Point::Fetched);
        self.loader
            .load(
                bytes,
                Some(version.clone()),
                Settings::of(config),
                Priority::Aside,
            )
            .await
            .map(|module| (module, targets))
            .map_err(|refusal| Loading::Refused(refusal.to_string()))
    }
}

async fn fetch(broker: &Broker, plan: &Plan, version: &Version) -> Result<Arc<Vec<u8>>, Loading> {
    let request = Request::FetchModule(FetchModule {
        namespace: plan.stream.namespace.clone(),
        version: version.clone(),
    });
    match broker.execute(request).await {
        Ok(Reply::FetchModule(FetchModuleReply::Module { bytes })) => Ok(Arc::new(bytes)),
        Ok(Reply::FetchModule(FetchModuleReply::Missing)) => Err(Loading::Refused(format!(
            "its bytes are not in Redis any more; deploy it again: segmenter handler deploy {} FILE --again",
            plan.handler
        ))),
        Ok(Reply::FetchModule(FetchModuleReply::Damaged { found })) => {
            Err(Loading::Refused(format!(
                "what lies under its name in Redis has sha256 {found}: somebody changed it; deploy it again"
            )))
        }
        Ok(other) => Err(Loading::Refused(odd(&other).to_string())),
        Err(failure @ (Failure::NotDone(_) | Failure::Unknown(_))) => {
            Err(Loading::Away(failure.to_string()))
        }
        Err(Failure::Fatal(why)) => Err(Loading::Refused(why)),
    }
}
