//! Keeps the totals of each customer: how many orders, and what they cost together. A message is an order,
//! its key the customer, its payload one line `QUANTITY ITEM CENTS` for each item.

mod order;

wit_bindgen::generate!({ path: "wit", world: "project:handler/guest", generate_all });

use exports::segmenter::handler::handler::{Failure, Guest, Message};
use segmenter::handler::state::{self, StateError};
use segmenter::handler::types::RetryInfo;
use wasi::logging::logging::{Level, log};

use order::{BadOrder, Order};

struct Handler;

impl Guest for Handler {
    fn handle(message: Message) -> Result<(), Failure> {
        let customer = &message.key;
        let order = Order::parse(&message.payload)?;
        // Both are committed together with the ack: a message that comes again after a crash counts once.
        let orders = state::increment(&format!("orders {customer}"), 1)?;
        let cents = state::increment(&format!("cents {customer}"), order.cents)?;
        log(Level::Info, "", &format!("customer={customer} orders={orders} cents={cents}"));
        Ok(())
    }
}

/// An order that is wrong stays wrong: a dead letter, now.
impl From<BadOrder> for Failure {
    fn from(bad: BadOrder) -> Failure {
        Failure::Reject(bad.to_string())
    }
}

/// State that is away comes back: the same message again, later. The rest are limits, which stay.
impl From<StateError> for Failure {
    fn from(error: StateError) -> Failure {
        match error {
            StateError::Unavailable(why) => Failure::Retry(RetryInfo {
                reason: format!("state is away: {why}"),
                after_ms: None,
            }),
            other => Failure::Reject(format!("state does not take it: {other:?}")),
        }
    }
}

export!(Handler);
