//! The benchmark: each row beside its ceiling, measured in the same run, in one table. `cargo xtask bench`
//! sets up what it needs. Figures of one run are comparable; those of two runs are not.
//!
//! What state, emits and fresh instances cost, and what exactly is compared with what, is in `effects`.

mod append;
mod consume;
mod effects;
mod latency;
mod native;
mod raw;
mod report;
mod world;

use std::process::{ExitCode, Stdio};
use std::time::Duration;

use consume::{Host, Rate};
use latency::Latency;
use report::{CEILING_CPU_MIN, Row, median, median_rate, plain, rate_row};
use world::World;

const CEILING_TRIES: usize = 4;
const IDLE: Duration = Duration::from_secs(10);

struct Args {
    messages: usize,
    rounds: usize,
    seconds: u64,
    /// One kind of rows alone: nothing is written then, and only what was measured is judged.
    only: Option<String>,
}

const KINDS: [&str; 4] = ["consume", "append", "latency", "idle"];

fn main() -> ExitCode {
    let given: Vec<String> = std::env::args().skip(1).collect();
    if let [word, url] = &given[..]
        && word == "native-host"
    {
        return ended(native::host(url).map(|()| true));
    }
    match parse(&given) {
        Some(args) => ended(run(&args)),
        None => {
            eprintln!(
                "usage: bench [--quick] [--only {}]\n\
                 --quick: a tenth of the messages, one round; to see whether it works\n\
                 --only: one kind of rows, which are not written to target/bench.json",
                KINDS.join("|")
            );
            ExitCode::from(2)
        }
    }
}

fn parse(given: &[String]) -> Option<Args> {
    let mut args = Args {
        messages: 600_000,
        rounds: 3,
        seconds: 6,
        only: None,
    };
    let mut given = given.iter().map(String::as_str);
    while let Some(flag) = given.next() {
        match flag {
            "--quick" => {
                (args.messages, args.rounds, args.seconds) = (60_000, 1, 2);
            }
            "--only" => {
                let kind = given.next().filter(|kind| KINDS.contains(kind))?;
                args.only = Some(kind.to_owned());
            }
            _ => return None,
        }
    }
    Some(args)
}

