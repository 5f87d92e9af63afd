//! What a language costs: the same handler (tests/guests/echo, which adds up the bytes of its payload) in each,
//! called by the host's own machinery without Redis; and how long a build takes after a change of its source,
//! by the command of its project. A table of its own and target/languages.json: nothing here has a ceiling.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use segmenter_core::effects::{EffectLimits, State};
use segmenter_core::lease::Epoch;
use segmenter_core::limits::PAYLOAD_BYTES_MAX;
use segmenter_core::message::{Content, EntryId, Message};
use segmenter_core::names::Partition;
use segmenter_core::outcome::Outcome;
use segmenter_wasm::{
    Engine, EngineConfig, Grants, GuestLine, Instance, Limits, LogSink, Module, PartitionContext,
    Recycle, StateSource, Targets, Tenure,
};
use serde_json::json;

use crate::report::median;
use crate::world::PAYLOAD_BYTES;

/// Language, component, the source that changes, and the build's command.
const LANGUAGES: [(&str, &str, &str, &[&str]); 5] = [
    (
        "Rust",
        "echo-rust",
        "src/lib.rs",
        &[
            "cargo",
            "build",
            "--quiet",
            "--release",
            "--target",
            "wasm32-wasip2",
        ],
    ),
    ("C", "echo-c", "src/handler.c", &["make"]),
    ("Zig", "echo-zig", "src/main.zig", &["zig", "build"]),
    (
        "JavaScript",
        "echo-js",
        "src/handler.js",
        &["npm", "run", "--silent", "build"],
    ),
    (
        "Python",
        "echo-python",
        "src/handler.py",
        &["python3", "build.py"],
    ),
];

/// Memory limit of an instance: what a host has unless configured otherwise.
const MEMORY_BYTES: usize = 64 << 20;
/// Instances whose memory is compared with that of one.
const INSTANCES: usize = 32;
/// Calls are measured in so many parts, of which the median counts.
const PARTS: usize = 9;

struct Silent;
impl LogSink for Silent {
    fn line(&self, _: &GuestLine<'_>) {}
}

struct Empty;
impl StateSource for Empty {
    fn load(&self) -> std::pin::Pin<Box<dyn Future<Output = Result<State, String>> + Send + '_>> {
        Box::pin(async { Ok(State::default()) })
    }
}

struct Measured {
    language: &'static str,
    build_s: f64,
    size_bytes: u64,
    compile_ms: f64,
    call_us: f64,
    fresh_us: f64,
    instance_kib: f64,
}

/// `part`: how long a part of the calls is measured.
pub(crate) fn measure(guests: &Path, part: Duration) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut all = Vec::new();
    for (language, guest, source, command) in LANGUAGES {
        crate::progress(&format!("languages: {language}"));
        let component = guests.join(format!("{guest}.wasm"));
        let build_s = build(guests, guest, source, command)?;
        let mut measured = runtime.block_on(of_component(language, &component, part))?;
        measured.build_s = build_s;
        all.push(measured);
    }
    table(&all);
    write(&all)
}

async fn of_component(
    language: &'static str,
    component: &Path,
    part: Duration,
) -> anyhow::Result<Measured> {
    let bytes = std::fs::read(component)
        .with_context(|| format!("reading {}; run `cargo xtask bench`", component.display()))?;
    let engine = Engine::new(EngineConfig {
        cache_dir: None,
        memory_bytes_max: MEMORY_BYTES,
        table_elements_max: 100_000,
        // Components of some languages have more than one memory.
        instances_max: 4 * INSTANCES as u32,
        core_dump_dir: None,
    })?;
    let limits = Limits {
        deadline: Duration::from_secs(20),
        instantiate: Duration::from_secs(20),
        memory_bytes: MEMORY_BYTES,
        table_elements: 100_000,
        core_instances: 20,
        log_bytes: 1 << 20,
        recycle: Recycle::default(),
        payload_bytes: PAYLOAD_BYTES_MAX,
        effects: EffectLimits::default(),
    };
    let grants = Grants {
        emit: ["out".parse()?].into(),
        ..Grants::default()
    };
    let started = Instant::now();
    let module = Module::load(&engine, &bytes, limits, grants)?;
    let compile_ms = started.elapsed().as_secs_f64() * 1e3;

    let tenure = module.tenure(context()?, Arc::new(Silent), Arc::new(Empty));
    let message = message()?;
    let mut instance = fresh(&module, &tenure).await?;
    let mut calls = Vec::new();
    let mut with_instances = Vec::new();
    for _ in 0..PARTS {
        let (started, mut count) = (Instant::now(), 0u32);
        while started.elapsed() < part {
            // Looking at the clock is a part of what the shortest call takes.
            for _ in 0..16 {
                called(&mut instance, &message).await?;
            }
            count += 16;
        }
        calls.push(started.elapsed().as_secs_f64() * 1e6 / f64::from(count));

        let (started, mut count) = (Instant::now(), 0u32);
        while started.elapsed() < part {
            let mut instance = fresh(&module, &tenure).await?;
            called(&mut instance, &message).await?;
            count += 1;
        }
        with_instances.push(started.elapsed().as_secs_f64() * 1e6 / f64::from(count));
    }

    let before = memory_kib()?;
    let mut instances = Vec::new();
    for _ in 0..INSTANCES {
        let mut instance = fresh(&module, &tenure).await?;
        called(&mut instance, &message).await?;
        instances.push(instance);
    }
    let instance_kib = (memory_kib()? - before) / INSTANCES as f64;
    Ok(Measured {
        language,
        build_s: 0.0,
        size_bytes: bytes.len() as u64,
        compile_ms,
        call_us: median(calls),
        fresh_us: median(with_instances),
        instance_kib,
    })
}

