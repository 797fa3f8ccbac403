//! Security contexts of the pods that the engine creates: what the Pod Security level `restricted` requires, and a
//! read-only root filesystem. Pure.
//! Source: <https://kubernetes.io/docs/concepts/security/pod-security-standards/>.

use k8s_openapi::api::core::v1::{Capabilities, PodSecurityContext, SeccompProfile, SecurityContext};

/// User and group of the processes.
pub const NOBODY: i64 = 65532;

/// Security context of a pod.
pub fn pod() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(NOBODY),
        run_as_group: Some(NOBODY),
        fs_group: Some(NOBODY),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        ..PodSecurityContext::default()
    }
}

/// Security context of a container, with one capability at most. `restricted` permits `NET_BIND_SERVICE`.
pub fn container(capability: Option<&str>) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            add: capability.map(|name| vec![name.to_owned()]),
        }),
        ..SecurityContext::default()
    }
}
