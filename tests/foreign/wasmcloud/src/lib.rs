//! Publishes what it gets where the message wants its answer. Knows wasmCloud's interfaces and nothing of
//! the host that it runs on here.

wit_bindgen::generate!({
    path: "../../../wit/foreign/wasmcloud-messaging.wit",
    inline: "
        package foreign:wasmcloud;
        world component {
            export wasmcloud:messaging/handler@0.2.0;
        }
    ",
    world: "foreign:wasmcloud/component",
    with: { "wasmcloud:messaging/types@0.2.0": wasmcloud_component::wasmcloud::messaging::types },
    generate_all,
});

use exports::wasmcloud::messaging::handler::{BrokerMessage, Guest};
use wasmcloud_component::info;
use wasmcloud_component::wasmcloud::messaging::consumer;

struct Answers;

impl Guest for Answers {
    fn handle_message(message: BrokerMessage) -> Result<(), String> {
        info!("subject {}", message.subject);
        let Some(subject) = message.reply_to else {
            return Err("nobody wants an answer".to_owned());
        };
        let text = String::from_utf8(message.body).map_err(|error| error.to_string())?;
        consumer::publish(&BrokerMessage {
            subject,
            body: text.to_uppercase().into_bytes(),
            reply_to: None,
        })
    }
}

export!(Answers);
