//! The handshake: the commands that are sent on a new connection to a node before any other, and
//! the judgement of their replies. Workers, the pub/sub hub and the control thread share it. No I/O.
//! Not here: the TLS handshake before it ([`crate::tls`]), its time limit (`timeouts.connect`), the
//! pause before another attempt ([`crate::backoff`]).
//!
//! | connection of | commands | error replies that it survives |
//! |---|---|---|
//! | a worker or the hub | HELLO or AUTH, CLIENT SETNAME, CLIENT ID, SELECT, READONLY, CLUSTER MYID | BUSY; to CLUSTER MYID all but LOADING |
//! | a worker, for a user of the cluster | HELLO, READONLY, CLUSTER MYID | to CLUSTER MYID all but LOADING |
//! | the control thread | AUTH, CLIENT SETNAME, CLUSTER MYID | all but those to AUTH |

use std::collections::VecDeque;

use bytes::Bytes;
use thiserror::Error;

use crate::buf::SendQueue;
use crate::cluster::is_node_id;
use crate::resp::reply::{error_text, integer, text};
use crate::resp::tree::decode_whole;
use crate::resp::{Protocol, write};

/// Why a handshake has failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HandshakeError {
    /// The node refused a command: its error. Lasts until the credentials or the ACL change.
    #[error("{0}")]
    Refused(String),
    /// The node is loading its data and does not tell its ID: its error. Passes by itself.
    #[error("{0}")]
    Loading(String),
    /// Another node answered than the topology has at this address.
    #[error("another node answers there: {found}, not {expected}")]
    WrongNode {
        /// The ID of the node that answered.
        found: Box<str>,
        /// The ID that the topology has.
        expected: Box<str>,
    },
}

/// A command of the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// HELLO, AUTH, SELECT or READONLY: only errors in the reply count.
    Plain,
    /// HELLO, whose reply has the CLIENT ID.
    Hello,
    /// CLIENT SETNAME.
    Name,
    /// CLUSTER MYID.
    NodeId,
    /// CLIENT ID.
    ClientId,
}

/// What the connection is for, which decides which error replies the handshake survives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Purpose {
    /// Commands or subscriptions as slotway's own user.
    #[default]
    Traffic,
    /// Commands as a user of the cluster.
    ClusterUser,
    /// Questions of the control thread.
    Control,
}

impl Purpose {
    /// Whether the connection is usable although the node answered `step` with `error`.
    fn survives(self, step: Step, error: &[u8]) -> bool {
        match (self, step) {
            (Purpose::Control, Step::Name | Step::NodeId) => true,
            // A node that does not tell its ID is taken for the right one. One that loads its data
            // would answer as soon as it has done so, and may then turn out to be another.
            (_, Step::NodeId) => !error.starts_with(b"LOADING "),
            // While a script runs the node answers nothing but what ends the script, and accepts
            // the connection all the same.
            (Purpose::Traffic, _) => error.starts_with(b"BUSY "),
            // A busy node has not checked the password, and a connection that it has not let in may
            // be the default user's.
            (Purpose::ClusterUser | Purpose::Control, _) => false,
        }
    }
}

/// A handshake in progress.
#[derive(Debug, Default)]
pub struct Handshake {
    /// The commands, to be written without waiting for replies.
    pub out: SendQueue,
    /// The commands whose replies are awaited, in order.
    steps: VecDeque<Step>,
    purpose: Purpose,
    /// The ID that the node must have.
    expected: Box<str>,
    client_id: Option<i64>,
    unverified: bool,
}

impl Handshake {
    /// A handshake of slotway's own user for commands or subscriptions. An empty user stands for
    /// the cluster's default user, an empty password for none; an empty `name` is not set.
    /// `identify` asks for the CLIENT ID of the connection.
    pub fn new(
        protocol: Protocol,
        (user, password): (&[u8], &[u8]),
        name: &str,
        identify: bool,
    ) -> Self {
        let mut shake = Handshake::default();
        let user_or_default = if user.is_empty() { b"default" } else { user };
        match (protocol, user.is_empty() && password.is_empty()) {
            (Protocol::Resp3, true) => shake.say(Step::Plain, &[b"HELLO", b"3"]),
            (Protocol::Resp3, false) => {
                let hello: [&[u8]; 5] = [b"HELLO", b"3", b"AUTH", user_or_default, password];
                shake.say(Step::Plain, &hello);
            }
            (Protocol::Resp2, true) => {}
            (Protocol::Resp2, false) if user.is_empty() => {
                shake.say(Step::Plain, &[b"AUTH", password]);
            }
            (Protocol::Resp2, false) => shake.say(Step::Plain, &[b"AUTH", user, password]),
        }
        if !name.is_empty() {
            shake.say(Step::Name, &[b"CLIENT", b"SETNAME", name.as_bytes()]);
        }
        if identify {
            shake.say(Step::ClientId, &[b"CLIENT", b"ID"]);
        }
        shake
    }

