//! What all instances of one partition share while its lease lasts: where they run, and the state. Knows
//! when state is loaded and when it changes; must not know where it is kept.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use segmenter_core::effects::{Effects, State};

use crate::module::PartitionContext;
use crate::output::LogSink;

/// Where a partition's state is read from when it is not in memory yet.
pub trait StateSource: Send + Sync + 'static {
    /// All of it. The error is a text for the guest.
    fn load(&self) -> Pin<Box<dyn Future<Output = Result<State, String>> + Send + '_>>;
}

/// Survives a trap of an instance, but not the lease epoch. Cheap to clone.
#[derive(Clone)]
pub struct Tenure {
    inner: Arc<Inner>,
    /// Whoever has it sees the tenure and changes nothing.
    shadow: bool,
}

struct Inner {
    context: PartitionContext,
    sink: Arc<dyn LogSink>,
    source: Arc<dyn StateSource>,
    /// As of the last call that ended well; none: no call has asked for it.
    state: Mutex<Option<State>>,
}

impl Tenure {
    pub(crate) fn new(
        context: PartitionContext,
        sink: Arc<dyn LogSink>,
        source: Arc<dyn StateSource>,
    ) -> Tenure {
        let inner = Arc::new(Inner {
            context,
            sink,
            source,
            state: Mutex::default(),
        });
        Tenure {
            inner,
            shadow: false,
        }
    }

    /// The same one, for an instance whose calls leave no trace.
    pub(crate) fn for_shadow(&self) -> Tenure {
        Tenure {
            inner: self.inner.clone(),
            shadow: true,
        }
    }

    pub(crate) fn is_shadow(&self) -> bool {
        self.shadow
    }

    pub(crate) fn context(&self) -> &PartitionContext {
        &self.inner.context
    }

    pub(crate) fn sink(&self) -> Arc<dyn LogSink> {
        self.inner.sink.clone()
    }

    fn state(&self) -> MutexGuard<'_, Option<State>> {
        // Nothing below leaves it half changed.
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the source, once: the owner is the only writer, so what was read stays right.
    pub(crate) async fn load(&self) -> Result<(), String> {
        if self.state().is_some() {
            return Ok(());
        }
        let loaded = self.inner.source.load().await?;
        // One partition has one call at a time, so nobody was faster.
        self.state().get_or_insert(loaded);
        Ok(())
    }

    /// Only after [`Tenure::load`].
    pub(crate) fn with<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(self.state().as_ref().expect("it was loaded"))
    }

    /// What a call changed that ended well; of a shadow's, nothing.
    pub(crate) fn apply(&self, effects: &Effects) {
        if self.shadow || effects.state.is_empty() {
            return;
        }
        let mut state = self.state();
        state
            .as_mut()
            .expect("a change loads first")
            .apply(&effects.state);
    }
}
