//! A module: checked, compiled, linked once; instances come from it. Knows what a component must export
//! and what it may import; must not know what it does.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use segmenter_core::effects::{self, EffectLimits};
use segmenter_core::lease::Epoch;
use segmenter_core::names::{GroupName, HandlerName, Namespace, Partition, StreamName, Version};
use sha2::{Digest, Sha256};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker};

use crate::capabilities;
use crate::engine::Engine;
use crate::grants::Grants;
use crate::instance::{Granted, Instance, InstantiateError, State};
use crate::kinds::{Kind, Pre};
use crate::output::{GuestLine, LogSink};
use crate::tenure::{StateSource, Tenure};

/// What one call and one instance may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From the start of a call to its end, also if it waits in the host. Checked every 10 ms.
    pub deadline: Duration,
    /// Of making an instance: until its start functions are done.
    pub instantiate: Duration,
    /// Linear memory of an instance, in bytes.
    pub memory_bytes: usize,
    /// Elements of all tables of an instance.
    pub table_elements: usize,
    /// Core instances that one component is made of.
    pub core_instances: usize,
    /// What is logged of one call's output, in bytes; see [`crate::GuestLine`].
    pub log_bytes: usize,
    pub recycle: Recycle,
    /// Payload of an emitted message, in bytes, inclusive, unless its target says otherwise.
    pub payload_bytes: usize,
    /// What a call may keep and emit.
    pub effects: EffectLimits,
}

/// When an instance is replaced although nothing ended it; by default never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recycle {
    /// After so many messages; 1 is a fresh instance for each.
    pub after_messages: Option<u64>,
    /// After the message at whose end its memories hold more than so many bytes.
    pub memory_bytes: Option<usize>,
}

/// Payload limits in bytes, inclusive, of streams that are emitted to.
pub type Targets = Arc<BTreeMap<StreamName, usize>>;

/// What an instance is told about where it runs.
#[derive(Debug, Clone)]
pub struct PartitionContext {
    pub namespace: Namespace,
    pub stream: StreamName,
    pub partitions: u32,
    pub group: GroupName,
    pub handler: HandlerName,
    pub partition: Partition,
    pub epoch: Epoch,
}

/// Why a file is no handler.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(
        "this is not WebAssembly: it does not begin with the bytes \\0asm; give the .wasm file that your toolchain wrote"
    )]
    NotWasm,
    #[error(
        "this is a core module, not a component; build for wasm32-wasip2, or make a component of it with `wasm-tools component new`"
    )]
    CoreModule,
    #[error("it needs more when it starts than the limits allow (memory, table_elements): {0}")]
    OverLimits(String),
    #[error("it does not compile: {0}")]
    Compile(String),
    #[error(
        "it has functions that are async in their type, as in WASI 0.3; this host has WASI 0.2: build it with an SDK for that (Spin's up to version 5, for instance)"
    )]
    Async,
    #[error(
        "it exports none of {}, so it is a component of another world; it exports: {}",
        list(&Kind::ALL),
        list(found)
    )]
    NoKnownExport { found: Vec<String> },
    #[error("it exports {}: a component is one of them", list(found))]
    TwoKinds { found: Vec<Kind> },
    #[error("it imports {import}, which {why}")]
    MissingImport { import: String, why: String },
    #[error("it does not fit the contract {0}: {1}")]
    Mismatch(Kind, String),
}

fn list<T: ToString>(names: &[T]) -> String {
    if names.is_empty() {
        return "nothing".to_owned();
    }
    let names: Vec<String> = names.iter().map(T::to_string).collect();
    names.join(", ")
}

/// Whether compiling may take from calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// As fast as it goes: nothing runs yet.
    Start,
    /// Only what calls leave.
    Aside,
}

/// The version that these bytes are: their sha256.
pub fn version_of(bytes: &[u8]) -> Version {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    Version::new(hex).expect("64 hex digits are a name")
}

