//! The commands sent on a new connection before the first one of a client, and their replies.

use std::collections::VecDeque;

use thiserror::Error;

use crate::buf::{Pool, SendQueue};
use crate::cluster::is_node_id;
use crate::resp::reply::{error_text, integer, text};
use crate::resp::tree::decode_whole;
use crate::resp::{Protocol, write};

/// Why a connection is not used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HandshakeError {
    /// The node refused: its own words.
    #[error("{0}")]
    Refused(String),
    /// The node loads its data, and does not say which node it is.
    #[error("{0}")]
    Loading(String),
    /// Another node answered than the one that was meant.
    #[error("another node answers there: {found}, not {expected}")]
    Stranger {
        /// The ID that the node gave.
        found: Box<str>,
        /// The ID of the node that was meant.
        expected: Box<str>,
    },
}

/// A command of the handshake whose reply is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Its reply only has to be no error.
    Plain,
    /// HELLO, whose reply has the CLIENT ID.
    Hello,
    /// CLUSTER MYID.
    NodeId,
    /// CLIENT ID.
    ClientId,
}

/// A handshake under way: HELLO (RESP3) or AUTH (RESP2 with a password), CLIENT SETNAME, CLUSTER
/// MYID.
#[derive(Debug, Default)]
pub struct Handshake {
    /// Bytes to write.
    pub out: SendQueue,
    /// Replies awaited.
    steps: VecDeque<Step>,
    /// Only a yes will do: it is somebody's password that is shown.
    strict: bool,
    /// The ID that the node must have.
    expected: Box<str>,
    /// The connection's CLIENT ID, once it is known.
    client_id: Option<i64>,
    /// The node may not be asked for its ID: the ACL of the user forbids it.
    unverified: bool,
}

impl Handshake {
    /// The handshake in `protocol` with the credentials of the configuration (an empty user is
    /// the cluster's default user, an empty password is none, an empty name is not set). With
    /// `identify` the connection's CLIENT ID is asked for.
    pub fn new(
        protocol: Protocol,
        (user, password): (&[u8], &[u8]),
        name: &str,
        identify: bool,
        pool: &mut Pool,
    ) -> Self {
        let mut shake = Handshake::default();
        let user_or_default = if user.is_empty() { b"default" } else { user };
        match (protocol, user.is_empty() && password.is_empty()) {
            (Protocol::Resp3, true) => shake.say(Step::Plain, &[b"HELLO", b"3"], pool),
            (Protocol::Resp3, false) => {
                let hello: [&[u8]; 5] = [b"HELLO", b"3", b"AUTH", user_or_default, password];
                shake.say(Step::Plain, &hello, pool);
            }
            (Protocol::Resp2, true) => {}
            (Protocol::Resp2, false) if user.is_empty() => {
                shake.say(Step::Plain, &[b"AUTH", password], pool);
            }
            (Protocol::Resp2, false) => shake.say(Step::Plain, &[b"AUTH", user, password], pool),
        }
        if !name.is_empty() {
            shake.say(Step::Plain, &[b"CLIENT", b"SETNAME", name.as_bytes()], pool);
        }
        if identify {
            shake.say(Step::ClientId, &[b"CLIENT", b"ID"], pool);
        }
        shake
    }

    /// The same for a user of the cluster, who need not have a right to anything else that slotway
    /// would say: HELLO takes it all, and its reply has the CLIENT ID.
    pub fn for_user(
        protocol: Protocol,
        (user, password): (&[u8], &[u8]),
        name: &str,
        pool: &mut Pool,
    ) -> Self {
        let version: &[u8] = if protocol == Protocol::Resp3 { b"3" } else { b"2" };
        let mut hello = vec![b"HELLO".as_slice(), version];
        if !user.is_empty() || !password.is_empty() {
            hello.extend([b"AUTH".as_slice(), user, password]);
        }
        if !name.is_empty() {
            hello.extend([b"SETNAME".as_slice(), name.as_bytes()]);
        }
        let mut shake = Handshake { strict: true, ..Handshake::default() };
        shake.say(Step::Hello, &hello, pool);
        shake
    }

    fn say(&mut self, step: Step, args: &[&[u8]], pool: &mut Pool) {
        let mut frame = Vec::new();
        write::request(&mut frame, args);
        self.out.push(&frame, pool);
        self.steps.push_back(step);
    }

    /// Asks the node for its ID as well: it must be `expected`, where that is an ID. A node that
    /// refuses to tell it is taken for the right one ([`Handshake::is_unverified`]).
    pub fn expect_node(&mut self, expected: &str, pool: &mut Pool) {
        if is_node_id(expected) {
            self.expected = expected.into();
            self.say(Step::NodeId, &[b"CLUSTER", b"MYID"], pool);
        }
    }

