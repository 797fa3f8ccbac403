//! Counts attacks and what became of them.

use std::fmt::Display;

use etcd_client::Error;

/// What became of an attack.
enum Outcome {
    /// etcd refused it for lack of permission.
    Refused,
    /// etcd did it.
    Succeeded,
    /// It failed for another reason, which proves nothing.
    Unclear(String),
}

/// The attacks that were tried.
#[derive(Default)]
pub struct Tried(Vec<(String, Outcome)>);

impl Tried {
    /// Sends one request of an attack.
    pub async fn request<T>(&mut self, name: impl Display, sent: impl Future<Output = Result<T, Error>>) {
        let outcome = match Box::pin(sent).await {
            Ok(_) => Outcome::Succeeded,
            Err(error) if is_refusal(&error) => Outcome::Refused,
            Err(error) => Outcome::Unclear(error.to_string()),
        };
        self.0.push((name.to_string(), outcome));
    }

    /// Number of attacks.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The attacks that etcd did not refuse, with the reason where they failed otherwise.
    pub fn not_refused(&self) -> Vec<String> {
        let reported = |(name, outcome): &(String, Outcome)| match outcome {
            Outcome::Refused => None,
            Outcome::Succeeded => Some(format!("{name}: succeeded")),
            Outcome::Unclear(why) => Some(format!("{name}: {why}")),
        };
        self.0.iter().filter_map(reported).collect()
    }

    /// The figures, for people.
    pub fn figures(&self) -> String {
        let succeeded = |(_, outcome): &&(String, Outcome)| matches!(outcome, Outcome::Succeeded);
        format!(
            "{} attacks tried, {} succeeded",
            self.count(),
            self.0.iter().filter(succeeded).count()
        )
    }
}

fn is_refusal(error: &Error) -> bool {
    let text = error.to_string();
    [
        "permission denied",
        // To a password that was guessed: no user of a DataStore has one.
        "authentication failed",
    ]
    .iter()
    .any(|refusal| text.contains(refusal))
}
