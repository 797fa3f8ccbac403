//! Hands the pause of a Cluster down to its TenantControlPlane.
//!
//! `clusterctl move` pauses the Cluster, copies the objects, and deletes them at the source. An engine that goes on
//! meanwhile would make keys for a copy whose Secrets are still to come. Kamaji's annotation is metadata, so a copy has
//! it too, and the pause ends where Cluster API ends that of the Cluster.

use kamaji_api::labels::{kamaji, ours};
use serde_json::json;

use super::{Context, observe::Observed, secrets};
use crate::k8s::error::ApiError;

/// What to do with the annotation of the TenantControlPlane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing.
    Keep,
    /// Pause the TenantControlPlane.
    Set,
    /// End a pause that this controller began.
    Remove,
}

/// `value` is that of the annotation, if there is one. A pause that somebody else set stays.
fn step(cluster_is_paused: bool, value: Option<&str>) -> Step {
    match (cluster_is_paused, value) {
        (true, None) => Step::Set,
        (false, Some(ours::PAUSED_WITH_CLUSTER)) => Step::Remove,
        (true, Some(_)) | (false, Some(_) | None) => Step::Keep,
    }
}

/// Pauses the TenantControlPlane while its Cluster is paused.
///
/// # Errors
/// What the API server answered; a conflict when the object is another one by now.
pub async fn hand_down(context: &Context, observed: &mut Observed) -> Result<(), ApiError> {
    let cluster = observed.cluster.as_deref();
    let is_paused = cluster.is_some_and(|cluster| cluster.spec.paused == Some(true));
    let Some(row) = observed
        .tenant_row
        .as_ref()
        .filter(|row| secrets::is_ours(&observed.control_plane, row))
    else {
        return Ok(());
    };
    let value = row.annotations.get(kamaji::PAUSED).map(String::as_str);
    let value = match step(is_paused, value) {
        Step::Keep => return Ok(()),
        Step::Set => Some(ours::PAUSED_WITH_CLUSTER),
        Step::Remove => None,
    };
    let annotations = json!({ "annotations": { kamaji::PAUSED: value } });
    let row = context.applier.record(&row.key, &row.uid, annotations).await?;
    observed.tenant_row = Some(row);
    Ok(())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(true, None, Step::Set)]
    #[case(true, Some(ours::PAUSED_WITH_CLUSTER), Step::Keep)]
    #[case(true, Some(""), Step::Keep)]
    #[case(false, None, Step::Keep)]
    #[case(false, Some(ours::PAUSED_WITH_CLUSTER), Step::Remove)]
    #[case(false, Some(""), Step::Keep)]
    fn a_pause_of_somebody_else_is_left_alone(
        #[case] cluster_is_paused: bool,
        #[case] value: Option<&str>,
        #[case] expected: Step,
    ) {
        assert_eq!(step(cluster_is_paused, value), expected);
    }
}
