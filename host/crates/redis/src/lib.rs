//! Redis for Segmenter: executes the core's port, reads entries, answers questions of people. Knows keys,
//! scripts and connections; must not know handlers or Wasm, and never decides to try again.

mod acl;
mod address;
pub mod admin;
mod broker;
mod convert;
mod coordinate;
mod deploy;
pub mod doctor;
mod error;
mod execute;
#[doc(hidden)]
pub mod fuzz;
pub mod handlers;
mod key;
mod news;
mod operate;
mod outbox;
mod place;
mod reader;
mod script;

pub use acl::{ACL_RULES, acl_setuser};
pub use address::{Address, AddressError};
pub use broker::{Broker, ServerInfo};
pub use deploy::version_of;
pub use error::ConnectError;
pub use key::Key;
pub use news::{HandlerNews, Subscription};
pub use operate::{GroupDeleted, delete_group, server_time_ms};
pub use place::{Place, Placed};
pub use reader::{Delivery, Reader, largest};