/// Code, before anybody said what it may do. Cheap to clone.
#[derive(Clone)]
pub struct Compiled {
    version: Version,
    engine: Engine,
    component: Component,
}

impl Compiled {
    /// Takes as long as compiling does, unless the cache knows it: 5 ms to seconds, or what another process
    /// needs that compiles the same, at most [`crate::COMPILED_ELSEWHERE_WAIT`]. Blocks meanwhile.
    /// `version` is that of the bytes.
    pub fn new(
        engine: &Engine,
        bytes: &[u8],
        version: Version,
        priority: Priority,
    ) -> Result<Compiled, LoadError> {
        let alone = engine.aside.alone(&version);
        let component = match priority {
            Priority::Start => compile(engine, bytes),
            Priority::Aside => engine.aside.run(|| compile(engine, bytes)),
        }?;
        drop(alone);
        Ok(Compiled {
            version,
            engine: engine.clone(),
            component,
        })
    }

    /// Checked against world and grants.
    pub fn link(&self, limits: Limits, grants: Grants) -> Result<Module, LoadError> {
        let Compiled {
            version,
            engine,
            component,
        } = self;
        let kind = kind(engine, component)?;
        check_imports(engine, component, kind, &grants)?;
        let linker = linker(engine, kind, &grants)?;
        let pre = linker
            .instantiate_pre(component)
            .and_then(|linked| Pre::new(kind, linked))
            .map_err(|e| LoadError::Mismatch(kind, format!("{e:#}")))?;
        Ok(Module(Arc::new(Inner {
            version: version.clone(),
            limits,
            grants: Arc::new(grants),
            engine: engine.clone(),
            pre,
            live: Live::new(engine),
        })))
    }
}

