//! A node's refusals that are not the client's business: the command was not executed, and may be
//! sent again, there or elsewhere.
//!
//! <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#redirection-and-resharding>

use crate::cluster::{NodeAddr, Slot};

/// The kinds of redirecting or retryable errors that a node can answer with.
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
    /// How many kinds there are.
    pub const COUNT: usize = 8;
    /// Label values, by discriminant.
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

/// What a node refused, and where it points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The slot is another node's now.
    Moved(Slot, NodeAddr),
    /// Ask that node this once, with ASKING.
    Ask(Slot, NodeAddr),
    /// Try again later: TRYAGAIN, CLUSTERDOWN, LOADING, MASTERDOWN, READONLY, NOSCRIPT.
    Later(Redirection),
}

impl Refusal {
    /// Understands an error reply; `asked` is the node that sent it, meant where the reply names
    /// no host.
    pub fn parse(frame: &[u8], asked: &NodeAddr) -> Option<Refusal> {
        let text = crate::resp::reply::error_text(frame)?;
        let mut words = text.splitn(4, |&b| b == b' ');
        Some(match words.next()? {
            b"MOVED" => {
                let (slot, addr) = target(words.next()?, words.next()?, asked)?;
                Refusal::Moved(slot, addr)
            }
            b"ASK" => {
                let (slot, addr) = target(words.next()?, words.next()?, asked)?;
                Refusal::Ask(slot, addr)
            }
            // The node's own refusals only: a script can answer with any code it likes, after it
            // has done something.
            _ => Refusal::Later(LATER.iter().find(|(start, _)| text.starts_with(start))?.1),
        })
    }

    /// For the metrics.
    pub fn kind(&self) -> Redirection {
        match self {
            Refusal::Moved(..) => Redirection::Moved,
            Refusal::Ask(..) => Redirection::Ask,
            Refusal::Later(kind) => *kind,
        }
    }
}

/// How the refusals begin that say "not now".
const LATER: &[(&[u8], Redirection)] = &[
    (b"TRYAGAIN Multiple keys request during rehashing of slot", Redirection::TryAgain),
    (b"CLUSTERDOWN The cluster is down", Redirection::ClusterDown),
    (b"CLUSTERDOWN Hash slot not served", Redirection::ClusterDown),
    (b"LOADING Redis is loading the dataset in memory", Redirection::Loading),
    (b"LOADING Valkey is loading the dataset in memory", Redirection::Loading),
    (b"MASTERDOWN Link with MASTER is down", Redirection::MasterDown),
    (b"READONLY You can't write against a read only replica", Redirection::ReadOnly),
    // Valkey's text is shorter. See `heals` in the worker for what else it takes.
    (b"NOSCRIPT No matching script.", Redirection::NoScript),
];

/// `3999` and `127.0.0.1:6381`; an IPv6 address has no brackets here; an empty or unknown (`?`)
/// host is the one that was asked.
fn target(slot: &[u8], addr: &[u8], asked: &NodeAddr) -> Option<(Slot, NodeAddr)> {
    let slot: u16 = std::str::from_utf8(slot).ok()?.parse().ok()?;
    let (host, port) = std::str::from_utf8(addr).ok()?.rsplit_once(':')?;
    if slot >= crate::cluster::SLOTS {
        return None;
    }
    let host = if host.is_empty() || host == "?" { asked.host.clone() } else { host.into() };
    let port = port.parse().ok().filter(|&port| port != 0)?;
    Some((Slot(slot), NodeAddr { host, port }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Refusal> {
        let asked = NodeAddr { host: "asked".into(), port: 1 };
        Refusal::parse(format!("-{text}\r\n").as_bytes(), &asked)
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
