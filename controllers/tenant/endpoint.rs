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
    /// Another server: what is wrong with its certificate, or that it has none.
    Another(String),
    /// Nobody, as far as this process can tell.
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
        Ok(Err(error)) => tls_failure(&error).map_or(Answer::Silence, Answer::Another),
        Err(_) => Answer::Silence,
    })
}

/// What TLS says about the server, if the connection came that far.
fn tls_failure(error: &kube::Error) -> Option<String> {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(judged(tls).to_owned());
        }
        // The source of an I/O error is that of the error inside, which itself would be left out.
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = inside.map_or_else(|| error.source(), |inside| Some(inside));
    }
    None
}

fn judged(error: &rustls::Error) -> &'static str {
    match error {
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "its certificate is for other names",
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => "its certificate is of another CA",
        rustls::Error::InvalidCertificate(_) => "its certificate is not valid",
        _ => "it does not speak TLS as an API server does",
    }
}