    /// The connection's CLIENT ID, where it was asked for.
    pub fn client_id(&self) -> Option<i64> {
        self.client_id
    }

    /// The node did not say which one it is, because the user may not ask.
    pub fn is_unverified(&self) -> bool {
        self.unverified
    }

    /// Says READONLY behind the rest.
    pub fn read_only(&mut self, pool: &mut Pool) {
        self.say(Step::Plain, &[b"READONLY"], pool);
    }

    /// Nothing is awaited any more.
    pub fn is_done(&self) -> bool {
        self.steps.is_empty()
    }

    /// Takes a reply. `true`: it was the last one.
    ///
    /// # Errors
    /// The connection is not to be used.
    pub fn reply(&mut self, frame: &[u8]) -> Result<bool, HandshakeError> {
        let step = self.steps.front().copied();
        if step == Some(Step::NodeId) {
            self.node_id(frame)?;
        } else if let Some(text) = error_text(frame)
            // A node that is busy with a script lets nothing through but what ends the script. It
            // has not looked at a user's password then, and who has none could be the default user
            // there.
            && (self.strict || !text.starts_with(b"BUSY "))
        {
            return Err(HandshakeError::Refused(String::from_utf8_lossy(text).into_owned()));
        }
        match step {
            Some(Step::ClientId) => self.client_id = integer(frame),
            Some(Step::Hello) => {
                self.client_id = decode_whole(frame).ok().and_then(|v| v.field("id")?.int());
            }
            _ => {}
        }
        self.steps.pop_front();
        Ok(self.steps.is_empty())
    }

    fn node_id(&mut self, frame: &[u8]) -> Result<(), HandshakeError> {
        if let Some(error) = error_text(frame) {
            // It would answer other commands as soon as it has loaded its data.
            if error.starts_with(b"LOADING ") {
                let text = String::from_utf8_lossy(error).into_owned();
                return Err(HandshakeError::Loading(text));
            }
            self.unverified |= error.starts_with(b"NOPERM ");
            return Ok(());
        }
        let found = text(frame).map(String::from_utf8_lossy).unwrap_or_default();
        if is_node_id(&found) && *found != *self.expected {
            let expected = std::mem::take(&mut self.expected);
            return Err(HandshakeError::Stranger { found: (*found).into(), expected });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_node_has_not_let_a_user_in() {
        let mut pool = Pool::default();
        let busy = b"-BUSY Redis is busy running a script.\r\n";
        let mut own = Handshake::new(Protocol::Resp3, (b"", b""), "", false, &mut pool);
        assert_eq!(own.reply(busy), Ok(true));
        let mut user = Handshake::for_user(Protocol::Resp3, (b"u", b"pw"), "", &mut pool);
        let refused = user.reply(busy).unwrap_err().to_string();
        assert!(refused.starts_with("BUSY"), "{refused}");
        assert!(!user.is_done());
    }

    #[test]
    fn the_node_must_be_the_one_that_is_meant() {
        let (ours, other) = ("a".repeat(40), "b".repeat(40));
        let id = |id: &str| format!("$40\r\n{id}\r\n").into_bytes();
        let shake = |reply: &[u8]| {
            let mut pool = Pool::default();
            let mut shake = Handshake::new(Protocol::Resp2, (b"", b""), "", true, &mut pool);
            shake.expect_node(&ours, &mut pool);
            assert_eq!(shake.reply(b":7\r\n"), Ok(false));
            shake.reply(reply).map(|done| (done, shake.client_id(), shake.is_unverified()))
        };
        assert_eq!(shake(&id(&ours)), Ok((true, Some(7), false)));
        let (found, expected) = (other.as_str().into(), ours.as_str().into());
        assert_eq!(shake(&id(&other)), Err(HandshakeError::Stranger { found, expected }));
        assert_eq!(shake(b"-NOPERM this user has no permissions\r\n"), Ok((true, Some(7), true)));
        assert_eq!(shake(b"-BUSY Redis is busy\r\n"), Ok((true, Some(7), false)));
        let loading = shake(b"-LOADING Redis is loading the dataset in memory\r\n");
        assert!(matches!(loading, Err(HandshakeError::Loading(_))), "{loading:?}");
    }

    #[test]
    fn made_up_ids_are_not_asked_for() {
        let mut pool = Pool::default();
        let mut shake = Handshake::new(Protocol::Resp2, (b"", b""), "", false, &mut pool);
        shake.expect_node("127.0.0.1:7000", &mut pool);
        assert!(shake.is_done());
    }
}
