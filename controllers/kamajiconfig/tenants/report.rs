//! Reads what a machine reports as an Event in its workload cluster. Its text is untrusted: the admission policy ties the
//! name of the Event to the token that authenticated it, and everything else is cut and cleaned here. Pure.

use k8s_openapi::api::core::v1::Event;
use kamaji_api::bootstrap::NodeReport;

use crate::kamajiconfig::token;

/// Longest message in characters.
const LONGEST: usize = 1024;

/// Token ID and report of an Event; `None` if it is not a report.
pub fn read(event: &Event) -> Option<(&str, NodeReport)> {
    let (id, _) = event.metadata.name.as_deref()?.split_once('.')?;
    token::is_id(id).then_some(())?;
    let reason: String = event
        .reason
        .as_deref()?
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(64)
        .collect();
    if !reason.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return None;
    }
    let message = event.message.as_deref().unwrap_or_default();
    let report = NodeReport {
        reason: Some(reason),
        message: Some(clean(message)),
        // The API server's time: the clock of the machine may be wrong, and a report from its future would be the last.
        time: event
            .metadata
            .creation_timestamp
            .clone()
            .or_else(|| event.last_timestamp.clone()),
        node: event.reporting_instance.as_deref().map(clean),
    };
    Some((id, report))
}

/// One line of printable text of at most [`LONGEST`] characters, without anything that looks like a token.
fn clean(text: &str) -> String {
    let printable: String = text
        .chars()
        .map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { ' ' })
        .take(LONGEST)
        .collect();
    let words: Vec<_> = printable
        .split_whitespace()
        .map(|word| {
            let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
            if token::Token::parse(bare).is_some() {
                "(token)"
            } else {
                word
            }
        })
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use kube::api::ObjectMeta;

    use super::*;

    fn event(name: &str, reason: &str, message: &str) -> Event {
        Event {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            ..Event::default()
        }
    }

    #[test]
    fn bootstrap_60_a_report_is_cut_and_cleaned() {
        let long = format!("a\u{7}b\nabcdef.0123456789abcdef {}", "x".repeat(5000));
        let event = event("abc123.f00", "PreJoin-Failed", &long);
        let (id, report) = read(&event).unwrap();
        assert_eq!((id, report.reason.as_deref()), ("abc123", Some("PreJoinFailed")));
        let message = report.message.unwrap();
        assert!(
            message.starts_with("a b (token) xxx") && message.len() <= LONGEST,
            "{message}"
        );
    }

    #[test]
    fn events_that_are_not_named_after_a_token_are_no_reports() {
        for (name, reason) in [
            ("ABC123.x", "A"),
            ("abc123", "A"),
            ("abc123.x", ""),
            ("abc123.x", "1"),
        ] {
            assert!(read(&event(name, reason, "")).is_none(), "{name} {reason}");
        }
    }
}