    /// A handshake of a user of the cluster. HELLO carries everything, because the user may have no
    /// right to other commands, and its reply has the CLIENT ID.
    pub fn for_user(protocol: Protocol, (user, password): (&[u8], &[u8]), name: &str) -> Self {
        let version: &[u8] = if protocol == Protocol::Resp3 { b"3" } else { b"2" };
        let mut hello = vec![b"HELLO".as_slice(), version];
        if !user.is_empty() || !password.is_empty() {
            hello.extend([b"AUTH".as_slice(), user, password]);
        }
        if !name.is_empty() {
            hello.extend([b"SETNAME".as_slice(), name.as_bytes()]);
        }
        let mut shake = Handshake { purpose: Purpose::ClusterUser, ..Handshake::default() };
        shake.say(Step::Hello, &hello);
        shake
    }

    /// A handshake of slotway's own user for the control thread's questions, in RESP2. `node` is as
    /// for [`Handshake::expect_node`].
    pub fn for_control(credentials: (&[u8], &[u8]), name: &str, node: &str) -> Self {
        let mut shake = Handshake::new(Protocol::Resp2, credentials, name, false);
        shake.purpose = Purpose::Control;
        shake.expect_node(node);
        shake
    }

    fn say(&mut self, step: Step, args: &[&[u8]]) {
        let mut command = Vec::new();
        write::request(&mut command, args);
        self.out.push_shared(Bytes::from(command), 1);
        self.steps.push_back(step);
    }

    /// Adds CLUSTER MYID: the node must have the ID `expected`. Without effect where that is no ID,
    /// as for a node that is known by its address only.
    pub fn expect_node(&mut self, expected: &str) {
        if is_node_id(expected) {
            self.expected = expected.into();
            self.say(Step::NodeId, &[b"CLUSTER", b"MYID"]);
        }
    }

    /// Adds SELECT.
    pub fn select(&mut self, database: u16) {
        self.say(Step::Plain, &[b"SELECT", database.to_string().as_bytes()]);
    }

    /// Adds READONLY.
    pub fn read_only(&mut self) {
        self.say(Step::Plain, &[b"READONLY"]);
    }

    /// The CLIENT ID of the connection, if it was asked for and told.
    pub fn client_id(&self) -> Option<i64> {
        self.client_id
    }

    /// Whether the ACL forbids the user to ask for the node's ID, so that the node was not
    /// verified.
    pub fn is_unverified(&self) -> bool {
        self.unverified
    }

    /// Whether no reply is awaited any more.
    pub fn is_done(&self) -> bool {
        self.steps.is_empty()
    }

    /// Takes the next reply. `true`: it was the last one.
    ///
    /// # Errors
    /// The connection must not be used.
    pub fn reply(&mut self, reply: &[u8]) -> Result<bool, HandshakeError> {
        let step = self.steps.front().copied().unwrap_or(Step::Plain);
        match error_text(reply) {
            Some(error) if self.purpose.survives(step, error) => {
                self.unverified |= step == Step::NodeId && error.starts_with(b"NOPERM ");
            }
            Some(error) => {
                let error = String::from_utf8_lossy(error).into_owned();
                return Err(match step {
                    Step::NodeId => HandshakeError::Loading(error),
                    _ => HandshakeError::Refused(error),
                });
            }
            None => self.accept(step, reply)?,
        }
        self.steps.pop_front();
        Ok(self.steps.is_empty())
    }

