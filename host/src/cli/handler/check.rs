//! A module file: read within a bound, compiled, and one instance of it made, as a host
//! would; so that what can never run is refused before anybody else sees it. It must not know Redis.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};
use segmenter_core::limits;
use segmenter_wasm::{Engine, EngineConfig, Grants, Limits, Module, Recycle};

use crate::config;
use crate::host::cache_dir;

/// Its bytes, if it is a component that some host could run: everything is granted here, because grants are
/// the hosts' own.
pub(super) async fn checked(path: &Path, memory_bytes: usize) -> anyhow::Result<(Vec<u8>, Module)> {
    let shown = path.display();
    let bytes = read(path).with_context(|| format!("reading {shown}"))?;
    let defaults = config::Limits::default();
    let limits = Limits {
        memory_bytes,
        ..defaults.of_instances(Recycle::default())
    };
    let engine = Engine::new(EngineConfig {
        cache_dir: cache_dir(),
        memory_bytes_max: memory_bytes,
        table_elements_max: defaults.table_elements,
        instances_max: 1,
        core_dump_dir: None,
    })
    .context("starting the WebAssembly engine")?;
    let module = Module::load(&engine, &bytes, limits, Grants::everything())
        .with_context(|| format!("{shown} cannot be deployed"))?;
    module.probe().await.with_context(|| {
        format!(
            "{shown} cannot be deployed: its first instance (--memory SIZE allows it more here)"
        )
    })?;
    Ok((bytes, module))
}

/// What is larger is refused before it is read, as far as its size can be told beforehand.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let max = limits::DEPLOYED_MODULE_BYTES_MAX;
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if meta.is_dir() {
        bail!("it is a folder; give the .wasm file that your toolchain wrote");
    }
    if meta.len() > max as u64 {
        let size = meta.len();
        bail!("it has {size} bytes; a module has at most {max}");
    }
    let mut bytes = Vec::new();
    file.take(max as u64 + 1).read_to_end(&mut bytes)?;
    match bytes.len() {
        0 => bail!("it is empty"),
        size if size > max => {
            bail!("it is longer than it said; a module has at most {max} bytes")
        }
        _ => Ok(bytes),
    }
}
