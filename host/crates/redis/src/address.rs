//! Where a Redis is and how to get in. Never prints a password.

use std::fmt;

use redis::IntoConnectionInfo;
use redis::io::tcp::TcpSettings;

/// `redis://`, `rediss://`, `redis+unix://` or `unix://`, with a password from elsewhere if there is one.
#[derive(Clone)]
pub struct Address {
    client: redis::Client,
    shown: String,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "{shown:?} is no Redis URL: {why}; write redis://[USER:PASSWORD@]HOST:PORT, rediss://… for TLS, or redis+unix:///PATH"
)]
pub struct AddressError {
    shown: String,
    why: String,
}

impl Address {
    /// `password` wins over one in the URL.
    pub fn new(url: &str, password: Option<String>) -> Result<Address, AddressError> {
        let shown = without_password(url);
        let error = |e: redis::RedisError| AddressError {
            shown: shown.clone(),
            why: e.to_string(),
        };
        let info = url.into_connection_info().map_err(error)?;
        // Without it, small commands wait for the answers to earlier ones: half the throughput.
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let mut settings = info.redis_settings().clone();
        if let Some(password) = password {
            settings = settings.set_password(password);
        }
        let client = redis::Client::open(info.set_redis_settings(settings)).map_err(error)?;
        Ok(Address { client, shown })
    }

    pub(crate) fn client(&self) -> &redis::Client {
        &self.client
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.shown)
    }
}

/// The URL with `***` for the password. Everything up to the last @ counts, whatever it is.
fn without_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = match rest.rsplit_once('@') {
        Some((credentials, host)) => match credentials.split_once(':') {
            Some((user, _)) => format!("{user}:***@{host}"),
            None => format!("{credentials}@{host}"),
        },
        None => rest.to_owned(),
    };
    // redis+unix takes user and password as parameters.
    let rest = match rest.split_once("pass=") {
        Some((before, after)) => {
            let end = after.find('&').map_or("", |at| &after[at..]);
            format!("{before}pass=***{end}")
        }
        None => rest,
    };
    if scheme.is_empty() {
        rest
    } else {
        format!("{scheme}://{rest}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        for (url, shown) in [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("redis://:secret@h:1", "redis://:***@h:1"),
            ("redis://me:se@cret@h:1/2", "redis://me:***@h:1/2"),
            (
                "redis+unix:///tmp/s.sock?user=a&pass=secret&db=1",
                "redis+unix:///tmp/s.sock?user=a&pass=***&db=1",
            ),
        ] {
            assert_eq!(without_password(url), shown);
        }
        let error = Address::new("http://:secret@h", None)
            .unwrap_err()
            .to_string();
        assert!(
            !error.contains("secret") && error.contains("http://"),
            "{error}"
        );
        let address = Address::new("redis://:secret@h:1", None).unwrap();
        assert!(!format!("{address:?} {address}").contains("secret"));
    }
}
