//! `handler rollback`.

use anyhow::{Context, bail};
use segmenter_core::names::{HandlerName, Version};
use segmenter_core::port::{Reply, Request, RollBack, RollBackReply};
use segmenter_redis::handlers::HandlerInfo;
use serde_json::json;

use super::super::args::Global;
use super::{by, found, short, unknown};
use crate::output::Format;

pub(super) async fn run(
    global: &Global,
    name: &HandlerName,
    to: Option<&str>,
    reason: Option<String>,
) -> anyhow::Result<()> {
    let broker = global.connect().await?;
    let handler = global.handler_id(name);
    let info = found(&broker, &handler).await?;
    let to = to.map(|digits| meant(&info, name, digits)).transpose()?;
    let request = RollBack {
        handler: handler.clone(),
        to: to.clone(),
        reason,
        by: by(),
    };
    let reply = broker
        .execute(Request::RollBack(request))
        .await
        .with_context(|| format!("rolling back handler {handler}"))?;
    let Reply::RollBack(reply) = reply else {
        bail!("rolling back handler {handler}: {reply:?}");
    };
    match reply {
        RollBackReply::RolledBack { revision, from, to } => {
            let mut out = global.out();
            match out.format {
                Format::Json => out.object(&json!({
                    "handler": name.as_str(),
                    "from": from.as_str(),
                    "to": to.as_str(),
                    "revision": revision,
                }))?,
                Format::Human => out.line(&format!(
                    "{name}: back from version {} to {to}",
                    short(&from)
                ))?,
            }
            out.flush()
        }
        RollBackReply::NothingBefore { current } => bail!(
            "no version of handler {name} was current before {}; --to DIGEST names one ({})",
            short(&current),
            kept(&info)
        ),
        RollBackReply::Current => bail!(
            "version {} of handler {name} is the current one already",
            to.as_ref().map_or_else(String::new, short)
        ),
        RollBackReply::NoModule { version } => bail!(
            "the bytes of version {} are not in this Redis any more; deploy its file again, or take one of: {}",
            short(&version),
            kept(&info)
        ),
        RollBackReply::NotDeployed => Err(unknown(&broker, &handler).await),
    }
}

fn kept(info: &HandlerInfo) -> String {
    let kept: Vec<_> = info.kept.iter().map(short).collect();
    kept.join(", ")
}

/// The one version that begins with these digits; a whole digest is taken as it is.
fn meant(info: &HandlerInfo, name: &HandlerName, digits: &str) -> anyhow::Result<Version> {
    let fitting = |v: &&Version| v.as_str().starts_with(digits);
    let found: Vec<_> = info.kept.iter().filter(fitting).collect();
    match found[..] {
        [version] => Ok(version.clone()),
        [] if digits.len() == 64 => Ok(Version::new(digits)?),
        [] => bail!(
            "no version of handler {name} that is kept begins with {digits}; there are: {}",
            kept(info)
        ),
        _ => bail!(
            "{} versions of handler {name} begin with {digits}; give more digits: {}",
            found.len(),
            kept(info)
        ),
    }
}
