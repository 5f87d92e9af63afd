//! What a component can be: one file per kind, recognised by what it exports. Here is what kinds have in
//! common: a linked component, a guest, and how a guest answers. A kind knows how a message becomes a call
//! of its world and what the answer means; it must not know deadlines, limits or what a failure leaves
//! behind: those are the instance's, once for all kinds.

mod handler;

use std::fmt;
use std::time::Duration;

use segmenter_core::message::Message;
use wasmtime::Store;
use wasmtime::component::{InstancePre, Linker};

use crate::capabilities::Import;
use crate::grants::Grants;
use crate::instance::State;

/// A world whose components are known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Our own contract, one message a call.
    Handler,
    /// Our own contract, several messages a call.
    Batch,
}

impl Kind {
    pub const ALL: [Kind; 2] = [Kind::Handler, Kind::Batch];

    /// The export that makes a component one of this kind. What ends with a dot is the beginning of a
    /// version, of which any will do; the others are matched exactly, as drafts must be.
    const fn pattern(self) -> &'static str {
        match self {
            Kind::Handler => "segmenter:handler/handler@0.1.",
            Kind::Batch => "segmenter:handler/batch@0.1.",
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

    /// What its world may import beyond what any component may.
    pub(crate) fn imports(self) -> &'static [Import] {
        match self {
            Kind::Handler | Kind::Batch => &[],
        }
    }

    /// Links [`Kind::imports`], as far as they are granted.
    pub(crate) fn link(self, _: &mut Linker<State>, _: &Grants) -> wasmtime::Result<()> {
        match self {
            Kind::Handler | Kind::Batch => Ok(()),
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
}

impl Pre {
    pub(crate) fn new(kind: Kind, linked: InstancePre<State>) -> wasmtime::Result<Pre> {
        match kind {
            Kind::Handler => handler::Pre::new(linked).map(Pre::Handler),
            Kind::Batch => Err(wasmtime::Error::msg("batches are not called yet")),
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Pre::Handler(_) => Kind::Handler,
        }
    }

    pub(crate) async fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<Guest> {
        match self {
            Pre::Handler(pre) => pre.instantiate(store).await.map(Guest::Handler),
        }
    }
}

/// A component that runs in a store, and how it is called. An enum and no trait object, so that a call
/// costs no allocation.
pub(crate) enum Guest {
    Handler(handler::Guest),
}

/// What a guest says of a message.
pub(crate) type Answer = Result<(), Failed>;

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

impl Guest {
    /// An error is a trap. Whoever calls watches the time.
    pub(crate) async fn call(
        &self,
        store: &mut Store<State>,
        message: &Message,
    ) -> wasmtime::Result<Answer> {
        match self {
            Guest::Handler(guest) => guest.call(store, message).await,
        }
    }
}
