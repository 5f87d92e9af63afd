//! `segmenter:handler/handler`: our own contract. Arguments are lowered from borrowed data: a call copies
//! key and payload once, into the guest.

use std::time::Duration;

use segmenter_core::message::Message;
use wasmtime::Store;
use wasmtime::component::InstancePre;

use super::{Answer, Failed};
use crate::instance::State;
use bindings::segmenter::handler::types::{EntryId, Failure, Message as WitMessage};
use bindings::{Calls, CallsPre};

pub(super) mod bindings {
    wasmtime::component::bindgen!({
        path: "../../../wit",
        inline: "
            package segmenter:host;
            world calls { export segmenter:handler/handler@0.1.0; }
        ",
        world: "segmenter:host/calls",
        exports: { default: async },
        ownership: Borrowing { duplicate_if_necessary: true },
    });
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
        let attributes = attributes_of(message);
        let handler = self.0.segmenter_handler_handler();
        let argument = borrowed(message, &attributes);
        let answer = handler.call_handle(store, argument).await?;
        Ok(answer.map_err(failed))
    }
}

pub(super) fn attributes_of(message: &Message) -> Vec<(&str, &str)> {
    let all = message.content.attributes().iter();
    all.map(|(n, v)| (n.as_str(), v.as_str())).collect()
}

/// As the contract has it, without a copy.
pub(super) fn borrowed<'a>(message: &'a Message, attributes: &'a [(&str, &str)]) -> WitMessage<'a> {
    WitMessage {
        id: EntryId {
            ms: message.id.ms,
            seq: message.id.seq,
        },
        partition: message.partition.0,
        attempt: message.attempt,
        key: message.content.key(),
        payload: message.content.payload(),
        attributes,
    }
}

pub(super) fn failed(failure: Failure) -> Failed {
    match failure {
        Failure::Retry(info) => Failed::Retry {
            reason: info.reason,
            after: info.after_ms.map(|ms| Duration::from_millis(u64::from(ms))),
        },
        Failure::Reject(reason) => Failed::Reject { reason },
    }
}
