//! Nodes and the zones that they are in, for `replicas.zones`.

use std::fmt;
use std::net::IpAddr;

use super::Address;
use super::value::{is_dns_name, parse_address};

/// A node and its zone: `10.0.0.1:7000=a`, or `10.0.0.1=a` for all nodes of that host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeZone {
    /// IP address or DNS name.
    pub host: String,
    /// TCP port; `None` is any port.
    pub port: Option<u16>,
    /// The zone's name.
    pub zone: String,
}

impl fmt::Display for NodeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NodeZone { host, port, zone } = self;
        match port {
            Some(port) => write!(f, "{}={zone}", Address { host: host.clone(), port: *port }),
            None => write!(f, "{host}={zone}"),
        }
    }
}

pub(super) fn parse_node_zone(text: &str) -> Result<NodeZone, String> {
    let wanted = "write \"host=zone\" or \"host:port=zone\"";
    let Some((node, zone)) = text.split_once('=') else {
        return Err(format!("\"{text}\" names no zone; {wanted}"));
    };
    let (node, zone) = (node.trim(), zone.trim());
    if zone.is_empty() || !zone.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("\"{zone}\" is no name of a zone (no spaces, not empty); {wanted}"));
    }
    let zone = zone.to_owned();
    let whole = node.parse::<IpAddr>().is_ok() || (!node.contains(':') && is_dns_name(node));
    if whole {
        return Ok(NodeZone { host: node.into(), port: None, zone });
    }
    let Address { host, port } = parse_address(node, 1)?;
    Ok(NodeZone { host, port: Some(port), zone })
}
