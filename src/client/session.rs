//! The session of a client: what it has said about itself, and its connection's settings.

use crate::cluster::{UpstreamId, ViewId};
use crate::command::CommandId;
use crate::resp::Protocol;

/// Value of [`Session::last_command`] before the first command.
pub(super) const NO_COMMAND: CommandId = CommandId(u16::MAX);

/// The session of one client. Rarely used parts are boxed, as thousands of clients may be idle.
#[derive(Debug)]
pub struct Session {
    /// `CLIENT ID`: unique in this process, increasing.
    pub id: u64,
    /// The protocol: RESP3 after `HELLO 3`.
    pub protocol: Protocol,
    /// The modes that it is in. None for nearly all clients; the hot path checks only that.
    pub modes: SessionModes,
    /// The user's account, if there are users.
    pub account: Option<Box<crate::users::Account>>,
    /// What is on: one byte of each client.
    pub(super) switches: Switches,
    /// SELECT: the database of its commands.
    pub database: u16,
    /// Which upstreams it sees.
    pub view: ViewId,
    /// The last command; [`NO_COMMAND`] before the first.
    pub last_command: CommandId,
    /// `CLIENT SETNAME`.
    #[allow(clippy::box_collection)] // half as large where there is none
    pub name: Option<Box<Vec<u8>>>,
    /// `CLIENT SETINFO` and `CLIENT CAPA`.
    pub library: Option<Box<Library>>,
}

/// The client library, as announced by the client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Library {
    /// `CLIENT SETINFO LIB-NAME`.
    pub name: Vec<u8>,
    /// `CLIENT SETINFO LIB-VER`.
    pub version: Vec<u8>,
    /// `CLIENT CAPA redirect`.
    pub(super) takes_redirects: bool,
}

bitflags::bitflags! {
    /// What a session has on or off beside its modes, without leaving the usual path.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) struct Switches: u8 {
        /// `CLIENT NO-EVICT`.
        const NO_EVICT = 1;
        /// `CLIENT NO-TOUCH`.
        const NO_TOUCH = 2;
        /// See [`Session::cork`].
        const CORKED = 4;
        /// RESET restores [`SessionModes::READ_FROM`].
        const READ_FROM = 8;
        /// RESET restores [`SessionModes::RESTRICTED`].
        const RESTRICTED = 16;
        /// See [`Session::bind`].
        const BOUND = 32;
    }

    /// The modes of a session, each of which takes its commands off the usual path.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct SessionModes: u8 {
        /// Between MULTI and EXEC.
        const MULTI = 1;
        /// CLIENT REPLY OFF: no command is answered.
        const SILENT = 2;
        /// CLIENT REPLY SKIP: the next command is not answered.
        const SKIP = 4;
        /// READONLY: reads may go to replicas.
        const READONLY = 8;
        /// The client has subscriptions.
        const SUBSCRIBED = 16;
        /// `read_from` of the configuration: reads may go elsewhere than to primaries.
        const READ_FROM = 32;
        /// There are users: its permissions are checked. Survives RESET.
        const RESTRICTED = 64;
        /// CLIENT PAUSE: commands may have to wait. A state of the proxy, so it survives RESET.
        const SUSPENDED = 128;
    }
}

impl Session {
    /// The session of a new connection.
    pub fn new(id: u64) -> Self {
        Session {
            id,
            protocol: Protocol::Resp2,
            modes: SessionModes::empty(),
            account: None,
            switches: Switches::empty(),
            database: 0,
            view: ViewId::ROUTED,
            last_command: NO_COMMAND,
            name: None,
            library: None,
        }
    }

    /// Gives the client the upstream of its listener, and no other.
    pub fn bind(&mut self, upstream: UpstreamId) {
        self.switches.insert(Switches::BOUND);
        self.view = ViewId::of(upstream);
    }

    /// Whether the client's listener has an upstream of its own.
    pub fn is_bound(&self) -> bool {
        self.switches.contains(Switches::BOUND)
    }

