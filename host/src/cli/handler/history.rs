//! `handler history`.

use anyhow::Context;
use segmenter_core::names::{HandlerName, Version};
use segmenter_redis::handlers;
use serde_json::json;

use super::super::args::Global;
use super::{short, unknown};
use crate::output::{Format, moment, preview};

pub(super) async fn run(global: &Global, name: &HandlerName) -> anyhow::Result<()> {
    let broker = global.connect().await?;
    let handler = global.handler_id(name);
    let history = handlers::history(&broker, &handler)
        .await
        .with_context(|| format!("reading the history of handler {handler}"))?;
    if history.is_empty() {
        return Err(unknown(&broker, &handler).await);
    }
    let mut out = global.out();
    match out.format {
        Format::Json => {
            for h in &history {
                out.object(&json!({
                    "at_ms": h.at_ms,
                    "change": h.change.as_str(),
                    "version": h.version.as_str(),
                    "from": h.from.as_ref().map(Version::as_str),
                    "current": h.current.as_str(),
                    "revision": h.revision,
                    "by": h.by,
                    "reason": h.reason,
                }))?;
            }
        }
        Format::Human => {
            let rows: Vec<_> = history
                .iter()
                .map(|h| {
                    vec![
                        moment(h.at_ms),
                        h.change.as_str().replace('_', " "),
                        short(&h.version),
                        h.from.as_ref().map_or_else(|| "-".to_owned(), short),
                        short(&h.current),
                        preview(&h.by, 60),
                        preview(&h.reason, 300),
                    ]
                })
                .collect();
            let header = [
                "WHEN", "CHANGE", "VERSION", "FROM", "CURRENT", "BY", "REASON",
            ];
            out.table(&header, &rows, "")?;
        }
    }
    out.flush()
}
