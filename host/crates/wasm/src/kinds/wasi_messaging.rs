//! `wasi:messaging/incoming-handler` with its producer, as in `wit/foreign/wasi-messaging.wit`. What of a
//! message this world has no word for is in its metadata: key, id, partition, attempt. Messages are the
//! host's there and the guest holds handles: they live as long as the call, and take no more than it may
//! emit beside the message that came.

use std::collections::BTreeMap;

use segmenter_core::message;
use wasmtime::Store;
use wasmtime::component::{HasSelf, InstancePre, Linker, Resource};

use super::foreign::NotPublished;
use super::{Answer, Failed};
use crate::capabilities::{EMIT, Import, absent, always, granted};
use crate::grants::Grants;
use crate::instance::State;
use bindings::wasi::messaging::producer;
use bindings::wasi::messaging::types::{self, Error, HostClient, HostMessage};
use bindings::{Calls, CallsPre};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../../wit/foreign/wasi-messaging.wit",
        inline: "
            package segmenter:host;
            world calls {
                import wasi:messaging/producer@0.2.0-draft;
                export wasi:messaging/incoming-handler@0.2.0-draft;
            }
        ",
        world: "segmenter:host/calls",
        imports: { default: trappable },
        exports: { default: async },
        with: {
            "wasi:messaging/types.client": super::Client,
            "wasi:messaging/types.message": super::Message,
        },
    });
}

pub(super) const EXPORT: &str = "wasi:messaging/incoming-handler@0.2.0-draft";

pub(super) static IMPORTS: [Import; 3] = [
    always("wasi:messaging/types", Some("0.2.0-draft")),
    granted("wasi:messaging/producer", Some("0.2.0-draft"), &EMIT),
    absent(
        "wasi:messaging/request-reply",
        "asks for answers, and nobody answers to a message here; publish with wasi:messaging/producer",
    ),
];

/// Metadata of a message that came. A message that is sent has the first as its key; the others say
/// something of the one that came, and go no further.
const KEY: &str = "segmenter-key";
const ID: &str = "segmenter-id";
const PARTITION: &str = "segmenter-partition";
const ATTEMPT: &str = "segmenter-attempt";
/// The attribute that is a message's content type.
const CONTENT_TYPE: &str = "content-type";

/// What an entry of metadata takes beside its text, in bytes.
const ENTRY_BYTES: usize = 48;
/// Handles to messages that a guest may have.
const HANDLES_MAX: usize = 10_000;
/// Handles that a guest may have left after a call: with more, what they take is given back with the
/// instance, between two messages.
const HANDLES_LEFT_MAX: usize = 5_000;

pub(super) fn link(linker: &mut Linker<State>, grants: &Grants) -> wasmtime::Result<()> {
    type Has = HasSelf<State>;
    types::add_to_linker::<_, Has>(linker, |state| state)?;
    if EMIT.is_given(grants) {
        producer::add_to_linker::<_, Has>(linker, |state| state)?;
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
        message: &message::Message,
    ) -> wasmtime::Result<Answer> {
        let state = store.data_mut();
        state.foreign.begin(message);
        let came = Message::came(message, state.context.stream.as_str());
        let messages = &mut state.foreign.messages;
        messages.begin(state.limits.effects.emit_bytes + came.bytes());
        let handle = messages.put(came)?;
        let handler = self.0.wasi_messaging_incoming_handler();
        let answer = handler.call_handle(&mut *store, handle).await?;
        store.data_mut().foreign.messages.end();
        Ok(answer.map_err(|error| {
            Failed::again(match error {
                Error::Timeout => "timeout".to_owned(),
                Error::Connection(why) => format!("connection: {why}"),
                Error::PermissionDenied(why) => format!("permission denied: {why}"),
                Error::Other(why) => why,
            })
        }))
    }
}

/// A handle to it holds nothing: there is one broker.
#[expect(unreachable_pub, reason = "the bindings re-export it")]
pub struct Client;

/// As the guest sees it.
#[expect(unreachable_pub, reason = "the bindings re-export it")]
#[derive(Default)]
pub struct Message {
    topic: Option<String>,
    content_type: Option<String>,
    data: Vec<u8>,
    metadata: Option<Vec<(String, String)>>,
}

