//! `[proxy_protocol]`: the types, and what in it cannot be together.

use std::time::Duration;

use super::{Config, Listen, Loaded, Network, Problem};

/// `[proxy_protocol]`: load balancers that name their clients in a header.
#[derive(Debug, Clone, PartialEq)]
pub struct ProxyProtocol {
    /// Those of the listening addresses where each connection begins with a header.
    pub listen: Vec<Listen>,
    /// The networks that the load balancers are in.
    pub trusted: Vec<Network>,
    /// For the header.
    pub timeout: Duration,
}

impl Default for ProxyProtocol {
    fn default() -> Self {
        let timeout = Duration::from_secs(5);
        ProxyProtocol { listen: Vec::new(), trusted: Vec::new(), timeout }
    }
}

/// Values that are each valid and cannot be together.
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
