//! Validates the spec of a DataStore, as far as it can be checked without the datastore. Pure.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use kamaji_api::{
    conditions::Reason,
    datastore::{ContentRef, DataStore, Driver, ManagedEtcd, TlsConfig},
    unsupported::UnsupportedFields as _,
};
use kube::ResourceExt as _;

use super::quantity;
use crate::k8s::{host_port::HostPort, names, problem::Problem};

/// Version of etcd in a managed DataStore without `spec.managed.version`; the tag of the image is `v` and this.
pub const ETCD_VERSION: &str = "3.6.16";
/// Longest name of a managed DataStore: pods and Service are named after it.
const LONGEST_NAME: usize = 40;
/// Smallest volume, in bytes: etcd's log and a small database.
const SMALLEST_VOLUME: u64 = 256 << 20;
/// Largest database, in bytes, that etcd recommends. Source: <https://etcd.io/docs/v3.6/dev-guide/limit/>.
const LARGEST_QUOTA: u64 = 8 << 30;

/// Source of a certificate or key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A field of the DataStore.
    Inline {
        /// Path of the field.
        field: String,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// A key of a Secret.
    Secret {
        /// Path of the field.
        field: String,
        /// Namespace of the Secret.
        namespace: String,
        /// Name of the Secret.
        name: String,
        /// Key in the Secret.
        key: String,
    },
}

/// An external etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// `host:port` of each member.
    pub endpoints: Vec<String>,
    /// Certificate of the CA.
    pub ca: Source,
    /// Key of the CA.
    pub ca_key: Source,
    /// Certificate of the admin.
    pub certificate: Source,
    /// Key of the admin.
    pub key: Source,
}

/// A managed etcd.
#[derive(Debug, Clone, PartialEq)]
pub struct Managed {
    /// Name of the DataStore, and of its objects.
    pub name: String,
    /// Version of etcd.
    pub version: String,
    /// Largest database, in bytes.
    pub quota: u64,
    /// The spec.
    pub spec: ManagedEtcd,
}

/// A DataStore with a valid spec.
#[derive(Debug, Clone, PartialEq)]
pub enum Valid {
    /// An etcd that somebody else runs.
    External(Box<External>),
    /// An etcd that the engine runs.
    Managed(Box<Managed>),
}

/// Validates the spec.
///
/// # Errors
/// Of the first invalid field.
pub fn validate(store: &DataStore) -> Result<Valid, Problem> {
    if let Some(managed) = &store.spec.managed {
        return self::managed(&store.name_any(), managed).map(|managed| Valid::Managed(Box::new(managed)));
    }
    match store.spec.driver {
        Some(Driver::Etcd) => {}
        None => {
            return Err(Problem::on_change(
                Reason::InvalidSpec,
                "spec.driver: required; set it to etcd, or set spec.managed for an etcd that the engine runs",
            ));
        }
        Some(driver) => {
            return Err(Problem::on_change(
                Reason::DriverNotSupported,
                format!("spec.driver: {} is not supported yet; use etcd", driver.as_str()),
            ));
        }
    }
    external(store).map(|external| Valid::External(Box::new(external)))
}

fn external(store: &DataStore) -> Result<External, Problem> {
    if store.spec.endpoints.is_empty() {
        return Err(Problem::on_change(
            Reason::InvalidSpec,
            "spec.endpoints: at least one endpoint is required, as host:port",
        ));
    }
    for (index, endpoint) in store.spec.endpoints.iter().enumerate() {
        if !is_endpoint(endpoint) {
            return Err(Problem::on_change(
                Reason::InvalidSpec,
                format!("spec.endpoints[{index}]: {endpoint:?} must be host:port, without a scheme"),
            ));
        }
    }
    let required = |field: &str| {
        Problem::on_change(
            Reason::TLSConfigurationValidationFailed,
            format!("{field}: required with driver etcd"),
        )
    };
    let TlsConfig {
        certificate_authority,
        client_certificate,
    } = store
        .spec
        .tls_config
        .as_ref()
        .ok_or_else(|| required("spec.tlsConfig"))?;
    let ca_key = certificate_authority
        .private_key
        .as_ref()
        .ok_or_else(|| required("spec.tlsConfig.certificateAuthority.privateKey"))?;
    let client = client_certificate
        .as_ref()
        .ok_or_else(|| required("spec.tlsConfig.clientCertificate"))?;
    Ok(External {
        endpoints: store.spec.endpoints.clone(),
        ca: source(
            "spec.tlsConfig.certificateAuthority.certificate",
            &certificate_authority.certificate,
        )?,
        ca_key: source("spec.tlsConfig.certificateAuthority.privateKey", ca_key)?,
        certificate: source(
            "spec.tlsConfig.clientCertificate.certificate",
            &client.certificate,
        )?,
        key: source("spec.tlsConfig.clientCertificate.privateKey", &client.private_key)?,
    })
}

