//! Errors of TLS as texts for operators, and as results for the counters.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use super::{HandshakeOutcome, Side};

/// The error of rustls inside the error of a read or write, if there is one.
pub(super) fn of_io(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref::<Error>()
}

/// The result under which a handshake that ended with `error` is counted.
pub fn outcome(error: &io::Error) -> HandshakeOutcome {
    match of_io(error) {
        None if error.kind() == io::ErrorKind::TimedOut => HandshakeOutcome::Timeout,
        None => HandshakeOutcome::Closed,
        Some(Error::InvalidMessage(message)) => match message {
            InvalidMessage::UnknownProtocolVersion => HandshakeOutcome::Incompatible,
            _ => HandshakeOutcome::NotTls,
        },
        Some(Error::PeerIncompatible(_)) => HandshakeOutcome::Incompatible,
        Some(Error::InvalidCertificate(_) | Error::NoCertificatesPresented) => {
            HandshakeOutcome::Certificate
        }
        Some(Error::AlertReceived(alert)) if is_about_certificate(*alert) => {
            HandshakeOutcome::Certificate
        }
        Some(Error::AlertReceived(
            AlertDescription::ProtocolVersion
            | AlertDescription::HandshakeFailure
            | AlertDescription::InsufficientSecurity,
        )) => HandshakeOutcome::Incompatible,
        Some(_) => HandshakeOutcome::Other,
    }
}

fn is_about_certificate(alert: AlertDescription) -> bool {
    use AlertDescription as Alert;
    matches!(
        alert,
        Alert::NoCertificate
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::CertificateRequired
            | Alert::DecryptError
    )
}

/// The text of `error`, with the configuration key to look at. `name` is the one that the node's
/// certificate should have; unused for clients.
pub fn words(error: &io::Error, side: Side, name: &str) -> String {
    let Some(error) = of_io(error) else { return error.to_string() };
    let (peer, ca) = match side {
        Side::Downstream => ("the client", "tls.downstream.client_ca"),
        Side::Upstream => ("the node", "tls.upstream.ca"),
        // It asks for no certificate.
        Side::Admin => ("the client", "tls.admin"),
    };
    match error {
        Error::InvalidCertificate(reason) => certificate(reason, peer, ca, name),
        Error::NoCertificatesPresented => {
            format!("{peer} shows no certificate, and tls.downstream.client_auth = \"required\"")
        }
        Error::InvalidMessage(_) if side == Side::Downstream => format!(
            "{peer} does not speak TLS, or begins with a PROXY protocol header and this address is \
             not in proxy_protocol.listen ({error})"
        ),
        Error::InvalidMessage(_) => format!("{peer} does not speak TLS ({error})"),
        Error::AlertReceived(alert) if is_about_certificate(*alert) => {
            let ours = format!("tls.{}.cert", side.name());
            format!("{peer} refuses slotway's certificate or misses one, see {ours} ({alert:?})")
        }
        Error::PeerIncompatible(_) | Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            let key = format!("tls.{}.min_version", side.name());
            format!(
                "{peer} and slotway have no version or cipher of TLS in common, see {key} ({error})"
            )
        }
        other => other.to_string(),
    }
}

fn certificate(reason: &CertificateError, peer: &str, ca: &str, name: &str) -> String {
    use CertificateError as E;
    let whose = format!("the certificate of {peer}");
    match reason {
        E::UnknownIssuer => format!("{whose} is signed by none of the CAs in {ca}"),
        E::NotValidForName => format!("{whose} is not for the name {name}"),
        E::NotValidForNameContext { presented, .. } if presented.is_empty() => format!(
            "{whose} is not for the name {name}: it has no subject alternative names, and the \
             common name does not count"
        ),
        E::NotValidForNameContext { presented, .. } => {
            let presented = presented.join(", ");
            format!("{whose} is not for the name {name}, only for {presented}")
        }
        E::Expired | E::ExpiredContext { .. } => format!("{whose} has expired ({reason})"),
        E::NotValidYet | E::NotValidYetContext { .. } => {
            format!("{whose} is not valid yet ({reason})")
        }
        E::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            format!("{whose} is one of a CA, which cannot be a server's or a client's")
        }
        other => format!("{whose} is not valid: {other}"),
    }
}