fn ended(result: anyhow::Result<bool>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<bool> {
    let world = World::new()?;
    let version = server_version(&world)?;
    let cores = std::thread::available_parallelism()?;
    println!(
        "{version}, {cores} cores, TCP on 127.0.0.1, payloads of {} bytes, median of {} rounds",
        world::PAYLOAD_BYTES,
        args.rounds
    );
    let mut rows = Vec::new();
    let wanted = |kind: &str| args.only.as_ref().is_none_or(|only| only == kind);
    for partitions in [8, 64] {
        if wanted("consume") {
            consume_rows(&world, args, partitions, &mut rows)?;
        }
        if wanted("append") {
            append_rows(&world, args, partitions, &mut rows)?;
        }
        if wanted("latency") {
            latency_rows(&world, args, partitions, &mut rows)?;
        }
        if wanted("idle") {
            idle_row(&world, partitions, &mut rows)?;
        }
    }
    report::table(&rows);
    if args.only.is_none() {
        report::write(&rows)?;
    }
    Ok(report::verdicts(&rows, args.only.as_deref()))
}

fn consume_rows(
    world: &World,
    args: &Args,
    partitions: u32,
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    let backlog = || {
        world.create(partitions, args.messages)?;
        world.fill(partitions, args.messages)
    };
    let (mut ceilings, mut natives, mut guests) = (Vec::new(), Vec::new(), Vec::new());
    let mut batches = Vec::new();
    let mut effects = Vec::new();
    for round in 1..=args.rounds {
        progress(&format!(
            "consume, {partitions} partitions, round {round} of {}",
            args.rounds
        ));
        let mut best: Option<Rate> = None;
        for _ in 0..CEILING_TRIES {
            backlog()?;
            let rate = consume::ceiling(world, partitions, args.messages)?;
            if best.is_none_or(|best| rate.redis_cpu > best.redis_cpu) {
                best = Some(rate);
            }
            if rate.redis_cpu >= CEILING_CPU_MIN {
                break;
            }
        }
        ceilings.extend(best);
        backlog()?;
        natives.push(consume::engine(
            world,
            partitions,
            args.messages,
            Host::native(world)?,
        )?);
        backlog()?;
        let host = Host::guest(world, "noop", Stdio::null())?;
        let guest = consume::engine(world, partitions, args.messages, host)?;
        guests.push(guest);
        backlog()?;
        let host = Host::guest(world, "noop-batch", Stdio::null())?;
        let batch = consume::engine(world, partitions, args.messages, host)?;
        batches.push((batch, batch.per_second / guest.per_second));
        effects.push(effects::round(world, partitions, args.messages, guest)?);
    }
    let ceiling = median_rate(&mut ceilings);
    rows.push(rate_row("ceiling_consume", partitions, ceiling, None));
    rows.push(rate_row(
        "engine_native",
        partitions,
        median_rate(&mut natives),
        Some(ceiling),
    ));
    rows.push(rate_row(
        "engine_guest",
        partitions,
        median_rate(&mut guests),
        Some(ceiling),
    ));
    let share = batches.iter().map(|(_, share)| *share).collect();
    let mut batches: Vec<_> = batches.into_iter().map(|(rate, _)| rate).collect();
    rows.push(Row {
        note: format!("{:.2} of engine_guest", report::median(share)),
        ..rate_row(
            "engine_batch",
            partitions,
            median_rate(&mut batches),
            Some(ceiling),
        )
    });
    effects::rows(&effects, partitions, ceiling, rows);
    Ok(())
}

fn append_rows(
    world: &World,
    args: &Args,
    partitions: u32,
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    let messages = args.messages / 2;
    let (mut ceilings, mut ours) = (Vec::new(), Vec::new());
    for round in 1..=args.rounds {
        progress(&format!(
            "append, {partitions} partitions, round {round} of {}",
            args.rounds
        ));
        world.create(partitions, messages)?;
        ceilings.push(append::ceiling(world, partitions, messages)?);
        world.create(partitions, messages)?;
        ours.push(append::ours(world, partitions, messages)?);
    }
    let ceiling = median_rate(&mut ceilings);
    rows.push(rate_row("ceiling_append", partitions, ceiling, None));
    rows.push(rate_row(
        "append",
        partitions,
        median_rate(&mut ours),
        Some(ceiling),
    ));
    Ok(())
}

fn latency_rows(
    world: &World,
    args: &Args,
    partitions: u32,
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    let (mut ceilings, mut ours) = (Vec::new(), Vec::new());
    for round in 1..=args.rounds {
        progress(&format!(
            "latency at 1,000/s, {partitions} partitions, round {round} of {}",
            args.rounds
        ));
        world.create(partitions, 1_000_000)?;
        ceilings.push(latency::ceiling(world, partitions, args.seconds)?);
        world.create(partitions, 1_000_000)?;
        ours.push(latency::engine(world, partitions, args.seconds)?);
    }
    for (ceiling_name, name, p99) in [
        ("ceiling_latency_p50", "latency_p50", false),
        ("ceiling_latency_p99", "latency_p99", true),
    ] {
        let of = |latency: &Latency| if p99 { latency.p99_ms } else { latency.p50_ms };
        let ceiling = median(ceilings.iter().map(of).collect());
        let value = median(ours.iter().map(of).collect());
        rows.push(Row {
            ratio: None,
            ..plain(ceiling_name, partitions, ceiling, "ms")
        });
        rows.push(Row {
            ratio: Some(value / ceiling),
            ..plain(name, partitions, value, "ms")
        });
    }
    Ok(())
}

/// Lines of MONITOR that are not from inside scripts, with nothing to do.
fn idle_row(world: &World, partitions: u32, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    progress(&format!("idle, {partitions} partitions"));
    world.create(partitions, 1_000)?;
    let _host = Host::guest(world, "noop", Stdio::null())?;
    let mut raw = world.raw()?;
    // An assignment is in force, and the first heartbeats are done.
    let group = "seg:{default/bench/g}:group";
    while raw.command(&["HGET", group, "last_at"])? == [raw::Item::Nil] {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_secs(3));
    raw.command(&["MONITOR"])?;
    let lines = raw.lines_for(IDLE)?;
    let requests = lines.iter().filter(|line| !line.contains(" lua] ")).count();
    let value = requests as f64 / IDLE.as_secs_f64();
    rows.push(plain(
        "idle_requests_per_s",
        partitions,
        value,
        "requests/s",
    ));
    Ok(())
}

fn progress(what: &str) {
    eprintln!("▸ {what}");
}

fn server_version(world: &World) -> anyhow::Result<String> {
    let mut raw = world.raw()?;
    let info = raw.command(&["INFO", "server"])?;
    let info = raw.string(&info[0]);
    let field = |name: &str| {
        info.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    Ok(match field("valkey_version:") {
        Some(version) => format!("Valkey {version}"),
        None => format!("Redis {}", field("redis_version:").unwrap_or("?")),
    })
}
