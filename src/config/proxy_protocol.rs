//! `[proxy_protocol]`: its type, and the conflicts between its values.

use std::time::Duration;

use super::{Config, Listen, Loaded, Network, Problem};

/// `[proxy_protocol]`: load balancers that name their clients in a header.
#[derive(Debug, Clone, PartialEq)]
pub struct ProxyProtocol {
    /// The listen addresses whose connections begin with a header.
    pub listen: Vec<Listen>,
    /// Networks of the load balancers.
    pub trusted: Vec<Network>,
    /// Limit for the arrival of the header.
    pub timeout: Duration,
}

impl Default for ProxyProtocol {
    fn default() -> Self {
        let timeout = Duration::from_secs(5);
        ProxyProtocol { listen: Vec::new(), trusted: Vec::new(), timeout }
    }
}

/// The problems of values that are valid each, but not together.
pub(super) fn conflicts(loaded: &Loaded) -> Vec<Problem> {
    let config = &loaded.config;
    let mut problems = Vec::new();
    let mut problem = |key: &str, reason: String| {
        let origin = loaded.origin(key).clone();
        problems.push(Problem { origin, key: key.into(), reason });
    };
    for listen in &config.proxy_protocol.listen {
        if !is_listened_on(config, listen) {
            let text = format!(
                "\"{listen}\" is not among the addresses that are listened on; write one of listen or \
                 tls.downstream.listen, as it is written there"
            );
            problem("proxy_protocol.listen", text);
        }
    }
    let is_tcp = |listen: &Listen| matches!(listen, Listen::Tcp(_));
    if config.proxy_protocol.listen.iter().any(is_tcp) && config.proxy_protocol.trusted.is_empty() {
        let text = "is empty, so that no connection to proxy_protocol.listen would be accepted; \
                    write the load balancers' networks, such as [\"10.0.0.0/8\"]";
        problem("proxy_protocol.trusted", text.into());
    }
    problems
}

fn is_listened_on(config: &Config, listen: &Listen) -> bool {
    let is_tls = |address| config.tls.downstream.listen.contains(address);
    config.listen.contains(listen) || matches!(listen, Listen::Tcp(address) if is_tls(address))
}
