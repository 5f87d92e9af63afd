//! `segmenter:handler/emit`: messages to the granted streams, collected in the call's draft. Must not know
//! how they travel.

use segmenter_core::effects;
use segmenter_core::limits;
use segmenter_core::message::{Content, MessageError};
use segmenter_core::names::StreamName;

use crate::bindings::segmenter::handler::emit::{EmitError, Host};
use crate::instance::State;

impl Host for State {
    fn send(
        &mut self,
        to: String,
        key: String,
        payload: Vec<u8>,
        attributes: Vec<(String, String)>,
    ) -> wasmtime::Result<Result<(), EmitError>> {
        let Some(draft) = &mut self.draft else {
            return Err(wasmtime::Error::msg(
                "a message was emitted outside of a call of `handle`, where no ack commits it",
            ));
        };
        let granted = |to: &StreamName| self.grants.emit.contains(to);
        let Some(to) = to.parse::<StreamName>().ok().filter(granted) else {
            return Ok(Err(EmitError::NotGranted));
        };
        let payload_max = self.targets.get(&to);
        let payload_max = payload_max.copied().unwrap_or(self.limits.payload_bytes);
        let content = match Content::new(key, payload, attributes, payload_max) {
            Ok(content) => content,
            Err(error) => {
                return match too_large(&error) {
                    Some(max) => Ok(Err(EmitError::TooLarge(max as u64))),
                    None => Err(wasmtime::Error::msg(format!(
                        "a message was emitted to {to} that no stream can take: {error}"
                    ))),
                };
            }
        };
        let emitted = draft.emit(&self.limits.effects, to, content);
        Ok(emitted.map_err(|error| match error {
            effects::EmitError::TooLarge(bytes) => EmitError::TooLarge(bytes),
            effects::EmitError::TooMany(most) => EmitError::TooMany(most),
        }))
    }
}

/// What a part of a message may have in bytes, if it has more. The rest are mistakes in the guest's code.
fn too_large(error: &MessageError) -> Option<usize> {
    match error {
        MessageError::KeyTooLong(_) => Some(limits::KEY_BYTES_MAX),
        MessageError::PayloadTooLarge { max, .. } => Some(*max),
        MessageError::AttributeNameTooLong(_) => Some(limits::ATTRIBUTE_NAME_BYTES_MAX),
        MessageError::AttributeValueTooLong { .. } => Some(limits::ATTRIBUTE_VALUE_BYTES_MAX),
        MessageError::KeyNotUtf8 { .. }
        | MessageError::TooManyAttributes(_)
        | MessageError::AttributeNameEmpty
        | MessageError::AttributeTwice(_)
        | MessageError::AttributeNotUtf8(_) => None,
    }
}
