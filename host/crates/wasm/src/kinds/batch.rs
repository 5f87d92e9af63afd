//! `segmenter:handler/batch`: our own contract, several messages a call. Which of the failures counts is the
//! core's to say. Without state and emit, whatever is granted.

use segmenter_core::batch::first_failed;
use segmenter_core::message::Message;
use wasmtime::Store;
use wasmtime::component::InstancePre;

use super::Answers;
use super::handler::bindings::segmenter::handler::types::Message as WitMessage;
use super::handler::{attributes_of, borrowed, failed};
use crate::capabilities::{Import, absent};
use crate::instance::State;
use bindings::{Calls, CallsPre};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../../wit",
        inline: "
            package segmenter:host;
            world calls { export segmenter:handler/batch@0.1.0; }
        ",
        world: "segmenter:host/calls",
        with: { "segmenter:handler/types": super::super::handler::bindings::segmenter::handler::types },
        exports: { default: async },
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

const NO_EFFECTS: &str = "a handler of batches cannot have, whatever is granted: effects commit with the ack of their call, and a batch may be acked in part; export segmenter:handler/handler to have state and emit";

pub(super) static IMPORTS: [Import; 3] = [
    absent("segmenter:handler/state", NO_EFFECTS),
    absent("segmenter:handler/emit", NO_EFFECTS),
    absent("wasi:keyvalue/", NO_EFFECTS),
];

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
    /// Also an answer that makes no sense is an error: a `BadAnswer`.
    pub(super) async fn call(
        &self,
        store: &mut Store<State>,
        first: &Message,
        rest: &[Message],
    ) -> wasmtime::Result<Answers> {
        let messages = || std::iter::once(first).chain(rest);
        let attributes: Vec<Vec<(&str, &str)>> = messages().map(attributes_of).collect();
        let arguments: Vec<WitMessage<'_>> = messages()
            .zip(&attributes)
            .map(|(message, attributes)| borrowed(message, attributes))
            .collect();
        let handler = self.0.segmenter_handler_batch();
        let answer = handler.call_handle(store, &arguments).await?;
        let answer = answer.into_iter().map(|said| (said.index, said.failure));
        match first_failed(arguments.len(), answer)? {
            None => Ok(Ok(())),
            Some((at, failure)) => Ok(Err((at, failed(failure)))),
        }
    }
}
