//! What is said on a new connection before the first command.

use crate::buf::{Pool, SendQueue};
use crate::resp::reply::{error_text, integer};
use crate::resp::tree::decode_whole;
use crate::resp::{Protocol, write};

/// A handshake under way: HELLO (RESP3) or AUTH (RESP2 with a password), CLIENT SETNAME.
#[derive(Debug, Default)]
pub struct Handshake {
    /// Bytes to write.
    pub out: SendQueue,
    /// Replies awaited.
    left: u32,
    /// Only a yes will do: it is somebody's password that is shown.
    strict: bool,
}

impl Handshake {
    /// The handshake in `protocol` with the credentials of the configuration (an empty user is
    /// the cluster's default user, an empty password is none, an empty name is not set). With `identify` the last
    /// reply is the connection's CLIENT ID.
    pub fn new(
        protocol: Protocol,
        (user, password): (&[u8], &[u8]),
        name: &str,
        identify: bool,
        pool: &mut Pool,
    ) -> Self {
        let mut shake = Handshake::default();
        let mut say = |args: &[&[u8]]| {
            let mut frame = Vec::new();
            write::request(&mut frame, args);
            shake.out.push(&frame, pool);
            shake.left += 1;
        };
        let user_or_default = if user.is_empty() { b"default" } else { user };
        match (protocol, user.is_empty() && password.is_empty()) {
            (Protocol::Resp3, true) => say(&[b"HELLO", b"3"]),
            (Protocol::Resp3, false) => {
                say(&[b"HELLO", b"3", b"AUTH", user_or_default, password]);
            }
            (Protocol::Resp2, true) => {}
            (Protocol::Resp2, false) if user.is_empty() => say(&[b"AUTH", password]),
            (Protocol::Resp2, false) => say(&[b"AUTH", user, password]),
        }
        if !name.is_empty() {
            say(&[b"CLIENT", b"SETNAME", name.as_bytes()]);
        }
        if identify {
            say(&[b"CLIENT", b"ID"]);
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
        let mut frame = Vec::new();
        write::request(&mut frame, &hello);
        let mut shake = Handshake { left: 1, strict: true, ..Handshake::default() };
        shake.out.push(&frame, pool);
        shake
    }

    /// The connection's number, of the last reply to a handshake.
    pub fn id(frame: &[u8]) -> Option<i64> {
        let of_hello = || decode_whole(frame).ok()?.field("id")?.int();
        integer(frame).or_else(of_hello)
    }

    /// Says READONLY behind the rest.
    pub fn read_only(&mut self, pool: &mut Pool) {
        let mut frame = Vec::new();
        write::request(&mut frame, &[b"READONLY"]);
        self.out.push(&frame, pool);
        self.left += 1;
    }

    /// Nothing is awaited any more.
    pub fn is_done(&self) -> bool {
        self.left == 0
    }

    /// Takes a reply. `true`: it was the last one.
    ///
    /// # Errors
    /// The node's own words, where it refuses.
    pub fn reply(&mut self, frame: &[u8]) -> Result<bool, String> {
        // A node that is busy with a script lets nothing through but what ends the script. It has
        // not looked at a user's password then, and who has none could be the default user there.
        if let Some(text) = error_text(frame)
            && (self.strict || !text.starts_with(b"BUSY "))
        {
            return Err(String::from_utf8_lossy(text).into_owned());
        }
        self.left = self.left.saturating_sub(1);
        Ok(self.left == 0)
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
        assert!(user.reply(busy).is_err_and(|text| text.starts_with("BUSY")));
        assert!(!user.is_done());
    }
}
