//! A user's `<cluster>-ca` where the control plane has another name than the Cluster: the engine looks for `<tcp>-ca`,
//! so it is handed on under that name, and watched afterwards: a tenant that goes on with another authority would cut
//! off every node.
//!
//! Source: DESIGN 2.5 and 7. The seeded Secret has no owner. An owner that came back from a backup under another UID
//! would take it along, the engine would make a new authority, and no node would trust it. So it goes by hand at the
//! end of a deletion, and it is made again whenever it is missing.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kamaji_api::{
    conditions::Reason,
    controlplane::KamajiControlPlane,
    labels::{capi, field_manager, ours},
};
use kube::ResourceExt;
use parking_lot::Mutex;

use super::{
    Context,
    observe::{self, Observed},
    progress::Progress,
    secrets::{self, Part},
};
use crate::{
    k8s::{error::ApiError, key::ObjectKey, manifest::Manifest, problem::Problem, report::Step, row::Row},
    pki::{
        material::{self, Found},
        spec,
    },
    settings::Hosting,
};

/// Fingerprints of certificates that were read, by Secret, with the version they were read from.
pub type Fingerprints = Mutex<HashMap<ObjectKey, (String, Option<String>)>>;

/// Hands a user's `<cluster>-ca` to the engine where it is not there yet. `false` when the tenant must not be made.
pub async fn seed(
    context: &Context,
    observed: &Observed,
    cluster: &str,
    progress: &mut Progress,
) -> Result<bool, Problem> {
    let control_plane = &*observed.control_plane;
    let rows = observe::rows(context, control_plane, cluster, Part::Authority);
    let there = rows.source.is_some() || seeded(context, control_plane).is_some();
    // Another engine makes its own and knows nothing of ours.
    if context.hosting == Hosting::External || rows.same || there {
        return Ok(true);
    }
    let done = match &rows.target {
        Some(row) => secrets::is_ours(control_plane, row),
        // Without the Cluster's label it is in no index; it is asked for once, and labelled when it was found.
        None => observed.tenant_row.is_some(),
    };
    if done {
        return Ok(true);
    }
    let namespace = control_plane.namespace().unwrap_or_default();
    let Some(given) = observe::secret(context, &namespace, &Part::Authority.name(cluster)).await? else {
        return Ok(true);
    };
    let made = match made_of(control_plane, cluster, &given) {
        Ok(made) => made,
        Err(error) => {
            progress.authority = Step::Failed(unfit(&error));
            return Ok(false);
        }
    };
    let made = Manifest::of(&made)?;
    match context.applier.create(&made).await {
        Ok(_) => {}
        // Somebody's own, unseen so far.
        Err(error) if error.is_already_exists() => {
            if let Some(row) = observe::unlabelled(context, control_plane, &made.key.name).await? {
                label(context, &row, cluster).await?;
            }
        }
        Err(error) => return Err(error.into()),
    }
    if rows.target.is_none() {
        let row = Row::of::<Secret>(&given.metadata);
        label(context, &row, cluster).await?;
    }
    Ok(true)
}

/// `<tcp>-ca` as it was seeded, or as a user made it.
fn seeded(context: &Context, control_plane: &KamajiControlPlane) -> Option<Arc<Row>> {
    let namespace = control_plane.namespace().unwrap_or_default();
    let name = spec::ca_name(&control_plane.name_any());
    context.index.find::<Secret>(&namespace, &name)
}

/// Makes a Secret visible to core, and to us.
pub async fn label(context: &Context, row: &Row, cluster: &str) -> Result<(), ApiError> {
    context.applier.label(row, &secrets::cluster_label(cluster)).await
}

/// Removes what was seeded: with the tenant it has lost its use.
pub async fn forget(context: &Context, control_plane: &KamajiControlPlane) -> Result<(), ApiError> {
    let Some(row) = seeded(context, control_plane) else {
        return Ok(());
    };
    let ours = row
        .labels
        .get(ours::MANAGED_BY)
        .is_some_and(|by| by == field_manager::CONTROL_PLANE);
    if ours && row.owner.is_none() && !row.deleting {
        context.applier.delete(&row).await?;
    }
    Ok(())
}

/// A user's `<cluster>-ca` against what the tenant uses. Read once a version; nothing is asked where nothing changed.
pub async fn compare(
    context: &Context,
    control_plane: &KamajiControlPlane,
    theirs: &Row,
    source: Option<&Row>,
) -> Result<(), Problem> {
    let seeded = seeded(context, control_plane);
    let Some(used) = source.or(seeded.as_deref()) else {
        return Ok(());
    };
    let recorded = used.annotations.get(ours::CA_FINGERPRINT).cloned();
    let used_print = match recorded {
        Some(print) => Some(print),
        None => fingerprint(context, used).await?,
    };
    let given = fingerprint(context, theirs).await?;
    judged(theirs, given.as_deref(), used, used_print.as_deref())
}

fn judged(theirs: &Row, given: Option<&str>, used: &Row, used_print: Option<&str>) -> Result<(), Problem> {
    match (given, used_print) {
        (Some(given), Some(used_print)) if given != used_print => Err(Problem::on_change(
            Reason::CertificateAuthorityDiffers,
            format!(
                "Secret {} holds another authority than {}, which the control plane uses: nodes that trust it cannot \
                 join; put the same certificate and key into both, or delete {} and it is copied",
                theirs.key.name, used.key.name, theirs.key.name
            ),
        )),
        (None, _) => Err(Problem::on_change(
            Reason::CertificateAuthorityInvalid,
            format!(
                "Secret {} has no PEM certificate under tls.crt or ca.crt; put the authority there, or delete the \
                 Secret and it is copied",
                theirs.key.name
            ),
        )),
        _ => Ok(()),
    }
}

