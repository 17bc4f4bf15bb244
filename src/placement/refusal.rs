//! Refusals: error replies of a node that say it has not executed the command, so that the command
//! may be sent again, to the same node or to another. Clients do not see them.
//!
//! <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#redirection-and-resharding>

use crate::cluster::{NodeAddr, Slot, SlotSpace};

/// Kinds of redirecting or retryable errors (metrics label `kind`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Redirection {
    Moved,
    Ask,
    TryAgain,
    ClusterDown,
    Loading,
    MasterDown,
    ReadOnly,
    NoScript,
}

impl Redirection {
    /// Number of kinds.
    pub const COUNT: usize = 8;
    /// Label values, indexed by discriminant.
    pub const NAMES: [&'static str; Self::COUNT] = [
        "moved",
        "ask",
        "tryagain",
        "clusterdown",
        "loading",
        "masterdown",
        "readonly",
        "noscript",
    ];
}

/// A refusal, with the target of a redirection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// MOVED: the slot belongs to the node at this address.
    Moved(Slot, NodeAddr),
    /// ASK: the command is to be sent to the node at this address once, behind ASKING.
    Ask(Slot, NodeAddr),
    /// Retryable without a target: TRYAGAIN, CLUSTERDOWN, LOADING, MASTERDOWN, READONLY, NOSCRIPT.
    Later(Redirection),
}

impl Refusal {
    /// Parses an error reply of the node `asked`, whose host is meant where a redirection names
    /// none, and whose upstream has these slots. `None`: the reply is not a refusal.
    pub fn parse(frame: &[u8], asked: &NodeAddr, slots: SlotSpace) -> Option<Refusal> {
        let text = crate::resp::reply::error_text(frame)?;
        let mut words = text.splitn(4, |&b| b == b' ');
        Some(match words.next()? {
            b"MOVED" => {
                let (slot, addr) = target(words.next()?, words.next()?, asked, slots)?;
                Refusal::Moved(slot, addr)
            }
            b"ASK" => {
                let (slot, addr) = target(words.next()?, words.next()?, asked, slots)?;
                Refusal::Ask(slot, addr)
            }
            // Whole texts are compared, as a script can return any error code after it has changed
            // data.
            _ => Refusal::Later(LATER.iter().find(|(start, _)| text.starts_with(start))?.1),
        })
    }

    /// The kind of refusal, for the metrics.
    pub fn kind(&self) -> Redirection {
        match self {
            Refusal::Moved(..) => Redirection::Moved,
            Refusal::Ask(..) => Redirection::Ask,
            Refusal::Later(kind) => *kind,
        }
    }
}

/// Beginnings of the retryable errors without a target.
const LATER: &[(&[u8], Redirection)] = &[
    (b"TRYAGAIN Multiple keys request during rehashing of slot", Redirection::TryAgain),
    (b"CLUSTERDOWN The cluster is down", Redirection::ClusterDown),
    (b"CLUSTERDOWN Hash slot not served", Redirection::ClusterDown),
    (b"LOADING Redis is loading the dataset in memory", Redirection::Loading),
    (b"LOADING Valkey is loading the dataset in memory", Redirection::Loading),
    (b"MASTERDOWN Link with MASTER is down", Redirection::MasterDown),
    (b"READONLY You can't write against a read only replica", Redirection::ReadOnly),
    // Valkey's text is shorter. The worker checks more before it sends the script (`heals`).
    (b"NOSCRIPT No matching script.", Redirection::NoScript),
];

/// Parses the slot and the address of a redirection (`3999`, `127.0.0.1:6381`). IPv6 addresses have
/// no brackets here; an empty host or `?` means the host of the node that was `asked`.
fn target(
    slot: &[u8],
    addr: &[u8],
    asked: &NodeAddr,
    slots: SlotSpace,
) -> Option<(Slot, NodeAddr)> {
    let slot: u16 = std::str::from_utf8(slot).ok()?.parse().ok()?;
    let (host, port) = std::str::from_utf8(addr).ok()?.rsplit_once(':')?;
    if slot >= slots.len() {
        return None;
    }
    let host = if host.is_empty() || host == "?" { asked.host.clone() } else { host.into() };
    let port = port.parse().ok().filter(|&port| port != 0)?;
    Some((slots.slot(slot), NodeAddr { host, port }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Refusal> {
        let asked = NodeAddr { host: "asked".into(), port: 1 };
        Refusal::parse(format!("-{text}\r\n").as_bytes(), &asked, SlotSpace::CLUSTER)
    }

    #[test]
    fn redirections() {
        let to = |host: &str, port| NodeAddr { host: host.into(), port };
        assert_eq!(
            parse("MOVED 3999 127.0.0.1:6381"),
            Some(Refusal::Moved(Slot(3999), to("127.0.0.1", 6381)))
        );
        assert_eq!(parse("ASK 1 ::1:7000"), Some(Refusal::Ask(Slot(1), to("::1", 7000))));
        assert_eq!(parse("MOVED 1 :7000"), Some(Refusal::Moved(Slot(1), to("asked", 7000))));
        assert_eq!(parse("MOVED 1 ?:7000"), Some(Refusal::Moved(Slot(1), to("asked", 7000))));
        assert_eq!(
            parse("TRYAGAIN Multiple keys request during rehashing of slot"),
            Some(Refusal::Later(Redirection::TryAgain))
        );
    }

    #[test]
    fn a_redirection_is_about_a_slot_of_its_own_upstream() {
        let asked = NodeAddr { host: "asked".into(), port: 1 };
        let parse = |slots| Refusal::parse(b"-MOVED 5 a:7000\r\n", &asked, slots);
        let to = NodeAddr { host: "a".into(), port: 7000 };
        let second = SlotSpace::CLUSTER.from(16385);
        assert_eq!(parse(second), Some(Refusal::Moved(Slot(16390), to)));
        assert_eq!(parse(SlotSpace::ONE.from(16384)), None, "a single server redirects nobody");
    }

    #[test]
    fn errors_that_are_the_clients_business() {
        for text in [
            "ERR no",
            "WRONGTYPE x",
            "MOVED",
            "MOVED x y",
            "MOVED 16384 a:1",
            "MOVED 1 a",
            "OOM x",
            "TRYAGAIN x",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