    fn accept(&mut self, step: Step, reply: &[u8]) -> Result<(), HandshakeError> {
        match step {
            Step::Plain | Step::Name => {}
            Step::Hello => {
                self.client_id = decode_whole(reply).ok().and_then(|v| v.field("id")?.int());
            }
            Step::ClientId => self.client_id = integer(reply),
            Step::NodeId => verify_node_id(reply, &self.expected)?,
        }
        Ok(())
    }
}

/// Compares a node's reply to CLUSTER MYID with the ID that the topology has at its address. A
/// reply that is no ID, an error for example, proves nothing and passes.
///
/// # Errors
/// [`HandshakeError::WrongNode`].
pub fn verify_node_id(reply: &[u8], expected: &str) -> Result<(), HandshakeError> {
    let found = text(reply).map(String::from_utf8_lossy).unwrap_or_default();
    if is_node_id(&found) && *found != *expected {
        return Err(HandshakeError::WrongNode {
            found: (*found).into(),
            expected: expected.into(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_node_has_not_let_a_user_in() {
        let busy = b"-BUSY Redis is busy running a script.\r\n";
        let mut own = Handshake::new(Protocol::Resp3, (b"", b""), "", false);
        assert_eq!(own.reply(busy), Ok(true));
        let mut user = Handshake::for_user(Protocol::Resp3, (b"u", b"pw"), "");
        let refused = user.reply(busy).unwrap_err().to_string();
        assert!(refused.starts_with("BUSY"), "{refused}");
        assert!(!user.is_done());
    }

    #[test]
    fn the_node_must_be_the_one_that_is_meant() {
        let (ours, other) = ("a".repeat(40), "b".repeat(40));
        let id = |id: &str| format!("$40\r\n{id}\r\n").into_bytes();
        let shake = |reply: &[u8]| {
            let mut shake = Handshake::new(Protocol::Resp2, (b"", b""), "", true);
            shake.expect_node(&ours);
            assert_eq!(shake.reply(b":7\r\n"), Ok(false));
            shake.reply(reply).map(|done| (done, shake.client_id(), shake.is_unverified()))
        };
        assert_eq!(shake(&id(&ours)), Ok((true, Some(7), false)));
        let (found, expected) = (other.as_str().into(), ours.as_str().into());
        assert_eq!(shake(&id(&other)), Err(HandshakeError::WrongNode { found, expected }));
        assert_eq!(shake(b"-NOPERM this user has no permissions\r\n"), Ok((true, Some(7), true)));
        assert_eq!(shake(b"-BUSY Redis is busy\r\n"), Ok((true, Some(7), false)));
        let loading = shake(b"-LOADING Redis is loading the dataset in memory\r\n");
        assert!(matches!(loading, Err(HandshakeError::Loading(_))), "{loading:?}");
    }

    #[test]
    fn the_control_thread_needs_no_more_than_its_credentials() {
        let id = "a".repeat(40);
        let shake = || Handshake::for_control((b"u", b"pw"), "slotway", &id);
        let mut commands = Vec::new();
        shake().out.write_to(&mut commands).unwrap();
        let expected = "*3\r\n$4\r\nAUTH\r\n$1\r\nu\r\n$2\r\npw\r\n\
                        *3\r\n$6\r\nCLIENT\r\n$7\r\nSETNAME\r\n$7\r\nslotway\r\n\
                        *2\r\n$7\r\nCLUSTER\r\n$4\r\nMYID\r\n";
        assert_eq!(String::from_utf8(commands).unwrap(), expected);
        for error in ["NOPERM no", "LOADING data", "BUSY script", "ERR unknown command"] {
            let error = format!("-{error}\r\n").into_bytes();
            let refused = shake().reply(&error);
            assert!(matches!(refused, Err(HandshakeError::Refused(_))), "{refused:?}");
            let mut shake = shake();
            let replies = [b"+OK\r\n".as_slice(), &error, &error].map(|reply| shake.reply(reply));
            assert_eq!(replies, [Ok(false), Ok(false), Ok(true)]);
        }
        assert!(Handshake::for_control((b"", b""), "", "").is_done());
    }

    #[test]
    fn made_up_ids_are_not_asked_for() {
        let mut shake = Handshake::new(Protocol::Resp2, (b"", b""), "", false);
        shake.expect_node("127.0.0.1:7000");
        assert!(shake.is_done());
    }
}
