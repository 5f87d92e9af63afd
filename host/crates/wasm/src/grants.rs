//! What a handler may touch beyond its message. Knows what can be granted and what an origin is; must not
//! know how grants are written down, nor how a capability works.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use http::uri::{Authority, Scheme, Uri};
use segmenter_core::names::StreamName;

/// What is not here does not exist for the guest. The default is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// Streams that it may emit to.
    pub emit: BTreeSet<StreamName>,
    pub state: bool,
    /// Where requests may go.
    pub http: BTreeSet<Origin>,
    pub files: Vec<Folder>,
    pub env: BTreeMap<String, String>,
    /// None: there is no wasi:config.
    pub config: Option<BTreeMap<String, String>>,
}

impl Grants {
    /// For questions about components: nothing is missing for want of a grant. Folders and variables are
    /// none, because without them nothing is missing either.
    pub fn everything() -> Grants {
        Grants {
            emit: ["any".parse().expect("a name")].into(),
            state: true,
            http: ["https://any".parse().expect("an origin")].into(),
            config: Some(BTreeMap::new()),
            ..Grants::default()
        }
    }
}

/// A folder of the host, and what it is called inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    pub host: PathBuf,
    /// Absolute, `/`-separated.
    pub guest: String,
    pub write: bool,
}

/// Scheme, host and port of an HTTP server, as it is written: where its name leads to is not looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    https: bool,
    /// In small letters; an IPv6 address in brackets.
    host: String,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no origin: {why}; write https://HOST or https://HOST:PORT, nothing behind it")]
pub struct OriginError {
    text: String,
    why: &'static str,
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Origin, OriginError> {
        let bad = |why| OriginError {
            text: text.to_owned(),
            why,
        };
        let Some((scheme, authority)) = text.split_once("://") else {
            return Err(bad("it has no scheme"));
        };
        let https = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(bad("its scheme is neither https nor http")),
        };
        if authority.contains(['/', '?', '#', '\\']) {
            return Err(bad("it has a path"));
        }
        let parsed: Authority = authority
            .parse()
            .map_err(|_| bad("its host is none, or is followed by something else than a port"))?;
        Origin::new(https, &parsed).map_err(bad)
    }
}

impl Origin {
    /// Where a request goes. The same check as for a grant: what cannot be granted cannot be asked for.
    pub(crate) fn of(uri: &Uri) -> Option<Origin> {
        let https = match uri.scheme()? {
            scheme if *scheme == Scheme::HTTPS => true,
            scheme if *scheme == Scheme::HTTP => false,
            _ => return None,
        };
        Origin::new(https, uri.authority()?).ok()
    }

    fn new(https: bool, authority: &Authority) -> Result<Origin, &'static str> {
        let host = authority.host();
        // A user before the host, or a port that is none, would be left over.
        let rest = match authority.as_str().strip_prefix(host) {
            None => return Err("it names a user"),
            Some(rest) => rest,
        };
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => {
                if https {
                    443
                } else {
                    80
                }
            }
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or("its port is not 1 to 65535")?,
            _ => return Err("its port is no number"),
        };
        let address = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let legal = match address {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty()
                    && host
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
            }
        };
        if !legal {
            return Err("its host is neither a name (letters, digits, - . _) nor an address");
        }
        Ok(Origin {
            https,
            host: host.to_ascii_lowercase(),
            port,
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin { https, host, port } = self;
        match (https, port) {
            (true, 443) => write!(f, "https://{host}"),
            (false, 80) => write!(f, "http://{host}"),
            (true, _) => write!(f, "https://{host}:{port}"),
            (false, _) => write!(f, "http://{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_scheme_a_host_and_a_port() {
        for (text, shown) in [
            ("https://api.example.com", "https://api.example.com"),
            ("https://API.example.com:443", "https://api.example.com"),
            ("http://localhost:8080", "http://localhost:8080"),
            ("http://[::1]:81", "http://[::1]:81"),
            ("http://127.0.0.1:80", "http://127.0.0.1"),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().to_string(), shown);
        }
        for (text, says) in [
            ("api.example.com", "no scheme"),
            ("ftp://a", "scheme"),
            ("HTTPS://a", "scheme"),
            ("https://a/", "path"),
            ("https://a?b", "path"),
            ("https://u@a", "user"),
            ("https://u:p@a", "user"),
            ("https://", "host"),
            ("https://*.a", "host"),
            ("https://a:", "port"),
            ("https://a:0", "port"),
            ("https://a:+80", "port"),
            ("https://a:70000", "port"),
            ("https://[1]", "host"),
            ("https://a b", "host"),
            ("https://ключ", "host"),
        ] {
            let error = text.parse::<Origin>().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_request_is_compared_by_what_is_written() {
        let granted: Origin = "https://api.example.com".parse().unwrap();
        for (uri, same) in [
            ("https://api.example.com/x", true),
            ("https://API.EXAMPLE.COM:443/x", true),
            ("http://api.example.com/x", false),
            ("https://api.example.com:444/x", false),
            ("https://api.example.com./x", false),
            ("https://user@api.example.com/x", false),
            ("https://api.example.com@evil.example/x", false),
            ("https://evil.api.example.com/x", false),
            ("https://api.example.com.evil/x", false),
        ] {
            let asked = Origin::of(&uri.parse().unwrap());
            assert_eq!(asked.as_ref() == Some(&granted), same, "{uri}");
        }
    }
}
