//! What went wrong in a TLS handshake, in words that name what an operator can mend.
//!
//! Invariant: the side that refused says why; the other one says that it was refused, and by whom.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

/// A failed handshake as one phrase.
pub(crate) fn explain(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => certificate(error),
        Error::NoCertificatesPresented => "it shows no certificate".to_owned(),
        Error::AlertReceived(alert) => alert_text(*alert),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "it does not speak TLS: is mTLS (--ha-tls-cert) set on both nodes?".to_owned()
        }
        Error::InconsistentKeys(_) => "the private key is not this certificate's".to_owned(),
        other => other.to_string(),
    }
}

fn certificate(error: &CertificateError) -> String {
    match error {
        // A CA of the same name with another key gives a bad signature.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is not of this pair's CA (--ha-tls-ca)".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("its certificate is another node's: {error}")
        }
        other => format!("its certificate is not accepted: {other}"),
    }
}

fn alert_text(alert: AlertDescription) -> String {
    let why = match alert {
        AlertDescription::UnknownCA | AlertDescription::DecryptError => "is not of its CA",
        AlertDescription::CertificateExpired => "has expired",
        AlertDescription::CertificateRequired => "is missing",
        other => return format!("it refused the TLS handshake: {other:?}"),
    };
    format!("it refused this node: this node's certificate {why}")
}
