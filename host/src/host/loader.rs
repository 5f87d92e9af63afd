//! From a module's bytes to a module that may run: digest → allowed → compiled → checked against world and
//! grants → one instance. Knows the order and what each refusal says; it must not know where bytes come
//! from, nor what runs the module.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use segmenter_core::names::Version;
use segmenter_wasm::{Compiled, Engine, Grants, Limits, Module, Priority, version_of};

use crate::config::HandlerConfig;
use crate::points::{self, Point};

/// What a handler's configuration says about any version of it.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) limits: Limits,
    pub(super) grants: Grants,
    pub(super) allow: Option<BTreeSet<Version>>,
}

impl Settings {
    pub(super) fn of(handler: &HandlerConfig) -> Settings {
        Settings {
            limits: handler.limits.of_instances(handler.recycle),
            grants: handler.grants.clone(),
            allow: handler.allow.clone(),
        }
    }
}

/// Why a version does not run. Trying again does not mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{step}: {why}")]
pub(super) struct Refusal {
    pub(super) step: Step,
    pub(super) why: String,
}

/// Where it was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Digest,
    Allow,
    Settings,
    Compile,
    Link,
    Probe,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Digest => "comparing its digest",
            Step::Allow => "looking whether it is allowed",
            Step::Settings => "looking at limits and grants",
            Step::Compile => "compiling",
            Step::Link => "checking it against world and grants",
            Step::Probe => "making a first instance",
        })
    }
}

/// Loads modules for all handlers of this host. Cheap to clone.
#[derive(Clone)]
pub(super) struct Loader {
    engine: Engine,
}

impl Loader {
    pub(super) fn new(engine: Engine) -> Loader {
        Loader { engine }
    }

    /// For the count of what is in memory.
    #[allow(dead_code, reason = "follow.rs will use it")]
    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// All of it in threads of its own: it takes as long as it takes, and no call waits for it.
    pub(super) async fn load(
        &self,
        bytes: Arc<Vec<u8>>,
        expected: Option<Version>,
        settings: Settings,
        priority: Priority,
    ) -> Result<Module, Refusal> {
        let engine = self.engine.clone();
        let runtime = tokio::runtime::Handle::current();
        let loading = tokio::task::spawn_blocking(move || {
            let module = linked(&engine, &bytes, expected.as_ref(), settings, priority)?;
            drop(bytes);
            // At the priority of calls, because the deadline goes on when it is not its turn.
            match runtime.block_on(module.probe()) {
                Ok(()) => Ok(module),
                Err(error) => Err(refusal(Step::Probe)(error.to_string())),
            }
        });
        match loading.await {
            Ok(loaded) => loaded,
            Err(error) if error.is_panic() => Err(refusal(Step::Compile)(
                "it ended by a panic: this is a bug, please report it with the module".to_owned(),
            )),
            Err(_) => Err(refusal(Step::Compile)("the host ends".to_owned())),
        }
    }
}

fn linked(
    engine: &Engine,
    bytes: &[u8],
    expected: Option<&Version>,
    settings: Settings,
    priority: Priority,
) -> Result<Module, Refusal> {
    let Settings {
        limits,
        grants,
        allow,
    } = settings;
    let version = version_of(bytes);
    if let Some(expected) = expected.filter(|expected| **expected != version) {
        return Err(refusal(Step::Digest)(format!(
            "these bytes are {version}, not {expected}: they are damaged, or of another version; deploy it again"
        )));
    }
    if allow.is_some_and(|allow| !allow.contains(&version)) {
        return Err(refusal(Step::Allow)(format!(
            "{version} is not in the handler's list `allow`; add it there if it may run here"
        )));
    }
    engine
        .fits(&limits)
        .map_err(|e| refusal(Step::Settings)(e.to_string()))?;
    folders(&grants).map_err(refusal(Step::Settings))?;
    let compiled = Compiled::new(engine, bytes, version, priority)
        .map_err(|e| refusal(Step::Compile)(e.to_string()))?;
    points::at(Point::Compiled);
    compiled
        .link(limits, grants)
        .map_err(|e| refusal(Step::Link)(e.to_string()))
}

fn refusal(step: Step) -> impl Fn(String) -> Refusal {
    move |why| Refusal { step, why }
}

/// A granted folder must be there: a handler would else find out at its first message.
fn folders(grants: &Grants) -> Result<(), String> {
    for folder in &grants.files {
        let path = folder.host.display();
        let found = std::fs::metadata(&folder.host)
            .map_err(|e| format!("grants, files: looking at the host folder {path}: {e}"))?;
        if !found.is_dir() {
            return Err(format!(
                "grants, files: {path} is no folder; grant the folder that it lies in"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use segmenter_wasm::{EngineConfig, Folder};

    use super::*;
    use crate::config::Config;

    /// The smallest component: it exports nothing.
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    fn loader() -> Loader {
        let config = EngineConfig {
            cache_dir: None,
            memory_bytes_max: 64 << 20,
            table_elements_max: 100_000,
            instances_max: 2,
            core_dump_dir: None,
        };
        Loader::new(Engine::new(config).unwrap())
    }

    fn settings() -> Settings {
        let text = "[[handler]]\nname='h'\nstream='s'\ngroup='g'\nmodule='m.wasm'";
        let config = Config::parse(text, "".as_ref()).unwrap();
        Settings::of(&config.handlers[0])
    }

    async fn refused(bytes: &[u8], expected: Option<&[u8]>, settings: Settings) -> Refusal {
        let expected = expected.map(version_of);
        let bytes = Arc::new(bytes.to_vec());
        let loader = loader();
        let loaded = loader.load(bytes, expected, settings, Priority::Aside);
        match loaded.await {
            Err(refusal) => refusal,
            Ok(module) => panic!("{} was loaded", module.version()),
        }
    }

    #[tokio::test]
    async fn each_step_refuses_with_its_reason_and_in_this_order() {
        let refusal = refused(EMPTY, Some(b"other"), settings()).await;
        assert_eq!(refusal.step, Step::Digest);
        assert!(refusal.why.contains(version_of(b"other").as_str()));

        let mut allowed = settings();
        allowed.allow = Some([version_of(b"other")].into());
        let refusal = refused(EMPTY, None, allowed.clone()).await;
        assert_eq!(refusal.step, Step::Allow);
        assert!(refusal.why.contains(version_of(EMPTY).as_str()));
        assert!(refusal.to_string().contains("`allow`"), "{refusal}");

        let mut large = settings();
        large.limits.memory_bytes += 1;
        let refusal = refused(EMPTY, None, large).await;
        assert_eq!(refusal.step, Step::Settings);
        assert!(refusal.why.contains("restart"), "{refusal}");

        let mut gone = settings();
        gone.grants.files = vec![Folder {
            host: "/nowhere".into(),
            guest: "/data".to_owned(),
            write: false,
        }];
        let refusal = refused(EMPTY, None, gone).await;
        assert_eq!(refusal.step, Step::Settings);
        assert!(refusal.why.contains("/nowhere"), "{refusal}");

        // Whoever is allowed may still be no WebAssembly.
        allowed.allow = Some([version_of(&EMPTY[..7])].into());
        let refusal = refused(&EMPTY[..7], None, allowed).await;
        assert_eq!(refusal.step, Step::Compile);

        let refusal = refused(EMPTY, Some(EMPTY), settings()).await;
        assert_eq!(refusal.step, Step::Link);
        assert!(refusal.why.contains("another world"), "{refusal}");
    }
}