async fn fresh(module: &Module, tenure: &Tenure) -> anyhow::Result<Instance> {
    Ok(module.instantiate(tenure, Targets::default()).await?)
}

async fn called(instance: &mut Instance, message: &Message) -> anyhow::Result<()> {
    match instance.call(message).await {
        Outcome::Ok(_) => Ok(()),
        other => bail!("the guest did not handle its message: {other:?}"),
    }
}

fn context() -> anyhow::Result<PartitionContext> {
    Ok(PartitionContext {
        namespace: "default".parse()?,
        stream: "bench".parse()?,
        partitions: 8,
        group: "g".parse()?,
        handler: "echo".parse()?,
        partition: Partition(0),
        epoch: Epoch(1),
    })
}

fn message() -> anyhow::Result<Message> {
    let attributes = ["source", "priority", "trace"]
        .map(|name| (name.to_owned(), "a short value".to_owned()))
        .to_vec();
    let payload = vec![b'x'; PAYLOAD_BYTES];
    Ok(Message {
        id: EntryId { ms: 1, seq: 0 },
        partition: Partition(0),
        attempt: 1,
        content: Content::new("order-1", payload, attributes, PAYLOAD_BYTES_MAX)?,
    })
}

/// Of this process: private pages alone, because those that instances share cost once.
fn memory_kib() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let field = |name: &str| -> anyhow::Result<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number.context("smaps_rollup has the field")?.parse()?)
    };
    Ok(field("Private_Clean:")? + field("Private_Dirty:")?)
}

/// After its source changed, where `cargo xtask guests` has built it before.
fn build(guests: &Path, guest: &str, source: &str, command: &[&str]) -> anyhow::Result<f64> {
    let target = guests.parent().context("guests lie in target/")?;
    let project = target.join("guest-build/projects").join(guest);
    let source = project.join(source);
    let mut text = std::fs::read_to_string(&source)
        .with_context(|| format!("reading {}; run `cargo xtask guests`", source.display()))?;
    let environment = environment(&target.join("toolchains.env"))?;
    let mut seconds = Vec::new();
    for _ in 0..3 {
        // Another text, which all of these languages take for a blank line.
        text.push('\n');
        std::fs::write(&source, &text)?;
        let started = Instant::now();
        let output = Command::new("env")
            .args(&environment)
            .args(command)
            .current_dir(&project)
            // As `cargo xtask guests` does, so that what it built is there.
            .env("CARGO_TARGET_DIR", target.join("guest-build"))
            .env_remove("RUSTFLAGS")
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{command:?} ended with {}: {said}", output.status);
        }
        seconds.push(started.elapsed().as_secs_f64());
    }
    Ok(median(seconds))
}

/// Lines `NAME=VALUE`, the PATH with what is there already.
fn environment(file: &PathBuf) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("reading {}; run `cargo xtask guests`", file.display()))?;
    let path = std::env::var("PATH").context("PATH")?;
    let line = |line: &str| match line.strip_prefix("PATH=") {
        Some(front) => format!("PATH={front}:{path}"),
        None => line.to_owned(),
    };
    Ok(text.lines().map(line).collect())
}

fn table(all: &[Measured]) {
    println!(
        "\n{:<12} {:>8} {:>12} {:>11} {:>9} {:>17} {:>15}",
        "LANGUAGE",
        "BUILD s",
        "SIZE KiB",
        "COMPILE ms",
        "CALL µs",
        "FRESH + CALL µs",
        "INSTANCE KiB"
    );
    for row in all {
        println!(
            "{:<12} {:>8.1} {:>12.0} {:>11.0} {:>9.2} {:>17.1} {:>15.0}",
            row.language,
            row.build_s,
            row.size_bytes as f64 / 1024.0,
            row.compile_ms,
            row.call_us,
            row.fresh_us,
            row.instance_kib
        );
    }
    println!();
}

fn write(all: &[Measured]) -> anyhow::Result<()> {
    let list: Vec<_> = all
        .iter()
        .map(|row| {
            json!({
                "language": row.language,
                "build_s": row.build_s,
                "size_bytes": row.size_bytes,
                "compile_ms": row.compile_ms,
                "call_us": row.call_us,
                "fresh_us": row.fresh_us,
                "instance_kib": row.instance_kib,
            })
        })
        .collect();
    let target = std::env::var_os("SEGMENTER_TARGET").unwrap_or_else(|| "target".into());
    let path = Path::new(&target).join("languages.json");
    let text = serde_json::to_string_pretty(&list)? + "\n";
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}
