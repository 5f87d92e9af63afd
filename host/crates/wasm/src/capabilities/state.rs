//! `segmenter:handler/state`: what a handler remembers per partition. A call changes a draft, over the
//! state of the tenure; what becomes of the draft is decided at the end of the call.

use segmenter_core::effects::{self, Draft, EffectLimits};

use crate::bindings::segmenter::handler::state::{Host, StateError};
use crate::instance::State;

type Answer<T> = wasmtime::Result<Result<T, StateError>>;

impl Host for State {
    async fn get(&mut self, name: String) -> Answer<Option<Vec<u8>>> {
        self.read(|draft, state| draft.get(state, &name).map(<[u8]>::to_vec))
            .await
    }

    async fn set(&mut self, name: String, value: Vec<u8>) -> Answer<()> {
        self.change(|draft, state, limits| draft.set(state, limits, &name, value))
            .await
    }

    async fn delete(&mut self, name: String) -> Answer<bool> {
        self.change(|draft, state, _| Ok(draft.delete(state, &name)))
            .await
    }

    async fn increment(&mut self, name: String, by: i64) -> Answer<i64> {
        self.change(|draft, state, limits| draft.increment(state, limits, &name, by))
            .await
    }

    async fn names(&mut self, after: Option<String>, limit: u32) -> Answer<Vec<String>> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        self.read(|draft, state| draft.names(state, after.as_deref(), limit))
            .await
    }
}

impl State {
    pub(crate) async fn read<T>(
        &mut self,
        read: impl FnOnce(&Draft, &effects::State) -> T + Send,
    ) -> Answer<T> {
        if let Err(why) = self.tenure.load().await {
            return Ok(Err(StateError::Unavailable(why)));
        }
        // While an instance is made there is no call, and so no draft.
        let none = Draft::default();
        let draft = self.draft.as_ref().unwrap_or(&none);
        Ok(Ok(self.tenure.with(|state| read(draft, state))))
    }

    /// Traps outside of a call: no ack would ever commit it.
    pub(crate) async fn change<T>(
        &mut self,
        change: impl FnOnce(
            &mut Draft,
            &effects::State,
            &EffectLimits,
        ) -> Result<T, effects::StateError>
        + Send,
    ) -> Answer<T> {
        let Some(draft) = &mut self.draft else {
            return Err(wasmtime::Error::msg(
                "state was changed outside of a call of `handle`, where no ack commits it",
            ));
        };
        if let Err(why) = self.tenure.load().await {
            return Ok(Err(StateError::Unavailable(why)));
        }
        let limits = &self.limits.effects;
        let changed = self.tenure.with(|state| change(draft, state, limits));
        Ok(changed.map_err(|error| match error {
            effects::StateError::TooLarge(bytes) => StateError::TooLarge(bytes),
            effects::StateError::Full(bytes) => StateError::Full(bytes),
            effects::StateError::NotANumber => StateError::NotANumber,
        }))
    }
}
