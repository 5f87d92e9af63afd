//! What a component can be: one file per kind, recognised by what it exports. Here is what kinds have in
//! common: a linked component, a guest, and how a guest answers. A kind knows how a message becomes a call
//! of its world and what the answer means; it must not know deadlines, limits or what a failure leaves
//! behind: those are the instance's, once for all kinds.

mod batch;
mod foreign;
mod handler;
mod spin_redis;
mod wasi_messaging;
mod wasmcloud;

use std::fmt;
use std::time::Duration;

use segmenter_core::message::Message;
use wasmtime::Store;
use wasmtime::component::{InstancePre, Linker};

use crate::capabilities::Import;
use crate::grants::Grants;
use crate::instance::State;

pub(crate) use foreign::Foreign;

/// A world whose components are known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Our own contract, one message a call.
    Handler,
    /// Our own contract, several messages a call.
    Batch,
    WasiMessaging,
    /// Of Spin's Redis trigger.
    SpinRedis,
    WasmCloud,
}

impl Kind {
    pub const ALL: [Kind; 5] = [
        Kind::Handler,
        Kind::Batch,
        Kind::WasiMessaging,
        Kind::SpinRedis,
        Kind::WasmCloud,
    ];

    /// The export that makes a component one of this kind. What ends with a dot is the beginning of a
    /// version, of which any will do; the others are matched exactly, as drafts must be.
    fn pattern(self) -> &'static str {
        match self {
            Kind::Handler => "segmenter:handler/handler@0.1.",
            Kind::Batch => "segmenter:handler/batch@0.1.",
            Kind::WasiMessaging => wasi_messaging::EXPORT,
            Kind::SpinRedis => spin_redis::EXPORT,
            Kind::WasmCloud => wasmcloud::EXPORT,
        }
    }

    fn is_made_by(self, export: &str) -> bool {
        let pattern = self.pattern();
        match pattern.ends_with('.') {
            true => export.starts_with(pattern),
            false => export == pattern,
        }
    }

    /// All of them that these exports make.
    pub(crate) fn of(exports: &[String]) -> Vec<Kind> {
        let made = |kind: &Kind| exports.iter().any(|export| kind.is_made_by(export));
        Kind::ALL.into_iter().filter(made).collect()
    }

    /// What its world may import beyond what any component may, and what it may not.
    pub(crate) fn imports(self) -> &'static [Import] {
        match self {
            Kind::Handler => &[],
            Kind::Batch => &batch::IMPORTS,
            Kind::WasiMessaging => &wasi_messaging::IMPORTS,
            Kind::SpinRedis => &spin_redis::IMPORTS,
            Kind::WasmCloud => &wasmcloud::IMPORTS,
        }
    }

    /// Links [`Kind::imports`], as far as they are granted.
    pub(crate) fn link(self, linker: &mut Linker<State>, grants: &Grants) -> wasmtime::Result<()> {
        match self {
            Kind::Handler | Kind::Batch => Ok(()),
            Kind::WasiMessaging => wasi_messaging::link(linker, grants),
            Kind::SpinRedis => spin_redis::link(linker, grants),
            Kind::WasmCloud => wasmcloud::link(linker, grants),
        }
    }
}

/// As in a component's exports; any version of a series with an x.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pattern = self.pattern();
        f.write_str(pattern)?;
        f.write_str(if pattern.ends_with('.') { "x" } else { "" })
    }
}

/// A component that is linked as one of its kind. Guests are made of it.
pub(crate) enum Pre {
    Handler(handler::Pre),
    Batch(batch::Pre),
    WasiMessaging(wasi_messaging::Pre),
    SpinRedis(spin_redis::Pre),
    WasmCloud(wasmcloud::Pre),
}

impl Pre {
    pub(crate) fn new(kind: Kind, linked: InstancePre<State>) -> wasmtime::Result<Pre> {
        match kind {
            Kind::Handler => handler::Pre::new(linked).map(Pre::Handler),
            Kind::Batch => batch::Pre::new(linked).map(Pre::Batch),
            Kind::WasiMessaging => wasi_messaging::Pre::new(linked).map(Pre::WasiMessaging),
            Kind::SpinRedis => spin_redis::Pre::new(linked).map(Pre::SpinRedis),
            Kind::WasmCloud => wasmcloud::Pre::new(linked).map(Pre::WasmCloud),
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Pre::Handler(_) => Kind::Handler,
            Pre::Batch(_) => Kind::Batch,
            Pre::WasiMessaging(_) => Kind::WasiMessaging,
            Pre::SpinRedis(_) => Kind::SpinRedis,
            Pre::WasmCloud(_) => Kind::WasmCloud,
        }
    }

    pub(crate) async fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<Guest> {
        match self {
            Pre::Handler(pre) => pre.instantiate(store).await.map(Guest::Handler),
            Pre::Batch(pre) => pre.instantiate(store).await.map(Guest::Batch),
            Pre::WasiMessaging(pre) => pre.instantiate(store).await.map(Guest::WasiMessaging),
            Pre::SpinRedis(pre) => pre.instantiate(store).await.map(Guest::SpinRedis),
            Pre::WasmCloud(pre) => pre.instantiate(store).await.map(Guest::WasmCloud),
        }
    }
}

/// A component that runs in a store, and how it is called. An enum and no trait object, so that a call
/// costs no allocation.
pub(crate) enum Guest {
    Handler(handler::Guest),
    Batch(batch::Guest),
    WasiMessaging(wasi_messaging::Guest),
    SpinRedis(spin_redis::Guest),
    WasmCloud(wasmcloud::Guest),
}

/// What a guest says of a message.
pub(crate) type Answer = Result<(), Failed>;

/// What it says of the messages of a call: all are acked, or which is the first one that is not.
pub(crate) type Answers = Result<(), (usize, Failed)>;

/// Why it did not handle it. The reasons are as long as it likes.
pub(crate) enum Failed {
    Retry {
        reason: String,
        after: Option<Duration>,
    },
    Reject {
        reason: String,
    },
}

impl Failed {
    /// Of worlds whose errors say nothing more.
    fn again(reason: String) -> Failed {
        Failed::Retry {
            reason,
            after: None,
        }
    }
}

impl Guest {
    /// An error is a trap, or an answer that makes no sense. Whoever calls watches the time.
    pub(crate) async fn call(
        &self,
        store: &mut Store<State>,
        first: &Message,
        rest: &[Message],
    ) -> wasmtime::Result<Answers> {
        let answer = match self {
            Guest::Batch(guest) => return guest.call(store, first, rest).await,
            _ if !rest.is_empty() => {
                let why = "several messages for a handler that takes one: this is a bug, please report it";
                return Err(wasmtime::Error::msg(why));
            }
            Guest::Handler(guest) => guest.call(store, first).await,
            Guest::WasiMessaging(guest) => guest.call(store, first).await,
            Guest::SpinRedis(guest) => guest.call(store, first).await,
            Guest::WasmCloud(guest) => guest.call(store, first).await,
        };
        Ok(answer?.map_err(|failed| (0, failed)))
    }
}