impl Message {
    fn came(message: &message::Message, stream: &str) -> Message {
        let content = &message.content;
        let ours = [
            (KEY, content.key().to_owned()),
            (ID, message.id.to_string()),
            (PARTITION, message.partition.to_string()),
            (ATTEMPT, message.attempt.to_string()),
        ];
        let mut content_type = None;
        let mut metadata = Vec::with_capacity(content.attributes().len() + ours.len());
        for (name, value) in content.attributes() {
            if name == CONTENT_TYPE {
                content_type = Some(value.clone());
            } else if !ours.iter().any(|(our, _)| our == name) {
                metadata.push((name.clone(), value.clone()));
            }
        }
        metadata.extend(ours.map(|(name, value)| (name.to_owned(), value)));
        Message {
            topic: Some(stream.to_owned()),
            content_type,
            data: content.payload().to_vec(),
            metadata: Some(metadata),
        }
    }

    /// Key, if it names one, payload and attributes.
    fn into_content(self) -> (Option<String>, Vec<u8>, Vec<(String, String)>) {
        let mut key = None;
        let mut attributes = Vec::new();
        let typed = self.content_type.is_some();
        attributes.extend(self.content_type.map(|it| (CONTENT_TYPE.to_owned(), it)));
        for (name, value) in self.metadata.unwrap_or_default() {
            match name.as_str() {
                KEY => key = Some(value),
                ID | PARTITION | ATTEMPT => {}
                CONTENT_TYPE if typed => {}
                _ => attributes.push((name, value)),
            }
        }
        (key, self.data, attributes)
    }

    fn bytes(&self) -> usize {
        let texts = [&self.topic, &self.content_type];
        let texts = texts.into_iter().flatten().map(String::len);
        let metadata = self.metadata.iter().flatten();
        let metadata = metadata.map(|(name, value)| name.len() + value.len() + ENTRY_BYTES);
        self.data.len() + texts.sum::<usize>() + metadata.sum::<usize>()
    }
}

/// The messages that a guest has handles to. A number is not given again, so that a handle of an earlier
/// call, which a garbage collector may drop at any time, never means another message.
#[derive(Default)]
pub(super) struct Messages {
    held: BTreeMap<u32, Message>,
    next: u32,
    bytes: usize,
    bytes_max: usize,
    /// Not dropped yet, also those of earlier calls.
    handles: usize,
}

impl Messages {
    fn begin(&mut self, bytes_max: usize) {
        self.end();
        self.bytes_max = bytes_max;
    }

    fn end(&mut self) {
        self.held.clear();
        self.bytes = 0;
    }

    pub(super) fn is_littered(&self) -> bool {
        self.handles > HANDLES_LEFT_MAX
    }

    fn count(&mut self, before: usize, after: usize) -> wasmtime::Result<()> {
        self.bytes = self.bytes - before + after;
        if self.bytes > self.bytes_max {
            return Err(wasmtime::Error::msg(format!(
                "the messages of this call take more than {} bytes (emit_bytes, and the message that came)",
                self.bytes_max
            )));
        }
        Ok(())
    }

    fn put(&mut self, message: Message) -> wasmtime::Result<Resource<Message>> {
        if self.handles >= HANDLES_MAX {
            return Err(wasmtime::Error::msg(format!(
                "it has handles to {HANDLES_MAX} messages and wants one more; drop those that are done"
            )));
        }
        self.count(0, message.bytes())?;
        let number = self.next;
        self.next = number.wrapping_add(1);
        self.handles += 1;
        self.held.insert(number, message);
        Ok(Resource::new_own(number))
    }

    fn get(&self, handle: &Resource<Message>) -> wasmtime::Result<&Message> {
        self.held.get(&handle.rep()).ok_or_else(gone)
    }

    fn change(
        &mut self,
        handle: &Resource<Message>,
        change: impl FnOnce(&mut Message),
    ) -> wasmtime::Result<()> {
        let message = self.held.get_mut(&handle.rep()).ok_or_else(gone)?;
        let before = message.bytes();
        change(message);
        let after = message.bytes();
        self.count(before, after)
    }

