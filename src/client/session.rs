//! What a client said of itself, and what its connection is set to.

use crate::command::CommandId;
use crate::resp::Protocol;

/// [`Session::last_command`] before the first one.
pub(super) const NO_COMMAND: CommandId = CommandId(u16::MAX);

/// One client's session. The rarely used parts are boxed: thousands of clients are idle.
#[derive(Debug)]
pub struct Session {
    /// `CLIENT ID`: unique in this process, growing.
    pub id: u64,
    /// RESP2, or RESP3 after `HELLO 3`.
    pub protocol: Protocol,
    /// Of [`mode`]: what makes its commands go another way than the usual one. 0 for nearly all
    /// clients, which is all that the hot path asks.
    pub modes: u8,
    /// The modes that it began with, and has again after RESET.
    first_modes: u8,
    /// Who it is, where there are users.
    pub account: Option<Box<crate::users::Account>>,
    /// `CLIENT NO-EVICT`.
    pub(super) no_evict: bool,
    /// `CLIENT NO-TOUCH`.
    pub(super) no_touch: bool,
    /// What there is to write waits for the next reply, once: +QUEUED and its like go out with
    /// EXEC's reply, as a server would write them.
    pub corked: bool,
    /// Its last command, an index of the command table; [`NO_COMMAND`] before the first.
    pub last_command: CommandId,
    /// `CLIENT SETNAME`.
    #[allow(clippy::box_collection)] // half as large where there is none
    pub name: Option<Box<Vec<u8>>>,
    /// `CLIENT SETINFO` and `CLIENT CAPA`.
    pub library: Option<Box<Library>>,
}

/// What a client says of its library.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Library {
    /// `CLIENT SETINFO LIB-NAME`.
    pub name: Vec<u8>,
    /// `CLIENT SETINFO LIB-VER`.
    pub version: Vec<u8>,
    /// `CLIENT CAPA redirect`.
    pub(super) takes_redirects: bool,
}

/// The modes of a session.
pub mod mode {
    /// Between MULTI and EXEC.
    pub const MULTI: u8 = 1;
    /// CLIENT REPLY OFF: no command is answered.
    pub const SILENT: u8 = 2;
    /// CLIENT REPLY SKIP: the next command is not answered.
    pub const SKIP: u8 = 4;
    /// READONLY: reads may go to replicas.
    pub const READONLY: u8 = 8;
    /// It is subscribed to something.
    pub const SUBSCRIBED: u8 = 16;
    /// The configuration's `read_from`: reads may go elsewhere than to primaries.
    pub const READ_FROM: u8 = 32;
    /// There are users: what it may do is looked at. It outlives RESET.
    pub const RULED: u8 = 64;
    /// CLIENT PAUSE: commands may have to wait. The proxy's doing, not the session's: it outlives
    /// RESET.
    pub const SUSPENDED: u8 = 128;
}

impl Session {
    /// A new connection's.
    pub fn new(id: u64) -> Self {
        Session {
            id,
            protocol: Protocol::Resp2,
            modes: 0,
            first_modes: 0,
            account: None,
            no_evict: false,
            no_touch: false,
            corked: false,
            last_command: NO_COMMAND,
            name: None,
            library: None,
        }
    }

    /// Its reads may go elsewhere than to primaries, until it says READWRITE.
    pub fn reads_by_configuration(&mut self) {
        self.first_modes |= mode::READ_FROM;
        self.modes |= mode::READ_FROM;
    }

    /// The configuration has changed in that.
    pub fn set_reads_by_configuration(&mut self, elsewhere: bool) {
        if elsewhere == (self.first_modes & mode::READ_FROM != 0) {
            return; // and who said READWRITE since stays with it
        }
        if elsewhere {
            return self.reads_by_configuration();
        }
        self.first_modes &= !mode::READ_FROM;
        self.modes &= !mode::READ_FROM;
    }

    /// Its commands are looked at before they are carried out.
    pub fn ruled(&mut self) {
        self.first_modes |= mode::RULED;
        self.modes |= mode::RULED;
    }

    /// READWRITE: its reads go to primaries.
    pub(super) fn read_write(&mut self) {
        self.modes &= !(mode::READONLY | mode::READ_FROM);
    }

    /// RESET: as it began, but for CLIENT PAUSE.
    pub(super) fn reset_modes(&mut self) {
        self.modes = (self.modes & mode::SUSPENDED) | self.first_modes;
    }

    /// It has to log in before it may do anything, as far as is known.
    #[inline]
    pub fn is_stranger(&self) -> bool {
        self.modes & mode::RULED != 0
            && self.account.as_ref().is_some_and(|a| !a.is_authenticated())
    }

    /// What does not read is sent on as it is.
    pub fn is_ordinary(&self) -> bool {
        self.modes & !mode::READ_FROM == 0
    }

    /// Bytes that it occupies beside itself.
    pub fn held(&self) -> usize {
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
        assert_eq!(plain.modes, mode::READ_FROM);
        let mut own = Session::new(2);
        own.reads_by_configuration();
        own.read_write();
        own.set_reads_by_configuration(true);
        assert_eq!(own.modes, 0, "READWRITE stays");
        own.reset_modes();
        assert_eq!(own.modes, mode::READ_FROM);
        let mut reader = Session::new(3);
        reader.set_reads_by_configuration(true);
        reader.modes |= mode::READONLY;
        reader.set_reads_by_configuration(false);
        assert_eq!(reader.modes, mode::READONLY, "READONLY stays");
        reader.reset_modes();
        assert_eq!(reader.modes, 0);
    }
}
