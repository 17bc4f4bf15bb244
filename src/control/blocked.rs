//! Checks of silent connections whose first command may block the connection or keep the node busy.
//!
//! A node whose script runs longer than `busy-reply-threshold` answers BUSY, except to commands
//! behind the script on the same connection. The workers are told, and send those elsewhere that
//! need not stay.
//!
//! A connection is shared by many clients, and a command that blocks it holds all of them up. The
//! flag `blocking` in COMMAND marks such commands, but modules may forget it. A late reply proves
//! nothing: the node may be busy, or the network slow. So when commands wait behind a module's, the
//! node is asked on another connection: CLIENT LIST marks a connection that is blocked and names
//! its command. A node that is merely busy with the command answers when it is done, and then
//! reports no block.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tracing::{debug, warn};

use super::briefing::{Learned, MAX_LEARNED};
use super::node::{AskError, NodeConn};
use super::pool::Pool;
use crate::mailbox::{BusyNode, ToWorker};
use crate::resp::reply::{error_text, text};

/// Limit on nodes that are checked at the same time; workers ask again for further ones.
const MAX_CHECKS: usize = 64;

/// The cause of a connection's silence, according to its node.
enum Cause {
    /// A script runs: the node answers BUSY.
    Busy,
    /// This command blocks the connection.
    Blocked(String),
    /// Neither: no cause is known.
    Nothing,
}

/// Checks whether connections are blocked or nodes are busy. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BlockWatcher {
    pool: Arc<Pool>,
    under_way: Arc<Mutex<HashSet<SocketAddr>>>,
}

impl BlockWatcher {
    /// A watcher that reports to the workers of `pool`.
    pub fn new(pool: Arc<Pool>) -> Self {
        BlockWatcher { pool, under_way: Arc::default() }
    }

    /// Checks whether `node` is busy and, if `module`, whether the connection from `own` is blocked
    /// by a module's command. Does nothing while the node is being checked.
    pub fn check(&self, node: SocketAddr, own: SocketAddr, module: bool) {
        {
            let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            if under_way.len() >= MAX_CHECKS || !under_way.insert(node) {
                return;
            }
        }
        let watcher = self.clone();
        tokio::spawn(async move {
            let asked = Instant::now();
            let found = watcher.ask(node, module.then_some(own)).await;
            watcher.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&node);
            match found {
                Ok(Cause::Blocked(name)) => watcher.learn(node, &name),
                Ok(Cause::Busy) => {
                    debug!(%node, "a script keeps the node busy");
                    watcher.pool.tell(|| ToWorker::Busy(BusyNode { node, asked }));
                }
                Ok(Cause::Nothing) => {
                    debug!(%node, "a connection on which commands wait is not blocked")
                }
                Err(error) => debug!(%node, %error, "whether a connection is blocked is not known"),
            }
        });
    }

    /// Whether the node is busy, or else which command blocks the connection from `own`.
    async fn ask(&self, node: SocketAddr, own: Option<SocketAddr>) -> Result<Cause, AskError> {
        let name = self.pool.server_name(node);
        // A password is for its own upstream only.
        let Some(upstream) = self.pool.upstream_of(node) else { return Ok(Cause::Nothing) };
        let access = self.pool.access(upstream);
        let mut conn = NodeConn::connect(node, &name, "", &access).await?;
        let reply = conn.ask(&["PING"]).await?;
        if error_text(&reply).is_some_and(|text| text.starts_with(b"BUSY ")) {
            return Ok(Cause::Busy);
        }
        let Some(own) = own else { return Ok(Cause::Nothing) };
        let reply = conn.ask(&["CLIENT", "LIST", "TYPE", "NORMAL"]).await?;
        if let Some(error) = error_text(&reply) {
            debug!(%node, error = %String::from_utf8_lossy(error), "CLIENT LIST is refused");
        }
        let list = text(&reply).map(String::from_utf8_lossy).unwrap_or_default();
        let command = blocking_command(&list, own).map(str::to_owned);
        Ok(command.map_or(Cause::Nothing, Cause::Blocked))
    }

    fn learn(&self, node: SocketAddr, command: &str) {
        match self.pool.announce().learn_blocking(command) {
            Learned::Now => warn!(
                %node,
                command,
                "a module's command blocks its connection without the flag \"blocking\" in COMMAND, \
                 and held other clients up: from now on it goes over connections lent to its \
                 clients; name it in commands.blocking to have that from the start"
            ),
            Learned::NotConcerned => {}
            Learned::TooMany => debug!(%node, command, limit = MAX_LEARNED, "not learned"),
        }
    }
}

/// The command that blocks the connection from `own`, according to CLIENT LIST; `None` if it is not
/// blocked or not listed.
fn blocking_command(list: &str, own: SocketAddr) -> Option<&str> {
    fn value<'l>(line: &'l str, name: &str) -> Option<&'l str> {
        line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }
    let own = own.to_string();
    let line = list.lines().find(|line| value(line, "addr") == Some(&*own))?;
    value(line, "flags").filter(|flags| flags.contains('b'))?;
    value(line, "cmd").filter(|cmd| !cmd.is_empty() && *cmd != "NULL")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_says_which_connection_is_blocked_and_by_what() {
        let list = "id=3 addr=127.0.0.1:40001 laddr=127.0.0.1:7000 fd=8 name=addr=x flags=N db=0 cmd=get user=default\n\
                    id=4 addr=127.0.0.1:40002 laddr=127.0.0.1:7000 fd=9 name= flags=b db=0 cmd=graph.query user=default\n\
                    id=5 addr=[::1]:40002 laddr=[::1]:7000 fd=9 name= flags=xb db=0 cmd=m.c|sub user=default\n";
        let command = |own: &str| blocking_command(list, own.parse().unwrap());
        assert_eq!(command("127.0.0.1:40001"), None, "not blocked");
        assert_eq!(command("127.0.0.1:40002"), Some("graph.query"));
        assert_eq!(command("[::1]:40002"), Some("m.c|sub"));
        assert_eq!(command("127.0.0.1:40003"), None, "not there");
        assert_eq!(command("127.0.0.1:7000"), None, "another field");
    }
}
