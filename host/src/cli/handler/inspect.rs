//! `handler inspect`: what a file is, what it asks for and what it offers, whether it can run here or not. No
//! code of it is run. It must not know Redis.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use segmenter_core::names::Version;
use segmenter_wasm::{
    Compiled, Description, Engine, EngineConfig, Grants, LoadError, Needs, Priority, Producers,
    Recycle, Tool, version_of,
};
use serde_json::{Value, json};

use super::check;
use crate::cli::args::Global;
use crate::config::Limits;
use crate::output::{Format, Out, preview};

/// The most that any configuration allows: what a file needs is told, not judged.
const MEMORY_BYTES: usize = 4 << 30;
const TABLE_ELEMENTS: usize = 1_000_000;

/// Whatever can be said of a file.
struct Inspected {
    file: PathBuf,
    size: usize,
    digest: Version,
    producers: Producers,
    /// None: it does not compile.
    compiled: Option<(Duration, Description)>,
    /// What it is to a host, or why it is no handler.
    kind: Result<String, LoadError>,
}

pub(super) fn run(global: &Global, file: PathBuf) -> anyhow::Result<ExitCode> {
    let inspected = inspect(file)?;
    let mut out = global.out();
    match out.format {
        Format::Json => out.object(&object(&inspected))?,
        Format::Human => show(&mut out, &inspected)?,
    }
    out.flush()?;
    match inspected.kind {
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            Err(error).with_context(|| format!("{} is no handler", inspected.file.display()))
        }
    }
}

fn inspect(file: PathBuf) -> anyhow::Result<Inspected> {
    let bytes = check::read(&file).with_context(|| format!("reading {}", file.display()))?;
    // Without a cache: the time that is told is that of compiling.
    let engine = Engine::new(EngineConfig {
        cache_dir: None,
        memory_bytes_max: MEMORY_BYTES,
        table_elements_max: TABLE_ELEMENTS,
        instances_max: 1,
        core_dump_dir: None,
    })
    .context("starting the WebAssembly engine")?;
    let digest = version_of(&bytes);
    let begun = Instant::now();
    let compiled = Compiled::new(&engine, &bytes, digest.clone(), Priority::Start);
    let took = begun.elapsed();
    let (compiled, kind) = match compiled {
        Err(error) => (None, Err(error)),
        Ok(compiled) => {
            let limits = Limits::default().of_instances(Recycle::default());
            let linked = compiled.link(limits, Grants::everything());
            let kind = linked.map(|module| module.kind().to_string());
            (Some((took, compiled.describe())), kind)
        }
    };
    Ok(Inspected {
        file,
        size: bytes.len(),
        digest,
        producers: Producers::of(&bytes),
        compiled,
        kind,
    })
}

impl Inspected {
    /// To be pasted below its `[[handler]]`.
    fn grants(&self) -> Vec<&'static str> {
        let imports = self.compiled.iter().flat_map(|(_, what)| &what.imports);
        let settings = imports.filter_map(|asked| match asked.needs {
            Needs::Grant { setting, .. } => Some(setting),
            Needs::Nothing | Needs::Unknown(_) => None,
        });
        // Each once, in the order of the imports.
        let mut seen = BTreeSet::new();
        settings.filter(|setting| seen.insert(*setting)).collect()
    }
}

fn show(out: &mut Out, inspected: &Inspected) -> anyhow::Result<()> {
    let Inspected {
        file,
        size,
        digest,
        producers,
        compiled,
        kind,
    } = inspected;
    let mut rows: Vec<(&str, String)> = vec![
        ("file", file.display().to_string()),
        (
            "kind",
            match kind {
                Ok(kind) => kind.clone(),
                Err(LoadError::NotWasm) => "no WebAssembly".to_owned(),
                Err(LoadError::CoreModule) => "a core module, no handler".to_owned(),
                Err(LoadError::Compile(_)) => "does not compile".to_owned(),
                Err(_) => "a component, no handler".to_owned(),
            },
        ),
        ("size", human_size(*size)),
        ("digest", digest.to_string()),
    ];
    for (what, tools) in [
        ("language", &producers.languages),
        ("made with", &producers.processed_by),
        ("sdk", &producers.sdks),
    ] {
        if !tools.is_empty() {
            rows.push((what, list(tools)));
        }
    }
    if let Some((took, what)) = compiled {
        rows.push(("compiled in", format!("{} ms", took.as_millis())));
        for (n, export) in what.exports.iter().enumerate() {
            rows.push((if n == 0 { "exports" } else { "" }, export.clone()));
        }
        let widest = what.imports.iter().map(|a| a.import.chars().count()).max();
        let widest = widest.unwrap_or(0);
        for (n, asked) in what.imports.iter().enumerate() {
            let needs = match &asked.needs {
                Needs::Nothing => "always there".to_owned(),
                Needs::Grant { setting, .. } => format!("needs {setting}"),
                Needs::Unknown(why) => why.clone(),
            };
            let text = format!("{:<widest$}  {needs}", asked.import);
            rows.push((if n == 0 { "imports" } else { "" }, text));
        }
    }
    for (what, text) in rows {
        out.line(&format!("{what:<12} {}", preview(&text, usize::MAX)))?;
    }
    let grants = inspected.grants();
    if !grants.is_empty() {
        out.line(
            "\nIt needs these, below its [[handler]] in the configuration:\n\n[handler.grants]",
        )?;
        for line in grants {
            out.line(line)?;
        }
    }
    Ok(())
}

fn list(tools: &BTreeSet<Tool>) -> String {
    let shown = tools.iter().map(|tool| match tool.version.as_str() {
        "" => tool.name.clone(),
        version => format!("{} {version}", tool.name),
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn human_size(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{:.1} KiB ({bytes} bytes)", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB ({bytes} bytes)", bytes as f64 / 1_048_576.0),
    }
}

/// For machines.
fn object(inspected: &Inspected) -> Value {
    let Inspected {
        file,
        size,
        digest,
        producers,
        compiled,
        kind,
    } = inspected;
    let tools = |tools: &BTreeSet<Tool>| -> Value {
        let tools = tools.iter();
        tools
            .map(|tool| json!({"name": tool.name, "version": tool.version}))
            .collect()
    };
    let imports = compiled.iter().flat_map(|(_, what)| &what.imports);
    let imports = imports.map(|asked| {
        let (setting, flag, missing) = match &asked.needs {
            Needs::Nothing => (None, None, None),
            Needs::Grant { setting, flag } => (Some(*setting), *flag, None),
            Needs::Unknown(why) => (None, None, Some(why)),
        };
        json!({"import": asked.import, "grant": setting, "flag": flag, "missing": missing})
    });
    let shown = |path: &Path| path.display().to_string();
    json!({
        "file": shown(file),
        "kind": kind.as_ref().ok(),
        "error": kind.as_ref().err().map(ToString::to_string),
        "size": size,
        "digest": digest.as_str(),
        "languages": tools(&producers.languages),
        "processed_by": tools(&producers.processed_by),
        "sdks": tools(&producers.sdks),
        "compile_ms": compiled.as_ref().map(|(took, _)| took.as_millis() as u64),
        "exports": compiled.as_ref().map(|(_, what)| what.exports.clone()).unwrap_or_default(),
        "imports": imports.collect::<Vec<_>>(),
        "grants": inspected.grants(),
    })
}