    /// RESET: selects the database of a new connection.
    pub(super) fn reset_database(&mut self) {
        self.database = 0;
        if !self.is_bound() {
            self.view = ViewId::ROUTED;
        }
    }

    /// Holds output back until the next reply, once: +QUEUED and the like are written together with
    /// EXEC's reply, as a server would.
    pub fn cork(&mut self) {
        self.switches.insert(Switches::CORKED);
    }

    /// Whether output is held back; it is no more from now on.
    #[inline]
    pub fn uncork(&mut self) -> bool {
        let was = self.switches.contains(Switches::CORKED);
        self.switches.remove(Switches::CORKED);
        was
    }

    /// Lets reads go elsewhere than to primaries, until the client sends READWRITE.
    pub fn reads_by_configuration(&mut self) {
        self.switches.insert(Switches::READ_FROM);
        self.modes.insert(SessionModes::READ_FROM);
    }

    /// Applies a change of `read_from`.
    pub fn set_reads_by_configuration(&mut self, elsewhere: bool) {
        if elsewhere == self.switches.contains(Switches::READ_FROM) {
            return; // a later READWRITE stays in effect
        }
        if elsewhere {
            return self.reads_by_configuration();
        }
        self.switches.remove(Switches::READ_FROM);
        self.modes.remove(SessionModes::READ_FROM);
    }

    /// Turns on permission checks.
    pub fn restrict(&mut self) {
        self.switches.insert(Switches::RESTRICTED);
        self.modes.insert(SessionModes::RESTRICTED);
    }

    /// READWRITE: sends reads to primaries.
    pub(super) fn read_write(&mut self) {
        self.modes.remove(SessionModes::READONLY | SessionModes::READ_FROM);
    }

    /// RESET: restores the initial modes, except for CLIENT PAUSE.
    pub(super) fn reset_modes(&mut self) {
        self.modes &= SessionModes::SUSPENDED;
        self.modes.set(SessionModes::READ_FROM, self.switches.contains(Switches::READ_FROM));
        self.modes.set(SessionModes::RESTRICTED, self.switches.contains(Switches::RESTRICTED));
    }

    /// Whether the client has to authenticate before other commands, as far as the session knows.
    #[inline]
    pub fn must_log_in(&self) -> bool {
        self.modes.contains(SessionModes::RESTRICTED)
            && self.account.as_ref().is_some_and(|a| !a.is_authenticated())
    }

    /// Whether commands that do not read take the usual path.
    pub fn is_ordinary(&self) -> bool {
        SessionModes::READ_FROM.contains(self.modes)
    }

    /// Memory of the boxed parts, in bytes.
    pub fn memory(&self) -> usize {
        let library = |l: &Library| l.name.capacity() + l.version.capacity();
        let account = self.account.as_ref();
        account.map_or(0, |account| size_of_val(&**account) + account.asked())
            + self.name.as_ref().map_or(0, |n| n.len())
            + self.library.as_deref().map_or(0, library)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_read_from_is_for_connections_that_said_nothing_of_their_own() {
        let mut plain = Session::new(1);
        plain.set_reads_by_configuration(true);
        assert_eq!(plain.modes, SessionModes::READ_FROM);
        let mut own = Session::new(2);
        own.reads_by_configuration();
        own.read_write();
        own.set_reads_by_configuration(true);
        assert!(own.modes.is_empty(), "READWRITE stays");
        own.reset_modes();
        assert_eq!(own.modes, SessionModes::READ_FROM);
        let mut reader = Session::new(3);
        reader.set_reads_by_configuration(true);
        reader.modes.insert(SessionModes::READONLY);
        reader.set_reads_by_configuration(false);
        assert_eq!(reader.modes, SessionModes::READONLY, "READONLY stays");
        reader.reset_modes();
        assert!(reader.modes.is_empty());
    }
}
