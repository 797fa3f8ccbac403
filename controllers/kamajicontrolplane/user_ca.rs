//! A CA that a user provides as `<cluster>-ca`, where the control plane has another name than the Cluster. Pure.
//!
//! The engine looks for `<tcp>-ca`, so the Secret is copied to that name before the engine generates a CA of its own.
//! Later both are compared, because nodes that trust another CA than the tenant's cannot join. The copy has no owner
//! reference: after a restore from a backup an owner has another UID, garbage collection would delete the copy, the
//! engine would generate another CA, and no node would trust it. So the copy is deleted explicitly at the end of a
//! deletion, and created again whenever it is missing.

use std::sync::Arc;

use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kamaji_api::{
    conditions::Reason,
    controlplane::KamajiControlPlane,
    labels::{capi, ours},
};
use kube::ResourceExt;

use super::secrets::{self, Rows};
use crate::{
    k8s::{problem::Problem, row::Row},
    pki::{
        material::{self, Found},
        spec,
    },
};

/// What a user's `<cluster>-ca` means for this reconcile.
#[derive(Debug)]
pub enum UserCa {
    /// There is none, or the engine uses the Secret itself.
    None,
    /// It could not be read.
    Unknown(Problem),
    /// It cannot be used, and no TenantControlPlane may be created without it.
    Unusable(Problem),
    /// The engine needs a copy of it.
    Copy {
        /// The Secret to create.
        copy: Box<Secret>,
        /// The user's Secret, where it lacks the label of the Cluster.
        unlabelled: Option<Box<Row>>,
    },
    /// The tenant has a CA already: the same one, or why not.
    InUse(Result<(), Problem>),
}

/// What has to be read to know it.
#[derive(Debug, PartialEq)]
pub enum Question {
    /// Nothing.
    None,
    /// Whether there is a `<cluster>-ca`, and which one.
    IsThereOne,
    /// Whether two Secrets hold the same certificate.
    IsItTheSame {
        /// The user's.
        given: Arc<Row>,
        /// The one that the tenant uses.
        used: Arc<Row>,
    },
}

/// Asks from metadata alone. `rows` are those of `<cluster>-ca`; `copy` is `<tcp>-ca`, where it was copied or where a
/// user created it too; `copies` is false with an engine that does not look for a copy.
pub fn question(
    control_plane: &KamajiControlPlane,
    rows: &Rows,
    copy: Option<Arc<Row>>,
    copies: bool,
    tenant_exists: bool,
) -> Question {
    if rows.same {
        return Question::None;
    }
    let given = rows
        .target
        .as_ref()
        .filter(|row| !secrets::is_ours(control_plane, row));
    match (rows.source.clone().or(copy), given) {
        (Some(used), Some(given)) => Question::IsItTheSame {
            given: given.clone(),
            used,
        },
        (None, Some(_)) if copies => Question::IsThereOne,
        // Without the label of the Cluster it is in no index. It is read until the tenant exists, and labelled when it
        // is found.
        (None, None) if copies && rows.target.is_none() && !tenant_exists => Question::IsThereOne,
        (Some(_), None) | (None, Some(_) | None) => Question::None,
    }
}

/// The copy of a user's CA, or why it cannot be used: certificate and key have to belong together.
pub fn copied(
    control_plane: &KamajiControlPlane,
    cluster: &str,
    given: &Secret,
    is_unlabelled: bool,
) -> UserCa {
    match copy_of(control_plane, cluster, given) {
        Ok(copy) => UserCa::Copy {
            copy: Box::new(copy),
            unlabelled: is_unlabelled.then(|| Box::new(Row::of::<Secret>(&given.metadata))),
        },
        Err(error) => {
            let reason = match error {
                material::Error::KeyMismatch { .. } => Reason::CertificateAuthorityKeyMismatch,
                _ => Reason::CertificateAuthorityInvalid,
            };
            // Without the label of the Cluster no watch reports that the Secret was repaired.
            UserCa::Unusable(Problem::unwatched(reason, error.to_string()))
        }
    }
}

/// `<tcp>-ca`, with certificate and key of the user's `<cluster>-ca`.
fn copy_of(
    control_plane: &KamajiControlPlane,
    cluster: &str,
    given: &Secret,
) -> Result<Secret, material::Error> {
    const KEPT: [&str; 4] = ["tls.crt", "tls.key", "ca.crt", "ca.key"];
    let name = format!("{}/{}", given.namespace().unwrap_or_default(), given.name_any());
    let data = given.data.clone().unwrap_or_default();
    let ca = material::Ca::read(&name, material::CLUSTER_CA_KEYS, &data)?;
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(spec::ca_name(&control_plane.name_any())),
            namespace: control_plane.namespace(),
            labels: Some(secrets::labels(cluster)),
            annotations: Some(
                [
                    (ours::SOURCE.to_owned(), format!("Secret {}", given.name_any())),
                    (ours::CA_FINGERPRINT.to_owned(), ca.fingerprint().to_owned()),
                ]
                .into(),
            ),
            ..ObjectMeta::default()
        },
        type_: Some(capi::SECRET_TYPE.to_owned()),
        data: Some(
            data.into_iter()
                .filter(|(key, _)| KEPT.contains(&key.as_str()))
                .collect(),
        ),
        ..Secret::default()
    })
}

