//! What a handler begins with when its host starts: the module that was loaded from its file, or what is
//! deployed. Each failure says what to do.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use segmenter_core::names::{HandlerId, MemberId, Version};
use segmenter_core::port::{Asks, Reply, Report, Request};
use segmenter_core::rollout::Loading;
use segmenter_redis::HandlerNews;
use segmenter_wasm::Module;
use tokio::sync::watch;

use super::{Follow, FromFile, Parts, Settings, Source};
use crate::config::HandlerConfig;
use crate::host::file_watch::Watch;
use crate::host::lineup::Published;
use crate::host::prepare::Code;
use crate::host::targets::{self, Targets};
use crate::host::telemetry;
use crate::host::wasm::WasmHandler;
use crate::host::worker::odd;

/// Between two looks whether anything is deployed by now.
const DEPLOYED_EVERY: Duration = Duration::from_secs(1);

/// A handler that is followed.
pub(in crate::host) struct Begun {
    pub(in crate::host) follow: Follow,
    pub(in crate::host) published: Published<WasmHandler>,
    /// For changes of the configuration.
    pub(in crate::host) settings: watch::Sender<Settings>,
}

/// `wait`: until something is deployed.
pub(in crate::host) async fn begin(
    parts: Parts,
    config: HandlerConfig,
    code: Code,
    member: MemberId,
    wait: bool,
) -> anyhow::Result<Begun> {
    let handler = parts.plan.handler.clone();
    let (code, source) = match code {
        Code::File {
            module,
            bytes,
            path,
        } => {
            let targets = targets::check(&parts.broker, &parts.plan, &config.grants.emit).await?;
            let version = module.version().clone();
            let bytes_max = config.limits.module_bytes;
            let watch = Watch::start(&path, bytes_max, Some(version.clone()))
                .with_context(|| format!("handler {handler}: watching {}", path.display()))?;
            let file = FromFile::new(version, bytes);
            let code = (module, targets);
            (code, Source::File(Box::new((file, watch, path))))
        }
        Code::Deployed => {
            let id = parts.handler();
            let code = deployed(&parts, &id, &config, wait)
                .await
                .with_context(|| format!("handler {handler}"))?;
            parts.say.event(&telemetry::Event::Starting {
                handler: handler.as_str(),
                stream: parts.plan.stream.to_string(),
                group: parts.plan.group.as_str(),
                version: code.0.version().as_str(),
            });
            let news = HandlerNews::start(&parts.broker, &id);
            (code, Source::Deployed(news))
        }
    };
    let first = parts.live(&config, code);
    let (settings, changes) = watch::channel(Settings { number: 0, config });
    let (follow, published) = Follow::new(Arc::new(parts), member, source, changes, first);
    Ok(Begun {
        follow,
        published,
        settings,
    })
}

async fn deployed(
    parts: &Parts,
    id: &HandlerId,
    config: &HandlerConfig,
    wait: bool,
) -> anyhow::Result<(Module, Targets)> {
    let mut told = false;
    let version = loop {
        if let Some(version) = current(parts, id).await? {
            break version;
        }
        let nothing = format!(
            "nothing is deployed under this name; deploy it with `segmenter --namespace {} handler deploy {} FILE.wasm`",
            id.namespace, id.handler
        );
        if !wait {
            bail!("{nothing}, then start again (--wait waits for it)");
        }
        if !std::mem::replace(&mut told, true) {
            let text = format!("handler {}: {nothing}; waiting for it", id.handler);
            parts.say.event(&telemetry::Event::Warning { text: &text });
        }
        tokio::time::sleep(DEPLOYED_EVERY).await;
    };
    match parts.module(&version, config, None).await {
        Ok(code) => Ok(code),
        Err(Loading::Refused(why) | Loading::Away(why)) => {
            bail!("the deployed version {version} cannot run here: {why}")
        }
    }
}

async fn current(parts: &Parts, id: &HandlerId) -> anyhow::Result<Option<Version>> {
    let request = Request::Report(Report {
        handler: id.clone(),
        asks: Asks::Only,
    });
    match parts.broker.execute(request).await {
        Ok(Reply::Report(reply)) => Ok(reply.wanted.map(|pointer| pointer.current)),
        Ok(other) => Err(odd(&other)).context("asking what is deployed"),
        Err(failure) => Err(failure).context("asking what is deployed"),
    }
}
