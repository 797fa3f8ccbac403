//! Who answers at an address: one request without credentials, in which the server has to prove that a CA signed its
//! certificate.

use std::{error::Error as StdError, io};

use http::Request;
use rustls::CertificateError;

use super::{
    client::{ANSWER, built, configured},
    error::Error,
};

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A server with a certificate of the CA for this address, whatever it answers.
    Ours,
    /// A server whose certificate the CA signed, and that does not name this address.
    OtherNames,
    /// Another server.
    Another,
    /// Nobody who speaks TLS.
    Silence,
}

/// Asks `server`, an `https://` URL, for `/readyz`. Takes 10 s at most.
///
/// # Errors
/// When the CA or the URL cannot be used.
pub async fn ask(server: &str, ca_pem: &str) -> Result<Answer, Error> {
    let client = built(configured(server, ca_pem, "probe")?)?;
    let request = Request::get("/readyz")
        .body(Vec::new())
        .map_err(|error| Error::Credentials(error.to_string()))?;
    let answer = tokio::time::timeout(ANSWER, client.request_text(request)).await;
    Ok(match answer {
        Ok(Ok(_) | Err(kube::Error::Api(_))) => Answer::Ours,
        Ok(Err(error)) => tls_failure(&error).unwrap_or(Answer::Silence),
        Err(_) => Answer::Silence,
    })
}

/// What TLS says about the server, if the connection came that far.
fn tls_failure(error: &kube::Error) -> Option<Answer> {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return judged(tls);
        }
        // The source of an I/O error is that of the error inside, which itself would be left out.
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = inside.map_or_else(|| error.source(), |inside| Some(inside));
    }
    None
}

/// What is wrong with the certificate; nothing where there is none.
fn judged(error: &rustls::Error) -> Option<Answer> {
    match error {
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => Some(Answer::OtherNames),
        rustls::Error::InvalidCertificate(_) => Some(Answer::Another),
        _ => None,
    }
}
