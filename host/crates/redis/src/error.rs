//! What can go wrong with a Redis, in words, and what it means for whoever asked.

use redis::{ErrorKind, RedisError, ServerErrorKind};
use segmenter_core::port::Failure;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no connection: {0}")]
    Unreachable(String),
    #[error("the password or user is wrong, or one is needed: {0}")]
    Authentication(String),
    #[error("this is {software} {found}; Segmenter needs Redis 7.0 or later, or Valkey")]
    TooOld { software: String, found: String },
    #[error("{0}")]
    Permission(String),
    #[error("it lacks a command that Segmenter needs: {0}")]
    Command(String),
    #[error("it answers, but does not serve yet: {0}")]
    NotServing(String),
}

impl ConnectError {
    /// Whether waiting may mend it.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            ConnectError::Unreachable(_) | ConnectError::NotServing(_)
        )
    }

    /// Whoever is to mend a permission or a command needs to know of what.
    pub(crate) fn said_by(self, software: &str, version: &str) -> ConnectError {
        let more = |text: String| format!("{text}; this is {software} {version}");
        match self {
            ConnectError::Permission(text) => ConnectError::Permission(more(text)),
            ConnectError::Command(text) => ConnectError::Command(more(text)),
            other => other,
        }
    }

    pub(crate) fn of(error: &RedisError) -> ConnectError {
        let text = text(error);
        match error.kind() {
            ErrorKind::AuthenticationFailed => ConnectError::Authentication(text),
            ErrorKind::Server(ServerErrorKind::NoPerm) => {
                ConnectError::Permission(permission(&text))
            }
            ErrorKind::Server(
                ServerErrorKind::BusyLoading
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown,
            ) => ConnectError::NotServing(text),
            _ => match error.code() {
                Some("NOAUTH" | "WRONGPASS") => ConnectError::Authentication(text),
                Some("NOPERM") => ConnectError::Permission(permission(&text)),
                _ if text.contains("unknown command") => ConnectError::Command(text),
                _ => ConnectError::Unreachable(text),
            },
        }
    }
}

/// What a request's error means for whoever asked. `sent`: the command left this process.
pub(crate) fn failure(error: &RedisError, sent: bool) -> Failure {
    let text = text(error);
    if !sent {
        return Failure::NotDone(text);
    }
    match error.kind() {
        ErrorKind::Server(kind) => match kind {
            ServerErrorKind::BusyLoading
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ReadOnly
            | ServerErrorKind::Moved
            | ServerErrorKind::Ask
            | ServerErrorKind::NoScript => Failure::NotDone(text),
            ServerErrorKind::NoPerm => Failure::Fatal(permission(&text)),
            _ => other(error, text),
        },
        ErrorKind::Extension => other(error, text),
        ErrorKind::AuthenticationFailed => Failure::Fatal(text),
        ErrorKind::Io => Failure::Unknown(text),
        // The answer could not be understood: it came, but what it says is not known.
        ErrorKind::Parse => Failure::Unknown(text),
        _ => Failure::Fatal(text),
    }
}

/// Errors that only their first word tells apart. Scripts check before they write, so that an error of
/// theirs says that nothing was done.
fn other(error: &RedisError, text: String) -> Failure {
    match error.code() {
        Some(
            "OOM" | "BUSY" | "MISCONF" | "NOREPLICAS" | "LOADING" | "READONLY" | "TRYAGAIN"
            | "CLUSTERDOWN" | "MASTERDOWN" | "UNBLOCKED",
        ) => Failure::NotDone(text),
        Some("NOAUTH" | "WRONGPASS") => Failure::Fatal(text),
        Some("NOPERM") => Failure::Fatal(permission(&text)),
        _ if text.contains("OOM command not allowed") => Failure::NotDone(text),
        _ => Failure::Fatal(text),
    }
}

pub(crate) fn permission(text: &str) -> String {
    format!("the user lacks a permission: {text}; grant it with ACL SETUSER")
}

/// The server's own words where there are some.
pub(crate) fn text(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    }
}