async fn fingerprint(context: &Context, row: &Row) -> Result<Option<String>, ApiError> {
    if let Some((version, print)) = context.fingerprints.lock().get(&row.key)
        && *version == row.resource_version
    {
        return Ok(print.clone());
    }
    let print = observe::secret(context, &row.key.namespace, &row.key.name)
        .await?
        .and_then(|secret| certificate_print(&secret));
    let read = (row.resource_version.clone(), print.clone());
    context.fingerprints.lock().insert(row.key.clone(), read);
    Ok(print)
}

/// Fingerprint of the certificate that signs.
fn certificate_print(secret: &Secret) -> Option<String> {
    let data = secret.data.as_ref()?;
    let bytes = ["tls.crt", "ca.crt"].iter().find_map(|key| data.get(*key))?;
    let found = Found::in_secret(&secret.name_any(), "tls.crt", &bytes.0);
    let certificates = material::certificates(&found).ok()?;
    Some(material::fingerprint(certificates.first()?))
}

/// Why a given authority cannot be used.
fn unfit(error: &material::Error) -> Problem {
    let reason = match error {
        material::Error::KeyMismatch { .. } => Reason::CertificateAuthorityKeyMismatch,
        _ => Reason::CertificateAuthorityInvalid,
    };
    Problem::on_change(reason, error.to_string())
}

/// `<tcp>-ca` out of a user's `<cluster>-ca`: certificate and key as they are. The pair is checked first.
fn made_of(
    control_plane: &KamajiControlPlane,
    cluster: &str,
    given: &Secret,
) -> Result<Secret, material::Error> {
    let place = format!("{}/{}", given.namespace().unwrap_or_default(), given.name_any());
    let data = given.data.clone().unwrap_or_default();
    let authority = material::Ca::read(&place, material::CLUSTER_CA_KEYS, &data)?;
    let keep = ["tls.crt", "tls.key", "ca.crt", "ca.key"];
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(spec::ca_name(&control_plane.name_any())),
            namespace: control_plane.namespace(),
            labels: Some(secrets::labels(cluster)),
            annotations: Some(
                [
                    (ours::SOURCE.to_owned(), format!("Secret {}", given.name_any())),
                    (
                        ours::CA_FINGERPRINT.to_owned(),
                        authority.fingerprint().to_owned(),
                    ),
                ]
                .into(),
            ),
            ..ObjectMeta::default()
        },
        type_: Some(capi::SECRET_TYPE.to_owned()),
        data: Some(
            data.into_iter()
                .filter(|(key, _)| keep.contains(&key.as_str()))
                .collect(),
        ),
        ..Secret::default()
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use rstest::rstest;

    use super::*;
    use crate::{
        kamajicontrolplane::example,
        pki::{issue, spec::AltNames},
    };

    fn given(certificate: &str, key: &str) -> Secret {
        Secret {
            metadata: ObjectMeta {
                name: Some("beta-ca".into()),
                namespace: Some("demo".into()),
                ..ObjectMeta::default()
            },
            data: Some(
                [("tls.crt", certificate), ("tls.key", key)]
                    .map(|(name, text)| (name.to_owned(), ByteString(text.as_bytes().to_vec())))
                    .into(),
            ),
            ..Secret::default()
        }
    }

    #[rstest]
    #[case(0, None)]
    #[case(1, Some("put a matching pair there"))]
    fn a_users_authority_is_handed_on_as_it_is_or_refused(
        #[case] key_of: usize,
        #[case] refusal: Option<&str>,
    ) {
        let make = |name: &str| issue::ca(name, &AltNames::default(), example::now()).unwrap();
        let made = [make("one"), make("two")];
        let secret = given(&made[0].cert_pem, made[key_of].key_pem.expose());
        let seeded = made_of(&example::control_plane(), "beta", &secret);
        match refusal {
            None => {
                let seeded = seeded.unwrap();
                assert_eq!(seeded.name_any(), "alpha-ca");
                assert_eq!(seeded.data, secret.data);
                assert!(seeded.owner_references().is_empty(), "it outlives every owner");
                assert_eq!(
                    certificate_print(&secret).as_ref(),
                    seeded.annotations().get(ours::CA_FINGERPRINT)
                );
            }
            Some(text) => {
                let error = seeded.unwrap_err().to_string();
                assert!(error.contains(text) && error.contains("demo/beta-ca"), "{error}");
            }
        }
    }

    #[test]
    fn another_authority_than_the_tenants_is_told() {
        let row = |name: &str| {
            let meta = ObjectMeta {
                name: Some(name.into()),
                ..ObjectMeta::default()
            };
            Row::of::<Secret>(&meta)
        };
        let judge = |given, used| judged(&row("beta-ca"), given, &row("alpha-ca"), used);
        assert_eq!(judge(Some("a"), Some("a")), Ok(()));
        assert_eq!(judge(Some("a"), None), Ok(()), "the tenant's cannot be read");
        let told = judge(Some("b"), Some("a"));
        let cause = told.unwrap_err();
        assert_eq!(cause.reason, Reason::CertificateAuthorityDiffers);
        assert!(
            cause
                .message
                .contains("Secret beta-ca holds another authority than alpha-ca")
        );
        assert!(judge(None, Some("a")).is_err());
    }
}