/// Compares the fingerprints of the user's CA and of the CA that the tenant uses. A CA of the tenant that cannot be
/// read is the engine's to report.
///
/// # Errors
/// When they differ, or when the user's has no certificate.
pub fn judge(
    given: &Row,
    given_print: Option<&str>,
    used: &Row,
    used_print: Option<&str>,
) -> Result<(), Problem> {
    let (given, used) = (&given.key.name, &used.key.name);
    match (given_print, used_print) {
        (Some(given_print), Some(used_print)) if given_print != used_print => Err(Problem::on_change(
            Reason::CertificateAuthorityDiffers,
            format!(
                "Secret {given} holds another CA than Secret {used}, which the control plane uses: nodes that trust it \
                 cannot join; put the same certificate and key into both, or delete {given} and it is copied"
            ),
        )),
        (None, _) => Err(Problem::on_change(
            Reason::CertificateAuthorityInvalid,
            format!(
                "Secret {given} has no PEM certificate under tls.crt or ca.crt; put the CA certificate there, or \
                 delete the Secret and it is copied"
            ),
        )),
        (Some(_), _) => Ok(()),
    }
}

/// Fingerprint of the CA certificate in a Secret; `None` where it has none.
pub fn certificate_print(secret: &Secret) -> Option<String> {
    let data = secret.data.as_ref()?;
    let bytes = ["tls.crt", "ca.crt"].iter().find_map(|key| data.get(*key))?;
    let found = Found::in_secret(&secret.name_any(), "tls.crt", &bytes.0);
    let certificates = material::certificates(&found).ok()?;
    Some(material::fingerprint(certificates.first()?))
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

    #[test]
    fn only_a_ca_that_the_engine_lacks_is_read() {
        let control_plane = example::control_plane();
        let row = |name: &str| {
            let meta = ObjectMeta {
                name: Some(name.into()),
                ..ObjectMeta::default()
            };
            Arc::new(Row::of::<Secret>(&meta))
        };
        let rows = |source: Option<Arc<Row>>, target: Option<Arc<Row>>| Rows {
            source,
            target,
            same: false,
            untouched: false,
        };
        let (given, used) = (row("beta-ca"), row("alpha-ca"));
        let ask = |rows: &Rows, copy, tenant| question(&control_plane, rows, copy, true, tenant);
        assert_eq!(ask(&rows(None, None), None, false), Question::IsThereOne);
        assert_eq!(
            ask(&rows(None, None), None, true),
            Question::None,
            "the tenant exists"
        );
        assert_eq!(ask(&rows(Some(used.clone()), None), None, false), Question::None);
        let both = Question::IsItTheSame {
            given: given.clone(),
            used: used.clone(),
        };
        assert_eq!(
            ask(&rows(None, Some(given.clone())), Some(used.clone()), true),
            both
        );
        assert_eq!(
            ask(&rows(None, Some(given.clone())), None, true),
            Question::IsThereOne,
            "the copy is gone"
        );
        let external = question(&control_plane, &rows(None, Some(given)), None, false, false);
        assert_eq!(external, Question::None);
        let same = Rows {
            same: true,
            ..rows(None, None)
        };
        assert_eq!(ask(&same, None, false), Question::None);
    }

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
    fn a_users_ca_is_copied_as_it_is_or_refused(#[case] key_of: usize, #[case] refusal: Option<&str>) {
        let make = |name: &str| issue::ca(name, &AltNames::default(), example::now()).unwrap();
        let cas = [make("one"), make("two")];
        let secret = given(&cas[0].cert_pem, cas[key_of].key_pem.expose());
        let copy = copy_of(&example::control_plane(), "beta", &secret);
        match refusal {
            None => {
                let copy = copy.unwrap();
                assert_eq!(copy.name_any(), "alpha-ca");
                assert_eq!(copy.data, secret.data);
                assert!(copy.owner_references().is_empty(), "it outlives every owner");
                assert_eq!(
                    certificate_print(&secret).as_ref(),
                    copy.annotations().get(ours::CA_FINGERPRINT)
                );
            }
            Some(text) => {
                let error = copy.unwrap_err().to_string();
                assert!(error.contains(text) && error.contains("demo/beta-ca"), "{error}");
            }
        }
    }

    #[test]
    fn another_ca_than_the_tenants_is_reported() {
        let row = |name: &str| {
            let meta = ObjectMeta {
                name: Some(name.into()),
                ..ObjectMeta::default()
            };
            Row::of::<Secret>(&meta)
        };
        let judge = |given, used| judge(&row("beta-ca"), given, &row("alpha-ca"), used);
        assert_eq!(judge(Some("a"), Some("a")), Ok(()));
        assert_eq!(judge(Some("a"), None), Ok(()), "the tenant's cannot be read");
        let differs = judge(Some("b"), Some("a"));
        let problem = differs.unwrap_err();
        assert_eq!(problem.reason, Reason::CertificateAuthorityDiffers);
        assert!(
            problem
                .message
                .contains("Secret beta-ca holds another CA than Secret alpha-ca")
        );
        assert!(judge(None, Some("a")).is_err());
    }
}
