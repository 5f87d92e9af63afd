//! `handler test`: messages through one partition of a handler, without Redis, held against what is expected
//! of them. Here: which module under which settings, and the order of things; each of the rest has a file.
//!
//! A run twice writes the same bytes: the guest's clock and its random numbers are fixed (`--seed`), and no
//! time is told.

mod contrast;
mod expect;
mod junit;
mod play;
mod samples;
mod show;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use segmenter_core::lease::Epoch;
use segmenter_core::limits::PAYLOAD_BYTES_MAX;
use segmenter_core::names::{GroupName, HandlerName, Namespace, Partition, StreamName};
use segmenter_core::rollout::{Difference as Against, Differences, compare};
use segmenter_wasm::{Engine, EngineConfig, Fixed, Module, PartitionContext, Targets};
use serde_json::{Value, json};

use self::expect::{Difference, Expect};
use self::play::{Play, Played, START_MS};
use self::samples::Sample;
use super::{check, short};
use crate::cli::args::{Global, TestArgs};
use crate::cli::jsonl::Shown;
use crate::cli::{FAILED, Usage, run};
use crate::config::{ConfigFile, HandlerConfig, ModuleSource};
use crate::host::cache_dir;
use crate::output::Format;

/// What stream and group are called where no configuration says it.
const NAME: &str = "test";
/// At once: of the module, and of the one that it is compared with.
const INSTANCES: u32 = 2;