/// Counts a module for as long as it, or an instance of it, is there.
#[derive(Clone)]
pub(crate) struct Live(#[allow(dead_code, reason = "held")] Arc<Counted>);

struct Counted(Arc<AtomicUsize>);

impl Live {
    fn new(engine: &Engine) -> Live {
        engine.live.fetch_add(1, Ordering::Relaxed);
        Live(Arc::new(Counted(engine.live.clone())))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Module(Arc<Inner>);

struct Inner {
    version: Version,
    limits: Limits,
    grants: Arc<Grants>,
    engine: Engine,
    // Before what counts it: code is gone when it is no longer counted.
    pre: Pre,
    live: Live,
}

impl Module {
    /// Compiled and linked at once; see [`Compiled`].
    pub fn load(
        engine: &Engine,
        bytes: &[u8],
        limits: Limits,
        grants: Grants,
    ) -> Result<Module, LoadError> {
        Compiled::new(engine, bytes, version_of(bytes), Priority::Start)?.link(limits, grants)
    }

    /// sha256 of the bytes.
    pub fn version(&self) -> &Version {
        &self.0.version
    }

    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// The world that it is of.
    pub fn kind(&self) -> Kind {
        self.0.pre.kind()
    }

    /// Makes one instance and drops it: what fails at once, fails before a partition depends on it.
    pub async fn probe(&self) -> Result<(), InstantiateError> {
        struct Silent;
        impl LogSink for Silent {
            fn line(&self, _: &GuestLine<'_>) {}
        }
        struct Empty;
        impl StateSource for Empty {
            fn load(
                &self,
            ) -> Pin<Box<dyn Future<Output = Result<effects::State, String>> + Send + '_>>
            {
                Box::pin(async { Ok(effects::State::default()) })
            }
        }
        let name = "probe";
        let context = PartitionContext {
            namespace: Namespace::new(name).expect("a name"),
            stream: StreamName::new(name).expect("a name"),
            partitions: 1,
            group: GroupName::new(name).expect("a name"),
            handler: HandlerName::new(name).expect("a name"),
            partition: Partition(0),
            epoch: Epoch(0),
        };
        let tenure = self.tenure(context, Arc::new(Silent), Arc::new(Empty));
        self.instantiate(&tenure, Targets::default())
            .await
            .map(drop)
    }

    /// What the instances of one partition share in one lease epoch.
    pub fn tenure(
        &self,
        context: PartitionContext,
        sink: Arc<dyn LogSink>,
        source: Arc<dyn StateSource>,
    ) -> Tenure {
        Tenure::new(context, sink, source)
    }

    /// `targets` are those of its grants.
    pub async fn instantiate(
        &self,
        tenure: &Tenure,
        targets: Targets,
    ) -> Result<Instance, InstantiateError> {
        self.make(tenure.clone(), targets).await
    }

    /// An instance whose calls see the tenure as it is and leave no trace: what they change goes with their
    /// outcome and nowhere else, HTTP requests are refused, folders are read-only, lines are marked.
    pub async fn shadow(
        &self,
        tenure: &Tenure,
        targets: Targets,
    ) -> Result<Instance, InstantiateError> {
        self.make(tenure.for_shadow(), targets).await
    }

    async fn make(&self, tenure: Tenure, targets: Targets) -> Result<Instance, InstantiateError> {
        let Inner {
            limits,
            grants,
            engine,
            pre,
            live,
            version,
        } = &*self.0;
        let (version, live) = (version.clone(), live.clone());
        let granted = Granted {
            grants: grants.clone(),
            targets,
        };
        Instance::new(engine, pre, version, *limits, granted, tenure, live).await
    }
}

fn compile(engine: &Engine, bytes: &[u8]) -> Result<Component, LoadError> {
    match bytes {
        [b'\0', b'a', b's', b'm', _, _, 0, 0, ..] => return Err(LoadError::CoreModule),
        [b'\0', b'a', b's', b'm', ..] => {}
        _ => return Err(LoadError::NotWasm),
    }
    Component::new(&engine.engine, bytes).map_err(|e| {
        let why = format!("{e:#}");
        // A pool is told when it is made how large anything may be, and looks at compiling.
        if why.contains("pooling allocator") {
            return LoadError::OverLimits(why);
        }
        // Validating says so before anything else is looked at.
        if why.contains("component model async") {
            return LoadError::Async;
        }
        LoadError::Compile(why)
    })
}

/// What a component is, by what it exports.
fn kind(engine: &Engine, component: &Component) -> Result<Kind, LoadError> {
    let ty = component.component_type();
    let exports: Vec<String> = ty
        .exports(&engine.engine)
        .map(|(name, _)| name.to_owned())
        .collect();
    match Kind::of(&exports)[..] {
        [] => Err(LoadError::NoKnownExport { found: exports }),
        [kind] => Ok(kind),
        ref several => Err(LoadError::TwoKinds {
            found: several.to_vec(),
        }),
    }
}

fn linker(engine: &Engine, kind: Kind, grants: &Grants) -> Result<Linker<State>, LoadError> {
    let mut linker = Linker::new(&engine.engine);
    capabilities::link(&mut linker, grants)
        .and_then(|()| kind.link(&mut linker, grants))
        .map_err(|e| LoadError::Mismatch(kind, format!("{e:#}")))?;
    Ok(linker)
}

/// Names what is missing better than linking would: with the setting that grants it.
fn check_imports(
    engine: &Engine,
    component: &Component,
    kind: Kind,
    grants: &Grants,
) -> Result<(), LoadError> {
    let ty = component.component_type();
    for (name, item) in ty.imports(&engine.engine) {
        if let ComponentItem::ComponentInstance(instance) = &item.ty {
            let types_only = instance
                .exports(&engine.engine)
                .all(|(_, item)| matches!(item.ty, ComponentItem::Type(_)));
            if types_only {
                continue;
            }
        }
        if let Some(why) = capabilities::missing(name, kind.imports(), grants) {
            let import = name.to_owned();
            return Err(LoadError::MissingImport { import, why });
        }
    }
    Ok(())
}
