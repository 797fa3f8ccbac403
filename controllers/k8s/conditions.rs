//! Sets conditions: sorted by type, and with a transition time that moves only when the status does. Pure. What the schema
//! refuses is cut here, because one message that is too long makes the API server refuse the whole status.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kamaji_api::conditions::{Reason, is_reason};

/// Longest `metav1.Condition.message`, in characters.
const LONGEST_MESSAGE: usize = 32_768;

/// A condition without its times.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Verdict {
    /// Condition type.
    pub type_: &'static str,
    /// `True`, `False` or `Unknown`.
    pub status: Status,
    /// CamelCase reason.
    pub reason: String,
    /// For people: object, field and fix. The same in every reconcile: no times, no random names.
    pub message: String,
}

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
pub enum Status {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nothing is known yet.
    Unknown,
}

impl Verdict {
    /// The condition holds.
    pub fn yes(type_: &'static str, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            type_,
            status: Status::True,
            reason: reason.into(),
            message: message.into(),
        }
    }

    /// The condition does not hold.
    pub fn no(type_: &'static str, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            type_,
            status: Status::False,
            reason: reason.into(),
            message: message.into(),
        }
    }

    /// What `known` says, which may be a condition of another object.
    pub fn repeated(type_: &'static str, known: &Condition) -> Self {
        Self {
            type_,
            status: match known.status.as_str() {
                "True" => Status::True,
                "False" => Status::False,
                _ => Status::Unknown,
            },
            reason: known.reason.clone(),
            message: known.message.clone(),
        }
    }

    /// Nothing is known about the condition.
    pub fn unknown(type_: &'static str, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            type_,
            status: Status::Unknown,
            reason: reason.into(),
            message: message.into(),
        }
    }
}

/// Sets `verdict` in `conditions`. The transition time is kept unless the status changes; the list stays sorted. A reason
/// that the schema refuses becomes `InternalError`.
pub fn set(conditions: &mut Vec<Condition>, verdict: Verdict, generation: Option<i64>, now: Timestamp) {
    let status: &'static str = verdict.status.into();
    let known = conditions.iter().position(|c| c.type_ == verdict.type_);
    let last_transition_time = match known.map(|at| &conditions[at]) {
        Some(old) if old.status == status => old.last_transition_time.clone(),
        _ => Time(Timestamp::from_second(now.as_second()).unwrap_or(now)),
    };
    let reason = if is_reason(&verdict.reason) {
        verdict.reason
    } else {
        Reason::InternalError.into()
    };
    let condition = Condition {
        type_: verdict.type_.to_owned(),
        status: status.to_owned(),
        reason,
        message: cut(verdict.message, LONGEST_MESSAGE),
        observed_generation: generation,
        last_transition_time,
    };
    match known {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
}

/// `text` with at most `most` characters; an ellipsis marks that some are missing.
pub fn cut(text: String, most: usize) -> String {
    if text.len() <= most || text.chars().count() <= most {
        return text;
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// Output of another program for a message: one line of at most 512 characters.
pub fn quoted(text: &str) -> String {
    const MOST: usize = 512;
    let clean: String = text
        .chars()
        .take(MOST + 1)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    cut(clean, MOST)
}

/// Removes the condition of this type.
pub fn remove(conditions: &mut Vec<Condition>, type_: &str) {
    conditions.retain(|c| c.type_ != type_);
}

/// The condition of this type.
pub fn get<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// The condition of this type is `True`.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    get(conditions, type_).is_some_and(|c| c.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn transition_time_moves_only_with_the_status() {
        let mut list = Vec::new();
        set(
            &mut list,
            Verdict::no("Ready", "Waiting", "for a"),
            Some(1),
            at(10),
        );
        set(
            &mut list,
            Verdict::no("Ready", "Waiting", "for b"),
            Some(2),
            at(20),
        );
        assert_eq!(list[0].last_transition_time.0, at(10));
        assert_eq!(list[0].message, "for b");
        set(&mut list, Verdict::yes("Ready", "Ready", ""), Some(2), at(30));
        assert_eq!(list[0].last_transition_time.0, at(30));
    }

    #[test]
    fn what_the_schema_refuses_is_cut() {
        let mut list = Vec::new();
        let long = "ä".repeat(40_000);
        set(
            &mut list,
            Verdict::no("Ready", "No such\nthing", long),
            None,
            at(1),
        );
        assert_eq!(list[0].reason, "InternalError");
        assert_eq!(list[0].message.chars().count(), 32_768);
        assert!(list[0].message.ends_with('…'));
        assert_eq!(quoted("a\u{1b}[2Jb\r\nc"), "a [2Jb  c");
        assert_eq!(quoted(&"x".repeat(600)).chars().count(), 512);
        assert_eq!(quoted("short"), "short");
    }

    #[test]
    fn order_of_setting_does_not_matter() {
        let (mut one, mut two) = (Vec::new(), Vec::new());
        for type_ in ["B", "A", "C"] {
            set(&mut one, Verdict::yes(type_, "R", ""), None, at(1));
        }
        for type_ in ["C", "B", "A"] {
            set(&mut two, Verdict::yes(type_, "R", ""), None, at(1));
        }
        assert_eq!(one, two);
    }
}
