//! Tests of [`super`].

use std::collections::BTreeMap;

use k8s_openapi::ByteString;

use super::*;

const RSA_CA: &[u8] = include_bytes!("../testdata/rsa-ca.crt");
const EC_CA: &[u8] = include_bytes!("../testdata/ec-ca.crt");
const SEC1: &[u8] = include_bytes!("../testdata/ec-sec1.key");

fn found(bytes: &[u8]) -> Found<'_> {
    Found {
        location: "here".to_owned(),
        bytes,
    }
}

fn data(pairs: &[(&str, &[u8])]) -> BTreeMap<String, ByteString> {
    pairs
        .iter()
        .map(|(key, bytes)| ((*key).to_owned(), ByteString(bytes.to_vec())))
        .collect()
}

#[test]
fn keys_in_pkcs1_sec1_and_pkcs8_are_read() {
    for key in [
        &include_bytes!("../testdata/rsa-pkcs1.key")[..],
        include_bytes!("../testdata/rsa-pkcs8.key"),
    ] {
        Ca::from_pem(&found(RSA_CA), &found(key), None).unwrap();
    }
    for key in [SEC1, include_bytes!("../testdata/ec-pkcs8.key")] {
        Ca::from_pem(&found(EC_CA), &found(key), None).unwrap();
    }
}

#[test]
fn the_public_half_of_a_service_account_pair_is_recognised() {
    let public = found(include_bytes!("../testdata/sa.pub"));
    assert!(is_pair(&public, &found(include_bytes!("../testdata/rsa-pkcs1.key"))).unwrap());
    assert!(!is_pair(&public, &found(SEC1)).unwrap());
}

#[test]
fn a_users_ca_with_cluster_api_keys_only_is_used() {
    let ca = Ca::read(
        "demo/demo-ca",
        CLUSTER_CA_KEYS,
        &data(&[("tls.crt", EC_CA), ("tls.key", SEC1)]),
    )
    .unwrap();
    assert_eq!(ca.bundle_pem(), ca.certificate_pem());
    // openssl x509 -in ec-ca.crt -outform der | sha256sum
    assert_eq!(ca.fingerprint().len(), 64);
    assert_eq!(ca.certificate_pem().as_bytes(), EC_CA);
}

#[test]
fn a_key_that_does_not_match_is_named_with_its_secret() {
    let error = Ca::read(
        "demo/demo-ca",
        CLUSTER_CA_KEYS,
        &data(&[("tls.crt", RSA_CA), ("tls.key", SEC1)]),
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "Secret demo/demo-ca, key \"tls.key\" does not belong to the certificate in Secret demo/demo-ca, \
         key \"tls.crt\": put a matching pair there"
    );
}

#[test]
fn missing_and_unusable_key_material_is_named() {
    let read = |pairs: &[(&str, &[u8])]| {
        Ca::read("demo/demo-ca", CLUSTER_CA_KEYS, &data(pairs))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(read(&[]), "Secret demo/demo-ca has no key \"tls.crt\"");
    assert_eq!(
        read(&[("tls.crt", EC_CA)]),
        "Secret demo/demo-ca has no key \"tls.key\""
    );
    assert!(read(&[("tls.crt", b"hello"), ("tls.key", SEC1)]).contains("not a PEM certificate"));
    assert!(read(&[("tls.crt", EC_CA), ("tls.key", b"hello")]).contains("not a PEM private key"));
    let leaf = include_bytes!("../testdata/ec-leaf.crt");
    assert!(read(&[("tls.crt", leaf), ("tls.key", SEC1)]).contains("not a certificate authority"));
    let two = [EC_CA, RSA_CA].concat();
    assert!(read(&[("tls.crt", &two), ("tls.key", SEC1)]).contains("holds 2 certificates"));
    assert!(
        read(&[("tls.crt", EC_CA), ("tls.key", SEC1), ("ca.crt", RSA_CA)])
            .contains("does not contain the certificate")
    );
}

#[test]
fn a_bundle_of_two_keeps_the_signer_apart() {
    let two = [RSA_CA, EC_CA].concat();
    let ca = Ca::read(
        "demo/demo-ca",
        CLUSTER_CA_KEYS,
        &data(&[("tls.crt", EC_CA), ("tls.key", SEC1), ("ca.crt", &two)]),
    )
    .unwrap();
    assert_eq!(ca.certificate_pem().matches("BEGIN").count(), 1);
    assert_eq!(ca.bundle_pem().matches("BEGIN").count(), 2);
}

#[test]
fn nothing_secret_is_printed() {
    let text = String::from_utf8(SEC1.to_vec()).unwrap();
    assert_eq!(format!("{:?}", PrivateKeyPem::new(text)), "[redacted]");
    assert_eq!(format!("{:?}", SecretBytes::new(vec![1, 2, 3])), "[redacted]");
    let ca = Ca::from_pem(&found(EC_CA), &found(SEC1), None).unwrap();
    assert!(!format!("{ca:?}").contains("PRIVATE"));
}
