//! Spin's Redis trigger, as components of its SDKs up to 5 export it, with two of Spin's interfaces that
//! are like something here: its key-value store is the state, its variables are the configuration. See
//! `wit/foreign/spin.wit`. A handler of this world gets the payload and nothing else.

use segmenter_core::message::Message;
use wasmtime::Store;
use wasmtime::component::{HasSelf, InstancePre, Linker, Resource};

use super::{Answer, Failed};
use crate::bindings::segmenter::handler::state::StateError;
use crate::capabilities::keyvalue::error_text;
use crate::capabilities::{CONFIG, Import, STATE, absent, granted};
use crate::grants::Grants;
use crate::instance::State;
use bindings::fermyon::spin::redis_types;
use bindings::fermyon::spin2_0_0::key_value::{self, HostStore};
use bindings::fermyon::spin2_0_0::variables;
use bindings::{Calls, CallsPre};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../../wit/foreign/spin.wit",
        inline: "
            package segmenter:host;
            world calls {
                import fermyon:spin/key-value@2.0.0;
                import fermyon:spin/variables@2.0.0;
                export fermyon:spin/inbound-redis;
            }
        ",
        world: "segmenter:host/calls",
        imports: { "fermyon:spin/key-value@2.0.0": async | trappable },
        exports: { default: async },
        ownership: Borrowing { duplicate_if_necessary: true },
        with: { "fermyon:spin/key-value@2.0.0.store": super::KeyValueStore },
    });
}

pub(super) const EXPORT: &str = "fermyon:spin/inbound-redis";

const ELSEWHERE: &str = "is of Spin and not here; of Spin's interfaces this host has \
    fermyon:spin/key-value@2.0.0 and fermyon:spin/variables@2.0.0";

pub(super) static IMPORTS: [Import; 4] = [
    granted("fermyon:spin/key-value", Some("2.0.0"), &STATE),
    granted("fermyon:spin/variables", Some("2.0.0"), &CONFIG),
    absent("fermyon:spin/", ELSEWHERE),
    absent("spin:", ELSEWHERE),
];

pub(super) fn link(linker: &mut Linker<State>, grants: &Grants) -> wasmtime::Result<()> {
    type Has = HasSelf<State>;
    if STATE.is_given(grants) {
        key_value::add_to_linker::<_, Has>(linker, |state| state)?;
    }
    if CONFIG.is_given(grants) {
        variables::add_to_linker::<_, Has>(linker, |state| state)?;
    }
    Ok(())
}

pub(crate) struct Pre(CallsPre<State>);

pub(crate) struct Guest(Calls);

impl Pre {
    pub(super) fn new(linked: InstancePre<State>) -> wasmtime::Result<Pre> {
        CallsPre::new(linked).map(Pre)
    }

    pub(super) async fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<Guest> {
        self.0.instantiate_async(store).await.map(Guest)
    }
}

impl Guest {
    pub(super) async fn call(
        &self,
        store: &mut Store<State>,
        message: &Message,
    ) -> wasmtime::Result<Answer> {
        let handler = self.0.fermyon_spin_inbound_redis();
        let payload = message.content.payload();
        let answer = handler.call_handle_message(&mut *store, payload).await?;
        Ok(answer.map_err(|error| {
            let (redis_types::Error::Success | redis_types::Error::Error) = error;
            // It has no words. Spin's SDKs write them to stderr.
            let said = store.data().output.stderr_tail();
            Failed::again(match said.as_str() {
                "" => "it answered with an error".to_owned(),
                said => format!("it answered with an error; stderr: {said}"),
            })
        }))
    }
}

/// The one store; a handle to it holds nothing.
#[expect(unreachable_pub, reason = "the bindings re-export it")]
pub struct KeyValueStore;

type Handle = Resource<KeyValueStore>;
type Kept<T> = wasmtime::Result<Result<T, key_value::Error>>;

/// An error of state as this interface tells it.
fn told<T>(answer: wasmtime::Result<Result<T, StateError>>) -> Kept<T> {
    Ok(answer?.map_err(|error| key_value::Error::Other(error_text(error))))
}

impl redis_types::Host for State {}

impl key_value::Host for State {}

impl HostStore for State {
    async fn open(&mut self, label: String) -> Kept<Handle> {
        if label != "default" {
            return Ok(Err(key_value::Error::NoSuchStore));
        }
        Ok(Ok(self.table.push(KeyValueStore)?))
    }

    async fn get(&mut self, _: Handle, key: String) -> Kept<Option<Vec<u8>>> {
        let get = self.read(|draft, state| draft.get(state, &key).map(<[u8]>::to_vec));
        told(get.await)
    }

    async fn set(&mut self, _: Handle, key: String, value: Vec<u8>) -> Kept<()> {
        let set = self.change(|draft, state, limits| draft.set(state, limits, &key, value));
        told(set.await)
    }

    async fn delete(&mut self, _: Handle, key: String) -> Kept<()> {
        let delete = self.change(|draft, state, _| {
            draft.delete(state, &key);
            Ok(())
        });
        told(delete.await)
    }

    async fn exists(&mut self, _: Handle, key: String) -> Kept<bool> {
        let exists = self.read(|draft, state| draft.get(state, &key).is_some());
        told(exists.await)
    }

    async fn get_keys(&mut self, _: Handle) -> Kept<Vec<String>> {
        let keys = self.read(|draft, state| draft.names(state, None, usize::MAX));
        told(keys.await)
    }

    async fn drop(&mut self, store: Handle) -> wasmtime::Result<()> {
        self.table.delete(store)?;
        Ok(())
    }
}

impl variables::Host for State {
    fn get(&mut self, name: String) -> Result<String, variables::Error> {
        let values = self.grants.config.as_ref();
        let value = values.and_then(|values| values.get(&name).cloned());
        value.ok_or_else(|| {
            variables::Error::Undefined("write it into `config` under [handler.grants]".to_owned())
        })
    }
}
