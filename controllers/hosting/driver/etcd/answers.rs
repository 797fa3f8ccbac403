//! What the answers of etcd mean that are errors. Pure.

use super::super::Error;

/// Answers that a caller may expect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// User, role, grant or permission does not exist.
    Absent,
    /// User or role exists already.
    Present,
    /// Authentication is disabled.
    AuthOff,
    /// The password is wrong, or the user has none: authentication is enabled.
    WrongPassword,
}

/// Why a request failed.
#[derive(Debug)]
pub enum Failure {
    /// With an answer that a caller may expect.
    Known(Known, Error),
    /// Otherwise.
    Other(Error),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Known(_, error) | Failure::Other(error) => error,
        }
    }
}

/// Turns one expected answer into `None`.
pub fn unless<T>(answer: Result<T, Failure>, expected: Known) -> Result<Option<T>, Error> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(Failure::Known(known, _)) if known == expected => Ok(None),
        Err(failure) => Err(failure.into()),
    }
}

/// What the attempt to authenticate with a wrong password says about authentication. Only what an etcd with authentication
/// answers counts as such: one that cannot tell is not used.
pub fn is_enabled<T>(answer: Result<T, Failure>) -> Result<bool, Error> {
    match answer {
        Ok(_) | Err(Failure::Known(Known::WrongPassword, _) | Failure::Other(Error::Denied { .. })) => {
            Ok(true)
        }
        Err(Failure::Known(Known::AuthOff, _)) => Ok(false),
        Err(Failure::Known(Known::Absent | Known::Present, error) | Failure::Other(error)) => Err(error),
    }
}

/// The meaning of what etcd says to a request.
pub fn failure(operation: &str, message: &str) -> Failure {
    let known = |known| Failure::Known(known, refused(operation, message));
    match message.trim_start_matches("etcdserver: ") {
        "user name not found"
        | "role name not found"
        | "role is not granted to the user"
        | "permission is not granted to the role" => known(Known::Absent),
        "user name already exists" | "role name already exists" => known(Known::Present),
        "authentication is not enabled" => known(Known::AuthOff),
        "authentication failed, invalid user ID or password"
        | "auth: authentication failed, password was given for no password user" => {
            known(Known::WrongPassword)
        }
        "mvcc: database space exceeded" => Failure::Other(Error::Full {
            operation: operation.to_owned(),
        }),
        "permission denied" => Failure::Other(Error::Denied {
            operation: operation.to_owned(),
        }),
        _ => Failure::Other(refused(operation, message)),
    }
}

fn refused(operation: &str, message: &str) -> Error {
    Error::Refused {
        operation: operation.to_owned(),
        detail: message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etcd_that_cannot_tell_is_not_taken_for_one_with_authentication() {
        let table = [
            ("etcdserver: authentication is not enabled", Some(false)),
            (
                "etcdserver: authentication failed, invalid user ID or password",
                Some(true),
            ),
            (
                "auth: authentication failed, password was given for no password user",
                Some(true),
            ),
            ("etcdserver: permission denied", Some(true)),
            ("etcdserver: not capable", None),
            ("etcdserver: corrupt cluster", None),
            ("etcdserver: user name not found", None),
            ("etcdserver: mvcc: database space exceeded", None),
            ("unknown service etcdserverpb.Auth", None),
        ];
        for (message, enabled) in table {
            let answer: Result<(), Failure> = Err(failure("authenticate", message));
            assert_eq!(is_enabled(answer).ok(), enabled, "{message}");
        }
    }
}
