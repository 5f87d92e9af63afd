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
        match self.emit(&to, key, payload, attributes)? {
            Ok(()) => Ok(Ok(())),
            Err(NotEmitted::NotGranted) => Ok(Err(EmitError::NotGranted)),
            Err(NotEmitted::TooLarge(bytes)) => Ok(Err(EmitError::TooLarge(bytes))),
            Err(NotEmitted::TooMany(most)) => Ok(Err(EmitError::TooMany(most))),
            Err(NotEmitted::Mistake(error)) => Err(wasmtime::Error::msg(format!(
                "a message was emitted to {to} that no stream can take: {error}"
            ))),
        }
    }
}

/// Why a message was not emitted.
pub(crate) enum NotEmitted {
    NotGranted,
    /// A part of it, or all that the call emits, exceeds this many bytes.
    TooLarge(u64),
    TooMany(u32),
    /// No stream can take such a message.
    Mistake(MessageError),
}

impl State {
    /// Traps outside of a call: no ack would ever commit it.
    pub(crate) fn emit(
        &mut self,
        to: &str,
        key: String,
        payload: Vec<u8>,
        attributes: Vec<(String, String)>,
    ) -> wasmtime::Result<Result<(), NotEmitted>> {
        let Some(draft) = &mut self.draft else {
            return Err(wasmtime::Error::msg(
                "a message was emitted outside of a call of `handle`, where no ack commits it",
            ));
        };
        let granted = |to: &StreamName| self.grants.emit.contains(to);
        let Some(to) = to.parse::<StreamName>().ok().filter(granted) else {
            return Ok(Err(NotEmitted::NotGranted));
        };
        let payload_max = self.targets.get(&to);
        let payload_max = payload_max.copied().unwrap_or(self.limits.payload_bytes);
        let content = match Content::new(key, payload, attributes, payload_max) {
            Ok(content) => content,
            Err(error) => {
                return Ok(Err(match too_large(&error) {
                    Some(max) => NotEmitted::TooLarge(max as u64),
                    None => NotEmitted::Mistake(error),
                }));
            }
        };
        let emitted = draft.emit(&self.limits.effects, to, content);
        Ok(emitted.map_err(|error| match error {
            effects::EmitError::TooLarge(bytes) => NotEmitted::TooLarge(bytes),
            effects::EmitError::TooMany(most) => NotEmitted::TooMany(most),
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
