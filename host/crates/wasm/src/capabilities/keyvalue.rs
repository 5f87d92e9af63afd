//! `wasi:keyvalue` (store, atomics, batch): the same state as `segmenter:handler/state`, under the same
//! names, for guests that were written for the standard interface.

use segmenter_core::effects;
use wasmtime::component::Resource;

use crate::bindings::segmenter::handler::state::StateError;
use crate::bindings::wasi::keyvalue::atomics;
use crate::bindings::wasi::keyvalue::batch;
use crate::bindings::wasi::keyvalue::store::{Error, Host, HostBucket, KeyResponse};
use crate::instance::State;

/// The one store; a handle to it holds nothing.
#[expect(unreachable_pub, reason = "the bindings re-export it")]
pub struct Bucket;

type Answer<T> = wasmtime::Result<Result<T, Error>>;
type Handle = Resource<Bucket>;

/// An error of state as this interface tells it.
fn told<T>(answer: wasmtime::Result<Result<T, StateError>>) -> Answer<T> {
    Ok(answer?.map_err(|error| Error::Other(error_text(error))))
}

/// For interfaces whose errors are words.
pub(crate) fn error_text(error: StateError) -> String {
    match error {
        StateError::TooLarge(bytes) => effects::StateError::TooLarge(bytes).to_string(),
        StateError::Full(bytes) => effects::StateError::Full(bytes).to_string(),
        StateError::NotANumber => effects::StateError::NotANumber.to_string(),
        StateError::Unavailable(why) => format!("the state cannot be read now: {why}"),
    }
}

impl Host for State {
    async fn open(&mut self, identifier: String) -> Answer<Handle> {
        // Both are common among guests.
        if !["", "default"].contains(&identifier.as_str()) {
            return Ok(Err(Error::NoSuchStore));
        }
        Ok(Ok(self.table.push(Bucket)?))
    }
}

impl HostBucket for State {
    async fn get(&mut self, _: Handle, key: String) -> Answer<Option<Vec<u8>>> {
        told(
            self.read(|draft, state| draft.get(state, &key).map(<[u8]>::to_vec))
                .await,
        )
    }

    async fn set(&mut self, _: Handle, key: String, value: Vec<u8>) -> Answer<()> {
        told(
            self.change(|draft, state, limits| draft.set(state, limits, &key, value))
                .await,
        )
    }

    async fn delete(&mut self, _: Handle, key: String) -> Answer<()> {
        told(
            self.change(|draft, state, _| {
                draft.delete(state, &key);
                Ok(())
            })
            .await,
        )
    }

    async fn exists(&mut self, _: Handle, key: String) -> Answer<bool> {
        told(
            self.read(|draft, state| draft.get(state, &key).is_some())
                .await,
        )
    }

    /// All at once: they are in memory, and a place in a list that changes would be a promise too much.
    async fn list_keys(&mut self, _: Handle, cursor: Option<u64>) -> Answer<KeyResponse> {
        if let Some(cursor) = cursor {
            let why = format!("cursor {cursor} was never given out: a list of keys is whole");
            return Ok(Err(Error::Other(why)));
        }
        let keys = self.read(|draft, state| draft.names(state, None, usize::MAX));
        told(keys.await).map(|keys| keys.map(|keys| KeyResponse { keys, cursor: None }))
    }

    async fn drop(&mut self, bucket: Handle) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for State {
    async fn increment(&mut self, _: Handle, key: String, delta: u64) -> Answer<u64> {
        let increment = self.change(|draft, state, limits| {
            let by = i64::try_from(delta).map_err(|_| effects::StateError::NotANumber)?;
            let new = draft.increment(state, limits, &key, by)?;
            // Below zero the sum is none of this interface's numbers, and nothing has changed.
            u64::try_from(new).or_else(|_| {
                draft.increment(state, limits, &key, -by)?;
                Err(effects::StateError::NotANumber)
            })
        });
        told(increment.await)
    }
}

impl batch::Host for State {
    async fn get_many(
        &mut self,
        _: Handle,
        keys: Vec<String>,
    ) -> Answer<Vec<Option<(String, Vec<u8>)>>> {
        let get = self.read(|draft, state| {
            let one = |key: String| {
                let value = draft.get(state, &key)?.to_vec();
                Some((key, value))
            };
            keys.into_iter().map(one).collect()
        });
        told(get.await)
    }

    async fn set_many(&mut self, _: Handle, pairs: Vec<(String, Vec<u8>)>) -> Answer<()> {
        let set = self.change(|draft, state, limits| {
            pairs
                .into_iter()
                .try_for_each(|(key, value)| draft.set(state, limits, &key, value))
        });
        told(set.await)
    }

    async fn delete_many(&mut self, _: Handle, keys: Vec<String>) -> Answer<()> {
        let delete = self.change(|draft, state, _| {
            for key in &keys {
                draft.delete(state, key);
            }
            Ok(())
        });
        told(delete.await)
    }
}
