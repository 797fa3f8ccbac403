//! Why a pod does not run, in one sentence that stays the same while the cause does. Pure.
//!
//! Only the pod reports the cause: a Deployment reports progress for ten minutes. Times, counts and pod names are left
//! out, because a condition with the sentence would change with every try.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};

/// A container that ended this often does not just wait for another container.
const PATIENT_RESTARTS: i32 = 2;

/// Length from which a word of hexadecimal digits is an ID.
const ID: usize = 12;
/// Characters that are shown of the message of a container that could not be started.
const START_ERROR: usize = 400;

/// Why `pod` does not run; `None` if it runs, or if the cause passes by itself.
pub fn trouble(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let unplaced = status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "PodScheduled" && c.reason.as_deref() == Some("Unschedulable"));
    if let Some(condition) = unplaced {
        let why = condition.message.as_deref().unwrap_or_default();
        return Some(format!("no node takes the pod: {why}"));
    }
    let first = status.init_container_statuses.iter().flatten();
    first
        .chain(status.container_statuses.iter().flatten())
        .find_map(|container| stuck(container, pod.metadata.namespace.as_deref().unwrap_or_default()))
}

fn stuck(container: &ContainerStatus, namespace: &str) -> Option<String> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let (name, image) = (&container.name, &container.image);
    let message = waiting.message.as_deref().unwrap_or_default();
    match waiting.reason.as_deref()? {
        "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "RegistryUnavailable" => Some(format!(
            "container {name}: the image {image} cannot be pulled; check that it exists and that the nodes may pull it"
        )),
        "InvalidImageName" => Some(format!("container {name}: {image} is no name of an image")),
        reason @ ("CreateContainerConfigError" | "CreateContainerError" | "RunContainerError") => {
            Some(format!("container {name}: {reason}: {message}"))
        }
        "CrashLoopBackOff" if let Some(message) = unstarted(container) => {
            Some(format!("container {name} cannot be started: {message}"))
        }
        "CrashLoopBackOff" if container.restart_count >= PATIENT_RESTARTS => {
            let end = last_end(container);
            let code = end.map_or_else(String::new, |end| {
                format!(", last with exit code {}", end.exit_code)
            });
            let why = end
                .and_then(|end| end.reason.as_deref())
                .filter(|reason| *reason != "Error")
                .map_or_else(String::new, |reason| format!(" ({reason})"));
            Some(format!(
                "container {name} ends again and again{code}{why}; see kubectl -n {namespace} logs --previous -c {name} \
                 of its pod"
            ))
        }
        _ => None,
    }
}

fn last_end(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    container.last_state.as_ref()?.terminated.as_ref()
}

/// The text without what is another one at each start: UIDs, and IDs of containers.
fn without_ids(text: &str) -> String {
    let in_id = |c: char| c.is_ascii_hexdigit() || c == '-';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(in_id) {
        let (before, from) = rest.split_at(at);
        let (word, after) = from.split_at(from.find(|c| !in_id(c)).unwrap_or(from.len()));
        let id = word.len() >= ID && word.contains(|c: char| c.is_ascii_digit());
        out.push_str(before);
        out.push_str(if id { "…" } else { word });
        rest = after;
    }
    out + rest
}

/// Why the runtime could not start the container, which then has no log. The end of its message is the cause.
fn unstarted(container: &ContainerStatus) -> Option<String> {
    let end = last_end(container).filter(|end| end.reason.as_deref() == Some("StartError"))?;
    let message = &without_ids(end.message.as_deref()?);
    let skipped = message.chars().count().saturating_sub(START_ERROR);
    let shown: String = message.chars().skip(skipped).collect();
    Some(if skipped == 0 {
        shown
    } else {
        format!("…{shown}")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn reported(status: &Value) -> Option<String> {
        let pod = json!({ "metadata": { "name": "alpha-7d9", "namespace": "demo" }, "status": status });
        trouble(&serde_json::from_value(pod).unwrap())
    }

    fn container(reason: &str, restarts: i32) -> Option<String> {
        reported(&json!({ "containerStatuses": [
            { "name": "scheduler", "image": "r/scheduler:v1", "imageID": "", "ready": true, "restartCount": 0,
              "state": { "running": {} } },
            { "name": "apiserver", "image": "r/apiserver:v1", "imageID": "", "ready": false,
              "restartCount": restarts,
              "state": { "waiting": { "reason": reason, "message": "back-off 2m40s" } },
              "lastState": { "terminated": { "exitCode": 137, "reason": "OOMKilled" } } },
        ] }))
    }

    #[test]
    fn what_keeps_a_pod_from_running() {
        let unschedulable = reported(&json!({ "conditions": [
            { "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes: Insufficient cpu" },
        ] }));
        assert_eq!(
            unschedulable.unwrap(),
            "no node takes the pod: 0/1 nodes: Insufficient cpu"
        );
        for reason in ["ErrImagePull", "ImagePullBackOff"] {
            let said = container(reason, 0).unwrap();
            assert!(
                said.starts_with("container apiserver: the image r/apiserver:v1 "),
                "{said}"
            );
        }
        let said = container("CrashLoopBackOff", 4).unwrap();
        assert!(
            said.contains("exit code 137 (OOMKilled)") && said.contains("kubectl -n demo logs"),
            "{said}"
        );
        let said = container("CreateContainerConfigError", 0).unwrap();
        assert!(said.contains("apiserver: CreateContainerConfigError"), "{said}");
    }

    #[test]
    fn a_container_that_cannot_be_started_has_no_log_so_the_cause_is_shown() {
        let cause = "mount src=/a, dst=/etc/kubernetes/pki/b: read-only file system";
        let stuck = |message: &str| {
            reported(&json!({ "containerStatuses": [
                { "name": "apiserver", "image": "r/apiserver:v1", "imageID": "", "ready": false, "restartCount": 1,
                  "state": { "waiting": { "reason": "CrashLoopBackOff" } },
                  "lastState": { "terminated": { "exitCode": 128, "reason": "StartError", "message": message } } },
            ] }))
            .unwrap()
        };
        assert_eq!(
            stuck(cause),
            format!("container apiserver cannot be started: {cause}")
        );
        let of = |id: &str| {
            stuck(&format!(
                "rootfs of {}/rootfs for pods/5fa0c1d2-aaaa-bbbb-cccc-0123456789ab: no",
                id.repeat(16)
            ))
        };
        assert_eq!(of("a1b2"), of("c3d4"), "a status is not written at each start");
        assert!(
            of("a1b2").ends_with("rootfs of …/rootfs for pods/…: no"),
            "{}",
            of("a1b2")
        );
        let long = stuck(&format!("{}{cause}", "runc: ".repeat(200)));
        assert!(long.ends_with(cause) && long.chars().count() < 450, "{long}");
    }

    #[test]
    fn what_passes_by_itself_is_no_trouble() {
        assert_eq!(container("ContainerCreating", 0), None);
        assert_eq!(
            container("CrashLoopBackOff", 1),
            None,
            "it waits for another container"
        );
        assert_eq!(reported(&json!({})), None);
    }

    #[test]
    fn the_sentence_does_not_change_with_every_try() {
        let first = container("CrashLoopBackOff", 3);
        assert_eq!(first, container("CrashLoopBackOff", 30));
        assert!(!first.unwrap().contains("2m40s"));
    }
}
