//! `doctor`: is this Redis fit for Segmenter? The checks themselves are `segmenter_redis::doctor`'s.

use std::process::ExitCode;

use segmenter_redis::doctor::{self, Check, Status};
use segmenter_redis::{Broker, ConnectError, acl_setuser};
use serde_json::json;

use super::args::Global;
use super::{CONNECT_TIMEOUT, FAILED, address};
use crate::output::{Format, Out};

pub(super) async fn run(global: &Global) -> anyhow::Result<ExitCode> {
    let address = address::address(global, None)?;
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, Broker::connect(&address)).await;
    let connected = connected.unwrap_or_else(|_| {
        let why = format!("no answer within {} s", CONNECT_TIMEOUT.as_secs());
        Err(ConnectError::Unreachable(why))
    });
    let checks = match connected {
        Ok(broker) => doctor::examine(&broker, &global.namespace()).await,
        Err(error) => vec![Check::of(&error)],
    };
    let mut out = global.out();
    for check in &checks {
        match out.format {
            Format::Json => out.object(&json!({
                "name": check.name,
                "status": check.status.as_str(),
                "found": check.found,
                "advice": check.advice,
            }))?,
            Format::Human => told(&mut out, check)?,
        }
    }
    if out.format == Format::Human {
        out.line("")?;
        out.line("A user needs no more than this (README, \"Permissions\"):")?;
        out.line(&format!("  {}", acl_setuser("segmenter")))?;
    }
    out.flush()?;
    let failed = checks.iter().any(|check| check.status == Status::Failed);
    Ok(if failed {
        ExitCode::from(FAILED)
    } else {
        ExitCode::SUCCESS
    })
}

fn told(out: &mut Out, check: &Check) -> anyhow::Result<()> {
    let (status, name) = (check.status.as_str(), check.name);
    out.line(&format!("{status:<8} {name:<12} {}", check.found))?;
    match &check.advice {
        Some(advice) => out.line(&format!("{:<8} {:<12} -> {advice}", "", "")),
        None => Ok(()),
    }
}
