//! What an error of a request to one member means. Pure.

use etcd_client::Error;

/// How a request to one member ended that was not served.
#[derive(Debug)]
pub enum Trouble {
    /// The member does not answer.
    Silent,
    /// The member answers, and cannot serve now; what it says.
    Busy(String),
    /// It answers with an error.
    Answer(Error),
}

/// What an error means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Users or roles changed between the check and the execution of the request: the same member is asked again.
    Stale,
    /// The member does not answer.
    Silent,
    /// The member answers, and cannot serve now: an election runs, say, or a majority is missing.
    Busy,
    /// An answer.
    Answer,
}

/// What the transport says when a connection cannot be made or ends in the middle.
const TRANSPORT: [&str; 6] = [
    "transport error",
    "tcp connect error",
    "h2 protocol error",
    "connection closed",
    "connection reset",
    "broken pipe",
];

/// What the member says.
pub fn text(error: &Error) -> String {
    match error {
        Error::GRpcStatus(status) => status.message().to_owned(),
        error => error.to_string(),
    }
}

/// Classifies an error.
pub fn of(error: &Error) -> Meaning {
    match error {
        Error::GRpcStatus(status) => status_of(status.code() as i32, status.message()),
        Error::TransportError(_) | Error::IoError(_) => Meaning::Silent,
        _ => Meaning::Answer,
    }
}

/// The codes are those of gRPC: 1 is a request that was canceled, as it is when the connection ends under it, 4 the end of a
/// deadline, 8 an exhausted resource, 14 an unavailable service.
fn status_of(code: i32, message: &str) -> Meaning {
    let Some(own) = message.strip_prefix("etcdserver: ") else {
        let broken = TRANSPORT.iter().any(|text| message.contains(text));
        return if broken || matches!(code, 1 | 4 | 14) {
            Meaning::Silent
        } else {
            Meaning::Answer
        };
    };
    match (code, own) {
        (_, "revision of auth store is old") => Meaning::Stale,
        (14, _) | (8, "too many requests") => Meaning::Busy,
        _ => Meaning::Answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_member_helps_against_silence_and_only_time_against_an_election() {
        let table = [
            (14, "tcp connect error", Meaning::Silent),
            (2, "transport error", Meaning::Silent),
            (1, "operation was canceled", Meaning::Silent),
            (
                2,
                "h2 protocol error: error reading a body from connection",
                Meaning::Silent,
            ),
            (
                4,
                "Deadline expired before operation could complete",
                Meaning::Silent,
            ),
            (14, "etcdserver: no leader", Meaning::Busy),
            (14, "etcdserver: leader changed", Meaning::Busy),
            (14, "etcdserver: request timed out", Meaning::Busy),
            (8, "etcdserver: too many requests", Meaning::Busy),
            (8, "etcdserver: mvcc: database space exceeded", Meaning::Answer),
            (3, "etcdserver: revision of auth store is old", Meaning::Stale),
            (7, "etcdserver: permission denied", Meaning::Answer),
            (9, "etcdserver: user name not found", Meaning::Answer),
            (2, "auth: authentication failed", Meaning::Answer),
        ];
        for (code, message, meaning) in table {
            assert_eq!(status_of(code, message), meaning, "{message}");
        }
    }
}