/// One message of a test, with all that it came to.
struct Case {
    line: u64,
    key: String,
    expected: bool,
    played: Played,
    differences: Vec<Difference>,
    against: Option<Against>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Result {
    AsExpected,
    /// It was ok, and nobody said what else.
    Unchecked,
    Otherwise,
}

impl Case {
    fn result(&self) -> Result {
        match (
            self.differences.is_empty() && self.against.is_none(),
            self.expected,
        ) {
            (false, _) => Result::Otherwise,
            (true, true) => Result::AsExpected,
            (true, false) => Result::Unchecked,
        }
    }
}

/// What is tested, and under which settings.
struct Subject {
    namespace: Namespace,
    handler: HandlerConfig,
    file: PathBuf,
    payload_max: usize,
    targets: Targets,
}

pub(super) async fn run(global: &Global, args: TestArgs) -> anyhow::Result<ExitCode> {
    let subject = subject(global, &args)?;
    let samples = samples::messages(&args.messages, subject.payload_max)?;
    let state = match &args.state {
        None => BTreeMap::new(),
        Some(path) => samples::state(path, &subject.handler.limits.effects)?,
    };
    // Refused like a wrong argument: nothing was tested.
    let unusable = |error: anyhow::Error| Usage(format!("{error:#}"));
    let engine = engine(&subject.handler, args.seed)?;
    let module = load(&engine, &subject, &subject.file).map_err(unusable)?;
    let other = args.against.as_deref();
    let other = other.map(|file| load(&engine, &subject, file));
    let other = other.transpose().map_err(unusable)?;
    let mut out = global.out();
    let show = show::Show::new(args.verbose);
    if let (Some(other), Some(path), Format::Human) = (&other, &args.against, out.format) {
        let version = |path: &Path, module: &Module| {
            format!("{} ({})", path.display(), short(module.version()))
        };
        let (live, shadow) = (version(&subject.file, &module), version(path, other));
        show::versions(&mut out, &live, &shadow)?;
    }
    let mut summary = Summary {
        differences: other.as_ref().map(|_| Differences::default()),
        ..Summary::default()
    };
    let Subject {
        namespace,
        handler,
        targets,
        file,
        ..
    } = subject;
    let context = PartitionContext {
        namespace,
        stream: handler.stream,
        partitions: 1,
        group: handler.group,
        handler: handler.name,
        partition: Partition(0),
        epoch: Epoch(1),
    };
    let mut play = Play::new(module, other, context, targets, state);
    let mut cases = Vec::new();
    for sample in samples {
        let case = case(&mut play, sample, &mut summary).await;
        summary.count(&case);
        match out.format {
            Format::Human => show.case(&mut out, &case)?,
            Format::Json => out.object(&object(&case))?,
        }
        out.flush()?;
        if args.junit.is_some() {
            cases.push(case);
        }
    }
    if let Some(path) = &args.junit {
        let (suite, class) = (
            file.display().to_string(),
            args.messages.display().to_string(),
        );
        let document = junit::document(&suite, &class, &cases);
        std::fs::write(path, document).with_context(|| format!("writing {}", path.display()))?;
    }
    if out.format == Format::Human {
        if args.verbose {
            show::state(&mut out, play.state())?;
        }
        show.summary(&mut out, &summary)?;
    }
    out.flush()?;
    Ok(match summary.otherwise {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(FAILED),
    })
}

async fn case(play: &mut Play, sample: Sample, summary: &mut Summary) -> Case {
    let Sample {
        line,
        content,
        expect,
    } = sample;
    let key = content.key().to_owned();
    let played = play.message(content).await;
    let expected = expect.is_some();
    let expect: Expect = expect.unwrap_or_default();
    let differences = expect.compare(&played.outcome, play.state());
    let against = played.shadow.as_ref();
    let against = against.and_then(|shadow| compare(&played.outcome, shadow));
    if let (Some(counted), true) = (&mut summary.differences, played.shadow.is_some()) {
        counted.count(against.clone(), || format!("line {line}"));
    }
    Case {
        line,
        key,
        expected,
        played,
        differences,
        against,
    }
}

/// From the configuration, or from what flags say.
fn subject(global: &Global, args: &TestArgs) -> anyhow::Result<Subject> {
    let Some(path) = &args.config else {
        let Some(file) = args.file.clone() else {
            return Err(Usage(
                "name the component to test, or a configuration that does: -c segmenter.toml"
                    .to_owned(),
            )
            .into());
        };
        let handler = HandlerConfig {
            grants: run::grants(&args.grant)?,
            ..HandlerConfig::new(
                run::name_of(&file)?,
                StreamName::new(NAME).expect("a name"),
                GroupName::new(NAME).expect("a name"),
                ModuleSource::File(file.clone()),
            )
        };
        return Ok(Subject {
            namespace: global.namespace(),
            handler,
            file,
            payload_max: PAYLOAD_BYTES_MAX,
            targets: Targets::default(),
        });
    };
    let config = ConfigFile {
        namespace: global.namespace.clone(),
        ..ConfigFile::new(path)
    };
    let config = config.load().map_err(|e| Usage(e.to_string()))?;
    let handler = chosen(&config.handlers, args.handler.as_ref(), path)?;
    let file = match (&args.file, &handler.module) {
        (Some(file), _) | (None, ModuleSource::File(file)) => file.clone(),
        (None, ModuleSource::Deployed) => {
            return Err(Usage(format!(
                "handler {} runs what is deployed; name the component to test",
                handler.name
            ))
            .into());
        }
    };
    let stream = config.streams.iter().find(|s| s.name == handler.stream);
    let emitted = config.streams.iter();
    let emitted = emitted.filter(|s| handler.grants.emit.contains(&s.name));
    let targets = emitted.map(|s| (s.name.clone(), s.shape.payload_max()));
    Ok(Subject {
        namespace: config.namespace.clone(),
        handler: handler.clone(),
        file,
        payload_max: stream.map_or(PAYLOAD_BYTES_MAX, |s| s.shape.payload_max()),
        targets: Arc::new(targets.collect()),
    })
}

fn chosen<'a>(
    handlers: &'a [HandlerConfig],
    name: Option<&HandlerName>,
    path: &Path,
) -> anyhow::Result<&'a HandlerConfig> {
    let found = match (name, handlers) {
        (Some(name), _) => handlers.iter().find(|handler| handler.name == *name),
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    found.ok_or_else(|| {
        let names: Vec<_> = handlers
            .iter()
            .map(|handler| handler.name.as_str())
            .collect();
        let there = match names[..] {
            [] => "none".to_owned(),
            _ => names.join(", "),
        };
        let path = path.display();
        Usage(match name {
            Some(name) => format!("{path} has no handler {name}; it has: {there}"),
            None => format!("say with --handler which handler of {path} it is; it has: {there}"),
        })
        .into()
    })
}

fn engine(handler: &HandlerConfig, seed: u64) -> anyhow::Result<Engine> {
    let engine = Engine::new(EngineConfig {
        cache_dir: cache_dir(),
        memory_bytes_max: handler.limits.memory_bytes,
        table_elements_max: handler.limits.table_elements,
        instances_max: INSTANCES,
        core_dump_dir: None,
    })
    .context("starting the WebAssembly engine")?;
    Ok(engine.fixed(Fixed {
        start_ms: START_MS,
        seed,
    }))
}

