//! What only a real server can show of the Redis adapter (`SEGMENTER_TEST_SERVER`).

mod connect;
mod denied;
mod operator;
mod reader;
mod register;
mod scripts;
mod source;

use segmenter_redis::{Address, Broker, ConnectError};
use segmenter_tests::conformance::RealSubject;
use std::time::Duration;

pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) fn connect(real: &RealSubject, url: &str) -> Result<Broker, ConnectError> {
    let address = Address::new(url, None).expect("a URL");
    real.runtime.block_on(Broker::connect(&address))
}
