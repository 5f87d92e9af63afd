//! `wasi:config/store`: the granted values, constant for the life of an instance.

use crate::bindings::wasi::config::store::{Error, Host};
use crate::instance::State;

impl Host for State {
    fn get(&mut self, key: String) -> Result<Option<String>, Error> {
        let values = self.grants.config.as_ref();
        Ok(values.and_then(|values| values.get(&key).cloned()))
    }

    fn get_all(&mut self) -> Result<Vec<(String, String)>, Error> {
        let values = self.grants.config.iter().flatten();
        Ok(values.map(|(k, v)| (k.clone(), v.clone())).collect())
    }
}