fn load(engine: &Engine, subject: &Subject, path: &Path) -> anyhow::Result<Module> {
    let shown = path.display();
    let bytes = check::read(path).with_context(|| format!("reading {shown}"))?;
    let HandlerConfig {
        limits,
        recycle,
        grants,
        ..
    } = &subject.handler;
    Module::load(
        engine,
        &bytes,
        limits.of_instances(*recycle),
        grants.clone(),
    )
    .with_context(|| format!("{shown} cannot be tested"))
}

/// Of all messages.
#[derive(Default)]
struct Summary {
    as_expected: u64,
    unchecked: u64,
    otherwise: u64,
    /// From the other version, if there is one.
    differences: Option<Differences>,
}

impl Summary {
    fn count(&mut self, case: &Case) {
        match case.result() {
            Result::AsExpected => self.as_expected += 1,
            Result::Unchecked => self.unchecked += 1,
            Result::Otherwise => self.otherwise += 1,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary {
            as_expected,
            unchecked,
            otherwise,
            differences,
        } = self;
        let all = as_expected + unchecked + otherwise;
        let s = if all == 1 { "" } else { "s" };
        write!(
            f,
            "{all} message{s}: {as_expected} as expected, {otherwise} not"
        )?;
        if *unchecked > 0 {
            write!(f, ", {unchecked} ok without anything expected")?;
        }
        if let Some(d) = differences {
            let (same, differed) = (d.same, d.differed());
            write!(
                f,
                "; live and shadow: {same} the same, {differed} not (outcome {}, emitted {}, state {})",
                d.outcome, d.emitted, d.state
            )?;
        }
        Ok(())
    }
}

/// For machines.
fn object(case: &Case) -> Value {
    let Played {
        outcome,
        shadow,
        lines,
        backtrace,
    } = &case.played;
    let emitted = expect::emitted(outcome).iter().map(|emit| {
        let mut object = json!(Shown::of(&emit.content));
        object["to"] = json!(emit.to.as_str());
        object
    });
    let state = match outcome {
        segmenter_core::outcome::Outcome::Ok(effects) => effects
            .state
            .iter()
            .map(|(name, value)| (name.clone(), bytes(value.as_deref())))
            .collect(),
        _ => serde_json::Map::new(),
    };
    let differences = case.differences.iter().map(|difference| {
        let value = |value: &expect::Value| match value {
            expect::Value::Word(word) => json!(word),
            expect::Value::Bytes(value) => bytes(Some(value)),
            expect::Value::Nothing => Value::Null,
        };
        json!({
            "what": difference.what,
            "expected": value(&difference.expected),
            "actual": value(&difference.actual),
        })
    });
    let log = lines.iter().map(|line| {
        let mut object = json!({"level": line.level.as_str(), "text": line.text});
        if line.shadow {
            object["shadow"] = json!(true);
        }
        object
    });
    let mut object = json!({
        "line": case.line,
        "key": case.key,
        "result": match case.result() {
            Result::AsExpected => "as_expected",
            Result::Unchecked => "unchecked",
            Result::Otherwise => "otherwise",
        },
        "outcome": expect::kind(outcome),
        "reason": expect::reason(outcome),
        "after_ms": expect::after_ms(outcome),
        "emitted": emitted.collect::<Vec<_>>(),
        "state": state,
        "differences": differences.collect::<Vec<_>>(),
        "log": log.collect::<Vec<_>>(),
    });
    if let Some(backtrace) = backtrace {
        object["backtrace"] = json!(backtrace);
    }
    if let Some(shadow) = shadow {
        object["against"] = json!({
            "outcome": expect::kind(shadow),
            "difference": case.against.as_ref().map(ToString::to_string),
        });
    }
    object
}

/// As an expectation writes it.
fn bytes(value: Option<&[u8]>) -> Value {
    let Some(value) = value else {
        return Value::Null;
    };
    match std::str::from_utf8(value) {
        Ok(text) => json!(text),
        Err(_) => json!({"base64": STANDARD.encode(value)}),
    }
}