/// `content` takes precedence over `secretReference`.
fn source(field: &str, content: &ContentRef) -> Result<Source, Problem> {
    let refused =
        |why: &str| Problem::on_change(Reason::TLSConfigurationValidationFailed, format!("{field}{why}"));
    if let Some(encoded) = content.content.as_deref().filter(|text| !text.is_empty()) {
        let packed: String = encoded.split_whitespace().collect();
        let bytes = BASE64
            .decode(packed)
            .map_err(|_| refused(".content: not base64; encode the PEM text"))?;
        return Ok(Source::Inline {
            field: format!("{field}.content"),
            bytes,
        });
    }
    let reference = content
        .secret_reference
        .as_ref()
        .ok_or_else(|| refused(": set content or secretReference"))?;
    let field = format!("{field}.secretReference");
    let (Some(namespace), Some(name)) = (&reference.namespace, &reference.name) else {
        return Err(Problem::on_change(
            Reason::TLSConfigurationValidationFailed,
            format!("{field}: name and namespace are required"),
        ));
    };
    Ok(Source::Secret {
        field,
        namespace: namespace.clone(),
        name: name.clone(),
        key: reference.key_path.clone(),
    })
}

fn managed(name: &str, spec: &ManagedEtcd) -> Result<Managed, Problem> {
    let invalid = |message: String| Err(Problem::on_change(Reason::InvalidSpec, message));
    if name.len() > LONGEST_NAME || !names::is_service_name(name) {
        return invalid(format!(
            "metadata.name: {name:?} cannot be part of pod names; a managed DataStore needs a name of 1 to {LONGEST_NAME} \
             lower-case letters, digits and '-' that begins with a letter"
        ));
    }
    if spec.replicas != 1 {
        return Err(Problem::on_change(
            Reason::FieldNotSupported,
            format!(
                "spec.managed.replicas: {} members are not supported yet; use 1",
                spec.replicas
            ),
        ));
    }
    let version = spec.version.clone().unwrap_or_else(|| ETCD_VERSION.to_owned());
    if semver::Version::parse(&version).is_err() {
        return invalid(format!(
            "spec.managed.version: {version:?} is not a version; write it like {ETCD_VERSION}"
        ));
    }
    let size = &spec.storage.size.0;
    match quantity::bytes(size) {
        Some(bytes) if bytes >= SMALLEST_VOLUME => Ok(Managed {
            name: name.to_owned(),
            version,
            quota: (bytes / 4 * 3).min(LARGEST_QUOTA),
            spec: spec.clone(),
        }),
        Some(_) => invalid(format!(
            "spec.managed.storage.size: {size} is too small; set at least 256Mi"
        )),
        None => invalid(format!(
            "spec.managed.storage.size: {size:?} is not a whole number of bytes; write it like 8Gi"
        )),
    }
}

/// Whether `text` is `host:port` with a host that can be resolved; `_` is allowed since some DNS servers have such names.
fn is_endpoint(text: &str) -> bool {
    HostPort::parse_strict(text).is_some_and(|endpoint| {
        endpoint.host.contains(':')
            || endpoint
                .host
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
    })
}

