//! `wasmcloud:messaging/handler` with its consumer, as in `wit/foreign/wasmcloud-messaging.wit`. A message
//! is a subject, a body and whom to answer there, as in NATS: the key follows the stream in the subject.

use segmenter_core::message::{Content, Message};
use segmenter_core::names::StreamName;
use wasmtime::Store;
use wasmtime::component::{HasSelf, InstancePre, Linker};

use super::foreign::{NotPublished, not_granted};
use super::{Answer, Failed};
use crate::capabilities::{EMIT, Import, granted};
use crate::grants::Grants;
use crate::instance::State;
use bindings::wasmcloud::messaging::consumer;
use bindings::wasmcloud::messaging::types::{self, BrokerMessage};
use bindings::{Calls, CallsPre};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../../wit/foreign/wasmcloud-messaging.wit",
        inline: "
            package segmenter:host;
            world calls {
                import wasmcloud:messaging/consumer@0.2.0;
                export wasmcloud:messaging/handler@0.2.0;
            }
        ",
        world: "segmenter:host/calls",
        imports: { default: trappable },
        exports: { default: async },
    });
}

pub(super) const EXPORT: &str = "wasmcloud:messaging/handler@0.2.";

pub(super) static IMPORTS: [Import; 1] = [granted("wasmcloud:messaging/consumer", None, &EMIT)];

/// The attribute that says whom to answer.
const REPLY_TO: &str = "reply-to";

const NO_ANSWERS: &str = "nobody answers to a message here: what is published is handled after this \
    call; publish, and handle what comes of it with a handler of its own";

pub(super) fn link(linker: &mut Linker<State>, grants: &Grants) -> wasmtime::Result<()> {
    if EMIT.is_given(grants) {
        consumer::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
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
        let state = store.data_mut();
        state.foreign.begin(message);
        let argument = came(&message.content, &state.context.stream);
        let handler = self.0.wasmcloud_messaging_handler();
        let answer = handler.call_handle_message(store, &argument).await?;
        Ok(answer.map_err(Failed::again))
    }
}

fn came(content: &Content, stream: &StreamName) -> BrokerMessage {
    let subject = match content.key() {
        "" => stream.to_string(),
        key => format!("{stream}.{key}"),
    };
    let mut attributes = content.attributes().iter();
    let reply_to = attributes.find(|(name, _)| name == REPLY_TO);
    BrokerMessage {
        subject,
        body: content.payload().to_vec(),
        reply_to: reply_to.map(|(_, value)| value.clone()),
    }
}

/// The stream that a subject is for, and the key. Names of streams may have dots: of those that fit the
/// longest is meant.
fn target<'a>(
    granted: impl Iterator<Item = &'a StreamName>,
    subject: &str,
) -> Option<(&'a str, Option<String>)> {
    let fits = granted.filter_map(|stream| {
        let stream = stream.as_str();
        let rest = subject.strip_prefix(stream)?;
        match rest.strip_prefix('.') {
            Some(key) => Some((stream, Some(key.to_owned()))),
            None => rest.is_empty().then_some((stream, None)),
        }
    });
    fits.max_by_key(|(stream, _)| stream.len())
}

impl types::Host for State {}

impl consumer::Host for State {
    fn request(
        &mut self,
        _: String,
        _: Vec<u8>,
        _: u32,
    ) -> wasmtime::Result<Result<BrokerMessage, String>> {
        Ok(Err(NO_ANSWERS.to_owned()))
    }

    fn publish(&mut self, message: BrokerMessage) -> wasmtime::Result<Result<(), String>> {
        let grants = self.grants.clone();
        let BrokerMessage {
            subject,
            body,
            reply_to,
        } = message;
        let Some((stream, key)) = target(grants.emit.iter(), &subject) else {
            return Ok(Err(not_granted(&subject)));
        };
        let attributes = reply_to.map(|to| (REPLY_TO.to_owned(), to));
        let attributes = attributes.into_iter().collect();
        let published = State::publish(self, stream, key, body, attributes)?;
        Ok(published.map_err(NotPublished::into_text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_names_the_longest_stream_that_it_begins_with_and_a_key() {
        let granted = ["a", "a.b", "ab"].map(|name| name.parse::<StreamName>().unwrap());
        for (subject, expected) in [
            ("a", Some(("a", None))),
            ("a.b", Some(("a.b", None))),
            ("a.b.c.d", Some(("a.b", Some("c.d")))),
            ("a.bc", Some(("a", Some("bc")))),
            ("ab.", Some(("ab", Some("")))),
            ("abc", None),
            (".a", None),
            ("", None),
        ] {
            let found = target(granted.iter(), subject);
            let found = found.as_ref().map(|(to, key)| (*to, key.as_deref()));
            assert_eq!(found, expected, "{subject:?}");
        }
    }
}
