//! `tracing.endpoint`: the address of an OpenTelemetry collector.

use hyper::Uri;

/// The URL that spans are sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The whole URL, with its path.
    pub uri: Uri,
    /// Host; an IPv6 address has its brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Whether the scheme is `https`.
    pub tls: bool,
}

impl Endpoint {
    /// Parses the value of `tracing.endpoint`; `None` if it is empty.
    ///
    /// # Errors
    /// A message for the operator if the value is no `http` or `https` URL, or names a user.
    pub fn parse(text: &str) -> Result<Option<Endpoint>, String> {
        if text.is_empty() {
            return Ok(None);
        }
        // The message must not quote the value: a password may follow the user.
        if text.contains('@') {
            return Err(
                "has a user in it, which is not sent; write \"http://127.0.0.1:4318\"".into()
            );
        }
        let wrong =
            || format!("\"{text}\" is no address of a collector; write \"http://127.0.0.1:4318\"");
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong()),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?.to_owned();
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 4318 });
        // https://opentelemetry.io/docs/specs/otlp/#otlphttp-request: the default path.
        let uri = match uri.path() {
            "" | "/" => format!("{}/v1/traces", text.trim_end_matches('/')).parse(),
            _ => Ok(uri),
        };
        Ok(Some(Endpoint { uri: uri.map_err(|_| wrong())?, host, port, tls }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        let parsed = |text: &str| {
            let endpoint = Endpoint::parse(text).expect(text).expect("an endpoint");
            (endpoint.host, endpoint.port, endpoint.uri.path().to_owned(), endpoint.tls)
        };
        let want =
            |host: &str, port, path: &str, tls| (host.to_owned(), port, path.to_owned(), tls);
        assert_eq!(parsed("http://c:1"), want("c", 1, "/v1/traces", false));
        assert_eq!(parsed("http://[::1]/"), want("[::1]", 4318, "/v1/traces", false));
        assert_eq!(parsed("https://c/otlp/v1/traces"), want("c", 443, "/otlp/v1/traces", true));
        assert_eq!(Endpoint::parse(""), Ok(None));
        let told = Endpoint::parse("http://me:hunter2@c:4318").expect_err("a user");
        assert!(!told.contains("hunter2"), "{told}");
        for wrong in ["c:4318", "grpc://c:4317", "http://", "/v1/traces"] {
            assert!(Endpoint::parse(wrong).is_err(), "{wrong}");
        }
    }
}