/// Message of the condition `FieldNotSupported`, if a field is set that has no effect.
pub fn unsupported(store: &DataStore) -> Option<String> {
    store.spec.unsupported_message()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(yaml: &str) -> DataStore {
        let text = format!(
            "{{apiVersion: kamaji.clastix.io/v1alpha1, kind: DataStore, metadata: {{name: shared}}, spec: {yaml}}}"
        );
        serde_yaml::from_str(&text).unwrap()
    }

    const TLS: &str = "tlsConfig: {certificateAuthority: {certificate: {content: Q0E=}, \
                       privateKey: {secretReference: {name: ca, namespace: kube-system, keyPath: ca.key}}}, \
                       clientCertificate: {certificate: {content: Q0VSVA==}, privateKey: {content: S0VZ}}}";

    #[test]
    fn the_credentials_of_an_external_etcd_come_from_fields_and_secrets() {
        let store = store(&format!(
            "{{driver: etcd, endpoints: ['etcd-0:2379', '[fd00::1]:2379'], {TLS}}}"
        ));
        let Valid::External(external) = validate(&store).unwrap() else {
            panic!("not external");
        };
        assert_eq!(
            external.ca,
            Source::Inline {
                field: "spec.tlsConfig.certificateAuthority.certificate.content".to_owned(),
                bytes: b"CA".to_vec(),
            }
        );
        assert_eq!(
            external.ca_key,
            Source::Secret {
                field: "spec.tlsConfig.certificateAuthority.privateKey.secretReference".to_owned(),
                namespace: "kube-system".to_owned(),
                name: "ca".to_owned(),
                key: "ca.key".to_owned(),
            }
        );
    }

    #[test]
    fn an_invalid_field_is_named_with_its_fix() {
        let table = [
            (
                "{}".to_owned(),
                "spec.driver: required; set it to etcd, or set spec.managed for an etcd that the engine runs",
            ),
            (
                "{driver: PostgreSQL, endpoints: ['a:1']}".to_owned(),
                "spec.driver: PostgreSQL is not supported yet; use etcd",
            ),
            (
                "{driver: etcd}".to_owned(),
                "spec.endpoints: at least one endpoint is required, as host:port",
            ),
            (
                format!("{{driver: etcd, endpoints: ['https://a:1'], {TLS}}}"),
                "spec.endpoints[0]: \"https://a:1\" must be host:port, without a scheme",
            ),
            (
                format!("{{driver: etcd, endpoints: ['a'], {TLS}}}"),
                "spec.endpoints[0]: \"a\" must be host:port, without a scheme",
            ),
            (
                "{driver: etcd, endpoints: ['a:1']}".to_owned(),
                "spec.tlsConfig: required with driver etcd",
            ),
            (
                "{driver: etcd, endpoints: ['a:1'], tlsConfig: {certificateAuthority: {certificate: {}}}}"
                    .to_owned(),
                "spec.tlsConfig.certificateAuthority.privateKey: required with driver etcd",
            ),
            (
                format!(
                    "{{driver: etcd, endpoints: ['a:1'], {}}}",
                    TLS.replace("Q0E=", "\"*\"")
                ),
                "spec.tlsConfig.certificateAuthority.certificate.content: not base64; encode the PEM text",
            ),
            (
                "{managed: {replicas: 3}}".to_owned(),
                "spec.managed.replicas: 3 members are not supported yet; use 1",
            ),
            (
                "{managed: {storage: {size: big}}}".to_owned(),
                "spec.managed.storage.size: \"big\" is not a whole number of bytes; write it like 8Gi",
            ),
            (
                "{managed: {storage: {size: 1Mi}}}".to_owned(),
                "spec.managed.storage.size: 1Mi is too small; set at least 256Mi",
            ),
            (
                "{managed: {version: latest}}".to_owned(),
                "spec.managed.version: \"latest\" is not a version; write it like 3.6.16",
            ),
        ];
        for (spec, message) in table {
            assert_eq!(validate(&store(&spec)).unwrap_err().message, message, "{spec}");
        }
    }

    #[test]
    fn the_quota_of_a_managed_etcd_fits_its_volume() {
        for (size, quota) in [("1Gi", 768 << 20), ("8Gi", 6 << 30), ("100Gi", 8 << 30)] {
            let Valid::Managed(managed) =
                validate(&store(&format!("{{managed: {{storage: {{size: {size}}}}}}}"))).unwrap()
            else {
                panic!("not managed");
            };
            assert_eq!(managed.quota, quota, "{size}");
        }
    }

    #[test]
    fn a_name_that_cannot_name_pods_is_refused() {
        for name in ["a.b", "1a", "a-", &"a".repeat(41), ""] {
            assert!(managed(name, &ManagedEtcd::default()).is_err(), "{name}");
        }
        assert!(managed("default", &ManagedEtcd::default()).is_ok());
    }
}