    /// The guest has the handle no more.
    fn take(&mut self, handle: &Resource<Message>) -> Option<Message> {
        self.handles = self.handles.saturating_sub(1);
        let message = self.held.remove(&handle.rep())?;
        self.bytes -= message.bytes();
        Some(message)
    }
}

fn gone() -> wasmtime::Error {
    wasmtime::Error::msg("a message was used after the call that it belonged to")
}

impl types::Host for State {}

impl HostClient for State {
    fn connect(&mut self, _: String) -> wasmtime::Result<Result<Resource<Client>, Error>> {
        Ok(Ok(self.table.push(Client)?))
    }

    fn disconnect(&mut self, _: Resource<Client>) -> wasmtime::Result<Result<(), Error>> {
        Ok(Ok(()))
    }

    fn drop(&mut self, client: Resource<Client>) -> wasmtime::Result<()> {
        self.table.delete(client)?;
        Ok(())
    }
}

impl HostMessage for State {
    fn new(&mut self, data: Vec<u8>) -> wasmtime::Result<Resource<Message>> {
        let message = Message {
            data,
            ..Message::default()
        };
        self.foreign.messages.put(message)
    }

    fn topic(&mut self, it: Resource<Message>) -> wasmtime::Result<Option<String>> {
        Ok(self.foreign.messages.get(&it)?.topic.clone())
    }

    fn content_type(&mut self, it: Resource<Message>) -> wasmtime::Result<Option<String>> {
        Ok(self.foreign.messages.get(&it)?.content_type.clone())
    }

    fn set_content_type(&mut self, it: Resource<Message>, to: String) -> wasmtime::Result<()> {
        let messages = &mut self.foreign.messages;
        messages.change(&it, |message| message.content_type = Some(to))
    }

    fn data(&mut self, it: Resource<Message>) -> wasmtime::Result<Vec<u8>> {
        Ok(self.foreign.messages.get(&it)?.data.clone())
    }

    fn set_data(&mut self, it: Resource<Message>, to: Vec<u8>) -> wasmtime::Result<()> {
        let messages = &mut self.foreign.messages;
        messages.change(&it, |message| message.data = to)
    }

    fn metadata(
        &mut self,
        it: Resource<Message>,
    ) -> wasmtime::Result<Option<Vec<(String, String)>>> {
        Ok(self.foreign.messages.get(&it)?.metadata.clone())
    }

    fn add_metadata(
        &mut self,
        it: Resource<Message>,
        name: String,
        value: String,
    ) -> wasmtime::Result<()> {
        self.foreign.messages.change(&it, |message| {
            let metadata = message.metadata.get_or_insert_default();
            match metadata.iter_mut().find(|(known, _)| *known == name) {
                Some((_, old)) => *old = value,
                None => metadata.push((name, value)),
            }
        })
    }

    fn set_metadata(
        &mut self,
        it: Resource<Message>,
        to: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        let messages = &mut self.foreign.messages;
        messages.change(&it, |message| message.metadata = Some(to))
    }

    fn remove_metadata(&mut self, it: Resource<Message>, name: String) -> wasmtime::Result<()> {
        self.foreign.messages.change(&it, |message| {
            if let Some(metadata) = &mut message.metadata {
                metadata.retain(|(known, _)| *known != name);
            }
        })
    }

    fn drop(&mut self, it: Resource<Message>) -> wasmtime::Result<()> {
        self.foreign.messages.take(&it);
        Ok(())
    }
}

impl producer::Host for State {
    fn send(
        &mut self,
        _: Resource<Client>,
        topic: String,
        message: Resource<Message>,
    ) -> wasmtime::Result<Result<(), Error>> {
        let message = self.foreign.messages.take(&message).ok_or_else(gone)?;
        let (key, payload, attributes) = message.into_content();
        let published = self.publish(&topic, key, payload, attributes)?;
        Ok(published.map_err(|error| match error {
            NotPublished::NotGranted(why) => Error::PermissionDenied(why),
            NotPublished::Other(why) => Error::Other(why),
        }))
    }
}
